"""The dialect of Zigbee2MQTT: one JSON object a device, with all that is known of it.

    [[sources.broker.devices]]
    name = "kettle"
    dialect = "zigbee2mqtt"
    topic = "zigbee2mqtt/kettle"   # base topic and friendly name
    channel = 1                # of a device with several sockets: power_l1 is 1, power_l2 is 2
    max_power_w = 3680.0

With every report Zigbee2MQTT repeats what it remembers of the other values, and at its start all of them. Set
`advanced: last_seen: ISO_8601` there: then what was not measured anew is told apart, and the rest has the time at which
it was. A power factor comes in percent from some devices and as a ratio from others, and is not taken.
"""

from __future__ import annotations

from typing import Any, Final

from workers._dialects import Device, Dialect, Said, is_word
from workers._json import NotJson, Refused, parse
from workers._measured import Values
from workers._utc import date_ns, epoch_ns

_WHAT_NOW: Final = "see what publishes on the topic of the device: Zigbee2MQTT writes JSON (`output: json`)"

_FIELDS: Final = {
    "power": ("power_w", 1),
    "voltage": ("voltage_v", 1),
    "current": ("current_a", 1),
    "ac_frequency": ("frequency_hz", 1),
    "energy": ("device_energy_wh", 1000),
    "produced_energy": ("device_energy_export_wh", 1000),
}


class Zigbee2Mqtt(Dialect):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._last: tuple[int, Values] = (0, {})  # when the device was heard last, and what it measured

    def filters(self) -> list[str]:
        return [self.device.topic, f"{self.device.topic}/availability"]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        if topic != f"{self.device.topic}/availability":
            return None
        try:
            content = parse(payload, _WHAT_NOW)
        except Refused:
            return is_word(payload, b"online", b"offline")  # as it was until 2022
        state = content.get("state") if isinstance(content, dict) else None
        return {"online": True, "offline": False}.get(state) if isinstance(state, str) else None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        if topic != self.device.topic:
            return Said(trouble=self._trouble)
        content = parse(payload, _WHAT_NOW)
        if not isinstance(content, dict):
            raise NotJson("a message is no JSON object", _WHAT_NOW)
        measured = self._measured()
        several = any(f"{field}_l1" in content for field in _FIELDS)
        suffix = f"_l{self.device.channel}" if self.device.channel and (several or self.device.channel > 1) else ""
        for field, (metric, scale) in _FIELDS.items():
            measured.put(metric, content.get(field + suffix), scale, name=field + suffix)
        seen_ns = _seen_ns(content)
        if measured.values:
            if seen_ns and (seen_ns, measured.values) == self._last:
                return Said(trouble=self._trouble, refused=("repeated",))
            self._last = (seen_ns, measured.values)
        return self._said(measured, at_ns, seen_ns)


def _seen_ns(content: dict[str, Any]) -> int:
    """Return when the device was heard last (UTC), 0 where that is not told."""
    seen = content.get("last_seen")
    return date_ns(seen) or epoch_ns(seen)
