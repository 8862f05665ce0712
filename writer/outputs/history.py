"""The house's own memory: one file that keeps every reading for days, minutes for months, hours for ever.

In the configuration, with the defaults:

    [outputs.history]
    raw_days = 7                # every reading as it came
    minute_days = 90            # then buckets of a minute: n, sum, min, max, last; what a register rose
    five_minute_days = 365      # then of five minutes; those of an hour are kept for ever
    most_mb = 1000.0            # when the file gets larger, the oldest readings go first, then the oldest minutes

The file is `history.db` in data_dir. There can be one output of this kind. The days count from the newest reading, not
from today, and a clock that is wrong for less than an hour deletes nothing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from config.settings import OutputTable, Site
from files import NEEDS_A_PERSON
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outputs._history_damage import opened, set_aside
from writer.outputs._history_parcels import Parcels
from writer.outputs._history_scribe import Scribe
from writer.rescue import is_damage

log = logging.getLogger("writer.outputs.history")

_NEEDS_A_PERSON: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})

_PARCELS_S: Final = 0.5  # with each batch: what is measured now comes first

Days = Annotated[int, Meta(ge=1, le=36_500)]


class Options(OutputTable, frozen=True):
    """`[outputs.history]`"""

    raw_days: Days = 7
    minute_days: Days = 90
    five_minute_days: Days = 365
    most_mb: Annotated[float, Meta(ge=10, le=1_000_000)] = 1000.0

    def __post_init__(self) -> None:
        if not self.raw_days <= self.minute_days <= self.five_minute_days:
            raise ValueError("raw_days, minute_days and five_minute_days must not get smaller in this order")


class History(Output):
    """Commits a batch with the numbers of its rows, so that one that comes again after a kill counts once."""

    Options = Options
    is_file = True

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._path = Path(site.data_dir).expanduser() / "history.db"
        self._scribe: Scribe | None = None
        self._parcels = Parcels(self._path.parent)

    def write(self, batch: Batch) -> None:
        try:
            refused = self._write(batch)
        except sqlite3.Error as error:
            self.close()
            raise self._after(error) from error
        except OSError as error:
            self.close()
            raise self._unusable(error) from error
        except BaseException:
            self.close()  # what it has in mind may not be what is on the disk
            raise
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def close(self) -> None:
        self._parcels.forget()
        if self._scribe:
            self._scribe.close()
            self._scribe = None

    def take_parcels(self, within_s: float) -> bool:
        """Take in some of what `./orchestrator.py import` has left for the history; return whether there is more."""
        return self._parcels.take(self._opened(), within_s)

    def _write(self, batch: Batch) -> dict[int, str]:
        scribe = self._opened()
        refused = scribe.write(batch)
        self.has_more_to_do = self._parcels.take(scribe, _PARCELS_S)
        return refused

    def _opened(self) -> Scribe:
        if self._scribe and not self._scribe.is_at(self._path):
            log.warning("%s was deleted or replaced; going on with what is there now", self._path)
            self.close()
        if not self._scribe:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            days = (self.options.raw_days, self.options.minute_days, self.options.five_minute_days)
            self._scribe = Scribe(self._path, opened(self._path), days, round(self.options.most_mb * 1_000_000))
        return self._scribe

    def _after(self, error: sqlite3.Error) -> OutputDown:
        """Mend what can be mended here; say what became of it."""
        if is_damage(error):
            try:
                set_aside(self._path, str(error))
            except sqlite3.Error as another:
                return self._down(another)
            except OSError as another:
                return self._unusable(another)
            return OutputDown(f"{self._path} was damaged: {error}; a new one is begun")
        return self._down(error)

    @property
    def _remedy(self) -> str:
        return f"make {self._path.parent} a directory, and {self._path.name} in it a file, that this user may write to"

    def _unusable(self, error: OSError) -> OutputDown:
        remedy = self._remedy if error.errno in NEEDS_A_PERSON else ""
        return OutputDown(f"{self._path}: {error.strerror or error}", remedy=remedy)

    def _down(self, error: sqlite3.Error) -> OutputDown:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        # A full disk and a failing one cannot open a file either; that passes without anybody.
        needs_a_person = code in _NEEDS_A_PERSON or (code == sqlite3.SQLITE_CANTOPEN and not self._is_usable)
        return OutputDown(f"{self._path}: {error}", remedy=self._remedy if needs_a_person else "")

    @property
    def _is_usable(self) -> bool:
        """Whether this user may write to the file, or make it."""
        folder = self._path.parent
        if not (folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK)):
            return False
        return not self._path.exists() or (self._path.is_file() and os.access(self._path, os.R_OK | os.W_OK))
