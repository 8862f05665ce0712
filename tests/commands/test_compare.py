"""`compare`: what a person, a program and a cron job are told about meters that should agree."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.commands.bench import orchestrator
from tests.metered import HOUR_NS, QUARTER_NS, Load, metered

CONFIGURATION = """
[site]
timezone = "UTC"
data_dir = "{data_dir}"

[sources.smart]
kind = "esp32_http"
[[sources.smart.devices]]
name = "grid"

[sources.meter]
kind = "pulse"
[[sources.meter.devices]]
name = "led"
line = 17
imp_per_kwh = 1000.0

[sources.clamps]
kind = "mcp3008"
[[sources.clamps.devices]]
name = "mains"
channel = 0
current_gain = 1.5
[[sources.clamps.devices]]
name = "oven"
channel = 1

[outputs.history]
"""
VIEWS = {
    "house": ["smart/grid", "meter/led"],
    "clamped": ["smart/grid", "clamps/mains"],
    "circuits": ["smart/grid", "clamps/mains + clamps/oven"],
    "glow": ["clamps/mains", "smart/grid"],
}


def configured(tmp_path: Path, *names: str, end: str = "") -> Path:
    file = tmp_path / "site.toml"
    tables = [f"[reconciliations.{name}]\nviews = {json.dumps(VIEWS[name])}\n" for name in names]
    file.write_text(CONFIGURATION.format(data_dir=tmp_path) + "\n".join(tables) + end)
    return file


def measured(tmp_path: Path, days: int = 5, **watts: Load) -> None:
    """Some days until now."""
    now_ns = time.time_ns() // QUARTER_NS * QUARTER_NS
    names = {"grid": "smart/grid", "led": "meter/led", "mains": "clamps/mains", "oven": "clamps/oven"}
    meters = {names[name]: load for name, load in watts.items()}
    metered(tmp_path, meters, now_ns - days * 24 * HOUR_NS, now_ns)


def compare(file: Path, *words: str) -> tuple[int, str]:
    done = orchestrator("compare", *words, "--config", file)
    return done.returncode, done.stdout + done.stderr


def steady(watts: float) -> Load:
    return lambda at_ns: watts


def test_meters_that_agree_are_status_0_and_nothing_is_to_be_done(tmp_path: Path) -> None:
    measured(tmp_path, grid=steady(1000), led=steady(995))
    status, told = compare(configured(tmp_path, "house"))
    assert status == 0
    assert "house: smart/grid is the one to trust, ±2 % is allowed" in told
    assert "Within the tolerance; nothing to do." in told
    assert re.search(r"24\.000 +23\.880 +-0\.120 +-0\.50", told)
    assert all(len(line) <= 120 for line in told.splitlines())


def test_wrong_impulses_to_the_kwh_are_status_3_with_the_right_number(tmp_path: Path) -> None:
    measured(tmp_path, grid=steady(1000), led=steady(800))
    status, told = compare(configured(tmp_path, "house"))
    assert status == 3
    assert "imp_per_kwh = 800 of meter/led would be right (it is 1000)" in told
    assert "Times 1.2500 it would be equal" in told
    assert "+200.0 W on average" in told
    assert "outside" in told


def test_a_clamp_is_told_its_gain_and_others_that_they_count_by_themselves(tmp_path: Path) -> None:
    measured(tmp_path, grid=steady(1000), mains=steady(800))
    status, told = compare(configured(tmp_path, "clamped", "glow"), "clamped")
    assert status == 3
    assert "Set current_gain = 1.875 of clamps/mains (it is 1.5)" in told
    assert "./orchestrator.py calibrate clamps mains" in told
    assert "glow" not in told
    status, told = compare(configured(tmp_path, "clamped", "glow"), "glow")
    assert status == 3
    assert "smart/grid counts by itself" in told
    assert "0.8000 times" in told


def test_a_sum_with_a_missing_circuit_asks_which_one(tmp_path: Path) -> None:
    def with_a_kiln(at_ns: int) -> float:
        return 1000.0 + 2000 * (at_ns // (24 * HOUR_NS) % 2)

    measured(tmp_path, days=7, grid=with_a_kiln, mains=steady(600), oven=steady(400))
    status, told = compare(configured(tmp_path, "circuits"))
    assert status == 3
    assert "which circuit is missing from the sum?" in told
    assert "No factor: the days differ too much for one factor: 1.000 to 3.000." in told


def test_programs_get_json_with_every_digit_and_the_same_status(tmp_path: Path) -> None:
    measured(tmp_path, grid=steady(1000), led=steady(800))
    status, told = compare(configured(tmp_path, "house"), "--json")
    assert status == 3
    found = json.loads(told)["house"]
    assert found["status"] == "outside"
    assert found["views"] == ["smart/grid", "meter/led"]
    [view] = found["comparisons"]
    assert (view["outside"], view["difference_percent"], view["unaccounted_mean_w"]) == (True, -20.0, 200.0)
    assert view["suggested_factor"] == 1.25
    whole = [day for day in found["days"] if day["complete"]]
    assert found["complete_days"] == len(whole) >= 4
    assert {tuple(day["energies_wh"]) for day in whole} == {(24_000.0, 19_200.0)}
    assert found["days"][0]["missing"]


def test_since_leaves_out_what_was_before_it_was_mended(tmp_path: Path) -> None:
    mended_ns = time.time_ns() // (24 * HOUR_NS) * 24 * HOUR_NS - 3 * 24 * HOUR_NS
    measured(tmp_path, days=8, grid=steady(1000), led=lambda at_ns: 800 if at_ns < mended_ns else 1000)
    file = configured(tmp_path, "house")
    assert compare(file)[0] == 3
    status, told = compare(file, "--since", time.strftime("%Y-%m-%d", time.gmtime(mended_ns / 1e9)))
    assert (status, "nothing to do" in told) == (0, True)


def test_without_a_complete_day_the_status_is_1(tmp_path: Path) -> None:
    measured(tmp_path, days=0, grid=steady(1000), led=steady(800))
    status, told = compare(configured(tmp_path, "house"))
    assert status == 1
    assert "nothing is known of this day" in told


@pytest.mark.parametrize(
    ("names", "words", "status", "expected"),
    [
        ((), (), 2, "no channels are said to measure the same energy"),
        (("house",), ("hose",), 2, 'did you mean "house"?'),
        (("house",), ("--since", "yesterday"), 2, "'yesterday' is no date; write it as 2026-03-31"),
        (("house",), (), 1, "there is no history in"),
    ],
)
def test_what_cannot_be_compared_is_told_in_words(
    tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...], status: int, expected: str
) -> None:
    found = compare(configured(tmp_path, *names), *words)
    assert found[0] == status
    assert expected in found[1]


def test_a_damaged_history_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database" * 100)
    status, told = compare(configured(tmp_path, "house"))
    assert status == 1
    assert "cannot be read" in told
