"""Opens sources in the process of a command, as a worker would, and puts into words whatever goes wrong."""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec

import click
from msgspec import structs

from config.settings import Settings, SourceTable
from config.words import nearest
from reading import Reading
from workers import Source, SourceError, source_class

EXIT_FAILED: Final = 1
EXIT_PARTLY: Final = 3
_EXIT_INTERRUPTED: Final = 130
# What a source would do to the machine or to a device that a mere look must not do.
_HARMLESS: Final = {
    "priority": 0,
    "core": -1,
    "apply_shunt_codes": False,
    "keep_session": False,  # of a broker: the session is the house's, and whoever takes its name throws it out
    "client_id": "",
    "status_topic": "",
}
_ROOT: Final = Path(__file__).resolve().parent.parent

P = ParamSpec("P")


class Unreachable(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """A source could not be opened or read: what, and what now."""

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")
        self.what = what
        self.what_now = what_now


class Notes(logging.Handler):
    """Collects what a source would tell the log of the house."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


class Probe:
    """One source that is open here."""

    def __init__(self, source: Source, house: int | None) -> None:
        self._source = source
        self._house = house

    @property
    def troubles(self) -> dict[str, str]:
        return self._source.troubles

    @property
    def refused(self) -> dict[str, int]:
        return {reason: count for reason, count in self._source.refused.items() if count}

    @property
    def acknowledges(self) -> bool:
        return self._source.acknowledges

    def read(self) -> list[Reading]:
        """Read once. Raise `Unreachable`."""
        try:
            return self._source.read()
        except Exception as error:
            raise _in_words(error, self._source, self._house) from error


@contextmanager
def opened(name: str, options: SourceTable, house: int | None) -> Iterator[Probe]:
    """Open a source without leave to change anything; `house` is the process that runs it already. Raise `Unreachable`.

    Only the descriptors that it keeps for a successor stay open, until this process ends.
    """
    fields = options.__struct_fields__
    harmless = {key: value for key, value in _HARMLESS.items() if key in fields}
    source: Source = source_class(options.kind)(name, structs.replace(options, **harmless))
    try:
        try:
            source.open()
        except Exception as error:
            raise _in_words(error, source, house) from error
        yield Probe(source, house)
    finally:
        try:
            source.close()
        except Exception as error:  # noqa: BLE001 - what it told is more important
            logging.getLogger(name).warning("it failed to close: %s: %s", type(error).__name__, error)


@contextmanager
def collected_notes() -> Iterator[Notes]:
    """Keep the warnings of the sources and their drivers from the terminal, to be told in their place."""
    notes, root = Notes(), logging.getLogger()
    root.addHandler(notes)
    try:
        yield notes
    finally:
        root.removeHandler(notes)


def running_house(settings: Settings) -> int | None:
    """Return the process that works in the data directory: 0 if nobody knows its number, None if there is none."""
    try:
        descriptor = os.open(settings.data_dir / "wattherd.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(holder) if holder.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def source_or_exit(settings: Settings, name: str) -> SourceTable:
    """Return the options of a source; leave with status 2 and the nearest name if there is none."""
    options = settings.sources.get(name)
    if options is None:
        near = nearest(name, settings.sources, listed=True) if settings.sources else "; the configuration has none"
        leave(f"there is no source {name!r}{near}", 2)
    return options


def install_command(kind: str) -> str:
    """Say how to get the driver of a kind, also where the configuration does not name it yet."""
    locked = Path("requirements") / f"{kind}.txt"
    by_hand = f".venv/bin/pip install --require-hashes -r {locked}"
    return f"run: make install (or {by_hand})" if (_ROOT / locked).exists() else "run: make install"


def quietly(command: Callable[P, Any]) -> Callable[P, Any]:
    """End a command that is interrupted from the keyboard without a word; what it opened is closed all the same."""

    @functools.wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> Any:
        try:
            return command(*arguments, **options)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)
            sys.exit(_EXIT_INTERRUPTED)

    return run


def leave(words: str, status: int) -> NoReturn:
    click.echo(words, err=True)
    sys.exit(status)


def _in_words(error: Exception, source: Source, house: int | None) -> Unreachable:
    missing = error if isinstance(error, ImportError) else error.__cause__
    if isinstance(missing, ImportError) and (package := missing.name):
        what = f"the package {package.partition('.')[0]} is not installed"
        return Unreachable(what, install_command(source.options.kind))
    if not isinstance(error, SourceError):
        what = f"the source failed: {type(error).__name__}: {error}"
        return Unreachable(what, "that is a fault of wattherd; please report it with this line")
    if house is not None and "in use" in error.what:
        process = f" (process {house})" if house else ""
        what_now = "look at what it reads with its web page, or stop it first and try again"
        return Unreachable(f"{error.what}: the house runs{process} and reads it already", what_now)
    return Unreachable(error.what, error.what_now)
