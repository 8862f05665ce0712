"""What every device said last, and how old that is: told by the tap, and to a new process by the history."""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from api import documents
from api.channels import Channels, parted
from api.snapshot import Now, now
from api.times import utc
from history.buckets import ESTIMATED, RESTAMPED, SECOND_NS, SIMULATED, UNSYNCED
from history.queries import History
from logbook.evidence import Known, outbox, states
from logbook.moment import Moment, boot_id
from reading import Clock, Quality, Reading, Value
from tap import Drop

log = logging.getLogger("api.live")

MOST_RECENT: Final = 24  # powers of each device that are kept at hand, as the seed's app wants them
_SEEDED_FROM_NS: Final = 3600 * SECOND_NS
_SAME_NS: Final = SECOND_NS // 2
_NEVER_NS: Final = -(2**62)  # what was before the machine was started has a negative time


@dataclass(slots=True)
class Heard:
    """What was heard of one device."""

    offset_ns: int = 0  # UTC minus CLOCK_MONOTONIC, as it was known at the newest reading
    clock: Clock | None = None  # None: the reading waits for the clock
    quality: Quality = Quality.MEASURED
    at_ns: int = _NEVER_NS  # CLOCK_MONOTONIC, the newest reading
    values: dict[str, tuple[int, Value]] = field(default_factory=dict)  # by metric: when, what
    recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))  # powers

    def take(self, reading: Reading) -> bool:
        """Remember a reading; one that came late changes nothing that is newer."""
        is_news = False
        for metric, value in reading.values.items():
            known = self.values.get(metric)
            if known is None or known[0] <= reading.at_ns:
                self.values[metric] = (reading.at_ns, value)
                is_news = True
        power_w = reading.values.get("power_w")
        if isinstance(power_w, int | float) and (not self.recent or self.recent[-1][0] < reading.at_ns):
            self.recent.append((reading.at_ns, float(power_w)))
        if reading.at_ns >= self.at_ns:
            self.at_ns, self.quality = reading.at_ns, reading.quality
        return is_news

    def remember(self, metric: str, at_ns: int, value: Value) -> bool:
        """Remember a value from before; it must be clearly newer, for the history is a little less exact."""
        known = self.values.get(metric)
        if known and at_ns - known[0] < _SAME_NS:
            return False
        self.values[metric] = (at_ns, value)
        self.at_ns = max(self.at_ns, at_ns)
        return True

    def fresh(self, since_ns: int) -> dict[str, Value]:
        """Return what was said since an instant; what a device no longer says goes, even if it says other things."""
        return {metric: value for metric, (at_ns, value) in sorted(self.values.items()) if at_ns >= since_ns}


