"""What the displays of Hildebrand (Glow) pass on of a British smart meter: MQTT payloads in, values of a meter out.

A display on the house's own broker writes plain JSON (`decode_local`), Hildebrand's cloud the attributes of Zigbee's
metering cluster in hexadecimal (`decode_cloud`). Both repeat what they know every few seconds, whether the meter was
read again or not: `News` tells the one from the other.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

from reading import Origin, Reading
from workers._json import NotJson, parse
from workers._measured import Measured, Values
from workers._utc import date_ns, epoch_ns

Meter = Literal["electricity", "gas"]
MAX_POWER_W: Final = 25_000.0  # of a home on one phase

_EXAMPLE: Final = "set the topic to what a Glow display publishes, as it is in the documentation"
_TOPIC: Final = re.compile(r"(?:.+/)?([0-9A-Fa-f]{12})/(STATE|SENSOR/(electricity|gas)meter)")
_CLOUD_TOPIC: Final = re.compile(r"SMART/[^/]{1,64}/([0-9A-Fa-f]{12})")
# What the numbers of a meter count, by the attribute UnitofMeasure (03/00): the metric, and what one is in our unit.
_UNITS: Final = {
    ("electricity", 0): ("device_energy_wh", 1000),
    ("gas", 0): ("device_energy_wh", 1000),
    ("gas", 1): ("gas_m3", 1),
}
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,16}")
_UNIT_OF: Final = {"cumulative": "units", "cumulativevol": "cumulativevolunits"}
_REGISTERS: Final = {
    "device_energy_wh": ("kWh", 1000),
    "device_energy_export_wh": ("kWh", 1000),
    "gas_m3": ("m3", 1),
}
_REPORT: Final = "wattherd does not know that one: report it with the payload"
_INVALID_KW: Final = -8388.608  # the largest negative number of 24 bits, by which the meter says that it has none


class Announced(NamedTuple):
    """What a display said of one meter."""

    meter: Meter
    mac: str  # of the display, upper case
    values: Values  # may be empty
    time_ns: int  # UTC, when the meter was read; 0 if that is not told
    trouble: str = ""  # "what; what now"
    refused: tuple[str, ...] = ()  # `vitals.REFUSALS` of single values

    def reading(self, device: str, at_ns: int) -> Reading:
        """Return it as a reading of the configured `device` that arrived at `at_ns` (CLOCK_MONOTONIC)."""
        return Reading(device, at_ns, self.values, origin=Origin("", 0, self.time_ns) if self.time_ns else None)


class News:
    """Knows what one meter announced last, to tell what is said again from what is new."""

    def __init__(self) -> None:
        self._last: tuple[int, Values] = (0, {})

    def has(self, announced: Announced) -> bool:
        """Whether the meter was read again. Where no time is told, something must have changed.

        >>> first = Announced("gas", "1234567890AB", {"gas_m3": 7.0}, 1795179610 * 10**9)
        >>> news = News()
        >>> news.has(first), news.has(first), news.has(first._replace(time_ns=1795181410 * 10**9))
        (True, False, True)
        """
        if not announced.values:
            return False
        time_ns, values = self._last
        repeated = announced.time_ns == time_ns if announced.time_ns else announced.values == values
        self._last = (announced.time_ns, announced.values)
        return not repeated


def decode_local(topic: str, payload: bytes, max_power_w: float = MAX_POWER_W) -> Announced | None:
    """Decode `<prefix>/<MAC>/SENSOR/electricitymeter` or `…/gasmeter`; raise `Refused`. None: not about a meter.

    >>> decode_local("glow/1234567890AB/SENSOR/electricitymeter", b'''{"electricitymeter": {
    ...     "timestamp": "2026-11-20T13:00:10Z", "energy": {"export": {"cumulative": 12.004, "units": "kWh"},
    ...     "import": {"cumulative": 4595.563, "day": 10.464, "units": "kWh",
    ...     "price": {"unitrate": 0.2486, "standingcharge": 0.5337}}},
    ...     "power": {"value": -0.350, "units": "kW"}}}''').values  # doctest: +NORMALIZE_WHITESPACE
    {'device_energy_wh': 4595563.0, 'power_w': -350.0, 'device_energy_export_wh': 12004.0,
     'unit_rate_per_kwh': 0.2486, 'standing_charge_per_day': 0.5337}
    """
    found = _TOPIC.fullmatch(topic)
    if found is None or found[2] == "STATE":
        return None
    meter: Meter = "gas" if found[3] == "gas" else "electricity"
    content = _table(_content(payload), f"{meter}meter")
    energy = _table(content, "energy")
    imported = _table(energy, "import")
    price = _table(imported, "price")
    measured = Measured(max_power_w)
    _put_total(measured, "device_energy_wh", imported, "cumulative")
    if meter == "gas":
        _put_total(measured, "gas_m3", imported, "cumulativevol")
    elif imported.get("cumulative") != 0:  # until it has joined a meter it says 0 of everything
        _put_power(measured, _table(content, "power"))
        _put_total(measured, "device_energy_export_wh", _table(energy, "export"), "cumulative")
    if price.get("unitrate"):  # 0: the supplier has not told it to the meter, and the other one means nothing then
        measured.put("unit_rate_per_kwh", price["unitrate"], name="unit rate")
        measured.put("standing_charge_per_day", price.get("standingcharge"), name="standing charge")
    return _announced(meter, found[1], measured, date_ns(content.get("timestamp")))


def joined(topic: str, payload: bytes) -> bool | None:
    """Whether the display says in `<prefix>/<MAC>/STATE` that it hears the meter; None where it says nothing of it.

    >>> joined("glow/1234567890AB/STATE", b'{"software": "v1.8.12", "han": {"rssi": -75, "status": "joined"}}')
    True
    """
    found = _TOPIC.fullmatch(topic)
    if found is None or found[2] != "STATE":
        return None
    status = _table(_content(payload), "han").get("status")
    return status == "joined" if isinstance(status, str) else None


def decode_cloud(topic: str, payload: bytes, max_power_w: float = MAX_POWER_W) -> list[Announced]:
    """Decode `SMART/HILD/<MAC>`: what it says of the electricity meter, the gas meter, or both; raise `Refused`.

    Its `gmtime` is when the display wrote it, some seconds after it has asked the electricity meter.

    >>> [electricity] = decode_cloud("SMART/HILD/1234567890AB", b'''{"elecMtr": {"0702": {
    ...     "00": {"00": "000000461F6B", "01": "000000002EE4"}, "03": {"00": "00", "01": "000001", "02": "0003E8"},
    ...     "04": {"00": "FFFEA2"}}}, "gmtime": 1795179610}''')
    >>> electricity.values
    {'device_energy_wh': 4595563.0, 'device_energy_export_wh': 12004.0, 'power_w': -350.0}
    """
    found = _CLOUD_TOPIC.fullmatch(topic)
    if found is None:
        return []
    content = _content(payload)
    electricity = _table(_table(content, "elecMtr"), "0702")
    gas = _table(_table(content, "gasMtr"), "0702")
    announced = []
    if electricity:
        measured = _cluster("electricity", electricity, max_power_w)
        announced.append(_announced("electricity", found[1], measured, epoch_ns(content.get("gmtime"))))
    if gas:
        # The gas meter wakes every half hour to be read, and when it did is not told.
        announced.append(_announced("gas", found[1], _cluster("gas", gas, max_power_w), 0))
    return announced


def _announced(meter: Meter, mac: str, measured: Measured, time_ns: int) -> Announced:
    trouble = next(iter(measured.troubles.values()), "")
    return Announced(meter, mac.upper(), measured.values, time_ns, trouble, tuple(measured.refused))


def _put_total(measured: Measured, metric: str, table: dict[str, Any], field: str) -> None:
    """Take a register. One at zero has not been read yet, or counts what the house does not have."""
    raw = table.get(field)
    unit, scale = _REGISTERS[metric]
    if not raw or raw == "0":
        return
    if table.get(_UNIT_OF[field]) == unit:
        measured.put(metric, raw, scale, name=field)
    else:
        measured.refuse(metric, "malformed", f"the display does not give its {field} in {unit}", _REPORT)


def _put_power(measured: Measured, power: dict[str, Any]) -> None:
    if power.get("value") == _INVALID_KW:
        measured.refused.append("not_finite")
    elif power.get("units") == "kW":
        measured.put("power_w", power.get("value"), 1000, name="power")
    elif power:
        measured.refuse("power_w", "malformed", "the display does not give its power in kW", _REPORT)


def _cluster(meter: Meter, cluster: dict[str, Any], max_power_w: float) -> Measured:
    """Read a metering cluster by its sets of attributes: 00 summations, 03 formatting, 04 demand and history.

    Zigbee Smart Energy Profile (07-5356), annex D.3; what Hildebrand writes of it differs in the history only.
    """
    measured = Measured(max_power_w)
    imported = _attribute(measured, cluster, "00", "00")
    metric, scale = _format(measured, cluster, meter) if imported != 0 else ("", 0.0)  # 0: has not joined a meter yet
    if metric:
        measured.put(metric, imported, scale, name="import")
    if metric and meter == "electricity":
        exported = _attribute(measured, cluster, "00", "01")
        measured.put("device_energy_export_wh", exported or None, scale, name="export")
        measured.put("power_w", _attribute(measured, cluster, "04", "00", signed=True), scale, name="power")
    return measured


def _format(measured: Measured, cluster: dict[str, Any], meter: Meter) -> tuple[str, float]:
    """Return what the numbers of a cluster count and the size of one in our unit; nothing where that is not known."""
    unit, multiplier, divisor = (_attribute(measured, cluster, "03", field) for field in ("00", "01", "02"))
    if unit is None and meter == "electricity":
        unit = 0  # it has no other
    if unit is None or not multiplier or not divisor:
        measured.refused.append("malformed")  # single attributes are missing now and then; the next message has them
        return "", 0.0
    metric, scale = _UNITS.get((meter, unit), ("", 0))
    if not metric:
        measured.refuse("device_energy_wh", "malformed", f"its {meter} meter counts in unit {unit:02X}", _REPORT)
    return metric, scale * multiplier / divisor


def _attribute(
    measured: Measured, cluster: dict[str, Any], attributes: str, name: str, *, signed: bool = False
) -> int | None:
    """Return an attribute, None where it is missing or the meter says that it has no valid value.

    >>> demand = lambda digits: _attribute(Measured(0), {"04": {"00": digits}}, "04", "00", signed=True)
    >>> demand("FFFEA2"), demand("0001C8"), demand("800000")
    (-350, 456, None)
    >>> _attribute(Measured(0), {"00": {"00": "FFFFFFFFFFFF"}}, "00", "00") is None
    True
    """
    digits = _table(cluster, attributes).get(name)
    if digits is None:
        return None
    if not isinstance(digits, str) or not _HEX.fullmatch(digits):
        measured.refused.append("malformed")
        return None
    value, bits = int(digits, 16), 4 * len(digits)
    if value == (1 << (bits - 1) if signed else (1 << bits) - 1) and bits > 8:  # of one byte every value has a meaning
        measured.refused.append("not_finite")
        return None
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _content(payload: bytes) -> dict[str, Any]:
    content = parse(payload, _EXAMPLE)
    if not isinstance(content, dict):
        raise NotJson("a message must be a JSON object", _EXAMPLE)
    return content


def _table(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a table of a message, an empty one where there is none: each part of it is missing now and then."""
    table = content.get(name)
    return table if isinstance(table, dict) else {}
