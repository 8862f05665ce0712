"""What the energy of a channel has cost and earned so far: priced as it is booked, for the time in which it flowed."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct

from logbook.moment import Moment, elapsed_ns
from tariff import Tariff, added

_MOST_UNDATED: Final = 64


class Undated(Struct, array_like=True, frozen=True):
    """Energy that flowed while nobody knew the time of day; its price is known as soon as that is."""

    since: Moment
    until: Moment
    in_uwh: int
    out_uwh: int


class Cost(Struct, array_like=True):
    """Money of one channel: what was bought less what was sold."""

    total: Decimal = Decimal(0)
    unpriced_uwh: int = 0  # energy for whose time the tariff has no price, or whose time was never known
    undated: list[Undated] = []
    complete: bool = True  # the newest energy has a price


def add(cost: Cost, tariff: Tariff, flowed: Undated) -> None:
    """Price what flowed since the last time, and all that waited for the clock."""
    if not flowed.until.utc_ns:
        cost.undated = _shortened([*cost.undated, flowed])
        cost.complete = False
        return
    waiting, cost.undated = cost.undated, []
    cost.complete = True
    for one in [*waiting, flowed]:
        _price(cost, tariff, one, flowed.until)


def _price(cost: Cost, tariff: Tariff, flowed: Undated, now: Moment) -> None:
    since_ns, until_ns = _utc(flowed.since, now), _utc(flowed.until, now)
    if since_ns is None and until_ns is not None:
        since_ns = until_ns  # it began in an earlier run of the machine, nobody knows when
    if since_ns is None or until_ns is None:
        cost.unpriced_uwh += flowed.in_uwh + flowed.out_uwh
        return
    for uwh, export in ((flowed.in_uwh, False), (flowed.out_uwh, True)):
        if uwh:
            money = tariff.cost(min(since_ns, until_ns), until_ns, uwh, export=export)
            if money is None:
                cost.unpriced_uwh += uwh
                cost.complete = False
            else:
                cost.total = added(cost.total, money.copy_negate() if export else money)


def _utc(moment: Moment, now: Moment) -> int | None:
    """Return when a moment was, by the clock as it is set now."""
    if moment.utc_ns:
        return moment.utc_ns
    ago_ns = elapsed_ns(moment, now) if moment.boot == now.boot else None
    return None if ago_ns is None else now.utc_ns - ago_ns


def _shortened(undated: list[Undated]) -> list[Undated]:
    """Join the two oldest of one boot where there are too many."""
    if len(undated) <= _MOST_UNDATED:
        return undated
    first, second, *rest = undated
    joined = Undated(first.since, second.until, first.in_uwh + second.in_uwh, first.out_uwh + second.out_uwh)
    return [joined, *rest]
