"""Takes into the history what an older logger measured, a portion in each commit, by the one hand that writes there.

A portion is committed with what is taken in so far, so whoever is killed in between, nothing comes twice and nothing is
left out. Readings of the house itself are never touched: what an older logger says of a time from which the house has
readings of that channel is left out and counted.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from history.buckets import REGISTER, Point
from history.imported import ALWAYS_NS, Before, before, remember
from history.parcel import FOLDER, SPOILT, Content, Item, Parcel, Unreadable, waiting
from writer.outputs._history_scribe import Scribe
from writer.transaction import transaction

log = logging.getLogger("writer.outputs.history")

_PORTION: Final = 20_000  # items in one transaction
_MOST_KEPT: Final = 100  # parcels of which it is known how they ended
_QUERY: Final = "SELECT series, time_ns, taken, repeated, overlapping, done FROM parcel WHERE name = ?"


class Progress(Struct):
    """How far a parcel is taken in, and what became of its items."""

    series: int = 0
    time_ns: int = -1
    taken: int = 0
    repeated: int = 0  # of a time that is in the history from an older logger already
    overlapping: int = 0  # of a time in which the house itself has measured
    done: int = 0

    @property
    def items(self) -> int:
        return self.taken + self.repeated + self.overlapping


def progress_of(connection: sqlite3.Connection, name: str) -> Progress:
    row = connection.execute(_QUERY, (name,)).fetchone()
    return Progress(*row) if row else Progress()


class Parcels:
    """The folder in which parcels wait, and the one that is being taken in."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._taking: Taking | None = None
        self._left: set[Path] = set()  # that are done with, and that this user may not delete

    def take(self, scribe: Scribe, within_s: float) -> bool:
        """Take in some of what waits; return whether there is more. Raises `sqlite3.Error` of the history alone."""
        until_s = time.monotonic() + within_s
        for path in waiting(self._folder):
            if path in self._left:
                continue
            try:
                if not self._take(path, scribe, until_s):
                    return True
            except Unreadable as error:
                self.forget()
                aside = path.with_suffix(SPOILT)
                log.error("%s cannot be read (%s) and is kept as %s; import it again", path, error, aside.name)
                self._put_away(path, aside)
        return False

    def _take(self, path: Path, scribe: Scribe, until_s: float) -> bool:
        """Take in some of one parcel; return whether it is in, and gone."""
        if not self._taking or self._taking.path != path or self._taking.scribe is not scribe:
            self.forget()
            self._taking = Taking(path, Parcel(path), scribe)
        while self._taking.portion():
            if time.monotonic() >= until_s:
                return False
        told = self._taking.progress
        self.forget()
        self._put_away(path, None)
        log.info(
            "%s: %d values taken in, %d were there already, %d are of a time that the house has measured itself",
            path.stem,
            told.taken,
            told.repeated,
            told.overlapping,
        )
        return True

    def _put_away(self, path: Path, aside: Path | None) -> None:
        try:
            if aside:
                path.rename(aside)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._left.add(path)
            log.warning("%s is done with; delete it, which is not allowed here (%s)", path, error.strerror)

    def forget(self) -> None:
        """What was in mind may not be on the disk."""
        if self._taking:
            self._taking.close()
        self._taking = None


class Taking:
    """One parcel on its way into the history."""

    def __init__(self, path: Path, parcel: Parcel, scribe: Scribe) -> None:
        self.path = path
        self.scribe = scribe
        self._parcel = parcel
        self.progress = progress_of(scribe.connection, path.name)
        self._before: Before | None = None  # of the series that progress is at

    def close(self) -> None:
        self._parcel.close()

    def portion(self) -> bool:
        """Take in the next items, all of one series; return whether there may be more."""
        progress = self.progress
        if progress.done:
            return False
        content = next((each for each in self._parcel.contents if each.id >= progress.series), None)
        items: list[Item] = []
        if content:
            after_ns = progress.time_ns if content.id == progress.series else -1
            items = self._parcel.items(content.id, after_ns, _PORTION)
        with transaction(self.scribe.connection):
            if content is None:
                progress.done = 1
            elif not items:
                progress.series, progress.time_ns, self._before = content.id + 1, -1, None
            else:
                self._put(content, items)
                progress.series, progress.time_ns = content.id, items[-1][0]
            self._note()
        return not progress.done

    def _put(self, content: Content, items: list[Item]) -> None:
        sample = items[0][1] if isinstance(items[0][1], str) else 0.0
        series = self.scribe.series(content.source, content.device, content.metric, sample)
        if self._before is None:
            self._before = before(self.scribe.tables, content.source, content.device, content.metric)
        known = self._before
        points: list[Point] = []
        touched = {}
        for time_ns, value, since_ns, flags in items:
            if time_ns >= known.own_ns:
                self.progress.overlapping += 1
                continue
            if known.holds(time_ns):
                self.progress.repeated += 1
                continue
            height = 0
            if series.kind == REGISTER:
                height = self._height(content, known, time_ns, int(value), since_ns)
                value = height / 1e6  # noqa: PLW2901 - from a rise to a height
            points.append((time_ns, value if isinstance(value, str) else float(value), flags))
            stretch = known.add(time_ns, height)
            touched[stretch.first_ns] = stretch
        self.progress.taken += len(points)
        if points:
            self.scribe.put(series, points)
            remember(self.scribe.connection, series.id, [*touched.values()])

    def _height(self, content: Content, known: Before, time_ns: int, rise: int, since_ns: int) -> int:
        """Return how high a register is after a rise, so that nothing is used between two loggers but what was.

        It goes on where an earlier stretch ends. The first one ends where the house's own register begins, or above
        it: a register that falls counts nothing for the fall.
        """
        if earlier := known.earlier(time_ns):
            if since_ns < earlier.last_ns:  # some of it is in the earlier stretch already
                rise = rise * (time_ns - earlier.last_ns) // (time_ns - since_ns)
            return earlier.last + rise
        later_ns, later = known.later(time_ns)
        end = content.floor if later_ns == ALWAYS_NS else later
        return max(0, end - self._parcel.rise(content.id, time_ns, later_ns)) + rise

    def _note(self) -> None:
        told = self.progress
        connection = self.scribe.connection
        row = (self.path.name, told.series, told.time_ns, told.taken, told.repeated, told.overlapping, told.done)
        connection.execute("INSERT OR REPLACE INTO parcel VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if told.done:
            connection.execute(
                "DELETE FROM parcel WHERE name NOT IN (SELECT name FROM parcel ORDER BY name DESC LIMIT ?)",
                (_MOST_KEPT,),
            )
