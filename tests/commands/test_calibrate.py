"""`orchestrator.py calibrate`: what is measured without load and with a known one gets into the file, or nothing."""

from __future__ import annotations

import os
import re
import stat
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from commands._calibration import Calibration, Meter, Refusal, gain, zero
from commands.calibrate import command
from supervise.instance import lock
from tests.commands.bench import at_terminal, clean, orchestrator
from tests.shim.chips import Ina219, Mcp3008, level, sine
from tests.shim.simulators import I2c, Spi, simulated
from tests.workers.pzem_slave import Slave, ac, dc, plugged_in

RAILS = """\
# The rails of the boat
[site]
data_dir = "{folder}/var"

[sources.rails]
kind = "ina219"   # on bus 1
interval_s = 0.001

# the fridge
[[sources.rails.devices]]
name = "fridge"
averaging = 1     # fast

[outputs.csv]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(RAILS.format(folder=tmp_path))
    path.chmod(0o640)
    return path


@pytest.fixture
def chip() -> Ina219:
    return Ina219(volts=12.0)


@pytest.fixture
def environment(chip: Ina219) -> Iterator[dict[str, str]]:
    with simulated(i2c_1=I2c({0x40: chip})) as simulator:
        yield simulator.environment


def device(file: Path, source: str = "rails", number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(file.read_text())["sources"][source]["devices"][number]
    return found


def calibrate(file: Path, environment: dict[str, str] | None, *words: str, source: str = "rails") -> Any:
    samples = () if "--samples" in words else ("--samples", "8")
    return orchestrator("calibrate", source, *words, *samples, "--config", file, environment=environment)


def test_both_steps_at_a_terminal_are_asked_for_shown_confirmed_and_written(
    file: Path, chip: Ina219, environment: dict[str, str]
) -> None:
    before = file.read_text()
    chip.amps = 0.02
    with at_terminal("calibrate", "rails", "--samples", "8", "--config", file, environment=environment) as terminal:
        terminal.expect("Step 1: switch the load off")
        terminal.type("\n")
        terminal.expect("Step 2: switch the known load on")
        chip.amps = 2.02
        terminal.type("\n")
        terminal.expect("What does the reference show?")
        terminal.type("much\n")
        terminal.expect("A number with A or W, please.")
        terminal.type("2.1 A\n")
        terminal.expect("Write this into")
        assert file.read_text() == before
        terminal.type("y\n")
        assert terminal.end() == 0
        seen = clean(terminal.seen)
    assert "8/8" in seen or "100%" in seen, "there is progress"
    assert re.search(r"with 2\.1 A it shows +2\.02 A +2\.1 A", seen)
    assert re.search(r"expected error +-3\.81% +±0\.\d\d%", seen)
    assert re.search(r"current_gain +1 +1\.05\n?", seen)
    assert "Next: ./orchestrator.py run" in seen
    assert device(file)["current_gain"] == pytest.approx(1.05)
    assert device(file)["current_offset_a"] == pytest.approx(0.02)
    kept = "".join(line for line in file.read_text().splitlines(keepends=True) if not re.match("current_|noise_", line))
    assert kept == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (file.parent / "site.toml.before-calibration-1").read_text() == before


def test_the_calibrated_source_then_shows_the_known_load(file: Path, chip: Ina219, environment: dict[str, str]) -> None:
    chip.amps = 0.05
    assert calibrate(file, environment, "--non-interactive", "--zero").returncode == 0
    chip.amps = 1.55
    assert calibrate(file, environment, "--non-interactive", "--known-current-a", "1.2").returncode == 0
    assert device(file) == {
        "name": "fridge",
        "averaging": 1,
        "current_offset_a": 0.05,
        "noise_floor_a": 0.0,
        "current_gain": 0.8,
    }
    done = orchestrator("test", "rails", "--config", file, environment=environment)
    assert re.search(r"current_a +1\.2 A", done.stdout)
    # Again, with the numbers of the first time in the file: they are set aside while it measures.
    assert calibrate(file, environment, "--non-interactive", "--known-current-a", "1.2").returncode == 0
    assert device(file)["current_gain"] == 0.8
    assert len([*file.parent.glob("site.toml.before-calibration-*")]) == 3


def test_zero_and_a_known_load_in_one_script_waits_for_the_load(
    file: Path, chip: Ina219, environment: dict[str, str]
) -> None:
    words = ("--non-interactive", "--zero", "--known-power-w", "24", "--samples", "8", "--config", file)
    with at_terminal("calibrate", "rails", "fridge", *words, environment=environment) as terminal:
        terminal.expect("Switch the known load on now")
        chip.amps = 1.9
        assert terminal.end() == 0
        terminal.expect("24 W at 12.0 V and a power factor of 1.00 are 2 A.")
    assert device(file)["current_gain"] == pytest.approx(2 / 1.9, abs=1e-4)


def test_no_load_in_time_leaves_the_offset_and_ends_with_3(file: Path, environment: dict[str, str]) -> None:
    words = ("--non-interactive", "--zero", "--known-current-a", "2", "--wait", "1")
    done = calibrate(file, environment, *words)
    assert done.returncode == 3
    assert "No gain: no load of 5 % of the full scale (3.2 A) came in 1 s; switch it on when asked to" in done.stderr
    assert set(device(file)) == {"name", "averaging", "current_offset_a", "noise_floor_a"}


@pytest.mark.parametrize(
    ("amps", "words", "told"),
    [
        (1.0, ["--zero"], "1 A without load is 31% of its full scale, 3.2 A: that is a load, or a fault"),
        (1.0, ["--known-current-a", "3.0"], "a gain of 3 is no calibration (0.5 to 2 is)"),
    ],
)
def test_nonsense_is_refused_in_words_and_nothing_is_written(
    file: Path, chip: Ina219, environment: dict[str, str], amps: float, words: list[str], told: str
) -> None:
    before = file.read_text()
    chip.amps = amps
    done = calibrate(file, environment, "--non-interactive", *words)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Nothing was written." in done.stderr
    assert (file.read_text(), len([*file.parent.iterdir()])) == (before, 1)


DIRECT = Meter(3.2, 0.0001, signed=True, rms=False)
WAVE = Meter(50.0, 0.0001, signed=False, rms=True)


@pytest.mark.parametrize(
    ("samples", "known_a", "told"),
    [
        ([0.1], 0.1, "the known load, 0.1 A, is less than 5 % of the full scale, 3.2 A"),
        ([0.1], 1.0, "what it shows, 0.1 A, is less than 5 %"),
        ([0.0], 1.0, "what it shows, 0 A, is less than 5 %"),
        ([1.0], 9.0, "9 A is beyond what it can measure, 3.2 A"),
        ([-1.0], 1.0, "the other way round; swap the two wires"),
        ([1.0], 0.4, "a gain of 0.4 is no calibration"),
    ],
)
def test_no_gain_comes_of_nonsense(samples: list[float], known_a: float, told: str) -> None:
    with pytest.raises(Refusal, match=re.escape(told)):
        gain(samples, known_a, DIRECT, Calibration())


def test_noise_that_jumps_is_no_floor() -> None:
    with pytest.raises(Refusal, match="it is noisy"):
        zero([0.1] * 9 + [2.0], WAVE, Calibration())
    with pytest.raises(Refusal, match="it is noisy"):
        zero([-0.3, 0.3] * 5, DIRECT, Calibration())


@given(
    st.lists(st.floats(-0.02, 0.02), min_size=5, max_size=30),
    st.floats(0.6, 1.9),
    st.floats(0.5, 1.5),
    st.sampled_from([DIRECT, Meter(3.2, 0.0001, signed=False, rms=False)]),
)
def test_calibrated_nothing_is_nothing_and_the_known_load_is_known(
    at_rest: list[float], true_gain: float, load_a: float, meter: Meter
) -> None:
    resting = zero(at_rest, meter, Calibration())
    assert all(abs(resting.shown_a(sample, meter)) <= 1e-6 for sample in at_rest)
    loaded = [load_a / true_gain + sample for sample in at_rest]
    calibrated = gain(loaded, load_a, meter, resting)
    assert calibrated.mean_a(loaded, meter) == pytest.approx(load_a, rel=1e-4)


def test_a_load_that_is_not_steady_is_refused(file: Path, chip: Ina219, environment: dict[str, str]) -> None:
    stop = threading.Event()

    def flicker() -> None:
        while not stop.wait(0.001):
            chip.amps = 3.0 - chip.amps

    chip.amps = 1.0
    thread = threading.Thread(target=flicker)
    thread.start()
    try:
        words = ("--non-interactive", "--known-current-a", "1.5", "--samples", "40")
        done = calibrate(file, environment, *words)
    finally:
        stop.set()
        thread.join()
    assert done.returncode == 1
    assert "the load is not steady: 1 to 2 A; take one that does not switch" in done.stderr


def test_a_dry_run_shows_all_and_writes_nothing(file: Path, chip: Ina219, environment: dict[str, str]) -> None:
    before = file.read_text()
    chip.amps = 1.0
    done = calibrate(file, environment, "--non-interactive", "--known-current-a", "1.1", "--dry-run")
    assert done.returncode == 0
    assert "Nothing was written (--dry-run)." in done.stdout
    assert "current_gain = 1.1" in done.stdout
    assert (file.read_text(), len([*file.parent.iterdir()])) == (before, 1)


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_whoever_does_not_agree_keeps_the_file(file: Path, environment: dict[str, str], answer: str) -> None:
    before = file.read_text()
    with at_terminal("calibrate", "rails", "--zero", "--samples", "5", "--config", file, environment=environment) as at:
        at.expect("Step 1")
        at.type("\n")
        at.expect("Write this into")
        at.type(answer)
        assert at.end() == 1
        at.expect("Nothing was written.")
    assert (file.read_text(), len([*file.parent.iterdir()])) == (before, 1)


def test_the_table_may_be_in_conf_d(file: Path, chip: Ina219, environment: dict[str, str]) -> None:
    (file.parent / "conf.d").mkdir()
    other = file.parent / "conf.d" / "rails.toml"
    other.write_bytes(b'[sources.rails]\r\nkind = "ina219"\r\ndevices = [ { name = "fridge" } ] # here\r\n')
    file.write_text(f'[site]\ndata_dir = "{file.parent}/var"\n')
    chip.amps = 1.0
    done = calibrate(file, environment, "--non-interactive", "--known-current-a", "1.25")
    assert done.returncode == 0
    assert f"Written into {other}; as it was: rails.toml.before-calibration-1" in done.stdout
    assert b'devices = [ { name = "fridge", current_gain = 1.25 } ] # here\r\n' in other.read_bytes()


def clamps(folder: Path, more: str) -> Path:
    file = folder / "site.toml"
    file.write_text(
        f'[site]\ndata_dir = "{folder}/var"\n[sources.clamps]\nkind = "mcp3008"\n'
        f'[[sources.clamps.devices]]\nname = "saw"\nchannel = 0\n{more}\n'
    )
    return file


def test_what_makes_the_configuration_invalid_is_taken_back(tmp_path: Path) -> None:
    file = clamps(tmp_path, "averaging_window = 2\nidle_threshold_a = 1.1")
    before = file.read_text()
    with simulated(spidev0_0=Spi(Mcp3008({0: level(2.828)}))) as simulator:
        words = ("--non-interactive", "--known-current-a", "0.8")
        done = calibrate(file, simulator.environment, *words, source="clamps")
    assert done.returncode == 1
    assert "idle_threshold_a = 1.1 can never be left" in done.stderr
    assert "would not be valid, so it is as it was" in done.stderr
    assert (file.read_text(), len([*tmp_path.iterdir()])) == (before, 1)


def test_noise_of_a_wave_becomes_the_floor_and_a_kettle_the_gain(tmp_path: Path) -> None:
    file = clamps(tmp_path, 'mode = "true_rms"\nphases = 1')
    inputs = {0: sine(0.02)}
    with simulated(spidev0_0=Spi(chip := Mcp3008(inputs))) as simulator:
        done = calibrate(file, simulator.environment, "--non-interactive", "--zero", "--samples", "5", source="clamps")
        assert done.returncode == 0, done.stderr
        floor_a = device(file, "clamps")["noise_floor_a"]
        assert floor_a == pytest.approx(0.02 * 60.6, rel=0.05)
        assert device(file, "clamps")["current_offset_a"] == 0.0
        chip.inputs[0] = sine((0.165**2 + 0.02**2) ** 0.5)
        words = ("--non-interactive", "--known-power-w", "2530", "--voltage-v", "230", "--samples", "5")
        done = calibrate(file, simulator.environment, *words, source="clamps")
    assert done.returncode == 0, done.stderr
    assert device(file, "clamps")["current_gain"] == pytest.approx(11 / (0.165 * 60.6), rel=0.01)


def test_watts_without_volts_are_refused(tmp_path: Path) -> None:
    file = clamps(tmp_path, "averaging_window = 2")
    with simulated(spidev0_0=Spi(Mcp3008({0: level(1.5)}))) as simulator:
        done = calibrate(file, simulator.environment, "--non-interactive", "--known-power-w", "100", source="clamps")
    assert done.returncode == 1
    assert "watts say nothing without volts, which this sensor does not measure; add --voltage-v 231.5" in done.stderr


@contextmanager
def shunts(folder: Path) -> Iterator[tuple[Path, Slave]]:
    file = folder / "site.toml"
    file.write_text(
        f'[site]\ndata_dir = "{folder}/var"\n[sources.shunts]\nkind = "pzem"\nport = "{folder}/adapter"\n'
        "interval_s = 0.02\ntimeout_s = 0.1\npause_ms = 5\nround_budget_s = 0.02\n"
        '[[sources.shunts.devices]]\nname = "battery"\nunit = 1\nmodel = "017"\nshunt_a = 100\n'
        '[[sources.shunts.devices]]\nname = "cooker"\nunit = 2\nmodel = "016"\ncurrent_gain = 1.3 # guessed\n'
    )
    with plugged_in(folder / "adapter", {1: dc(1, 12.6, 50.0, 630.0, shunt=0), 2: ac(2)}) as slave:
        yield file, slave


def test_a_pzem_is_calibrated_by_watts_and_nobody_else_of_the_line_is_asked(tmp_path: Path) -> None:
    with shunts(tmp_path) as (file, slave):
        done = calibrate(file, None, "cooker", "--non-interactive", "--known-power-w", "1200", source="shunts")
        assert done.returncode == 0, done.stderr
        assert slave.asked(1) == []
        assert {request[1] for request in slave.requests} <= {3, 4}
    assert device(file, "shunts", 1)["current_gain"] == pytest.approx(1200 / 230.4 / 0.95 / 5.217, abs=1e-4)
    assert "current_gain = 1.05" in file.read_text()
    assert " # guessed\n" in file.read_text()
    assert "current_gain" not in device(file, "shunts", 0)


def test_a_unit_that_tells_no_current_says_why(tmp_path: Path) -> None:
    with shunts(tmp_path) as (file, slave):
        slave.units[1].holdings[3] = 2
        done = calibrate(file, None, "battery", "--non-interactive", "--known-current-a", "50", source="shunts")
    assert done.returncode == 1
    assert "battery tells no current (unit 1 is set to a shunt of 200 A" in done.stderr


def test_while_a_house_runs_its_bus_is_not_touched(file: Path, environment: dict[str, str], chip: Ina219) -> None:
    (file.parent / "var").mkdir()
    held = lock(file.parent / "var", 0)
    done = calibrate(file, environment, "--non-interactive", "--zero")
    os.close(held)
    assert done.returncode == 1
    assert "the house runs (process " in done.stderr
    assert "stop it first" in done.stderr
    assert chip.writes == []


def test_a_house_that_runs_is_told_how_to_take_it_over(tmp_path: Path) -> None:
    file = clamps(tmp_path, "averaging_window = 2")
    (tmp_path / "var").mkdir()
    held = lock(tmp_path / "var", 0)
    with simulated(spidev0_0=Spi(Mcp3008({0: level(1.5)}))) as simulator:
        done = calibrate(file, simulator.environment, "--non-interactive", "--known-current-a", "0.6", source="clamps")
    os.close(held)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Next: kill -HUP \d+, or sudo systemctl reload wattherd", done.stdout)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rials", "--zero"], "there is no source 'rials'; did you mean \"rails\"?"),
        (["rails", "frigde", "--zero"], "rails has no device 'frigde'; did you mean \"fridge\"?"),
        (["rails", "--non-interactive"], "say what to measure: --zero"),
        (["rails", "--known-current-a", "1", "--known-power-w", "1"], "not both"),
        (["rails", "--samples", "1"], "--samples"),
        (["house", "--zero"], "house is of kind simulated, which has no current to calibrate"),
        (["two", "--zero"], "which device? ./orchestrator.py calibrate two DEVICE, one of: a, b"),
    ],
)
def test_a_slip_of_the_pen_ends_with_2(file: Path, words: list[str], told: str) -> None:
    with file.open("a") as text:
        text.write('[sources.house]\nkind = "simulated"\n[sources.two]\nkind = "ina219"\n')
        text.write('devices = [{name = "a"}, {name = "b", address = 0x41}]\n')
    done = CliRunner().invoke(command, [*words, "--config", str(file)])
    assert done.exit_code == 2
    assert told in done.stderr
