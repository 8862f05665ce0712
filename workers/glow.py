"""British smart meters by a Glow display of Hildebrand: on a broker of the house, or out of Hildebrand's cloud.

    [sources.smart]
    kind = "glow"
    enabled = true
    feed = "local"             # "local": the display publishes to a broker of the house; "cloud": Hildebrand's own
    host = ""                  # "": 127.0.0.1, and glowmqtt.energyhive.com for the cloud
    port = 0                   # 0: 1883, and 8883 with TLS
    tls = false                # the cloud is reached by TLS always
    ca_file = ""               # PEM file of who signed the broker's certificate; "": whom the system trusts
    username = ""              # cloud: that of the Bright app
    password_env = ""          # names the environment variable with the password
    client_id = ""             # "": made of the source's name, the host's name and the machine's number
    keep_session = true        # a broker of the house keeps what comes while wattherd is away
    prefix = "glow"            # local: what the display's topics begin with

    [[sources.smart.devices]]
    name = "grid"
    meter = "electricity"      # "electricity" or "gas"
    mac = ""                   # of the display, as 1234567890AB; "": of the only one there is. The cloud needs it
    max_power_w = 25000.0      # more than that is refused as a fault

What the display says again is no reading: the meter's own time tells. Energy is that of the meter's registers.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Any, Literal

from msgspec import Meta, structs

from config.settings import DeviceTable
from reading import Origin, Reading
from workers import Source, SourceError
from workers._broker import Arrived, BrokerTable, Listener, Routes, as_it_came, bad_topic, may_be_booked, shown
from workers._glow import MAX_POWER_W, Announced, Meter, News, decode_cloud, decode_local, joined
from workers._json import Refused

CLOUD_HOST = "glowmqtt.energyhive.com"
CLOUD_PORT = 8883
_PLAIN_PORT = 1883
_STALE_AFTER_S = 10.0  # of a message without the meter's own time
_MAC = re.compile(r"[0-9A-F]{12}")


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a Glow display: one meter."""

    meter: Meter = "electricity"
    mac: str = ""
    max_power_w: Annotated[float, Meta(gt=0, le=10_000_000)] = MAX_POWER_W

    def __post_init__(self) -> None:
        if self.mac and not _MAC.fullmatch(self.mac):
            raise ValueError(
                f"the mac of {self.name} is none: write 12 hexadecimal digits in capitals, such as 1234567890AB, as the"
                " display shows them"
            )


