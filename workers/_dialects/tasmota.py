"""The dialect of Tasmota: plugs and meters that report every few minutes (command TelePeriod), or when they are asked.

    [[sources.broker.devices]]
    name = "fridge"
    dialect = "tasmota"
    topic = "plug1"            # its Topic; with another FullTopic than the usual one that: "home/%prefix%/plug1"
    channel = 1                # of a device with several: its place in the lists; 0 is the sum of all
    pulses_per_kwh = 1000.0    # of a meter on a counter input
    max_power_w = 3680.0

`Total` and `ExportActive` are its lifetime registers, which it keeps over restarts. `Today` and `Yesterday` follow from
them, and `Time` is local without saying which zone: none of these is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from workers._dialects import Device, Dialect, Said, is_word
from workers._json import NotJson, parse
from workers._measured import Measured

_WHAT_NOW: Final = "see what publishes on the topic of the device: Tasmota writes JSON"

# What exists once in every channel, and in one number for all of them where there is no list.
_OF_A_CHANNEL: Final = {
    "Power": ("power_w", 1),
    "ApparentPower": ("apparent_power_va", 1),
    "ReactivePower": ("reactive_power_var", 1),
    "Current": ("current_a", 1),
    "Factor": ("power_factor", 1),
    "Total": ("device_energy_wh", 1000),
    "ExportActive": ("device_energy_export_wh", 1000),
}
_SUMS: Final = ("Power", "Total", "ExportActive")
# What all channels of a device may share.
_SHARED: Final = {"Voltage": ("voltage_v", 1), "Frequency": ("frequency_hz", 1)}


class Tasmota(Dialect):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        full = device.topic if "%prefix%" in device.topic else f"%prefix%/{device.topic}"
        tele, stat = full.replace("%prefix%", "tele"), full.replace("%prefix%", "stat")
        self._will = f"{tele}/LWT"
        self._reports = (f"{tele}/SENSOR", f"{stat}/STATUS8", f"{stat}/STATUS10")

    def filters(self) -> list[str]:
        return [*self._reports, self._will]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        return is_word(payload, b"online", b"offline") if topic == self._will else None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        if topic not in self._reports:
            return Said(trouble=self._trouble)
        content = parse(payload, _WHAT_NOW)
        if not isinstance(content, dict):
            raise NotJson("a message is no JSON object", _WHAT_NOW)
        content = content.get("StatusSNS", content)
        measured = self._measured()
        energy, counter = _table(content, "ENERGY"), _table(content, "COUNTER")
        if energy:
            self._put_energy(measured, energy)
        elif (count := counter.get(f"C{self.device.channel}")) is not None:
            measured.put("pulses", count, name="counter")
            if "pulses" in measured.values:
                measured.put("device_energy_wh", measured.values["pulses"], 1000 / self.device.pulses_per_kwh)
        return self._said(measured, at_ns)

    def _put_energy(self, measured: Measured, energy: Mapping[str, Any]) -> None:
        ours = [energy[field] for field in (*_OF_A_CHANNEL, *_SHARED) if field in energy]  # TotalTariff is a list too
        channels = max((len(value) for value in ours if isinstance(value, list)), default=0)
        channel = self.device.channel
        if channel > max(channels, 1):
            measured.refuse("power_w", "malformed", f"it has no channel {channel}", "correct channel of the device")
            return
        for field, (metric, scale) in _OF_A_CHANNEL.items():
            raw = energy.get(field)
            if isinstance(raw, list):
                raw = _sum(raw) if channel == 0 and field in _SUMS else _at(raw, channel)
            elif channel and channels:
                continue  # one number beside lists is that of all channels together
            measured.put(metric, raw, scale, name=field)
        for field, (metric, scale) in _SHARED.items():
            raw = energy.get(field)
            measured.put(metric, _at(raw, channel) if isinstance(raw, list) else raw, scale, name=field)


def _at(values: list[Any], channel: int) -> Any:
    return values[channel - 1] if 1 <= channel <= len(values) else None


def _sum(values: list[Any]) -> float | None:
    """Add what all channels have; without one of them it is no sum."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return sum(numbers) if numbers and len(numbers) == len(values) else None


def _table(content: Any, name: str) -> dict[str, Any]:
    table = content.get(name) if isinstance(content, dict) else None
    return table if isinstance(table, dict) else {}
