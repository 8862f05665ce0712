"""What a device is doing, by its power: thresholds with hysteresis, and a new state only when it has lasted."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from msgspec import Struct

from logbook.moment import Moment, elapsed_ns


@dataclass(frozen=True, slots=True)
class StateRules:
    """The states of a channel, from low power to high, and the thresholds between them, in watts.

    A threshold is passed upwards only above it by half the hysteresis, and downwards only below it by as much.
    """

    names: tuple[str, ...]
    thresholds_w: tuple[float, ...]
    hysteresis_w: float = 0.0
    dwell_ns: int = 0


class State(Struct, array_like=True):
    """Where a channel is, and where it seems to be going."""

    level: int  # index of the state
    next_level: int
    since: Moment  # when it began to seem so


def look(state: State | None, power_w: float, moment: Moment, rules: StateRules) -> State:
    """Return the state after one more look at the power. What flows out of the house counts like what flows in."""
    power_w = abs(power_w)
    if state is None or state.level >= len(rules.names):
        level = bisect_right(rules.thresholds_w, power_w)
        return State(level, level, moment)
    level = _level(state.level, power_w, rules)
    if level == state.level:
        return State(level, level, moment) if state.next_level != level else state
    since = state.since if level == state.next_level else moment
    lasted_ns = elapsed_ns(since, moment)
    if lasted_ns is None or lasted_ns >= rules.dwell_ns:
        return State(level, level, moment)
    return State(state.level, level, since)


def _level(level: int, power_w: float, rules: StateRules) -> int:
    """Return the level that the power speaks for, seen from the present one.

    >>> rules = StateRules(("idle", "running"), (50.0,), hysteresis_w=10.0)
    >>> [_level(0, watts, rules) for watts in (49, 54, 56)], [_level(1, watts, rules) for watts in (51, 46, 44)]
    ([0, 0, 1], [1, 1, 0])
    """
    half_w = rules.hysteresis_w / 2
    while level < len(rules.thresholds_w) and power_w > rules.thresholds_w[level] + half_w:
        level += 1
    while level > 0 and power_w < rules.thresholds_w[level - 1] - half_w:
        level -= 1
    return level
