"""One register of energy: what is booked on it when a device's counter moves, or when only its power is known.

It never falls. A device's counter does: it is reset, rolls over, is set back to what was last saved, shows one wrong
number, or belongs to another device from today on. So each step of it is judged before it is booked, and whatever is
not plainly right waits until the next readings bear it out. Energy is in micro-watt-hours, as whole numbers: sums of
them are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from logbook.entries import Kind
from logbook.moment import NEVER, Moment, elapsed_ns

UWH: Final = 1_000_000  # micro-watt-hours of a watt-hour
_HALF_UW_NS: Final = 2 * 3_600 * 10**9  # how many halves of a µW·ns a µWh has
_UNKNOWN_STEP_UWH: Final = 100 * UWH  # the coarsest counters there are show tenths of a kilowatt-hour
_CLOSE_TO_THE_END: Final = 100  # of its numbers a counter that rolls over has at most the last one in so many to go
_HEADROOM: Final = 1.1  # over the rated power
_BEYOND_NS: Final = 366 * 86_400 * 10**9  # where nobody knows how long it was

# Where counters begin anew, in watt-hours: registers of 16, 24 and 32 bits that count 0.1, 1 or 10 Wh, and displays.
ROLLOVERS_UWH: Final = tuple(
    sorted(
        {2**bits * unit for bits in (16, 24, 32) for unit in (UWH // 10, UWH, 10 * UWH)}
        | {10**n * UWH for n in range(5, 10)}
    )
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is plausible for a channel."""

    rated_power_w: float = 25_000.0
    max_gap_ns: int = 300 * 10**9  # power is not integrated over a longer silence
    confirmations: int = 3  # readings that bear each other out before a strange step is believed

    def most_uwh(self, during_ns: int | None) -> int:
        """Return what can have been used in a time at most."""
        during_ns = _BEYOND_NS if during_ns is None else during_ns
        return int(self.rated_power_w * _HEADROOM * during_ns / 3600e9 * UWH)


class Suspect(Struct, array_like=True, frozen=True):
    """A reading of a counter that does not fit to the ones before."""

    value_uwh: int
    moment: Moment


class Counter(Struct, array_like=True):
    """A counter of a device as it was last believed, and what the register makes of it."""

    value_uwh: int
    seen: Moment
    still_ns: int = 0  # for how long it had not moved when it was last seen
    step_uwh: int = 0  # the smallest by which it ever rose: how finely it counts; 0: nobody knows yet
    suspects: list[Suspect] = []


class Step(Struct, gc=False):
    """What one reading of a counter came to."""

    booked_uwh: int = 0
    kind: Kind | None = None  # something to keep as evidence; None: it simply went on
    before_uwh: int = 0  # what the counter showed
    after_uwh: int = 0
    believed: bool = True  # False: it waits for more readings
    gap_ns: int = 0  # nobody read the counter for so long, and it went on
    since: Moment = NEVER  # when the counter had last been believed


def follow(
    counter: Counter, value_uwh: int, moment: Moment, rules: Rules, *, restarted: bool = False, replaced: bool = False
) -> Step:
    """Judge what a counter shows, and follow it. Call it in the order of time.

    `restarted`: the device itself says that it began anew; `replaced`: its owner says that it is another one.
    """
    since, before_uwh = counter.seen, counter.value_uwh
    since_ns = elapsed_ns(since, moment)
    if replaced:
        _settle(counter, value_uwh, moment)
        return Step(0, Kind.REPLACEMENT, before_uwh, value_uwh, since=since)
    rise_uwh = value_uwh - before_uwh
    # A coarse counter moves seldom and then by much: what counts is how long it had stood still.
    still_ns = None if since_ns is None else since_ns + counter.still_ns
    if rise_uwh == 0 or 0 < rise_uwh <= rules.most_uwh(still_ns) + (counter.step_uwh or _UNKNOWN_STEP_UWH):
        return _go_on(counter, value_uwh, moment, since_ns, rules)
    suspects = [*counter.suspects, Suspect(value_uwh, moment)][-rules.confirmations :]
    while len(suspects) > 1 and not _bear_out(suspects, rules):
        suspects = suspects[1:]
    counter.suspects = suspects
    if len(suspects) < rules.confirmations and not (restarted and value_uwh < before_uwh):
        return Step(believed=False, since=since)
    kind, booked_uwh = _judge(counter, suspects, rules, restarted=restarted)
    _settle(counter, value_uwh, moment)
    return Step(booked_uwh, kind, before_uwh, value_uwh, since=since)


