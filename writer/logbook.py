"""The logbook: what happened to the house, which silences there were, and what no output will ever get.

It lies in the outbox's file and is written in the same commits, so it tells of nothing that is not true on the disk.
`audit` reads it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from logbook import pages
from logbook.events import Event, Gap
from logbook.moment import Moment

LOGBOOK: Final = """
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY,
    what TEXT NOT NULL,
    part TEXT NOT NULL,          -- house, clock, process source.meter, source meter, device meter/plug, output csv
    boot TEXT NOT NULL,
    at_ns INTEGER NOT NULL,      -- monotonic
    utc_ns INTEGER NOT NULL,     -- 0 until the clock was set
    note TEXT NOT NULL,
    number INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS event_undated ON event (boot) WHERE utc_ns = 0;
CREATE TABLE IF NOT EXISTS silence (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,       -- source/device
    last_boot TEXT NOT NULL,     -- the reading before
    last_ns INTEGER NOT NULL,
    last_utc_ns INTEGER NOT NULL,
    next_boot TEXT NOT NULL,     -- the reading after
    next_ns INTEGER NOT NULL,
    next_utc_ns INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS silence_from_undated ON silence (last_boot) WHERE last_utc_ns = 0;
CREATE INDEX IF NOT EXISTS silence_to_undated ON silence (next_boot) WHERE next_utc_ns = 0;
CREATE TABLE IF NOT EXISTS loss (  -- readings that an output will never get
    id INTEGER PRIMARY KEY,
    output TEXT NOT NULL,
    reason TEXT NOT NULL,        -- refused, quota, damage
    hour INTEGER NOT NULL,       -- since 1970, in which they were given up
    readings INTEGER NOT NULL,
    first_utc_ns INTEGER NOT NULL,  -- the time of the oldest and of the newest of them, 0 if nobody knows
    last_utc_ns INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS opening (  -- the account of an output when an hour began
    hour INTEGER NOT NULL,
    output TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    damaged INTEGER NOT NULL,
    quota INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    PRIMARY KEY (hour, output)
) WITHOUT ROWID;
"""
# How to take each table over from a damaged file: all of it, as far as it can be read.
COPIES: Final = {
    f"SELECT * FROM {table}": f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608
    for table, columns in (("event", 8), ("silence", 8), ("loss", 7), ("opening", 8))
}
MOST_NOTED: Final = 20_000  # of each kind; older ones are forgotten
HOUR_NS: Final = 3600 * 10**9
_ALIVE: Final = "alive"  # a state beside those of the outbox: when the newest commit was


class Span(NamedTuple):
    """From the oldest reading to the newest, in UTC; zeros if nobody knows."""

    first_utc_ns: int = 0
    last_utc_ns: int = 0

    def __or__(self, other: Span) -> Span:
        """Return the span over both.

        >>> Span(5, 7) | Span(2, 6), Span() | Span(1, 1)
        (Span(first_utc_ns=2, last_utc_ns=7), Span(first_utc_ns=1, last_utc_ns=1))
        """
        if not all(self) or not all(other):
            return self if all(self) else other
        return Span(min(self[0], other[0]), max(self[1], other[1]))


class Loss(NamedTuple):
    """Readings that an output will never get, given up within one hour for one reason."""

    output: str
    reason: str
    hour: int
    readings: int
    first_utc_ns: int
    last_utc_ns: int


class Balance(NamedTuple):
    """The account of an output: what it was given, what it has, and what it will never get."""

    accepted: int = 0
    delivered: int = 0
    refused: int = 0
    damaged: int = 0
    quota: int = 0
    lost: int = 0

    @property
    def dropped(self) -> dict[str, int]:
        return {"refused": self.refused, "quota": self.quota, "damage": self.damaged + self.lost}

    @property
    def pending(self) -> int:
        """What is left for it to get, by this account."""
        return self.accepted - self.delivered - sum(self.dropped.values())


class _Timed(Struct, array_like=True):
    """The beginning of a reading."""

    device: str
    at_ns: int


class _Dated(Struct):
    time_ns: int


_timed = msgspec.msgpack.Decoder(list[tuple[str, list[_Timed]]]).decode
_dated = msgspec.json.Decoder(_Dated).decode
_encode = msgspec.msgpack.Encoder().encode


def span_of(body: bytes, offset_ns: int) -> Span:
    """Return from when to when the readings in the body of a row are."""
    try:
        times = [reading.at_ns + offset_ns for _, readings in _timed(body) for reading in readings]
    except ValueError:
        return Span()
    return Span(min(times), max(times)) if times else Span()


def refused_spans(dead_letters: Sequence[tuple[str, str, bytes]]) -> dict[str, Span]:
    """Return from when to when the readings are that each output has refused, by their dead letters."""
    spans: dict[str, Span] = {}
    for origin, _, body in dead_letters:
        if origin.startswith("output "):
            time_ns = _dated(body).time_ns
            name = origin.removeprefix("output ")
            spans[name] = spans.get(name, Span()) | Span(time_ns, time_ns)
    return spans


class Logbook:
    """The logbook of one outbox, over its connection; whoever owns that owns the transaction too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def keep(
        self,
        when: tuple[str, int, bool],
        events: Sequence[Event],
        gaps: Sequence[Gap],
        before: Mapping[str, Balance],
        after: Mapping[str, Balance],
        *,
        spans: Mapping[tuple[str, str], Span],
    ) -> None:
        """Write down what belongs to one commit.

        `when` is the boot, UTC minus monotonic time, and whether that is right; `before` and `after` are the accounts
        of the outputs; `spans` tells by output and reason from when to when what was given up had been measured.
        """
        boot, offset_ns, dated = when
        now_ns = time.monotonic_ns()
        now_utc_ns = now_ns + offset_ns
        if dated:
            self._date(boot, offset_ns)
            self._open_hour(now_utc_ns // HOUR_NS, before)
        self._put_alive(Moment(boot, now_ns, now_utc_ns if dated else 0))
        self.note(events)
        self._insert("silence", [(one.channel, *one.last, *one.next) for one in gaps])
        for output, balance in after.items():
            known = before.get(output, Balance()).dropped
            for reason, count in balance.dropped.items():
                if count > known[reason]:
                    span = spans.get((output, reason), Span())
                    self.lose(Loss(output, reason, now_utc_ns // HOUR_NS, count - known[reason], *span))

    def note(self, events: Sequence[Event]) -> None:
        """Write down what happened."""
        self._insert("event", [(one.what, one.part, *one.moment, one.note, one.number) for one in events])

    def lose(self, loss: Loss) -> None:
        """Write down that readings are lost, on the line that this hour has for it."""
        query = (
            "SELECT id, readings, first_utc_ns, last_utc_ns FROM loss WHERE output = ? AND reason = ? AND hour = ?"
            " AND id > (SELECT max(id) FROM loss) - 100"
        )
        known = self._connection.execute(query, (loss.output, loss.reason, loss.hour)).fetchone()
        if known:
            number, readings, *span = known
            whole = Span(*span) | Span(loss.first_utc_ns, loss.last_utc_ns)
            change = "UPDATE loss SET readings = ?, first_utc_ns = ?, last_utc_ns = ? WHERE id = ?"
            self._connection.execute(change, (readings + loss.readings, *whole, number))
        else:
            self._insert("loss", [tuple(loss)])

    def forget(self, output: str) -> None:
        """An output is no longer configured; one that gets its name later begins anew."""
        self._connection.execute("DELETE FROM opening WHERE output = ?", (output,))

    @property
    def alive(self) -> Moment | None:
        """When the newest commit was."""
        found = self._connection.execute("SELECT value FROM state WHERE key = ?", (_ALIVE,)).fetchone()
        try:
            return msgspec.msgpack.decode(found[0], type=Moment) if found else None
        except ValueError:
            return None

    def events(self) -> Iterator[Event]:
        return pages.events(self._connection)

    def silences(self) -> Iterator[Gap]:
        return pages.silences(self._connection)

    def losses(self) -> Iterator[Loss]:
        """Yield what no output will ever get, in the order in which it was given up."""
        columns = "output, reason, hour, readings, first_utc_ns, last_utc_ns"
        numbers = "hour readings first_utc_ns last_utc_ns"
        return (Loss(*row) for row in pages.rows(self._connection, "loss", columns, numbers))

    def opening(self, output: str, hour: int) -> tuple[int, Balance] | None:
        """Return the newest hour up to `hour` that has an account of the output, else the oldest, and that account."""
        query = "SELECT hour, accepted, delivered, refused, damaged, quota, lost FROM opening WHERE output = ?"
        row = self._connection.execute(f"{query} AND hour <= ? ORDER BY hour DESC LIMIT 1", (output, hour)).fetchone()
        row = row or self._connection.execute(f"{query} ORDER BY hour LIMIT 1", (output,)).fetchone()
        return (row[0], Balance(*row[1:])) if row else None

    def _date(self, boot: str, offset_ns: int) -> None:
        """Give what waited for the clock its date; the indices make it cheap to find that there is nothing."""
        for table, which in (("event", ""), ("silence", "last_"), ("silence", "next_")):
            at = f"{which}ns" if which else "at_ns"
            self._connection.execute(
                f"UPDATE {table} SET {which}utc_ns = {at} + ?"  # noqa: S608 - our own names
                f" WHERE {which}utc_ns = 0 AND {which}boot = ?",
                (offset_ns, boot),
            )

    def _open_hour(self, hour: int, before: Mapping[str, Balance]) -> None:
        if self._connection.execute("SELECT 1 FROM opening WHERE hour = ? LIMIT 1", (hour,)).fetchone():
            return
        self._connection.executemany(
            "INSERT INTO opening VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(hour, name, *one) for name, one in before.items()]
        )
        # As many as there may be of everything else, whole hours only.
        self._connection.execute(
            "DELETE FROM opening WHERE hour <= (SELECT hour FROM opening ORDER BY hour DESC LIMIT 1 OFFSET ?)",
            (MOST_NOTED,),
        )

    def _put_alive(self, moment: Moment) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (_ALIVE, _encode(moment)))

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._connection.executemany(f"INSERT INTO {table} VALUES (NULL, {places})", rows)  # noqa: S608
            self._connection.execute(
                f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?",  # noqa: S608
                (MOST_NOTED,),
            )
