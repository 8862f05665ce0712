"""Decodes the data points of Tuya devices: numbers, and the blobs in which rail meters pack a phase."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from workers._tuya_products import PHASE, UNITS, Point

# What a device in a home can show; everything beyond is refused.
_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "voltage_v": (0.0, 500.0),
    "current_a": (0.0, 1000.0),
    "power_w": (-250_000.0, 250_000.0),
    "power_factor": (-1.0, 1.0),
    "frequency_hz": (40.0, 70.0),
    "temperature_c": (-60.0, 200.0),
    "device_energy_wh": (0.0, 2.0**53),
    "device_energy_export_wh": (0.0, 2.0**53),
}
# Volts that tell a phase blob from one of another layout.
_PHASE_V: Final = (80.0, 280.0)
_PHASE_BYTES: Final = 8  # u16 V × 10, u24 mA, u24 W; what comes after is another maker's
_MOST_PREFIX: Final = 3  # bytes that some models put in front
_MOST_BLOB: Final = 256  # characters
_MOST_NUMBER: Final = 2**53
_DP: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_BACKWARDS: Final = {"FORWARD": False, "REVERSE": True}


class Refused(Exception):  # noqa: N818 - an answer to a device, not a fault of ours
    """A value that is not let in: by which of `vitals.REFUSALS`, what is wrong, and what to do now."""

    def __init__(self, reason: str, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")
        self.reason = reason
        self.what = what
        self.what_now = what_now


@dataclass(slots=True)
class Decoded:
    """What one message says of one device."""

    values: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, Refused] = field(default_factory=dict)  # by data point
    good: list[str] = field(default_factory=list)  # data points that hold what they should


def points_in(message: object) -> dict[str, Any]:
    """Return the data points of a message, without what cannot be one; empty if it is no message.

    >>> points_in({"devId": "x", "dps": {"1": True, "19": 861, "x": 1, "0": 2}})
    {'1': True, '19': 861}
    >>> points_in({"protocol": 4, "data": {"dps": {"20": 2384}}})
    {'20': 2384}
    >>> points_in([]), points_in({"dps": None})
    ({}, {})
    """
    if not isinstance(message, dict):
        return {}
    data = message.get("data")
    dps = message.get("dps", data.get("dps") if isinstance(data, dict) else None)
    if not isinstance(dps, dict):
        return {}
    return {dp: value for dp, value in dps.items() if isinstance(dp, str) and _DP.fullmatch(dp)}


def decode(
    dps: Mapping[str, Any],
    points: Mapping[str, Point],
    *,
    channel: str = "",
    power_divisor: float = 1.0,
    backwards: Mapping[str, bool] | None = None,
) -> Decoded:
    """Decode the data points of one message for one channel; `backwards` holds the signs that are known, by point.

    >>> from workers._tuya_products import products
    >>> plug = {"1": True, "9": 0, "17": 123, "18": 412, "19": 861, "20": 2384, "26": 0}
    >>> decode(plug, products()["plug-a"].points).values
    {'current_a': 0.412, 'power_w': 86.1, 'voltage_v': 238.4}
    >>> clamps = {"1": 123456, "2": 10, "101": 5000, "102": "REVERSE", "105": 12, "112": 2301, "113": 2200}
    >>> meter = products()["dual-meter"].points
    >>> decode(clamps, meter, channel="a", backwards=directions(clamps, ["102"])).values
    {'power_w': -500.0, 'voltage_v': 230.1, 'current_a': 2.2}
    >>> decode(clamps, meter).values
    {'device_energy_wh': 1234560.0, 'device_energy_export_wh': 100.0, 'voltage_v': 230.1}
    >>> rail = {"1": 3296, "6": "CWkAARgAACo="}
    >>> decode(rail, products()["din-meter"].points).values
    {'device_energy_wh': 32960.0, 'voltage_v': 240.9, 'current_a': 0.28, 'power_w': 42.0}
    """
    decoded = Decoded()
    for dp, point in points.items():
        if dp not in dps or channel not in point.channels:
            continue
        try:
            values = _values(dps[dp], point, power_divisor, backwards or {})
        except Refused as refused:
            decoded.refusals[dp] = refused
            continue
        decoded.good.append(dp)
        decoded.values |= values
    return decoded


def directions(dps: Mapping[str, Any], points: Iterable[str]) -> dict[str, bool]:
    """Return which of the data points `points` say FORWARD (False) or REVERSE (True).

    >>> directions({"102": "REVERSE", "104": "forward", "9": "REVERSE", "6": "SIDEWAYS"}, ["102", "104", "6"])
    {'102': True, '104': False}
    """
    words = {dp: value.upper() for dp in points if isinstance(value := dps.get(dp), str)}
    return {dp: _BACKWARDS[word] for dp, word in words.items() if word in _BACKWARDS}


def phase(value: object, power_divisor: float = 1.0) -> dict[str, float]:
    """Decode a phase: base64 of u16 V × 10, u24 mA, u24 W, or the JSON that some models send. Raises `Refused`.

    >>> phase("CQoAMDkACuY=")  # DEVICES: 231.4 V, 12.345 A, 2790 W
    {'voltage_v': 231.4, 'current_a': 12.345, 'power_w': 2790.0}
    >>> phase("COkAABUAAAU=")
    {'voltage_v': 228.1, 'current_a': 0.021, 'power_w': 5.0}
    >>> phase("CQYAB/oAAXQ=")
    {'voltage_v': 231.0, 'current_a': 2.042, 'power_w': 372.0}
    >>> phase("AAAAAAAAAAA=")
    {'voltage_v': 0.0, 'current_a': 0.0, 'power_w': 0.0}
    >>> phase(base64.b64encode(bytes.fromhex("0102 090a 003039 000ae6")).decode())["current_a"]
    12.345
    >>> phase('{"electricCurrent":0.046,"power":0.009,"voltage":226.5}')
    {'voltage_v': 226.5, 'current_a': 0.046, 'power_w': 9.0}
    >>> phase("AQADAgAAAZIDFwAQVQkX")
    Traceback (most recent call last):
    ...
    workers._tuya_points.Refused: it is no phase that is known; correct product, or report the device with this blob
    """
    if isinstance(value, str) and len(value) <= _MOST_BLOB:
        return _phase_in_json(value, power_divisor) if value.startswith("{") else _phase_in_bytes(value, power_divisor)
    raise Refused("malformed", "it is no phase", "correct product")


def is_phase(value: object) -> bool:
    """Say whether a value may be a phase, to recognise a product by.

    >>> is_phase("CQoAMDkACuY="), is_phase("AAAAAAAAAAA="), is_phase(2384), is_phase("REVERSE"), is_phase("")
    (True, True, False, False, False)
    """
    try:
        phase(value, power_divisor=1000)  # whatever its scale
    except Refused:
        return False
    return True


def is_number(value: object) -> TypeGuard[float | int]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _values(value: object, point: Point, power_divisor: float, backwards: Mapping[str, bool]) -> dict[str, float]:
    if point.metric == PHASE:
        return phase(value, power_divisor)
    if isinstance(value, bool):
        return {}  # some have a switch where others have a number
    number = _number(value)
    _, times, per = UNITS[point.unit]
    number = number * times / (per * 10**point.scale)
    if point.direction:
        if point.direction in backwards:
            number = -abs(number) if backwards[point.direction] else abs(number)
        elif number > 0:
            return {}  # nobody has said yet which way it flows
    return {point.metric: _within_limits(point.metric, number)}


def _number(value: object) -> float | int:
    if not is_number(value):
        raise Refused("malformed", "it is no number", "correct product")
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused("not_finite", "it is not finite", "restart the device")
    if abs(value) > _MOST_NUMBER:
        raise Refused("out_of_range", "it shows what cannot be", "correct product")
    return value


def _within_limits(metric: str, value: float) -> float:
    low, high = _LIMITS[metric]
    if not low <= value <= high:
        raise Refused("out_of_range", f"it shows what cannot be ({metric} {value:g})", "correct product")
    return float(value)


def _phase_in_bytes(text: str, power_divisor: float) -> dict[str, float]:
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("malformed", "it is no base64", "correct product") from error
    if len(blob) < _PHASE_BYTES:
        raise Refused("malformed", "it is too short for a phase", "correct product")
    if not any(blob[:_PHASE_BYTES]):
        return {"voltage_v": 0.0, "current_a": 0.0, "power_w": 0.0}
    for values in _layouts(blob, power_divisor):
        return values
    what_now = "correct product, or report the device with this blob"
    raise Refused("out_of_range", "it is no phase that is known", what_now)


def _layouts(blob: bytes, power_divisor: float) -> Iterator[dict[str, float]]:
    """Read a blob from its begin, then behind a prefix; the latter is believed only if power fits volts and amperes."""
    for start in range(min(_MOST_PREFIX, len(blob) - _PHASE_BYTES) + 1):
        volts = int.from_bytes(blob[start : start + 2], "big") / 10
        amperes = int.from_bytes(blob[start + 2 : start + 5], "big") / 1000
        watts = int.from_bytes(blob[start + 5 : start + 8], "big") / power_divisor
        apparent = volts * amperes
        fits = not start or 0.05 * apparent - 10 <= watts <= _most_w(apparent)
        if fits and _PHASE_V[0] <= volts <= _PHASE_V[1]:
            yield _plausible(volts, amperes, watts)


def _phase_in_json(text: str, power_divisor: float) -> dict[str, float]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", "it is no JSON", "correct product") from error
    try:
        volts, amperes, kilowatts = (_number(fields[name]) for name in ("voltage", "electricCurrent", "power"))
    except KeyError as error:
        raise Refused("malformed", "it lacks a part of a phase", "correct product") from error
    return _plausible(volts, amperes, kilowatts * 1000 / power_divisor)


def _plausible(volts: float, amperes: float, watts: float) -> dict[str, float]:
    """All three are of one instant, so power beyond volts times amperes is of another scale: refuse it."""
    if watts > _most_w(volts * amperes):
        what = f"it shows what cannot be ({watts:g} W from {volts:g} V and {amperes:g} A)"
        raise Refused("out_of_range", what, "set power_divisor = 10, or correct product")
    values = {"voltage_v": volts, "current_a": amperes, "power_w": watts}
    return {metric: _within_limits(metric, value) for metric, value in values.items()}


def _most_w(apparent_va: float) -> float:
    return 1.2 * apparent_va + 10
