"""What older loggers wrote, row by row: five formats, told apart by their content and never by their names."""

from __future__ import annotations

import csv
import gzip
import itertools
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import IO, Final

from api.series_csv import HEADER as EXPORT_HEADER
from commands._import_times import Dates
from history.buckets import ESTIMATED, RESTAMPED, SIMULATED, UNSYNCED
from reading import METRICS, SUMMED, TEXTS, Value

PULSE: Final = "pulse"  # one pulse, which is no value but an event
_MOST: Final = 1e11  # what a house can have
_TIDY_HEADER: Final = ["time", "source", "device", "metric", "value", "quality", "clock"]
_EXPORT_HEADER: Final = EXPORT_HEADER.strip().split(",")
_MONITOR_HEADER: Final = ["timestamp", "watts", "appliance_id"]
_MACHINE_CELLS: Final = 7
_FLAGS: Final = {"estimated": ESTIMATED, "simulated": SIMULATED, "restamped": RESTAMPED, "unsynced": UNSYNCED}
_LEFT_OUT: Final = SUMMED | {"energy_debt_wh", "energy_export_debt_wh", PULSE}
_ACCESS_LOG: Final = re.compile(r"\S+ \S+ - [A-Z]+ - (GET|POST|HEAD|OPTIONS) /")
_LINE: Final = re.compile(r"[^ ]*?,PulseType=((?:\\.|[^,\\ ])+)(?:,[^ ]*)? (Pulse|PulseCount)=(\d+)i (\d+)")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A file is none of these: what, and what now."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row that could be read."""

    device: str
    time_ns: int
    values: dict[str, Value]
    flags: int = 0


@dataclass(slots=True)
class Told:
    """What became of the rows of a file."""

    rows: int = 0
    left_out: int = 0  # that say what other rows say too
    broken: int = 0
    samples: list[str] = field(default_factory=list)  # the first few of the broken ones, with their lines

    def breaks(self, line: int, why: object) -> None:
        self.broken += 1
        if len(self.samples) < 5:
            self.samples.append(f"line {line}: {why}")


@dataclass(frozen=True, slots=True)
class Format:
    """A way in which a logger wrote."""

    name: str
    rows: Callable[[Path, Dates, Told], Iterator[Row]]
    ours: bool = False  # its devices are channels already


def format_of(path: Path) -> Format:
    """Tell what a file is. Raises `Refused` and `OSError`."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise Refused("it is empty")
    if head.startswith(b"SQLite format 3\0"):
        return _database(path)
    try:
        with _text(path) as lines:
            line = next((line for line in lines if line.strip()), "")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        raise Refused("it is neither text nor SQLite") from None
    cells = _cells(line)
    if cells == _TIDY_HEADER:
        return Format("CSV of wattherd", _tidy, ours=True)
    if cells == _EXPORT_HEADER:
        return Format("an export of wattherd", _export, ours=True)
    if cells == _MONITOR_HEADER or (len(cells) == len(_MONITOR_HEADER) and re.match(r"\d", line)):
        return Format("the log of the energy monitor", _monitor)
    if len(cells) == _MACHINE_CELLS and re.match(r"\d{4}-", line):
        return Format("CSV of the current logger", _machine)
    if _ACCESS_LOG.match(line):
        raise Refused("it is a log of who asked, and has no readings; logs/energy_monitor.log has them")
    raise Refused(f"its first line is {line.strip()!r:.60}, which no logger of docs/import.md writes")


def _database(path: Path) -> Format:
    try:
        with closing(_connected(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise Refused(f"it cannot be read: {error}") from None
    if "lp_queue" in tables:
        return Format("the queue of PowerLogger", _queue)
    if "readings" in tables:
        return Format("the table of the energy monitor", _readings)
    if "bucket" in tables:
        raise Refused("it is a history of wattherd; ./orchestrator.py backup and restore move a whole house")
    raise Refused(f"it has the tables {', '.join(sorted(tables)) or 'none'}, and neither lp_queue nor readings")


def _connected(path: Path) -> sqlite3.Connection:
    """Open a database to read it, with what its log has and without writing into it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)


def _text(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line.strip()]), [])]


