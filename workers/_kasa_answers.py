"""What Kasa and Tapo plugs answer, whatever carries it: JSON in, who it is and what it measured out.

There are two dialects. The legacy one (`IOT.…`) has modules: `system.get_sysinfo`, `emeter.get_realtime`. The other
(`SMART.…`) has methods: `get_device_info`, `get_emeter_data`, `get_energy_usage`, `get_current_power`. The names of
their fields say milliwatts or watts from one hardware version to the next.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from config.words import printable

Values = dict[str, float | int | str]

# Each metric by the names that it has on the wire, with what they have to be divided by.
_LEGACY: Final[Mapping[str, Mapping[str, int]]] = {
    "power_w": {"power_mw": 1000, "power": 1},
    "voltage_v": {"voltage_mv": 1000, "voltage": 1},
    "current_a": {"current_ma": 1000, "current": 1},
}
_SMART: Final[Mapping[str, Mapping[str, Mapping[str, int]]]] = {
    "get_emeter_data": {
        "power_w": {"power_mw": 1000},
        "voltage_v": {"voltage_mv": 1000},
        "current_a": {"current_ma": 1000},
    },
    "get_energy_usage": {"power_w": {"current_power": 1000}},  # milliwatts, though its name does not say so
    "get_current_power": {"power_w": {"current_power": 1}},
}
# What a socket on the mains of any country can show. A strip has one plug too.
_RANGES: Final = {
    "power_w": (0.0, 4500.0),
    "voltage_v": (80.0, 280.0),
    "current_a": (0.0, 20.0),
    "device_energy_wh": (0.0, 1e9),
}
_MOST_TEXT: Final = 40
_MOST_OUTLETS: Final = 32
_ID: Final = re.compile(r"[0-9A-F]{12,64}")
_OUTLET_ID: Final = re.compile(r"[0-9A-Fa-f]{1,64}")


class Refused(Exception):  # noqa: N818 - an answer of a plug, not a fault of ours
    """An answer that is not let in: by which of `vitals.REFUSALS`, and what is wrong with it."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


