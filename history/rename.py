"""Lets the history of a channel go on under another name."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


def rename(path: Path, old: tuple[str, str], new: tuple[str, str]) -> int:
    """Give all series of `old` (source, device) the name `new`; return how many. Raises `sqlite3.Error`.

    A house that runs goes on writing into them, under whichever of the two names. A series that the new name has
    already stays apart.
    """
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        query = "UPDATE OR IGNORE series SET source = ?, device = ? WHERE source = ? AND device = ?"
        return connection.execute(query, (*new, *old)).rowcount
