"""How a damaged database gives its place to a rescued one, in steps after any of which the power may be cut.

What can be read goes into `<name>.rescuing`. When that is whole it is called `<name>.rescued`, and from then on every
start finishes: the damaged file is set aside, and the rescued one gets its name.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from files import sync_directory

_FILES: Final = ("", "-wal", "-shm")
# SQLite calls a file malformed, too, of which the disk cannot read a part.
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# The place cannot be used just now, which says nothing of the file.
_OF_THE_PLACE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
    }
)


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is not as it was written; all others may pass by themselves.

    The one that Python raises for a text that is none has no number of SQLite's.
    """
    is_no_text = isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode")
    return is_no_text or code_of(error) in _DAMAGE


def raise_if_of_the_place(error: Exception) -> None:
    """Raise an error that says nothing of the file: what cannot be read just now is not lost."""
    if code_of(error) in _OF_THE_PLACE:
        raise error


def code_of(error: Exception) -> int:
    """SQLite's own number of an error, without its details; 0 for one that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def begin(path: Path) -> Path:
    """Return the name under which to rescue what can be read of `path`; nothing has it, not even after a kill."""
    rescuing = _beside(path, ".rescuing")
    for suffix in (*_FILES, "-journal"):
        _beside(rescuing, suffix).unlink(missing_ok=True)
    return rescuing


def write_plainly(new: sqlite3.Connection) -> None:
    """Let a rescued file be written without a log or journal, and unsynced until it is finished.

    Whoever is killed meanwhile begins anew; and where a disk is full a log might be left behind with half of it.
    """
    new.execute("PRAGMA journal_mode = OFF")
    new.execute("PRAGMA synchronous = OFF")


def is_to_be_finished(path: Path) -> bool:
    """Whether a rescue was whole and has not got to its end."""
    return _beside(path, ".rescued").exists()


def finish(path: Path) -> Path:
    """Put what was rescued in the place of the damaged file; return the name of that from now on."""
    rescuing, rescued = _beside(path, ".rescuing"), _beside(path, ".rescued")
    if not rescued.exists():
        with rescuing.open("rb") as file:
            os.fsync(file.fileno())
        rescuing.rename(rescued)
        sync_directory(path.parent)
    there = [suffix for suffix in _FILES if _beside(path, suffix).exists()]
    aside = _name_for(path, there)
    for suffix in there:
        _beside(path, suffix).rename(_beside(aside, suffix))
    sync_directory(path.parent)
    rescued.rename(path)
    sync_directory(path.parent)
    return aside


def _name_for(path: Path, there: list[str]) -> Path:
    """Find a name that no earlier damaged file has; the one that this has got already, if a kill came in between."""
    number = 1
    while _beside(path, f".damaged-{number}").exists():
        number += 1
    last = _beside(path, f".damaged-{number - 1}")
    if "" not in there and last.exists() and not any(_beside(last, suffix).exists() for suffix in there):
        return last
    return _beside(path, f".damaged-{number}")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