class Live:
    """All devices. Belongs to the loop; nothing of it blocks."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._heard: dict[str, Heard] = {}
        self._offset_ns = 0  # the newest that the writer told
        self._clock: Clock | None = None
        self.version = 0  # rises with everything that changes

    def take(self, drop: Drop) -> None:
        """Take what came through the tap."""
        self._offset_ns, self._clock = drop.offset_ns, drop.clock
        for reading in drop.readings:
            name = f"{drop.source}/{reading.device}"
            if not self._channels.is_ours(name):
                continue
            heard = self._heard.setdefault(name, Heard())
            if heard.take(reading):
                self.version += 1
            if reading.at_ns >= heard.at_ns:
                heard.offset_ns, heard.clock = drop.offset_ns, drop.clock

    def seed(self, history: History) -> None:
        """Remember what was known before this process started; its age tells whether it still counts.

        A predecessor may have read from the tap what had not reached the history yet: ask again a little later.
        """
        at = now()
        offset_ns = at.utc_ns - at.monotonic_ns
        news: set[str] = set()
        try:
            for latest in history.latest(at.utc_ns):
                name = f"{latest.source}/{latest.device}"
                if self._channels.is_ours(name):
                    heard = self._heard.setdefault(name, Heard(offset_ns, Clock.SYNCED))
                    if heard.remember(latest.metric, latest.time_ns - offset_ns, latest.value):
                        news.add(name)
            for name in news:
                self._seed_recent(history, name, self._heard[name], offset_ns)
                self.version += 1
        except sqlite3.Error as error:
            log.warning("the last values cannot be read from the history: %s; they come with the next readings", error)

    def seed_registers(self, outbox_path: Path) -> None:
        """Do the same where there is no history: the registers of energy are in the outbox, and some powers."""
        at = now()
        boot, offset_ns = boot_id(), at.utc_ns - at.monotonic_ns
        try:
            with outbox(outbox_path) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'state'").fetchone():
                    return  # a new house, whose writer is making it just now
                channels = states(dict(connection.execute("SELECT key, value FROM state")), "ledger/", Known)
        except sqlite3.Error as error:
            log.warning("the last values cannot be read from the outbox: %s; they come with the next readings", error)
            return
        for name, known in channels.items():
            if not self._channels.is_ours(name):
                continue
            for metric, value, when in _remembered(known):
                at_ns = when.at_ns if when.boot == boot else when.utc_ns - offset_ns if when.utc_ns else None
                if at_ns is not None:
                    self._heard.setdefault(name, Heard(offset_ns, Clock.SYNCED)).remember(metric, at_ns, value)

    @staticmethod
    def _seed_recent(history: History, name: str, heard: Heard, offset_ns: int) -> None:
        """Read the last powers, and what is to be told of the newest one."""
        source, device = parted(name)
        metric = "power_w" if "power_w" in heard.values else max(heard.values, key=lambda one: heard.values[one][0])
        last_ns = heard.values[metric][0] + offset_ns
        found = history.series((source, device, metric), last_ns - _SEEDED_FROM_NS, last_ns + 1, 0)
        if metric == "power_w" and found.step_s == 0:
            powers = [
                (at_ns - offset_ns, last)
                for at_ns, last in zip(found.at_ns[-MOST_RECENT:], found.last[-MOST_RECENT:], strict=True)
                if isinstance(last, int | float)
            ]
            heard.recent = deque(powers, maxlen=MOST_RECENT)
        flags = found.flags[-1] if found.flags else 0
        if flags & (ESTIMATED | SIMULATED):
            heard.quality = Quality.SIMULATED if flags & SIMULATED else Quality.ESTIMATED
        if flags & (RESTAMPED | UNSYNCED):
            heard.clock = Clock.UNSYNCED if flags & UNSYNCED else Clock.RESTAMPED

    # ---- what is shown

    def document(self) -> documents.Live:
        """Return everything as it is now."""
        at = now()
        return documents.Live(utc(at.utc_ns), self._house(at), [*self._devices(at)])

    def power_now(self, channel: str) -> tuple[int, float] | None:
        """Return when the power of a channel was measured (UTC in ns), and how much it is; None if nobody knows."""
        power_w = self._power_w(channel, now())
        if power_w is None:
            return None
        heard = self._heard[channel]
        return heard.values["power_w"][0] + self._dated(heard)[0], power_w

    def recent(self, channel: str) -> list[tuple[int, float]]:
        """Return the last powers of a channel: when (UTC in ns), and how much."""
        heard = self._heard.get(channel)
        if not heard:
            return []
        offset_ns, _ = self._dated(heard)
        return [(at_ns + offset_ns, power_w) for at_ns, power_w in heard.recent]

    def seen(self, channel: str) -> tuple[int, list[str]] | None:
        """Return when a channel was last heard of (UTC in ns), and of which metrics."""
        heard = self._heard.get(channel)
        return (heard.at_ns + self._dated(heard)[0], sorted(heard.values)) if heard else None

    def last(self, channel: str, metric: str) -> Value | None:
        """Return what a channel said last, however long ago."""
        heard = self._heard.get(channel)
        return heard.values[metric][1] if heard and metric in heard.values else None

    @property
    def heard_of(self) -> list[str]:
        return sorted(self._heard)

    def stale(self) -> frozenset[str]:
        """Name the devices that are stale now."""
        at = now()
        return frozenset(name for name, heard in self._heard.items() if self._is_stale(name, heard, at))

    def _since_ns(self, name: str, at: Now) -> int:
        return at.monotonic_ns - round(self._channels.stale_after_s(name) * SECOND_NS)

    def _is_stale(self, name: str, heard: Heard, at: Now) -> bool:
        return heard.at_ns < self._since_ns(name, at)

    def _power_w(self, name: str, at: Now) -> float | None:
        heard = self._heard.get(name)
        power = heard.values.get("power_w") if heard else None
        if power is None or power[0] < self._since_ns(name, at) or isinstance(power[1], str):
            return None
        return float(power[1])

    def _house(self, at: Now) -> documents.HousePower:
        of = self._channels.of_house(name for name, heard in self._heard.items() if "power_w" in heard.values)
        powers = [self._power_w(name, at) for name in of]
        known = [power_w for power_w in powers if power_w is not None]
        total_w = round(sum(known), 6) if known else None
        unheard = any(
            name not in self._heard and self._channels.role(name) != "generation"
            for name in self._channels.configured
            if name in of or not any(self._channels.role(one) == "grid" for one in of)
        )
        return documents.HousePower(
            total_w,
            None if total_w is None else max(total_w, 0.0),
            None if total_w is None else max(-total_w, 0.0),
            complete=bool(of) and len(known) == len(of) and not unheard,
            stale=bool(of) and not known,
            of=of,
        )

    def _devices(self, at: Now) -> Iterator[documents.Device]:
        for name, heard in sorted(self._heard.items()):
            source, device = parted(name)
            stale = self._is_stale(name, heard, at)
            offset_ns, clock = self._dated(heard)
            yield documents.Device(
                source,
                device,
                self._channels.kind(name),
                self._channels.role(name),
                utc(heard.at_ns + offset_ns),
                round(max(0, at.monotonic_ns - heard.at_ns) / SECOND_NS, 3),
                stale,
                heard.quality.value,
                clock,
                {} if stale else heard.fresh(self._since_ns(name, at)),
                heard.fresh(_NEVER_NS) if stale else None,
                sleeps=self._channels.sleeps(name),
            )

    def _dated(self, heard: Heard) -> tuple[int, Literal["synced", "restamped", "unsynced", "held"]]:
        """Return what dates a reading; one that waited for the clock has its date as soon as that is set."""
        if heard.clock:
            return heard.offset_ns, heard.clock.value
        if self._clock is None:
            return self._offset_ns, "held"
        return self._offset_ns, "restamped" if self._clock is Clock.SYNCED else "unsynced"


def _remembered(known: Known) -> Iterator[tuple[str, float, Moment]]:
    """Yield what the writer remembers of a channel: metric, value and when that was."""
    if known.power:
        yield "power_w", known.power.power_uw / 1e6, known.power.seen
    if known.seen.boot and (known.power or known.counted):
        yield "energy_wh", known.energy_wh.told_uwh / 1e6, known.seen
        if known.energy_export_wh.told_uwh:
            yield "energy_export_wh", known.energy_export_wh.told_uwh / 1e6, known.seen
