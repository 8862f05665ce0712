"""Writes what the history knows of a stretch of time into a CSV file, and says how far it has got."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, cast

from api.series_csv import HEADER, channel_of, pieces
from api.times import utc
from commands._archive import Progress
from commands._history import midnight_ns
from config.settings import Settings
from history.buckets import REGISTER
from history.queries import Extent, History

PART: Final = ".part"
STEPS_S: Final = {"raw": 0, "1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600}
DAY: Final = "day"  # of the site, with 23 and 25 hours


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole days of the site, the last one included."""

    first: date
    last: date

    def bounds_ns(self, settings: Settings) -> tuple[int, int]:
        return midnight_ns(settings, self.first), midnight_ns(settings, self.last + timedelta(days=1))


def month_of(day: date) -> Stretch:
    """Return the whole month of a day.

    >>> month_of(date(2028, 2, 10))
    Stretch(first=datetime.date(2028, 2, 1), last=datetime.date(2028, 2, 29))
    """
    first = day.replace(day=1)
    return Stretch(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))


def wanted_of(history: History, channels: Sequence[str], metrics: Sequence[str]) -> list[Extent]:
    """Return the series that are asked for; all of them if nothing is named."""
    return [
        each
        for each in history.extents()
        if (not channels or f"{each.source}/{each.device}" in channels) and (not metrics or each.metric in metrics)
    ]


def rows(
    settings: Settings, history: History, wanted: Sequence[Extent], stretch: Stretch, step: str
) -> Iterator[tuple[bytes, Extent | None]]:
    """Yield the CSV in pieces, each with the series that it is of."""
    from_ns, to_ns = stretch.bounds_ns(settings)
    yield HEADER.encode(), None
    for each in wanted:
        if step == DAY:
            yield _days(settings, history, each, from_ns, to_ns), each
            continue
        for piece in pieces(history, [each], from_ns, to_ns, STEPS_S[step]):
            if piece != HEADER.encode():
                yield piece, each


def write(content: Iterator[tuple[bytes, Extent | None]], to: Path | None, moved: Progress) -> int:
    """Write it all, compressed if the name says so; nothing has the name before it is whole. Return the rows.

    Without a name it goes to stdout. Raises `OSError`.
    """
    count = -1  # the header is none
    last: Extent | None = None
    with _opened(to) as file:
        for piece, series in content:
            file.write(piece)
            count += piece.count(b"\n")
            if series is not last:
                moved(1)
                last = series
    return count


@contextmanager
def _opened(to: Path | None) -> Iterator[BufferedIOBase]:
    if to is None:
        yield cast(BufferedIOBase, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    part = to.with_name(to.name + PART)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            if to.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed:
                    yield cast(Any, compressed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(to)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _days(settings: Settings, history: History, series: Extent, from_ns: int, to_ns: int) -> bytes:
    """What a register rose on each day."""
    if {each.kind for each in history.devices() if channel_of(series) == (each.source, each.device, each.metric)} != {
        REGISTER
    }:
        return b""
    from_ns, to_ns = max(from_ns, series.first_ns), min(to_ns, series.last_ns + 1)
    if from_ns >= to_ns:
        return b""
    channel = channel_of(series)
    found = history.energy([channel], from_ns, to_ns, "day", settings.site.timezone)[channel]
    name = ",".join(channel)
    return "".join(
        f"{utc(each.start_ns)},{name},,,,,,{each.amount!r}\n" for each in found if each.amount is not None
    ).encode()


def months_between(first: date, last: date) -> list[Stretch]:
    """Return every month that has a part of these days.

    >>> [f"{month.first:%Y-%m}" for month in months_between(date(2026, 11, 30), date(2027, 1, 1))]
    ['2026-11', '2026-12', '2027-01']
    """
    found = []
    day = first.replace(day=1)
    while day <= last:
        found.append(month_of(day))
        day = found[-1].last + timedelta(days=1)
    return found


def last_month(today: date) -> Stretch:
    return month_of(today.replace(day=1) - timedelta(days=1))
