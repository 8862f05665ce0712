"""How commands ask the history: where it is, what day it is, and what to say where there is none."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final
from zoneinfo import ZoneInfo

from commands._configuration import EXIT_CONFIGURATION
from commands._probe import leave
from config.settings import Settings
from config.words import nearest
from history.queries import History
from writer.clock import WallClock

EXIT_NO_DATA: Final = 1
NS: Final = 10**9


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[History]:
    """Open the history to ask it; leave with status 1 if there is none or it cannot be read."""
    path = settings.data_dir / "history.db"
    if not path.exists():
        leave(
            f"there is no history in {settings.data_dir} yet; it is kept from the first run on"
            " with this line in the configuration: [outputs.history]",
            EXIT_NO_DATA,
        )
    history = History(path)
    try:
        yield history
    except sqlite3.Error as error:
        leave(f"{path} cannot be read: {error}; the writer of a running house mends what it can", EXIT_NO_DATA)
    finally:
        history.close()


def utc_now_ns(settings: Settings) -> int:
    return time.monotonic_ns() + WallClock(settings.clock.require_sync, 0).offset_ns


def local_date(settings: Settings, at_ns: int) -> date:
    """Return the date of the site."""
    return datetime.fromtimestamp(at_ns // NS, UTC).astimezone(ZoneInfo(settings.site.timezone)).date()


def midnight_ns(settings: Settings, day: date) -> int:
    """Return when a date of the site begins."""
    return int(datetime.combine(day, datetime.min.time(), ZoneInfo(settings.site.timezone)).timestamp()) * NS


def date_or_exit(text: str) -> date:
    """Read a date that a person wrote; leave with status 2."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        leave(f"{text!r} is no date; write it as 2026-03-31", EXIT_CONFIGURATION)
    if not date(1971, 1, 1) <= day <= date(2200, 1, 1):
        leave(f"{text} is beyond all history; write a date like 2026-03-31", EXIT_CONFIGURATION)
    return day


def channel_or_exit(history: History, wanted: str, metric: str) -> str:
    """Return the name of a channel of which there is this metric: `source/device`, or the device alone if it is one."""
    names = sorted({f"{each.source}/{each.device}" for each in history.devices() if each.metric == metric})
    wanted = wanted.replace(".", "/", 1) if "/" not in wanted else wanted
    same = [name for name in names if wanted in (name, name.partition("/")[2])]
    if wanted in same:
        return wanted
    if len(same) > 1:
        leave(f"{wanted} is the name of several channels: {', '.join(same)}", EXIT_CONFIGURATION)
    if not same:
        near = nearest(wanted, names, listed=True) if names else "; it has none yet"
        leave(
            f"the history has no {metric} of a channel {wanted!r}{near}", EXIT_CONFIGURATION if names else EXIT_NO_DATA
        )
    return same[0]
