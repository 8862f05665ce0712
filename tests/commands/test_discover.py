"""`orchestrator.py discover`: what is there is named, what it prints is a configuration, and nothing is written."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from commands._discover_gpio import GpioChip, GpioLine, described
from commands._discover_modbus import candidates_in
from commands._discovery import Discovery
from commands.discover import command
from tests.commands.bench import at_terminal, orchestrator
from tests.shim.chips import Ina219, Ina226, Ina260, Ina3221, Pca9685
from tests.shim.simulators import I2c, simulated
from tests.workers.pzem_slave import ac, bad_crc, dc, plugged_in
from workers._modbus import Bus, Line


def block_of(printed: str) -> str:
    """The configuration in what was printed."""
    found = re.search(r"^\[sources\..*?(?=\n\n[^\[]|\Z)", printed, re.DOTALL | re.MULTILINE)
    assert found, printed
    return found[0]


def assert_check_takes(block: str, folder: Path, count: str) -> None:
    file = folder / "site.toml"
    file.write_text(block)
    done = orchestrator("check", "--config", file)
    assert done.returncode == 0, done.stderr + block
    assert count in done.stdout


def test_modbus_names_every_unit_and_its_block_passes_the_check(tmp_path: Path) -> None:
    port = tmp_path / "adapter"
    with plugged_in(port, {1: dc(1), 2: ac(2), 6: dc(6, shunt=None), 7: dc(7, shunt=9)}) as slave:
        done = orchestrator("discover", "modbus", "--port", port, "--units", "1-8", "--timeout", "0.1")
        assert {request[1] for request in slave.requests} == {3, 4}
    assert done.returncode == 0, done.stdout
    assert f"{port}: 4 PZEM at the addresses 1 to 8" in done.stdout
    assert "  unit 1: 017, set to a shunt of 100 A: 12.60 V, 3.450 A, 43.4 W" in done.stdout
    assert "  unit 2: 004t or 014 or 016: 230.40 V" in done.stdout
    assert "  unit 6: 003: " in done.stdout
    assert "  unit 7: 017, set to an unknown shunt" in done.stdout
    assert_check_takes(block_of(done.stdout), tmp_path, "1 source, 4 devices")


def test_two_lines_are_two_sources_and_a_bad_unit_is_told_and_left_out(tmp_path: Path) -> None:
    with plugged_in(tmp_path / "one", {1: ac(1)}), plugged_in(tmp_path / "two", {1: ac(1), 2: ac(2)}) as second:
        second.moods[2] = bad_crc
        ports = ("--port", tmp_path / "one", "--port", tmp_path / "two", "--port", tmp_path / "three")
        done = orchestrator("discover", "modbus", *ports, "--units", "1-2", "--timeout", "0.1", "--json")
    assert done.returncode == 3, done.stdout
    told = json.loads(done.stdout)["modbus"]
    assert [[unit["unit"] for unit in line["units"]] for line in told["found"]] == [[1], [1]]
    assert any("unit 2" in problem for problem in told["problems"])
    assert any("three is not there; plug in the adapter" in problem for problem in told["problems"])
    assert_check_takes(told["block"], tmp_path, "2 sources, 2 devices")


def test_a_silent_line_and_a_busy_one_say_what_to_try(tmp_path: Path) -> None:
    with plugged_in(tmp_path / "adapter", {9: ac(9)}):
        words = ("discover", "modbus", "--port", tmp_path / "adapter", "--units", "1-2", "--timeout", "0.05")
        done = orchestrator(*words)
        assert done.returncode == 1
        assert "try: check the 5 V supply" in done.stdout
        assert "./orchestrator.py discover modbus --units 1-247" in done.stdout
        bus = Bus(Line())
        bus.open(str(tmp_path / "adapter"))
        try:
            done = orchestrator(*words)
        finally:
            bus.close()
        assert done.returncode == 1
        assert "is in use by process" in done.stdout


def test_a_scan_at_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    with plugged_in(tmp_path / "adapter", {1: ac(1)}):
        words = ("discover", "modbus", "--port", tmp_path / "adapter", "--units", "1-3", "--timeout", "0.05")
        with at_terminal(*words) as terminal:
            assert terminal.end() == 0
            terminal.expect("100%")


def test_ports_are_found_once_each_by_the_name_that_stays(tmp_path: Path) -> None:
    (tmp_path / "serial" / "by-id").mkdir(parents=True)
    for name in ("ttyUSB0", "ttyUSB1", "ttyAMA0", "ttyS0"):
        (tmp_path / name).touch()
    (tmp_path / "serial" / "by-id" / "usb-1a86").symlink_to(tmp_path / "ttyUSB1")
    (tmp_path / "serial0").symlink_to(tmp_path / "ttyAMA0")
    found = [str(Path(port).relative_to(tmp_path)) for port in candidates_in(tmp_path)]
    assert found == ["serial/by-id/usb-1a86", "ttyUSB0", "ttyAMA0"]


@pytest.mark.parametrize("units", ["0-3", "5-1", "1-300", "x", "1-", "-4", ""])
def test_a_range_that_is_none_ends_with_2(units: str) -> None:
    done = CliRunner().invoke(command, ["modbus", f"--units={units}"])
    assert done.exit_code == 2
    assert "is no range of addresses: 1-247, say" in done.stderr


def test_i2c_names_each_model_by_reading_alone_and_its_block_passes_the_check(tmp_path: Path) -> None:
    chips = {0x40: Ina219(), 0x41: Ina226(), 0x42: Ina3221({1: (0, 5), 2: (0, 5), 3: (0, 5)}), 0x44: Ina260()}
    used = Ina219()
    used.write(bytes([0, 0x3C, 0x1B]))
    used.write(bytes([5, 0x10, 0x00]))
    before = len(used.writes)
    servo = Pca9685()
    with simulated(i2c_1=I2c({**chips, 0x45: used, 0x4F: servo})) as simulator:
        done = orchestrator("discover", "i2c", "--bus", "1", environment=simulator.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/dev/i2c-1: 5 current sensors" in done.stdout
    for words in ("0x40: INA219\n", "0x41: INA226\n", "0x42: INA3221\n", "0x44: INA260\n", "0x45: INA219, as it seems"):
        assert words in done.stdout
    assert "0x4F: something else (its register 0 is 0x1104): a PCA9685" in done.stdout
    assert [chip.writes for chip in chips.values()] == [[], [], [], []]
    assert (len(used.writes), servo.writes) == (before, [])
    assert_check_takes(block_of(done.stdout), tmp_path, "1 source, 7 devices")


def test_a_block_for_i2c_is_read_as_it_is(tmp_path: Path) -> None:
    bus = I2c({0x40: Ina219(amps=1.5, volts=12), 0x41: Ina226(amps=0.5, volts=5), 0x44: Ina260(amps=3, volts=24)})
    with simulated(i2c_1=bus) as simulator:
        told = json.loads(
            orchestrator("discover", "i2c", "--bus", "1", "--json", environment=simulator.environment).stdout
        )
        (tmp_path / "site.toml").write_text(told["i2c"]["block"])
        done = orchestrator("test", "rails", "--config", tmp_path / "site.toml", environment=simulator.environment)
    assert done.returncode == 0, done.stdout
    assert [line.split()[-3] for line in done.stdout.splitlines() if "current_a" in line] == ["1.5", "0.5", "3"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (errno.EACCES, "this user may not use /dev/i2c-1; run: sudo usermod -aG i2c $USER"),
        (errno.ENOENT, "there is no /dev/i2c-1; enable I2C: sudo raspi-config"),
    ],
)
def test_a_bus_that_cannot_be_opened_says_why(fault: int, words: str) -> None:
    with simulated() as simulator:
        simulator.files["/dev/i2c-1"] = fault
        done = orchestrator("discover", "i2c", "--bus", "1", environment=simulator.environment)
    assert done.returncode == 1
    assert words in done.stdout


def test_an_empty_bus_a_stuck_one_and_a_held_chip_say_what_to_do() -> None:
    empty, stuck, held = I2c({}), I2c({0x40: Ina219()}), I2c({0x40: Ina219()})
    stuck.fail, held.held = errno.ETIMEDOUT, {0x40}
    with simulated(i2c_1=empty, i2c_3=stuck, i2c_4=held) as simulator:
        words = ("--bus", "1", "--bus", "3", "--bus", "4")
        done = orchestrator("discover", "i2c", *words, environment=simulator.environment)
    assert done.returncode == 1
    assert "/dev/i2c-1: no current sensors" in done.stdout
    assert "/dev/i2c-3 is stuck" in done.stdout
    assert "0x40: a driver of the kernel holds it" in done.stdout
    assert "try: see who answers at all: i2cdetect -y 1" in done.stdout


def pi(used: dict[int, str]) -> GpioChip:
    lines = tuple(GpioLine(number, f"GPIO{number}", used.get(number, "")) for number in range(54))
    return GpioChip("/dev/gpiochip0", "pinctrl-bcm2711", lines)


def test_gpio_names_who_uses_what_and_its_block_passes_the_check(tmp_path: Path) -> None:
    other = GpioChip("/dev/gpiochip1", "raspberrypi-exp-gpio", (GpioLine(0, "BT_ON", "shutdown"),))
    found = described([other, pi({4: "onewire@0", 26: "fan"})])
    assert found.status == 0
    assert "/dev/gpiochip0: pinctrl-bcm2711, 54 lines, the one with the header pins" in found.lines
    assert "  line 26 (GPIO26): used by fan" in found.lines
    assert "  free on the header: 0-3, 5-25, 27" in found.lines
    assert re.findall(r"^line = (\d+)", found.block, re.MULTILINE) == ["20", "16", "21"], "26 is the fan's"
    assert 'chip = "pinctrl-bcm2711"' in found.block
    assert_check_takes(found.block, tmp_path, "1 source, 3 devices")


def test_gpio_without_a_free_line_prints_no_block() -> None:
    found = described([GpioChip("/dev/gpiochip0", "x", (GpioLine(0, "", "w1"),))])
    assert found.block == ""
    assert found.lines[-1] == "  free: none"
    assert described([]).status == 1


def test_without_anything_each_kind_says_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the network of the machine that tests this is nobody's business: these two have tests of their own."""
    if any(map(list, (Path("/dev").glob(name) for name in ("gpiochip*", "i2c-*", "ttyUSB*", "ttyAMA*", "serial*")))):
        pytest.skip("this machine has such things")
    for network in ("kasa", "tuya"):
        nobody = Discovery(what_now=[f"switch a {network} plug on"])
        monkeypatch.setattr(f"commands._discover_{network}.look", lambda *_, nobody=nobody: nobody)
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 1
    headings = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("== ")]
    assert headings == ["modbus", "i2c", "gpio", "kasa", "tuya"]
    for words in (
        "ls /dev/serial/by-id shows it then",
        "sudo raspi-config nonint do_i2c 0",
        "--device /dev/gpiochip0",
        "switch a kasa plug on",
        "switch a tuya plug on",
    ):
        assert words in done.stdout
    assert "Next: " not in done.stdout


@pytest.mark.parametrize(
    ("kind", "module", "words"), [("modbus", "minimalmodbus", "pzem"), ("i2c", "smbus2", "ina219")]
)
def test_a_missing_driver_is_named_with_its_command(tmp_path: Path, kind: str, module: str, words: str) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('hidden', name='{module}')\n")
    port = ("--port", "/dev/null") if kind == "modbus" else ()
    done = orchestrator("discover", kind, *port, environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert f"the package {module} is not installed; run: make install (or .venv/bin/pip" in done.stdout
    assert f"requirements/{words}.txt" in done.stdout
