"""What a register rose is all of it and nothing twice, however time is cut; days are those of the calendar."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.buckets import HOUR_NS, REGISTER, SECOND_NS, Bucket, buckets_of, merged, micro
from history.energy import cut, gathered, height_of, rises
from history.periods import edges
from tests.writer.outputs._history import expected_rises

ZONES = ["Europe/London", "UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]
PERIODS = ["hour", "day", "week", "month", "year"]
REGISTERS = st.lists(
    st.tuples(st.integers(1, 10**6), st.integers(0, 10**9).map(lambda milli: milli / 1000)), min_size=1, max_size=30
).map(lambda some: merged([(at, value, 0) for at, value in some], []))
CUTS = st.lists(st.integers(0, 10**6), min_size=2, max_size=12, unique=True).map(sorted)


def risen(
    before: Bucket | None, stretches: Sequence[Bucket | None], after: Bucket | None, cuts: Sequence[int]
) -> list[int | None]:
    return rises(height_of(before), [height_of(bucket) for bucket in stretches], height_of(after), cuts)


@given(REGISTERS, CUTS)
def test_what_a_register_rose_is_what_one_gets_by_walking_from_reading_to_reading(
    points: list[tuple[int, float, int]], cuts: list[int]
) -> None:
    buckets = buckets_of(points, 1, REGISTER)
    before = [bucket for bucket in buckets if bucket.last_ns < cuts[0]][-1:]
    after = [bucket for bucket in buckets if bucket.first_ns >= cuts[-1]][:1]
    found = risen(before[0] if before else None, gathered(buckets, cuts, REGISTER), after[0] if after else None, cuts)
    assert found == expected_rises([point[:2] for point in points], cuts)


@given(REGISTERS, CUTS)
def test_the_parts_add_up_to_the_whole_exactly(points: list[tuple[int, float, int]], cuts: list[int]) -> None:
    points = [(at, value, 0) for (at, _, _), value in zip(points, sorted(point[1] for point in points), strict=True)]
    cuts = [0, *cuts, 10**6 + 1]
    cuts = sorted({*cuts})
    found = risen(None, gathered(buckets_of(points, 1, REGISTER), cuts, REGISTER), None, cuts)
    assert sum(rise or 0 for rise in found) == micro(points[-1][1]) - micro(points[0][1])


@given(REGISTERS, CUTS)
def test_a_bucket_that_is_cut_loses_nothing(points: list[tuple[int, float, int]], cuts: list[int]) -> None:
    [bucket] = buckets_of(points, 2 * 10**6, REGISTER)
    parts = cut(bucket, cuts)
    assert sum(part.rise for part in parts) == bucket.rise
    assert (parts[0].first, parts[-1].last) == (bucket.first, bucket.last)
    assert all(one.last_ns == next_one.first_ns for one, next_one in itertools.pairwise(parts))
    assert all(not any(part.first_ns < edge < part.last_ns for edge in cuts) for part in parts)


def test_a_register_that_falls_begins_anew() -> None:
    points = [(0, 100.0, 0), (10, 110.0, 0), (20, 3.0, 0), (30, 5.0, 0)]
    found = risen(
        None, gathered(buckets_of(points, 1, REGISTER), [0, 10, 20, 30, 40], REGISTER), None, [0, 10, 20, 30, 40]
    )
    assert found == [10_000_000, 0, 2_000_000, 0]


def test_nothing_is_known_of_the_time_before_the_first_and_after_the_last_reading() -> None:
    buckets = gathered(buckets_of([(12, 1.0, 0), (14, 2.0, 0)], 1, REGISTER), [0, 10, 20, 30], REGISTER)
    assert risen(None, buckets, None, [0, 10, 20, 30]) == [None, 1_000_000, None]


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2025-03-30", "Europe/London", 23),
        ("2025-10-26", "Europe/London", 25),
        ("2025-10-05", "Australia/Lord_Howe", 23.5),
        ("2025-04-06", "Australia/Lord_Howe", 24.5),
        ("2025-09-07", "America/Santiago", 23),  # the clocks are changed at midnight: that day begins at one
        ("2025-11-11", "Asia/Kolkata", 24),
    ],
)
def test_a_day_is_as_long_as_it_is_there(day: str, zone: str, hours: float) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo(zone))
    noon_ns = round(noon.timestamp()) * SECOND_NS
    start, end = edges(noon_ns, noon_ns + 1, "day", zone)
    assert (end - start) / HOUR_NS == hours
    assert datetime.fromtimestamp(start / 1e9, ZoneInfo(zone)).date().isoformat() == day


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("by", PERIODS)
@given(
    start=st.integers(946_684_800, 2_000_000_000).map(lambda seconds: seconds * SECOND_NS),
    length=st.integers(1, 400 * 24 * 3600).map(lambda seconds: seconds * SECOND_NS),
)
def test_periods_follow_each_other_without_a_gap_and_begin_where_the_calendar_says(
    by: str, zone: str, start: int, length: int
) -> None:
    if by == "hour":
        length %= 50 * HOUR_NS
    length = max(length, 1)
    found = edges(start, start + length, by, zone)  # type: ignore[arg-type]
    assert found == sorted(set(found))
    assert found[0] <= start < found[1]
    assert found[-2] < start + length <= found[-1]
    for edge in found[:1] + found[-1:]:
        local = datetime.fromtimestamp(edge // SECOND_NS, UTC).astimezone(ZoneInfo(zone))
        if by == "hour":
            assert local.minute == 0 or zone == "Australia/Lord_Howe"
        else:
            assert (local.hour, local.minute) == (0, 0)
        assert (by != "week" or local.weekday() == 0) and (by != "month" or local.day == 1)
        assert by != "year" or (local.month, local.day) == (1, 1)
