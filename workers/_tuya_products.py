"""What the data points of Tuya devices mean: reads `_tuya_products.toml`, and the mappings that the wizard writes."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, structs

_FILE: Final = Path(__file__).with_suffix(".toml")
PHASE: Final = "phase"  # a point that holds volts, amperes and watts at once
# What a unit measures, and what makes it our own: times, per. The makers write them in many ways.
UNITS: Final[dict[str, tuple[str, int, int]]] = {
    "": ("", 1, 1),
    "%": ("", 1, 100),
    "A": ("a", 1, 1),
    "mA": ("a", 1, 1000),
    "V": ("v", 1, 1),
    "mV": ("v", 1, 1000),
    "W": ("w", 1, 1),
    "mW": ("w", 1, 1000),
    "kW": ("w", 1000, 1),
    "Wh": ("wh", 1, 1),
    "W·h": ("wh", 1, 1),
    "kWh": ("wh", 1000, 1),
    "kW·h": ("wh", 1000, 1),
    "kW.h": ("wh", 1000, 1),
    "度": ("wh", 1000, 1),
    "Hz": ("hz", 1, 1),
    "°C": ("c", 1, 1),
    "℃": ("c", 1, 1),
}
_BY_SPELLING: Final = {unit.casefold(): unit for unit in UNITS if unit not in ("mW", "mV")}


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """One data point: `unit` and `scale` are those of the number that arrives."""

    metric: str
    unit: str = ""
    scale: Annotated[int, Meta(ge=0, le=9)] = 0
    channels: tuple[str, ...] = ("",)
    direction: str = ""  # the point (or, among the codes, the code) that holds its sign


class Product(Struct, frozen=True, forbid_unknown_fields=True):
    """What one kind of device reports, and by which points it is recognised."""

    about: str
    points: dict[str, Point]
    numbers: tuple[int, ...] = ()
    phases: tuple[int, ...] = ()

    @property
    def channels(self) -> list[str]:
        return sorted({channel for point in self.points.values() for channel in point.channels})


class _Tables(Struct, frozen=True, forbid_unknown_fields=True):
    products: dict[str, Product]
    codes: dict[str, Point]


@functools.cache
def _tables() -> _Tables:
    return msgspec.convert(tomllib.loads(_FILE.read_text(encoding="utf-8")), _Tables)


def products() -> Mapping[str, Product]:
    """Return every product that is known, in the order in which they are recognised.

    >>> [*products()]
    ['din-meter-3p', 'din-meter', 'dual-meter', 'plug-a', 'plug-b']
    """
    return _tables().products


def recognised(numbers: set[str], phases: set[str]) -> str:
    """Return the first product whose points are there, by those that hold numbers and those that hold phases.

    >>> recognised({"9", "18", "19", "20"}, set()), recognised({"1"}, {"6"}), recognised({"1"}, {"6", "7", "8"})
    ('plug-a', 'din-meter', 'din-meter-3p')
    >>> recognised({"4", "5", "6"}, set()), recognised({"1"}, set())
    ('plug-b', '')
    """
    for name, product in products().items():
        if {*map(str, product.numbers)} <= numbers and {*map(str, product.phases)} <= phases:
            return name
    return ""


def from_mapping(mapping: object) -> dict[str, Point]:
    """Return the points of a `mapping` of devices.json whose codes are known; empty if there are none.

    >>> values = {"min": 0, "max": 50000, "scale": 1, "step": 1, "unit": "W"}
    >>> from_mapping({"19": {"code": "cur_power", "type": "Integer", "values": values},
    ...     "17": {"code": "add_ele", "type": "Integer", "values": {"scale": 3, "unit": "kwh"}}})
    {'19': Point(metric='power_w', unit='W', scale=1, channels=('',), direction='')}
    """
    if not isinstance(mapping, dict):
        return {}
    codes = {dp: entry["code"] for dp, entry in mapping.items() if isinstance(entry, dict) and _is_text(entry, "code")}
    dp_of = {code: dp for dp, code in codes.items()}
    points = {}
    for dp, code in codes.items():
        known = _tables().codes.get(code)
        if known and (point := _scaled(known, mapping[dp].get("values"))):
            points[dp] = structs.replace(point, direction=dp_of.get(known.direction, ""))
    phases = [dp for dp, point in points.items() if point.metric == PHASE]
    if len(phases) > 1:  # then the first is not the whole
        for dp in phases:
            channels = tuple(channel for channel in points[dp].channels if channel)
            points[dp] = structs.replace(points[dp], channels=channels)
    return points


def _scaled(point: Point, values: Any) -> Point | None:
    """Give a point the scale and the unit of a mapping; None where they cannot be those of its metric."""
    if point.metric == PHASE:
        return point
    if not isinstance(values, dict):
        return None
    scale = values.get("scale", 0)
    if type(scale) is not int or not 0 <= scale <= 9:
        return None
    written = str(values.get("unit") or point.unit)
    unit = written if written in UNITS else _BY_SPELLING.get(written.casefold())
    if unit is None or UNITS[unit][0] != UNITS[point.unit][0]:
        return None
    return structs.replace(point, scale=scale, unit=unit)


def _is_text(entry: dict[str, Any], name: str) -> bool:
    return isinstance(entry.get(name), str)
