"""What comes too late for a database's own sums is summed up by the writer: those windows, and no others."""

from __future__ import annotations

import email.utils
import logging
import random
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from statistics import fmean
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Site
from reading import AVERAGED, LASTING, Record
from tests.peers.fakes import RecordingInflux
from tests.peers.flux_checker import FluxChecker
from tests.peers.influx2_fake import Influx2, running_influx2
from tests.peers.influxd import Influxd
from tests.peers.victoria_metrics import VictoriaMetrics
from writer import Batch, Memo
from writer.outputs import _influx_late
from writer.outputs._influx_late import join, stretches, touched
from writer.outputs._influx_rollups import LEVELS, RAW_KEEPS_S
from writer.outputs.influx import Influx, Options

WIDTHS_S = {"PowerLogger_1m": 60, "PowerLogger_5m": 300, "PowerLogger_1h": 3600}


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backlog counts as through at once, and everything is done at a time."""
    monkeypatch.setattr(_influx_late, "_QUIET_S", 0.0)
    monkeypatch.setattr(_influx_late, "_AT_A_TIME_S", 60.0)


@pytest.fixture
def influx2(flux: FluxChecker) -> Iterator[Influx2]:
    with running_influx2(flux) as server:
        yield server


_opened: list[Influx] = []


@pytest.fixture(autouse=True)
def _close_outputs() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def output(url: str, memo: Memo | None = None, **options: Any) -> Influx:
    table = msgspec.convert({"url": url, **options}, Options)
    _opened.append(Influx(table, Site(), Memo() if memo is None else memo))
    return _opened[-1]


def record(at_s: float, **values: float | str) -> Record:
    return Record("kasa", "fridge", int(at_s * 1e9), values or {"power_w": 5.0})


def test_what_is_late_is_noted_with_the_cursor_minute_by_minute() -> None:
    now_s = int(time.time()) // 60 * 60
    with RecordingInflux() as server:
        influx = output(server.url)
        influx.write(Batch([record(now_s - 1), record(now_s - 200)]))
        assert influx.memo == {}
        influx.write(Batch([record(now_s - 3600), record(now_s - 3590), record(now_s - 3540), record(now_s - 7200)]))
    hour = now_s // 60 - 60
    assert stretches(influx.memo) == [(hour - 60, hour - 59), (hour, hour + 2)]
    assert all(isinstance(minute, int) for minute in influx.memo.values()), "as the outbox keeps it"


def test_lateness_is_judged_by_the_clock_of_the_server(influx2: Influx2) -> None:
    influx2.make("PowerLogger_raw")
    influx2.date = email.utils.formatdate(time.time() + 86_400, usegmt=True)
    token = influx2.token(("write", "PowerLogger_raw"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TOKEN", token)
        influx = output(influx2.url, token_env="TOKEN")
        influx.write(Batch([record(time.time())]))
    assert len(stretches(influx.memo)) == 1


@pytest.mark.usefixtures("in_a_hurry")
def test_in_a_real_influxdb_exactly_the_touched_windows_are_summed_up_anew(influxd: Influxd) -> None:
    now_s = int(time.time())
    chance = random.Random(7)
    begin_s = now_s // 3600 * 3600 - 9 * 3600
    influxd.create("late")
    for policy in ("late", *WIDTHS_S):
        influxd.query(
            f'CREATE RETENTION POLICY "{policy}" ON "late" DURATION 720h REPLICATION 1'
            + (" DEFAULT" if policy == "late" else "")
        )
    # Sums that are there already, and wrong on purpose: those that must stay are seen to stay.
    for policy, width_s in WIDTHS_S.items():
        for start_s in range(begin_s, begin_s + 9 * 3600, width_s):
            influxd.write(
                "late", policy, f"electricity,device=fridge,site=home,source=kasa power_w=-1 {start_s}000000000"
            )
    on_time = [record(begin_s + n * 30, power_w=float(n), energy_wh=n * 1.5) for n in range(9 * 120)]
    influxd.write("late", "late", *(plain_line(one) for one in on_time))
    late = [
        record(begin_s + chance.randrange(3 * 3600, 5 * 3600) + chance.random(), **values)
        for values in [{"power_w": chance.uniform(0, 3000), "state": "on"} for _ in range(100)]
        + [{"energy_wh": chance.uniform(0, 9000), "energy_correction_wh": chance.uniform(-5, 5)} for _ in range(100)]
        + [{"pulse": "import"} for _ in range(50)]
    ]
    chance.shuffle(late)
    memo = Memo()
    first = output(influxd.url, memo, api="v1", bucket="late")
    first._late._not_before_s = float("inf")  # it is killed before it gets to it
    first.write(Batch(late[:150]))
    first.write(Batch(late[150:]))
    assert stretches(memo)
    second = output(influxd.url, memo, api="v1", bucket="late")
    second.write(Batch([record(now_s)]))  # whatever comes next
    assert stretches(memo) == []

    every_one = [*on_time, *late]
    for policy, width_s in WIDTHS_S.items():
        windows = {int(one.time_ns // 1e9) // width_s * width_s for one in late}
        rows = {row["time"] // 10**9: row for row in influxd.points(f'SELECT * FROM "{policy}"."electricity"', "late")}
        pulses = influxd.points(f'SELECT "Pulse" FROM "{policy}"."PowerPulse"', "late")
        for start_s in range(begin_s, begin_s + 9 * 3600, width_s):
            if start_s not in windows:
                assert {key: rows[start_s].get(key) for key in ("power_w", "energy_wh")} == {
                    "power_w": -1,
                    "energy_wh": None,
                }
                continue
            inside = [one for one in every_one if start_s <= one.time_ns / 1e9 < start_s + width_s]
            for key, value in expected(inside).items():
                assert rows[start_s][key] == pytest.approx(value), (policy, start_s, key)
        counted = {row["time"] // 10**9: row["Pulse"] for row in pulses}
        assert sum(counted.values()) == 50
        assert all(isinstance(count, int) for count in counted.values())
        assert counted.keys() <= windows


def expected(records: list[Record]) -> dict[str, float | str]:
    """What one window comes to, worked out another way."""
    told: dict[str, float | str] = {}
    in_order = sorted(records, key=lambda one: one.time_ns)
    for key in {key for one in records for key in one.values} - {"pulse"}:
        values = [one.values[key] for one in in_order if key in one.values]
        if key in AVERAGED:
            numbers = [float(value) for value in values]
            told |= {key: fmean(numbers), f"{key}_min": min(numbers), f"{key}_max": max(numbers)}
        elif key in LASTING or key == "state":
            told[key] = values[-1]
        else:
            told[key] = sum(float(value) for value in values)
    return told


def plain_line(one: Record) -> str:
    fields = ",".join(f"{key}={value}" for key, value in one.values.items())
    return f"electricity,device={one.device},site=home,source={one.source} {fields} {one.time_ns}"


@pytest.mark.usefixtures("in_a_hurry")
def test_influxdb_2_is_asked_in_flux_for_the_windows_that_were_touched(
    influx2: Influx2, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx2.make("PowerLogger_raw", keeps_s=RAW_KEEPS_S)
    influx2.make(*WIDTHS_S)
    rights = [("read", "PowerLogger_raw"), ("write", "PowerLogger_raw"), *(("write", name) for name in WIDTHS_S)]
    monkeypatch.setenv("TOKEN", influx2.token(*rights))
    late_s = int(time.time()) // 3600 * 3600 - 2 * 3600 + 620  # ten minutes and twenty seconds past an hour
    influx = output(influx2.url, token_env="TOKEN")
    influx.write(Batch([record(late_s), record(late_s + 30)]))
    hour_s = late_s - 620
    asked = [(part["to"], part["start"] - hour_s, part["stop"] - hour_s) for part in map(read, influx2.queries)]
    assert asked == [
        ("PowerLogger_1m", 600, 660),
        ("PowerLogger_5m", 600, 900),
        ("PowerLogger_1h", 0, 3600),
    ]
    assert influx.memo == {}


def read(script: str) -> dict[str, Any]:
    """What a backfill is about."""
    found: dict[str, Any] = {"to": script.split('to(bucket: "')[1].split('"')[0]}
    for line in script.splitlines():
        if line.startswith(("start = ", "stop = ")):
            name, date = line.split(" = ")
            found[name] = int(datetime.fromisoformat(date).timestamp())
    return found


@pytest.mark.usefixtures("in_a_hurry")
def test_a_server_that_fails_is_asked_again_and_the_readings_are_delivered_all_the_same(
    influx2: Influx2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_influx_late, "_FIRST_RETRY_S", 0.0)
    influx2.make("PowerLogger_raw", *WIDTHS_S)
    rights = [("read", "PowerLogger_raw"), ("write", "PowerLogger_raw"), *(("write", name) for name in WIDTHS_S)]
    monkeypatch.setenv("TOKEN", influx2.token(*rights))
    influx2.answers_next = [(503, {"code": "unavailable", "message": "compacting"})]
    influx = output(influx2.url, token_env="TOKEN")
    influx.write(Batch([record(time.time() - 7200)]))
    assert len(influx2.lines["PowerLogger_raw"]) == 1
    assert stretches(influx.memo)
    assert influx2.queries == []
    influx.write(Batch([record(time.time())]))
    assert len(influx2.queries) == 3
    assert influx.memo == {}
    assert [one.message.split(": ", 1)[1] for one in caplog.records if one.name == "writer.outputs.influx"] == [
        "late readings are not in the rollups yet: it answers 503: compacting",
        "late readings are in the rollups now",
    ]


@pytest.mark.usefixtures("in_a_hurry")
def test_a_token_that_may_only_write_is_told_what_makes_one_that_may_more(
    influx2: Influx2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    influx2.make("PowerLogger_raw", *WIDTHS_S)
    monkeypatch.setenv("TOKEN", influx2.token(("write", "PowerLogger_raw")))
    influx = output(influx2.url, token_env="TOKEN")
    for _ in range(3):
        influx.write(Batch([record(time.time() - 7200)]))
    assert stretches(influx.memo)
    assert caplog.text.count("influx setup makes a token that may") == 1


@pytest.mark.usefixtures("in_a_hurry")
def test_where_nothing_is_summed_up_it_is_said_once_and_nothing_is_kept(
    influx2: Influx2,
    victoria_metrics: VictoriaMetrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    influx2.make("PowerLogger_raw")
    monkeypatch.setenv("TOKEN", influx2.token(("read", "PowerLogger_raw"), ("write", "PowerLogger_raw")))
    for influx in (output(influx2.url, token_env="TOKEN"), output(victoria_metrics.url)):
        caplog.clear()
        for _ in range(2):
            influx.write(Batch([record(time.time() - 7200)]))
            assert influx.memo == {}
        assert caplog.text.count("late readings are summed up nowhere") == 1


def test_with_no_buckets_for_sums_nothing_is_noted() -> None:
    with RecordingInflux() as server:
        influx = output(server.url, bucket_1m="", bucket_5m="", bucket_1h="")
        influx.write(Batch([record(time.time() - 7200)]))
    assert influx.memo == {}


def test_while_late_readings_keep_coming_it_waits_but_not_for_ever(
    influx2: Influx2, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx2.make("PowerLogger_raw", *WIDTHS_S)
    rights = [("read", "PowerLogger_raw"), ("write", "PowerLogger_raw"), *(("write", name) for name in WIDTHS_S)]
    monkeypatch.setenv("TOKEN", influx2.token(*rights))
    influx = output(influx2.url, token_env="TOKEN")
    influx.write(Batch([record(time.time() - 7200)]))
    influx.write(Batch([record(time.time() - 7100)]))
    assert influx2.queries == [], "the backlog is not through yet"
    monkeypatch.setattr(_influx_late, "_PATIENCE_S", 0.0)
    influx.write(Batch([record(time.time() - 7000)]))
    assert influx2.queries != []


MINUTES = st.integers(0, 5000)


@given(st.lists(st.tuples(MINUTES, st.integers(1, 50)), max_size=200), st.integers(1, 20))
def test_joined_stretches_cover_all_and_where_there_is_room_nothing_else(
    parts: list[tuple[int, int]], most: int
) -> None:
    given_parts = [(start, start + length) for start, length in parts]
    minutes = {minute for start, stop in given_parts for minute in range(start, stop)}
    exact, bounded = join(given_parts, most=10**6), join(given_parts, most=most)
    assert {minute for start, stop in exact for minute in range(start, stop)} == minutes
    assert {minute for start, stop in bounded for minute in range(start, stop)} >= minutes
    assert len(bounded) <= most
    assert all(first[1] < second[0] for found in (exact, bounded) for first, second in pairwise(found))


@given(MINUTES, st.integers(1, 400), st.integers(0, 400_000), st.sampled_from(LEVELS), st.integers(0, 200_000))
def test_touched_windows_are_whole_over_and_not_half_forgotten(
    start: int, length: int, now_s: int, level: Any, keeps_s: int
) -> None:
    first_s, last_s = touched(level, start, start + length, now_s, keeps_s)
    assert first_s % level.width_s == last_s % level.width_s == 0
    windows = set(range(first_s, last_s, level.width_s))
    wanted = {minute * 60 // level.width_s * level.width_s for minute in range(start, start + length)}
    sound = {at for at in wanted if at + level.width_s <= now_s and (not keeps_s or at >= now_s - keeps_s)}
    assert windows == sound
