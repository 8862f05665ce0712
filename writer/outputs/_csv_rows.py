"""What a row of CSV looks like in each profile, and the file of the day that it belongs to. No file is touched here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from math import isfinite
from typing import ClassVar, Final

from printed import fill, no_template, print_numbers
from reading import TEXTS, Clock, Quality, Record, Value

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
        self._second = 0
        self._minute: int | None = None
        self._day = self._clock = self._hour_and_minute = ""
        self._cells: dict[str, str] = {}

    @abstractmethod
    def rows(self, record: Record, at: Dated) -> str:
        """Return the rows of a record, each with its line end; nothing if it has nothing for this profile."""

    def text(self, records: Sequence[tuple[Record, Dated]]) -> bytes:
        """Return the rows of all `records`, as they are in the file."""
        return "".join([self.rows(record, at) for record, at in records]).encode("utf-8", "replace")

    def date(self, time_ns: int) -> Dated:
        """Tell day and time of day. Raise ValueError for a year that no calendar has."""
        second, rest_ns = divmod(time_ns, 1_000_000_000)
        if second != self._second or not self._day:
            minute, second_of_minute = divmod(second, 60)
            if minute == self._minute:
                self._clock = f"{self._hour_and_minute}{second_of_minute:02d}"
            else:
                moment = self._moment(second)
                self._day, self._clock = moment.date().isoformat(), moment.time().isoformat()
                self._hour_and_minute = self._clock[:-2]
                # There were zones that were apart from UTC by half a minute.
                self._minute = minute if moment.second == second_of_minute else None
            self._second = second
        return self._day, self._clock, rest_ns

    def _moment(self, second: int) -> datetime:
        try:
            return datetime.fromtimestamp(second, self._zone)
        except (ValueError, OverflowError, OSError) as error:
            raise ValueError(f"no calendar has the second {second}") from error

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
        self._templates: dict[tuple[str, ...], bytes] = {}

    def rows(self, record: Record, at: Dated) -> str:
        printed = print_numbers(record.values.values())
        cells = map(value_cell, record.values.values()) if printed is None else map(bytes.decode, printed)
        head = f"{_micros(at)},{text_cell(record.source)},{text_cell(record.device)}"
        flags = f"{record.quality.value},{record.clock.value}"
        named = zip(record.values, cells, strict=True)
        return "".join([f"{head},{text_cell(metric)},{cell},{flags}\n" for metric, cell in named if cell])

    def text(self, records: Sequence[tuple[Record, Dated]]) -> bytes:
        """Return the rows of all `records`: all their numbers are printed at once, which is several times faster."""
        templates: list[bytes] = []
        numbers: list[Value] = []
        measured, synced = Quality.MEASURED, Clock.SYNCED  # once: an enum is slow to look up
        for record, at in records:
            values = record.values
            names = (record.source, record.device, *values)
            template = self._templates.get(names)
            if template is None:
                template = self._remember_template(names)
            if template and record.quality is measured and record.clock is synced:
                templates.append(template.replace(b"\0", _micros(at).encode()))  # no cell has a NUL
                numbers += values.values()
            else:
                templates.append(no_template(self.rows(record, at).encode("utf-8", "replace")))
        text = fill(templates, numbers)
        return super().text(records) if text is None else text

    def _remember_template(self, names: tuple[str, ...]) -> bytes:
        """Keep the rows of records that have these names; an empty template if some of their values are texts."""
        if len(self._templates) >= _MOST_CELLS:
            self._templates.clear()
        template = b""
        if TEXTS.isdisjoint(names[2:]):
            source, device, *metrics = (no_template(text_cell(name).encode("utf-8", "replace")) for name in names)
            rows = [b"\0,%b,%b,%b,%%b,measured,synced\n" % (source, device, metric) for metric in metrics]
            template = b"".join(rows)
        self._templates[names] = template
        return template


def _micros(at: Dated) -> str:
    day, clock, rest_ns = at
    return f"{day}T{clock}.{str(rest_ns // 1000).zfill(6)}Z"  # several times faster than a format


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
