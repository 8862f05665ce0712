"""What an ESP32 pulse reader says, whatever carries it: JSON in, readings out.

    {"device": "esp32-meter", "boot": "a1b2", "seq": 1842, "pulses_total": 91234, "power_w": 1492.3,
     "age_ms": 0, "ts": 1795180560, "imp_per_kwh": 1000}

Needed are `device` and one of `pulses_total`, `energy_kwh` and `power_w`. The counters are the device's own and go on
for ever: they are what is trusted. `boot` changes whenever the device starts and `seq` rises by one a message, so that
a message that is sent twice is booked once, in whatever order messages come. `age_ms` is how long ago it was measured,
at the moment of sending; `ts` is the UTC of a device that has a clock. One object, or a list of at most 200: the
backlog of an outage. Names that other firmware uses are understood, unknown ones are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta

from config.settings import NAME_PATTERN, DeviceTable
from reading import Origin, Reading
from workers._json import NotJson, Refused, number, parse

MOST_MESSAGES: Final = 200
OLDEST_S: Final = 7 * 86400

# What other firmware calls the same, and its size in our unit. The first name that is present counts.
_PULSES: Final = {"pulses_total": 1, "total_pulses": 1, "pulse_count": 1}
_ENERGY_WH: Final = {"energy_wh": 1, "energy_kwh": 1000, "total_kwh": 1000, "kwh": 1000, "energy": 1000}
_POWER_W: Final = {"power_w": 1, "power": 1, "power_kw": 1000, "kw": 1000}

_MOST_COUNT: Final = 2**53  # beyond it a float no longer holds every whole number
_MICROPYTHON_EPOCH_NS: Final = 946_684_800 * 10**9  # its clock counts from the year 2000
_EXAMPLE: Final = 'send one JSON object such as {"device": "esp32-meter", "pulses_total": 1}'
_BOOT: Final = re.compile(r"[!-~]{1,64}")


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of an ESP32 source."""

    pulses_per_kwh: Annotated[float, Meta(gt=0, le=1_000_000)] = 1000.0
    max_power_w: Annotated[float, Meta(gt=0, le=10_000_000)] = 25_000.0


class Message(NamedTuple):
    """One reading, and what is wrong with its device all the same: "what; what now", or empty."""

    reading: Reading
    trouble: str


def decode(payload: bytes, devices: Mapping[str, Device], now_ns: int, source: str) -> list[Message]:
    """Decode what arrived at `now_ns` (CLOCK_MONOTONIC) for `source`: all of it, or `Refused`.

    >>> meter = {"esp32-meter": Device(name="esp32-meter", pulses_per_kwh=800)}
    >>> payload = b'{"device": "esp32-meter", "boot": "a1b2", "seq": 7, "pulses_total": 91234, "kw": 1.5, "age_ms": 2}'
    >>> [(reading, trouble)] = decode(payload, meter, now_ns=5_000_000, source="meter")
    >>> reading.at_ns, reading.values
    (3000000, {'pulses': 91234, 'device_energy_wh': 114042.5, 'power_w': 1500.0})
    >>> reading.origin
    Origin(boot='a1b2', sequence=7, time_ns=0, late=False)
    >>> decode(b'{"device": "esp32-meter", "pulses": 7}', meter, 0, "meter")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    workers._json.Refused: the message has no pulses_total, energy_kwh or power_w; send pulses_total, the count of ...
    """
    content = parse(payload, _EXAMPLE)
    if not isinstance(content, list):
        return [_message(content, devices, now_ns, source)]
    if len(content) > MOST_MESSAGES:
        what = f"{len(content)} messages are too many at once"
        raise Refused("too_large", what, f"send at most {MOST_MESSAGES} in one list")
    if not content:
        raise Refused("malformed", "the list is empty", "send nothing when there is nothing to send")
    return [_message(fields, devices, now_ns, source) for fields in content]


def _message(fields: Any, devices: Mapping[str, Device], now_ns: int, source: str) -> Message:
    if not isinstance(fields, dict):
        raise NotJson("a message must be a JSON object", _EXAMPLE)
    device = _device(fields.get("device"), devices, source)
    reading = Reading(device.name, now_ns - _age_ns(fields), _values(fields, device), origin=_origin(fields))
    return Message(reading, _contradiction(fields, device))


def _device(name: object, devices: Mapping[str, Device], source: str) -> Device:
    if isinstance(name, str) and name in devices:
        return devices[name]
    if not isinstance(name, str):
        known = ", ".join(f'"{known}"' for known in devices)
        raise Refused("malformed", "the message names no device", f'add "device": one of {known}')
    if not re.fullmatch(NAME_PATTERN, name):
        # Whatever it is, it is not repeated: it may be there to forge a log line.
        what_now = "use letters, digits, - and _ (at most 63), the same here and in the configuration"
        raise Refused("unknown_device", "the name of the device cannot be one", what_now)
    what_now = f'add [[sources.{source}.devices]] with name = "{name}" to the configuration, or correct the sender'
    raise Refused("unknown_device", f'no device "{name}" is configured', what_now)


