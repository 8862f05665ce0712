"""Opening an outbox that may be damaged: a bad file is set aside, what can be read of it is taken over."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from writer import rescue
from writer.books import BOOKS
from writer.ledger import Channel
from writer.ledger_copy import LedgerCopy
from writer.logbook import COPIES, LOGBOOK
from writer.outbox import SCHEMA, Outbox, states_of
from writer.outbox_file import PAGE_BYTES
from writer.rows import MOST_READINGS_A_ROW
from writer.transaction import transaction

log = logging.getLogger("writer.salvage")

_TABLES: Final = SCHEMA + BOOKS + LOGBOOK
_PUT_STATE: Final = "INSERT OR REPLACE INTO state VALUES (?, ?)"
_COLUMNS: Final = "id, boot, offset_ns, clock, raw, count, body"
# What every row of ours is, whatever the damage has made of it.
_OURS: Final = (
    "typeof(boot) = 'text' AND typeof(offset_ns) = 'integer' AND clock IN (0, 1, 2, 3) AND raw IN (0, 1)"
    f" AND typeof(count) = 'integer' AND count BETWEEN 0 AND {MOST_READINGS_A_ROW} AND typeof(body) = 'blob'"
)
_MOST_SINGLE_ROWS: Final = 1000  # that are looked for where no query gets through: damage spoils some dozens a page
# An error that quotes damaged text cannot be put into words by Python, which raises the second one instead.
_UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged outbox."""

    set_aside: Path
    reason: str
    rows: int


def open_outbox(
    path: Path, ledger_copy: LedgerCopy, *, reserve_bytes: int, quota_bytes: int
) -> tuple[Outbox, Salvage | None]:
    """Open the outbox at `path`; start a new one with all readable rows when the old one is damaged.

    The registers of energy that are gone, with the damage or with the whole file, go on from their copy.
    Raises `OSError` or `sqlite3.OperationalError` when the place itself cannot be used.
    """
    rescuing = rescue.begin(path)
    if rescue.is_to_be_finished(path):
        reason = "an earlier start found it so"
    elif not (reason := _damage(path)):
        try:
            outbox = Outbox(path, reserve_bytes=reserve_bytes, quota_bytes=quota_bytes)
            if not outbox.remembers and (channels := ledger_copy.higher_than(outbox.channels)):
                outbox.adopt(channels)  # somebody has deleted the file, or it was lost
            return outbox, None
        except _UNREADABLE as error:
            reason = _blame(error, path)
    if not rescue.is_to_be_finished(path):
        _take_over(path, rescuing, ledger_copy)
    aside = rescue.finish(path)
    outbox = Outbox(path, reserve_bytes=reserve_bytes, quota_bytes=quota_bytes)
    log.error("the outbox is damaged (%s): set aside as %s; %d rows of it were saved", reason, aside, outbox.rows)
    return outbox, Salvage(aside, reason, outbox.rows)


def _damage(path: Path) -> str:
    """Say what is wrong with the file, or nothing. A damaged page can still take inserts, so only a check tells."""
    if not path.exists():
        return ""
    try:
        if path.with_name(f"{path.name}-journal").exists():  # of the power cut in which it was made
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
                connection.execute("SELECT 1 FROM sqlite_schema").fetchone()  # whoever only reads may not roll it back
        with contextlib.closing(_connect_to_read(path)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                return str(verdict)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            if "state" in tables:
                for key, value in connection.execute("SELECT key, value FROM state"):
                    if not (isinstance(key, str) and isinstance(value, bytes)):
                        return f"{key!r} is no state of ours"
            if "row" in tables:
                query = f"SELECT id FROM row WHERE id < 1 OR ({_OURS}) IS NOT TRUE LIMIT 1"  # noqa: S608 - constants
                if foreign := connection.execute(query).fetchone():
                    return f"row {foreign[0]} is none of ours"
            return _strange_table(connection, tables)
    except _UNREADABLE as error:
        return _blame(error, path)


def _strange_table(connection: sqlite3.Connection, tables: Set[str]) -> str:
    """Say which table of ours has columns of other names, if any: whatever asks for one of them would fail."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(_TABLES)
        for (table,) in model.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            columns = "SELECT name FROM pragma_table_info(?)"
            if table in tables and list(connection.execute(columns, (table,))) != list(
                model.execute(columns, (table,))
            ):
                return f"the table {table} is none of ours"
    return ""


def _blame(error: Exception, path: Path) -> str:
    """Return what an error says of the file; raise it if it says something of the place."""
    rescue.raise_if_of_the_place(error)
    if rescue.code_of(error) == sqlite3.SQLITE_READONLY and not os.access(path, os.W_OK):
        raise error
    return str(error)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Open the file without changing it; closing that leaves the write-ahead log its size, which is a reserve."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _take_over(damaged: Path, rescuing: Path, ledger_copy: LedgerCopy) -> None:
    """Copy state and rows, as far as they can be read, into a new file, which is whole when this returns.

    Raises what says something of the place: what cannot be read or written just now may be there at the next start.
    """
    with contextlib.closing(sqlite3.connect(rescuing, isolation_level=None)) as new:
        rescue.write_plainly(new)
        new.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        new.executescript(_TABLES)
        with transaction(new), contextlib.closing(_connect_to_read(damaged)) as old:
            for key, value in _readable(old, "SELECT key, value FROM state ORDER BY key"):
                if isinstance(key, str) and isinstance(value, bytes):
                    new.execute(_PUT_STATE, (key, value))
            known = states_of(dict(new.execute("SELECT key, value FROM state")), "ledger/", Channel)
            for name, channel in ledger_copy.higher_than(known).items():
                new.execute(_PUT_STATE, (f"ledger/{name}", msgspec.msgpack.encode(channel)))
            for entry in _readable(old, "SELECT * FROM entry"):
                new.execute("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entry)
            for query, insertion in COPIES.items():
                for noted in _readable(old, query):
                    new.execute(insertion, noted)
            for row in _readable_rows(old):
                new.execute("INSERT OR IGNORE INTO row VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _readable(
    old: sqlite3.Connection, query: str, arguments: tuple[int, ...] = (), *, tries: int = 2
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query up to the first that cannot be read; and then once more: a card may fail only once."""
    for _ in range(tries):
        try:
            yield from old.execute(query, arguments)
        except _UNREADABLE as error:
            rescue.raise_if_of_the_place(error)
        else:
            return


def _readable_rows(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield every row that can be read: from the oldest on, from the newest back, then one by one what is between."""
    query = f"SELECT {_COLUMNS} FROM row WHERE id > ? AND id < ? AND {_OURS} ORDER BY id"  # noqa: S608 - constants
    first, last = 0, 2**63 - 1
    try:
        for row in old.execute(query, (first, last)):
            first = row[0]
            yield row
    except _UNREADABLE as error:
        rescue.raise_if_of_the_place(error)
    else:
        return
    for row in _readable(old, f"{query} DESC", (first, last), tries=1):
        last = row[0]
        yield row
    for row_id in range(first + 1, min(last, first + _MOST_SINGLE_ROWS)):
        yield from _readable(old, query, (row_id - 1, row_id + 1), tries=1)
