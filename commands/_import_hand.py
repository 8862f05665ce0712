"""Hands a parcel to the history: to the writer of a house that runs, or, where none does, in its place by its code."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from commands._history import utc_now_ns
from commands._progress import shown_progress
from config.intervals import file_interval_s
from config.settings import Settings
from history.imported import before
from history.parcel import FOLDER, SUFFIX, Parcel
from history.snapshot import Snapshot
from supervise.instance import AlreadyRunning, lock
from writer import Memo
from writer.outputs._history_parcels import Progress, progress_of
from writer.outputs.history import History, Options
from writer.rescue import is_damage

_STAGING: Final = "staging-"
_STEP_S: Final = 0.5
_PATIENCE_S: Final = 60.0  # without any progress


class Ahead(Struct, frozen=True):
    """What would become of a parcel now."""

    new: int
    repeated: int
    overlapping: int


class NotTaken(Exception):  # noqa: N818 - a state of the world
    """The parcel lies ready, but nobody has taken it in yet: why."""


def options_of(settings: Settings) -> Options | None:
    """Return the table of the history, if the house keeps one."""
    tables = (table for table in settings.outputs.values() if isinstance(table, Options) and table.enabled)
    return next(tables, None)


def staging(settings: Settings) -> Path:
    """Return where a parcel is made; what others have left there half made goes."""
    folder = settings.data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_STAGING}*"):
        number = left.name.removeprefix(_STAGING)
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            left.unlink(missing_ok=True)
    return folder / f"{_STAGING}{os.getpid()}"


def ahead(settings: Settings, path: Path) -> Ahead:
    """Look at what the history has already; nothing in it changes. Raises `sqlite3.Error`."""
    new = repeated = overlapping = 0
    history = settings.data_dir / "history.db"
    snapshot = Snapshot(history if history.exists() else None)
    with contextlib.closing(snapshot), contextlib.closing(Parcel(path)) as parcel:
        snapshot.begin()
        for content in parcel.contents:
            known = before(snapshot.tables, content.source, content.device, content.metric)
            count = parcel.count(content.id, 0, 2**63 - 1)
            late = parcel.count(content.id, known.own_ns, 2**63 - 1)
            again = sum(
                parcel.count(content.id, each.first_ns, min(each.last_ns + 1, known.own_ns)) for each in known.stretches
            )
            new, repeated, overlapping = new + count - late - again, repeated + again, overlapping + late
        snapshot.end()
    return Ahead(new, repeated, overlapping)


def hand(settings: Settings, options: Options, staged: Path) -> Progress:
    """Have a parcel taken in; return what became of it. Raises `NotTaken`, `OSError` and `sqlite3.Error`."""
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    with contextlib.closing(Parcel(staged)) as parcel:
        count = len(parcel)
    path = staged.with_name(f"{utc_now_ns(settings):020d}-{os.getpid()}{SUFFIX}")
    staged.rename(path)
    with shown_progress("into the history", count, bytes_=False) as moved:
        try:
            descriptor = lock(settings.data_dir, 0)
        except AlreadyRunning:
            patience_s = _PATIENCE_S + file_interval_s(settings.writer.file_interval_s, settings.data_dir)
            return _wait(settings.data_dir / "history.db", path, moved, patience_s)
        try:
            return _take(settings, options, path, moved)
        finally:
            os.close(descriptor)


def _take(settings: Settings, options: Options, path: Path, moved: Callable[[int], None]) -> Progress:
    history = History(options, settings.site, Memo())
    file = settings.data_dir / "history.db"
    told = Progress()
    try:
        more = True
        while more:
            more = history.take_parcels(_STEP_S)
            told = _told(file, path, told, moved)
    except sqlite3.Error as error:
        if is_damage(error):
            raise NotTaken(f"the history is damaged ({error}); start the house, which mends it and goes on") from error
        raise
    finally:
        history.close()
    return told


def _wait(file: Path, path: Path, moved: Callable[[int], None], patience_s: float) -> Progress:
    told = Progress()
    until_s = time.monotonic() + patience_s
    while not told.done:
        time.sleep(0.1)
        new = _told(file, path, told, moved)
        if new.items > told.items or new.done:
            until_s = time.monotonic() + patience_s
        elif time.monotonic() > until_s:
            raise NotTaken(
                f"it lies ready in {path.parent}, and the house takes it in with its next readings;"
                " ./orchestrator.py status tells whether it has any"
            )
        told = new
    return told


def _told(file: Path, path: Path, told: Progress, moved: Callable[[int], None]) -> Progress:
    """Look how far the history has got."""
    with contextlib.suppress(sqlite3.Error):  # it is just being made
        uri = f"{file.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            new = progress_of(connection, path.name)
        moved(new.items - told.items)
        return new
    return told
