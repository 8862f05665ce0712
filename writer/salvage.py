"""Opening an outbox that may be damaged: a bad file is set aside, what can be read of it is taken over."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from writer.outbox import SCHEMA, Outbox, connect, parts

log = logging.getLogger("writer.salvage")

_COLUMNS = "id, boot, offset_ns, clock, raw, count, body"


@dataclass(frozen=True, slots=True)
class Salvage:
    """What became of a damaged outbox."""

    set_aside: Path
    reason: str
    rows: int


def open_outbox(path: Path, *, reserve_bytes: int, quota_bytes: int) -> tuple[Outbox, Salvage | None]:
    """Open the outbox at `path`; start a new one with all readable rows when the old one is damaged.

    Raises `OSError` or `sqlite3.OperationalError` when the place itself cannot be used.
    """
    salvage = None
    if reason := _damage(path):
        aside = _set_aside(path)
        log.error("the outbox is damaged (%s): set aside as %s", reason, aside)
        salvage = Salvage(aside, reason, _take_over(aside, path))
        log.warning("%d rows of the damaged outbox were saved", salvage.rows)
    return Outbox(path, reserve_bytes=reserve_bytes, quota_bytes=quota_bytes), salvage


def _damage(path: Path) -> str:
    """Say what is wrong with the file, or nothing. A damaged page can still take inserts, so only a check tells."""
    if not path.exists():
        return ""
    try:
        with contextlib.closing(connect(path)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                return str(verdict)
            connection.executescript(SCHEMA)
            for table, columns in (("row", _COLUMNS), ("state", "key, value")):
                connection.execute(f"SELECT {columns} FROM {table} LIMIT 1").fetchall()  # noqa: S608 - constants
    except sqlite3.OperationalError as error:
        if "no such column" in str(error) or "has no column" in str(error):
            return str(error)
        raise
    except sqlite3.DatabaseError as error:
        return str(error)
    return ""


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for part in parts(path):
        if part.exists():
            part.rename(part.with_name(part.name.replace(path.name, aside.name, 1)))
    return aside


def _take_over(damaged: Path, path: Path) -> int:
    """Copy state and rows, as far as they can be read, into a new file; return the number of rows."""
    rows = 0
    with contextlib.closing(connect(path)) as new:
        new.executescript(SCHEMA)
        new.execute("BEGIN IMMEDIATE")
        try:
            with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as old:
                for key, value in _readable(old, "SELECT key, value FROM state WHERE key > ? ORDER BY key", ""):
                    if isinstance(key, str) and isinstance(value, bytes):
                        new.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
                for row in _readable_rows(old):
                    with contextlib.suppress(sqlite3.IntegrityError):  # a value that no row of ours has
                        new.execute("INSERT OR IGNORE INTO row VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                        rows += 1
        except sqlite3.DatabaseError as error:
            log.warning("the rest of the damaged outbox cannot be read: %s", error)
        new.execute("COMMIT")
    return rows


def _readable(old: sqlite3.Connection, query: str, start: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query in the order of its first column, up to the first that cannot be read."""
    with contextlib.suppress(sqlite3.DatabaseError):
        yield from old.execute(query, (start,))


def _readable_rows(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield every row that can be read: from the start in one go, then around what is damaged, one by one."""
    last = -1
    for row in _readable(old, f"SELECT {_COLUMNS} FROM row WHERE id > ? ORDER BY id", last):  # noqa: S608
        last = row[0]
        yield row
    ends = list(_readable(old, "SELECT id FROM row WHERE id > ? ORDER BY id DESC LIMIT 1", last))
    for row_id in range(last + 1, ends[0][0] + 1 if ends else last + 1):
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from old.execute(f"SELECT {_COLUMNS} FROM row WHERE id = ?", (row_id,))  # noqa: S608
