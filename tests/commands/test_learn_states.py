"""`ledger learn-states`: finds the states that a device has, says so where it has none, and asks before it writes."""

from __future__ import annotations

import random
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands._states import Sample, TooLittle, proposed, samples_of, spells_s
from history.queries import Columns
from reading import Quality, Record
from tests.commands.bench import at_terminal, orchestrator
from tests.writer.outputs._history import batch, write_all
from writer.states import StateRules

STEP_S = 30
CONFIGURATION = """\
# Mine.
[site]
data_dir = "{data_dir}"

[sources.plugs]
kind = "esp32_http"   # a shelf full
[[sources.plugs.devices]]
name = "fridge"
[[sources.plugs.devices]]
name = "lamp"

[outputs.history]
"""

Device = Callable[[int, random.Random], float]


def fridge(number: int, chance: random.Random) -> float:
    """20 minutes of 90 W in each hour, else 2 W; with noise."""
    return chance.gauss(90, 4) if number % 120 < 40 else max(0.0, chance.gauss(2, 0.3))


def dimmer(number: int, chance: random.Random) -> float:
    """Any power between 1 and 1000 W, each decade as often."""
    return 10 ** chance.uniform(0, 3)


def lathe(number: int, chance: random.Random) -> float:
    """Off, on with its lamp, and cutting."""
    if number % 480 < 300:
        return 0.0
    return chance.gauss(1500, 250) if number % 7 < 3 else chance.gauss(60, 3)


def samples(device: Device, hours: float = 48, seed: int = 1) -> list[Sample]:
    chance = random.Random(seed)
    count = int(hours * 3600 / STEP_S)
    return [Sample(number * STEP_S * 10**9, abs(device(number, chance)), STEP_S) for number in range(count)]


def test_the_threshold_lies_where_the_power_hardly_ever_is() -> None:
    found = proposed(samples(fridge), 2)
    [threshold_w] = found.thresholds_w
    assert 5 < threshold_w < 60
    assert 0 < found.hysteresis_w <= threshold_w
    spells = spells_s(samples(fridge), StateRules(("idle", "running"), (threshold_w,), found.hysteresis_w))
    assert [level for level, _ in spells] == [1, 0] * 48
    assert {lasted_s for _, lasted_s in spells} == {1200.0, 2400.0}


def test_three_states_have_two_thresholds_in_the_deepest_valleys() -> None:
    found = proposed(samples(lathe), 3)
    low_w, high_w = found.thresholds_w
    assert 0.5 < low_w < 50
    assert 80 < high_w < 700
    assert found.hysteresis_w <= min(low_w, high_w - low_w)
    [threshold_w] = proposed(samples(lathe), 2).thresholds_w
    assert threshold_w in (low_w, high_w)


def test_a_power_that_goes_evenly_from_low_to_high_has_no_valley() -> None:
    with pytest.raises(TooLittle, match="there is no valley"):
        proposed(samples(dimmer), 2)
    with pytest.raises(TooLittle, match="there is no valley"):
        proposed(samples(lambda number, chance: chance.gauss(60, 1)), 2)


def test_more_states_than_there_are_valleys_are_not_invented() -> None:
    with pytest.raises(TooLittle, match="valleys for 2 states only, not for 3"):
        proposed(samples(fridge), 3)


@pytest.mark.parametrize("hours", [3, 48])
def test_a_state_that_was_seen_twice_is_none(hours: float) -> None:
    def spiky(number: int, chance: random.Random) -> float:
        return 3000.0 if number in (100, 200) else chance.gauss(60, 2)

    with pytest.raises(TooLittle, match="there is no valley"):
        proposed(samples(spiky, hours), 2)


def test_an_hour_of_readings_is_too_little() -> None:
    with pytest.raises(TooLittle, match="too few to learn from"):
        proposed(samples(fridge, hours=0.9), 2)
    with pytest.raises(TooLittle, match="too few to learn from"):
        proposed(samples(fridge)[::100], 2)


def test_single_odd_readings_ask_for_a_dwell_and_steady_ones_do_not() -> None:
    def starting(number: int, chance: random.Random) -> float:
        return 85.0 if number % 200 == 0 else fridge(number, chance)

    assert proposed(samples(fridge), 2).dwell_s == 0
    found = proposed(samples(starting), 2)
    assert found.dwell_s == 90
    rules = StateRules(("idle", "running"), tuple(found.thresholds_w), found.hysteresis_w, 90 * 10**9)
    lengths_s = [lasted_s for _, lasted_s in spells_s(samples(starting), rules)[1:-1]]
    assert min(lengths_s) > 90


