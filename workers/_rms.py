"""RMS and real power from samples of the mains that were taken at known, but not at even times.

Nothing here runs between samples: a burst is taken first and understood afterwards. All its cycles are laid over each
other, and a sample stands for half of the way to each of its neighbours on that one cycle, which is a circle. So uneven
sampling does no harm, and what one cycle lacks because the machine had something else to do, the others have.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

FEWEST_A_CYCLE: Final = 20  # samples: with fewer, the peaks of a rectifier's current fall between them


class Samples(NamedTuple):
    """What one input showed."""

    at_ns: Sequence[int]  # rising
    codes: Sequence[float]  # of the converter


class Wave(NamedTuple):
    """What a burst comes to, in codes of the converter."""

    offset: float
    rms: float  # around the offset


def covers(samples: Samples, period_ns: float) -> bool:
    """Tell whether samples leave no hole larger than a twentieth of the cycle.

    >>> even = range(0, 20_000_000, 500_000)
    >>> covers(Samples(even, [0] * 40), 20e6), covers(Samples(even[:-3], [0] * 37), 20e6), covers(Samples([], []), 20e6)
    (True, False, False)
    >>> holed = [*even[:-3], *(at_ns + 40_000_000 for at_ns in even[30:])]
    >>> covers(Samples(holed, [0] * len(holed)), 20e6)
    True
    """
    if not samples.at_ns:
        return False
    on_circle = sorted(at_ns % period_ns for at_ns in samples.at_ns)
    before = [on_circle[-1] - period_ns, *on_circle]
    return max(at - last for at, last in zip(on_circle, before, strict=False)) <= period_ns / FEWEST_A_CYCLE


def wave(samples: Samples, period_ns: float) -> Wave:
    """Return offset and RMS in two passes over the same samples: there is nothing that has to settle.

    >>> wave(Samples([0, 5, 10, 15], [512, 612, 512, 412]), 20)
    Wave(offset=512.0, rms=70.71067811865476)
    """
    shares = _shares(samples.at_ns, period_ns)
    offset = sum(share * code for share, code in zip(shares, samples.codes, strict=True))
    mean_square = sum(share * (code - offset) ** 2 for share, code in zip(shares, samples.codes, strict=True))
    return Wave(offset, math.sqrt(mean_square))


def mean_product(currents: Samples, voltages: Samples, period_ns: float, *, phase_shift_deg: float) -> float:
    """Return the mean of current times voltage, in codes squared: real power but for the scale.

    The two are never sampled at once, so the voltage is looked up between two samples of it, at the time of each sample
    of the current and `phase_shift_deg` earlier: so much is the voltage's transformer ahead of the clamp. Raise
    ValueError where too few samples of the current have a voltage near enough.
    """
    voltage_offset = wave(voltages, period_ns).offset
    current_offset = wave(currents, period_ns).offset
    delay_ns = phase_shift_deg / 360 * period_ns
    times, products = [], []
    for at_ns, code in zip(currents.at_ns, currents.codes, strict=True):
        voltage = _between(voltages, at_ns - delay_ns, period_ns / FEWEST_A_CYCLE)
        if voltage is not None:
            times.append(at_ns)
            products.append((code - current_offset) * (voltage - voltage_offset))
    if not covers(Samples(times, products), period_ns):
        raise ValueError("too few samples of the current have a voltage beside them")
    return sum(share * product for share, product in zip(_shares(times, period_ns), products, strict=True))


def _shares(at_ns: Sequence[int], period_ns: float) -> list[float]:
    """Return the share of the cycle that each sample stands for; together they are 1.

    >>> _shares([0, 5, 10, 30], 20)
    [0.375, 0.25, 0.125, 0.25]
    """
    order = sorted(range(len(at_ns)), key=lambda index: at_ns[index] % period_ns)
    on_circle = [at_ns[index] % period_ns for index in order]
    before = [on_circle[-1] - period_ns, *on_circle[:-1]]
    after = [*on_circle[1:], on_circle[0] + period_ns]
    shares = [0.0] * len(order)
    for index, last, next_ in zip(order, before, after, strict=True):
        shares[index] = (next_ - last) / (2 * period_ns)
    return shares


def _between(samples: Samples, at_ns: float, longest_gap_ns: float) -> float | None:
    """Return the code at a time between two samples that are near enough, else None.

    >>> samples = Samples([1, 5, 9, 20], [10, 50, 90, 0])
    >>> [_between(samples, at, 5) for at in (0, 1, 3, 8, 9, 15, 20)]
    [None, 10.0, 30.0, 80.0, None, None, None]
    """
    after = bisect_right(samples.at_ns, at_ns)
    if not 0 < after < len(samples.at_ns):
        return None
    before_ns, after_ns = samples.at_ns[after - 1], samples.at_ns[after]
    if after_ns - before_ns > longest_gap_ns:
        return None
    before_code, after_code = samples.codes[after - 1], samples.codes[after]
    return before_code + (after_code - before_code) * (at_ns - before_ns) / (after_ns - before_ns)
