"""Collects what a backup has in it, all of one instant, while the house goes on.

The instant is one at which a kill would have found the house: the writer's commits are held up for some milliseconds,
in which every database is looked at once and every file is measured. Whatever starts from the copy does then what
it does after a kill, which is what all the promises are about:

- A CSV file is taken up to the size that the outbox has noted for it. What lies beyond was not confirmed at that
  instant and comes again from the outbox.
- `history.db` cannot know a row that the outbox of the copy does not know, so none is taken for a repeat later.
- Numbers of starts (`incarnation`) are copied after the outbox, so that none can come twice.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from commands._archive import Progress
from commands._probe import leave
from supervise.instance import AlreadyRunning, lock
from writer.outbox import Progress as Place
from writer.transaction import transaction

EXIT_FAILED: Final = 1
# What is no data of a house: archives and exports, locks, and what damage left behind.
SKIPPED: Final = ("backups", "export", "wattherd.lock")
_SKIPPED_PARTS: Final = (".damaged-", ".rescued")
_SQLITE: Final = b"SQLite format 3\0"
_BESIDE: Final = ("-wal", "-shm", "-journal")
_PAGES: Final = 2000  # copied at once


@dataclass(slots=True)
class Instant:
    """What there was: databases, open at that instant, and how much of each other file counts."""

    databases: dict[Path, sqlite3.Connection] = field(default_factory=dict)
    sizes: dict[Path, int] = field(default_factory=dict)
    head: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)  # how far each output had got
    remarks: list[str] = field(default_factory=list)


@contextlib.contextmanager
def instant(data_dir: Path, besides: Path) -> Iterator[Instant]:
    """Look at everything at one instant; the databases stay as they were then until the block ends.

    `besides` is where the archive goes, which is in no archive. Raises `sqlite3.Error` and `OSError`.
    """
    found = Instant()
    with contextlib.ExitStack() as stack:
        with _commits_held_up(data_dir):
            for path in _files(data_dir, besides, found):
                if _is_database(path):
                    connection = stack.enter_context(contextlib.closing(_connect(path)))
                    connection.execute("BEGIN")
                    connection.execute(
                        "SELECT count(*) FROM sqlite_schema"
                    ).fetchone()  # only now it is of this instant
                    found.databases[path] = connection
                elif not path.name.endswith(_BESIDE):
                    with contextlib.suppress(FileNotFoundError):
                        found.sizes[path] = path.stat().st_size
        if outbox := found.databases.get(data_dir / "outbox.db"):
            _read_outbox(outbox, found)
        yield found


def copy(connection: sqlite3.Connection, to: Path, moved: Progress) -> None:
    """Copy a database as it was at the instant, and check the copy. Raises `sqlite3.Error`."""
    with contextlib.closing(sqlite3.connect(to)) as copied:
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        done = 0

        def progress(_: int, rest: int, total: int) -> None:
            nonlocal done
            moved((total - rest - done) * page_bytes)
            done = total - rest

        connection.backup(copied, pages=_PAGES, progress=progress)
        (verdict,) = copied.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {verdict}")


@contextlib.contextmanager
def _commits_held_up(data_dir: Path) -> Iterator[None]:
    """Let nothing be committed in the block: by the lock of a house that rests, or by a lock on its outbox."""
    path = data_dir / "outbox.db"
    try:
        locked = lock(data_dir, 0)
    except AlreadyRunning:
        if not path.exists():
            leave(f"the house in {data_dir} has only just begun; try again in a minute", EXIT_FAILED)
        outbox = sqlite3.connect(path, timeout=10, isolation_level=None)
        with contextlib.closing(outbox), transaction(outbox):
            yield
    else:
        try:
            yield
        finally:
            os.close(locked)


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database to read; closing that leaves a write-ahead log as it is."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None)


def _read_outbox(outbox: sqlite3.Connection, found: Instant) -> None:
    state = dict(outbox.execute("SELECT key, value FROM state"))
    with contextlib.suppress(KeyError, ValueError):
        found.head = msgspec.msgpack.decode(state["head"], type=int)
    rows = outbox.execute("SELECT id, count FROM row").fetchall()
    known = {path.resolve(): path for path in found.sizes}
    for key, value in state.items():
        if key.startswith("output/"):
            with contextlib.suppress(ValueError):
                name, place = key.removeprefix("output/"), msgspec.msgpack.decode(value, type=Place)
                found.places[name] = place
                found.waiting[name] = sum(count for row, count in rows if place.owes(row))
                for file, size in place.memo.items():
                    if path := known.get(Path(file).resolve()):
                        found.sizes[path] = min(found.sizes[path], size)


def _files(data_dir: Path, besides: Path, found: Instant) -> Iterator[Path]:
    """Walk through what is data of the house."""
    for path in sorted(data_dir.iterdir()):
        if path.name in SKIPPED or path == besides:
            continue
        yield from _below(path, besides, found)


def _below(path: Path, besides: Path, found: Instant) -> Iterator[Path]:
    if path.name.startswith(".") or any(part in path.name for part in _SKIPPED_PARTS) or path == besides:
        return
    if path.is_symlink():
        if (remark := f"{path} is a link and is not in it; what it points to needs a backup of its own") not in (
            found.remarks
        ):
            found.remarks.append(remark)
    elif path.is_dir():
        for each in sorted(path.iterdir()):
            yield from _below(each, besides, found)
    elif path.is_file():
        yield path


def _is_database(path: Path) -> bool:
    if path.suffix != ".db":
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE
