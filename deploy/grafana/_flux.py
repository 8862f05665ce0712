"""The household's questions in Flux, for InfluxDB 2.

A day is the sum of the steps of the register `energy_wh` between two midnights of the site's time zone, so days of 23
and 25 hours are right. Each query looks an hour further back than it shows, for the step into its first moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import Answer, Target, asked, text_box
from deploy.grafana._store import Store

_DAYS = 'import "date"\nimport "timezone"\n\noption location = timezone.location(name: "${timezone}")\n\n'
_HOUSE = 'r.source == "${house_source}" and r.device == "${house}"'
_GAS = 'r.device == "${gas}"'
_CHOSEN = "r.source =~ /^(?:${source:regex})$/ and r.device =~ /^(?:${device:regex})$/"
_DEVICES = f"{_CHOSEN} and not ({_HOUSE}) and not ({_GAS})"
_CIRCUITS = 'r.source == "${circuit}"'
_BOTH_NAMES = 'r.source + "." + r.device'


class Influx(Store):
    """One measurement; tags are site, source and device."""

    name: ClassVar = "InfluxDB"
    plugin: ClassVar = "influxdb"
    uid: ClassVar = "wattherd-influxdb"
    how: ClassVar = "The sum of all steps of the register `energy_wh` between midnight and midnight."
    since_calc: ClassVar = "sum"

    def variables(self) -> Sequence[Builder[models.VariableModel]]:
        return [
            text_box("bucket", "Bucket", "PowerLogger_raw", "As in [outputs.influx]"),
            text_box("rollup", "Bucket for months", "PowerLogger_5m", "One that keeps more than a month"),
            text_box("measurement", "Measurement", "electricity", "As in [outputs.influx]"),
            text_box("timezone", "Time zone", "Europe/London", "As in [site]: where days begin at midnight"),
            asked("site", "Site", _values_of("site", 'r._field == "power_w"'), "home", "`name` of [site]"),
            asked(
                "house_source",
                "House: source",
                _values_of("source", f'r._field == "power_w" and {_SITE}'),
                "meter",
                "The source of the meter of the whole house",
            ),
            asked(
                "house",
                "House: device",
                _values_of("device", f'r._field == "power_w" and {_SITE} and r.source == "${{house_source}}"'),
                "esp32-meter",
                "The meter of the whole house",
            ),
            asked("source", "Source", _values_of("source", _SITE), "", "Whose devices", several=".*"),
            asked(
                "device",
                "Device",
                _values_of("device", f"{_SITE} and r.source =~ /^(?:${{source:regex}})$/"),
                "",
                "Which devices",
                several=".*",
            ),
            text_box("circuit", "Circuits", "circuit", "The source whose devices are circuits of the consumer unit"),
            asked("gas", "Gas", _values_of("device", f'r._field == "gas_m3" and {_SITE}'), "gas", "The gas meter"),
        ]

    def house_now(self) -> Answer:
        return _ask(_piped([*_read("power_w", _HOUSE, since="-5m"), "last()", *_as('"house"')]))

    def house_power(self) -> Answer:
        return _ask(_piped([*_read("power_w", _HOUSE), *_mean(), *_as('"house"')]))

    def house_days(self, days: int) -> Answer:
        return _by_day(days, _kwh("energy_wh", _HOUSE, '"used"'))

    def house_export_days(self, days: int) -> Answer:
        return _by_day(days, _kwh("energy_export_wh", _HOUSE, '"sent out"'))

    def house_balance_days(self, days: int) -> Answer:
        used = _kwh("energy_wh", _HOUSE, '"used"')
        return _by_day(days, used, _kwh("energy_export_wh", _HOUSE, '"sent out"', divisor=-1000))

    def devices_now_and_today(self) -> Answer:
        power = [*_read("power_w", _DEVICES, since="-5m"), "last()", _cell("Power", "r._value"), "group()"]
        energy = [*_steps("energy_wh", _DEVICES), "sum()", _cell("Today", "r._value / 1000.0"), "group()"]
        one_row_each = 'pivot(rowKey: ["Device"], columnKey: ["column"], valueColumn: "value")'
        table = _piped(["union(tables: [power, energy])", one_row_each, 'sort(columns: ["Device"])'])
        whole = f'import "date"\n\npower = {_piped(power)}\n\nenergy = {_piped(energy)}\n\n{table}'
        return Answer((Target(query=whole),), time_from="now/d")

    def devices_power(self) -> Answer:
        return _ask(_piped([*_read("power_w", _DEVICES), *_mean(), *_as(_BOTH_NAMES)]), interval="1m")

    def devices_days(self, days: int) -> Answer:
        return _by_day(days, _kwh("energy_wh", _DEVICES, _BOTH_NAMES))

    def circuits_power(self) -> Answer:
        return _ask(_piped([*_read("power_w", _CIRCUITS), *_mean(), *_as("r.device")]))

    def circuits_days(self, days: int) -> Answer:
        return _by_day(days, _kwh("energy_wh", _CIRCUITS, "r.device"))

    def cost_days(self, days: int) -> Answer:
        steps = _steps("cost", _HOUSE, may_fall=True)
        return _by_day(days, _piped([*steps, _SUM_OF_DAY, *_as('"cost"')]))

    def cost_since(self, since: str) -> Answer:
        steps = _steps("cost", _HOUSE, bucket="rollup", may_fall=True)
        text = 'import "date"\n\n' + _piped([*steps, "sum()", *_as('"cost"', time="v.timeRangeStop")])
        return Answer((Target(query=text),), time_from=since)

    def gas_days(self, days: int) -> Answer:
        return _by_day(days, _piped([*_steps("gas_m3", _GAS), _SUM_OF_DAY, *_as('"gas"')]))

    def gas_energy_days(self, days: int) -> Answer:
        return _by_day(days, _kwh("energy_wh", _GAS, '"gas"'))

    def states(self) -> Answer:
        last = "aggregateWindow(every: v.windowPeriod, fn: last, createEmpty: false)"
        return _ask(_piped([*_read("state", _CHOSEN), last, *_as(_BOTH_NAMES)]))

    def voltage(self) -> Answer:
        return _ask(_piped([*_read("voltage_v", _CHOSEN), *_mean(), *_as(_BOTH_NAMES)]))

    def frequency(self) -> Answer:
        return _ask(_piped([*_read("frequency_hz", _CHOSEN), *_mean(), *_as(_BOTH_NAMES)]))


_SITE = 'r.site == "${site}"'
_SUM_OF_DAY = 'aggregateWindow(every: 1d, fn: sum, timeSrc: "_start", createEmpty: false)'
_LOOK_BACK = "date.sub(from: v.timeRangeStart, d: 1h)"


def _values_of(tag: str, which: str) -> str:
    """Ask for what a tag has been within a month."""
    return (
        'import "influxdata/influxdb/schema"\n\n'
        f'schema.tagValues(\n    bucket: "${{bucket}}",\n    tag: "{tag}",\n'
        f'    predicate: (r) => r._measurement == "${{measurement}}" and {which},\n    start: -30d,\n)'
    )


def _read(field: str, which: str, since: str = "v.timeRangeStart", bucket: str = "bucket") -> list[str]:
    return [
        f'from(bucket: "${{{bucket}}}")',
        f"range(start: {since}, stop: v.timeRangeStop)",
        f'filter(fn: (r) => r._measurement == "${{measurement}}" and {_SITE} and r._field == "{field}")',
        f"filter(fn: (r) => {which})",
    ]


def _steps(field: str, which: str, *, bucket: str = "bucket", may_fall: bool = False) -> list[str]:
    """What a register rose by, each time. One that begins anew has lost nothing but what nobody knows."""
    rises = "difference()" if may_fall else "difference(nonNegative: true)"
    return [*_read(field, which, _LOOK_BACK, bucket), rises, "filter(fn: (r) => r._time >= v.timeRangeStart)"]


def _kwh(field: str, which: str, name: str, divisor: int = 1000) -> str:
    scaled = f"map(fn: (r) => ({{r with _value: r._value / {divisor}.0}}))"
    return _piped([*_steps(field, which), _SUM_OF_DAY, scaled, *_as(name)])


def _mean() -> list[str]:
    """Empty windows stay, so that a gap is a gap."""
    return ["aggregateWindow(every: v.windowPeriod, fn: mean, createEmpty: true)"]


def _as(name: str, time: str = "r._time") -> list[str]:
    """Leave a series with nothing but its name, which Grafana draws it under."""
    return [f"map(fn: (r) => ({{_time: {time}, _value: r._value, _field: {name}}}))", 'group(columns: ["_field"])']


def _cell(column: str, value: str) -> str:
    return f'map(fn: (r) => ({{Device: {_BOTH_NAMES}, column: "{column}", value: {value}}}))'


def _piped(steps: list[str]) -> str:
    return "\n    |> ".join(steps)


def _ask(text: str, interval: str = "") -> Answer:
    return Answer((Target(query=text),), interval=interval)


def _by_day(days: int, *texts: str) -> Answer:
    return Answer(tuple(Target(query=_DAYS + text) for text in texts), time_from=f"now-{days}d/d")
