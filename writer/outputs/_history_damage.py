"""Opening a history that may be damaged: it is set aside, and a new one begins with all that can be read."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from history.tables import SCHEMA, State, Tables

log = logging.getLogger("writer.outputs.history")

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE: Final = (sqlite3.Error, ValueError)  # msgspec's errors and text that is no UTF-8 are ValueErrors
_ORDER: Final = {
    "series": "id {0}",
    "bucket": "width {0}, series {0}, slot {0}",
    "chunk": "id {0}",
    "journal": "id {0}",
}
_WAL_BYTES: Final = 4_000_000  # a fold leaves a long log behind; this much of it is kept


def opened(path: Path) -> sqlite3.Connection:
    """Open the file, or a new one, ready to be written. Raises `sqlite3.Error` when the place cannot be used."""
    rescued = _beside(path, ".rescued")
    if not path.exists() and rescued.exists():
        rescued.rename(path)  # killed before the last step of a rescue
    if reason := _damage(path):
        set_aside(path, reason)
    return _connect(path)


def is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _DAMAGE


def set_aside(path: Path, reason: str) -> None:
    """Rename the file and begin a new one with all that can be read of it."""
    rescued = _beside(path, ".rescued")
    buckets = _rescue(path, rescued)
    number = 1
    while (aside := _beside(path, f".damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            _beside(path, suffix).rename(_beside(aside, suffix))
    rescued.rename(path)
    log.error("%s was damaged (%s): set aside as %s; %d buckets of it go on", path, reason, aside.name, buckets)


def _damage(path: Path) -> str:
    """Say what is wrong with the file, or nothing.

    Whoever closes it last removes the log beside it, so where there is none nobody was killed or lost power, and years
    need not be read through at every start.
    """
    log_file = _beside(path, "-wal")
    if not path.exists() or not log_file.exists() or not log_file.stat().st_size:
        return ""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        return "" if verdict == "ok" else str(verdict)
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        raise


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _rescue(path: Path, rescued: Path) -> int:
    """Make a new file of what can be read; return the number of its buckets."""
    for suffix in ("", "-wal", "-shm"):
        _beside(rescued, suffix).unlink(missing_ok=True)  # of a rescue that was killed
    new = _connect(rescued)
    with contextlib.closing(new), contextlib.closing(_connect_to_read(path)) as old:
        new.execute("BEGIN")
        for table, columns in (("series", 5), ("bucket", 14), ("chunk", 2), ("journal", 2)):
            insert = f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * columns)})"  # noqa: S608 - our own tables
            for order in ("ASC", "DESC"):  # up to the damage, and from behind up to it again
                for row in _readable(old, f"SELECT * FROM {table} ORDER BY {_ORDER[table].format(order)}"):  # noqa: S608
                    with contextlib.suppress(sqlite3.IntegrityError):
                        new.execute(insert, row)
        new.execute("DELETE FROM bucket WHERE series NOT IN (SELECT id FROM series)")
        new.execute("DELETE FROM chunk WHERE id & 0xFFFFFF NOT IN (SELECT id FROM series)")
        state = State()
        with contextlib.suppress(*_UNREADABLE):
            state = Tables(old).state()
        state.folds += 1
        new.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (msgspec.msgpack.encode(state),))
        (buckets,) = new.execute("SELECT count(*) FROM bucket").fetchone()
        new.execute("COMMIT")
    return int(buckets)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _readable(old: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query up to the first that cannot be read."""
    cursor: Iterator[tuple[Any, ...]] = iter(())
    with contextlib.suppress(*_UNREADABLE):
        cursor = old.execute(query)
    while True:
        try:
            row = next(cursor)
        except (StopIteration, *_UNREADABLE):
            return
        yield row  # not within the try: what goes wrong with the row is another matter


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
