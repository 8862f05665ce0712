"""Reads the logbook, through any connection to the outbox."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

from logbook.events import Event, Gap, What
from logbook.moment import Moment

log = logging.getLogger("logbook")


def events(connection: sqlite3.Connection) -> Iterator[Event]:
    """Yield what happened, oldest first."""
    known = {*What}  # a later version may have written others
    columns, numbers = "what, part, boot, at_ns, utc_ns, note, number", "at_ns utc_ns number"
    for what, part, boot, at_ns, utc_ns, note, number in rows(connection, "event", columns, numbers):
        if what in known:
            yield Event(What(what), part, Moment(boot, at_ns, utc_ns), note, number)


def silences(connection: sqlite3.Connection) -> Iterator[Gap]:
    """Yield every silence, in the order in which they ended."""
    numbers = "last_ns last_utc_ns next_ns next_utc_ns"
    columns = "channel, last_boot, last_ns, last_utc_ns, next_boot, next_ns, next_utc_ns"
    for channel, *moments in rows(connection, "silence", columns, numbers):
        yield Gap(channel, Moment(*moments[:3]), Moment(*moments[3:]))


def rows(connection: sqlite3.Connection, table: str, columns: str, numbers: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table up to the first that cannot be read; a salvaged file may have such."""
    sound = " AND ".join(f"typeof({number}) = 'integer'" for number in numbers.split())
    query = f"SELECT {columns} FROM {table} WHERE {sound} ORDER BY id"  # noqa: S608 - our own names
    try:
        yield from connection.execute(query)
    except sqlite3.DatabaseError as error:
        log.warning("the rest of the logbook (%s) cannot be read: %s", table, error)
