"""Compares channels that measure the same energy: by how much they differ each day and now, and by which factor.

The first view of a reconciliation is the one to trust. Everything is asked of the history; nothing is kept here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from config.settings import ReconciliationTable
from history.buckets import HOUR_NS
from history.periods import edges
from history.queries import Energy, History

_HALF_HOUR_NS: Final = HOUR_NS // 2
_FRESH_S: Final = 60.0  # an older power is not that of now
_LEAST_WH: Final = 10.0  # many meters count in steps of that: a smaller difference is none
_LEAST_W: Final = 10.0  # meters that are not read at one instant differ by as much all the time
_LEAST_DAY_WH: Final = 100.0  # of less, a day says nothing about a factor
_LEAST_DAYS: Final = 3
_MOST_ESTIMATED_HALF_HOURS: Final = 2


@dataclass(frozen=True, slots=True)
class Day:
    """A local day, of 23, 24 or 25 hours. It counts if nothing is missing."""

    start_ns: int
    end_ns: int
    energies_wh: tuple[float | None, ...]  # of each view, the one to trust first; None: not known
    missing: tuple[str, ...] = ()  # "plugs/fridge: nothing was measured about its first midnight"
    estimated_half_hours: int = 0  # of the channel that has most of them

    @property
    def complete(self) -> bool:
        return not self.missing

    def difference_wh(self, view: int) -> float | None:
        """By how much a view measured more than the one to trust."""
        trusted_wh, energy_wh = self.energies_wh[0], self.energies_wh[view]
        return None if trusted_wh is None or energy_wh is None else energy_wh - trusted_wh


@dataclass(frozen=True, slots=True)
class Total:
    """All complete days together."""

    days: int
    hours: float
    energies_wh: tuple[float, ...]

    def difference_wh(self, view: int) -> float:
        return self.energies_wh[view] - self.energies_wh[0]

    def unaccounted_w(self, view: int) -> float | None:
        """What the one to trust measured on average and this view did not."""
        return -self.difference_wh(view) / self.hours if self.hours else None


@dataclass(frozen=True, slots=True)
class Present:
    """The powers of each view now; None where one of its channels has said nothing for a minute."""

    powers_w: tuple[float | None, ...]
    missing: tuple[str, ...] = ()

    def unaccounted_w(self, view: int) -> float | None:
        trusted_w, power_w = self.powers_w[0], self.powers_w[view]
        return None if trusted_w is None or power_w is None else trusted_w - power_w

    def is_negative(self, view: int, tolerance_percent: float) -> bool:
        """Whether this view measures more than all there is, and by more than can be chance."""
        left_w, trusted_w = self.unaccounted_w(view), self.powers_w[0]
        if left_w is None or trusted_w is None:
            return False
        return left_w < -max(_LEAST_W, abs(trusted_w) * tolerance_percent / 100)


@dataclass(frozen=True, slots=True)
class Factor:
    """By what a view is to be multiplied to measure the same as the one to trust."""

    factor: float | None  # None: see why_not
    days: int  # that it is from
    least: float = math.nan  # of a single day
    most: float = math.nan
    why_not: str = ""


def names(table: ReconciliationTable) -> list[str]:
    """Name the views, all in the same manner.

    >>> names(ReconciliationTable(views=("smart/grid", "plugs/tv+ plugs/fridge")))
    ['smart/grid', 'plugs/tv + plugs/fridge']
    """
    return [" + ".join(channels) for channels in table.channels]


def midnight_before(at_ns: int, timezone: str) -> int:
    """Return when the local day began."""
    return edges(at_ns, at_ns + 1, "day", timezone)[0]


def days_of(history: History, table: ReconciliationTable, from_ns: int, to_ns: int, timezone: str) -> list[Day]:
    """Compare the whole local days that lie in [from_ns, to_ns)."""
    cuts = [cut for cut in edges(from_ns, to_ns, "day", timezone) if from_ns <= cut <= to_ns]
    if len(cuts) < 2:
        return []
    columns = [[_Column.of(history, name, cuts, timezone) for name in channels] for channels in table.channels]
    return [_day(columns, number, start_ns, end_ns) for number, (start_ns, end_ns) in enumerate(pairwise(cuts))]


def total_of(days: Sequence[Day]) -> Total | None:
    """Add up the complete days; None if there is none."""
    whole = [day for day in days if day.complete]
    if not whole:
        return None
    columns = zip(*([energy_wh or 0.0 for energy_wh in day.energies_wh] for day in whole), strict=True)
    hours = sum(day.end_ns - day.start_ns for day in whole) / HOUR_NS
    return Total(len(whole), hours, tuple(math.fsum(column) for column in columns))


def present(history: History, table: ReconciliationTable, now_ns: int, lag_s: float) -> Present:
    """Tell what each view shows now; `lag_s` is how long a power may take into the history."""
    latest = {(each.source, each.device): each for each in history.latest(now_ns) if each.metric == "power_w"}
    powers_w: list[float | None] = []
    missing = []
    for channels in table.channels:
        found = [latest.get(_parts(name)) for name in channels]
        fresh = [each.value for each in found if each and abs(each.age_s) <= _FRESH_S + lag_s]
        numbers = [value for value in fresh if not isinstance(value, str)]
        powers_w.append(math.fsum(numbers) if len(numbers) == len(channels) else None)
        for name, each in zip(channels, found, strict=True):
            if each is None:
                missing.append(f"{name} tells no power")
            elif abs(each.age_s) > _FRESH_S + lag_s:
                missing.append(f"{name} has told no power for {each.age_s:.0f} s")
    return Present(tuple(powers_w), tuple(missing))


def percent(difference_wh: float, trusted_wh: float) -> float | None:
    """Return a difference in percent of the one to trust; None of nothing.

    >>> percent(-5.0, 200.0), percent(5.0, 0.0)
    (-2.5, None)
    """
    return 100 * difference_wh / trusted_wh if trusted_wh > 0 else None


def is_outside(difference_wh: float, trusted_wh: float, tolerance_percent: float) -> bool:
    """Whether two energies differ by more than they may.

    >>> [is_outside(*each, 2.0) for each in ((-19.0, 1000.0), (-21.0, 1000.0), (9.0, 0.0), (11.0, 0.0))]
    [False, True, False, True]
    """
    return abs(difference_wh) > max(_LEAST_WH, trusted_wh * tolerance_percent / 100)


def suggested(days: Sequence[Day], view: int, tolerance_percent: float) -> Factor:
    """Suggest the factor that makes a view right, if it is wrong by the same factor every day."""
    pairs = [pair for day in days if (pair := _telling(day, view))]
    if len(pairs) < _LEAST_DAYS:
        return Factor(
            None,
            len(pairs),
            why_not=f"it takes {_LEAST_DAYS} complete days of {_LEAST_DAY_WH / 1000:g} kWh or more; "
            + ("there is none" if not pairs else f"there are {len(pairs)}" if len(pairs) > 1 else "there is one"),
        )
    ratios = [trusted_wh / energy_wh for trusted_wh, energy_wh in pairs]
    factor = math.fsum(pair[0] for pair in pairs) / math.fsum(pair[1] for pair in pairs)
    spread_percent = 100 * statistics.pstdev(ratios, factor) / factor
    if spread_percent > tolerance_percent:
        why_not = f"the days differ too much for one factor: {min(ratios):.3f} to {max(ratios):.3f}"
        return Factor(None, len(pairs), min(ratios), max(ratios), why_not)
    return Factor(factor, len(pairs), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class _Column:
    """What one channel has for each day."""

    name: str
    energies: list[Energy]
    missing: list[str]
    estimated: list[int]  # half hours

    @classmethod
    def of(cls, history: History, name: str, cuts: Sequence[int], timezone: str) -> _Column:
        source, device = _parts(name)
        channel = (source, device, "energy_wh")
        energies = history.energy([channel], cuts[0], cuts[-1], "day", timezone)[channel]
        counted = any(
            (each.source, each.device, each.metric) == (source, device, "device_energy_wh")
            for each in history.devices()
        )
        first_ns = cuts[0] - _HALF_HOUR_NS
        steps = history.energy_steps(channel, first_ns, cuts[-1] + _HALF_HOUR_NS)
        sure = [_is_sure(step, counted=counted) for step in steps]
        places = [(cut - first_ns) // _HALF_HOUR_NS for cut in cuts]
        met = [all(sure[place - 1 : place + 1]) for place in places]
        return cls(
            name,
            energies,
            [_missing(*row) for row in zip(energies, met, met[1:], strict=False)],
            [sure[start:end].count(False) for start, end in pairwise(places)],
        )


def _day(columns: Sequence[Sequence[_Column]], number: int, start_ns: int, end_ns: int) -> Day:
    energies_wh = []
    for view in columns:
        amounts = [column.energies[number].amount for column in view]
        known = [amount for amount in amounts if amount is not None]
        energies_wh.append(math.fsum(known) if len(known) == len(amounts) else None)
    every = [column for view in columns for column in view]
    missing = [f"{column.name}: {column.missing[number]}" for column in every if column.missing[number]]
    return Day(start_ns, end_ns, tuple(energies_wh), tuple(missing), max(column.estimated[number] for column in every))


def _is_sure(step: Energy, *, counted: bool) -> bool:
    """Whether a half hour was measured.

    A meter that counts by itself and shows the same before and after a silence has counted nothing in it. One whose
    power is integrated may have missed something.
    """
    if step.amount is None:
        return False
    return not step.estimated or (counted and step.amount == 0)


def _missing(energy: Energy, begins: bool, ends: bool) -> str:
    """Say why a day does not count, or nothing."""
    if energy.amount is None:
        return "nothing is known of this day"
    if begins and ends:
        return ""
    which = "its last" if begins else "its first" if ends else "either"
    return f"nothing was measured about {which} midnight"


def _telling(day: Day, view: int) -> tuple[float, float] | None:
    """Return what both measured on a day that says something about a factor."""
    trusted_wh, energy_wh = day.energies_wh[0], day.energies_wh[view]
    if not day.complete or trusted_wh is None or energy_wh is None:
        return None
    if min(trusted_wh, energy_wh) < _LEAST_DAY_WH or day.estimated_half_hours > _MOST_ESTIMATED_HALF_HOURS:
        return None
    return trusted_wh, energy_wh


def _parts(name: str) -> tuple[str, str]:
    source, _, device = name.partition("/")
    return source, device
