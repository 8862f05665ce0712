"""Pulses: what is one and what is a bounce, watts from intervals, and a count that outlives every reader."""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import socket
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workers._gpio_chip
import workers.pulse
from reading import METRICS, Quality
from tests.workers.pulse_bench import Bench, bench, keeper, options, record, wait_until_read
from workers import SourceError, source_class
from workers._gpio import FALLING, RISING, Edge
from workers._pulse import Rules, Tally, interval_s, power_w
from workers._pulse_channel import Channel, Device
from workers._pulse_memory import _SLOT_BYTES, Memory, State
from workers.pulse import Options, Pulse

MS = 10**6
SECOND = 10**9
MINUTE = 60 * SECOND


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.pulse.__doc__ or "").splitlines() if line.startswith("    "))
    table = tomllib.loads(text)["sources"]["pulse"]
    shown = msgspec.convert(table, Options)
    assert [device.where for device in shown.devices] == [device.where for device in Options(kind="pulse").devices]
    assert msgspec.structs.replace(shown.devices[0], line="auto") == Device(name="import")
    assert shown.devices[1:] == Options(kind="pulse").devices[1:]
    assert {*table} == {*Options.__struct_fields__}
    assert {*table["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("pulse") is Pulse


def test_the_lines_are_those_of_the_seed_unless_others_are_named() -> None:
    assert [(device.name, device.where) for device in Options(kind="pulse").devices] == [
        ("import", 20),
        ("export", 26),
        ("generate", 21),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": []}, "no channel is configured"),
        ({"devices": [{"name": "a", "line": 1}, {"name": "a", "line": 2}]}, "configured twice"),
        ({"devices": [{"name": "a"}, {"name": "b", "line": 20}]}, "a and b have the same line 20"),
        ({"devices": [{"name": "a", "line": "S0"}, {"name": "b", "line": "S0"}]}, "a and b have the same line S0"),
        ({"devices": [{"name": "a", "imp_per_kwh": 0}]}, "imp_per_kwh"),
        ({"devices": [{"name": "a", "line": -1}]}, "line"),
        ({"devices": [{"name": "a", "min_pulse_ms": 200}]}, "min_pulse_ms of 200 rejects pulses that come every 144.0"),
        ({"devices": [{"name": "a", "min_interval_ms": 144}]}, "min_interval_ms of 144 rejects pulses"),
        ({"priority": 100}, "priority"),
        ({"core": -2}, "core"),
        ({"backend": "sysfs"}, "sysfs"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        options(**change)


def test_the_filters_follow_from_the_meter() -> None:
    rules = Device(name="import").rules
    assert (rules.min_pulse_ns, rules.min_interval_ns) == (10 * MS, 72 * MS)  # half of 144 ms at 25 kW
    assert Device(name="light", output="led").rules.min_pulse_ns == 2 * MS
    behind_transformers = Device(name="import", ct_ratio=20, max_power_w=500_000)
    assert behind_transformers.rules.min_interval_ns == 72 * MS
    assert behind_transformers.wh_per_pulse == 20
    assert not Device(name="import", min_pulse_ms=0).wanted.both


# Watts


@given(
    st.floats(1e-3, 1e5),
    st.floats(1e-3, 300),
    st.floats(0, 400),
    st.floats(0, 400),
)
def test_power_only_ever_falls_until_the_next_pulse(wh: float, interval: float, since_s: float, later_s: float) -> None:
    now, later = (power_w(wh, interval, since_s + more, 300) for more in (0, later_s))
    assert 0 <= later <= now <= 3600 * wh / interval
    assert math.isfinite(now)
    if since_s + later_s > 300:
        assert later == 0


@given(st.floats(1, 20_000), st.floats(1, 100), st.floats(1, 1e6))
def test_power_and_interval_are_two_sides_of_one_thing(imp_per_kwh: float, ct_ratio: float, watts: float) -> None:
    between_s = interval_s(imp_per_kwh, ct_ratio, watts)
    assert power_w(1000 * ct_ratio / imp_per_kwh, between_s, 0, math.inf) == pytest.approx(watts)


# Edges to pulses

BOTH = Rules(lead=FALLING, both=True, min_pulse_ns=10 * MS, min_interval_ns=70 * MS, timeout_ns=5 * MINUTE)
ONE = Rules(lead=FALLING, both=False, min_interval_ns=70 * MS, timeout_ns=5 * MINUTE)


def tally() -> Tally:
    return Tally("b00t", 1.0)


def book(edges: list[tuple[int, int]], rules: Rules, into: Tally | None = None) -> tuple[Tally, list[int], int]:
    """Book (ms, kind) edges numbered without a gap; return the tally, when pulses began in ms, and the bounces."""
    counted = into or tally()
    found = [
        counted.take(Edge(ms * MS, kind, 20, counted.number + 1), rules) for ms, kind in edges
    ]  # fmt: skip
    return counted, [one.pulse_ns // MS for one in found if one.pulse_ns], sum(one.bounces for one in found)


def edges_of(*pulses: tuple[int, int]) -> list[tuple[int, int]]:
    return [edge for begin, end in pulses for edge in ((begin, FALLING), (end, RISING))]


def test_a_pulse_must_last_to_be_one() -> None:
    assert book(edges_of((1000, 1009), (2000, 2010), (3000, 3040)), BOTH)[1:] == ([2000, 3000], 1)


def test_bounces_of_a_contact_make_one_pulse() -> None:
    bouncing = edges_of((1000, 1001), (1002, 1003), (1004, 1050), (1051, 1052))
    assert book(bouncing, BOTH)[1:] == ([1004], 3)


def test_a_pulse_that_bounces_in_its_middle_is_one() -> None:
    assert book(edges_of((1000, 1015), (1016, 1040)), BOTH)[1:] == ([1000], 1)


def test_pulses_nearer_than_the_meter_can_be_are_bounces_with_one_edge_too() -> None:
    assert book([(1000, FALLING), (1003, FALLING), (1069, FALLING), (1070, FALLING)], ONE)[1:] == ([1000, 1070], 2)


def test_an_end_that_the_kernel_merged_with_a_bounce_costs_no_pulse() -> None:
    assert book([(1000, FALLING), (1030, FALLING), (1031, RISING)], BOTH)[1:] == ([1000], 0)


def test_a_pulse_that_nobody_saw_begin_is_not_counted() -> None:
    counted = tally()
    counted.start_again(500 * MS, active=True)
    assert book([(510, RISING), *edges_of((1000, 1030))], BOTH, counted)[1:] == ([1000], 0)


def test_the_first_pulse_counts_and_only_arms() -> None:
    for rules, edges in ((ONE, [(1000, FALLING)]), (BOTH, edges_of((1000, 1030)))):
        counted, *_ = book(edges, rules)
        assert (counted.pulses, counted.power_w(1100 * MS, rules)) == (1, None)
        book([(ms + 2000, kind) for ms, kind in edges], rules, counted)
        assert counted.power_w(3000 * MS, rules) == 1800
        assert counted.power_w(13_000 * MS, rules) == 360


def test_after_a_long_pause_the_first_pulse_only_arms_again() -> None:
    counted, *_ = book([(1000, FALLING), (3000, FALLING)], ONE)
    assert counted.power_w(3 * SECOND + 5 * MINUTE, ONE) == 12
    assert counted.power_w(3 * SECOND + 5 * MINUTE + 1, ONE) == 0
    book([(400_000, FALLING)], ONE, counted)
    assert counted.power_w(401 * SECOND, ONE) is None
    book([(402_000, FALLING)], ONE, counted)
    assert counted.power_w(402 * SECOND, ONE) == 1800


def test_without_any_pulse_power_is_unknown_until_the_time_is_up() -> None:
    counted = tally()
    counted.start_again(10 * SECOND, active=False)
    assert counted.power_w(20 * SECOND, ONE) is None
    assert counted.power_w(10 * SECOND + 5 * MINUTE + 1, ONE) == 0


def test_pulses_in_a_gap_are_spread_over_it() -> None:
    counted = tally()
    for ms, number in ((1000, 1), (3000, 2), (11_000, 6)):
        found = counted.take(Edge(ms * MS, FALLING, 20, number), ONE)
    assert (found.lost_edges, found.hidden, counted.pulses) == (3, 3, 6)
    assert counted.power_w(11 * SECOND, ONE) == 1800


def test_a_gap_does_not_invent_more_than_the_meter_can_count() -> None:
    counted = tally()
    counted.take(Edge(SECOND, FALLING, 20, 1), ONE)
    found = counted.take(Edge(2 * SECOND, FALLING, 20, 5001), ONE)
    assert (counted.pulses, found.lost_edges, found.bounces) == (17, 4999, 4984)  # 70 ms apart at the least


def test_an_edge_that_is_booked_already_is_not_booked_again() -> None:
    counted, *_ = book([(1000, FALLING), (2000, FALLING)], ONE)
    before = msgspec.structs.astuple(counted)
    for number in (1, 2):
        assert counted.take(Edge(3 * SECOND, FALLING, 20, number), ONE) == (0, 0, 0, 0)
    assert msgspec.structs.astuple(counted) == before


def test_the_numbers_of_edges_wrap_round() -> None:
    counted = msgspec.structs.replace(tally(), number=2**32 - 2)
    assert [counted.take(Edge(n * SECOND, FALLING, 20, (n - 2) % 2**32), ONE)[2] for n in (1, 2, 4)] == [0, 0, 1]
    assert (counted.pulses, counted.number) == (4, 2)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from([RISING, FALLING])), max_size=60), st.booleans())
def test_whatever_the_edges_accepted_pulses_keep_to_the_rules(steps: list[tuple[int, int]], both: bool) -> None:
    rules = BOTH if both else ONE
    at_ms, edges = 1000, []
    for step_ms, kind in steps:
        at_ms += step_ms
        edges.append((at_ms, kind))
    counted, began, bounces = book(edges, rules)
    assert counted.pulses == len(began)
    assert len(began) + bounces <= len(edges)
    assert all(later - before >= 70 for before, later in pairwise(began))
    assert set(began) <= {ms for ms, kind in edges if kind == FALLING}
    watts = counted.power_w((at_ms + 1) * MS, rules)
    assert watts is None or 0 <= watts <= 3600 / 0.070 + 1


@settings(max_examples=300)
@given(st.data(), st.booleans(), st.integers(2, 60))
def test_whatever_is_lost_of_a_clean_stream_the_count_is_exact(data: st.DataObject, both: bool, pulses: int) -> None:
    edges = edges_of(*((n * 200, n * 200 + 40) for n in range(1, pulses + 1)))
    if not both:
        edges = [edge for edge in edges if edge[1] == FALLING]
    keep = data.draw(st.lists(st.booleans(), min_size=len(edges) - 1, max_size=len(edges) - 1))
    first = data.draw(st.integers(0, 2**32 - 1))
    counted = msgspec.structs.replace(tally(), number=first)
    lost = 0
    for number, ((ms, kind), kept) in enumerate(zip(edges, [*keep, True], strict=True), first + 1):
        if kept:
            lost += counted.take(Edge(ms * MS, kind, 20, number % 2**32), BOTH if both else ONE).lost_edges
    assert counted.pulses == pulses
    assert lost == keep.count(False)


# Memory


def state(pulses: int) -> State:
    return State("request", [20], {"import": msgspec.structs.replace(tally(), pulses=pulses)}, [])


def test_memory_gives_back_what_was_noted_last() -> None:
    memory = Memory.new()
    assert memory.load() is None
    for pulses in range(5):
        memory.note(state(pulses))
        assert Memory(memory.descriptor).load() == state(pulses)
    os.close(memory.descriptor)


@given(st.integers(0, 200), st.binary(max_size=200))
def test_a_note_that_was_cut_short_leaves_the_one_before(length: int, rubbish: bytes) -> None:
    memory = Memory.new()
    slots = (0, _SLOT_BYTES)
    memory.note(state(1))
    memory.note(state(2))
    before = [os.pread(memory.descriptor, 400, slot) for slot in slots]
    memory.note(state(3))
    after = [os.pread(memory.descriptor, 400, slot) for slot in slots]
    changed = 0 if before[0] != after[0] else 1
    torn = (after[changed][:length] + rubbish + before[changed][length + len(rubbish) :])[:400]
    os.pwrite(memory.descriptor, torn, slots[changed])
    assert Memory(memory.descriptor).load() in (state(2), state(3))
    os.close(memory.descriptor)


# The source, on a pipe in place of the kernel's request


@contextmanager
def opened(made: Bench) -> Iterator[Pulse]:
    source = made.source()
    try:
        source.open()
        yield source
    finally:
        source.close()
        for descriptor in source.kept.values():
            os.close(descriptor)


def pulse_records(begin_ns: int, number: int, offset: int = 20, width_ns: int = 30 * MS) -> list[bytes]:
    return [
        record(begin_ns, FALLING, number, offset),
        record(begin_ns + width_ns, RISING, number + 1, offset),
    ]


def test_pulses_are_reported_at_their_edge_with_power_and_count() -> None:
    with bench(options(report_interval_s=0.001)) as made, opened(made) as source:
        start_ns = time.monotonic_ns() - 2 * SECOND
        made.write(*pulse_records(start_ns, 1), *pulse_records(start_ns + SECOND, 3))
        readings = source.read()
        assert [(one.at_ns, dict(one.values)) for one in readings[:2]] == [
            (start_ns, {"pulse": "import"}),
            (start_ns + SECOND, {"pulse": "import"}),
        ]
        report = readings[-1].values
        assert (report["pulses"], report["device_energy_wh"]) == (2, 2.0)
        assert 3000 < float(report["power_w"]) <= 3600
        assert not source.troubles
        assert all({*one.values} <= METRICS for one in readings)


def test_the_first_round_says_what_is_known() -> None:
    with bench(options()) as made, opened(made) as source:
        assert [dict(one.values) for one in source.read()] == [{"pulses": 0, "device_energy_wh": 0.0}]
        assert source.read() == []


def test_power_that_flows_out_is_negative_and_has_a_counter_of_its_own() -> None:
    channels = [{"name": kind, "type": kind} for kind in ("import", "export", "generate")]
    with bench(options(devices=channels, report_interval_s=0.001)) as made, opened(made) as source:
        at_ns = time.monotonic_ns() - SECOND
        for offset in (20, 26, 21):
            made.write(*pulse_records(at_ns - SECOND, 1, offset), *pulse_records(at_ns, 3, offset))
        reports = {one.device: one.values for one in source.read() if "pulses" in one.values}
        assert reports["import"]["power_w"] == reports["generate"]["power_w"] == -float(reports["export"]["power_w"])
        assert (reports["export"]["device_energy_export_wh"], "device_energy_wh" in reports["export"]) == (2.0, False)
        assert (reports["import"]["device_energy_wh"], reports["generate"]["device_energy_wh"]) == (2.0, 2.0)


def test_without_events_only_the_interval_is_reported() -> None:
    with bench(options(events=False)) as made, opened(made) as source:
        source.read()
        made.write(*pulse_records(time.monotonic_ns() - SECOND, 1))
        assert source.read() == []


def test_a_fast_meter_makes_one_message_not_one_a_pulse() -> None:
    with bench(options()) as made, opened(made) as source:
        source.read()
        source.gather_s = 0.2
        at_ns = time.monotonic_ns() - 10 * SECOND
        made.write(*[part for n in range(40) for part in pulse_records(at_ns + n * 200 * MS, 2 * n + 1)])
        began_s = time.monotonic()
        assert len([one for one in source.read() if "pulse" in one.values]) == 40
        assert 0.19 < time.monotonic() - began_s < 5


def test_a_change_of_state_is_reported_at_once() -> None:
    with bench(options(devices=[{"name": "import", "timeout_s": 0.05}])) as made, opened(made) as source:
        source.read()
        now_ns = time.monotonic_ns()
        made.write(*pulse_records(now_ns - 72 * MS, 1), *pulse_records(now_ns, 3))
        shown = [one.values["power_w"] for one in source.read() if "power_w" in one.values]
        deadline_s = time.monotonic() + 5
        while 0.0 not in shown and time.monotonic() < deadline_s:
            shown += [one.values["power_w"] for one in source.read() if "power_w" in one.values]
        assert shown[-1] == 0.0


def test_lost_edges_are_counted_told_and_called_an_estimate(caplog: pytest.LogCaptureFixture) -> None:
    with bench(options(devices=[{"name": "import", "min_pulse_ms": 0}])) as made, opened(made) as source:
        source.read()
        at_ns = time.monotonic_ns() - 60 * SECOND
        made.write(record(at_ns, FALLING, 1), record(at_ns + 50 * SECOND, FALLING, 42))
        with caplog.at_level(logging.WARNING):
            report = source.read()[-1]
        assert (report.values["pulses"], report.quality) == (42, Quality.ESTIMATED)
        assert (source.lost_edges, source.refused["bounce"]) == (40, 0)
        assert [one.message for one in caplog.records] == [
            "import: 40 edges were lost before they were read; 40 pulses are counted for them"
        ]


def test_bounces_are_refused_and_counted() -> None:
    with bench(options()) as made, opened(made) as source:
        at_ns = time.monotonic_ns() - 60 * SECOND
        made.write(*pulse_records(at_ns, 1, width_ns=MS), *pulse_records(at_ns + 2 * MS, 3))
        source.read()
        assert source.refused == {"bounce": 1}


def test_a_successor_goes_on_where_the_one_before_was() -> None:
    with bench(options(report_interval_s=0.001)) as made:
        at_ns = time.monotonic_ns() - 10 * SECOND
        with opened(made) as source:
            made.write(*pulse_records(at_ns, 1), record(at_ns + SECOND, FALLING, 3))
            source.read()
        made.write(record(at_ns + SECOND + 30 * MS, RISING, 4))
        with opened(made) as source:
            readings = source.read()
            readings += source.read()
        assert readings[-1].values["pulses"] == 2
        assert readings[-1].quality is Quality.MEASURED
        assert 300 < float(readings[-1].values["power_w"]) < 401  # the interval of both lives
        assert not made.deposits


def test_pulses_that_were_noted_and_not_reported_come_again_under_the_same_number() -> None:
    with bench(options()) as made:
        with opened(made) as source:
            made.write(*pulse_records(time.monotonic_ns() - SECOND, 1))
            first = [one for one in source.read() if one.origin]
        with opened(made) as source:
            assert [one for one in source.read() if one.origin] == first
            assert [one for one in source.read() if one.origin] == []
        assert first[0].origin is not None
        assert (first[0].origin.boot, first[0].origin.sequence) == ("b00t", 1)


def test_lines_that_were_requested_otherwise_are_given_back_and_the_count_stays() -> None:
    with bench(options()) as made:
        with opened(made) as source:
            made.write(*pulse_records(time.monotonic_ns() - SECOND, 1))
            source.read()
        made.table = options(devices=[{"name": "import", "bias": "none"}], chip="/dev/gpiochip-that-is-not-there")
        source = made.source()
        with pytest.raises(SourceError, match="there is no /dev/gpiochip-that-is-not-there"):
            source.open()
        source.close()
        assert [(name, stat.S_ISCHR(mode)) for name, mode in made.deposits] == [("lines", True)]
        assert "lines" not in source.kept
        state = made.memory.load()
        assert state is not None
        assert state.tallies["import"].pulses == 1


def test_what_was_put_in_the_place_of_lines_is_not_taken_for_lines() -> None:
    with bench(options(chip="/dev/gpiochip-that-is-not-there")) as made:
        os.dup2(nothing := os.open(os.devnull, os.O_RDONLY), made.lines)
        os.close(nothing)
        source = made.source()
        with pytest.raises(SourceError, match="there is no /dev/gpiochip"):
            source.open()
        source.close()


def test_a_pulse_of_another_worth_starts_another_count(caplog: pytest.LogCaptureFixture) -> None:
    with bench(options()) as made:
        with opened(made) as source:
            made.write(*pulse_records(time.monotonic_ns() - SECOND, 1))
            source.read()
        made.table = options(devices=[{"name": "import", "imp_per_kwh": 800}])
        with caplog.at_level(logging.INFO), opened(made) as source:
            reports = [one.values for one in source.read() if "pulses" in one.values]
            assert reports == [{"pulses": 0, "device_energy_wh": 0.0}]
        assert "import: a pulse is worth something else now; its count starts again" in caplog.messages


def test_a_chip_that_goes_away_is_an_error_and_never_a_busy_loop() -> None:
    with bench(options()) as made, opened(made) as source:
        made.write(*pulse_records(time.monotonic_ns() - SECOND, 1))
        os.close(made.feed)
        with pytest.raises(SourceError, match="the GPIO chip went away"):
            source.read()
        state = made.memory.load()
        assert state is not None
        assert (state.tallies["import"].pulses, len(state.unreported)) == (1, 1)  # what it had came first
        assert [(name, stat.S_ISCHR(mode)) for name, mode in made.deposits] == [("lines", True)]
        assert "lines" not in source.kept


def test_a_line_that_stays_at_its_level_is_told_and_forgotten_by_itself() -> None:
    channel, counted = Channel(Device(name="import")), tally()
    book([(1000, FALLING)], BOTH, counted)
    assert channel.trouble(counted, None, 10 * SECOND) == ""
    assert "stays at the level of a pulse" in channel.trouble(counted, None, 12 * SECOND)
    book([(13_000, RISING)], BOTH, counted)
    assert "short circuit" in channel.trouble(counted, None, 14 * SECOND)
    assert channel.trouble(counted, None, 33 * SECOND) == ""


def test_a_stuck_line_is_seen_without_its_other_edge_too() -> None:
    channel, counted = Channel(Device(name="import", min_pulse_ms=0)), tally()
    for second in range(1, 12):
        assert channel.trouble(counted, True, second * SECOND) == ""
    assert 'set edge = "rising"' in channel.trouble(counted, True, 12 * SECOND)
    assert channel.trouble(counted, False, 40 * SECOND) == ""
    for second in range(50, 80):  # a pulse each time somebody looks is no line that stays
        counted.seen_ns = second * SECOND - 1
        assert channel.trouble(counted, True, second * SECOND) == ""


def test_a_power_that_an_s0_output_cannot_tell_is_a_trouble_in_words() -> None:
    device = {"name": "import", "imp_per_kwh": 3200}
    with bench(options(devices=[device])) as made, opened(made) as source:
        source.read()
        assert "set max_power_w = 18750 or less" in source.troubles["import"]
    for cure in ({"max_power_w": 18_750}, {"output": "led"}):
        assert Device(**device, **cure).beyond_s0 == ""  # type: ignore[arg-type]


def test_edges_of_a_line_that_is_not_ours_are_left_alone() -> None:
    with bench(options()) as made, opened(made) as source:
        made.write(*pulse_records(time.monotonic_ns() - SECOND, 1, offset=7))
        assert [one.values["pulses"] for one in source.read()] == [0]


# The proof: readers killed, nothing lost; the fault lab kills 500 beside a meter that blinks at 100 Hz


class Stream:
    """A meter at 100 Hz of its own time, fed as fast as the readers die."""

    def __init__(self, made: Bench, both: bool) -> None:
        self._made = made
        self._both = both
        self._number = 0
        self._start_ns = time.monotonic_ns()
        self.begun: list[int] = []
        os.set_blocking(made.feed, False)

    def write(self, edges: int) -> None:
        for _ in range(edges):
            self._write_one()

    def finish(self) -> None:
        """End with whole pulses that are surely read."""
        self.write(40 - self._number % 2)

    def _write_one(self) -> None:
        pulse, half = divmod(self._number, 2) if self._both else (self._number, 0)
        at_ns = self._start_ns + pulse * 10 * MS + half * 4 * MS
        with suppress(BlockingIOError):
            self._made.write(record(at_ns, RISING if half else FALLING, self._number + 1))
            self._number += 1
            if not half:
                self.begun.append(at_ns)


@pytest.mark.parametrize(("both", "kills"), [(True, 120), (False, 60)], ids=["both-edges", "one-edge"])
def test_killed_readers_lose_and_double_no_pulse(both: bool, kills: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"name": "import", "output": "led", "max_power_w": 400_000, "min_pulse_ms": 2 if both else 0}
    decode = workers._gpio_chip.decode

    def slow_decode(data: bytes) -> list[Edge]:  # more of the kills fall between reading and noting
        time.sleep(0.001)
        return decode(data)

    monkeypatch.setattr(workers._gpio_chip, "decode", slow_decode)
    monkeypatch.setattr(Pulse, "gather_s", 0.004)
    with bench(options(devices=[device])) as made, keeper(made) as house:
        stream = Stream(made, both)
        for _ in range(kills):
            worker = house.start()
            while not house.vitals["open"] and not worker.ended:
                time.sleep(0.0005)
            until_s = time.monotonic() + random.uniform(0, 0.006)
            while time.monotonic() < until_s:
                stream.write(random.randrange(4))
                time.sleep(random.uniform(0, 0.001))
            worker.send(signal.SIGKILL)
            assert worker.bury() == -signal.SIGKILL
            house.listen()
        worker = house.start()
        wait_until_read(made)
        stream.finish()
        wait_until_read(made)
        worker.send(signal.SIGTERM)
        assert worker.bury() == 0
        house.listen()

    counts = [int(one.values["pulses"]) for one in house.told if "pulses" in one.values]
    energy = [one.values["device_energy_wh"] for one in house.told if "pulses" in one.values]
    assert counts == sorted(counts)
    assert (counts[-1], energy[-1]) == (len(stream.begun), float(len(stream.begun)))
    events: dict[int, int] = {}
    for one in house.told:
        if one.origin:  # the writer takes the first of a number
            assert events.setdefault(one.origin.sequence, one.at_ns) == one.at_ns
    # A pulse without an event is one that a killed reader had read and not noted: enough kills fell where it hurts.
    assert 0 < len(events) < len(stream.begun) - kills // 25
    assert all(stream.begun[number - 1] == at_ns for number, at_ns in events.items())


def test_a_worker_that_is_told_to_stop_reports_what_it_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is told: while it waits, while it gathers, while it books."""
    monkeypatch.setattr(Pulse, "gather_s", 0.002)
    device = {"name": "import", "output": "led", "max_power_w": 400_000, "min_pulse_ms": 0}
    with bench(options(devices=[device], events=False)) as made, keeper(made) as house:
        stream = Stream(made, both=False)
        for _ in range(50):
            worker = house.start()
            for _ in range(random.randrange(1, 5)):
                stream.write(3)
                wait_until_read(made)
            worker.send(signal.SIGTERM)
            assert worker.bury() == 0
            house.listen()
            assert [one.values["pulses"] for one in house.told][-1] == len(stream.begun)


def test_a_parent_that_keeps_descriptors_hands_them_to_the_successor() -> None:
    """The deposit as the house has it: over a socket, into `Deposits`, out of it into the next worker."""
    from supervise.deposits import Deposits
    from supervise.deposits import pair as deposit_pair

    worker_end, parent_end = deposit_pair()
    deposits = Deposits(parent_end)
    source = Pulse("pulse", options(chip="/dev/gpiochip-that-is-not-there"))
    source.deposit = lambda name, descriptor: (
        socket.send_fds(worker_end, [name.encode()], [descriptor]) and None
    )  # fmt: skip
    with pytest.raises(SourceError):
        source.open()
    source.close()
    assert deposits.receive() == ["count"]
    kept = Memory(deposits.kept["count"]).load()
    assert kept is not None
    assert kept.tallies["import"].pulses == 0
    for descriptor in source.kept.values():
        os.close(descriptor)
    deposits.close()
    worker_end.close()
