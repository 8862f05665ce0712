"""Finds states in the powers that a device had: where between them it hardly ever was, a threshold lies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

from history.queries import Columns
from logbook.moment import Moment
from writer.states import State, StateRules, look

LEAST_W: Final = 0.5  # below it everything is off
_PER_DECADE: Final = 40
_SMOOTHING: Final = 2.5  # bins, 15 %: as much as one load differs from itself
_APART: Final = 0.3  # decades, a factor of two: nearer powers are one state
_DEEPEST: Final = 0.5  # a valley is lower than half of the lower hill beside it
_LEAST_SHARE: Final = 0.002  # of the time, that a state has
_LEAST_READINGS: Final = 100
_LEAST_OF_STATE: Final = 5
_LEAST_S: Final = 3600.0
_LONGEST_S: Final = 300.0  # that a reading stands for
_QUIET: Final = 0.01  # of the lower hill: as good as never


class TooLittle(Exception):  # noqa: N818 - a judgement on measurements
    """These powers tell no states: what, and what now."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A power, and for how long it stands."""

    at_ns: int
    power_w: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to write into the table of a channel."""

    thresholds_w: list[float]
    hysteresis_w: float
    dwell_s: float


def samples_of(columns: Columns) -> list[Sample]:
    """Return what was measured. What flows out of the house counts like what flows in, as it does for the states."""
    powers = columns.mean if columns.step_s else columns.last
    found = [
        (at_ns, abs(power_w))
        for at_ns, power_w in zip(columns.at_ns, powers, strict=True)
        if isinstance(power_w, float | int)
    ]
    usual_s = float(columns.step_s) or _usual_s([at_ns for at_ns, _ in found])
    ends = [*(at_ns for at_ns, _ in found[1:]), found[-1][0] + round(usual_s * 1e9)] if found else []
    return [
        Sample(at_ns, power_w, usual_s if columns.step_s else min(_LONGEST_S, (end - at_ns) / 1e9))
        for (at_ns, power_w), end in zip(found, ends, strict=True)
    ]


def shares(samples: Sequence[Sample], per_decade: int) -> dict[int, float]:
    """Return for which part of the time the power was in each bin, which begins at 10^(number / per_decade) W."""
    total_s = math.fsum(sample.lasts_s for sample in samples) or 1.0
    found: dict[int, float] = {}
    for sample in samples:
        place = bin_of(sample.power_w, per_decade)
        found[place] = found.get(place, 0.0) + sample.lasts_s / total_s
    return found


def bin_of(power_w: float, per_decade: int) -> int:
    """Return the number of the bin of a power.

    >>> bin_of(0.0, 10) == bin_of(LEAST_W, 10), bin_of(10, 10), bin_of(99.9, 10), bin_of(100, 10)
    (True, 10, 19, 20)
    """
    return math.floor(math.log10(max(power_w, LEAST_W)) * per_decade + 1e-9)


def proposed(samples: Sequence[Sample], count: int) -> Proposal:
    """Propose thresholds for `count` states. Raise `TooLittle` where there are not so many."""
    lasted_s = math.fsum(sample.lasts_s for sample in samples)
    if len(samples) < _LEAST_READINGS or lasted_s < _LEAST_S:
        raise TooLittle(
            f"{len(samples)} readings of {lasted_s / 3600:.1f} hours are too few to learn from;"
            " let it run for a day with all that it does"
        )
    valleys = _valleys(samples)
    if len(valleys) < count - 1:
        raise TooLittle(_too_few(len(valleys) + 1, count))
    deepest = sorted(sorted(valleys, key=lambda valley: (valley.depth, -valley.width))[: count - 1], key=_middle)
    thresholds_w = [_plain(10 ** (_middle(valley) / _PER_DECADE)) for valley in deepest]
    hysteresis_w = _hysteresis_w(samples, thresholds_w)
    return Proposal(thresholds_w, hysteresis_w, _dwell_s(samples, thresholds_w, hysteresis_w))


def spells_s(samples: Sequence[Sample], rules: StateRules) -> list[tuple[int, float]]:
    """Return for how long the device is in which state, one after the other, as the writer would see it."""
    state: State | None = None
    levels = []
    for sample in samples:
        state = look(state, sample.power_w, Moment("", sample.at_ns, sample.at_ns), rules)
        levels.append((state.level, sample.lasts_s))
    return [
        (level, math.fsum(lasts_s for _, lasts_s in run)) for level, run in groupby(levels, key=lambda each: each[0])
    ]


@dataclass(frozen=True, slots=True)
class _Valley:
    """Bins [first, last] in which the device hardly ever was; the depth is that of the hill, 0 is never."""

    first: int
    last: int
    depth: float

    @property
    def width(self) -> int:
        return self.last - self.first


def _middle(valley: _Valley) -> float:
    return (valley.first + valley.last + 1) / 2


def _valleys(samples: Sequence[Sample]) -> list[_Valley]:
    """Return the valleys between hills that are states of their own."""
    density = _smoothed(shares(samples, _PER_DECADE))
    first = min(density)
    heights = [density[place] for place in sorted(density)]
    hills = [
        place
        for place in range(len(heights))
        if heights[place] > (heights[place - 1] if place else 0.0)
        and heights[place] >= (heights[place + 1] if place + 1 < len(heights) else 0.0)
    ]
    bins = [bin_of(sample.power_w, _PER_DECADE) - first for sample in samples]
    total_s = math.fsum(sample.lasts_s for sample in samples)
    while len(hills) > 1:
        valleys = [_between(heights, *pair) for pair in pairwise(hills)]
        edges = [-1.0, *map(_middle, valleys), float(len(heights) + 1)]
        inside = [[n for n, place in enumerate(bins) if low <= place < high] for low, high in pairwise(edges)]
        weak = [
            number
            for number, those in enumerate(inside)
            if len(those) < _LEAST_OF_STATE or math.fsum(samples[n].lasts_s for n in those) < total_s * _LEAST_SHARE
        ]
        near = [
            number
            for number, (pair, valley) in enumerate(zip(pairwise(hills), valleys, strict=True))
            if valley.depth > _DEEPEST or pair[1] - pair[0] < _APART * _PER_DECADE
        ]
        if near:
            # Of two that are one, the higher is it.
            number = max(near, key=lambda each: valleys[each].depth)
            hills.pop(number if heights[hills[number]] < heights[hills[number + 1]] else number + 1)
        elif weak:
            hills.pop(min(weak, key=lambda each: len(inside[each])))
        else:
            return [_Valley(valley.first + first, valley.last + first, valley.depth) for valley in valleys]
    return []


def _between(heights: Sequence[float], left: int, right: int) -> _Valley:
    """Return the valley between two hills: the lowest place, and what is as good as it on both sides."""
    low = min(range(left, right + 1), key=heights.__getitem__)
    lower_hill = min(heights[left], heights[right])
    quiet = max(heights[low], lower_hill * _QUIET)
    first = last = low
    while heights[first - 1] <= quiet and first - 1 > left:
        first -= 1
    while heights[last + 1] <= quiet and last + 1 < right:
        last += 1
    return _Valley(first, last, heights[low] / lower_hill)


def _smoothed(found: dict[int, float]) -> dict[int, float]:
    reach = math.ceil(3 * _SMOOTHING)
    weights = [math.exp(-((away / _SMOOTHING) ** 2) / 2) for away in range(-reach, reach + 1)]
    return {
        place: math.fsum(
            found.get(place + away, 0.0) * weight
            for away, weight in zip(range(-reach, reach + 1), weights, strict=True)
        )
        for place in range(min(found) - reach, max(found) + reach + 1)
    }


def _hysteresis_w(samples: Sequence[Sample], thresholds_w: Sequence[float]) -> float:
    """Propose four times the noise below each threshold, a tenth of it at least, where there is room for that."""
    wanted_w, room_w = 0.0, math.inf
    for number, threshold_w in enumerate(thresholds_w):
        below_w = thresholds_w[number - 1] if number else -1.0
        above_w = thresholds_w[number + 1] if number + 1 < len(thresholds_w) else math.inf
        lower = [sample.power_w for sample in samples if below_w < sample.power_w <= threshold_w]
        upper = [sample.power_w for sample in samples if threshold_w < sample.power_w <= above_w]
        steps = [abs(after - before) for before, after in pairwise(lower)]
        noise_w = statistics.median(steps) / 0.6745 / math.sqrt(2) if steps else 0.0
        wanted_w = max(wanted_w, 4 * noise_w, threshold_w / 10)
        room_w = min(
            room_w,
            2 * (threshold_w - _quantile(lower, 0.99)),
            2 * (_quantile(upper, 0.01) - threshold_w),
            threshold_w - max(below_w, 0.0),
        )
    return _plain(max(0.0, min(wanted_w, room_w)), down=True)


def _dwell_s(samples: Sequence[Sample], thresholds_w: Sequence[float], hysteresis_w: float) -> float:
    """Propose how long a state must last, so that single odd readings are none."""
    rules = StateRules(tuple(map(str, range(len(thresholds_w) + 1))), tuple(thresholds_w), hysteresis_w)
    usual_s = statistics.median(sample.lasts_s for sample in samples)
    inner = spells_s(samples, rules)[1:-1]
    odd = [lasted_s for _, lasted_s in inner if lasted_s < 2.5 * usual_s]
    return float(math.ceil(3 * usual_s)) if odd else 0.0


def _too_few(found: int, wanted: int) -> str:
    if found == 1:
        return (
            "there is no valley: the power goes evenly from low to high, so no threshold tells states apart."
            " Choose one by hand (thresholds_w), or learn from days on which it did all that it does: --days 30"
        )
    return f"there are valleys for {found} states only, not for {wanted}; name so many: --states"


def _quantile(values: Sequence[float], part: float) -> float:
    """Return the value that a part of all is below.

    >>> _quantile([3.0, 1.0, 2.0], 0.99), _quantile([3.0, 1.0, 2.0], 0.01)
    (3.0, 1.0)
    """
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def _plain(power_w: float, *, down: bool = False) -> float:
    """Round to two digits, as a person would write it.

    >>> _plain(47.35), _plain(1234.0), _plain(0.1999, down=True), _plain(0.0)
    (47.0, 1200.0, 0.19, 0.0)
    """
    if power_w <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(power_w))
    scaled = power_w * 10.0**digits
    return round((math.floor(scaled) if down else round(scaled)) / 10.0**digits, max(0, digits))


def _usual_s(times_ns: Sequence[int]) -> float:
    steps = [(after - before) / 1e9 for before, after in pairwise(times_ns)]
    return min(_LONGEST_S, statistics.median(steps)) if steps else 0.0
