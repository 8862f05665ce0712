"""Reads a file of prices: a CSV with one row for each half hour, or for whatever step its author has."""

from __future__ import annotations

import csv
import re
import stat
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

COLUMNS: Final = ("from_utc", "unit_rate_per_kwh", "export_rate_per_kwh")
_HALF_HOUR_S: Final = 1800
_MOST_BYTES: Final = 16 * 2**20  # twenty years of half hours
_MOST_TOLD: Final = 10
_MOST_CHARS: Final = 40  # of a cell, in a message
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PRICE: Final = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,24})?([eE]-0?[0-9])?")
_STEPS: Final = {_HALF_HOUR_S: "half hour", 3600: "hour", 86400: "day"}


class PricesError(Exception):
    """What is wrong with a file of prices, one sentence a mistake, each with its line."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Prices:
    """The rows of a file in the order of time: from when until when, in seconds of UTC, and what a kWh costs then."""

    starts_s: Sequence[int]
    ends_s: Sequence[int]
    unit_rates: Sequence[Decimal | None]  # None where the cell is empty
    export_rates: Sequence[Decimal | None]
    gaps: Sequence[str]  # what is missing, for a person


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    start_s: int
    unit_rate: Decimal | None
    export_rate: Decimal | None


def read_prices(file: Path) -> Prices:
    """Read a file. Raise `PricesError` with all that is wrong with it."""
    rows: list[_Row] = []
    wrong: list[str] = []
    for line, what in _rows(_text(file)):
        if isinstance(what, str):
            wrong.append(f"{file}:{line}: {what}")
        else:
            rows.append(what)
    rows.sort(key=lambda row: row.start_s)
    for earlier, later in pairwise(rows):
        if earlier.start_s == later.start_s:
            first, second = sorted((earlier.line, later.line))
            wrong.append(f"{file}:{second}: {_utc(later.start_s)} stands in line {first} already; keep one of the two")
    if wrong:
        more = len(wrong) - _MOST_TOLD
        raise PricesError([*wrong[:_MOST_TOLD], *([f"{file}: {more} more of its lines are wrong"] if more > 0 else [])])
    if not rows:
        raise PricesError([f"{file}: has no prices, only the names of the columns"])
    starts_s = array("q", [row.start_s for row in rows])
    ends_s, gaps = _ends(starts_s)
    return Prices(
        starts_s, array("q", ends_s), [row.unit_rate for row in rows], [row.export_rate for row in rows], gaps
    )


def _text(file: Path) -> str:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PricesError([f"{file}: cannot be read: is not a file"])
        if status.st_size > _MOST_BYTES:
            raise PricesError([f"{file}: is larger than {_MOST_BYTES >> 20} MB: is it the right file?"])
        content = file.read_bytes()
    except OSError as error:
        raise PricesError([f"{file}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:  # a NUL in the name
        raise PricesError([f"{file}: cannot be read: this is no name of a file"]) from error
    try:
        return content.decode("utf-8-sig")  # what a spreadsheet writes begins with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PricesError([f"{file}:{line}: is not UTF-8 text; save it as UTF-8"]) from error


def _rows(text: str) -> Iterator[tuple[int, _Row | str]]:
    """Yield each row with its line, or what is wrong with it."""
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    columns: list[str] | None = None
    known: dict[str, Decimal] = {}
    try:
        for cells in reader:
            line, row = reader.line_num, [cell.strip() for cell in cells]
            if not any(row):
                continue
            if columns is None:
                columns = row
                if not {*COLUMNS[:2]} <= {*row} <= {*COLUMNS} or len({*row}) < len(row):
                    yield line, f"expected the names of the columns: {','.join(COLUMNS)} (the last may be left out)"
                    return
            else:
                yield line, _row(line, columns, row, known)
    except csv.Error as error:
        yield reader.line_num, f"is not valid CSV: {error}"
    if columns is None:
        yield 1, f"expected the names of the columns: {','.join(COLUMNS)} (the last may be left out)"


def _row(line: int, columns: Sequence[str], row: Sequence[str], known: dict[str, Decimal]) -> _Row | str:
    """Read a row, or say what is wrong with it. In years of rows the same prices come again: they share an object."""
    if len(row) != len(columns):
        return f"expected {len(columns)} columns, got {len(row)}; a decimal comma would be one too many"
    cells = dict(zip(columns, row, strict=True))
    start_s = _seconds(cells["from_utc"])
    if start_s is None:
        return f"{cells['from_utc'][:_MOST_CHARS]!r} is no time; write it like 2025-10-26T00:30Z"
    rates = [cells.get(column, "") for column in COLUMNS[1:]]
    for rate in rates:
        if rate and not _PRICE.fullmatch(rate):
            return f"{rate[:_MOST_CHARS]!r} is no price; write it like 0.2486"
    if not any(rates):
        return "has no price; leave the line out"
    unit_rate, export_rate = (known.setdefault(rate, Decimal(rate)) if rate else None for rate in rates)
    return _Row(line, start_s, unit_rate, export_rate)


def _seconds(text: str) -> int | None:
    """Return the time in seconds of UTC; an offset other than Z is honoured.

    >>> _seconds("2025-10-26T00:30Z"), _seconds("2025-10-26 01:30:00+01:00")
    (1761438600, 1761438600)
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return None if since % timedelta(seconds=1) else since // timedelta(seconds=1)


def _ends(starts_s: Sequence[int]) -> tuple[list[int], list[str]]:
    """Return until when each row holds, and what is missing between them.

    A row holds until the next one. Where the next one is two usual steps away or more, rows are missing, and it holds
    for one step; so a day of 25 hours is no gap in prices by the day. The last row holds for one step.
    """
    distances = Counter(later - earlier for earlier, later in pairwise(starts_s))
    step_s = min(distances, key=lambda one: (-distances[one], one), default=_HALF_HOUR_S)
    ends_s, gaps = [], []
    for earlier, later in pairwise(starts_s):
        missing = (later - earlier) // step_s - 1
        ends_s.append(earlier + step_s if missing > 0 else later)
        if missing > 0:
            what = _STEPS.get(step_s, "price")
            many = f"{missing} {what}s are" if missing > 1 else f"1 {what} is"
            gaps.append(f"{many} missing from {_utc(earlier + step_s)} on")
    if len(gaps) > _MOST_TOLD:
        gaps[_MOST_TOLD:] = [f"and {len(gaps) - _MOST_TOLD} more such gaps"]
    return [*ends_s, starts_s[-1] + step_s], gaps


def _utc(seconds: int) -> str:
    text = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    return f"{text.removesuffix('+00:00').removesuffix(':00')}Z"
