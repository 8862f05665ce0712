"""The dialect of ESPHome's `mqtt:` component: every sensor has a topic, every message is a bare number.

    [[sources.broker.devices]]
    name = "house"
    dialect = "esphome"
    topic = "meter-node"       # the node's name, or its topic_prefix
    pulses_per_kwh = 1000.0    # of a pulse meter: imp/kWh
    values = [                 # which sensor is what; path as in meter-node/sensor/house_power/state
        { path = "house_power", unit = "pulses/min" },   # `pulse_meter` without filters; "W" where a filter makes watts
        { path = "house_total", unit = "pulses" },       # its `total`
        { path = "house_voltage", unit = "V" },
    ]

A number does not say what it is, so the configuration has to. The node's counters begin at zero when it starts: what it
counts before its first message is measured, what it had counted after its last one is lost, nothing is invented.
"""

from __future__ import annotations

from workers._dialects import Device, Dialect, Refused, Said, is_word

_MOST_DIGITS = 64


class EspHome(Dialect):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._values = {f"{device.topic}/sensor/{value.path}/state": value for value in device.values}

    def filters(self) -> list[str]:
        return [*self._values, f"{self.device.topic}/status"]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        return is_word(payload, b"online", b"offline") if topic == f"{self.device.topic}/status" else None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        value = self._values.get(topic)
        if value is None:
            return Said(trouble=self._trouble)
        measured = self._measured()
        value.put(measured, text_of(payload), self.device.pulses_per_kwh)
        return self._said(measured, at_ns)


def text_of(payload: bytes) -> str:
    """Return a payload that is a bare number, as text; raise `Refused`.

    >>> text_of(b" 1492.3\\n"), text_of(b"nan")
    ('1492.3', 'nan')
    """
    if len(payload) > _MOST_DIGITS or not payload.isascii():
        raise Refused("malformed", "a message is no number", "see what publishes on the topic of the device")
    return payload.decode("ascii").strip()
