"""`orchestrator.py test`: reads once, says what it sees, writes nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from supervise.instance import lock
from tests.commands.bench import at_terminal, orchestrator
from tests.peers.process import free_ports, listens, wait_for
from tests.shim.chips import Ina219, Mcp3008, level
from tests.shim.simulators import I2c, Spi, simulated
from tests.workers.pzem_slave import ac, dc, plugged_in

HEAD = '[site]\ndata_dir = "{folder}/var"\n'


def site(folder: Path, text: str) -> Path:
    file = folder / "site.toml"
    file.write_text(HEAD.format(folder=folder) + text)
    return file


def shunts(folder: Path, *units: int) -> str:
    head = f'[sources.shunts]\nkind = "pzem"\nport = "{folder}/adapter"\ntimeout_s = 0.5\ninterval_s = 5\n'
    return head + "".join(
        f'[[sources.shunts.devices]]\nname = "u{unit}"\nunit = {unit}\nmodel = "{"017" if unit < 5 else "016"}"\n'
        + ("shunt_a = 100\n" if unit < 5 else "")
        for unit in units
    )


def test_one_source_is_a_table_of_80_columns_with_units_and_quality(tmp_path: Path) -> None:
    file = site(tmp_path, '[sources.demo]\nkind = "simulated"\n')
    done = orchestrator("test", "demo", "--config", file)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["device", "metric", "value", "quality"] in rows
    [fridge] = [row for row in rows if row[:2] == ["fridge", "power_w"]]
    assert fridge[3:] == ["W", "simulated"]
    assert list(tmp_path.iterdir()) == [file], "it writes nothing, not even the data directory"


def test_a_pzem_line_shows_who_answers_and_says_what_to_do_about_who_does_not(tmp_path: Path) -> None:
    file = site(tmp_path, shunts(tmp_path, 1, 2, 5))
    with plugged_in(tmp_path / "adapter", {1: dc(1), 5: ac(5)}) as slave:
        done = orchestrator("test", "shunts", "--config", file)
        assert all(request[1] in (3, 4) for request in slave.requests)
    assert done.returncode == 3
    assert ["u1", "voltage_v", "12.6", "V", "measured"] in [line.split() for line in done.stdout.splitlines()]
    assert ["power_w", "1141.9", "W", "measured"] in [line.split() for line in done.stdout.splitlines()]
    assert "! u2: unit 2 does not answer; check the A and B wires" in done.stdout


def test_it_sets_no_shunt_even_where_the_house_would(tmp_path: Path) -> None:
    file = site(tmp_path, shunts(tmp_path, 1).replace("[[", "apply_shunt_codes = true\n[[", 1))
    with plugged_in(tmp_path / "adapter", {1: dc(1, shunt=2)}) as slave:
        done = orchestrator("test", "shunts", "--config", file)
        assert {request[1] for request in slave.requests} == {3, 4}
    assert done.returncode == 3
    assert "is set to a shunt of 200 A, the configuration says 100 A" in done.stdout


def test_a_port_that_is_not_there_ends_with_1_and_what_to_do(tmp_path: Path) -> None:
    file = site(tmp_path, shunts(tmp_path, 1) + '[sources.demo]\nkind = "simulated"\n')
    done = orchestrator("test", "shunts", "--config", file)
    assert done.returncode == 1
    assert "adapter is not there; plug in the adapter, or correct port" in done.stdout
    done = orchestrator("test", "--config", file)
    assert done.returncode == 3
    assert "1 of 2 sources good; nothing was written." in done.stdout


def test_a_port_that_the_running_house_has_is_said_to_be_its(tmp_path: Path) -> None:
    [port] = free_ports(1)
    text = f'[sources.meter]\nkind = "esp32_http"\nport = {port}\n[[sources.meter.devices]]\nname = "m"\n'
    file = site(tmp_path, text)
    (tmp_path / "var").mkdir()
    with at_terminal("run", "--config", file) as house:
        wait_for(lambda: listens(port), "the house")
        done = orchestrator("test", "meter", "--config", file)
        assert done.returncode == 1
        assert f"the house runs (process {house.process.pid}) and reads it already" in done.stdout
        house.process.send_signal(signal.SIGTERM)
        assert house.end() == 0


def test_what_is_posted_is_shown_and_not_acknowledged(tmp_path: Path) -> None:
    [port] = free_ports(1)
    text = f'[sources.meter]\nkind = "esp32_http"\nport = {port}\n[[sources.meter.devices]]\nname = "m"\n'
    with at_terminal("test", "meter", "--config", site(tmp_path, text), "--wait", "30") as terminal:
        terminal.expect(f"listening on port {port}")
        terminal.wait(lambda: listens(port), "the port")
        body = json.dumps({"device": "m", "pulses_total": 91234}).encode()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=20)
        assert terminal.end() == 0
        terminal.expect("91234")
        terminal.expect("was not acknowledged: its sender will send it again")


def test_nothing_that_arrives_is_a_failure_with_something_to_try(tmp_path: Path) -> None:
    [port] = free_ports(1)
    text = f'[sources.meter]\nkind = "esp32_http"\nport = {port}\n[[sources.meter.devices]]\nname = "m"\n'
    done = orchestrator("test", "meter", "--wait", "0.3", "--config", site(tmp_path, text))
    assert done.returncode == 1
    assert f"nothing arrived on port {port} in 0.3 s; see that the devices are on" in done.stdout
    assert f"meter: listening on port {port} for 0.3 s" in done.stderr


def serves(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except OSError:
        return False
    return True


def test_ctrl_c_ends_the_listening_without_a_word(tmp_path: Path) -> None:
    [port] = free_ports(1)
    text = f'[sources.meter]\nkind = "esp32_http"\nport = {port}\n[[sources.meter.devices]]\nname = "m"\n'
    with at_terminal("test", "meter", "--config", site(tmp_path, text), "--wait", "60") as terminal:
        terminal.wait(lambda: serves(port), "an answer: the port alone is there before anybody serves it")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130
        assert "Aborted" not in terminal.seen
    assert not listens(port)


def test_spi_and_i2c_through_the_real_drivers(tmp_path: Path) -> None:
    file = site(
        tmp_path,
        '[sources.clamps]\nkind = "mcp3008"\n[[sources.clamps.devices]]\nname = "saw"\nchannel = 0\n'
        '[sources.rails]\nkind = "ina219"\n[[sources.rails.devices]]\nname = "fridge"\n'
        '[[sources.rails.devices]]\nname = "lamp"\naddress = 0x41\n',
    )
    with simulated(
        spidev0_0=Spi(Mcp3008({0: level(1.65)})), i2c_1=I2c({0x40: Ina219(amps=1.5, volts=12)})
    ) as simulator:
        done = orchestrator("test", "--json", "--config", file, environment=simulator.environment)
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)["sources"]
    assert told["clamps"]["status"] == 0
    assert told["clamps"]["devices"]["saw"]["values"]["current_a"] == pytest.approx(0.583, abs=0.01)
    assert told["rails"]["status"] == 3
    assert told["rails"]["devices"]["fridge"]["values"]["current_a"] == pytest.approx(1.5, abs=0.01)
    assert "nothing answers at 0x41" in told["rails"]["troubles"]["lamp"]


def test_a_bus_that_this_user_may_not_open_names_the_group(tmp_path: Path) -> None:
    file = site(tmp_path, '[sources.rails]\nkind = "ina219"\n[[sources.rails.devices]]\nname = "fridge"\n')
    with simulated() as simulator:
        simulator.files["/dev/i2c-1"] = errno.EACCES
        done = orchestrator("test", "rails", "--config", file, environment=simulator.environment)
    assert done.returncode == 1
    assert "add it to the group i2c" in done.stdout


@pytest.mark.parametrize(
    ("kind", "module", "device"),
    [
        ("pzem", "minimalmodbus", 'port = "/dev/null"\n[[sources.x.devices]]\nname = "a"\nunit = 1\nmodel = "016"\n'),
        ("mcp3008", "spidev", '[[sources.x.devices]]\nname = "a"\nchannel = 1\n'),
        ("ina219", "smbus2", '[[sources.x.devices]]\nname = "a"\n'),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_the_command_that_installs_it(
    tmp_path: Path, kind: str, module: str, device: str
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('hidden', name='{module}')\n")
    file = site(tmp_path, f'[sources.x]\nkind = "{kind}"\n{device}')
    done = orchestrator("test", "x", "--config", file, environment={"PYTHONPATH": str(hidden)})
    assert done.returncode == 1
    assert f"the package {module} is not installed; run: make install" in done.stdout
    assert f"requirements/{kind}.txt" in done.stdout


def test_an_unknown_source_ends_with_2_and_the_nearest_name(tmp_path: Path) -> None:
    file = site(tmp_path, '[sources.kitchen]\nkind = "simulated"\n')
    done = orchestrator("test", "kichen", "--config", file)
    assert done.returncode == 2
    assert "there is no source 'kichen'; did you mean \"kitchen\"?" in done.stderr


def test_pulses_without_a_chip_are_refused_in_words(tmp_path: Path) -> None:
    if list(Path("/dev").glob("gpiochip*")):
        pytest.skip("this machine has a GPIO chip")
    file = site(tmp_path, '[sources.meter]\nkind = "pulse"\n')
    done = orchestrator("test", "meter", "--config", file)
    assert done.returncode == 1
    assert "there is no GPIO chip on this machine" in done.stdout


def test_the_lock_of_a_house_is_seen_and_left_alone(tmp_path: Path) -> None:
    file = site(tmp_path, '[sources.demo]\nkind = "simulated"\n')
    (tmp_path / "var").mkdir()
    held = lock(tmp_path / "var", 0)
    assert orchestrator("test", "demo", "--config", file).returncode == 0
    assert (tmp_path / "var" / "wattherd.lock").read_text().strip() == str(os.getpid())
    os.close(held)
