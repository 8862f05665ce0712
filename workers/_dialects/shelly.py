"""The dialects of Shelly: of the first generation, and of the second and all later ones.

    [[sources.broker.devices]]
    name = "washing-machine"
    dialect = "shelly"
    topic = "shellyplus1pm-a8032ab12cd4"   # its id, or its MQTT prefix where that was changed
    channel = 1                # switch:0, relay/0 and emeter/0 are 1; phases a, b, c are 1, 2, 3, all together 0
    max_power_w = 3680.0

The first generation sends each number on a topic of its own. A relay's `energy`, in watt-minutes, begins at zero when
the plug restarts; it is taken all the same, because it falls then: what was counted is booked, and nothing is invented.

Later generations send JSON: a component's whole status (if the plug is set to "Generic status update over MQTT"), and
with every change what changed, with the time. A part yields what it carries; what it leaves out is not said again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from workers._dialects import Device, Dialect, Said, is_word
from workers._dialects.esphome import text_of
from workers._json import NotJson, parse
from workers._measured import Measured
from workers._utc import epoch_ns

_WHAT_NOW: Final = "see what publishes on the topic of the device: a Shelly writes JSON there"

# First generation: what each topic below `shellies/<id>/<part>/<n>/` is.
_RELAY: Final = {"power": ("power_w", 1), "energy": ("device_energy_wh", 1 / 60)}
_METER: Final = {
    "power": ("power_w", 1),
    "reactive_power": ("reactive_power_var", 1),
    "voltage": ("voltage_v", 1),
    "current": ("current_a", 1),
    "pf": ("power_factor", 1),
    "total": ("device_energy_wh", 1),
    "total_returned": ("device_energy_export_wh", 1),
}
_PARTS: Final[Mapping[str, Mapping[str, tuple[str, float]]]] = {
    "relay": _RELAY,
    "roller": _RELAY,
    "light": _RELAY,
    "emeter": _METER,
}

# Later generations: the fields of the components that measure one channel.
_FIELDS: Final = {
    "apower": "power_w",
    "act_power": "power_w",
    "aprt_power": "apparent_power_va",
    "voltage": "voltage_v",
    "current": "current_a",
    "pf": "power_factor",
    "freq": "frequency_hz",
    "total_act_energy": "device_energy_wh",
    "total_act_ret_energy": "device_energy_export_wh",
}
_NESTED: Final = {
    "aenergy": ("total", "device_energy_wh"),
    "ret_aenergy": ("total", "device_energy_export_wh"),
    "temperature": ("tC", "temperature_c"),
}
_COMPONENTS: Final = ("switch", "cover", "light", "pm1", "em1", "em1data")
# The fields of a three-phase meter, `em` and `emdata`: those of all phases, and of each behind the letter of its phase.
_ALL_PHASES: Final = {
    "total_act_power": "power_w",
    "total_aprt_power": "apparent_power_va",
    "total_current": "current_a",
    "total_act": "device_energy_wh",
    "total_act_ret": "device_energy_export_wh",
}
_PHASES: Final = "abc"
_THREE_PHASE: Final = ("em:0", "emdata:0")


class Shelly(Dialect):
    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._base = device.topic
        first = device.topic if device.topic.startswith("shellies/") else f"shellies/{device.topic}"
        self._wills = {f"{first}/online", f"{self._base}/online"}
        place = device.channel - 1
        self._numbers = {
            f"{first}/{part}/{place}/{field}": (field, *meaning)
            for part, fields in _PARTS.items()
            for field, meaning in fields.items()
            if place >= 0
        }
        alone = [f"{component}:{place}" for component in _COMPONENTS if place >= 0]
        together = _THREE_PHASE if device.channel <= len(_PHASES) else ()
        self._statuses = {f"{self._base}/status/{component}": component for component in (*alone, *together)}
        self._changes = f"{self._base}/events/rpc"

    def filters(self) -> list[str]:
        return [*self._numbers, *self._statuses, self._changes, *sorted(self._wills)]

    def _online(self, topic: str, payload: bytes) -> bool | None:
        return is_word(payload, b"true", b"false") if topic in self._wills else None

    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        measured = self._measured()
        time_ns = 0
        if topic in self._numbers:
            field, metric, scale = self._numbers[topic]
            measured.put(metric, text_of(payload), scale, name=field)
        elif topic in self._statuses:
            self._put(measured, self._statuses[topic], _object(payload))
        elif topic == self._changes:
            message = _object(payload)
            changes = message.get("params")
            if message.get("method") in ("NotifyStatus", "NotifyFullStatus") and isinstance(changes, dict):
                time_ns = epoch_ns(changes.get("ts"))
                for component in self._statuses.values():
                    self._put(measured, component, changes.get(component))
        return self._said(measured, at_ns, time_ns)

    def _put(self, measured: Measured, component: str, status: object) -> None:
        """Take what a status, or a part of one, has of our channel."""
        if not isinstance(status, dict):
            return
        fields: Mapping[str, str] = _FIELDS
        if component in _THREE_PHASE:
            phase = _PHASES[self.device.channel - 1] if self.device.channel else ""
            fields = {f"{phase}_{field}": metric for field, metric in _FIELDS.items()} if phase else _ALL_PHASES
        voltage, frequency = (
            next((field for field in fields if field.endswith(end)), "") for end in ("voltage", "freq")
        )
        dead = status.get(voltage) == 0  # a phase that is not connected: its frequency is noise, 198 Hz and such
        for field, metric in fields.items():
            if not (dead and field == frequency):
                measured.put(metric, status.get(field), name=field)
        for field, (inner, metric) in _NESTED.items():
            table = status.get(field)
            if isinstance(table, dict):
                measured.put(metric, table.get(inner), name=field)


def _object(payload: bytes) -> dict[str, Any]:
    content = parse(payload, _WHAT_NOW)
    if not isinstance(content, dict):
        raise NotJson("a message is no JSON object", _WHAT_NOW)
    return content
