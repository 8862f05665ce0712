"""What a channel cost in a stretch of time, worked out anew from its registers in the history, by half hours."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from itertools import pairwise
from typing import Final

from history.buckets import BOOKINGS, HOUR_NS
from history.periods import Period, edges
from history.queries import Energy, History
from tariff import Tariff, added

HALF_HOUR_NS: Final = HOUR_NS // 2
UNPRICED: Final = "without a price"
_HALF_HOUR_S: Final = 1800
_NOTHING: Final = Decimal(0)


@dataclass(slots=True)
class Share:
    """Energy that has one name of a band, with what it cost, or earned."""

    uwh: int = 0
    money: Decimal = _NOTHING

    def add(self, uwh: int, money: Decimal) -> None:
        self.uwh += uwh
        self.money = added(self.money, money)


@dataclass(slots=True)
class Bill:
    """What was bought and sold from `start_ns` to `end_ns`."""

    start_ns: int
    end_ns: int
    standing: Decimal = _NOTHING
    bought: dict[str, Share] = field(default_factory=dict)  # by the name of the band; "": where no band fits
    sold: dict[str, Share] = field(default_factory=dict)  # all of it under "": bands are named for what is bought
    unpriced_uwh: int = 0  # bought or sold while the tariff had no price
    estimated_uwh: int = 0  # booked over a gap, or for a half hour without a reading
    corrected_uwh: int = 0  # what a person booked for this time, less what was booked in it and belongs elsewhere
    unknown_half_hours: int = 0

    @property
    def bought_uwh(self) -> int:
        return sum(share.uwh for share in self.bought.values())

    @property
    def sold_uwh(self) -> int:
        return sum(share.uwh for share in self.sold.values())

    @property
    def cost(self) -> Decimal:
        return _sum(share.money for share in self.bought.values())

    @property
    def earned(self) -> Decimal:
        return _sum(share.money for share in self.sold.values())

    @property
    def total(self) -> Decimal | None:
        """What is to be paid; None while some of the energy has no price."""
        return None if self.unpriced_uwh else _sum([self.cost, self.standing, self.earned.copy_negate()])

    def put(self, tariff: Tariff, step: Energy, uwh: int, *, export: bool) -> None:
        """Add that part of a half hour that falls into this bill."""
        shares = self.sold if export else self.bought
        for part in tariff.parts(step.start_ns, step.end_ns, uwh, between=(self.start_ns, self.end_ns)):
            money = part.cost(export=export)
            if part.uwh and step.estimated:
                self.estimated_uwh += part.uwh
            if money is None:
                self.unpriced_uwh += part.uwh
                shares.setdefault(UNPRICED, Share()).add(part.uwh, _NOTHING)
            elif part.uwh:
                shares.setdefault("" if export else part.price.band, Share()).add(part.uwh, money)


def cuts_of(from_ns: int, to_ns: int, by: Period | None, timezone: str) -> list[int]:
    """Return where each bill of [from_ns, to_ns) begins, and where the last one ends."""
    if by is None:
        return [from_ns, to_ns]
    return [from_ns, *(cut for cut in edges(from_ns, to_ns, by, timezone) if from_ns < cut < to_ns), to_ns]


def bills(history: History, channel: str, tariff: Tariff, cuts: Sequence[int], now_ns: int) -> list[Bill]:
    """Make one bill from each cut to the next.

    Half hours begin at those of UTC, however the cuts lie, so bills that adjoin add up to the one of both of them.
    """
    made = [Bill(start, end, tariff.standing_charge(start, end)) for start, end in pairwise(cuts)]
    source, _, device = channel.partition("/")
    first_ns = cuts[0] // HALF_HOUR_NS * HALF_HOUR_NS
    for metric, export in (("energy_wh", False), ("energy_export_wh", True)):
        for step in history.energy_steps((source, device, metric), first_ns, cuts[-1], _HALF_HOUR_S):
            place = max(0, bisect_right(cuts, step.start_ns) - 1)
            touched = made[place : bisect_right(cuts, step.end_ns - 1)]
            if step.amount is not None:
                for bill in touched:
                    bill.put(tariff, step, round(step.amount * 1e6), export=export)
            elif not export and step.start_ns < now_ns:
                for bill in touched:
                    bill.unknown_half_hours += 1
    _mark_corrections(history, (source, device), made, cuts)
    return made


def together(made: Sequence[Bill]) -> Bill:
    """Add up bills that adjoin."""
    whole = Bill(made[0].start_ns, made[-1].end_ns, _sum(bill.standing for bill in made))
    for bill in made:
        for into, shares in ((whole.bought, bill.bought), (whole.sold, bill.sold)):
            for band, share in shares.items():
                into.setdefault(band, Share()).add(share.uwh, share.money)
        whole.unpriced_uwh += bill.unpriced_uwh
        whole.estimated_uwh += bill.estimated_uwh
        whole.corrected_uwh += bill.corrected_uwh
        whole.unknown_half_hours += bill.unknown_half_hours
    return whole


def _mark_corrections(history: History, device: tuple[str, str], made: Sequence[Bill], cuts: Sequence[int]) -> None:
    """Note what was booked by hand. It is in the energies already; old bookings are known by the hour only."""
    for booked_as in BOOKINGS.values():
        found = history.series((*device, booked_as), cuts[0], cuts[-1], 3600)
        for at_ns, count, mean_wh in zip(found.at_ns, found.n, found.mean, strict=True):
            place = min(max(0, bisect_right(cuts, at_ns) - 1), len(made) - 1)
            made[place].corrected_uwh += round((mean_wh or 0.0) * count * 1e6)


def _sum(money: Iterable[Decimal]) -> Decimal:
    return reduce(added, money, _NOTHING)
