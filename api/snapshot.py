"""What the board says at one instant, as plain values that no other process changes any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from logs import format_line
from vitals import FIELDS, PROCESS_STATES, Board, Row

_RUNNING: Final = PROCESS_STATES.index("running")
_DEGRADED: Final = PROCESS_STATES.index("degraded")


@dataclass(frozen=True, slots=True)
class FrozenRow:
    """One row as it was."""

    name: str
    note: str
    numbers: Mapping[str, int]

    def __getitem__(self, field: str) -> int:
        return self.numbers[field]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows, role by role and by name, and what both clocks said when they had been read."""

    roles: Mapping[str, Mapping[str, FrozenRow]]
    monotonic_ns: int
    utc_ns: int

    def rows(self, role: str) -> Collection[FrozenRow]:
        return self.roles[role].values()

    def find(self, role: str, name: str) -> FrozenRow | None:
        return self.roles.get(role, {}).get(name)

    def runs(self, role: str, name: str) -> bool:
        """Does the process run that writes this row? Of the present, a row says the truth only as long as it does."""
        process = self.find("process", process_of(role, name))
        return process is None or is_up(process)

    def age_s(self, since_ns: int) -> float | None:
        """Seconds since an instant of CLOCK_MONOTONIC; None if it never came, which the board says with a zero."""
        return max(0, self.monotonic_ns - since_ns) / 1e9 if since_ns else None

    def age_utc_s(self, since_utc_ns: int) -> float | None:
        """Seconds since a time of day; None if there is none. A clock that was set back makes nothing negative."""
        return max(0, self.utc_ns - since_utc_ns) / 1e9 if since_utc_ns else None


class Now(NamedTuple):
    """What both clocks say."""

    monotonic_ns: int
    utc_ns: int


def now() -> Now:
    """Ask both clocks."""
    return Now(time.monotonic_ns(), time.time_ns())


def look(board: Board) -> Snapshot:
    """Read every row of the board once."""
    roles = {role: _rows(board, role) for role in FIELDS}
    return Snapshot(roles, *now())


def is_up(process: FrozenRow) -> bool:
    """Is there a process, and has its work loop begun? One that ended often of late is degraded with or without one."""
    return process["state"] == _RUNNING or (process["state"] == _DEGRADED and process["pid"] != 0)


def process_of(role: str, name: str) -> str:
    """The name of the process that writes a row.

    >>> process_of("worker", "meter"), process_of("output", "csv"), process_of("api", "api")
    ('source.meter', 'writer', 'api')
    """
    return {"worker": f"source.{name}", "api": "api"}.get(role, "writer")


def _rows(board: Board, role: str) -> dict[str, FrozenRow]:
    """Every whole row of a role, once a name: Prometheus refuses the lot when two series have the same labels."""
    return {frozen.name: frozen for row in board.rows(role) if (frozen := _freeze(row, role))}


def _freeze(row: Row, role: str) -> FrozenRow | None:
    """One row, or None if the parent released it or gave it to somebody else while it was being read."""
    try:
        frozen = FrozenRow(row.name, _fit_to_show(row.note), {field: row[field] for field in FIELDS[role]})
    except KeyError:
        return None
    return frozen if frozen.name and (row.role, row.name) == (role, frozen.name) else None


def _fit_to_show(note: str) -> str:
    """A note as the log would print it: secrets hidden, no character that is more than text."""
    if not note:
        return ""
    record = logging.makeLogRecord({"name": "note", "levelno": logging.INFO, "msg": note})
    return format_line(record, journal=True).decode().removeprefix("<6>note: ").rstrip("\n")
