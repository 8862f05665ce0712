"""What the history has from older loggers, and where its own readings begin: so nothing is taken in twice."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from history.buckets import HOUR_NS, REGISTER, micro
from history.tables import FIVE_MINUTES, HOURS, MINUTES, Series, Tables

ALWAYS_NS: Final = 2**63 - 1  # later than everything
_APART_NS: Final = HOUR_NS  # a longer silence is a hole that another file may fill


class Stretch(Struct):
    """A stretch of a series that an older logger measured; of a register with its heights, in millionths."""

    first_ns: int
    last_ns: int
    first: int
    last: int


class Before(Struct):
    """What lies in a series already, as far as a parcel has to know."""

    stretches: list[Stretch]  # in the order of time
    own_ns: int  # from here on the house itself has measured the channel
    own: int  # of a register: how high it was then, in millionths

    def holds(self, time_ns: int) -> bool:
        """Whether an older logger's readings of this time are here."""
        place = self._place(time_ns)
        return place >= 0 and time_ns <= self.stretches[place].last_ns

    def earlier(self, time_ns: int) -> Stretch | None:
        place = self._place(time_ns)
        return self.stretches[place] if place >= 0 else None

    def later(self, time_ns: int) -> tuple[int, int]:
        """Return when what lies after it begins, and how high a register is there."""
        place = self._place(time_ns) + 1
        if place < len(self.stretches):
            return self.stretches[place].first_ns, self.stretches[place].first
        return self.own_ns, self.own

    def add(self, time_ns: int, height: int) -> Stretch:
        """Have a reading in mind; return the stretch that it belongs to."""
        place = self._place(time_ns)
        if place >= 0 and time_ns - self.stretches[place].last_ns <= _APART_NS:
            found = self.stretches[place]
            found.last_ns, found.last = time_ns, height
            return found
        found = Stretch(time_ns, time_ns, height, height)
        self.stretches.insert(place + 1, found)
        return found

    def _place(self, time_ns: int) -> int:
        return bisect_right(self.stretches, time_ns, key=lambda stretch: stretch.first_ns) - 1


def before(tables: Tables, source: str, device: str, metric: str) -> Before:
    """Look up what there is of a channel, and of one of its metrics."""
    mine = Before([], ALWAYS_NS, 0)
    journal: dict[int, list[tuple[int, float | int | str]]] = {}
    for _, batch in tables.journal():
        for group in batch.groups:
            for series, column in zip(group.series, group.columns, strict=True):
                journal.setdefault(series, []).extend(zip(group.times_ns, column, strict=True))
    for each in tables.series():
        if (each.source, each.device) != (source, device):
            continue
        stretches = _stretches(tables.connection, each)
        since_ns, height = _own(tables, each, stretches, journal.get(each.id, ()))
        mine.own_ns = min(mine.own_ns, since_ns)
        if each.metric == metric:
            mine.stretches, mine.own = stretches, height
    return mine


def remember(connection: sqlite3.Connection, series: int, stretches: Sequence[Stretch]) -> None:
    """Write down what was taken in, with the transaction that takes it in."""
    connection.executemany(
        "INSERT OR REPLACE INTO imported VALUES (?, ?, ?, ?, ?)",
        [(series, each.first_ns, each.last_ns, each.first, each.last) for each in stretches],
    )


def _stretches(connection: sqlite3.Connection, series: Series) -> list[Stretch]:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'imported'").fetchone():
        return []  # a file from before there were any; whatever else fails must not look like that
    query = "SELECT first_ns, last_ns, first, last FROM imported WHERE series = ? ORDER BY first_ns"
    return [Stretch(*row) for row in connection.execute(query, (series.id,))]


def _own(
    tables: Tables, series: Series, stretches: Sequence[Stretch], journal: Sequence[tuple[int, float | int | str]]
) -> tuple[int, int]:
    """Return when a series has its first reading of the house itself, and how high a register was then."""
    last_ns = stretches[-1].last_ns if stretches else -1
    found: list[tuple[int, float | int | str]] = [min(journal)] if journal else []
    hour = last_ns // HOUR_NS
    first = _first_after(tables, series, hour, last_ns) if stretches else None
    if first is None and (following := tables.from_(HOURS, series.id, hour + 1)):
        first = _first_after(tables, series, following.start_ns // HOUR_NS, last_ns)
    if first:
        found.append(first)
    if not found:
        return ALWAYS_NS, 0
    time_ns, value = min(found)
    return time_ns, micro(value) if series.kind == REGISTER else 0


def _first_after(tables: Tables, series: Series, hour: int, after_ns: int) -> tuple[int, float | str] | None:
    """Return the first reading of an hour after an instant, as exactly as that is still known."""
    for time_ns, value, _ in tables.points(series.id, hour):
        if time_ns > after_ns:
            return time_ns, value
    for width in (MINUTES, FIVE_MINUTES):
        for bucket in tables.buckets(width, series, hour):
            if bucket.last_ns > after_ns:
                return max(bucket.start_ns, after_ns + 1), bucket.first
    for bucket in tables.rows(HOURS, series.id, hour, hour + 1):
        if bucket.last_ns > after_ns:
            return max(bucket.start_ns, after_ns + 1), bucket.first
    return None
