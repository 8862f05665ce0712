"""The dialect of everything else: the configuration says where the numbers stand, what they are and in which unit.

    [[sources.broker.devices]]
    name = "heat-pump"
    dialect = "json"
    topic = "heating/meter/json"   # the whole topic
    values = [
        { path = "em.power", unit = "kW" },            # the unit tells that this is power_w
        { path = "em.phases[0].voltage", unit = "V" },
        { path = "em.total", unit = "kWh" },           # device_energy_wh: a register that is never set back
        { path = "em.sold", metric = "device_energy_export_wh", unit = "kWh" },
        { path = "em.heat", metric = "temperature_c", scale = 0.1 },
    ]

The path "" is a payload that is nothing but a number. A number may be in quotes. What is missing or null is left out.
"""

from __future__ import annotations

from workers._dialects import Dialect, Said
from workers._dialects._values import found
from workers._dialects.esphome import text_of
from workers._json import parse


class Json(Dialect):
    def filters(self) -> list[str]:
        return [self.device.topic]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        return None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        if topic != self.device.topic:
            return Said(trouble=self._trouble)
        measured = self._measured()
        values = self.device.values
        bare = all(not value.path for value in values)
        content = text_of(payload) if bare else parse(payload, "see what publishes on the topic of the device")
        for value in values:
            value.put(measured, found(content, value.path), self.device.pulses_per_kwh)
        return self._said(measured, at_ns)
