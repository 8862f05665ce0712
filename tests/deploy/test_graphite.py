"""What deploy/graphite promises, on a real carbon: nothing is missing in the coarser archives, however late it came."""

from __future__ import annotations

import configparser
import functools
import random
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import pytest
import whisper
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Site
from graphite_helper import LineEncoder, metric_path
from reading import AVERAGED, COUNTERS, LASTING, METRICS, SUMMED, TEXTS, Record
from tests.peers.carbon import Carbon, running_carbon
from tests.peers.process import wait_for
from writer import Batch, Memo
from writer.outputs import _graphite_archives
from writer.outputs._graphite_archives import archives
from writer.outputs.graphite import Graphite, Options

DEPLOY = Path(__file__).parents[2] / "deploy" / "graphite"
DAY_S = 86_400
PATH = "home.electricity.kasa.fridge"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carbon]:
    """A carbon with the configuration that we ship."""
    schemas = (DEPLOY / "storage-schemas.conf").read_text()
    aggregation = (DEPLOY / "storage-aggregation.conf").read_text()
    with running_carbon(tmp_path_factory.mktemp("shipped"), schemas=schemas, aggregation=aggregation) as carbon:
        yield carbon


def graphite(carbon: Carbon, memo: Memo | None = None, **options: Any) -> Graphite:
    table = msgspec.convert({"port": carbon.port, **options}, Options)
    return Graphite(table, Site(), Memo() if memo is None else memo)


def sections(file: str) -> list[tuple[re.Pattern[str], dict[str, str]]]:
    """The sections in the order in which carbon looks at them."""
    parser = configparser.RawConfigParser()
    parser.read(DEPLOY / file)
    return [(re.compile(parser[name]["pattern"]), dict(parser[name])) for name in parser.sections()]


def first_match(file: str, path: str) -> dict[str, str]:
    return next(values for pattern, values in sections(file) if pattern.search(path))


@pytest.mark.parametrize("metric", sorted(METRICS - TEXTS))
def test_every_metric_is_summed_up_as_its_kind_needs(metric: str) -> None:
    for prefix in ("home.electricity", "home.electricity.simulated"):
        path = metric_path(prefix, "kasa", "fridge", metric)
        rule = first_match("storage-aggregation.conf", path)
        wanted = "last" if metric in LASTING else "sum" if metric in SUMMED else "average"
        assert (rule["aggregationmethod"], float(rule["xfilesfactor"])) == (wanted, 0.0)
        assert first_match("storage-schemas.conf", path)["retentions"] == Options().retentions


def test_series_of_others_are_left_to_their_own_rules() -> None:
    for file in ("storage-schemas.conf", "storage-aggregation.conf"):
        for path in ("servers.pi.cost", "carbon.agents.pi.cpuUsage", "home.electricityx.kasa.fridge.pulses"):
            assert not [pattern for pattern, _ in sections(file) if pattern.search(path)]


@pytest.mark.parametrize("interval_s", [5, 10, 30, 60, 300, 900])
def test_at_any_pace_every_slot_of_every_archive_that_had_a_reading_is_filled(shipped: Carbon, interval_s: int) -> None:
    """What Graphite's usual xFilesFactor silently leaves empty."""
    now_s = int(time.time()) // 600 * 600
    begin_s = now_s - 7200
    prefix = f"home.electricity.every{interval_s}"
    times_s = list(range(begin_s, now_s, interval_s))
    records = [
        Record("kasa", "fridge", at * 10**9, {"power_w": float(at % 977), "pulses": at - begin_s}) for at in times_s
    ]
    graphite(shipped, prefix=prefix).write(Batch(records))
    assert_archives(shipped, f"{prefix}.kasa.fridge", records, begin_s, now_s)


def assert_archives(carbon: Carbon, path: str, records: list[Record], begin_s: int, end_s: int) -> None:
    """Every archive has what an independent computation says."""
    of_ten: dict[str, dict[int, float]] = {metric: {} for metric in ("power_w", "pulses")}
    for record in sorted(records, key=lambda one: one.time_ns):
        slot_s = record.time_ns // 10**10 * 10
        for metric, value in record.values.items():
            of_ten[metric][slot_s] = float(value)  # the last one of a slot stays
    for metric, rule in (("power_w", fmean), ("pulses", lambda values: values[-1])):
        expected = of_ten[metric]
        for step_s in (10, 60, 600):
            expected = summed(expected, step_s, rule)
            assert_points(carbon, f"{path}.{metric}", step_s, (begin_s, end_s), expected)


def assert_points(carbon: Carbon, series: str, step_s: int, span: tuple[int, int], expected: dict[int, float]) -> None:
    """Carbon writes when it comes to it, so wait; what is there in the end has to be exactly that."""
    deadline_s = time.monotonic() + 20
    while (found := carbon.points(series, step_s, *span)) != pytest.approx(expected) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert found == pytest.approx(expected), (series, step_s)


