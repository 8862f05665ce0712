"""One Tuya meter of the configuration: its table, and what is known of it from message to message.

Several may share a connection: the two clamps of one meter, the sub-devices of one gateway.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from config.settings import DeviceTable
from reading import Reading
from workers._tuya_points import Refused, decode, directions, is_number, is_phase
from workers._tuya_products import Point, products, recognised
from workers._tuya_session import Heard

_USUAL: Final = (1, 4, 5, 6, 17, 18, 19, 20)  # what to ask for while nobody knows what it is
_RECOGNISED_AFTER: Final = 3  # messages that it only sent by itself
_MOMENTARY: Final = ("voltage_v", "current_a", "power_w")


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a Tuya source."""

    id: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]{8,64}\Z")]
    host: str = ""
    key_env: str = ""
    version: Literal["auto", "3.1", "3.2", "3.3", "3.4", "3.5"] = "auto"
    product: str = "auto"
    channel: Literal["", "a", "b", "c"] = ""
    cid: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:-]{0,64}\Z")] = ""
    power_divisor: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0

    def __post_init__(self) -> None:
        if self.host and not is_address(self.host):
            raise ValueError(
                f'host = {self.host!r} of {self.name} is no IP address: write 192.168.1.20, say, or "" to have it found'
            )
        if self.version == "3.1" and not self.host:
            raise ValueError(f"{self.name} speaks 3.1, which proves nothing to who finds it: give its address as host")
        if self.product != "auto" and self.product not in products():
            raise ValueError(
                f"there is no product {self.product!r} for {self.name}: one of auto, {', '.join(products())}"
            )
        if self.product != "auto" and self.channel not in (channels := products()[self.product].channels):
            raise ValueError(f"channel = {self.channel!r} of {self.name}: a {self.product} has {_listed(channels)}")


class Wrong(enum.IntEnum):
    """What can be wrong with what a meter tells; the first that is gets shown."""

    PRODUCT = 1
    CHANNEL = 2
    FROZEN = 3
    VALUE = 4


