"""The household's questions as PromQL, of the series that the api shows of each device.

A day is `increase(…[1d] offset -1d)` at its midnight: Prometheus looks forward from there, and the panels ask for one
step a day from local midnight on. It extends a rise to the edges of the day, by one scrape at most. Series end where a
device falls silent, so nothing has to be said of old numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import GREEN, Answer, Target, asked, text_box
from deploy.grafana._store import Store

_HOUSE = 'job="wattherd", instance="$instance"'
_DEVICES = f'{_HOUSE}, source=~"$source", device=~"$device"'
_DAY = "[1d] offset -1d"
_SINCE = "[$__range]"
_POWER = "wattherd_device_power_watts"
_ENERGY = "wattherd_device_energy_watt_hours_total"
_GAS = "wattherd_device_gas_cubic_metres_total"


class Prometheus(Store):
    """What makes up the house is known by the role of each channel."""

    name: ClassVar = "Prometheus"
    plugin: ClassVar = "prometheus"
    uid: ClassVar = "wattherd-prometheus"
    how: ClassVar = "What the register `energy_wh` rose by between midnight and midnight."
    since_calc: ClassVar = "last"
    state_ranges: ClassVar = ((0.5, None, "yes", GREEN),)

    def variables(self) -> Sequence[Builder[models.VariableModel]]:
        known = "wattherd_device_info{" + _HOUSE
        devices = f'label_values({known}, source=~"$source"}}, device)'
        return [
            asked("instance", "House", "label_values(wattherd_info, instance)", "127.0.0.1:8000", "Which house"),
            asked("source", "Source", f"label_values({known}}}, source)", "", "Whose devices", several=".*"),
            asked("device", "Device", devices, "", "Which devices", several=".*"),
            text_box("circuit", "Circuits", "circuit", "The source whose devices are circuits of the consumer unit"),
        ]

    def house_now(self) -> Answer:
        return Answer((_at_once(f"wattherd_house_power_watts{{{_HOUSE}}}", "house"),))

    def house_power(self) -> Answer:
        return Answer((_over_time(f"wattherd_house_power_watts{{{_HOUSE}}}", "house"),))

    def house_days(self, days: int) -> Answer:
        return _by_day(days, (_of_house(_kwh("import")), "used"))

    def house_export_days(self, days: int) -> Answer:
        return _by_day(days, (_of_house(_kwh("export")), "sent out"))

    def house_balance_days(self, days: int) -> Answer:
        used, sent_out = _of_house(_kwh("import")), _of_house(f"-{_kwh('export')}")
        return _by_day(days, (used, "used"), (sent_out, "sent out"))

    def devices_now_and_today(self) -> Answer:
        power = _named(f"{_POWER}{{{_DEVICES}}}{_but_meters('')}")
        energy = _named(f"{_kwh('import', _SINCE, _DEVICES)}{_but_meters(_SINCE)}")
        order = {"Device": 0, "Value #A": 1, "Value #B": 2}
        names = {"Value #A": "Power", "Value #B": "Today"}
        return Answer(
            (_at_once(power, "", "table"), _at_once(energy, "", "table")),
            (
                ("merge", {}),
                ("organize", {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}),
            ),
            time_from="now/d",
        )

    def devices_power(self) -> Answer:
        power = _named(f"{_POWER}{{{_DEVICES}}}{_but_meters('')}")
        return Answer((_over_time(power, "{{Device}}"),), interval="1m")

    def devices_days(self, days: int) -> Answer:
        return _by_day(days, (_named(f"{_kwh('import', _DAY, _DEVICES)}{_but_meters(_DAY)}"), "{{Device}}"))

    def circuits_power(self) -> Answer:
        return Answer((_over_time(f'{_POWER}{{{_HOUSE}, source="$circuit"}}', "{{device}}"),))

    def circuits_days(self, days: int) -> Answer:
        energy = _kwh("import", _DAY, f'{_HOUSE}, source="$circuit"')
        return _by_day(days, (energy, "{{device}}"))

    def cost_days(self, days: int) -> Answer:
        return _by_day(days, (_of_house(f"delta(wattherd_device_cost{{{_HOUSE}}}{_DAY})"), "cost"))

    def cost_since(self, since: str) -> Answer:
        cost = _of_house(f"delta(wattherd_device_cost{{{_HOUSE}}}{_SINCE})", _SINCE)
        return Answer((_at_once(cost, "cost"),), time_from=since)

    def gas_days(self, days: int) -> Answer:
        return _by_day(days, (f"sum(increase({_GAS}{{{_HOUSE}}}{_DAY}))", "gas"))

    def gas_energy_days(self, days: int) -> Answer:
        return _by_day(days, (f"sum({_kwh('import')} and on (source, device) {_gas_meters(_DAY)})", "gas"))

    def states(self) -> Answer:
        return Answer((_over_time(f"wattherd_device_state{{{_DEVICES}}}", "{{device}} {{state}}"),), interval="1m")

    def voltage(self) -> Answer:
        return Answer((_over_time(_named(f"wattherd_device_voltage_volts{{{_DEVICES}}}"), "{{Device}}"),))

    def frequency(self) -> Answer:
        return Answer((_over_time(_named(f"wattherd_device_frequency_hertz{{{_DEVICES}}}"), "{{Device}}"),))


def _over_time(expression: str, legend: str) -> Target:
    return Target(expr=expression, legendFormat=legend, range=True, instant=False, editorMode="code")


def _at_once(expression: str, legend: str, shape: str = "time_series") -> Target:
    return Target(expr=expression, legendFormat=legend, range=False, instant=True, editorMode="code", format=shape)


def _by_day(days: int, *asks: tuple[str, str]) -> Answer:
    targets = tuple(_over_time(expression, legend) for expression, legend in asks)
    return Answer(targets, time_from=f"now-{days}d/d", interval="1d")


def _kwh(direction: str, window: str = _DAY, whose: str = _HOUSE) -> str:
    return f'increase({_ENERGY}{{{whose}, direction="{direction}"}}{window}) / 1000'


def _of_house(expression: str, window: str = _DAY) -> str:
    """Add up the meters of the house, or where it has none all of its parts."""
    parts = f"sum({expression} and on (source, device) {_has_role('part', window)} {_but_gas(window)})"
    return f"sum({expression} and on (source, device) {_has_role('grid', window)}) or {parts}"


def _named(expression: str) -> str:
    return f'sum by (Device) (label_join({expression}, "Device", ".", "source", "device"))'


def _has_role(role: str, window: str) -> str:
    """Who had a role at any time of a window, or has it now."""
    known = f'wattherd_device_info{{{_HOUSE}, role="{role}"}}'
    return f"max_over_time({known}{window})" if window else known


def _gas_meters(window: str) -> str:
    known = f"{_GAS}{{{_HOUSE}}}"
    return f"max_over_time({known}{window})" if window else known


def _but_gas(window: str) -> str:
    return f"unless on (source, device) {_gas_meters(window)}"


def _but_meters(window: str) -> str:
    """Leave out the meters of the house and of the gas, which are no part of it."""
    return f" unless on (source, device) {_has_role('grid', window)} {_but_gas(window)}"
