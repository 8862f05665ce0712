"""Writes `history.db`: each batch to the journal, the journal now and then into its hours, and what is too old out."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from history import codec
from history.buckets import (
    HOUR_NS,
    REGISTER,
    UNSYNCED,
    Bucket,
    Point,
    fall_between,
    joined,
)
from history.codec import Group, Span
from history.fold import by_hour, folded, points_of
from history.tables import (
    DAYS,
    FIVE_MINUTES,
    HALF_HOURS,
    HOURS,
    MINUTES,
    RAW,
    WIDTH_NS,
    Series,
    Tables,
    chunk_id,
    encode_state,
    row_of_bucket,
)
from reading import Record, Value
from writer import Batch
from writer.outputs._history_intake import Catalogue, unfit
from writer.transaction import transaction

log = logging.getLogger("writer.outputs.history")

# When the journal is folded: its hour is over, or whoever asks would have to read so much of it.
MOST_JOURNAL_ROWS: Final = 360
MOST_JOURNAL_VALUES: Final = 30_000
_MOST_SPANS: Final = 64
_DAY_HOURS: Final = 24
_DAY_NS: Final = _DAY_HOURS * HOUR_NS
_MOST_DELETED: Final = 2000  # chunks at once, so that no commit takes long
_MAKE_ROOM_HOURS: Final = 6
_SPARE_PAGES: Final = 1024  # that stay in the file to be used again
_MOST_RETURNED_PAGES: Final = 500


class Scribe:
    """The one writing connection. One that failed is of no more use: what it has in mind may not be on the disk."""

    def __init__(self, path: Path, connection: sqlite3.Connection, days: tuple[int, int, int], most_bytes: int) -> None:
        self._connection = connection
        self._inode = path.stat().st_ino
        self._days = days
        self._most_bytes = most_bytes
        self._tables = Tables(connection)
        self._state = self._tables.state()
        self._catalogue = Catalogue(connection)
        self._rows = self._values = 0  # in the journal
        self._hour = self._state.newest_ns // HOUR_NS
        for _, noted in self._tables.journal():
            self._note(noted)
        self._sweeping = True  # there may be more to delete
        self._full_told = False

    def write(self, batch: Batch) -> dict[int, str]:
        """Commit a batch. Return why which of its records can never be taken; those of the others count once."""
        with transaction(self._connection):
            groups, refused = self._catalogue.groups(batch, self._repeated(batch), self._state)
            self._note(codec.Batch(_spans(batch.rows), [], groups))
            hour = max((max(group.times_ns) for group in groups), default=0) // HOUR_NS
            if hour > self._hour or self._rows >= MOST_JOURNAL_ROWS or self._values >= MOST_JOURNAL_VALUES:
                self._fold(groups, {hour, batch[-1].time_ns // HOUR_NS})
                self._hour = hour
            else:
                self._put_journal(codec.Batch(_spans(batch.rows), [], groups))
            if self._sweeping:
                self._sweep()
        self._return_pages()
        return refused

    @property
    def tables(self) -> Tables:
        return self._tables

    @property
    def connection(self) -> sqlite3.Connection:
        return self._connection

    def series(self, source: str, device: str, metric: str, value: Value) -> Series:
        """Return a series, begun if there is none yet; within a transaction."""
        return self._catalogue.find(Record(source, device, 0, {}), metric, value)

    def put(self, series: Series, points: Sequence[Point]) -> None:
        """Put points, given in the order of time, into their hours, past the journal; within a transaction.

        They are no readings of today: what counts as today, and as too old, stays as it is.
        """
        for hour, some in groupby(points, key=lambda point: point[0] // HOUR_NS):
            self._put(series, hour, [*some])
        for day in sorted({point[0] // _DAY_NS for point in points}):
            self._put_day(series, day)
        self._state.folds += 1
        self._put_state()
        self._sweeping = True

    def is_at(self, path: Path) -> bool:
        """Whether the file is still the one of this name."""
        try:
            return path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _repeated(self, batch: Batch) -> set[int]:
        """Return those rows of the outbox that are in here already."""
        again = {row for row in {*batch.rows} if self._has(row)}
        utmost_ns = self._state.utmost_ns
        if any(
            row in again and record.time_ns > utmost_ns and not unfit(record)
            for row, record in zip(batch.rows if again else (), batch, strict=False)
        ):
            log.warning("the outbox has begun to count its rows anew; the history goes on")
            self._state.rows = []
            again = set()
        return again

    def _has(self, row: int) -> bool:
        """Whether a row of the outbox is in here."""
        spans = self._state.rows
        place = bisect_right(spans, (row, 2**63)) - 1
        return row > 0 and place >= 0 and row <= spans[place][1]

    def _note(self, news: codec.Batch) -> None:
        """Have in mind what is in the journal, or about to be."""
        self._state.rows = _united(self._state.rows, news.rows)
        self._rows += 1
        believed = []
        for group in news.groups:
            self._values += group.size
            self._state.utmost_ns = max(self._state.utmost_ns, *group.times_ns)
            believed += [at for at, flags in zip(group.times_ns, group.flags, strict=True) if not flags & UNSYNCED]
        if believed and self._state.newest_ns and max(believed) <= self._state.newest_ns + _DAY_NS:
            self._state.newest_ns = max(self._state.newest_ns, *believed)
            return
        for time_ns in sorted(believed):
            self._believe(time_ns)

    def _believe(self, time_ns: int) -> None:
        """Let what is newest decide what is too old.

        A leap of more than a day waits for an hour of readings from there: a clock that is wrong for a moment must not
        wipe out a year.
        """
        state = self._state
        if state.newest_ns and time_ns <= state.newest_ns + _DAY_NS:
            state.newest_ns = max(state.newest_ns, time_ns)
            return
        first, last = state.leap or (time_ns, time_ns)
        if not first - _DAY_NS <= time_ns <= last + _DAY_NS:
            first = last = time_ns
        first, last = min(first, time_ns), max(last, time_ns)
        state.leap = (first, last)
        if last - first >= HOUR_NS:
            state.newest_ns, state.leap = last, None

    def _fold(self, news: list[Group], growing: set[int]) -> None:
        """Put the journal and `news` into their hours; hours that are growing wait, if they are not too large."""
        groups = [group for _, noted in self._tables.journal() for group in noted.groups] + news
        parts = [part for group in groups for part in by_hour(group)]
        kept = [group for hour, group in parts if hour in growing]
        if sum(group.size for group in kept) > MOST_JOURNAL_VALUES:
            kept, growing = [], set()
        tail: defaultdict[tuple[int, int], list[Point]] = defaultdict(list)  # by hour and series
        for hour, group in parts:
            if hour not in growing:
                for place, series in enumerate(group.series):
                    tail[hour, series] += points_of(group, place)
        for (hour, series), points in sorted(tail.items()):
            self._put(self._catalogue.series[series], hour, points)
        for series, day in sorted({(series, hour // _DAY_HOURS) for hour, series in tail}):
            self._put_day(self._catalogue.series[series], day)
        self._connection.execute("DELETE FROM journal")
        self._rows = self._values = 0
        if kept:
            self._put_journal(codec.Batch([], [], kept))
            self._rows, self._values = 1, sum(group.size for group in kept)
        self._state.folds += 1
        self._put_state()
        self._sweeping = True

    def _put_journal(self, news: codec.Batch) -> None:
        self._connection.execute("INSERT INTO journal (body) VALUES (?)", (codec.encode_batch(news),))

    def _put(self, series: Series, hour: int, points: list[Point]) -> None:
        news = folded(self._tables, self._state, series, hour, points)
        if news.points:
            self._put_chunk(RAW, hour, series, codec.encode_points(news.points))
        for width, buckets in ((MINUTES, news.minutes), (FIVE_MINUTES, news.five_minutes)):
            if buckets:
                body = codec.encode_buckets(buckets, hour * HOUR_NS, WIDTH_NS[width], series.kind)
                self._put_chunk(width, hour, series, body)
        for half in news.halves or ():
            self._put_row(HALF_HOURS, series, half)
        self._put_row(HOURS, series, news.whole)

    def _put_day(self, series: Series, day: int) -> None:
        hours = self._tables.rows(HOURS, series.id, day * _DAY_HOURS, (day + 1) * _DAY_HOURS)
        self._put_row(DAYS, series, joined(hours, series.kind, day * _DAY_NS))

    def _put_row(self, width: int, series: Series, bucket: Bucket) -> None:
        """Write a row. What was late may change how far a register fell into the next row as well."""
        slot = bucket.start_ns // WIDTH_NS[width]
        is_register = series.kind == REGISTER
        before = self._tables.before(width, series.id, slot) if is_register else None
        row = row_of_bucket(width, series, bucket, fall_between(before, bucket) if before else 0)
        self._connection.execute("INSERT OR REPLACE INTO bucket VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
        if is_register and (following := self._tables.from_(width, series.id, slot + 1)):
            entry = fall_between(bucket, following)
            self._connection.execute(
                "UPDATE bucket SET entry = ?1 WHERE width = ?2 AND series = ?3 AND slot = ?4 AND entry <> ?1",
                (entry, width, series.id, following.start_ns // WIDTH_NS[width]),
            )

    def _put_chunk(self, width: int, hour: int, series: Series, body: bytes) -> None:
        self._connection.execute("INSERT OR REPLACE INTO chunk VALUES (?, ?)", (chunk_id(width, hour, series.id), body))

    def _put_state(self) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (encode_state(self._state),))

    def _sweep(self) -> None:
        """Delete some of what is too old, and of what is beyond the quota."""
        since = list(self._state.since)
        if self._state.newest_ns:
            today = self._state.newest_ns // HOUR_NS
            for width, days in enumerate(self._days):
                since[width] = max(since[width], today - days * _DAY_HOURS)
        too_large = self._used_bytes() > self._most_bytes
        if too_large:
            self._make_room(since)
        if tuple(since) != self._state.since:
            self._state.since = (since[RAW], since[MINUTES], since[FIVE_MINUTES])
            self._put_state()
        deleted = 0
        for width, first in enumerate(since):
            cursor = self._connection.execute(
                "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE id >= ? AND id < ? LIMIT ?)",
                (chunk_id(width, 0, 0), chunk_id(width, first, 0), _MOST_DELETED - deleted),
            )
            deleted += cursor.rowcount
        self._sweeping = deleted > 0

    def _make_room(self, since: list[int]) -> None:
        """Give up the oldest hours of the finest width that has more than its last day."""
        for width, begin in enumerate(since):
            first, end = chunk_id(width, begin, 0), chunk_id(width + 1, 0, 0)
            query = "SELECT min(id), max(id) FROM chunk WHERE id >= ? AND id < ?"
            oldest, newest = self._connection.execute(query, (first, end)).fetchone()
            if oldest is None:
                continue
            hours = [(number - chunk_id(width, 0, 0)) >> 24 for number in (oldest, newest)]
            if hours[0] < hours[1] - _DAY_HOURS:
                until = min(hours[0] + _MAKE_ROOM_HOURS, hours[1] - _DAY_HOURS)
                since[: width + 1] = [max(until, each) for each in since[: width + 1]]
                if not self._full_told:
                    size = self._most_bytes // 1_000_000
                    log.warning("the history has reached its %d MB: the oldest details go; or raise most_mb", size)
                self._full_told = True
                return

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _return_pages(self) -> None:
        """Give the file system back what the file has to spare, a little at a time."""
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        if free > _SPARE_PAGES:
            # The batch is committed: that there is no room for this is no reason to have it come again.
            with contextlib.suppress(sqlite3.OperationalError):
                wanted = min(free - _SPARE_PAGES, _MOST_RETURNED_PAGES)
                # As a script, because a single statement is left after its first step, which frees one page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({wanted})")


def _spans(rows: Sequence[int]) -> list[Span]:
    """Return first and last of each run of numbers.

    >>> _spans([5, 5, 6, 9, 10])
    [(5, 6), (9, 10)]
    """
    runs = groupby(enumerate(sorted({*rows})), key=lambda place_and_row: place_and_row[1] - place_and_row[0])
    return [(run[0][1], run[-1][1]) for run in ([*group] for _, group in runs)]


def _united(spans: Sequence[Span], more: Sequence[Span]) -> list[Span]:
    """Unite spans; when they are too many, the oldest hole counts as filled: nothing comes so late.

    >>> _united([(1, 4), (9, 9)], [(5, 6)])
    [(1, 6), (9, 9)]
    """
    united: list[Span] = []
    for first, last in sorted((*spans, *more)):
        if united and first <= united[-1][1] + 1:
            united[-1] = (united[-1][0], max(united[-1][1], last))
        else:
            united.append((first, last))
    surplus = max(0, len(united) - _MOST_SPANS)
    return [(united[0][0], united[surplus][1]), *united[surplus + 1 :]] if surplus else united
