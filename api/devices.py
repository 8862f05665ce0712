"""What `/metrics` tells of the devices themselves: their power, their registers, and how long nobody has heard of them.

A number that is too old is absent: a series ends there and is never carried on. Only the age, and that it is stale, go
on being told, of every device that the configuration names, whether it was ever heard of or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api import documents
from api.channels import Channels, parted
from api.live import Live


class Shown(NamedTuple):
    """How a metric of a reading is called here. A metric with the same name as another one differs in `direction`."""

    name: str  # a counter's without `_total`
    help: str
    is_counter: bool = False
    direction: str = ""


_ENERGY: Final = "wattherd_device_energy_watt_hours"
_ENERGY_HELP: Final = "The register of energy, which never falls"

SHOWN: Final = {
    "power_w": Shown("wattherd_device_power_watts", "Active power; negative is export"),
    "energy_wh": Shown(_ENERGY, _ENERGY_HELP, True, "import"),
    "energy_export_wh": Shown(_ENERGY, _ENERGY_HELP, True, "export"),
    "gas_m3": Shown("wattherd_device_gas_cubic_metres", "Register of gas", True),
    "pulses": Shown("wattherd_device_pulses", "Pulses of the meter", True),
    "voltage_v": Shown("wattherd_device_voltage_volts", "Voltage"),
    "current_a": Shown("wattherd_device_current_amperes", "Current"),
    "frequency_hz": Shown("wattherd_device_frequency_hertz", "Frequency of the mains"),
    "power_factor": Shown("wattherd_device_power_factor_ratio", "Power factor"),
    "apparent_power_va": Shown("wattherd_device_apparent_power_volt_amperes", "Apparent power"),
    "reactive_power_var": Shown("wattherd_device_reactive_power_vars", "Reactive power"),
    "temperature_c": Shown("wattherd_device_temperature_celsius", "Temperature"),
    "cost": Shown("wattherd_device_cost", "What the energy has cost so far, less what it earned; it may fall"),
    "unit_rate_per_kwh": Shown("wattherd_device_unit_rate_per_kilowatt_hour", "Price that the meter announces"),
}

# What has no series of its own, and why.
LEFT_OUT: Final = {
    "state": "a series for each state, below",
    "pulse": "an event: `pulses` counts it",
    "device_energy_wh": "the device's own counter may fall; the register is made of it",
    "device_energy_export_wh": "as device_energy_wh",
    "meter_reading_wh": "the register from another beginning",
    "energy_correction_wh": "an event of the ledger",
    "energy_export_correction_wh": "an event of the ledger",
    "energy_debt_wh": "a matter of the ledger: `./orchestrator.py ledger show`",
    "energy_export_debt_wh": "as energy_debt_wh",
    "standing_charge_per_day": "it changes once a year",
}

_OF: Final = ["source", "device"]


class DeviceCollector(Collector):
    """Looks at what was heard whenever somebody asks. As many series as the configuration has devices, and no more."""

    def __init__(self, live: Live, channels: Channels) -> None:
        self._live = live
        self._channels = channels

    def collect(self) -> Iterator[Metric]:
        seen = self._live.document()
        yield from self._house(seen.house)
        yield from self._silences(seen.devices)
        yield from self._values(seen.devices)
        yield self._states(seen.devices)

    @staticmethod
    def _house(house: documents.HousePower) -> Iterator[Metric]:
        power = GaugeMetricFamily(
            "wattherd_house_power_watts", "Power of the whole house; negative is export; absent while nobody knows"
        )
        if house.power_w is not None:
            power.add_metric([], house.power_w)
        yield power
        yield GaugeMetricFamily(
            "wattherd_house_power_complete", "1 while every channel that makes it up is fresh", house.complete
        )

    def _silences(self, devices: Iterable[documents.Device]) -> Iterator[Metric]:
        info = GaugeMetricFamily("wattherd_device_info", "Kind and role of a device", labels=[*_OF, "kind", "role"])
        stale = GaugeMetricFamily("wattherd_device_stale", "1 while a device is too long silent", labels=_OF)
        age = GaugeMetricFamily(
            "wattherd_device_last_reading_age_seconds",
            "Seconds since the newest reading; absent until there is one",
            labels=_OF,
        )
        unheard = {*self._channels.configured}
        for one in devices:
            unheard.discard(f"{one.source}/{one.device}")
            info.add_metric([one.source, one.device, one.kind, one.role], 1)
            stale.add_metric([one.source, one.device], one.stale)
            age.add_metric([one.source, one.device], one.age_s)
        for name in sorted(unheard):
            info.add_metric([*parted(name), self._channels.kind(name), self._channels.role(name)], 1)
            stale.add_metric(parted(name), 1)
        yield from (info, stale, age)

    @staticmethod
    def _values(devices: Iterable[documents.Device]) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for shown in SHOWN.values():
            labels = [*_OF, "direction"] if shown.direction else _OF
            family = CounterMetricFamily if shown.is_counter else GaugeMetricFamily
            families.setdefault(shown.name, family(shown.name, shown.help, labels=labels))
        for one in devices:
            for metric, shown in SHOWN.items():
                value = one.values.get(metric)
                if isinstance(value, int | float):
                    labels = [one.source, one.device, *([shown.direction] if shown.direction else [])]
                    families[shown.name].add_metric(labels, value)
        return families.values()

    @staticmethod
    def _states(devices: Iterable[documents.Device]) -> Metric:
        states = GaugeMetricFamily(
            "wattherd_device_state", "1 for the state that the device is in", labels=[*_OF, "state"]
        )
        for one in devices:
            state = one.values.get("state")
            if isinstance(state, str):
                states.add_metric([one.source, one.device, state], 1)
        return states