def _values(fields: dict[str, Any], device: Device) -> dict[str, float | int | str]:
    values: dict[str, float | int | str] = {}
    pulses = _first(fields, _PULSES)
    energy_wh = _first(fields, _ENERGY_WH)
    power_w = _first(fields, _POWER_W)
    if pulses is not None:
        values["pulses"] = _whole(pulses, "pulses_total")
        values["device_energy_wh"] = pulses * 1000 / device.pulses_per_kwh
    elif energy_wh is not None:
        if not 0 <= energy_wh <= _MOST_COUNT:
            raise Refused("out_of_range", "the energy is no counter of a meter", "send a total that only rises")
        values["device_energy_wh"] = float(energy_wh)
    if power_w is not None:
        if abs(power_w) > device.max_power_w:
            what = f"the power is above {device.max_power_w:g} W, the most that {device.name} can have"
            raise Refused("out_of_range", what, "correct the sender, or set max_power_w of the device")
        values["power_w"] = float(power_w)
    if not values:
        # A count since the last message looks the same when it is repeated, and nobody misses it when it is lost.
        what = "the message has no pulses_total, energy_kwh or power_w"
        what_now = "send pulses_total, the count of all pulses ever: `pulses` since the last message is lost or doubled"
        raise Refused("malformed", what, what_now)
    return values


def _age_ns(fields: dict[str, Any]) -> int:
    age_ms = _first(fields, {"age_ms": 1})
    if age_ms is None:
        return 0
    if age_ms < 0:
        raise Refused("out_of_range", "age_ms is negative", "send how many milliseconds ago it was measured")
    if age_ms > OLDEST_S * 1000:
        raise Refused(
            "stale", "the message is more than seven days old", "drop it: the counter of a newer one has it all"
        )
    return round(age_ms * 1_000_000)


def _origin(fields: dict[str, Any]) -> Origin | None:
    """Return the number and the date that the device gave its message. An empty `boot`: it gave no number."""
    boot, sequence, time_ns = fields.get("boot"), _first(fields, {"seq": 1}), _claimed_time_ns(fields)
    if boot is None or sequence is None:
        return Origin("", 0, time_ns) if time_ns else None
    if isinstance(boot, bool) or not isinstance(boot, str | int) or not _BOOT.fullmatch(str(boot)):
        raise Refused("malformed", "boot is no name of a start", "send a number, or 1 to 64 ASCII characters")
    return Origin(str(boot), _whole(sequence, "seq"), time_ns)


def _claimed_time_ns(fields: dict[str, Any]) -> int:
    """Return the UTC that the device claims, 0 for none. Only the writer knows the time and whether to believe it.

    >>> [_claimed_time_ns({"ts": ts}) for ts in (1795180560, 1795180560123, 848495760, 0, "noon")]
    [1795180560000000000, 1795180560123000000, 1795180560000000000, 0, 0]
    """
    try:
        claimed = _first(fields, {"ts": 1, "timestamp": 1})
    except Refused:
        return 0
    if claimed is None or not 0 < claimed < 1e15:
        return 0
    time_ns = round(claimed * (1_000_000 if claimed > 1e11 else 1_000_000_000))
    if time_ns < 10**18:
        time_ns += _MICROPYTHON_EPOCH_NS
    return time_ns if time_ns < 2**63 else 0


def _contradiction(fields: dict[str, Any], device: Device) -> str:
    try:
        said = _first(fields, {"imp_per_kwh": 1})
    except Refused:
        said = None
    if said is None or math.isclose(said, device.pulses_per_kwh):
        return ""
    return (
        f"it counts {said:g} pulses per kWh, the configuration says {device.pulses_per_kwh:g} and is used; "
        "read the number on the meter and correct whichever is wrong"
    )


def _first(fields: dict[str, Any], names: Mapping[str, int]) -> float | int | None:
    """Return the first number that is there, in our unit. `null` is how firmware writes that it has none."""
    for name, scale in names.items():
        if fields.get(name) is not None:
            return number(fields[name], name) * scale
    return None


def _whole(value: float | int, name: str) -> int:
    if value != int(value):
        raise Refused("malformed", f"{name} is no whole number", "send the count itself")
    if not 0 <= value <= _MOST_COUNT:
        raise Refused("out_of_range", f"{name} is no count", "send a whole number from 0 to 2^53")
    return int(value)
