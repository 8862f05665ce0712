"""`orchestrator.py pzem`, on a line of our own: it finds, reads, and writes only what was typed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from commands.pzem import command
from tests.workers.pzem_slave import Slave, Unit, ac, bad_crc, dc, frame, plugged_in, silent
from workers._modbus import Bus, Line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def slave(tmp_path: Path) -> Iterator[Slave]:
    units = {1: dc(1), 2: ac(2), 5: dc(5, 48.21, 2, 96.4, 1_000_000, shunt=2), 6: dc(6, shunt=None)}
    with plugged_in(tmp_path / "adapter", units) as slave:
        yield slave


def run(slave: Slave, *arguments: str, typed: str = "") -> Result:
    """Run a subcommand on the line, as a person at a terminal does."""
    port = [] if "--config" in arguments else ["--port", str(slave.link)]
    result = CliRunner().invoke(command, [*arguments, *port, "--timeout", "0.1"], input=typed, prog_name="pzem")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def writes(slave: Slave) -> list[str]:
    return [request.hex(" ") for request in slave.requests if request[1] not in (3, 4)]


@pytest.fixture
def config(slave: Slave, tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(f"""
[sources.shunts]
kind = "pzem"
port = "{slave.link}"
[[sources.shunts.devices]]
name = "battery"
unit = 1
model = "017"
shunt_a = 100
[[sources.shunts.devices]]
name = "cooker"
unit = 2
model = "016"
[sources.demo]
kind = "simulated"
[outputs.csv]
""")
    return path


def test_scan_finds_every_unit_and_tells_what_it_is(slave: Slave) -> None:
    result = run(slave, "scan", "--last", "8")
    assert result.exit_code == 0
    assert "  1  017  12.60 V  3.450 A  43.4 W  100000 Wh  shunt 100 A" in result.stdout
    assert "  2  004t, 014 or 016  230.40 V  5.217 A  1141.9 W  100000 Wh  50.0 Hz  pf 0.95" in result.stdout
    assert "  5  017  48.21 V  2.000 A  96.4 W  1000000 Wh  shunt 200 A" in result.stdout
    assert "  6  003  12.60 V" in result.stdout
    assert "4 units found." in result.stdout
    assert "Next: " in result.stdout
    assert writes(slave) == []
    for absent in (3, 4, 7, 8):
        assert len(slave.asked(absent)) == 1


def test_scan_of_an_empty_line_fails_and_tells_where_to_look(slave: Slave) -> None:
    result = run(slave, "scan", "--first", "10", "--last", "11")
    assert result.exit_code == 1
    assert "Nobody answers. Look at: the 5 V supply" in result.stdout
    assert run(slave, "scan", "--first", "5", "--last", "1").exit_code == 2


def test_scan_reports_two_units_with_one_address(slave: Slave) -> None:
    slave.moods[5] = bad_crc
    result = run(slave, "scan", "--first", "5", "--last", "6")
    assert result.exit_code == 3
    assert "  5  something answers badly: the answer of unit 5 is damaged" in result.stdout
    assert "two units with one address" in result.stdout


def test_scan_is_not_fooled_by_another_kind_of_modbus_meter(slave: Slave) -> None:
    slave.units = {3: Unit([0] * 30, {2: 0}), 4: Unit([1, 2], {2: 4})}
    result = run(slave, "scan", "--first", "3", "--last", "4")
    assert result.exit_code == 1
    assert result.stdout.count("it has other registers than a PZEM") == 2


def test_test_reads_what_the_configuration_names(slave: Slave, config: Path) -> None:
    result = run(slave, "test", "--config", str(config))
    assert result.exit_code == 0, result.output
    assert "✓   1  017  12.60 V" in result.stdout
    assert "2 of 2 units good." in result.stdout


def test_test_says_what_differs_from_the_configuration(slave: Slave, config: Path) -> None:
    slave.units[1].holdings[3] = 3
    result = run(slave, "test", "--config", str(config))
    assert result.exit_code == 3
    assert "✗ unit 1 (battery): the configuration says 100 A, it is set to 300 A" in result.stdout
    slave.units[1] = ac(1)
    slave.moods[2] = silent
    result = run(slave, "test", "--config", str(config))
    assert result.exit_code == 1
    assert "✗ unit 1 (battery): the configuration says 017, it is a 004t, 014 or 016" in result.stdout
    assert "✗ unit 2 (cooker): does not answer" in result.stdout


def test_test_of_a_unit_needs_no_configuration(slave: Slave) -> None:
    assert "1 of 1 unit good." in run(slave, "test", "--unit", "5").stdout
    assert run(slave, "test").exit_code == 2


def test_set_address_moves_a_unit_after_the_address_was_typed(slave: Slave) -> None:
    result = run(slave, "set-address", "1", "9", typed="9\n")
    assert result.exit_code == 0, result.output
    assert writes(slave) == [frame("01 06 00 02 00 09").hex(" ")]
    assert slave.units[9].holdings[2] == 9
    assert "Done: it answers at 9 now." in result.stdout
    assert slave.requests[-2:] == [frame("09 03 00 02 00 01"), frame("01 03 00 02 00 01")]


def test_the_frames_that_set_an_address_are_those_of_the_manual(slave: Slave) -> None:
    del slave.units[5]
    assert run(slave, "set-address", "1", "5", "--yes").exit_code == 0
    assert writes(slave) == ["01 06 00 02 00 05 e8 09"]
    slave.requests.clear()
    slave.units = {1: dc(1)}
    assert run(slave, "set-address", "any", "5", "--yes").exit_code == 0
    assert writes(slave) == ["f8 06 00 02 00 05 fc 60"]
    assert "It has the address 5 already" in run(slave, "set-address", "any", "5", "--yes").stdout


@pytest.mark.parametrize("typed", ["", "y\n"])
def test_nothing_is_written_unless_the_word_is_typed(slave: Slave, typed: str) -> None:
    for arguments in (("set-address", "1", "9"), ("set-shunt", "1", "50"), ("reset-energy", "1")):
        result = run(slave, *arguments, typed=typed)
        assert result.exit_code == 1
        assert "Nothing was written." in result.stderr
    assert writes(slave) == []


def test_an_address_that_is_taken_is_refused(slave: Slave) -> None:
    result = run(slave, "set-address", "1", "5", "--yes")
    assert result.exit_code == 1
    assert "address 5 is not free" in result.stderr
    assert run(slave, "set-address", "any", "5", "--yes").exit_code == 1
    assert run(slave, "set-address", "1", "1", "--yes").exit_code == 2
    assert run(slave, "set-address", "1", "248", "--yes").exit_code == 2
    assert run(slave, "set-address", "some", "5", "--yes").exit_code == 2
    assert writes(slave) == []


def test_a_unit_that_is_not_there_gets_no_address(slave: Slave) -> None:
    result = run(slave, "set-address", "3", "9", "--yes")
    assert (result.exit_code, writes(slave)) == (1, [])
    assert "unit 3 answers" not in result.stdout
    assert "look who is there: ./orchestrator.py pzem scan" in result.stderr


def test_a_second_unit_with_the_old_address_is_noticed(slave: Slave) -> None:
    slave.units = {1: dc(1)}
    twin = dc(1)

    class Twins(dict[int, Unit]):
        """A unit that comes up at the old address as soon as the other one has left it."""

        def __contains__(self, address: object) -> bool:
            return address == 1 or super().__contains__(address)

        def __missing__(self, address: int) -> Unit:
            return twin

    result_units = slave._reply

    def reply(unit: Unit, request: bytes) -> bytes:
        body = result_units(unit, request)
        slave.units = Twins(slave.units)
        return body

    slave._reply = reply  # type: ignore[method-assign]
    result = run(slave, "set-address", "1", "9", "--yes")
    assert result.exit_code == 1
    assert "somebody still answers at 1; two units had the same address" in result.stderr


def test_a_unit_that_does_not_come_up_at_the_new_address_is_a_failure(slave: Slave) -> None:
    slave.moods[9] = silent
    result = run(slave, "set-address", "1", "9", "--yes")
    assert result.exit_code == 1
    assert "nobody answers well at 9 after the write" in result.stderr


@pytest.mark.parametrize(
    ("amperes", "sent"),
    [
        ("50", "01 06 00 03 00 01 b8 0a"),
        ("200", "01 06 00 03 00 02 f8 0b"),
        ("300", "01 06 00 03 00 03 39 cb"),
    ],
)
def test_set_shunt_writes_the_frame_of_the_manual_and_reads_it_back(slave: Slave, amperes: str, sent: str) -> None:
    result = run(slave, "set-shunt", "1", amperes, typed=f"{amperes}\n")
    assert result.exit_code == 0, result.output
    assert f"from 100 A to {amperes} A" in result.stdout
    assert f"Done: read back, {amperes} A." in result.stdout
    assert writes(slave) == [sent]


def test_set_shunt_writes_nothing_where_nothing_is_to_be_written(slave: Slave) -> None:
    assert "already; nothing was written" in run(slave, "set-shunt", "1", "100").stdout
    assert "has no shunt to set" in run(slave, "set-shunt", "2", "100", "--yes").stderr
    assert run(slave, "set-shunt", "1", "75", "--yes").exit_code == 2
    assert writes(slave) == []


def test_a_shunt_that_does_not_stay_is_a_failure(slave: Slave) -> None:
    class Stubborn(dict[int, int]):
        def __setitem__(self, register: int, value: int) -> None:
            """Answer as if it were written."""

    slave.units[1].holdings = Stubborn(slave.units[1].holdings)
    result = run(slave, "set-shunt", "1", "50", "--yes")
    assert result.exit_code == 1
    assert "unit 1 still has shunt code 0 instead of 1" in result.stderr


@pytest.mark.parametrize("unit", ["1", "2"])
def test_reset_energy_sets_the_counter_to_zero_after_the_word_was_typed(slave: Slave, unit: str) -> None:
    result = run(slave, "reset-energy", unit, typed="RESET\n")
    assert result.exit_code == 0, result.output
    assert f"This forgets the 100000 Wh that unit {unit} has counted." in result.stdout
    assert "Done: it shows 0 Wh now." in result.stdout
    assert writes(slave) == [{"1": "01 42 80 11", "2": frame("02 42").hex(" ")}[unit]]


def test_a_house_that_runs_on_the_port_is_left_alone(slave: Slave, config: Path) -> None:
    house = Bus(Line())
    house.open(str(slave.link))
    for arguments in (("scan",), ("test", "--unit", "1"), ("set-address", "1", "9", "--yes"), ("reset-energy", "1")):
        result = run(slave, *arguments)
        assert result.exit_code == 1
        assert "is in use by process" in result.stderr
        assert "the house that runs" in result.stderr
    house.close()
    assert slave.requests == []


def test_the_line_is_found_in_the_configuration_or_asked_for(slave: Slave, config: Path) -> None:
    both = config.with_name("both.toml")
    table = config.read_text()
    both.write_text(
        table + table.replace("[outputs.csv]", "").replace("sources.demo", "sources.d2").replace("shunts", "x")
    )
    result = run(slave, "test", "--config", str(both))
    assert (result.exit_code, "which line? Name it with --source, one of: shunts, x" in result.stderr) == (2, True)
    assert run(slave, "test", "--config", str(both), "--source", "x").exit_code == 0
    result = run(slave, "test", "--config", str(both), "--source", "y")
    assert (result.exit_code, "there is no PZEM source 'y'" in result.stderr) == (2, True)
    none = config.with_name("none.toml")
    none.write_text("[outputs.csv]\n")
    result = run(slave, "test", "--config", str(none))
    assert (result.exit_code, "name the port: --port" in result.stderr) == (2, True)


def test_no_mistake_of_a_user_ends_in_a_traceback(tmp_path: Path) -> None:
    for arguments, status in (
        (["scan", "--port", str(tmp_path / "absent")], 1),
        (["scan", "--port", "COM3"], 2),
        (["test", "--config", str(tmp_path / "absent.toml")], 2),
        (["set-address", "1"], 2),
        (["set-shunt", "300", "50"], 2),
    ):
        done = subprocess.run(
            [sys.executable, "orchestrator.py", "pzem", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == status, arguments
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
