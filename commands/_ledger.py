"""How commands reach the ledger: they look into the outbox, and leave errands for the one process that writes it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

import click

from commands._probe import leave
from commands._screen import print_json
from config.settings import Settings
from config.words import nearest
from supervise.instance import AlreadyRunning, lock
from writer.books import Books
from writer.clock import WallClock
from writer.errands import Clerk, Errand, Now, written
from writer.outbox import Intake, Outbox, Stamp
from writer.outbox_file import connect
from writer.rows import HELD, SYNCED

_ANSWER_S: Final = 20.0
_FAILED: Final = 1
_USAGE: Final = 2


def outbox_path(settings: Settings) -> Path:
    """Return where the outbox is; leave if no house has ever run here."""
    path = settings.data_dir / "outbox.db"
    if not path.exists():
        leave(f"there is no ledger in {settings.data_dir} yet: no house has run with this configuration", _FAILED)
    return path


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Outbox]:
    """Open the outbox to look into it; nothing in it changes."""
    try:
        outbox = Outbox(outbox_path(settings), reserve_bytes=0, quota_bytes=2**62)
    except sqlite3.Error as error:
        _cannot_read(settings, error)
    try:
        yield outbox
    except sqlite3.Error as error:
        _cannot_read(settings, error)
    finally:
        outbox.close()


def _cannot_read(settings: Settings, error: sqlite3.Error) -> NoReturn:
    leave(
        f"the ledger in {settings.data_dir} cannot be read: {error}; start the house, which mends what it can", _FAILED
    )


def channel_or_exit(outbox: Outbox, wanted: str) -> str:
    """Return the name of a channel as the ledger has it: `source/device`, or the device alone if there is only one."""
    names = sorted(outbox.channels)
    wanted = wanted.replace(".", "/", 1) if "/" not in wanted else wanted
    if wanted in names:
        return wanted
    same = [name for name in names if name.partition("/")[2] == wanted]
    if len(same) > 1:
        leave(f"{wanted} is the name of several channels: {', '.join(same)}", _USAGE)
    if not same:
        near = nearest(wanted, names, listed=True) if names else "; it has none yet"
        leave(f"the ledger has no channel {wanted!r}{near}", _USAGE)
    return same[0]


def ask(settings: Settings, errand: Errand) -> str:
    """Have an errand carried out, by the house if one runs, else here; return its answer, which begins with ✓ or ✗."""
    path = outbox_path(settings)
    try:
        locked = lock(settings.data_dir, 0)
    except AlreadyRunning:
        return _ask_the_writer(path, errand)
    try:
        return _settle_here(settings, errand)
    finally:
        os.close(locked)


def carry_out(settings: Settings, errand: Errand, *, as_json: bool, next_step: str = "") -> NoReturn:
    """Have an errand carried out, tell the answer, and leave: with status 1 where it was refused."""
    answer = ask(settings, errand)
    failed = answer.startswith("✗")
    if as_json:
        print_json({"status": int(failed), "answer": answer, "next": None if failed else next_step or None})
    else:
        click.echo(answer, err=failed)
        if next_step and not failed:
            click.echo(f"Next: {next_step}")
    sys.exit(int(failed))


def _ask_the_writer(path: Path, errand: Errand) -> str:
    with contextlib.closing(connect(path)) as connection:
        books = Books(connection)
        number = books.leave_errand(written(errand))
        ends_s = time.monotonic() + _ANSWER_S
        while time.monotonic() < ends_s:
            if answer := books.answer(number):
                return answer
            time.sleep(0.05)
        if not books.take_back_errand(number):
            return books.answer(number) or "✗ the answer is lost; look at ledger entries"
    return f"✗ the writer of the running house did not answer within {_ANSWER_S:g} s; nothing was changed; see its log"


def _settle_here(settings: Settings, errand: Errand) -> str:
    clock = WallClock(settings.clock.require_sync, 0)
    outbox = Outbox(outbox_path(settings), reserve_bytes=0, quota_bytes=int(settings.writer.outbox_quota_mb * 1e6))
    try:
        intake = Intake()
        number = outbox.books.leave_errand(written(errand))
        now = Now(clock.boot, time.monotonic_ns(), clock.offset_ns, clock.trusted)
        Clerk(outbox, intake, now).settle(number, written(errand))
        stamp = Stamp(clock.boot, clock.offset_ns, SYNCED if clock.trusted else HELD)
        outbox.commit(intake, stamp, dict(outbox.progress))
        return intake.answers[number]
    finally:
        outbox.close()


def local_time(settings: Settings, utc_ns: int) -> str:
    """Return a moment in the time of the site."""
    if not utc_ns:
        return "not dated yet"
    return (
        datetime.fromtimestamp(utc_ns / 1e9, UTC)
        .astimezone(ZoneInfo(settings.site.timezone))
        .strftime("%Y-%m-%d %H:%M:%S")
    )


def utc_ns_or_exit(settings: Settings, text: str) -> int:
    """Read a moment that a person wrote, in the time of the site unless it names another; leave with status 2."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        leave(f"{text!r} is no time; write it as 2026-03-31 or 2026-03-31T18:30", _USAGE)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(settings.site.timezone))
    return round(moment.timestamp() * 1e9)
