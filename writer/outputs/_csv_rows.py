"""What a row of CSV looks like in each profile, and the file of the day that it belongs to. No file is touched here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from math import isfinite
from typing import ClassVar, Final

from reading import Clock, Quality, Record, Value
from writer.outputs._numbers import print_numbers

# A spreadsheet takes a cell that starts like this for a formula, and a formula can do harm.
_STARTS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
# Where a row ends for one reader or another: a cell that has a line break would be two rows to many of them.
_BREAKS: Final = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")
_MOST_CELLS: Final = 10_000
Dated = tuple[str, str, int]  # 2025-11-11, 12:00:00, and the nanoseconds of that second


def text_cell(text: str) -> str:
    """Make `text` a cell that is neither a formula nor a second row.

    >>> text_cell("=1+1"), text_cell('a "b", c'), text_cell("running")
    ("'=1+1", '"a ""b"", c"', 'running')
    """
    if text.startswith(_STARTS_A_FORMULA):
        text = "'" + text
    text = text.translate(_BREAKS)
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def value_cell(value: Value) -> str:
    """Print a value: a number so that reading it back gives the very same one, nothing for NaN and infinity.

    >>> value_cell(0.1), value_cell(-3), value_cell(float("nan")), value_cell("-3")
    ('0.1', '-3', '', "'-3")
    """
    if isinstance(value, str):
        return text_cell(value)
    if numbers := print_numbers([value]):
        return numbers[0].decode()
    return str(value) if isinstance(value, int) else ""


class Profile(ABC):
    """One way to write records down. Rows of one day go to one file, `<before><YYYY-MM-DD><after>`."""

    before: ClassVar[str]
    after: ClassVar[str]
    header: ClassVar[str] = ""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._second = -1
        self._day = self._clock = ""
        self._cells: dict[str, str] = {}

    @abstractmethod
    def rows(self, record: Record, at: Dated) -> str:
        """Return the rows of a record, each with its line end; nothing if it has nothing for this profile."""

    def date(self, time_ns: int) -> Dated:
        """Tell day and time of day. Raise ValueError for a year that no calendar has."""
        second, rest_ns = divmod(time_ns, 1_000_000_000)
        if second != self._second or not self._day:
            try:
                moment = datetime.fromtimestamp(second, self._zone)
            except (ValueError, OverflowError, OSError) as error:
                raise ValueError(f"no calendar has the time {time_ns} ns") from error
            self._day, self._clock = moment.date().isoformat(), moment.time().isoformat()
            self._second = second
        return self._day, self._clock, rest_ns

    def _cell(self, text: str) -> str:
        """`text_cell` for names, of which there are few."""
        cell = self._cells.get(text)
        if cell is None:
            if len(self._cells) >= _MOST_CELLS:
                self._cells.clear()
            cell = self._cells[text] = text_cell(text)
        return cell


class Tidy(Profile):
    """One row a value, dated in UTC to the microsecond."""

    before, after = "electricity-", ".csv"
    header = "time,source,device,metric,value,quality,clock\n"

    def __init__(self) -> None:
        super().__init__(UTC)
        self._heads: dict[tuple[str, ...], list[str]] = {}

    def rows(self, record: Record, at: Dated) -> str:
        day, clock, rest_ns = at
        values = record.values
        printed = print_numbers(values.values())
        if printed is None:
            cells = {metric: value_cell(value) for metric, value in values.items()}
            filled = {metric: cell for metric, cell in cells.items() if cell}
            names, numbers = tuple(filled), list(filled.values())
        else:
            names, numbers = tuple(values), [number.decode() for number in printed]
        moment = f"{day}T{clock}.{rest_ns // 1000:06d}Z"
        # Nearly always the same words, and an enum is slow to print.
        plain = record.quality is Quality.MEASURED and record.clock is Clock.SYNCED
        flags = "measured,synced" if plain else f"{record.quality.value},{record.clock.value}"
        place = (record.source, record.device, *names)
        heads = self._heads.get(place) or self._remember_heads(place)
        return "".join([f"{moment}{head}{number},{flags}\n" for head, number in zip(heads, numbers, strict=True)])

    def _remember_heads(self, place: tuple[str, ...]) -> list[str]:
        """Keep what is between the time and the number in the rows of a device."""
        if len(self._heads) >= _MOST_CELLS:
            self._heads.clear()
        source, device, *metrics = map(text_cell, place)
        heads = self._heads[place] = [f",{source},{device},{metric}," for metric in metrics]
        return heads


class Machine(Profile):
    """One row a reading of current: time, device, machine, amps, volts, watts, state."""

    before, after = "readings-", ".csv"

    def __init__(self, device_id: str, machine_id: str, line_voltage_v: float) -> None:
        super().__init__(UTC)
        self._device_id = device_id
        self._machine_id = machine_id
        self._line_voltage_v = line_voltage_v

    def rows(self, record: Record, at: Dated) -> str:
        current_a = _number(record.values, "current_a")
        if current_a is None:
            return ""
        voltage_v = _number(record.values, "voltage_v")
        power_w = _number(record.values, "power_w")
        state = record.values.get("state", "")
        day, clock, rest_ns = at
        cells = [
            f"{day}T{clock}.{rest_ns // 1_000_000:03d}Z",
            self._cell(self._device_id),
            self._cell(_machine(record, self._machine_id)),
            f"{current_a:.4f}",
            f"{self._line_voltage_v if voltage_v is None else voltage_v:.1f}",
            "" if power_w is None else f"{power_w:.2f}",
            text_cell(state) if isinstance(state, str) else "",
        ]
        return ",".join(cells) + "\n"


def _machine(record: Record, machine_id: str) -> str:
    """Name the machine; the row has no other place to say that there is none."""
    name = machine_id or record.device
    return f"simulated-{name}" if record.quality is Quality.SIMULATED else name


class EnergyMonitor(Profile):
    """One row a reading of power of the numbered appliances: local time, watts, number."""

    before, after = "energy_monitor-", ".log"
    header = "timestamp,watts,appliance_id\n"

    def __init__(self, appliances: Mapping[str, int], zone: tzinfo) -> None:
        super().__init__(zone)
        self._appliances = appliances

    def rows(self, record: Record, at: Dated) -> str:
        appliance_id = self._appliances.get(record.device)
        power_w = _number(record.values, "power_w")
        if appliance_id is None or power_w is None:
            return ""
        day, clock, _ = at
        return f"{day} {clock},{power_w!r},{appliance_id}\n"


def _number(values: Mapping[str, Value], metric: str) -> float | None:
    value = values.get(metric)
    if value is None or isinstance(value, str):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None
