"""The outbox: everything that was accepted and not yet delivered, on the disk, in one SQLite file.

A commit is some rows of readings, the watermarks of the streams they came from, and how far each output has got: all of
it or nothing. What a card suffers is the number of commits and the pages that each touches, so a row is as large as a
commit, the small state lies together, and pages are small.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from logbook.entries import Entry
from logbook.events import Event, Gap
from reading import Reading
from writer.books import BOOKS, Books
from writer.ledger import Channel
from writer.logbook import LOGBOOK, Balance, Logbook, Loss, Span, refused_spans, span_of
from writer.outbox_file import connect, parts, reserve
from writer.repeats import Seen
from writer.rows import HELD, SYNCED, UNSYNCED, Row, only_counters, pack, unpack
from writer.transaction import transaction

log = logging.getLogger("writer.outbox")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS row (
    id INTEGER PRIMARY KEY,
    boot TEXT NOT NULL,          -- which run of the monotonic clock the readings were taken in
    offset_ns INTEGER NOT NULL,  -- UTC minus monotonic time, the best that was known
    clock INTEGER NOT NULL,      -- HELD, SYNCED, RESTAMPED or UNSYNCED
    raw INTEGER NOT NULL,        -- 1 until only the counters are left
    count INTEGER NOT NULL,      -- readings
    body BLOB NOT NULL           -- msgpack: [[source, [reading, ...]], ...]
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letter (
    id INTEGER PRIMARY KEY,
    at_utc TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    origin TEXT NOT NULL,
    reason TEXT NOT NULL,
    body BLOB NOT NULL
);
"""
MOST_DEAD_LETTERS: Final = 1000
_LAST: Final = 2**63 - 1  # no row has a higher number

_encode = msgspec.msgpack.Encoder().encode
T = TypeVar("T")


class Watermark(Struct, frozen=True, array_like=True, order=True):
    """The number of a stream's last committed message. Numbers only rise, so what is not above it is a repeat."""

    incarnation: int = 0
    sequence: int = 0


class Progress(Struct, array_like=True):
    """How far one output has got; its own thread keeps it current."""

    front: int = 0  # every row up to here is done, but those in a gap
    gaps: list[tuple[int, int]] = []  # (after, upto], left for later so that newer rows could go first
    delivered: int = 0  # readings
    refused: int = 0  # readings that the peer will never take: now dead letters
    damaged: int = 0  # readings whose row could not be read back
    memo: dict[str, int] = {}

    @property
    def behind(self) -> int:
        """Every row up to here is done, without exception."""
        return min([self.front, *(after for after, _ in self.gaps)])

    def owes(self, row: int) -> bool:
        """Whether a row is still to be delivered."""
        return row > self.front or any(after < row <= upto for after, upto in self.gaps)


class Account(Struct, array_like=True):
    """What an output was given and what was taken from it before it got there; the ingest loop keeps it."""

    accepted: int = 0  # readings committed since this output exists
    quota: int = 0  # readings that made room for newer ones
    lost: int = 0  # readings missing after damage to the file


def balance(progress: Progress, account: Account) -> Balance:
    done = (progress.delivered, progress.refused, progress.damaged)
    return Balance(account.accepted, *done, account.quota, account.lost)


@dataclass(slots=True)
class Intake:
    """What one commit takes in."""

    readings: dict[str, list[Reading]] = field(default_factory=dict)  # by source
    watermarks: dict[str, Watermark] = field(default_factory=dict)  # by stream
    boots: dict[str, dict[str, Seen]] = field(default_factory=dict)  # devices' own numbers, by "source/device"
    channels: dict[str, Channel] = field(default_factory=dict)  # of the ledger, as they are after this
    entries: list[Entry] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    undated: int = 0  # readings that waited on the way, nobody knows for how long
    events: list[Event] = field(default_factory=list)  # for the logbook
    heirs: dict[str, str] = field(default_factory=dict)  # of channels that are renamed: the new name, the old one
    retired: set[str] = field(default_factory=set)  # channels whose heir has taken over
    answers: dict[int, str] = field(default_factory=dict)  # to errands
    dead_letters: list[tuple[str, str, bytes]] = field(default_factory=list)  # origin, reason, body
    count: int = 0  # readings

    def __bool__(self) -> bool:
        return bool(self.watermarks or self.dead_letters or self.answers or any(one.presses for one in self.events))


