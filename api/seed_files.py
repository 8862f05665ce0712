"""The files of the energy-monitor API, sent in pieces, so that neither memory nor the loop is held by a long one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from api.channels import parted
from api.times import naive
from config.interface import Appliance
from config.settings import Settings
from history.buckets import HOUR_NS, SECOND_NS
from history.periods import edges
from history.queries import History

HEADER: Final = "timestamp,watts,appliance_id\n"
_PIECE_BYTES: Final = 64 * 1024
_MOST_ROWS: Final = 200_000  # of a database, which is put together in memory
_STEPS_S: Final = (0, 60, 300, 900, 3600)  # each is a part of an hour; 0: the readings themselves


class Wanted(NamedTuple):
    """Which readings, from when to when."""

    appliances: tuple[Appliance, ...]
    from_ns: int
    to_ns: int
    zone: ZoneInfo


def csv_files(settings: Settings, wanted: Wanted) -> list[Path]:
    """Return the files of a CSV output that writes this very format, oldest first; none if there is no such output."""
    first, last = (naive(at_ns, wanted.zone)[:10] for at_ns in (wanted.from_ns, wanted.to_ns))
    found = []
    for table in settings.outputs.values():
        if table.enabled and getattr(table, "profile", "") == "energy_monitor":
            directory = settings.data_dir / Path(getattr(table, "directory", "csv")).expanduser()
            names = sorted(path.name for path in directory.glob("energy_monitor-????-??-??.log"))
            found += [directory / name for name in names if first <= name[15:25] <= last]
    return found


async def in_pieces(files: Iterable[Path], header: str = "") -> AsyncIterator[bytes]:
    """Yield the content of files one after the other; a header that each of them has comes once."""
    if header:
        yield header.encode()
    for path in files:
        try:
            with path.open("rb") as file:
                if header and file.read(len(header)) != header.encode():
                    file.seek(0)
                while piece := file.read(_PIECE_BYTES):
                    yield piece
                    await asyncio.sleep(0)
        except FileNotFoundError:
            continue  # it was rotated away a moment ago


async def csv_of_history(history: History, wanted: Wanted) -> AsyncIterator[bytes]:
    """Yield the same from the history: every reading that is still kept as such, else the mean of each minute."""
    yield HEADER.encode()
    async for rows in _hours(history, wanted, 0):
        yield "".join(f"{timestamp},{watts:.10g},{number}\n" for timestamp, watts, number in rows).encode()


async def database(history: History, wanted: Wanted) -> bytes:
    """Return an SQLite file with a table `readings` of the same; means of longer steps where it would be too large."""
    readings = sum(
        day.n
        for one in wanted.appliances
        for day in history.summaries(_channel(one), wanted.from_ns, wanted.to_ns, "day", wanted.zone.key)
    )
    seconds = (wanted.to_ns - wanted.from_ns) // SECOND_NS * max(1, len(wanted.appliances))
    step_s = next((step for step in _STEPS_S if (seconds // step if step else readings) <= _MOST_ROWS), _STEPS_S[-1])
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE readings (timestamp TEXT, watts REAL, appliance_id INTEGER)")
        async for rows in _hours(history, wanted, step_s):
            connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
        connection.commit()
        return connection.serialize()


def first_midnight_ns(to_ns: int, days: int, zone: ZoneInfo) -> int:
    """Return when the first of so many local days began, today being the last."""
    cuts = edges(max(0, to_ns - (days + 1) * 24 * HOUR_NS), to_ns, "day", zone.key)
    return [start for start, _ in pairwise(cuts)][-days:][0]


async def _hours(history: History, wanted: Wanted, step_s: int) -> AsyncIterator[list[tuple[str, float, int]]]:
    """Yield the rows of one hour after the other, in the order of time."""
    from_ns = wanted.from_ns
    while from_ns < wanted.to_ns:
        to_ns = min((from_ns // HOUR_NS + 1) * HOUR_NS, wanted.to_ns)
        rows: list[tuple[int, float, int]] = []
        for one in wanted.appliances:
            found = history.series(_channel(one), from_ns, to_ns, step_s)
            rows += [
                (at_ns, watts, one.id)
                for at_ns, watts in zip(found.at_ns, found.mean, strict=True)
                if watts is not None and at_ns >= from_ns
            ]
            await asyncio.sleep(0)
        if rows:
            rows.sort()
            yield [(naive(at_ns, wanted.zone).replace("T", " "), watts, number) for at_ns, watts, number in rows]
        else:  # perhaps they were silent for months
            following = [history.next_ns(_channel(one), to_ns) for one in wanted.appliances]
            to_ns = min((at_ns for at_ns in following if at_ns is not None), default=wanted.to_ns)
        from_ns = to_ns


def _channel(appliance: Appliance) -> tuple[str, str, str]:
    return (*parted(appliance.channel), "power_w")
