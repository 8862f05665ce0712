"""Sources: one file each, one process each. This is all that the author of a source has to know.

`_name.py` is plumbing that sources share; every other file of this folder is a kind that a user can configure.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from config.settings import SourceTable
from reading import Reading


class SourceError(Exception):
    """A device or a bus cannot be used just now: say what is wrong, and what to do now.

    It is no crash: the runtime closes the source, shows both sentences, and opens it again, first after one second, at
    last once a minute.
    """

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")
        self.what = what
        self.what_now = what_now


class Source(ABC):
    """One bus, one vendor's plugs, one broker: many devices. Calls never overlap, and none comes after `close()`."""

    Options: ClassVar[type[SourceTable]]  # this source's TOML table
    # True where senders wait for an answer (HTTP, MQTT): `read()` is then called again only when everything that the
    # last call returned is in the report channel, so the next call is the moment to acknowledge it.
    acknowledges: ClassVar[bool] = False

    def __init__(self, name: str, options: Any) -> None:
        self.name = name
        self.options = options
        # What arrived and was not let in, by one of the reasons of `vitals.REFUSALS`; only ever rises.
        self.refused: Counter[str] = Counter()
        # What is wrong with single devices while the others go on: "what; what now" by device. Kept current by
        # `read()`; the runtime logs each change and shows it.
        self.troubles: dict[str, str] = {}
        # Where this source may keep small files of its own over restarts; None: a mere look, nothing is kept.
        self.directory: Path | None = None
        # Descriptors that outlive this process: those that a predecessor deposited, by name, and how to deposit one.
        self.kept: dict[str, int] = {}
        self.deposit: Callable[[str, int], None] = lambda _name, _descriptor: None

    @abstractmethod
    def open(self) -> None:
        """Reach the hardware: the only place that imports a driver. Raise `SourceError` when it cannot be reached."""

    @abstractmethod
    def read(self) -> list[Reading]:
        """Return one round (a polled source), or what arrived (a listening one: it waits at most one second)."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Called after every `open()`, also after one that failed."""


def kinds() -> list[str]:
    """Name every kind of source, without importing any."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def source_class(kind: str) -> type[Source]:
    """Import `workers/<kind>.py` and return its one Source."""
    module = importlib.import_module(f"workers.{kind}")
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Source) and member.__module__ == module.__name__ and not inspect.isabstract(member)
    ]
    if len(found) != 1:
        raise TypeError(f"workers/{kind}.py must define exactly one Source, it defines {len(found)}")
    return found[0]