class Meter:
    """Collects what was told since the last reading. Nothing is kept to be told twice."""

    def __init__(
        self,
        device: Device,
        points: Mapping[str, Point],
        refused: Counter[str],
        *,
        stale_after_s: float,
        frozen_after_s: float,
    ) -> None:
        self.device = device
        self.product = device.product if device.product != "auto" else ""
        self._points = products()[self.product].points if self.product else points
        self._refused = refused
        self._stale_after_s = stale_after_s
        self._frozen_after_s = frozen_after_s
        self._fresh: dict[str, float] = {}
        self._at_ns = 0
        self._wrong: dict[Wrong, str] = {}
        self._bad: dict[str, str] = {}  # by data point
        self._numbers: set[str] = set()  # what was seen, to recognise it by
        self._phases: set[str] = set()
        self._unasked = 0
        self._backwards: dict[str, tuple[bool, int]] = {}  # by data point, and since when
        self._shown: dict[str, float] = {}  # what it shows now, to see whether it ever changes
        self._changed_ns = 0
        self._seen_ns = 0
        if self._points:
            self._check_channel()

    @property
    def trouble(self) -> str:
        return self._wrong[min(self._wrong)] if self._wrong else ""

    @property
    def _signed(self) -> set[str]:
        """The data points that hold directions."""
        return {point.direction for point in self._points.values() if point.direction}

    @property
    def wanted(self) -> list[int]:
        """The data points to ask for."""
        own = {dp: point for dp, point in self._points.items() if self.device.channel in point.channels}
        wanted = {*own, *(point.direction for point in own.values() if point.direction)}
        return sorted(map(int, wanted)) if wanted else [*_USUAL]

    def take(self, heard: Heard, at_ns: int) -> None:
        """Take a message that arrived at `at_ns`."""
        dps = heard.dps
        if not self._points and not self._recognise(dps, is_answer=heard.is_answer):
            return
        for dp, is_backwards in directions(dps, self._signed).items():
            self._backwards[dp] = is_backwards, at_ns
        decoded = decode(
            dps,
            self._points,
            channel=self.device.channel,
            power_divisor=self.device.power_divisor,
            backwards=self._signs(at_ns),
        )
        self._note_bad(decoded.refusals, decoded.good)
        if not decoded.values or self._is_frozen(decoded.values, at_ns):
            return
        self._fresh |= decoded.values
        self._at_ns = at_ns

    def reading(self, now_ns: int) -> Reading | None:
        """Return what was told since the last reading, unless it has become too old meanwhile."""
        values, self._fresh = self._fresh, {}
        if not values:
            return None
        if now_ns - self._at_ns > self._stale_after_s * 1e9:
            self._refused["stale"] += 1
            return None
        return Reading(self.device.name, self._at_ns, values)

    def forget(self) -> None:
        """The device was away: what it said then says nothing about now."""
        self._fresh = {}
        self._backwards = {}

    def _signs(self, now_ns: int) -> dict[str, bool]:
        """The directions that are not too old to be those of a power that comes now."""
        oldest_ns = now_ns - self._stale_after_s * 1e9
        return {dp: is_backwards for dp, (is_backwards, at_ns) in self._backwards.items() if at_ns >= oldest_ns}

    def _recognise(self, dps: Mapping[str, Any], *, is_answer: bool) -> bool:
        """Find out what it is by what it tells. Only an answer is complete; some never give one."""
        self._numbers |= {dp for dp, value in dps.items() if is_number(value)}
        self._phases |= {dp for dp, value in dps.items() if is_phase(value)}
        self._unasked += not is_answer
        if not is_answer and self._unasked < _RECOGNISED_AFTER:
            return False
        self.product = recognised(self._numbers, self._phases)
        if not self.product:
            seen = ", ".join(sorted(self._numbers | self._phases | {*dps}, key=int)[:30])
            self._wrong[Wrong.PRODUCT] = (
                f"it is no product that is known (data points {seen or 'none'}); set product, or let the wizard write"
                " devices.json with its mapping"
            )
            return False
        self._wrong.pop(Wrong.PRODUCT, None)
        self._points = products()[self.product].points
        self._check_channel()
        return True

    def _check_channel(self) -> None:
        channels = sorted({channel for point in self._points.values() for channel in point.channels})
        if self.device.channel not in channels:
            self._wrong[Wrong.CHANNEL] = (
                f"it has no channel {self.device.channel!r}; set channel to {_listed(channels)}, or correct product"
            )

    def _note_bad(self, refusals: Mapping[str, Refused], good: list[str]) -> None:
        for dp in good:
            self._bad.pop(dp, None)
        for dp, refusal in refusals.items():
            self._refused[refusal.reason] += 1
            if dp not in self._bad:
                self._bad[dp] = f"data point {dp}: {refusal.what}, and is refused; {refusal.what_now}"
        if self._bad:
            self._wrong[Wrong.VALUE] = self._bad[min(self._bad)]
        else:
            self._wrong.pop(Wrong.VALUE, None)

    def _is_frozen(self, values: Mapping[str, float], at_ns: int) -> bool:
        """Say whether a device under load tells the very same for so long that it cannot measure any more.

        Volts of the mains do not stand still in their last digit. Without power nothing is invented by believing it.
        """
        momentary = {metric: value for metric, value in values.items() if metric in _MOMENTARY}
        if not momentary:
            return False
        if at_ns - self._seen_ns > self._stale_after_s * 1e9:
            self._shown = {}  # it was away
        self._seen_ns = at_ns
        shown = self._shown | momentary
        if shown != self._shown:
            self._shown, self._changed_ns = shown, at_ns
        still_s = (at_ns - self._changed_ns) / 1e9
        frozen = bool(
            self._frozen_after_s and still_s > self._frozen_after_s and shown.get("power_w") and len(shown) > 1
        )
        if frozen:
            self._refused["stale"] += 1
            self._wrong[Wrong.FROZEN] = (
                f"it has told the very same for {self._frozen_after_s / 60:g} minutes, from memory as it seems, and is"
                " not believed; switch it off and on, let it into the internet or update it in its app"
            )
        else:
            self._wrong.pop(Wrong.FROZEN, None)
        return frozen


def _listed(channels: list[str]) -> str:
    return " or ".join(f'"{channel}"' for channel in channels)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
