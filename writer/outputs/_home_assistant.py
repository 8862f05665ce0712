"""What Home Assistant is told of a device: which sensors it has, where they are heard, what they mean.

From Home Assistant's documentation of "MQTT", "MQTT sensor" and "Sensor entity", and from the schemas that its
`components/mqtt` and `components/sensor/const.py` check them with. All of a device stands in one payload, which
Home Assistant reads since 2024.11. It refuses the whole device for one key it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from reading import COUNTERS

_PLAIN: Final = "{{ value_json.value }}"
# Home Assistant refuses a longer state.
_TEXT: Final = "{{ value_json.value[:255] }}"
# Six digits of a kilowatt-hour are a milliwatt-hour; what is beyond is noise of the division.
_KWH: Final = "{{ (value_json.value / 1000) | round(6) }}"
_ATTRIBUTES: Final = "{{ {'quality': value_json.quality, 'clock': value_json.clock} | tojson }}"
_CURRENCY: Final = "{currency}"


class Sensor(NamedTuple):
    """What a metric is to Home Assistant. A counter is `total_increasing`: it may begin anew, it never falls."""

    name: str
    device_class: str = ""
    unit: str = ""
    state_class: str = "measurement"
    precision: int | None = None  # digits that are shown; all of them are kept
    template: str = _PLAIN


def _energy(name: str) -> Sensor:
    return Sensor(name, "energy", "kWh", "total_increasing", 3, _KWH)


# Every metric that has a present value: a pulse and a correction of the energy happen, and are over. A monetary sensor
# may be a `total` only, and nobody promises that a cost is one, so it has no state class.
SENSORS: Final = {
    "power_w": Sensor("Power", "power", "W", precision=1),
    "apparent_power_va": Sensor("Apparent power", "apparent_power", "VA", precision=1),
    "reactive_power_var": Sensor("Reactive power", "reactive_power", "var", precision=1),
    "power_factor": Sensor("Power factor", "power_factor", precision=2),
    "voltage_v": Sensor("Voltage", "voltage", "V", precision=1),
    "current_a": Sensor("Current", "current", "A", precision=2),
    "frequency_hz": Sensor("Frequency", "frequency", "Hz", precision=2),
    "energy_wh": _energy("Energy"),
    "energy_export_wh": _energy("Energy export"),
    "device_energy_wh": _energy("Device counter"),
    "device_energy_export_wh": _energy("Device counter export"),
    "meter_reading_wh": _energy("Meter reading"),
    "energy_debt_wh": Sensor("Energy debt", "energy", "kWh", "", 3, _KWH),
    "energy_export_debt_wh": Sensor("Energy export debt", "energy", "kWh", "", 3, _KWH),
    "pulses": Sensor("Pulses", state_class="total_increasing", precision=0),
    "gas_m3": Sensor("Gas", "gas", "m³", "total_increasing", 3),
    "temperature_c": Sensor("Temperature", "temperature", "°C", precision=1),
    "cost": Sensor("Cost", "monetary", _CURRENCY, "", 2),
    "unit_rate_per_kwh": Sensor("Unit rate", "", f"{_CURRENCY}/kWh", precision=4),
    "standing_charge_per_day": Sensor("Standing charge", "", f"{_CURRENCY}/d", precision=4),
    "state": Sensor("State", state_class="", template=_TEXT),
}


class Device(NamedTuple):
    """A device as this house knows it. A simulated one is another than the real one of its name."""

    source: str
    name: str
    simulated: bool = False

    @property
    def path(self) -> str:
        """Its place below the topic of the house.

        >>> Device("kasa", "fridge").path, Device("kasa", "fridge", simulated=True).path
        ('kasa/fridge', 'simulated/kasa/fridge')
        """
        return f"{'simulated/' if self.simulated else ''}{self.source}/{self.name}"


@dataclass(frozen=True, slots=True)
class Discovery:
    """Names and describes the devices of one house."""

    site: str
    topic_prefix: str
    expire_after_s: int  # 0: never
    currency: str  # "": nobody said which

    @property
    def status_topic(self) -> str:
        return f"{self.topic_prefix}/{self.site}/status"

    def state_topic(self, device: Device, metric: str) -> str:
        return f"{self.topic_prefix}/{self.site}/{device.path}/{metric}"

    def device_id(self, device: Device) -> str:
        """Name a device for ever, in the letters that a discovery topic may have; no two have the same.

        A name begins with a letter or a digit, so one underscore stands between two names and two are one in a name.

        >>> discovery = Discovery("home", "wattherd", 120, "")
        >>> discovery.device_id(Device("plugs", "air_con")), discovery.device_id(Device("plugs_air", "con"))
        ('wattherd_home_plugs_air__con', 'wattherd_home_plugs__air_con')
        """
        names = [self.site, device.source, device.name, *(["simulated"] if device.simulated else [])]
        return "_".join(["wattherd", *(name.replace("_", "__") for name in names)])

    def config(self, device: Device, metrics: Iterable[str]) -> dict[str, Any]:
        """Describe a device that has `metrics`, for `<discovery prefix>/device/<device id>/config`."""
        return {
            "device": {
                "identifiers": [self.device_id(device)],
                "name": f"{device.name} (simulated)" if device.simulated else device.name,
                "manufacturer": "wattherd",
                "model": f"simulated, source {device.source}" if device.simulated else f"source {device.source}",
            },
            "origin": {"name": "wattherd"},
            "availability_topic": self.status_topic,
            "components": {metric: self._component(device, metric) for metric in SENSORS if metric in {*metrics}},
        }

    def _component(self, device: Device, metric: str) -> dict[str, Any]:
        sensor = SENSORS[metric]
        topic = self.state_topic(device, metric)
        component: dict[str, Any] = {
            "platform": "sensor",
            "unique_id": f"{self.device_id(device)}_{metric}",
            "name": sensor.name,
            "state_topic": topic,
            "qos": 1,
            "value_template": sensor.template,
            "json_attributes_topic": topic,
            "json_attributes_template": _ATTRIBUTES,
        }
        of_money = _CURRENCY in sensor.unit
        if not of_money or self.currency:  # an amount of nobody knows what is a number
            component |= {"device_class": sensor.device_class} if sensor.device_class else {}
            component |= {"unit_of_measurement": sensor.unit.format(currency=self.currency)} if sensor.unit else {}
        if sensor.state_class:
            component["state_class"] = sensor.state_class
        if sensor.precision is not None:
            component["suggested_display_precision"] = sensor.precision
        if self.expire_after_s and metric not in COUNTERS:  # the last count of a meter stays true
            component["expire_after"] = self.expire_after_s
        return component
