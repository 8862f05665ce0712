"""Whoever asks the history hears what was measured: folded or not yet, old or new, and beside a writer at work."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.buckets import ESTIMATED, HOUR_NS, SECOND_NS, buckets_of, kind_of, micro
from history.periods import Period, edges
from history.queries import Energy, History
from history.snapshot import Snapshot
from reading import Quality, Record
from tests.peers.process import wait_for
from tests.writer._helpers import forked
from tests.writer.outputs._history import (
    NOON_NS,
    POWER,
    REGISTER,
    batch,
    expected_rises,
    opened,
    points_of,
    quick,
    record,
    write_all,
)

DAY_S = 86_400
DAY_NS = 24 * HOUR_NS
DEVICE_REGISTER = ("kasa", "fridge", "device_energy_wh")
STATE = ("kasa", "fridge", "state")


@contextmanager
def asking(folder: Path) -> Iterator[History]:
    ask = History(folder / "history.db")
    try:
        yield ask
    finally:
        ask.close()


@st.composite
def records(draw: st.DrawFn, longest_s: int = 2 * DAY_S) -> list[Record]:
    """Some days of one device: with gaps, a register that rises, one that falls now and then, and a state."""
    times = sorted(draw(st.sets(st.integers(0, longest_s * 10), min_size=1, max_size=40)))
    found, energy_wh = [], 0
    for tenth in times:
        energy_wh += draw(st.integers(0, 5000))
        values = {
            "power_w": draw(st.integers(-500, 3000)) / 10,
            "energy_wh": energy_wh / 1000,
            "device_energy_wh": float(draw(st.integers(0, 1000))),
            "state": draw(st.sampled_from(["idle", "running"])),
        }
        found.append(record(tenth / 10, quality=draw(st.sampled_from(list(Quality))), **values))
    return found


def in_batches(some: list[Record], size: int) -> list:
    return [batch(*some[start : start + size], row=start + 1) for start in range(0, len(some), size)]


@settings(max_examples=25)
@given(records(), st.randoms(), st.sampled_from([60, 300, 1800, 3600, 5400, 10_800, DAY_S, 3 * DAY_S, 37]))
def test_a_series_says_what_the_readings_say(some: list[Record], chance: random.Random, step_s: int) -> None:
    with tempfile.TemporaryDirectory(dir=quick()) as name:
        folder = Path(name)
        batches = in_batches(some, chance.randint(1, 9))
        write_all(folder, chance.sample(batches, len(batches)))
        step_ns = step_s * SECOND_NS
        start, end = some[0].time_ns, some[-1].time_ns + 1
        with asking(folder) as ask:
            for metric in ("power_w", "energy_wh", "device_energy_wh", "state"):
                found = ask.series(("kasa", "fridge", metric), start, end, step_s)
                points = [(each.time_ns, each.values[metric], 0) for each in some]
                expected = buckets_of(points, step_ns, kind_of(metric, points[0][1]))  # type: ignore[arg-type]
                there = [index for index, n in enumerate(found.n) if n]
                assert found.step_s == step_s
                assert [found.at_ns[index] for index in there] == [bucket.start_ns for bucket in expected]
                assert [found.n[index] for index in there] == [bucket.n for bucket in expected]
                assert [found.last[index] for index in there] == [bucket.last for bucket in expected]
                if metric == "state":
                    assert [found.counts[index] for index in there] == [bucket.total for bucket in expected]
                    continue
                assert [found.min[index] for index in there] == [bucket.least for bucket in expected]
                assert [found.max[index] for index in there] == [bucket.most for bucket in expected]
                if metric == "power_w":
                    assert found.mean == pytest.approx([bucket.total / bucket.n / 1e6 for bucket in expected])  # type: ignore[operator]
                    assert found.increase == [None] * len(expected)
                else:
                    first = start // step_ns * step_ns
                    cuts = [*range(first, end, step_ns)]
                    cuts.append(cuts[-1] + step_ns)
                    rises = expected_rises(points_of(some, metric), cuts)
                    assert dict(zip(found.at_ns, found.increase, strict=True)) == {
                        at: rise / 1e6 for at, rise in zip(cuts, rises, strict=False) if rise is not None
                    }


@settings(max_examples=12)
@given(records(), st.integers(1, 9), st.sampled_from(["Europe/London", "Asia/Kolkata"]))
def test_energy_is_the_same_whatever_is_still_kept(some: list[Record], size: int, zone: str) -> None:
    """First from every reading, then a year later from half-hours."""
    much_later = [
        record(400 * DAY_S + at, energy_wh=some[-1].values["energy_wh"], device_energy_wh=0.0)  # type: ignore[arg-type]
        for at in range(0, 7201, 1200)
    ]
    start, end = some[0].time_ns, some[-1].time_ns + 1
    with tempfile.TemporaryDirectory(dir=quick()) as name:
        folder = Path(name)
        write_all(folder, in_batches(some, size))
        channels = [REGISTER, DEVICE_REGISTER]
        aligned = start // (HOUR_NS // 2) * (HOUR_NS // 2)
        before = []
        with asking(folder) as ask:
            for later in (False, True):
                if later:
                    write_all(folder, [batch(each, row=1000 + row) for row, each in enumerate(much_later)])
                    bounds = ask.bounds()
                    assert bounds
                    assert bounds.five_minutes_since_ns > end, "nothing finer than half-hours is left"
                days = ask.energy(channels, start, end, "day", zone)
                halves = [ask.energy_steps(channel, aligned, end) for channel in channels]
                before.append((days, halves))
        for channel, half_hours in zip(channels, before[0][1], strict=True):
            cuts = [each.start_ns for each in half_hours] + [half_hours[-1].end_ns]
            rises = expected_rises(points_of(some, channel[2]), cuts)
            assert [each.amount and micro(each.amount) for each in half_hours] == rises
        # Of the time after the last reading nothing was known then; now there is one after it.
        [first, again] = [
            [[each.amount for each in row[:-1]] for row in (*days.values(), *halves)] for days, halves in before
        ]
        assert first == again


# When clocks are changed, or a whole day is left out, and a zone where none is; at half-hours, but for Nepal.
CHANGES = {
    "Europe/London": "2025-03-30T01:00Z",
    "America/St_Johns": "2025-11-02T04:30Z",
    "Australia/Lord_Howe": "2025-10-04T15:30Z",
    "America/Santiago": "2025-09-07T04:00Z",
    "Pacific/Apia": "2011-12-30T10:00Z",
    "Africa/Casablanca": "2025-02-23T02:00Z",
    "Asia/Kolkata": "2025-11-11T12:00Z",
    "Asia/Kathmandu": "2025-11-11T12:00Z",
}


@settings(max_examples=60)
@given(
    records(longest_s=9 * DAY_S), st.randoms(), st.sampled_from([*CHANGES]), st.sampled_from(["day", "week", "month"])
)
def test_local_days_are_true_in_every_zone_whatever_came_late(
    some: list[Record], chance: random.Random, zone: str, by: Period
) -> None:
    """Around a change of the clocks; some of it folded, some in the journal, and some came long after the rest."""
    shift_ns = int(datetime.fromisoformat(CHANGES[zone]).timestamp()) * SECOND_NS - 4 * DAY_NS - NOON_NS
    some = [msgspec.structs.replace(each, time_ns=each.time_ns + shift_ns) for each in some]
    batches = in_batches(some, chance.randint(1, 9))
    chance.shuffle(batches)
    late = chance.randrange(len(batches) + 1)
    start, end = some[0].time_ns, some[-1].time_ns + 1
    with tempfile.TemporaryDirectory(dir=quick()) as name:
        folder = Path(name)
        # Folded at the first batch of another hour; those that came last are in the journal still.
        write_all(folder, [*batches[:late], batch(record(0, "other", power_w=1.0), row=5000)])
        with opened(folder) as output, asking(folder) as ask:
            for each in batches[late:]:
                output.write(each)
            for channel in (REGISTER, DEVICE_REGISTER):
                found = ask.energy([channel], start, end, by, zone)[channel]
                cuts = [*(each.start_ns for each in found), found[-1].end_ns]
                assert cuts == edges(start, end, by, zone)
                assert [each.amount and micro(each.amount) for each in found] == expected_rises(
                    points_of(some, channel[2]), cuts
                )
                assert [each.estimated for each in found] == [is_estimated(some, each) for each in found]


def is_estimated(some: list[Record], found: Energy) -> bool:
    within = [each for each in some if found.start_ns <= each.time_ns < found.end_ns]
    return found.amount is not None and (not within or any(each.quality is Quality.ESTIMATED for each in within))


def test_a_fall_is_no_consumption_however_late_the_readings_around_it_come(tmp_path: Path) -> None:
    """A plug that begins at 0 each day, and what it counted in a gap comes afterwards, with another beginning in it."""
    heights = [40.0, 50.0, 2.0, 3.0, 9.0, 1.0, 4.0, 30.0, 31.0]  # one every two hours
    some = [record(at * 7200, device_energy_wh=height) for at, height in enumerate(heights)]
    late, early = some[2:5], some[:2] + some[5:]
    write_all(
        tmp_path, [batch(each, row=1 + row) for row, each in enumerate([*early, *late, record(DAY_S, power_w=1.0)])]
    )
    end = NOON_NS + DAY_NS
    with asking(tmp_path) as ask:
        hours = ask.energy([DEVICE_REGISTER], NOON_NS, end, "hour", "UTC")[DEVICE_REGISTER]
        wider = ask.series(DEVICE_REGISTER, NOON_NS, end, 6 * 3600)
        [year] = ask.energy([DEVICE_REGISTER], NOON_NS, end, "year", "UTC")[DEVICE_REGISTER]
    assert year.amount == sum(hour.amount or 0 for hour in hours) == sum(wider.increase) == 10 + 1 + 6 + 3 + 26 + 1  # type: ignore[arg-type]


def test_the_fall_into_a_stretch_is_not_one_within_it(tmp_path: Path) -> None:
    heights = [10.0, 20.0, 5.0, 8.0, 3.0, 9.0, 1.0, 2.0]  # one an hour
    some = [record(at * 3600, device_energy_wh=height) for at, height in enumerate(heights)]
    write_all(tmp_path, [batch(each, row=1 + row) for row, each in enumerate(some)])
    with asking(tmp_path) as ask:
        found = ask.series(DEVICE_REGISTER, NOON_NS, NOON_NS + 8 * HOUR_NS, 3 * 3600)
    assert found.increase == [10.0 + 3.0, 6.0, 1.0]


def test_an_hour_that_is_not_folded_yet_belongs_to_both_steps_that_it_is_in(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(0, energy_wh=0.0), record(4.5 * 3600, energy_wh=9.0), row=1)])
    with asking(tmp_path) as ask:
        found = ask.series(REGISTER, NOON_NS, NOON_NS + 6 * HOUR_NS, 5400)
    assert [found.n, found.increase] == [[1, 0, 0, 1], [3.0, 3.0, 3.0, 0.0]]


def test_a_house_in_nepal_gets_its_days_as_near_as_an_hour_allows_and_all_of_its_energy(tmp_path: Path) -> None:
    """Midnight there is a quarter past the hour in UTC, which is within a half-hour once nothing finer is kept."""
    some = [record(at, energy_wh=float(at)) for at in range(0, 3 * DAY_S, 600)]
    write_all(tmp_path, [batch(*some, row=1)])
    with asking(tmp_path) as ask:
        exact = ask.energy([REGISTER], some[0].time_ns, some[-1].time_ns, "day", "Asia/Kathmandu")[REGISTER]
        later = [record(400 * DAY_S + at, energy_wh=some[-1].values["energy_wh"]) for at in range(0, 7201, 1200)]  # type: ignore[arg-type]
        write_all(tmp_path, [batch(each, row=2 + row) for row, each in enumerate(later)])
        after = ask.energy([REGISTER], some[0].time_ns, some[-1].time_ns, "day", "Asia/Kathmandu")[REGISTER]
    assert sum(each.amount or 0 for each in exact) == sum(each.amount or 0 for each in after) == 3 * DAY_S - 600
    assert [each.amount for each in after] == pytest.approx([each.amount for each in exact], abs=600)


def test_a_gap_is_a_gap_but_its_energy_is_spread_over_it(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        [batch(record(0, power_w=50.0, energy_wh=100.0), record(5 * 3600, power_w=60.0, energy_wh=150.0), row=1)],
    )
    with asking(tmp_path) as ask:
        power = ask.series(POWER, NOON_NS, NOON_NS + 6 * HOUR_NS, 3600)
        register = ask.series(REGISTER, NOON_NS, NOON_NS + 6 * HOUR_NS, 3600)
        hours = ask.energy([REGISTER], NOON_NS, NOON_NS + 6 * HOUR_NS, "hour", "UTC")[REGISTER]
    assert [at - NOON_NS for at in power.at_ns] == [0, 5 * HOUR_NS]
    assert (register.n, register.increase) == ([1, 0, 0, 0, 0, 1], [10.0, 10.0, 10.0, 10.0, 10.0, 0.0])
    assert [hour.amount for hour in hours] == [10.0, 10.0, 10.0, 10.0, 10.0, 0.0]
    assert [hour.estimated for hour in hours] == [False, True, True, True, True, False]


def test_a_day_on_which_the_clocks_are_changed_has_all_of_its_energy(tmp_path: Path) -> None:
    march_30_ns = 1_743_292_800 * SECOND_NS  # 00:00 in London; at one o'clock it is two
    some = [
        Record("kasa", "fridge", march_30_ns + minute * 60 * SECOND_NS, {"energy_wh": float(minute)})
        for minute in range(0, 48 * 60, 30)
    ]
    write_all(tmp_path, [batch(*some, row=1)])
    with asking(tmp_path) as ask:
        days = ask.energy([REGISTER], march_30_ns, march_30_ns + HOUR_NS, "day", "Europe/London")[REGISTER]
        hours = ask.energy([REGISTER], march_30_ns, days[0].end_ns, "hour", "Europe/London")[REGISTER]
    assert [day.amount for day in days] == [23 * 60.0]
    assert [hour.amount for hour in hours] == [60.0] * 23


def test_what_was_estimated_is_told(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        [
            batch(
                record(0, energy_wh=0.0),
                record(1800, energy_wh=5.0, quality=Quality.ESTIMATED),
                record(3700, energy_wh=9.0),
                row=1,
            )
        ],
    )
    with asking(tmp_path) as ask:
        hours = ask.energy_steps(REGISTER, NOON_NS, NOON_NS + 2 * HOUR_NS, 3600)
        flags = ask.series(REGISTER, NOON_NS, NOON_NS + 2 * HOUR_NS, 3600).flags
    assert [hour.estimated for hour in hours] == [True, False]
    assert flags == [ESTIMATED, 0]


def test_what_a_person_took_back_is_missing_where_it_belongs_and_nowhere_else(tmp_path: Path) -> None:
    """500 Wh of the first hour were no consumption: the register may not fall, so it owes them."""
    write_all(
        tmp_path,
        [
            batch(*[record(at, energy_wh=at / 6) for at in range(0, 7200, 600)], row=1),
            # undone at 14:00: the register stands still while true consumption works the debt off
            batch(
                record(600, energy_correction_wh=-500.0),
                *[record(at, energy_wh=1100.0, energy_debt_wh=500 - (at - 7200) / 6) for at in range(7200, 10201, 600)],
                record(10800, energy_wh=1200.0, energy_debt_wh=0.0),
                row=2,
            ),
        ],
    )
    with asking(tmp_path) as ask:
        hours = ask.energy_steps(REGISTER, NOON_NS, NOON_NS + 4 * HOUR_NS, 3600)
        latest = {each.metric: each.value for each in ask.latest(NOON_NS + 4 * HOUR_NS)}
    # The fall of the true register from 14:00 counts for nothing, the booking at 12:10 for 500.
    assert [hour.amount for hour in hours] == [100.0, 500.0, 600.0, 0.0]
    assert latest["energy_wh"] == 1200.0


def test_a_booking_comes_through_whatever_is_still_kept(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(0, energy_wh=0.0), record(3600, energy_wh=1000.0), row=1)])
    write_all(tmp_path, [batch(record(400 * DAY_S + at, energy_wh=1000.0), row=2 + at) for at in range(0, 7201, 1200)])
    same_time = [batch(record(900, energy_correction_wh=-25.5), row=9000 + number) for number in range(3)]
    write_all(tmp_path, same_time)
    for _ in range(2):
        with asking(tmp_path) as ask:
            assert [each.amount for each in ask.energy_steps(REGISTER, NOON_NS, NOON_NS + HOUR_NS, 3600)] == [923.5]
        write_all(tmp_path, [batch(record(401 * DAY_S, energy_wh=1000.0), row=9999)])  # folds the bookings


def test_the_latest_reading_of_every_series_is_told_with_its_age(tmp_path: Path) -> None:
    with opened(tmp_path) as output, asking(tmp_path) as ask:
        output.write(batch(record(0, power_w=1.0), record(0, "heater", power_w=7.0, state="idle"), row=1))
        output.write(batch(record(3700, power_w=2.0), row=2))  # folds
        output.write(batch(record(3710, power_w=3.0), record(3705, power_w=9.0), row=3))
        output.write(batch(record(3500, power_w=4.0), row=4))  # late
        found = {(each.device, each.metric): each for each in ask.latest(NOON_NS + 3720 * SECOND_NS)}
    assert {key: (each.value, each.age_s) for key, each in found.items()} == {
        ("fridge", "power_w"): (3.0, 10.0),
        ("heater", "power_w"): (7.0, 3720.0),
        ("heater", "state"): ("idle", 3720.0),
    }


def test_every_reading_is_there_as_it_came(tmp_path: Path) -> None:
    some = [record(at / 10, power_w=value) for at, value in enumerate([0.1, 1 / 3, -0.0, 1e-300, 86.5, 3])]
    write_all(tmp_path, in_batches(some, 2))
    with asking(tmp_path) as ask:
        for _ in range(2):
            found = ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 0)
            assert (found.step_s, found.at_ns) == (0, [each.time_ns for each in some])
            assert found.last == [each.values["power_w"] for each in some]
            assert ask.series(POWER, some[1].time_ns, some[3].time_ns, 0).last == [1 / 3, -0.0]
            write_all(tmp_path, [batch(record(4000, power_w=1.0), row=99)])  # now from a chunk


def test_a_chart_has_no_more_points_than_wished_and_is_no_finer_than_what_is_kept(tmp_path: Path) -> None:
    some = [record(at, power_w=1.0) for at in range(0, 2 * DAY_S, 300)]
    write_all(tmp_path, [batch(*some, row=1), batch(record(100 * DAY_S, power_w=1.0), row=2)])
    write_all(tmp_path, [batch(record(100 * DAY_S + at, power_w=1.0), row=3 + at) for at in range(0, 7201, 1200)])
    with asking(tmp_path) as ask:
        for length, wished, step_s in [
            (HOUR_NS, 400, 300),  # the minutes are gone after 90 days
            (DAY_NS, 400, 300),
            (DAY_NS, 30, 3600),
            (365 * DAY_NS, 400, DAY_S),
        ]:
            found = ask.series(POWER, NOON_NS, NOON_NS + length, most_points=wished)
            assert (found.step_s, len(found.at_ns) <= wished) == (step_s, True)
        assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 60).step_s == 300
        assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 0).step_s == 300


def test_a_house_without_a_history_has_nothing_to_tell_until_there_is_one(tmp_path: Path) -> None:
    with asking(tmp_path) as ask:
        for _ in range(2):
            assert ask.devices() == []
            assert ask.bounds() is None
            assert ask.latest(NOON_NS) == []
            assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS).n == []
            assert [each.amount for each in ask.energy([REGISTER], NOON_NS, NOON_NS + 1, "day", "UTC")[REGISTER]] == [
                None
            ]
            (tmp_path / "history.db").touch()  # the writer has opened it and not made its tables yet
        write_all(tmp_path, [batch(record(0, power_w=1.0), row=1)])
        assert [each.metric for each in ask.devices()] == ["power_w"]
        # Another file in its place: set aside and begun anew, or restored.
        for part in tmp_path.glob("history.db*"):
            part.unlink()
        write_all(tmp_path, [batch(record(0, voltage_v=230.0), row=1)])
        assert [each.metric for each in ask.devices()] == ["voltage_v"]
        bounds = ask.bounds()
        assert bounds
        assert (bounds.first_ns, bounds.last_ns) == (NOON_NS, NOON_NS)


def test_one_can_ask_beside_a_writer_at_work(tmp_path: Path) -> None:
    """Every answer is whole: the register says as many watt-hours as there were readings."""
    answers: list[tuple[int, float]] = []

    def write_for_ever() -> None:
        with opened(tmp_path) as output:
            row = 0
            while True:
                row += 1
                some = [record(row * 100 + at, energy_wh=row * 10 + at / 10) for at in range(0, 100, 10)]
                output.write(batch(*some, row=row))

    def enough() -> bool:
        found = ask.series(REGISTER, NOON_NS, NOON_NS + 40 * DAY_NS, 3600)
        if found.n:
            answers.append((sum(found.n), sum(increase or 0 for increase in found.increase)))
        return bool(answers and answers[-1][0] >= 1500)

    with forked(write_for_ever) as child, asking(tmp_path) as ask:
        wait_for(enough, "a history to grow")
        assert not child.ended()
    assert len(answers) > 2
    for n, increase in answers:
        assert increase == pytest.approx(n - 1)


def test_an_answer_is_of_one_instant(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(at, energy_wh=at / 10), row=1 + at) for at in (0, 3700, 3800)])
    snapshot = Snapshot(tmp_path / "history.db")
    try:
        snapshot.begin()
        write_all(tmp_path, [batch(record(at, energy_wh=at / 10), row=1 + at) for at in (100, 3900, 8000)])
        series = snapshot.find(REGISTER)
        assert series
        found = snapshot.stretches(series, [NOON_NS, NOON_NS + HOUR_NS, NOON_NS + 2 * HOUR_NS, NOON_NS + 3 * HOUR_NS])
        assert [bucket and bucket.n for bucket in found] == [1, 2, None]
        snapshot.end()
        snapshot.begin()
        found = snapshot.stretches(series, [NOON_NS, NOON_NS + HOUR_NS, NOON_NS + 2 * HOUR_NS, NOON_NS + 3 * HOUR_NS])
        assert [bucket and bucket.n for bucket in found] == [2, 3, 1]
        snapshot.end()
    finally:
        snapshot.close()


def test_several_threads_get_the_answers_that_one_gets(tmp_path: Path) -> None:
    some = [record(at, f"plug-{at // 10 % 4}", power_w=float(at)) for at in range(0, 7200, 10)]
    write_all(tmp_path, in_batches(some, 90))
    answers: dict[int, set[int]] = {number: set() for number in range(4)}
    failures: list[BaseException] = []

    def ask_on(number: int) -> None:
        try:
            for _ in range(50):
                found = ask.series(("kasa", f"plug-{number}", "power_w"), NOON_NS, NOON_NS + 2 * HOUR_NS, 60)
                answers[number].add(sum(found.n))
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with asking(tmp_path) as ask:
            threads = [threading.Thread(target=ask_on, args=(number,)) for number in answers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert failures == []
    assert answers == {number: {180} for number in answers}


def test_asking_does_not_change_the_file(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(0, power_w=1.0), row=1)])
    before = (tmp_path / "history.db").read_bytes()
    with asking(tmp_path) as ask:
        assert ask.latest(NOON_NS)
    assert (tmp_path / "history.db").read_bytes() == before