def _csv(
    path: Path, told: Told, header: list[str], width: int, read: Callable[[list[str]], Row | None]
) -> Iterator[Row]:
    """Read lines one by one, so that a torn one takes no other with it."""
    with _text(path) as lines:
        for number in itertools.count(1):
            try:
                line = next(lines, None)
            except (ValueError, EOFError, OSError, zlib.error) as error:
                told.breaks(number, f"it cannot be read from here on: {error}")
                return
            if line is None:
                return
            if not line.strip():
                continue
            cells = _cells(line)
            if cells == header:
                continue
            try:
                if len(cells) != width:
                    raise ValueError(f"{len(cells)} cells instead of {width}")
                row = read(cells)
            except ValueError as error:
                told.breaks(number, error)
                continue
            if row is None:
                told.left_out += 1
                continue
            told.rows += 1
            yield row


def _machine(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    def read(cells: list[str]) -> Row:
        at, device, machine, amps, volts, watts, state = cells
        values: dict[str, Value] = {"current_a": _number(amps), "voltage_v": _number(volts)}
        if watts:
            values["power_w"] = _number(watts)
        if state:
            values["state"] = state
        simulated = machine.startswith("simulated-")
        return Row(f"{device}/{machine}", dates.ns(at), values, SIMULATED if simulated else 0)

    return _csv(path, told, [], _MACHINE_CELLS, read)


def _monitor(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    def read(cells: list[str]) -> Row:
        at, watts, appliance = cells
        if not appliance:
            raise ValueError("it names no appliance")
        return Row(appliance, dates.ns(at), {"power_w": _number(watts)})

    return _csv(path, told, _MONITOR_HEADER, len(_MONITOR_HEADER), read)


def _tidy(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    def read(cells: list[str]) -> Row | None:
        at, source, device, metric, value, quality, clock = cells
        if metric in _LEFT_OUT or not value:
            return None
        flags = _FLAGS.get(quality, 0) | _FLAGS.get(clock, 0)
        return Row(f"{source}/{device}", dates.ns(at), {metric: _value(metric, value)}, flags)

    return _csv(path, told, _TIDY_HEADER, len(_TIDY_HEADER), read)


def _export(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    def read(cells: list[str]) -> Row | None:
        at, source, device, metric, n, _, _, _, last, _ = cells
        if n != "1":
            raise ValueError("it is a sum of several readings; export with --step raw, or move with backup and restore")
        if metric in _LEFT_OUT or not last:
            return None
        return Row(f"{source}/{device}", dates.ns(at), {metric: _value(metric, last)})

    return _csv(path, told, _EXPORT_HEADER, len(_EXPORT_HEADER), read)


def _readings(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    with closing(_connected(path)) as connection:
        rows = connection.execute("SELECT rowid, timestamp, watts, appliance_id FROM readings ORDER BY rowid")
        for number, at, watts, appliance in rows:
            try:
                row = Row(f"{appliance}", dates.ns(str(at)), {"power_w": _number(str(watts))})
                if appliance is None:
                    raise ValueError("it names no appliance")
            except ValueError as error:
                told.breaks(number, error)
                continue
            told.rows += 1
            yield row


def _queue(path: Path, dates: Dates, told: Told) -> Iterator[Row]:
    """Read the pulses that wait in line protocol. The counts of minutes that wait with them are of the same pulses."""
    with closing(_connected(path)) as connection:
        for number, text in connection.execute("SELECT id, lp FROM lp_queue ORDER BY id"):
            for line in str(text).splitlines():
                found = _LINE.fullmatch(line.strip())
                if not found or (found[2] == "Pulse" and found[3] != "1"):
                    told.breaks(number, f"{line!r:.60} is no pulse")
                    continue
                if found[2] == "PulseCount":
                    told.left_out += 1
                    continue
                try:
                    dates.check(int(found[4]), found[4])
                except ValueError as error:
                    told.breaks(number, error)
                    continue
                told.rows += 1
                yield Row(re.sub(r"\\(.)", r"\1", found[1]), int(found[4]), {PULSE: 1})


def _value(metric: str, text: str) -> Value:
    if metric not in METRICS:
        raise ValueError(f"{metric!r:.40} is no metric of wattherd")
    return text.removeprefix("'") if metric in TEXTS else _number(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r:.40} is no number") from None
    if not isfinite(number) or abs(number) > _MOST:
        raise ValueError(f"{text!r:.40} is beyond anything that a house can have")
    return number
