"""The tables of `history.db`, and how each row is read: by those who ask as by the one who writes."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from history.buckets import BOOKING, ESTIMATED, FIVE_MINUTES_NS, HOUR_NS, MINUTE_NS, REGISTER, TEXT, Bucket, Point
from history.codec import Batch, Span, decode_batch, decode_buckets, decode_points, sealed, unsealed
from history.energy import Height

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    kind INTEGER NOT NULL,
    UNIQUE (source, device, metric, kind)
);
CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY, body BLOB NOT NULL);  -- what is not folded yet
CREATE TABLE IF NOT EXISTS chunk (id INTEGER PRIMARY KEY, body BLOB NOT NULL);    -- an hour of a series, see chunk_id
CREATE TABLE IF NOT EXISTS bucket (
    width INTEGER NOT NULL,      -- HALF_HOURS, HOURS or DAYS
    series INTEGER NOT NULL,
    slot INTEGER NOT NULL,       -- the how manieth of this width since 1970
    n INTEGER NOT NULL,
    total NOT NULL,              -- millionths; of a text how often each came, as msgpack
    least REAL NOT NULL,
    most REAL NOT NULL,
    first_ns INTEGER NOT NULL,
    first NOT NULL,
    last_ns INTEGER NOT NULL,
    last NOT NULL,
    fallen INTEGER NOT NULL,     -- by how much a register fell from its first to its last reading in here
    flags INTEGER NOT NULL,
    entry INTEGER NOT NULL,      -- by how much it fell from the reading before to the first one in here
    PRIMARY KEY (width, series, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imported (  -- what came from an older logger, so that none of it comes twice
    series INTEGER NOT NULL,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    first INTEGER NOT NULL,      -- of a register: its heights, in millionths
    last INTEGER NOT NULL,
    PRIMARY KEY (series, first_ns)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parcel (    -- how far an older logger's readings are taken in
    name TEXT PRIMARY KEY,
    series INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    repeated INTEGER NOT NULL,
    overlapping INTEGER NOT NULL,
    done INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
"""
# How fine something is kept: the first three in chunks of an hour, the others in rows of their own, and these for ever.
# Half-hours are there of registers only, because that is how electricity is paid for.
RAW, MINUTES, FIVE_MINUTES, HALF_HOURS, HOURS, DAYS = range(6)
WIDTH_NS: Final = (1, MINUTE_NS, FIVE_MINUTES_NS, HOUR_NS // 2, HOUR_NS, 24 * HOUR_NS)

_SPOILT: Final = (zlib.error, ValueError, TypeError)  # what a chunk can raise that is not as it was written
_FIELDS: Final = "width, slot, n, total, least, most, first_ns, first, last_ns, last, fallen, flags"


class State(Struct, array_like=True):
    """What one fold leaves to the next; all later changes are in the journal."""

    folds: int = 0  # rises with each, and then the journal begins anew
    since: tuple[int, int, int] = (0, 0, 0)  # the first hour that is still kept as RAW, as MINUTES, as FIVE_MINUTES
    newest_ns: int = 0  # today, as far as the records can be believed
    utmost_ns: int = 0  # the latest time that any record ever had
    leap: Span | None = None  # first and last time of records that claim to be from long after today
    rows: list[Span] = []  # numbers of the outbox's rows that are in here

    def finest(self, hour: int, kind: int) -> int:
        """Tell how fine an hour is kept. Two bookings may have one time, so these are added up at once."""
        widths = (MINUTES, FIVE_MINUTES) if kind == BOOKING else (RAW, MINUTES, FIVE_MINUTES)
        return next((width for width in widths if hour >= self.since[width]), lasting(kind))


def encode_state(state: State) -> bytes:
    return sealed(msgspec.msgpack.encode(state))


class Series(Struct, frozen=True):
    """One metric of one device."""

    id: int
    source: str
    device: str
    metric: str
    kind: int


class Tables:
    """Reads rows through any connection to the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def state(self) -> State:
        """Read the state; one that is spoilt is begun anew, as every part of it can be."""
        row = self.connection.execute("SELECT body FROM state").fetchone()
        with suppress(*_SPOILT):
            return msgspec.msgpack.decode(unsealed(row[0]), type=State) if row else State()
        return State()

    def series(self, after: int = 0) -> list[Series]:
        """Read the series whose number is above `after`."""
        rows = self.connection.execute("SELECT id, source, device, metric, kind FROM series WHERE id > ?", (after,))
        return [Series(*row) for row in rows]

    def journal(self, after: int = 0) -> list[tuple[int, Batch]]:
        """Read the rows of the journal whose number is above `after`; a spoilt one has nothing in it."""
        rows = self.connection.execute("SELECT id, body FROM journal WHERE id > ? ORDER BY id", (after,))
        return [(number, _batch(body)) for number, body in rows]

    def points(self, series: int, hour: int) -> list[Point]:
        """Read the points of an hour; none if they are gone or spoilt."""
        with suppress(*_SPOILT):
            if body := self._chunk(RAW, series, hour):
                return decode_points(body)
        return []

    def buckets(self, width: int, series: Series, hour: int) -> list[Bucket]:
        """Read the MINUTES or FIVE_MINUTES of an hour; none if they are gone or spoilt."""
        with suppress(*_SPOILT):
            if body := self._chunk(width, series.id, hour):
                return decode_buckets(body, hour * HOUR_NS, WIDTH_NS[width], series.kind)
        return []

    def rows(self, width: int, series: int, first: int, end: int) -> list[Bucket]:
        """Read the rows of [first, end), which count in `width`."""
        query = f"SELECT {_FIELDS} FROM bucket {_RANGE} ORDER BY slot"  # noqa: S608 - constants
        return [bucket_of_row(row) for row in self.connection.execute(query, (width, series, first, end))]

    def present(self, series: int, first: int, end: int) -> list[int]:
        """Return the hours of [first, end) that have any reading."""
        query = f"SELECT slot FROM bucket {_RANGE} ORDER BY slot"  # noqa: S608 - constants
        return [hour for (hour,) in self.connection.execute(query, (HOURS, series, first, end))]

    def before(self, width: int, series: int, slot: int) -> Bucket | None:
        """Read the last row before this slot."""
        query = f"SELECT {_FIELDS} FROM bucket {_RANGE} ORDER BY slot DESC LIMIT 1"  # noqa: S608 - constants
        row = self.connection.execute(query, (width, series, 0, slot)).fetchone()
        return bucket_of_row(row) if row else None

    def first_slot(self, width: int, series: int) -> int | None:
        """Return where the first row of all is."""
        query = f"SELECT slot FROM bucket {_RANGE} ORDER BY slot LIMIT 1"  # noqa: S608 - constants
        row = self.connection.execute(query, (width, series, 0, NEVER)).fetchone()
        return row[0] if row else None

    def from_(self, width: int, series: int, slot: int) -> Bucket | None:
        """Read the first row from this slot on."""
        query = f"SELECT {_FIELDS} FROM bucket {_RANGE} ORDER BY slot LIMIT 1"  # noqa: S608 - constants
        row = self.connection.execute(query, (width, series, slot, NEVER)).fetchone()
        return bucket_of_row(row) if row else None

    def joined(self, width: int, series: int, first: int, step: int, end: int) -> list[tuple[int, Bucket]]:
        """Join each `step` rows of [first, end), of a gauge or a register; with the number of the step."""
        rows = self.connection.execute(_JOINED, (width, series, first, step, end))
        return [(row[0], Bucket((first + row[0] * step) * WIDTH_NS[width], *row[1:])) for row in rows]

    def heights(self, width: int, series: int, first: int, step: int, end: int) -> list[Height]:
        """Read how far a register rose in each `step` rows of [first, end); where there is no row there is no height.

        That takes little more than the first and the last row of each step.
        """
        if step == 1:
            return self.connection.execute(_HEIGHTS, (width, series, first, end)).fetchall()
        found = self.connection.execute(_HEIGHTS_OF_ENDS, (width, series, first, step, end)).fetchall()
        slots_a_day = WIDTH_NS[DAYS] // WIDTH_NS[width]
        marked = self.connection.execute(
            _MARKED, (width, series, first, step, end, ESTIMATED, DAYS, slots_a_day)
        ).fetchall()
        if marked:
            marks = {number: marks for number, *marks in marked}
            for place, (*ends, entry, _, number) in enumerate(found):
                fallen, flags = marks.get(number, (0, 0))
                found[place] = (*ends, fallen + entry, flags, number)
        return found

    def _chunk(self, width: int, series: int, hour: int) -> bytes | None:
        row = self.connection.execute(
            "SELECT body FROM chunk WHERE id = ?", (chunk_id(width, hour, series),)
        ).fetchone()
        return row[0] if row else None


NEVER: Final = 2**40  # a slot that nobody will see
_RANGE: Final = "WHERE width = ? AND series = ? AND slot >= ? AND slot < ?"
# SQLite goes through a thousand rows in the time in which Python makes a few hundred objects. The fall into the first
# row of a stretch is not one within the stretch.
_JOINED: Final = """
SELECT stretch.number, stretch.n, stretch.total, stretch.least, stretch.most,
    head.first_ns, head.first, tail.last_ns, tail.last, stretch.fallen - head.entry, stretch.flags
FROM (
    SELECT (slot - ?3) / ?4 AS number, sum(n) AS n, total(total) AS total, min(least) AS least, max(most) AS most,
        min(slot) AS head, max(slot) AS tail, sum(fallen + entry) AS fallen,
        max(flags & 1) + max(flags & 2) + max(flags & 4) + max(flags & 8) AS flags
    FROM bucket WHERE width = ?1 AND series = ?2 AND slot >= ?3 AND slot < ?5 GROUP BY number
) AS stretch
JOIN bucket AS head ON head.width = ?1 AND head.series = ?2 AND head.slot = stretch.head
JOIN bucket AS tail ON tail.width = ?1 AND tail.series = ?2 AND tail.slot = stretch.tail
"""

_HEIGHTS: Final = """
SELECT first_ns, first, last_ns, last, fallen, flags, slot - ?3
FROM bucket WHERE width = ?1 AND series = ?2 AND slot >= ?3 AND slot < ?4 ORDER BY slot
"""
_HEIGHTS_OF_ENDS: Final = """
WITH RECURSIVE stretch (number, start) AS (
    SELECT 0, ?3 UNION ALL SELECT number + 1, start + ?4 FROM stretch WHERE start + ?4 < ?5
)
SELECT head.first_ns, head.first, tail.last_ns, tail.last, -head.entry, 0, number
FROM stretch
JOIN bucket AS head ON head.width = ?1 AND head.series = ?2 AND head.slot = (
    SELECT min(slot) FROM bucket WHERE width = ?1 AND series = ?2 AND slot >= start AND slot < start + ?4
)
JOIN bucket AS tail ON tail.width = ?1 AND tail.series = ?2 AND tail.slot = (
    SELECT max(slot) FROM bucket WHERE width = ?1 AND series = ?2 AND slot >= start AND slot < start + ?4
)
"""
# Where a register fell, or something is estimated; few days have that, and only these are looked through. A fall into a
# head is among them, and taken off again.
_MARKED: Final = """
SELECT (part.slot - ?3) / ?4 AS number, sum(part.fallen + part.entry), max(part.flags & ?6)
FROM bucket AS day CROSS JOIN bucket AS part
WHERE day.width = ?7 AND day.series = ?2 AND day.slot >= ?3 / ?8 AND day.slot <= ?5 / ?8
AND (day.fallen + day.entry OR day.flags & ?6)
AND part.width = ?1 AND part.series = ?2
AND part.slot >= max(?3, day.slot * ?8) AND part.slot < min(?5, (day.slot + 1) * ?8)
AND (part.fallen + part.entry OR part.flags & ?6)
GROUP BY number
"""


def _batch(body: bytes) -> Batch:
    with suppress(*_SPOILT):
        return decode_batch(body)
    return Batch([], [])


def lasting(kind: int) -> int:
    """Tell how fine a series is kept for ever."""
    return HALF_HOURS if kind == REGISTER else HOURS


def chunk_id(width: int, hour: int, series: int) -> int:
    """Number a chunk so that those of one width and hour lie side by side: they are written and deleted together.

    >>> chunk_id(MINUTES, 0, 0) > chunk_id(RAW, 2_562_047, 2**24 - 1)
    True
    """
    return (width << 48) + (hour << 24) + series


def row_of_bucket(width: int, series: Series, bucket: Bucket, entry: int) -> tuple[Any, ...]:
    """What is in a row of `bucket`."""
    total = msgspec.msgpack.encode(bucket.total) if series.kind == TEXT else bucket.total
    return (
        width,
        series.id,
        bucket.start_ns // WIDTH_NS[width],
        bucket.n,
        total,
        bucket.least,
        bucket.most,
        bucket.first_ns,
        bucket.first,
        bucket.last_ns,
        bucket.last,
        bucket.fallen,
        bucket.flags,
        entry,
    )


def bucket_of_row(row: Sequence[Any]) -> Bucket:
    width, slot, n, total, *rest = row
    start_ns = slot * WIDTH_NS[width]
    return Bucket(start_ns, n, msgspec.msgpack.decode(total) if isinstance(total, bytes) else total, *rest)