class NoMeter(Exception):  # noqa: N818 - as above
    """The plug switches only; it measures nothing."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """One socket of a strip."""

    id: str  # as it is asked for
    alias: str
    has_meter: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """Who a plug says it is. Nothing of it becomes the name of a series."""

    ids: frozenset[str]  # its own id and its MAC, by `plain_id`
    mac: str
    alias: str
    model: str
    firmware: str
    has_meter: bool
    outlets: tuple[Outlet, ...] = ()  # of a strip, in their order
    methods: tuple[str, ...] = ()  # legacy: the module that measures; smart: what may be asked, the best first


def plain_id(text: object) -> str:
    """Return an id or a MAC as it is compared, or nothing if it is none.

    >>> plain_id("50:c7:bf:00:11:22"), plain_id("50-C7-BF-00-11-22"), plain_id("8006AB"), plain_id(None)
    ('50C7BF001122', '50C7BF001122', '', '')
    """
    plain = re.sub(r"[:-]", "", text).upper() if isinstance(text, str) else ""
    return plain if _ID.fullmatch(plain) else ""


def shown_id(plain: str) -> str:
    """Write a MAC as it is printed on the plug, and another id as it is.

    >>> shown_id("50C7BF001122"), shown_id("80" * 20) == "80" * 20
    ('50:C7:BF:00:11:22', True)
    """
    return ":".join(plain[at : at + 2] for at in range(0, 12, 2)) if len(plain) == 12 else plain


def shown_text(text: object) -> str:
    """Cut what a plug calls itself to something that cannot spoil a line.

    >>> shown_text("Kettle\\n\\x1b[31m"), shown_text(7), len(shown_text("x" * 1000))
    ('Kettle\\\\n\\\\x1b[31m', '', 40)
    """
    return printable(text[:_MOST_TEXT])[:_MOST_TEXT] if isinstance(text, str) else ""


def legacy_facts(answer: object) -> Facts:
    """Read `system.get_sysinfo`.

    >>> facts = legacy_facts({"system": {"get_sysinfo": {"deviceId": "80" * 20, "mac": "50:C7:BF:00:11:22",
    ...     "model": "HS110(UK)", "alias": "Fridge", "sw_ver": "1.0.4 Build 1", "feature": "TIM:ENE"}}})
    >>> facts.model, facts.firmware, facts.has_meter, facts.methods, sorted(facts.ids) == ["50C7BF001122", "80" * 20]
    ('HS110(UK)', '1.0.4 Build 1', True, ('emeter',), True)
    """
    info = _table(_table(answer, "system"), "get_sysinfo")
    kind = info.get("type", info.get("mic_type"))
    is_bulb = isinstance(kind, str) and "SMARTBULB" in kind.upper()
    feature = info.get("feature")
    has_meter = is_bulb or (isinstance(feature, str) and "ENE" in feature.split(":"))
    children = info.get("children")
    outlets = tuple(
        Outlet(_child_id(child.get("id")), shown_text(child.get("alias")))
        for child in _tables(children)[:_MOST_OUTLETS]
    )
    return Facts(
        ids=_ids(info.get("deviceId"), info.get("mac", info.get("mic_mac"))),
        mac=plain_id(info.get("mac", info.get("mic_mac"))),
        alias=shown_text(info.get("alias")),
        model=shown_text(info.get("model")),
        firmware=shown_text(info.get("sw_ver")),
        has_meter=has_meter,
        outlets=outlets,
        methods=("smartlife.iot.common.emeter" if is_bulb else "emeter",),
    )


def legacy_values(answer: object, module: str = "emeter") -> Values:
    """Read `get_realtime`. Its total is the register of the plug: it goes on over restarts.

    >>> legacy_values({"emeter": {"get_realtime": {"voltage_mv": 238412, "current_ma": 412, "power_mw": 86123,
    ...     "total_wh": 12345, "err_code": 0}}})
    {'power_w': 86.123, 'voltage_v': 238.412, 'current_a': 0.412, 'device_energy_wh': 12345.0}
    >>> legacy_values({"emeter": {"get_realtime": {"voltage": 238.412, "current": 0.412, "power": 86.123,
    ...     "total": 12.345, "err_code": 0}}})
    {'power_w': 86.123, 'voltage_v': 238.412, 'current_a': 0.412, 'device_energy_wh': 12345.0}
    >>> legacy_values({"emeter": {"err_code": -1, "err_msg": "module not support"}})
    Traceback (most recent call last):
    ...
    workers._kasa_answers.NoMeter
    """
    emeter = _table(answer, module)
    if emeter.get("err_code"):
        raise NoMeter
    realtime = _table(emeter, "get_realtime")
    if realtime.get("err_code"):
        raise Refused("malformed", "its meter answers with an error")
    values = _values(realtime, _LEGACY)
    if (total_wh := _number(realtime, "total_wh")) is not None:
        values["device_energy_wh"] = total_wh
    elif (total_kwh := _number(realtime, "total")) is not None:
        values["device_energy_wh"] = round(total_kwh * 1000, 3)
    return checked(values)


def smart_facts(answer: object) -> Facts:
    """Read `get_device_info` and `component_nego`, and for a strip what it says of its outlets.

    >>> facts = smart_facts({"get_device_info": {"device_id": "80" * 20, "mac": "50-C7-BF-00-11-22", "model": "P110",
    ...     "nickname": "RnJpZGdl", "fw_ver": "1.3.1"}, "component_nego": {"component_list": [
    ...     {"id": "energy_monitoring", "ver_code": 1}]}})
    >>> facts.alias, facts.methods
    ('Fridge', ('get_energy_usage',))
    """
    info = _table(answer, "get_device_info")
    components = _components(_table(answer, "component_nego"))
    outlets: list[Outlet] = []
    versions = components.get("energy_monitoring", 0)
    if "child_device" in components:
        listed = _table(_table(answer, "get_child_device_component_list"))
        by_id = {
            child.get("device_id"): _components(child)
            for child in _tables(listed.get("child_component_list"))
            if isinstance(child.get("device_id"), str)
        }
        children = _tables(_table(_table(answer, "get_child_device_list")).get("child_device_list"))
        for child in sorted(children, key=_position)[:_MOST_OUTLETS]:
            identity = _child_id(child.get("device_id"))
            version = by_id.get(identity, {}).get("energy_monitoring", 0)
            versions = max(versions, version)
            outlets.append(Outlet(identity, _nickname(child.get("nickname")), version > 0))
    methods = tuple(_SMART) if versions > 1 else ("get_energy_usage",) if versions else ()
    return Facts(
        ids=_ids(info.get("device_id"), info.get("mac")),
        mac=plain_id(info.get("mac")),
        alias=_nickname(info.get("nickname")),
        model=shown_text(info.get("model")),
        firmware=shown_text(info.get("fw_ver")),
        has_meter=bool(methods),
        outlets=tuple(outlets),
        methods=methods,
    )


def smart_ids(answer: object) -> frozenset[str]:
    """Read who answers from `get_device_info` alone."""
    info = _table(answer, "get_device_info")
    return _ids(info.get("device_id"), info.get("mac"))


def smart_values(answer: Mapping[str, Any]) -> Values:
    """Read the first method that has a power. None of them has a register: their energies begin anew every day.

    >>> smart_values({"get_emeter_data": {"current_ma": 33, "energy_wh": 971, "power_mw": 1801, "voltage_mv": 121215}})
    {'power_w': 1.801, 'voltage_v': 121.215, 'current_a': 0.033}
    >>> smart_values({"get_energy_usage": {"today_energy": 120, "month_energy": 3120, "current_power": 86123}})
    {'power_w': 86.123}
    >>> smart_values({"get_emeter_data": -1002, "get_current_power": {"current_power": 86}})
    {'power_w': 86.0}
    """
    method = smart_method(answer)
    return checked(_values(answer[method], _SMART[method]))


def smart_method(answer: Mapping[str, Any]) -> str:
    """Return the method that says most, of those whose answers have a power."""
    for method, metrics in _SMART.items():
        fields = answer.get(method)
        if isinstance(fields, dict) and any(fields.get(name) is not None for name in metrics["power_w"]):
            return method
    raise Refused("malformed", "its answer has no power")


def is_strip(answer: object) -> bool:
    """Whether a plug of the SMART dialect has outlets of its own, from `component_nego`."""
    return "child_device" in _components(_table(answer, "component_nego"))


def sum_of(outlets: Iterable[Values]) -> Values:
    """Add up the outlets of a strip. Its registers are not added: when one restarts, the sum would only seem to.

    >>> sum_of([{"power_w": 40.0, "voltage_v": 120.0, "current_a": 0.5, "device_energy_wh": 7.0},
    ...     {"power_w": 2.5, "voltage_v": 121.0, "current_a": 0.25, "device_energy_wh": 5.0}])
    {'power_w': 42.5, 'current_a': 0.75, 'voltage_v': 120.5}
    """
    each = [*outlets]
    added: Values = {}
    for metric in ("power_w", "current_a"):
        found = [values[metric] for values in each if metric in values]
        if found and len(found) == len(each):
            added[metric] = round(sum(float(value) for value in found), 6)
    if volts := [float(values["voltage_v"]) for values in each if "voltage_v" in values]:
        added["voltage_v"] = round(sum(volts) / len(volts), 6)
    return checked(added)


def checked(values: Values) -> Values:
    """Return values that a socket can have; refuse all of an answer in which one of them cannot be.

    >>> checked({"power_w": -3.0})
    Traceback (most recent call last):
    ...
    workers._kasa_answers.Refused: it shows -3 W, which cannot be
    """
    if not values:
        raise Refused("malformed", "its answer has no value")
    for metric, value in values.items():
        lowest, highest = _RANGES[metric]
        if not lowest <= float(value) <= highest:
            unit = {"power_w": "W", "voltage_v": "V", "current_a": "A"}.get(metric, "Wh")
            raise Refused("out_of_range", f"it shows {float(value):g} {unit}, which cannot be")
    return values


def _values(fields: Mapping[str, Any], metrics: Mapping[str, Mapping[str, int]]) -> Values:
    values: Values = {}
    for metric, names in metrics.items():
        for name, divisor in names.items():
            if (number := _number(fields, name)) is not None:
                values[metric] = number / divisor
                break
    return values


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a number that is there and finite; None where the plug says that it has none."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("malformed", f"{name} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused("not_finite", f"{name} is not finite")
    return number


def _table(holder: object, *keys: str) -> dict[str, Any]:
    for key in keys:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(holder, dict):
        raise Refused("malformed", f"its answer has no {keys[-1] if keys else 'table'}")
    return holder


def _tables(holder: object) -> list[dict[str, Any]]:
    return [one for one in holder if isinstance(one, dict)] if isinstance(holder, list) else []


def _components(holder: object) -> dict[str, int]:
    """Return the version of each component that a plug has.

    >>> _components({"component_list": [{"id": "energy_monitoring", "ver_code": 2}, {"id": 7}, "x"]})
    {'energy_monitoring': 2}
    """
    listed = _tables(_table(holder).get("component_list"))
    return {
        one["id"]: one["ver_code"]
        for one in listed
        if isinstance(one.get("id"), str) and isinstance(one.get("ver_code"), int)
    }


def _ids(*found: object) -> frozenset[str]:
    ids = frozenset(plain for one in found if (plain := plain_id(one)))
    if not ids:
        raise Refused("malformed", "it does not say who it is")
    return ids


def _child_id(text: object) -> str:
    """Return the id of an outlet as it is: some firmware says two digits, some the whole id with two digits more."""
    if isinstance(text, str) and _OUTLET_ID.fullmatch(text):
        return text
    raise Refused("malformed", "an outlet of it has no id")


def _position(child: Mapping[str, Any]) -> int:
    """The outlets of a strip have places, and are not listed in that order."""
    position = child.get("position", child.get("slot_number"))
    return position if isinstance(position, int) else 0


def _nickname(text: object) -> str:
    """Decode what the owner called a plug.

    >>> _nickname("RnJpZGdl"), _nickname("?"), _nickname(None)
    ('Fridge', '', '')
    """
    if not isinstance(text, str):
        return ""
    try:
        return shown_text(base64.b64decode(text[:512], validate=True).decode())
    except (binascii.Error, ValueError):
        return ""
