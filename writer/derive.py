"""What the writer adds to a reading before it is committed: its date, and what its registers are now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgspec

from config.prices import Prices
from config.settings import ChannelTable, TariffTable
from logbook.entries import Entry, Kind
from logbook.events import Gap
from logbook.moment import Moment, elapsed_ns
from reading import Origin, Reading
from tariff import Tariff
from writer.clock import WallClock
from writer.errands import Clerk, Now
from writer.ledger import Booking, Channel, Terms, copy_of, new_channel
from writer.outbox import Intake, Outbox
from writer.register import Rules
from writer.states import StateRules

_MOST_CLAIMED_AGE_NS: Final = 24 * 3600 * 10**9
_MOST_WAITED_NS: Final = 31 * 24 * 3600 * 10**9  # in the queue of a broker
_GAP_NS: Final = 300 * 10**9  # "no gap of more than five minutes" is what an audit proves


class Derivation:
    """Works on what the next commit takes in, and changes nothing that is committed."""

    def __init__(self, outbox: Outbox, clock: WallClock, terms: Mapping[str, Terms]) -> None:
        """`terms` is what the owner says of channels, by source/device."""
        self._outbox = outbox
        self._clock = clock
        self._booking = Booking(terms)

    def derived(self, source: str, reading: Reading, intake: Intake) -> list[Reading]:
        """Return a reading with its date and its registers, behind the estimates that it brings to light."""
        boot = ""
        if reading.origin:
            boot = reading.origin.boot
            dated = _dated(reading, reading.origin, self._clock)
            if dated is None:
                intake.undated += 1
                return []
            reading = dated
        key = f"{source}/{reading.device}"
        channel = intake.channels.get(key)
        if channel is None:
            channel = intake.channels[key] = self._opened(key, intake)
        clock = self._clock
        at_ns, seen = reading.at_ns, channel.seen
        moment = Moment(clock.boot, at_ns, at_ns + clock.offset_ns if clock.trusted else 0)
        if seen.boot:
            silent_ns = elapsed_ns(seen, moment)
            if silent_ns is None or silent_ns > _GAP_NS:
                intake.gaps.append(Gap(key, seen, moment))
        return self._booking.book(key, channel, reading, moment, device_boot=boot, entries=intake.entries)

    def do_errands(self, intake: Intake) -> bool:
        """Carry out what commands have asked for; True if there was something, and somebody waits for the commit."""
        errands = [one for one in self._outbox.books.errands() if one[0] not in intake.answers]
        if errands:
            clock = self._clock
            now = Now(clock.boot, time.monotonic_ns(), clock.offset_ns, clock.trusted)
            clerk = Clerk(self._outbox, intake, now)
            for number, text in errands:
                clerk.settle(number, text)
        return bool(errands)

    def _opened(self, key: str, intake: Intake) -> Channel:
        """Return the channel as it was last committed, or as whom it inherits, or a new one."""
        known = self._outbox.channels.get(key)
        if known:
            return copy_of(known)
        old = intake.heirs.get(key) or self._outbox.heirs.get(key)
        ancestor = intake.channels.get(old) or self._outbox.channels.get(old) if old else None
        if not old or not ancestor:
            return new_channel()
        intake.retired.add(old)
        moment = Moment(self._clock.boot, time.monotonic_ns(), 0)
        intake.entries.append(Entry(key, "energy_wh", Kind.RENAME, moment, note=f"was {old}"))
        return copy_of(ancestor)


def terms_of(
    channels: Mapping[str, ChannelTable],
    tariffs: Mapping[str, TariffTable],
    prices: Mapping[str, Prices],
    timezone: str,
) -> dict[str, Terms]:
    """Return what the configuration says of channels, as the ledger wants it."""
    contracts = {name: Tariff.of(table, timezone, prices) for name, table in tariffs.items()}
    return {
        name: Terms(
            Rules(table.rated_power_w, round(table.max_gap_s * 1e9)),
            StateRules(table.states, table.thresholds_w, table.hysteresis_w, round(table.dwell_s * 1e9))
            if table.states
            else None,
            contracts.get(table.tariff),
        )
        for name, table in channels.items()
    }


def _dated(reading: Reading, origin: Origin, clock: WallClock) -> Reading | None:
    """Take the device's own date where it can be true: not in the future, and within a day.

    What waited on the way may be older, and without a date that is believed it is None: it would stand there as new.
    """
    at_ns = reading.at_ns
    believed = False
    if origin.time_ns and clock.trusted:
        age_ns = at_ns + clock.offset_ns - origin.time_ns
        believed = 0 < age_ns < (_MOST_WAITED_NS if origin.late else _MOST_CLAIMED_AGE_NS)
        at_ns -= age_ns if believed else 0
    if origin.late and not believed:
        return None
    return msgspec.structs.replace(reading, at_ns=at_ns, origin=None)
