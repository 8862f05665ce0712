"""What devices say over MQTT: one small decoder a dialect, each a file of this folder named as the dialect.

A decoder is pure: topic and payload in, readings out. It knows no broker, and keeps only what its protocol forces it
to. Several devices may want the same topic (two channels of one plug): whoever subscribes hands a message to each.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from config.settings import DeviceTable
from reading import Origin, Reading
from workers._dialects._values import Value as Value
from workers._json import Refused as Refused
from workers._measured import Measured

MOST_PAYLOAD_BYTES: Final = 16 * 1024
_MOST_TOPIC_BYTES: Final = 256
_WITH_VALUES: Final = ("esphome", "json")


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of kind mqtt."""

    dialect: Literal["esp32", "esphome", "tasmota", "shelly", "zigbee2mqtt", "json"]
    topic: str  # what the device calls itself in topics; of json the whole topic
    channel: Annotated[int, Meta(ge=0, le=64)] = 1  # of a device with several; 0: the sum of its phases
    pulses_per_kwh: Annotated[float, Meta(gt=0, le=1_000_000)] = 1000.0
    max_power_w: Annotated[float, Meta(gt=0, le=10_000_000)] = 25_000.0  # more than that is a fault of the device
    values: tuple[Value, ...] = ()  # of json and esphome, whose numbers do not say what they are

    def __post_init__(self) -> None:
        if not self.topic or {*self.topic} & {*"+#\0"} or self.topic[0] == "$":
            raise ValueError(f"the topic {self.topic!r} names no device: write it without + and #")
        if len(self.topic.encode()) > _MOST_TOPIC_BYTES or self.topic.startswith("/") or self.topic.endswith("/"):
            raise ValueError(f"the topic of {self.name} is longer than {_MOST_TOPIC_BYTES} bytes, or has a / at an end")
        if bool(self.values) != (self.dialect in _WITH_VALUES):
            needs = (
                "needs values: one { path, unit } a number" if not self.values else "has no values: it knows its own"
            )
            raise ValueError(f"the dialect {self.dialect} {needs}")
        meanings = [value.meaning for value in self.values]
        if twice := sorted({meaning for meaning in meanings if meanings.count(meaning) > 1}):
            raise ValueError(f"two values of {self.name} are its {twice[0]}: which of them counts cannot be known")
        if len(self.values) > 1 and not all(value.path for value in self.values):
            raise ValueError(f"a value of {self.name} has no path: a payload is a bare number or has several, not both")
        if self.dialect == "esphome" and any(not value.path or {*value.path} & {*"+#/\0"} for value in self.values):
            raise ValueError(f"a path of {self.name} names no sensor: write it as in <node>/sensor/<path>/state")


class Said(NamedTuple):
    """What one message came to."""

    readings: tuple[Reading, ...] = ()  # of the configured device only; mostly one or none
    online: bool | None = None  # whether the device is there, where the message tells it
    trouble: str = ""  # what is wrong with the device now: "what; what now"
    refused: tuple[str, ...] = ()  # `vitals.REFUSALS` of single values that were not let in while the rest was


class Dialect(ABC):
    """The decoder of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._troubles: dict[str, str] = {}  # by metric

    @abstractmethod
    def filters(self) -> list[str]:
        """Name the topics that this device speaks on, as filters to subscribe to. None has a wildcard."""

    def take(self, topic: str, payload: bytes, retained: bool, at_ns: int) -> Said:
        """Decode what arrived at `at_ns` (CLOCK_MONOTONIC); raise `Refused`. A topic that is not ours says nothing.

        The values of a retained message are of unknown age and are left out; whether the device is there is not.
        """
        if len(payload) > MOST_PAYLOAD_BYTES:
            what = f"a message of {len(payload)} bytes is too long"
            raise Refused("too_large", what, f"no meter says more than {MOST_PAYLOAD_BYTES} bytes: see who sends it")
        online = self._online(topic, payload)
        if online is not None or retained:
            return Said(online=online, trouble=self._trouble)
        return self._hear(topic, payload, at_ns)

    @abstractmethod
    def _online(self, topic: str, payload: bytes) -> bool | None:
        """Whether the device is there; None where the message is about something else."""

    @abstractmethod
    def _hear(self, topic: str, payload: bytes, at_ns: int) -> Said:
        """Decode a message that is about values, or about nothing of ours."""

    def _measured(self) -> Measured:
        return Measured(self.device.max_power_w)

    def _said(self, measured: Measured, at_ns: int, time_ns: int = 0) -> Said:
        """Return what was measured; `time_ns` is when by the device's own clock, 0 where it does not tell."""
        self._troubles |= dict.fromkeys(measured.values, "") | measured.troubles
        origin = Origin("", 0, time_ns) if time_ns else None
        reading = Reading(self.device.name, at_ns, measured.values, origin=origin)
        return Said((reading,) if measured.values else (), None, self._trouble, tuple(measured.refused))

    @property
    def _trouble(self) -> str:
        return next(filter(None, self._troubles.values()), "")


def dialect_of(device: Device) -> Dialect:
    """Make the decoder of a device."""
    module = importlib.import_module(f"workers._dialects.{device.dialect}")
    [dialect] = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Dialect) and member.__module__ == module.__name__
    ]
    made: Dialect = dialect(device)
    return made


def is_word(payload: bytes, yes: bytes, no: bytes) -> bool | None:
    """Whether a payload is one of two words, in any case; None if it is neither.

    >>> is_word(b"Online", b"online", b"offline"), is_word(b"offline", b"online", b"offline"), is_word(b"", b"a", b"b")
    (True, False, None)
    """
    return {yes: True, no: False}.get(payload.strip().lower())
