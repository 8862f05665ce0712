"""Entries of the energy ledger: everything about a register that was not plainly right, and what a person did."""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from logbook.moment import Moment

_COLUMNS: Final = "id, channel, metric, kind, boot, at_ns, utc_ns, before_uwh, after_uwh, booked_uwh, note, undoes"


class Kind(StrEnum):
    """What a step of a counter was taken for, and what else is written into the ledger."""

    START = "start"  # the first reading ever: nothing is booked for what was before
    RESET = "reset"  # it began again from zero
    ROLLOVER = "rollover"  # it ran over its largest number
    SETBACK = "setback"  # it went on from an older count: what it counts again is new energy
    JUMP = "jump"  # it rose by more than the rated power allows, and stayed there: not booked
    GLITCH = "glitch"  # it showed something wrong and then went on as before
    REPLACEMENT = "replacement"  # another device, as its owner said
    ESTIMATED = "estimated"  # what it counted while nobody read it
    REPAIR = "repair"  # a person booked it, or took it back
    SET_READING = "set_reading"  # a person read the face of the meter
    RENAME = "rename"  # it goes on under another name
    END = "end"  # its device measures something else from now on


class Entry(Struct, frozen=True):
    """Evidence: one thing that happened to a register. Energies are µWh."""

    channel: str
    metric: str  # which register: energy_wh or energy_export_wh
    kind: Kind
    moment: Moment
    before_uwh: int = 0  # what the counter of the device showed
    after_uwh: int = 0
    booked_uwh: int = 0
    note: str = ""
    undoes: int = 0  # the number of the entry that this one takes back


def entries(connection: sqlite3.Connection, condition: str = "", *arguments: Any) -> list[tuple[int, Entry]]:
    """Return entries of the ledger with their numbers, oldest first."""
    query = f"SELECT {_COLUMNS} FROM entry {condition}"  # noqa: S608 - our own texts
    return [
        (number, Entry(channel, metric, Kind(kind), Moment(boot, at_ns, utc_ns), *rest))
        for number, channel, metric, kind, boot, at_ns, utc_ns, *rest in connection.execute(query, arguments)
    ]
