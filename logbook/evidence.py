"""What of the outbox tells why nothing was measured: read as of one instant, while the house goes on."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from logbook import pages
from logbook.entries import Entry, entries
from logbook.events import Event, Gap
from logbook.moment import Moment

T = TypeVar("T")


class Register(Struct, array_like=True, frozen=True):
    """The beginning of a register of energy as the writer keeps it."""

    total_uwh: int
    told_uwh: int
    counter: Raw  # msgpack of what the device counts; nil where it counts nothing


class Power(Struct, array_like=True, frozen=True):
    """The beginning of what the writer integrates where nothing counts."""

    power_uw: int
    seen: Moment


class Known(Struct, array_like=True, frozen=True):
    """The beginning of what the writer remembers of a channel."""

    energy_wh: Register
    energy_export_wh: Register
    power: Power | None
    seen: Moment = Moment()  # the newest reading

    @property
    def counted(self) -> bool:
        """Whether the device counts by itself."""
        return any(bytes(register.counter) != _NIL for register in (self.energy_wh, self.energy_export_wh))


_NIL = msgspec.msgpack.encode(None)


@dataclass(slots=True)
class Evidence:
    """All of one instant."""

    channels: dict[str, Known]  # by source/device
    events: list[Event] = field(default_factory=list)
    silences: list[Gap] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    began: bool = True  # there is a logbook


@contextlib.contextmanager
def outbox(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the outbox, which may be in use, to read all that follows as of one instant. Raises `sqlite3.Error`."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # of a salvaged file, for instance
        connection.execute("BEGIN")
        yield connection


def evidence_in(connection: sqlite3.Connection) -> Evidence:
    """Read everything."""
    state = dict(connection.execute("SELECT key, value FROM state"))
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    evidence = Evidence(states(state, "ledger/", Known))
    evidence.began = "event" in tables  # else an older version wrote it, and this one has not been started since
    if evidence.began:
        evidence.events = [*pages.events(connection)]
        evidence.silences = [*pages.silences(connection)]
    if "entry" in tables:
        evidence.entries = [entry for _, entry in entries(connection)]
    return evidence


def states(state: Mapping[str, bytes], prefix: str, kind: type[T]) -> dict[str, T]:
    """Decode what is kept under keys that begin so, by the rest of the key."""
    found = {}
    for key, value in state.items():
        if key.startswith(prefix):
            with contextlib.suppress(ValueError):  # damaged: the house will settle it with its next start
                found[key.removeprefix(prefix)] = msgspec.msgpack.decode(value, type=kind)
    return found