def summed(points: dict[int, float], step_s: int, rule: Callable[[list[float]], float]) -> dict[int, float]:
    slots: dict[int, list[float]] = {}
    for at_s in sorted(points):
        slots.setdefault(at_s // step_s * step_s, []).append(points[at_s])
    return {at_s: rule(values) for at_s, values in slots.items()}


def has_points(carbon: Carbon, series: str, step_s: int, from_s: int, until_s: int, count: int) -> bool:
    return len(carbon.points(series, step_s, from_s, until_s)) == count


def test_when_a_week_and_a_month_have_passed_the_coarser_archives_answer(shipped: Carbon) -> None:
    """Read as whisper would read it then: by itself, from the finest archive that reaches so far."""
    now_s = int(time.time()) // 600 * 600
    records = [
        Record("kasa", "then", at * 10**9, {"power_w": float(at % 977)}) for at in range(now_s - 3600, now_s, 30)
    ]
    graphite(shipped).write(Batch(records))
    series = "home.electricity.kasa.then.power_w"
    slots = {10: 120, 60: 60, 600: 6}
    for step_s, count in slots.items():  # it writes the finest one first
        has = functools.partial(has_points, shipped, series, step_s, now_s - 3600, now_s, count)
        wait_for(has, f"{count} slots of {step_s} s")
    for days, step_s in ((6, 10), (8, 60), (29, 60), (31, 600), (300, 600)):
        then_s = now_s + days * DAY_S
        (_, _, step), values = whisper.fetch(str(shipped.file(series)), now_s - 3601, now_s - 1, now=then_s)
        assert step == step_s
        assert sum(value is not None for value in values) == slots[step_s]


def test_what_comes_days_late_finds_its_way_into_every_archive(shipped: Carbon) -> None:
    end_s = int(time.time()) // 600 * 600 - 3 * DAY_S
    begin_s = end_s - 3600
    chance = random.Random(3)
    records = [
        Record("kasa", "late", (begin_s + n * 10) * 10**9, {"power_w": chance.uniform(0, 3000), "pulses": n})
        for n in range(360)
    ]
    gap = records[100:250]
    output = graphite(shipped)
    output.write(Batch(records[:100] + records[250:]))
    wait_for(lambda: shipped.points("home.electricity.kasa.late.power_w", 10, begin_s, end_s), "what came in time")
    output.write(Batch(gap))
    assert_archives(shipped, "home.electricity.kasa.late", records, begin_s, end_s)


@pytest.mark.parametrize(("age_days", "step_s"), [(10, 60), (40, 600)])
def test_what_is_older_than_the_finest_archive_is_summed_up_and_no_reading_is_passed_over(
    shipped: Carbon, age_days: int, step_s: int
) -> None:
    """Whisper alone would keep the last reading of each slot. Batches end where they will, and the writer is killed."""
    device = f"old{age_days}"
    begin_s = int(time.time()) // 600 * 600 - age_days * DAY_S
    chance = random.Random(age_days)
    records = [
        Record(
            "kasa",
            device,
            (begin_s + n * 10) * 10**9,
            {"power_w": chance.uniform(0, 3000), "pulses": n, "energy_correction_wh": chance.uniform(-1, 1)},
        )
        for n in range(720)
    ]
    memo, at = Memo(), 0
    while at < len(records):
        size = chance.randrange(1, 90)
        batch = Batch(records[at : at + size])
        graphite(shipped, Memo(memo)).write(batch)  # killed before the outbox knew: the batch comes again
        kept = Memo(memo)
        graphite(shipped, kept).write(batch)
        memo, at = kept, at + size
    rules: dict[str, Callable[[list[float]], float]] = {"power_w": fmean, "energy_correction_wh": sum}
    rules["pulses"] = lambda values: values[-1]
    for metric, rule in rules.items():
        series = f"home.electricity.kasa.{device}.{metric}"
        expected = summed({one.time_ns // 10**9: float(one.values[metric]) for one in records}, step_s, rule)
        span = (begin_s, begin_s + 7200)
        assert_points(shipped, series, step_s, span, expected)
        assert_points(shipped, series, 600, span, summed(expected, 600, rule))


def test_without_summing_up_the_last_reading_of_each_slot_would_be_left(shipped: Carbon) -> None:
    """The trap itself, so that the test above is known to test something."""
    begin_s = int(time.time()) // 600 * 600 - 10 * DAY_S
    records = [Record("kasa", "trap", (begin_s + n * 10) * 10**9, {"power_w": float(n)}) for n in range(18)]
    graphite(shipped, retentions="10s:1y").write(Batch(records))
    series = "home.electricity.kasa.trap.power_w"
    wait_for(lambda: len(shipped.points(series, 60, begin_s, begin_s + 180)) == 3, "three minutes")
    assert list(shipped.points(series, 60, begin_s, begin_s + 180).values()) == [5.0, 11.0, 17.0]


def test_a_reading_from_the_future_takes_the_place_of_no_other(shipped: Carbon) -> None:
    """The clock was wrong for a moment. What is measured when that time comes takes the place of it."""
    now_s = int(time.time())
    series = "home.electricity.kasa.early.power_w"
    output = graphite(shipped)
    past = [Record("kasa", "early", (now_s - n * 10) * 10**9, {"power_w": 1.0}) for n in range(60)]
    output.write(Batch(past))
    wait_for(lambda: len(shipped.points(series, 10, now_s - 700, now_s + 1)) >= 59, "the past")
    before = shipped.points(series, 10, now_s - 700, now_s + 1)
    output.write(Batch([Record("kasa", "early", (now_s + 3600) * 10**9, {"power_w": 9.0})]))
    later_s = now_s + 3700
    wait_for(lambda: shipped.points(series, 10, now_s + 3500, later_s, now_s=later_s), "the future")
    assert shipped.points(series, 10, now_s - 700, now_s + 1) == before
    assert [*shipped.points(series, 10, now_s + 3500, later_s, now_s=later_s).values()] == [9.0]


# ---- the summing up itself


RETENTIONS = "10s:7d,1m:30d,10m:1y"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("", "is no retention"),
        ("10s", "is no retention"),
        ("10s:7x", "is no retention"),
        ("10s:7d,15s:30d", "a multiple"),
        ("10s:7d,1m:7d", "keep longer"),
        ("1m:30d,10s:7d", "a multiple"),
        ("0s:7d", "keeps nothing"),
        ("1m:30s", "keeps nothing"),
    ],
)
def test_retentions_that_carbon_would_refuse_are_a_mistake_in_the_configuration(told: str, why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({"retentions": told}, Options)


@pytest.mark.parametrize("told", [RETENTIONS, "60:1440", "1min:30days, 10min:1year", "1s:1d,10s:7d,1m:30d,10m:1y"])
def test_retentions_are_read_as_whisper_reads_them(told: str) -> None:
    read = [whisper.parseRetentionDef(part.strip()) for part in told.split(",")]
    assert [(step_s, step_s * points) for step_s, points in read] == [tuple(one) for one in archives(told)]


@given(
    st.lists(
        st.tuples(st.integers(0, 600), st.floats(-1e6, 1e6), st.sampled_from(["power_w", "energy_correction_wh"])),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_however_a_backlog_is_cut_each_slot_ends_with_all_its_readings(
    readings: list[tuple[int, float, str]], cuts: list[int]
) -> None:
    now_s = 2_000_000_000.0
    begin_s = int(now_s) - 10 * DAY_S
    begin_s -= begin_s % 600
    readings = sorted(readings, key=lambda one: one[0])
    records = [
        Record("k", "d", (begin_s + at) * 10**9 + n, {metric: value}) for n, (at, value, metric) in enumerate(readings)
    ]
    memo, seen = Memo(), dict[tuple[str, int], float]()
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    for start, end in pairwise(edges):
        late = _graphite_archives.LateSlots(RETENTIONS, LineEncoder("p"), Memo(memo))
        lines, notes = late.lines(records[start:end], now_s)
        late.keep(notes, late=True)
        memo = late._memo
        for line in lines:
            path, value, at_s = line.split()
            seen[path, int(at_s)] = float(value)
    for metric, rule in (("power_w", fmean), ("energy_correction_wh", sum)):
        values: dict[int, list[float]] = {}
        for at, value, name in readings:
            if name == metric:
                values.setdefault((begin_s + at) // 60 * 60, []).append(value)
        expected = {at: rule(each) for at, each in values.items()}
        got = {at: value for (path, at), value in seen.items() if path == f"p.k.d.{metric}"}
        assert got == pytest.approx(expected, abs=1e-6)


def test_the_memo_is_small_and_gone_when_the_backlog_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    memo = Memo()
    late = _graphite_archives.LateSlots(RETENTIONS, LineEncoder("p"), memo)
    old = [Record("k", f"d{n}", int((now_s - 10 * DAY_S) * 1e9), {"power_w": 1.0}) for n in range(1500)]
    _, notes = late.lines(old, now_s)
    late.keep(notes, late=True)
    assert len(memo) == 3000
    assert all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in memo.values())
    late.keep({}, late=False)
    assert len(memo) == 3000
    monkeypatch.setattr(_graphite_archives, "_FORGET_AFTER_S", -1.0)
    late.keep({}, late=False)
    assert memo == {}


def test_counters_and_averages_share_no_metric() -> None:
    assert not COUNTERS & AVERAGED