@pytest.mark.long
@settings(max_examples=40)
@given(st.floats(0.5, 200), st.floats(4, 50), st.floats(0.01, 0.08), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_two_states_far_enough_apart_are_always_told_apart(
    low_w: float, times: float, noise: float, part: float, seed: int
) -> None:
    def two(number: int, chance: random.Random) -> float:
        level_w = low_w if number % 100 < 100 * part else low_w * times
        return level_w * chance.gauss(1, noise)

    some = samples(two, seed=seed)
    found = proposed(some, 2)
    [threshold_w] = found.thresholds_w
    assert all((sample.power_w > threshold_w) == (number % 100 >= 100 * part) for number, sample in enumerate(some))
    assert 0 <= found.hysteresis_w <= threshold_w
    half_w = found.hysteresis_w / 2
    assert not [one for one in some if threshold_w - half_w < one.power_w < threshold_w + half_w]


def test_a_reading_stands_until_the_next_one_and_export_counts_like_import() -> None:
    nothing: list[float | None] = [None] * 3
    at_ns = [0, 10 * 10**9, 1000 * 10**9]
    columns = Columns(
        step_s=0, at_ns=at_ns, n=[1] * 3, mean=nothing, min=nothing, max=nothing, last=[5.0, -7.0, 9.0],
        increase=nothing, counts=[None] * 3, flags=[0] * 3,
    )  # fmt: skip
    assert [(one.power_w, one.lasts_s) for one in samples_of(columns)] == [(5.0, 10.0), (7.0, 300.0), (9.0, 300.0)]


def configured(tmp_path: Path, device: Device = fridge, hours: float = 20, more: str = "") -> Path:
    file = tmp_path / "site.toml"
    file.write_text(CONFIGURATION.format(data_dir=tmp_path) + more)
    chance = random.Random(1)
    count = int(hours * 3600 / STEP_S)
    first_ns = time.time_ns() - count * STEP_S * 10**9
    records = [
        Record(
            "plugs", "fridge", first_ns + number * STEP_S * 10**9, {"power_w": device(number, chance)}, Quality.MEASURED
        )
        for number in range(count)
    ]
    write_all(tmp_path, [batch(*records)])
    return file


def learn(file: Path, *words: str) -> tuple[int, str]:
    done = orchestrator("ledger", "learn-states", *words, "--config", file)
    return done.returncode, done.stdout + done.stderr


def test_the_histogram_fits_the_terminal_and_shows_the_threshold(tmp_path: Path) -> None:
    file = configured(tmp_path)
    before = file.read_text()
    status, told = learn(file, "fridge")
    assert status == 0, told
    lines = told.splitlines()
    assert all(len(line) <= 80 for line in lines), told
    [drawn] = [number for number, line in enumerate(lines) if "idle ↑" in line and "↓ running" in line]
    assert any("█" in line for line in lines[:drawn])
    assert any("█" in line for line in lines[drawn + 1 :])
    assert "idle             13.3 h, 20 times" in told
    assert "running           6.7 h, 20 times" in told
    assert "Nothing was written. Next: ./orchestrator.py ledger learn-states fridge --write" in told
    assert file.read_text() == before
    proposal = tomllib.loads(told[told.index("[channels.") : told.index("Nothing was written")])
    assert proposal["channels"]["plugs"]["fridge"]["states"] == ["idle", "running"]


def test_with_yes_it_is_written_and_the_house_accepts_it(tmp_path: Path) -> None:
    file = configured(tmp_path)
    before = file.read_text()
    status, told = learn(file, "fridge", "--write", "--yes", "--states", "off,on")
    assert status == 0, told
    written = tomllib.loads(file.read_text())["channels"]["plugs"]["fridge"]
    assert written["states"] == ["off", "on"]
    assert file.read_text().startswith(before)
    assert (tmp_path / "site.toml.before-states-1").read_text() == before
    assert orchestrator("check", "--config", file).returncode == 0
    status, told = learn(file, "fridge", "--write", "--yes")
    assert status == 0
    assert tomllib.loads(file.read_text())["channels"]["plugs"]["fridge"]["states"] == ["idle", "running"]


@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False), ("\x04", False)])
def test_at_a_terminal_it_asks_first(tmp_path: Path, answer: str, written: bool) -> None:
    file = configured(tmp_path)
    before = file.read_text()
    with at_terminal("ledger", "learn-states", "fridge", "--write", "--config", file) as terminal:
        terminal.expect("[y/N]")
        assert file.read_text() == before
        terminal.type(answer)
        assert terminal.end() == (0 if written else 1)
    assert ("[channels.plugs.fridge]" in file.read_text()) == written
    assert written or "Nothing was written." in terminal.seen


def test_without_a_terminal_nobody_can_say_yes(tmp_path: Path) -> None:
    file = configured(tmp_path)
    before = file.read_text()
    status, told = learn(file, "fridge", "--write")
    assert (status, file.read_text()) == (1, before)
    assert told.endswith("Nothing was written.\n")


def test_without_a_valley_the_histogram_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    file = configured(tmp_path, dimmer)
    before = file.read_text()
    status, told = learn(file, "fridge", "--write", "--yes")
    assert (status, file.read_text()) == (1, before)
    assert "█" in told
    assert "there is no valley" in told


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("lamp",), 2, "the history has no power_w of a channel 'lamp'"),
        (("fridge", "--states", "idle"), 2, "takes 2 to 6 different names"),
        (("fridge", "--states", "idle,very hot"), 2, "is no name of a state"),
    ],
)
def test_what_cannot_be_learned_is_told_in_words(
    tmp_path: Path, words: tuple[str, ...], status: int, expected: str
) -> None:
    found = learn(configured(tmp_path, hours=0.1), *words)
    assert found[0] == status
    assert expected in found[1]