class Options(BrokerTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "glow"`."""

    host: str = ""
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    feed: Literal["local", "cloud"] = "local"
    prefix: str = "glow"
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError("no device is configured: add a [[sources.<name>.devices]] table with a name")
        if why := bad_topic(self.prefix, wildcards=False):
            raise ValueError(f'prefix {why}: the page of the display shows it, "glow" mostly')
        _refuse_twins(self.devices)
        if self.feed == "cloud":
            self._check_cloud()
        self.broker()  # checks what all brokers have in common

    def _check_cloud(self) -> None:
        if self.port == _PLAIN_PORT:
            raise ValueError(f"port {_PLAIN_PORT} is not encrypted: leave port out, the cloud has TLS at {CLOUD_PORT}")
        if not self.username or not self.password_env:
            raise ValueError("the cloud wants the user and the password of the Bright app: set username, password_env")
        if nameless := [device.name for device in self.devices if not device.mac]:
            raise ValueError(f"the cloud tells nobody which displays there are: set the mac of {nameless[0]}")

    def broker(self) -> BrokerTable:
        """Return the broker with what is not written here."""
        cloud = self.feed == "cloud"
        tls = self.tls or cloud
        return BrokerTable(
            kind=self.kind,
            host=self.host or (CLOUD_HOST if cloud else "127.0.0.1"),
            port=self.port or (CLOUD_PORT if tls else _PLAIN_PORT),
            tls=tls,
            ca_file=self.ca_file,
            username=self.username,
            password_env=self.password_env,
            client_id=self.client_id,
            keep_session=self.keep_session and not cloud,
        )


class Wrong(enum.IntEnum):
    """What can be wrong with a meter; the first that is gets shown."""

    FILTER = 1
    DISPLAYS = 2
    UNHEARD = 3
    PAYLOAD = 4


class _Tap:
    """One meter that is configured, and what is known of it from message to message."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.news = News()
        self.displays: set[str] = set()  # those that spoke of it, where the configuration names none
        self.wrong: dict[Wrong, str] = {}


class Glow(Source):
    """Hands what a display says to the meters that are configured."""

    Options = Options
    acknowledges = True

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._is_cloud = options.feed == "cloud"
        self._routes: Routes[_Tap] = Routes()
        for device in options.devices:
            tap = _Tap(device)
            for topic_filter in self._filters(device):
                self._routes.add(topic_filter, tap)
        broker = options.broker()
        # The cloud lets nothing be published, and keeps nothing for us: what comes from there is new.
        stale_after_s = 0.0 if self._is_cloud else _STALE_AFTER_S
        self._listener = Listener(
            name, broker, self.refused, keep_session=broker.keep_session, stale_after_s=stale_after_s
        )

    def open(self) -> None:
        self.troubles.clear()
        self._listener.open(self._routes.filters, self.kept, self.deposit)
        refused = [each for each in self._listener.refused_filters if self._routes.takers_of(each)]
        for topic_filter in refused:
            for tap in self._routes.takers_of(topic_filter):
                self._complain(tap, Wrong.FILTER, _refusal(topic_filter, is_cloud=self._is_cloud))
        if len(refused) == len(self._routes.filters):
            what, _, what_now = _refusal(refused[0], is_cloud=self._is_cloud).partition("; ")
            raise SourceError(what, what_now)

    def read(self) -> list[Reading]:
        return [reading for arrived in self._listener.take() for reading in self._decode(arrived)]

    def close(self) -> None:
        self._listener.close()

    def _filters(self, device: Device) -> list[str]:
        if self._is_cloud:
            return [f"SMART/HILD/{device.mac}"]
        display = f"{self.options.prefix}/{device.mac or '+'}"
        return [f"{display}/SENSOR/{device.meter}meter", f"{display}/STATE"]

    def _decode(self, arrived: Arrived) -> list[Reading]:
        taps = self._routes.takers(arrived.topic)
        if not taps:
            self._listener.stranger(arrived.topic)
        readings, refused = [], set()
        for tap in taps:
            try:
                announced = self._announced(tap, arrived)
            except Refused as refusal:
                refused.add(refusal.reason)
                self._complain(tap, Wrong.PAYLOAD, f"{refusal.what}; {refusal.what_now}")
                continue
            if announced:
                refused.update(announced.refused)
                readings += self._new(tap, announced, arrived)
        for reason in refused:
            self.refused[reason] += 1  # once a message, however many meters it is about
        return readings

    def _announced(self, tap: _Tap, arrived: Arrived) -> Announced | None:
        """Return what a message says of one meter; raise `Refused`."""
        if self._is_cloud:
            said = decode_cloud(arrived.topic, arrived.payload, tap.device.max_power_w)
            return next((each for each in said if each.meter == tap.device.meter), None)
        if (hears := joined(arrived.topic, arrived.payload)) is not None:
            what_now = "move it nearer to the meter, or ask for it to be paired again in the Bright app"
            self._complain(tap, Wrong.UNHEARD, "" if hears else f"the display does not hear its meter; {what_now}")
        return decode_local(arrived.topic, arrived.payload, tap.device.max_power_w)

    def _new(self, tap: _Tap, announced: Announced, arrived: Arrived) -> list[Reading]:
        self._complain(tap, Wrong.PAYLOAD, announced.trouble)
        if not announced.values:
            return []
        if arrived.retained:
            self.refused["stale"] += 1
            return []
        if not self._is_its_display(tap, announced, arrived):
            self.refused["unknown_device"] += 1
            return []
        if not tap.news.has(announced):
            self.refused["repeated"] += 1
            return []
        reading = _numbered(announced.reading(tap.device.name, arrived.at_ns))
        if not may_be_booked(reading, arrived):
            self.refused["stale"] += 1
            return []
        return [as_it_came(reading, arrived)]

    def _is_its_display(self, tap: _Tap, announced: Announced, arrived: Arrived) -> bool:
        """Whether it is clear whose registers these are: two meters in one series would be energy out of nothing."""
        if tap.device.mac:
            return True
        if arrived.fresh and len(tap.displays) < 2:  # what the broker kept may be of a display that is no more
            tap.displays.add(announced.mac)
        if len(tap.displays | {announced.mac}) == 1:
            return True
        if len(tap.displays) > 1:
            both = " and ".join(sorted(tap.displays))
            self._complain(tap, Wrong.DISPLAYS, f"two displays speak, {both}; set mac to the one that is meant")
        return False

    def _complain(self, tap: _Tap, wrong: Wrong, words: str) -> None:
        """Note what is wrong with a meter in one respect; without words nothing is."""
        tap.wrong.pop(wrong, None)
        if words:
            tap.wrong[wrong] = words
        if tap.wrong:
            self.troubles[tap.device.name] = tap.wrong[min(tap.wrong)]
        else:
            self.troubles.pop(tap.device.name, None)


def _numbered(reading: Reading) -> Reading:
    """Let the meter's time be the number of the message too: one that comes twice is booked once."""
    if reading.origin is None:
        return reading
    origin = Origin("meter", reading.origin.time_ns // 10**9, reading.origin.time_ns)
    return structs.replace(reading, origin=origin)


def _refusal(topic_filter: str, *, is_cloud: bool) -> str:
    if is_cloud:
        return (
            f"the cloud does not let this account hear {shown(topic_filter)}; ask Hildebrand to enable the account for"
            " MQTT, and see that mac is that of your display"
        )
    return (
        f"the broker does not let us hear {shown(topic_filter)}; allow the user to read it, in the broker's access list"
    )


def _refuse_twins(devices: tuple[Device, ...]) -> None:
    names: set[str] = set()
    for device in devices:
        if device.name in names:
            raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
        names.add(device.name)
    for number, device in enumerate(devices):
        for other in devices[:number]:
            if device.meter == other.meter and (device.mac == other.mac or not device.mac or not other.mac):
                raise ValueError(
                    f"{other.name} and {device.name} may be the same {device.meter} meter: its energy would be counted"
                    " twice; set the mac of each, or remove one"
                )
