"""Folding: new points into what is known of an hour, and the coarser from the finer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from msgspec import Struct

from history.buckets import BOOKING, HOUR_NS, REGISTER, Bucket, Point, absorbed, buckets_of, coarser, joined, merged
from history.codec import Group
from history.tables import FIVE_MINUTES, HALF_HOURS, MINUTES, RAW, WIDTH_NS, Series, State, Tables, lasting


class Hour(Struct, frozen=True):
    """All that is known of one hour of one series; None is what is too old to be kept so fine, or never is."""

    points: list[Point] | None
    minutes: list[Bucket] | None
    five_minutes: list[Bucket] | None
    halves: list[Bucket] | None
    whole: Bucket

    def buckets(self, width: int) -> list[Bucket] | None:
        return (None, self.minutes, self.five_minutes, self.halves, [self.whole])[width]


def folded(tables: Tables, state: State, series: Series, hour: int, new: Iterable[Point]) -> Hour:
    """Put new points of one hour to the old ones, at the finest width that is left, and join from there upwards."""
    points = minutes = five_minutes = None
    width, old = _finest(tables, state, series, hour)
    if width == RAW:
        points = merged(old, new)
        minutes = buckets_of(points, WIDTH_NS[MINUTES], series.kind)
        buckets = minutes
    else:
        buckets = _absorbed(old, new, width, series.kind)
        minutes = buckets if width == MINUTES else None
    if width <= FIVE_MINUTES:
        five_minutes = coarser(buckets, WIDTH_NS[FIVE_MINUTES], series.kind)
    finest = five_minutes or buckets
    halves = coarser(finest, WIDTH_NS[HALF_HOURS], REGISTER) if series.kind == REGISTER else None
    return Hour(points, minutes, five_minutes, halves, joined(halves or finest, series.kind, hour * HOUR_NS))


def _absorbed(old: Sequence[Any], new: Iterable[Point], width: int, kind: int) -> list[Bucket]:
    """Add points to buckets; where there are none yet that is summing up, which is far quicker."""
    if old or kind == BOOKING:
        return absorbed(old, new, WIDTH_NS[width], kind)
    return buckets_of(sorted(new), WIDTH_NS[width], kind)


def _finest(tables: Tables, state: State, series: Series, hour: int) -> tuple[int, Sequence[Any]]:
    """Return the finest of what an hour is computed from.

    Damage may have taken some of it. What is left is then a part of what is known, so it must not be computed from.
    """
    width = lasting(series.kind)
    slots = HOUR_NS // WIDTH_NS[width]
    lasting_rows = tables.rows(width, series.id, hour * slots, (hour + 1) * slots)
    for finer in range(state.finest(hour, series.kind), HALF_HOURS):
        kept = tables.points(series.id, hour) if finer == RAW else tables.buckets(finer, series, hour)
        if kept or not lasting_rows:
            return finer, kept
    return width, lasting_rows


def by_hour(group: Group) -> Iterator[tuple[int, Group]]:
    """Cut a group where an hour ends."""
    first, last = min(group.times_ns), max(group.times_ns)
    if first // HOUR_NS == last // HOUR_NS:
        yield first // HOUR_NS, group
        return
    start = 0
    for hour, run in groupby(group.times_ns, key=lambda time_ns: time_ns // HOUR_NS):
        end = start + len([*run])
        some = slice(start, end)
        yield hour, Group(group.series, group.times_ns[some], group.flags[some], [each[some] for each in group.columns])
        start = end


def points_of(group: Group, place: int) -> Iterator[Point]:
    """Return what one of the series of a group said."""
    column = group.columns[place]
    values = column if isinstance(column[0], str) else map(float, column)
    return zip(group.times_ns, values, group.flags, strict=True)
