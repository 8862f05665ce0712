"""Disk that the outbox owns beforehand, so that a full disk does not stop the commits at once."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CHECKPOINT_PAGES: Final = 1000  # what SQLite does by itself
_FEWEST_PAGES: Final = 100  # checkpoints wear a card too

log = logging.getLogger("writer.reserve")


def reserve(connection: sqlite3.Connection, files: Sequence[Path], reserve_bytes: int) -> None:
    """Let the database and its write-ahead log, which are `files`, be at least so large, with free pages in them."""
    if reserve_bytes:
        # The log begins anew only after a checkpoint, which has to come before it is longer than what it owns.
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        pages = min(_CHECKPOINT_PAGES, max(_FEWEST_PAGES, reserve_bytes // page_bytes // 2))
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    missing = reserve_bytes - min(file.stat().st_size if file.exists() else 0 for file in files)
    if missing <= 0:
        return
    try:
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
