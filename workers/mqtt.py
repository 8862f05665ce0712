"""Meters that speak over an MQTT broker: ESP32 readers, ESPHome, Tasmota, Shelly, Zigbee2MQTT, or any JSON.

    [sources.broker]
    kind = "mqtt"
    enabled = true
    host = "127.0.0.1"
    port = 1883                # 8883 is usual with TLS
    tls = false
    ca_file = ""               # PEM file of who signed the broker's certificate; "": whom the system trusts
    username = ""
    password_env = ""          # names the environment variable with the password
    client_id = ""             # "": made of the source's name, the host's name and the machine's number
    keep_session = true        # the broker keeps what comes while wattherd is away
    stale_after_s = 10.0       # what may have waited longer is booked only if the device dated it; 0: all is new
    status_topic = ""          # says "online", or "offline" when wattherd is gone, retained
    watch = []                 # more topics, such as "tele/#": a device there that is not configured is told

    [[sources.broker.devices]]
    name = "boiler"
    dialect = "tasmota"        # "esp32", "esphome", "tasmota", "shelly", "zigbee2mqtt" or "json"
    topic = "boiler"           # what the device calls itself in its topics; of json the whole topic
    channel = 1                # of a device with several
    pulses_per_kwh = 1000.0    # of a pulse reader: what is printed on the meter
    max_power_w = 25000.0      # more than that is refused as a fault
    values = []                # of json and esphome: {path = "power", metric = "power_w", unit = "", scale = 1.0}

One connection serves all devices. A message is acknowledged when its readings are safe, so the broker keeps it until
then, also while wattherd is away. What waited there, or anywhere, is never booked as new: see `workers/_fence.py`.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import Annotated, Any

from msgspec import Meta

from reading import Reading
from workers import Source
from workers._broker import Arrived, BrokerTable, Listener, Routes, as_it_came, bad_topic, may_be_booked, shown
from workers._dialects import Device, Dialect, dialect_of
from workers._json import Refused

_SHORTEST_STALE_S = 4.0  # four markers in that time, and a round takes up to one second
_WELL_AFTER_NS = 60 * 10**9  # without a refusal: a device may speak well on one topic and badly on another


class Options(BrokerTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "mqtt"`."""

    stale_after_s: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    status_topic: str = ""
    watch: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        BrokerTable.__post_init__(self)
        if not self.devices:
            raise ValueError("no device is configured: add a [[sources.<name>.devices]] table with a name")
        _refuse_twins(self.devices)
        for each in self.watch:
            if why := bad_topic(each, wildcards=True):
                raise ValueError(f'watch: {each!r} {why}: write one such as "tele/#"')
        if self.status_topic and (why := bad_topic(self.status_topic, wildcards=False)):
            raise ValueError(f'status_topic {why}: write one such as "wattherd/status"')
        if 0 < self.stale_after_s < _SHORTEST_STALE_S:
            raise ValueError(f"stale_after_s is too short to be proved: at least {_SHORTEST_STALE_S:g}, or 0 for never")
        if not self.stale_after_s and self.keep_session:
            raise ValueError(
                "stale_after_s = 0 would book what the broker kept as if it were new: set keep_session = false with it"
            )


class Wrong(enum.IntEnum):
    """What can be wrong with a device; the first that is gets shown."""

    FILTER = 1
    OFFLINE = 2
    AGE = 3
    PAYLOAD = 4
    SAID = 5


