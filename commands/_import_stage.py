"""Puts the rows of older loggers in order, works out energy, and makes a parcel of it; on the disk, however many."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from commands._import_formats import PULSE, Row
from history.buckets import ESTIMATED, micro
from history.parcel import SCHEMA
from logbook.moment import Moment
from reading import COUNTERS
from writer.register import UWH, Power, Rules, integrate

_RAW: Final = """
CREATE TABLE raw (channel TEXT, metric TEXT, time_ns INTEGER, value, flags INTEGER,
    PRIMARY KEY (channel, metric, time_ns)) WITHOUT ROWID;
"""
_AT_ONCE: Final = 5000
IMPORT: Final = "energy_wh"
EXPORT: Final = "energy_export_wh"
# What tells the energy, best first; what is not counted is worked out from power.
_COUNTED: Final = {IMPORT: "device_energy_wh", EXPORT: "device_energy_export_wh"}

Point = tuple[int, float | int | str, int, int]  # time, value or rise, since when, flags


class Kept(Struct, frozen=True):
    """What a parcel has of one channel."""

    channel: str
    first_ns: int
    last_ns: int
    rows: int  # instants
    energy_wh: float | None
    export_wh: float | None


class Stage:
    """A parcel that is being made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repeated = 0  # values of which there is one of the same time
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_RAW} {SCHEMA}")
        self._connection.execute("BEGIN")
        self._waiting: list[tuple[Any, ...]] = []

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def add(self, channel: str, row: Row) -> None:
        """Put a row to the others. Of two of one instant the first counts."""
        self._waiting += [(channel, metric, row.time_ns, value, row.flags) for metric, value in row.values.items()]
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def finish(self, rules: dict[str, Rules], wh_per_pulse: dict[str, float], exports: frozenset[str]) -> list[Kept]:
        """Work everything out and make it a parcel; return what it has. `exports`: channels whose pulses are sold."""
        self._flush()
        heads = self._connection.execute("SELECT DISTINCT channel, metric FROM raw ORDER BY 1, 2").fetchall()
        channels: dict[str, set[str]] = {}
        for channel, metric in heads:
            channels.setdefault(channel, set()).add(metric)
        for channel, metrics in channels.items():
            for metric in metrics - {PULSE}:
                self._put(channel, metric, self._as_told(channel, metric))
            if PULSE in metrics:
                self._put(channel, "pulses", _pulses(self._raw(channel, PULSE), 1.0))
                energy = EXPORT if channel in exports else IMPORT
                self._put(channel, energy, _pulses(self._raw(channel, PULSE), wh_per_pulse[channel]))
                continue
            for metric, counted in _COUNTED.items():
                if metric not in metrics and counted in metrics:
                    self._put(channel, metric, _rises(self._raw(channel, counted)))
            if "power_w" in metrics and not metrics & {IMPORT, EXPORT, *_COUNTED.values()}:
                for place, metric in enumerate((IMPORT, EXPORT)):
                    self._put(channel, metric, _integrated(self._raw(channel, "power_w"), rules[channel], place))
                self._drop_if_nothing(channel, EXPORT)
        kept = [self._kept(channel) for channel in channels]
        self._connection.execute("DROP TABLE raw")
        self._connection.execute("COMMIT")
        return kept

    def floor(self, channel: str, metric: str, uwh: int) -> None:
        """Note how high the ledger has a register."""
        self._connection.execute(
            "UPDATE series SET floor = ? WHERE source || '/' || device = ? AND metric = ?",
            (uwh, channel, metric),
        )

    def _flush(self) -> None:
        before = self._connection.total_changes
        self._connection.executemany("INSERT OR IGNORE INTO raw VALUES (?, ?, ?, ?, ?)", self._waiting)
        self.repeated += len(self._waiting) - (self._connection.total_changes - before)
        self._waiting.clear()

    def _raw(self, channel: str, metric: str) -> Iterator[tuple[int, Any, int]]:
        query = "SELECT time_ns, value, flags FROM raw WHERE channel = ? AND metric = ? ORDER BY time_ns"
        yield from self._connection.execute(query, (channel, metric))

    def _as_told(self, channel: str, metric: str) -> Iterable[Point]:
        raw = self._raw(channel, metric)
        return _rises(raw) if metric in COUNTERS else ((time_ns, value, 0, flags) for time_ns, value, flags in raw)

    def _put(self, channel: str, metric: str, points: Iterable[Point]) -> None:
        source, device = channel.split("/", 1)
        head = (source, device, metric)
        self._connection.execute("INSERT INTO series (source, device, metric, floor) VALUES (?, ?, ?, 0)", head)
        series = self._number(channel, metric)
        insert = "INSERT INTO point VALUES (?, ?, ?, ?, ?)"
        self._connection.executemany(insert, ((series, *point) for point in points))

    def _number(self, channel: str, metric: str) -> int:
        query = "SELECT id FROM series WHERE source || '/' || device = ? AND metric = ?"
        row = self._connection.execute(query, (channel, metric)).fetchone()
        return int(row[0]) if row else 0

    def _drop_if_nothing(self, channel: str, metric: str) -> None:
        series = self._number(channel, metric)
        if not self._rise(series):
            self._connection.execute("DELETE FROM point WHERE series = ?", (series,))
            self._connection.execute("DELETE FROM series WHERE id = ?", (series,))

    def _rise(self, series: int) -> int:
        (rise,) = self._connection.execute("SELECT sum(value) FROM point WHERE series = ?", (series,)).fetchone()
        return int(rise or 0)

    def _kept(self, channel: str) -> Kept:
        query = "SELECT min(time_ns), max(time_ns), count(DISTINCT time_ns) FROM raw WHERE channel = ?"
        first_ns, last_ns, rows = self._connection.execute(query, (channel,)).fetchone()
        bought, sold = (self._number(channel, metric) for metric in (IMPORT, EXPORT))
        return Kept(
            channel,
            first_ns,
            last_ns,
            rows,
            self._rise(bought) / UWH if bought else None,
            self._rise(sold) / UWH if sold else None,
        )


def _rises(heights: Iterable[tuple[int, Any, int]]) -> Iterator[Point]:
    """From how high a counter was to how far it rose; a fall is no negative consumption."""
    since_ns = high = 0
    for time_ns, value, flags in heights:
        height = micro(float(value))
        yield time_ns, max(0, height - high) if since_ns else 0, since_ns, flags
        since_ns, high = time_ns, height


def _pulses(pulses: Iterable[tuple[int, Any, int]], each: float) -> Iterator[Point]:
    """From pulses to a register that rises with each of them."""
    since_ns = done = 0
    for number, (time_ns, _, flags) in enumerate(pulses, 1):
        if not since_ns:
            since_ns = time_ns - 1
            yield since_ns, 0, 0, flags  # where it stood, so that the first one counts too
        rise = round(number * each * UWH) - done
        yield time_ns, rise, since_ns, flags
        since_ns, done = time_ns, done + rise


def _integrated(powers: Iterable[tuple[int, Any, int]], rules: Rules, place: int) -> Iterator[Point]:
    """From power to energy, as the ledger does it: nothing over a gap. It is marked as estimated."""
    power: Power | None = None
    since_ns = 0
    for time_ns, value, flags in powers:
        moment, power_uw = Moment("", time_ns, time_ns), micro(float(value))
        if power is None:
            power, rise = Power(power_uw, moment), 0
        else:
            rise = integrate(power, power_uw, moment, rules)[place]
        yield time_ns, rise, since_ns, flags | ESTIMATED
        since_ns = time_ns