@dataclass(frozen=True, slots=True)
class Stamp:
    """What turns the monotonic times of a commit into UTC."""

    boot: str
    offset_ns: int
    clock: int


class Outbox:
    """The one writing connection. Only the ingest loop uses it; each output reads through a `Reader` of its own."""

    def __init__(self, path: Path, *, reserve_bytes: int, quota_bytes: int) -> None:
        self.path = path
        self._quota_bytes = quota_bytes
        self._connection = connect(path)
        self._connection.executescript(SCHEMA + BOOKS + LOGBOOK)
        self.books = Books(self._connection)
        self.logbook = Logbook(self._connection)
        reserve(self._connection, parts(path)[:2], reserve_bytes)
        state = dict(self._connection.execute("SELECT key, value FROM state"))
        self.bytes = self._number("SELECT sum(length(body)) FROM row")
        self.watermarks = states_of(state, "stream/", Watermark)
        self.boots = states_of(state, "boots/", dict[str, Seen])
        self.channels = states_of(state, "ledger/", Channel)
        self.heirs = states_of(state, "heir/", str)
        self.progress = states_of(state, "output/", Progress)  # as last committed; the outputs' threads have newer
        self.accounts = states_of(state, "account/", Account)
        self.balances: dict[str, Balance] = {}  # as last committed, of all that are served
        # The newest row there ever was. Damage may have taken one of its traces, and a number must never be used twice:
        # an output that is beyond it would take the new row for done.
        heads = states_of(state, "head", int)
        fronts = (progress.front for progress in self.progress.values())
        self.head = max(heads.get("", 0), self._number("SELECT max(id) FROM row"), *fronts)
        self.remembers = bool(heads)  # otherwise there was no commit yet, or the state was lost to damage

    def serve(self, outputs: Iterable[str]) -> None:
        """Settle which outputs there are. A new one starts at the head, one that is gone gives up what it had left.

        One whose place was lost with damage starts at the oldest row: some may come twice, none is left out.
        """
        outputs = set(outputs)
        with transaction(self._connection):
            for gone in (self.progress.keys() | self.accounts.keys()) - outputs:
                pending = self.pending(self.progress[gone]) if gone in self.progress else 0
                log.warning("output %s is no longer configured; %d readings will not reach it", gone, pending)
                self._connection.execute("DELETE FROM state WHERE key IN (?, ?)", (f"output/{gone}", f"account/{gone}"))
                self.progress.pop(gone, None)
                self.accounts.pop(gone, None)
                self.logbook.forget(gone)
            for name in outputs:
                start = 0 if not self.remembers or name in self.accounts else self.head
                progress = self.progress.setdefault(name, Progress(front=start))
                account = self.accounts.setdefault(name, Account())
                self._settle(name, progress, account)
                self._put(f"output/{name}", progress)
                self._put(f"account/{name}", account)
                self.balances[name] = balance(progress, account)

    def adopt(self, channels: Mapping[str, Channel]) -> None:
        """Have these channels of the ledger, on the disk too."""
        with transaction(self._connection):
            for key, channel in channels.items():
                self._put(f"ledger/{key}", channel)
        self.channels.update(channels)

    def commit(
        self, intake: Intake, stamp: Stamp, progress: Mapping[str, Progress], busy: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Commit `intake` and how far the outputs have got. `busy` are the rows (after, upto] that they hold just now.

        Raises `sqlite3.Error`, also for a full disk: nothing has changed then, and the same call can be made again.
        """
        head, size = self.head, self.bytes
        accounts = {name: msgspec.structs.replace(self.accounts[name]) for name in progress}
        spans = {(name, "refused"): span for name, span in refused_spans(intake.dead_letters).items()}
        with transaction(self._connection):
            for body, count in pack(intake.readings):
                head += 1
                size += len(body)
                self._connection.execute(
                    "INSERT INTO row VALUES (?, ?, ?, ?, 1, ?, ?)",
                    (head, stamp.boot, stamp.offset_ns, stamp.clock, count, body),
                )
            for account in accounts.values():
                account.accepted += intake.count
            size -= self._forget(min((done.behind for done in progress.values()), default=head))
            if size > self._quota_bytes:
                size -= self._make_room(size - self._quota_bytes * 9 // 10, progress, accounts, busy, spans)
            self._put("head", head)
            states: dict[str, Mapping[str, object]] = {"stream": intake.watermarks, "boots": intake.boots}
            states |= {"ledger": intake.channels, "heir": intake.heirs, "output": progress, "account": accounts}
            for kind, those in states.items():
                for key, value in those.items():
                    self._put(f"{kind}/{key}", value)
            gone = [f"ledger/{old}" for old in intake.retired] + [f"heir/{new}" for new in self._settled_heirs(intake)]
            self._connection.executemany("DELETE FROM state WHERE key = ?", [(key,) for key in gone])
            self.books.enter(intake.entries)
            self.books.put_answers(intake.answers)
            self._bury(intake.dead_letters)
            after = {name: balance(done, accounts[name]) for name, done in progress.items()}
            when = (stamp.boot, stamp.offset_ns, stamp.clock == SYNCED)
            self.logbook.keep(when, intake.events, intake.gaps, self.balances, after, spans=spans)
        self.head, self.bytes = head, size
        self.balances.update(after)
        self.accounts.update(accounts)
        self.progress.update(progress)
        self.watermarks.update(intake.watermarks)
        self.boots.update(intake.boots)
        self.heirs.update(intake.heirs)
        for new in self._settled_heirs(intake):
            del self.heirs[new]
        for old in intake.retired:
            self.channels.pop(old, None)
        self.channels.update({key: channel for key, channel in intake.channels.items() if key not in intake.retired})

    def date_held(self, stamp: Stamp) -> int:
        """Date the rows that waited for the clock; return how many readings that were.

        Rows of an earlier boot keep the guess they were stored with: their monotonic clock is gone.
        """
        with transaction(self._connection):
            held = self._number("SELECT sum(count) FROM row WHERE clock = ?", HELD)
            self._connection.execute(
                "UPDATE row SET clock = ?, offset_ns = ? WHERE clock = ? AND boot = ?",
                (stamp.clock, stamp.offset_ns, HELD, stamp.boot),
            )
            self._connection.execute("UPDATE row SET clock = ? WHERE clock = ?", (UNSYNCED, HELD))
            self._connection.execute(
                "UPDATE entry SET utc_ns = at_ns + ? WHERE utc_ns = 0 AND boot = ?", (stamp.offset_ns, stamp.boot)
            )
        return held

    def close(self) -> None:
        self._connection.close()

    def pending(self, progress: Progress) -> int:
        """Count, row by row, the readings that an output still has to get."""
        count = self._number("SELECT sum(count) FROM row WHERE id > ?", progress.front)
        for after, upto in progress.gaps:
            count += self._number("SELECT sum(count) FROM row WHERE id > ? AND id <= ?", after, upto)
        return count

    @property
    def rows(self) -> int:
        return self._number("SELECT count(*) FROM row")

    @property
    def held(self) -> int:
        """Readings that wait for the clock."""
        return self._number("SELECT sum(count) FROM row WHERE clock = ?", HELD)

    @property
    def file_bytes(self) -> int:
        """Size on the disk, the write-ahead log included."""
        return sum(part.stat().st_size for part in parts(self.path) if part.exists())

    def _settle(self, name: str, progress: Progress, account: Account) -> None:
        """Make the account agree with the rows that are there: after damage to the file it may not."""
        missing = balance(progress, account).pending - self.pending(progress)
        if missing > 0:
            account.lost += missing
            self.logbook.lose(Loss(name, "damage", 0, missing, 0, 0))
            log.error("%d readings for output %s are gone: the outbox was damaged", missing, name)
        elif missing < 0:
            account.accepted -= missing

    def _forget(self, upto: int) -> int:
        size = self._number("SELECT sum(length(body)) FROM row WHERE id <= ?", upto)
        self._connection.execute("DELETE FROM row WHERE id <= ?", (upto,))
        return size

    def _make_room(
        self,
        wanted_bytes: int,
        progress: Mapping[str, Progress],
        accounts: Mapping[str, Account],
        busy: Sequence[tuple[int, int]],
        spans: dict[tuple[str, str], Span],
    ) -> int:
        """Drop the oldest raw values first, then the oldest rows whole; return the bytes that were freed.

        A counter goes last because the next one makes good for it: what happened in between stays known.
        """
        freed = 0
        for raw in (1, 0):
            rows = self._connection.execute("SELECT id FROM row WHERE raw = ? ORDER BY id", (raw,)).fetchall()
            for (row,) in rows:
                if freed >= wanted_bytes:
                    return freed
                if any(after < row <= upto for after, upto in busy):
                    continue
                query = "SELECT count, body, offset_ns FROM row WHERE id = ?"
                count, body, offset_ns = self._connection.execute(query, (row,)).fetchone()
                new_body, left = only_counters(body) if raw else (b"", 0)
                if left:
                    self._connection.execute(
                        "UPDATE row SET raw = 0, count = ?, body = ? WHERE id = ?", (left, new_body, row)
                    )
                else:
                    self._connection.execute("DELETE FROM row WHERE id = ?", (row,))
                freed += len(body) - len(new_body)
                for name, done in progress.items():
                    if done.owes(row):
                        accounts[name].quota += count - left
                        spans[name, "quota"] = spans.get((name, "quota"), Span()) | span_of(body, offset_ns)
        return freed

    def _bury(self, dead_letters: Sequence[tuple[str, str, bytes]]) -> None:
        if dead_letters:
            self._connection.executemany(
                "INSERT INTO dead_letter (origin, reason, body) VALUES (?, ?, ?)", dead_letters[-MOST_DEAD_LETTERS:]
            )
            self._connection.execute(
                "DELETE FROM dead_letter WHERE id <= (SELECT max(id) FROM dead_letter) - ?", (MOST_DEAD_LETTERS,)
            )

    def _settled_heirs(self, intake: Intake) -> list[str]:
        return [new for new, old in (self.heirs | intake.heirs).items() if old in intake.retired]

    def _put(self, key: str, value: object) -> None:
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, _encode(value)))

    def _number(self, query: str, *arguments: Any) -> int:
        (number,) = self._connection.execute(query, arguments).fetchone()
        return number or 0


class Reader:
    """An output's own connection: it reads beside the commits and never waits for them."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)

    def rows(self, after: int, upto: int | None, most_readings: int) -> list[Row]:
        """Read the oldest rows of (after, upto], some `most_readings` together, up to one that waits for the clock."""
        rows: list[Row] = []
        query = "SELECT id, offset_ns, clock, count, body FROM row WHERE id > ? AND id <= ? ORDER BY id"
        cursor = self._connection.execute(query, (after, upto if upto is not None else _LAST))
        count = 0
        for row_id, offset_ns, clock, row_count, body in cursor:
            if clock == HELD or (rows and count + row_count > most_readings):
                break
            rows.append(Row(row_id, row_count, unpack(row_id, body, offset_ns, clock)))
            count += row_count
        cursor.close()
        return rows

    def count(self, after: int, upto: int | None = None) -> int:
        """Count the readings in the rows of (after, upto], those that wait for the clock too."""
        query = "SELECT sum(count) FROM row WHERE id > ? AND id <= ?"
        (count,) = self._connection.execute(query, (after, upto if upto is not None else _LAST)).fetchone()
        return count or 0

    def close(self) -> None:
        self._connection.close()


def states_of(state: Mapping[str, bytes], prefix: str, kind: type[T]) -> dict[str, T]:
    found = {}
    for key, value in state.items():
        if key.startswith(prefix):
            try:
                found[key.removeprefix(prefix)] = msgspec.msgpack.decode(value, type=kind)
            except ValueError as error:  # msgspec's own errors, and text that is no UTF-8
                log.error("the outbox has forgotten %s: %s", key, error)
    return found
