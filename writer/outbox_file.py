"""The file of the outbox: how it is opened, and what of the disk is its own, so that a full one does not stop it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 1024  # a commit touches a dozen: half of what it would write with six of the usual 4096
_CHECKPOINT_BYTES: Final = 4_000_000  # what SQLite does by itself with pages of the usual size
_FEWEST_BYTES: Final = 400_000  # checkpoints wear a card too

log = logging.getLogger("writer.outbox")


def connect(path: Path) -> sqlite3.Connection:
    """Open the file as every part of the writer does. The connection must not cross a fork."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file; an older one keeps its own
    connection.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite writes zeros over whatever is deleted
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def parts(path: Path) -> list[Path]:
    """The files that make up an outbox."""
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]


def reserve(connection: sqlite3.Connection, files: Sequence[Path], reserve_bytes: int) -> None:
    """Let the database and its write-ahead log, which are `files`, be at least so large, with free pages in them."""
    if reserve_bytes:
        # The log begins anew only after a checkpoint, which has to come before it is longer than what it owns.
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        log_bytes = min(_CHECKPOINT_BYTES, max(_FEWEST_BYTES, reserve_bytes // 2))
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_bytes // page_bytes}")
    missing = reserve_bytes - min(file.stat().st_size if file.exists() else 0 for file in files)
    if missing <= 0:
        return
    try:
        connection.execute("PRAGMA secure_delete = ON")  # else what is dropped at once is never written at all
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE reserve (space BLOB)")
        connection.execute("INSERT INTO reserve VALUES (zeroblob(?))", (missing,))
        connection.execute("DROP TABLE reserve")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.OperationalError as error:
        log.warning("no room to reserve %d MB for the outbox: %s", reserve_bytes // 1_000_000, error)
    finally:
        if connection.in_transaction:  # SQLite has rolled back by itself when the disk is full
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA secure_delete = OFF")