class Mqtt(Source):
    """Hands each message to the decoders of the devices that it concerns."""

    Options = Options
    acknowledges = True

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._routes: Routes[Dialect] = Routes()
        for device in options.devices:
            dialect = dialect_of(device)
            for each in dialect.filters():
                self._routes.add(each, dialect)
        self._listener = Listener(
            name,
            options,
            self.refused,
            keep_session=options.keep_session,
            stale_after_s=options.stale_after_s,
            status_topic=options.status_topic,
        )
        self._wrong: dict[str, dict[Wrong, str]] = {}
        self._refused_ns: dict[str, int] = {}  # when a device was refused last
        self._in_hand: tuple[str, bytes] | None = None

    def open(self) -> None:
        self._wrong.clear()
        self.troubles.clear()
        filters = [*dict.fromkeys([*self._routes.filters, *self.options.watch])]
        self._listener.open(filters, self.kept, self.deposit)
        for each in self._listener.refused_filters:
            for dialect in self._routes.takers_of(each):
                what = f"the broker does not let us hear {shown(each)}"
                self._complain(dialect, Wrong.FILTER, f"{what}; allow the user to read it, in the broker's access list")

    def read(self) -> list[Reading]:
        return [reading for arrived in self._listener.take() for reading in self._decode(arrived)]

    def close(self) -> None:
        self._listener.close()

    def _decode(self, arrived: Arrived) -> list[Reading]:
        dialects = self._routes.takers(arrived.topic)
        if not dialects:
            self._listener.stranger(arrived.topic)
            return []
        if self._in_hand == (arrived.topic, arrived.payload):
            # It broke a decoder, and the broker sends it again: it must not keep all others from being read for ever.
            self._in_hand = None
            self.refused["malformed"] += 1
            return []
        self._in_hand = arrived.topic, arrived.payload
        refused: Counter[str] = Counter()
        readings = [reading for dialect in dialects for reading in self._take(dialect, arrived, refused)]
        for reason in refused:
            self.refused[reason] += 1  # once a message, however many devices it is for
        self._in_hand = None
        return readings

    def _take(self, dialect: Dialect, arrived: Arrived, refused: Counter[str]) -> list[Reading]:
        """Return what a message says of one device, if it is known when that was."""
        try:
            said = dialect.take(arrived.topic, arrived.payload, arrived.retained, arrived.at_ns)
        except Refused as refusal:
            refused[refusal.reason] += 1
            self._refused_ns[dialect.device.name] = arrived.at_ns
            self._complain(dialect, Wrong.PAYLOAD, f"{refusal.what}; {refusal.what_now}")
            return []
        refused.update(said.refused)
        if said.online is not None:
            self._note_presence(dialect, online=said.online)
        elif arrived.retained:
            refused["stale"] += 1
        sound = [as_it_came(reading, arrived) for reading in said.readings if may_be_booked(reading, arrived)]
        if len(sound) < len(said.readings):
            refused["stale"] += 1
            if self._listener.is_unfenced:
                what = (
                    f"its age is not known: the broker does not pass on what we publish to {self._listener.fence.topic}"
                )
                what_now = "allow this user to write and read wattherd/fence/#, in the broker's access list"
                self._complain(dialect, Wrong.AGE, f"{what}; {what_now}")
        self._complain(dialect, Wrong.SAID, said.trouble)
        if sound and arrived.fresh:
            self._complain(dialect, Wrong.AGE)
            self._complain(dialect, Wrong.OFFLINE)
        if sound and arrived.at_ns - self._refused_ns.get(dialect.device.name, 0) > _WELL_AFTER_NS:
            self._complain(dialect, Wrong.PAYLOAD)
        return sound

    def _note_presence(self, dialect: Dialect, *, online: bool) -> None:
        what = "it is offline, as its last word or the broker says; see that it has power and reaches the broker"
        self._complain(dialect, Wrong.OFFLINE, "" if online else what)

    def _complain(self, dialect: Dialect, wrong: Wrong, words: str = "") -> None:
        """Note what is wrong with a device in one respect; without words nothing is."""
        name = dialect.device.name
        all_wrong = self._wrong.setdefault(name, {})
        all_wrong.pop(wrong, None)
        if words:
            all_wrong[wrong] = words
        if all_wrong:
            self.troubles[name] = all_wrong[min(all_wrong)]
        else:
            self.troubles.pop(name, None)


def _refuse_twins(devices: tuple[Device, ...]) -> None:
    """See that each name, and each thing that can be heard, is there once."""
    names: set[str] = set()
    heard: dict[tuple[object, ...], str] = {}
    for device in devices:
        if device.name in names:
            raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
        names.add(device.name)
        what = (device.dialect, device.topic, device.channel)
        for value in device.values or (None,):
            key = (*what, value.path, value.metric) if value else what
            if (other := heard.setdefault(key, device.name)) != device.name:
                raise ValueError(
                    f"{other} and {device.name} are the same {device.dialect} device, topic {device.topic!r} channel"
                    f" {device.channel}: its energy would be counted twice; remove one"
                )
