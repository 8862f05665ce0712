"""Every Flux text is what the server's own checker takes, whatever things are called."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reading import AVERAGED, COUNTERS, LASTING, METRICS, SUMMED, TEXTS
from tests.peers.flux_checker import FluxChecker
from writer.outputs._influx_rollups import LEVELS, Level, backfill_script, flux_text, rolled_levels, task_script
from writer.outputs.influx import Options

ANY_TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('\n\r\t\\"${}<>/|'), min_size=1, max_size=20)


def named(**names: str) -> Any:
    return msgspec.convert(names, Options)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_each_task_is_flux_with_its_name_its_pace_and_its_offset(flux: FluxChecker, level: Level) -> None:
    bucket = f"PowerLogger_{level.name}"
    checked = flux.check(task_script(named(), level, bucket))
    assert checked.errors == []
    assert checked.task == {"name": bucket, "every": level.name, "offset": level.offset}


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_each_backfill_is_flux_and_no_task(flux: FluxChecker, level: Level) -> None:
    script = backfill_script(named(), level, "PowerLogger_1m", 1_763_640_600, 1_763_662_200)
    assert flux.check(script).errors == []
    assert "start = 2025-11-20T12:10:00Z\nstop = 2025-11-20T18:10:00Z\n" in script
    assert "option" not in script


def test_the_checker_finds_what_a_server_would_refuse(flux: FluxChecker) -> None:
    script = task_script(named(), LEVELS[0], "x")
    for right, wrong in (("fn: mean", "fn: meen"), ('timeSrc: "_start"', "timeSrc: 1m"), ('bucket: "x"', "bucket: 3")):
        assert right in script
        assert flux.check(script.replace(right, wrong)).errors


@given(raw=ANY_TEXT, rolled=ANY_TEXT)
def test_no_name_can_be_anything_but_a_name(flux: FluxChecker, raw: str, rolled: str) -> None:
    plain = flux.check(task_script(named(), LEVELS[0], "PowerLogger_1m"))
    checked = flux.check(task_script(named(bucket=raw), LEVELS[0], rolled))
    assert checked.errors == []
    instead = {"PowerLogger_raw": raw, "PowerLogger_1m": rolled}
    assert checked.texts() == [instead.get(text, text) for text in plain.texts()]
    assert [node["type"] for node in checked.ast["body"]] == [node["type"] for node in plain.ast["body"]]


@given(ANY_TEXT)
def test_a_text_of_flux_is_that_very_text(flux: FluxChecker, text: str) -> None:
    checked = flux.check(f"x = {flux_text(text)}")
    assert (checked.errors, checked.texts()) == ([], [text])


def test_every_number_is_summed_up_in_one_way(flux: FluxChecker) -> None:
    assert AVERAGED | LASTING | SUMMED | TEXTS == METRICS
    assert len(AVERAGED) + len(LASTING) + len(SUMMED) + len(TEXTS) == len(METRICS)
    assert COUNTERS < LASTING
    fields = {name for metrics in (AVERAGED, LASTING, SUMMED) for name in metrics}
    script = backfill_script(named(), LEVELS[0], "x", 0, 60)
    assert all(script.count(f"({name}|") + script.count(f"|{name}|") + script.count(f"|{name})") for name in fields)


def test_a_level_without_a_bucket_is_not_kept() -> None:
    names = named(bucket_5m="")
    assert [(level.name, bucket) for level, bucket in rolled_levels(names)] == [
        ("1m", "PowerLogger_1m"),
        ("1h", "PowerLogger_1h"),
    ]


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_look_back_is_whole_windows(level: Level) -> None:
    amount, unit = int(level.look_back[:-1]), {"m": 60, "h": 3600}[level.look_back[-1]]
    assert amount * unit % level.width_s == 0
