"""The canary of those outputs that are files: written beside the real ones, by the same code, and taken away again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from commands._doctor import Finding, Mark
from commands._doctor.canary import DEVICE, METRIC, SOURCE, came_back, canary, sent
from config.settings import Settings, Site
from history.queries import History as Ask
from writer import Memo
from writer.outputs.csv import Csv
from writer.outputs.csv import Options as CsvOptions
from writer.outputs.history import History
from writer.outputs.history import Options as HistoryOptions


def check_csv(part: str, options: CsvOptions, settings: Settings) -> list[Finding]:
    place = settings.data_dir / Path(options.directory).expanduser()
    plain = canary()
    number = float(plain.values[METRIC])
    record = structs.replace(
        plain, values={METRIC: number, "power_w": number, "current_a": number}
    )  # for every profile
    with _folder_of_its_own(place) as folder:
        if folder is None:
            return [_cannot_write(part, place)]
        apart = structs.replace(options, directory=str(folder), appliances={DEVICE: 0}, every_nth=1)
        if wrong := sent(part, Csv(apart, settings.site, Memo()), record):
            return wrong
        rows = [row for file in sorted(folder.iterdir()) for row in file.read_text().splitlines()]
        if any(f"{number:.1f}" in row for row in rows):
            return [came_back(part, str(place))]
        return [Finding(part, "canary.read", Mark.WRONG, f"a canary was written into {place}, and is not in the file")]


def check_history(part: str, options: HistoryOptions, settings: Settings) -> list[Finding]:
    """The house alone writes its history, so the canary gets a file of its own beside it."""
    record = canary()
    with _folder_of_its_own(settings.data_dir) as folder:
        if folder is None:
            return [_cannot_write(part, settings.data_dir)]
        apart = Site(name=settings.site.name, timezone=settings.site.timezone, data_dir=str(folder))
        if wrong := sent(part, History(options, apart, Memo()), record):
            return wrong
        with contextlib.closing(Ask(folder / "history.db")) as asked:
            found = [one for one in asked.latest(record.time_ns) if (one.source, one.device) == (SOURCE, DEVICE)]
    if not any(one.value == record.values[METRIC] for one in found):
        return [Finding(part, "canary.read", Mark.WRONG, "a canary was written, and the query does not find it")]
    return [came_back(part, f"a file beside {settings.data_dir / 'history.db'}"), *_history(part, settings.data_dir)]


def _history(part: str, data_dir: Path) -> Iterator[Finding]:
    """Open the real one to read."""
    path = data_dir / "history.db"
    if not path.exists():
        yield Finding(part, "history.readable", Mark.NOTE, "there is no history.db yet; the house makes it")
        return
    try:
        with contextlib.closing(Ask(path)) as asked:
            count = len(asked.devices())
    except sqlite3.Error as error:
        now = "start the house: it sets a damaged one aside and begins anew"
        yield Finding(part, "history.readable", Mark.WRONG, f"{path} cannot be read: {error}", now)
        return
    yield Finding(part, "history.readable", Mark.GOOD, f"{path} has {count} series")


@contextlib.contextmanager
def _folder_of_its_own(beside: Path) -> Iterator[Path | None]:
    """Make a hidden folder in a place where the house writes, and remove it; None if that may not be written to."""
    folder = beside / f".canary-{os.getpid()}"
    try:
        made = [place for place in [beside, *beside.parents] if not place.exists()]
        folder.mkdir(parents=True)
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for place in made:  # what the house would make itself
            with contextlib.suppress(OSError):
                place.rmdir()


def _cannot_write(part: str, place: Path) -> Finding:
    what = f"this user cannot write to {place}"
    return Finding(part, "canary.sent", Mark.WRONG, what, f"run: sudo chown $USER {place}, or name another place")
