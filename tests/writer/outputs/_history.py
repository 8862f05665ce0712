"""A history to write to and to look into, and what it should say, computed anew in the simplest way."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from config.settings import Site
from history.buckets import SECOND_NS, micro
from reading import Quality, Record
from writer import Batch, Memo
from writer.outputs.history import History, Options

NOON_S = 1_762_862_400  # 2025-11-11T12:00:00Z
NOON_NS = NOON_S * SECOND_NS
REGISTER = ("kasa", "fridge", "energy_wh")
POWER = ("kasa", "fridge", "power_w")


def output(folder: Path, **options: Any) -> History:
    return History(msgspec.convert(options, Options), Site(data_dir=str(folder)), Memo())


def quick() -> Path | None:
    """A place in memory, for tests that write many files and pull no plug."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


@contextlib.contextmanager
def opened(folder: Path, **options: Any) -> Iterator[History]:
    history = output(folder, **options)
    try:
        yield history
    finally:
        history.close()


def record(at_s: float, device: str = "fridge", quality: Quality = Quality.MEASURED, **values: float | str) -> Record:
    """A reading `at_s` after noon."""
    return Record("kasa", device, NOON_NS + round(at_s * 1000) * 10**6, values, quality)


def batch(*records: Record, row: int = 0) -> Batch:
    """Records that came in one row of the outbox."""
    return Batch(records, [row] * len(records) if row else ())


def write_all(folder: Path, batches: Iterable[Batch], **options: Any) -> None:
    with opened(folder, **options) as history:
        for each in batches:
            history.write(each)


def content(folder: Path) -> dict[tuple[Any, ...], Any]:
    """Every chunk and every bucket, by the names of its series, so that numbers given on the way do not matter."""
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as connection:
        names = {row[0]: row[1:] for row in connection.execute("SELECT id, source, device, metric FROM series")}
        found: dict[tuple[Any, ...], Any] = {
            (number >> 48, number >> 24 & 0xFFFFFF, *names[number & 0xFFFFFF]): body
            for number, body in connection.execute("SELECT id, body FROM chunk")
        }
        for width, series, slot, *rest in connection.execute("SELECT * FROM bucket"):
            found[(width, slot, *names[series])] = rest
    return found


def count(folder: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as connection:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(number)


def points_of(records: Iterable[Record], metric: str) -> list[tuple[int, float]]:
    """What was measured, in order, each instant once."""
    found: dict[int, float] = {}
    for each in records:
        if metric in each.values and each.time_ns >= 0:
            value = float(each.values[metric])
            found[each.time_ns] = max(value, found.get(each.time_ns, value))
    return sorted(found.items())


def expected_rises(points: Sequence[tuple[int, float]], edges: Sequence[int]) -> list[int | None]:
    """How far a register rose from edge to edge, by walking from reading to reading."""

    def height(edge: int) -> int:
        risen = 0
        for (start, low), (end, high) in itertools.pairwise(points):
            step = max(0, micro(high) - micro(low))
            if edge >= end:
                risen += step
            elif edge > start:
                risen += step * (edge - start) // (end - start)
        return risen

    first, last = (points[0][0], points[-1][0]) if points else (0, -1)
    return [
        height(end) - height(start) if start <= last and end > first else None
        for start, end in itertools.pairwise(edges)
    ]
