"""The dialect of our own ESP32 pulse readers.

    [[sources.broker.devices]]
    name = "house"
    dialect = "esp32"
    topic = "esp32-meter"      # as in wattherd/pulse/esp32-meter/state; the message names it too
    pulses_per_kwh = 1000.0    # printed on the meter: imp/kWh

`workers/_esp32.py` tells what a message holds. It has a number and a date of its own, so one that comes twice is booked
once, and one that the broker kept for hours is booked at the time it was measured.
"""

from __future__ import annotations

from workers import _esp32
from workers._dialects import Device, Dialect, Refused, Said, is_word


class Esp32(Dialect):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._base = f"wattherd/pulse/{device.topic}"
        meter = _esp32.Device(name=device.name, pulses_per_kwh=device.pulses_per_kwh, max_power_w=device.max_power_w)
        self._meters = {device.topic: meter}

    def filters(self) -> list[str]:
        return [f"{self._base}/state", f"{self._base}/status"]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        return is_word(payload, b"online", b"offline") if topic == f"{self._base}/status" else None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        if topic != f"{self._base}/state":
            return Said(trouble=self._trouble)
        try:
            messages = _esp32.decode(payload, self._meters, at_ns, "")
        except Refused as refused:
            if refused.reason != "unknown_device":
                raise
            what_now = f'let its messages have "device": "{self.device.topic}", or correct the topic it publishes on'
            raise Refused(refused.reason, "a message names another device than its topic", what_now) from refused
        self._troubles["pulses"] = messages[-1].trouble
        return Said(tuple(message.reading for message in messages), None, self._trouble)