def _go_on(counter: Counter, value_uwh: int, moment: Moment, since_ns: int | None, rules: Rules) -> Step:
    rise_uwh = value_uwh - counter.value_uwh
    step = Step(rise_uwh, since=counter.seen)
    if counter.suspects:
        wrong = counter.suspects[-1].value_uwh
        step.kind, step.before_uwh, step.after_uwh = Kind.GLITCH, counter.value_uwh, wrong
        counter.suspects = []
    if rise_uwh:
        counter.still_ns = 0
        if not 0 < counter.step_uwh <= rise_uwh:
            counter.step_uwh = rise_uwh
        if since_ns is None or since_ns > rules.max_gap_ns:
            step.gap_ns = since_ns or 0
            step.kind, step.before_uwh, step.after_uwh = Kind.ESTIMATED, counter.value_uwh, value_uwh
    else:
        counter.still_ns = min(counter.still_ns + (since_ns or 0), _BEYOND_NS)
    counter.value_uwh, counter.seen = value_uwh, moment
    return step


def _settle(counter: Counter, value_uwh: int, moment: Moment) -> None:
    """Go on from another number."""
    counter.value_uwh, counter.seen, counter.still_ns, counter.suspects = value_uwh, moment, 0, []


def _bear_out(suspects: Sequence[Suspect], rules: Rules) -> bool:
    """Whether the readings could be those of one counter that goes on."""
    first, last = suspects[0], suspects[-1]
    if any(later.value_uwh < earlier.value_uwh for earlier, later in itertools.pairwise(suspects)):
        return False
    most_uwh = rules.most_uwh(elapsed_ns(first.moment, last.moment)) + _UNKNOWN_STEP_UWH
    return last.value_uwh - first.value_uwh <= most_uwh


def _judge(counter: Counter, suspects: Sequence[Suspect], rules: Rules, *, restarted: bool) -> tuple[Kind, int]:
    """Return what happened to the counter, and what to book for it."""
    first, last = suspects[0], suspects[-1]
    since_uwh = last.value_uwh - first.value_uwh
    if first.value_uwh > counter.value_uwh:
        return Kind.JUMP, since_uwh
    away_ns = elapsed_ns(counter.seen, first.moment)
    possible_uwh = rules.most_uwh(None if away_ns is None else away_ns + counter.still_ns) + counter.step_uwh
    if away_ns is not None and not restarted:
        for largest_uwh in ROLLOVERS_UWH:
            over_uwh = largest_uwh - counter.value_uwh
            if over_uwh > 0 and over_uwh + first.value_uwh <= min(possible_uwh, largest_uwh // _CLOSE_TO_THE_END):
                return Kind.ROLLOVER, over_uwh + last.value_uwh
    # From zero: what it shows must have been countable since. A number that is not small against the old one is taken
    # for an older count instead: then only what is certainly new is booked.
    if first.value_uwh <= possible_uwh and 2 * first.value_uwh <= counter.value_uwh:
        return Kind.RESET, last.value_uwh
    return Kind.SETBACK, since_uwh


class Power(Struct, array_like=True):
    """The power of a device as last measured; import is positive."""

    power_uw: int
    seen: Moment
    rest: tuple[int, int] = (0, 0)  # of import and export: below a micro-watt-hour, not yet booked


def integrate(power: Power, power_uw: int, moment: Moment, rules: Rules) -> tuple[int, int]:
    """Go on from the last measured power to the next; return the energy that flowed in and out, in µWh.

    It is the area under the straight line between the two, on each side of zero. Over a silence longer than the gap
    that the rules allow nothing is booked, because nobody knows what was.
    """
    first_uw, during_ns = power.power_uw, elapsed_ns(power.seen, moment)
    power.power_uw, power.seen = power_uw, moment
    if during_ns is None or not 0 < during_ns <= rules.max_gap_ns:
        return 0, 0
    imported = exported = 0  # in half µW·ns: twice the area, so that it stays whole
    if first_uw >= 0 and power_uw >= 0:
        imported = (first_uw + power_uw) * during_ns
    elif first_uw <= 0 and power_uw <= 0:
        exported = -(first_uw + power_uw) * during_ns
    else:
        span_uw = abs(first_uw) + abs(power_uw)
        positive_uw, negative_uw = max(first_uw, power_uw), min(first_uw, power_uw)
        imported = positive_uw * positive_uw * during_ns // span_uw
        exported = negative_uw * negative_uw * during_ns // span_uw
    in_uwh, in_rest = divmod(power.rest[0] + imported, _HALF_UW_NS)
    out_uwh, out_rest = divmod(power.rest[1] + exported, _HALF_UW_NS)
    power.rest = (in_rest, out_rest)
    return in_uwh, out_uwh
