"""InfluxDB's line protocol: `measurement,tag=… field=…,field=… nanoseconds`.

A number is a float for ever, never `3i` (a plain `3` is a float): the first point decides the type of a field, and
every other one of another type would be refused. No name and no value can start a line, a tag or a field of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Final

from printed import fill, no_template, print_numbers
from reading import TEXTS, Clock, Quality, Record, Value

_MOST_TEMPLATES: Final = 10_000
# Where a line ends for one reader or another.
_BREAKS: Final = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], " ")
# Servers disagree on a backslash in front of an escape, and on a quotation mark in a name.
_IN_NAMES: Final = str.maketrans(
    dict.fromkeys([*_BREAKS, ord("\\"), ord('"')], "_") | {ord(","): "\\,", ord("="): "\\=", ord(" "): "\\ "}
)
_IN_TEXT: Final = str.maketrans(_BREAKS | {ord('"'): '\\"', ord("\\"): "\\\\"})


def escape_name(text: str) -> str:
    r"""Make `text` fit for a measurement, a tag or the key of a field.

    >>> escape_name("air con,2=1")
    'air\\ con\\,2\\=1'
    """
    return text.translate(_IN_NAMES)


def quote_text(text: str) -> str:
    r"""Make `text` the value of a field.

    >>> quote_text('say "on"')
    '"say \\"on\\""'
    """
    return f'"{text.translate(_IN_TEXT)}"'


class LineProtocol:
    """Turns records into lines. The tags of a device are worked out once, not for each record."""

    def __init__(self, measurement: str, site: str, pulse_measurement: str = "PowerPulse") -> None:
        self._measurement = measurement
        self._pulse_measurement = escape_name(pulse_measurement)
        self._site = site
        self._heads: dict[tuple[str, str], str] = {}
        self._templates: dict[tuple[str, ...], bytes] = {}

    def lines(self, records: Iterable[Record]) -> bytes:
        """Return the lines of `records`: all their numbers are printed at once, which is several times faster."""
        records = list(records)
        templates: list[bytes] = []
        numbers: list[Value] = []
        measured, synced = Quality.MEASURED, Clock.SYNCED  # once: an enum is slow to look up
        for record in records:
            values = record.values
            names = (record.source, record.device, *values)
            template = self._templates.get(names)
            if template is None:
                template = self._remember_template(names)
            if template and record.quality is measured and record.clock is synced:
                templates.append(template)
                numbers += values.values()
                numbers.append(record.time_ns)
            else:
                templates.append(no_template(self.line(record)))
        text = fill(templates, numbers)
        return b"".join(map(self.line, records)) if text is None else text

    def line(self, record: Record) -> bytes:
        r"""Return the line of `record`, nothing if there is nothing that can be said of it.

        >>> LineProtocol("electricity", "home").line(Record("kasa", "fridge", 7, {"power_w": 86.5, "state": "on"}))
        b'electricity,device=fridge,site=home,source=kasa power_w=86.5,state="on" 7\n'
        """
        numbers = print_numbers(record.values.values())
        if numbers is None or record.quality is not Quality.MEASURED or record.clock is not Clock.SYNCED:
            return self._line_of_any(record)
        return self._template(record.source, record.device, *record.values) % (*numbers, b"%d" % record.time_ns)

    def _line_of_any(self, record: Record) -> bytes:
        """The slow way, for text, numbers that are none, and what is not plainly measured."""
        if isinstance(kind := record.values.get("pulse"), str):
            return self._line_of_pulse(record, kind)
        fields = [
            f"{escape_name(key)}={text}" for key, value in record.values.items() if key and (text := _field(value))
        ]
        if not fields:
            return b""
        if record.quality is not Quality.MEASURED:
            fields.append(f"quality={quote_text(record.quality)}")
        if record.clock is not Clock.SYNCED:
            fields.append(f"clock={quote_text(record.clock)}")
        head = self._head(record.source, record.device)
        return f"{head} {','.join(fields)} {record.time_ns}\n".encode("utf-8", "replace")

    def _line_of_pulse(self, record: Record, kind: str) -> bytes:
        r"""One pulse of a meter, in the schema that PowerLogger's dashboards query: the tag is its kind, the field 1.

        >>> LineProtocol("electricity", "home").line(Record("roof", "pv", 7, {"pulse": "generate"}))
        b'PowerPulse,PulseType=Generate,device=pv,site=home,source=roof Pulse=1i 7\n'
        """
        _, _, tags = self._head(record.source, record.device).partition(",")
        kind = escape_name(kind.capitalize())
        line = f"{self._pulse_measurement},PulseType={kind},{tags} Pulse=1i {record.time_ns}\n"
        return line.encode("utf-8", "replace")

    def _head(self, source: str, device: str) -> str:
        head = self._heads.get((source, device))
        if head is None:
            if len(self._heads) >= _MOST_TEMPLATES:
                self._heads.clear()
            tags = {"device": device, "site": self._site, "source": source}  # in order: servers like them sorted
            # A tag without a value would be refused.
            pairs = [f"{key}={escape_name(value)}" for key, value in tags.items() if value]
            head = self._heads[source, device] = ",".join([escape_name(self._measurement), *pairs])
        return head

    def _remember_template(self, names: tuple[str, ...]) -> bytes:
        """Keep the template of records that have these names; an empty one if some of their values are texts."""
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        metrics = names[2:]
        template = self._templates[names] = self._template(*names) if metrics and TEXTS.isdisjoint(metrics) else b""
        return template

    def _template(self, source: str, device: str, *keys: str) -> bytes:
        fields = ",".join(f"{escape_name(key).replace('%', '%%')}=%b" for key in keys)
        return f"{self._head(source, device).replace('%', '%%')} {fields} %b\n".encode("utf-8", "replace")


def _field(value: Value) -> str:
    if isinstance(value, str):
        return quote_text(value)
    try:
        return repr(float(value)) if isfinite(value) else ""
    except OverflowError:  # an integer beyond every float
        return ""
