"""Opening a history that may be damaged: it is set aside, and a new one begins with all that can be read."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from history.codec import Batch, Group, encode_batch
from history.tables import SCHEMA, State, Tables, encode_state
from writer import rescue

log = logging.getLogger("writer.outputs.history")

_UNREADABLE: Final = (sqlite3.Error, ValueError)  # msgspec's errors and text that is no UTF-8 are ValueErrors
_ORDER: Final = {
    "series": "id {0}",
    "bucket": "width {0}, series {0}, slot {0}",
    "chunk": "id {0}",
    "journal": "id {0}",
    "imported": "series {0}, first_ns {0}",
}
_COLUMNS: Final = {"series": 5, "bucket": 14, "chunk": 2, "journal": 2, "imported": 5}
_WAL_BYTES: Final = 4_000_000  # a fold leaves a long log behind; this much of it is kept


def opened(path: Path) -> sqlite3.Connection:
    """Open the file, or a new one, ready to be written. Raises `sqlite3.Error` when the place cannot be used."""
    rescue.begin(path)  # what a kill left unfinished goes
    if rescue.is_to_be_finished(path):
        _replace(path, "an earlier start found it so")
    elif reason := _damage(path):
        set_aside(path, reason)
    return _connect(path)


def set_aside(path: Path, reason: str) -> None:
    """Rename the file and begin a new one with all that can be read of it.

    Raises `sqlite3.Error` where that cannot be read or written just now, which says nothing of the file.
    """
    _rescue(path, rescue.begin(path))
    _replace(path, reason)


def _replace(path: Path, reason: str) -> None:
    aside = rescue.finish(path)
    log.error("%s was damaged (%s): set aside as %s; what can be read of it goes on", path, reason, aside.name)


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
        if rescue.is_damage(error):
            return str(error)
        raise


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite writes zeros over whatever is deleted
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        connection.executescript(SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _rescue(path: Path, rescuing: Path) -> None:
    """Make a new file of what can be read, which is whole when this returns."""
    new = sqlite3.connect(rescuing, isolation_level=None)
    with contextlib.closing(new), contextlib.closing(_connect_to_read(path)) as old:
        new.execute("PRAGMA auto_vacuum = INCREMENTAL")
        rescue.write_plainly(new)
        new.executescript(SCHEMA)
        new.execute("BEGIN")
        for table, columns in _COLUMNS.items():
            insert = f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * columns)})"  # noqa: S608 - our own tables
            for order in ("ASC", "DESC"):  # up to the damage, and from behind up to it again
                for row in _readable(old, f"SELECT * FROM {table} ORDER BY {_ORDER[table].format(order)}"):  # noqa: S608
                    with contextlib.suppress(sqlite3.IntegrityError):
                        new.execute(insert, row)
        # What belongs to a series that is gone must not be taken for one that gets its number.
        _forget_unknown_series(new)
        new.execute("DELETE FROM bucket WHERE series NOT IN (SELECT id FROM series)")
        new.execute("DELETE FROM imported WHERE series NOT IN (SELECT id FROM series)")
        new.execute("DELETE FROM chunk WHERE id & 0xFFFFFF NOT IN (SELECT id FROM series)")
        state = _state(old)
        state.folds += 1
        new.execute("INSERT OR REPLACE INTO state VALUES (1, ?)", (encode_state(state),))
        new.execute("COMMIT")


def _forget_unknown_series(new: sqlite3.Connection) -> None:
    tables = Tables(new)
    known = {series.id for series in tables.series()}
    for number, batch in tables.journal():
        groups = [_only(group, known) for group in batch.groups]
        if groups != batch.groups:
            new.execute(
                "UPDATE journal SET body = ? WHERE id = ?", (encode_batch(Batch(batch.rows, [], groups)), number)
            )


def _only(group: Group, known: Collection[int]) -> Group:
    members = [(series, values) for series, values in zip(group.series, group.columns, strict=True) if series in known]
    series, columns = zip(*members, strict=True) if members else ((), ())
    return Group([*series], group.times_ns, group.flags, [*columns])


def _state(old: sqlite3.Connection) -> State:
    for _ in range(2):  # a card may fail only once
        try:
            return Tables(old).state()
        except _UNREADABLE as error:
            rescue.raise_if_of_the_place(error)
    return State()


def _connect_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _readable(old: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query up to the first that cannot be read."""
    cursor: Iterator[tuple[Any, ...]] = iter(())
    try:
        cursor = old.execute(query)
        while (row := next(cursor, None)) is not None:
            yield row
    except _UNREADABLE as error:
        rescue.raise_if_of_the_place(error)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
