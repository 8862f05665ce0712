"""Energy and money by local periods: of every channel, and of the house, which is the sum of some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from api import asked, documents
from api.answers import refuse
from api.channels import Channels, parted
from api.times import local
from history.periods import Period, edges
from history.queries import Energy, History

REGISTERS: Final = ("energy_wh", "energy_export_wh")


@dataclass(frozen=True, slots=True)
class Books:
    """What was found, by source/device and one entry a period."""

    channels: Channels
    by: Period
    timezone: str
    periods: list[documents.Period]
    energies: dict[tuple[str, str], list[Energy]] = field(default_factory=dict)  # by channel and register
    costs: dict[str, list[float | None]] = field(default_factory=dict)

    def energy(self) -> documents.Energy:
        return documents.Energy(
            self.by,
            self.timezone,
            self.channels.currency,
            self.periods,
            self._house(),
            [
                documents.ChannelEnergy(
                    *parted(name),
                    role=self.channels.role(name),
                    metric=metric,  # type: ignore[arg-type]
                    energy_wh=[one.amount for one in found],
                    estimated=[one.estimated for one in found],
                    cost=self.costs.get(name, self._nothing) if metric == "energy_wh" else self._nothing,
                )
                for (name, metric), found in sorted(self.energies.items())
            ],
        )

    def cost(self) -> documents.Cost:
        return documents.Cost(
            self.by,
            self.timezone,
            self.channels.currency,
            self.periods,
            [documents.ChannelCost(*parted(name), cost=found) for name, found in sorted(self.costs.items())],
            documents.HouseCost(self._summed(self.costs.get(name, self._nothing) for name in self._of)),
        )

    @property
    def _nothing(self) -> list[float | None]:
        return [None] * len(self.periods)

    @property
    def _of(self) -> list[str]:
        return self.channels.of_house({name for name, _ in self.energies})

    def _house(self) -> documents.HouseEnergy:
        of = self._of
        used, given = ([self.energies.get((name, metric), []) for name in of] for metric in REGISTERS)
        return documents.HouseEnergy(
            self._summed([one.amount for one in found] or self._nothing for found in used),
            self._summed([one.amount for one in found] or self._nothing for found in given),
            self._summed(self.costs.get(name, self._nothing) for name in of),
            [any(found[place].estimated for found in used if found) for place in range(len(self.periods))],
            of,
        )

    def _summed(self, rows: Iterable[Sequence[float | None]]) -> list[float | None]:
        """Add what is known in each period."""
        columns = [[amount for amount in column if amount is not None] for column in zip(*rows, strict=True)]
        return [round(sum(column), 6) if column else None for column in columns] or self._nothing


async def books_of(
    channels: Channels,
    history: History,
    span: asked.Periods,
    only: tuple[str | None, str | None] = (None, None),
) -> Books:
    """Ask the history, one channel after the other, so that the loop gets to everybody else in between."""
    from_ns, to_ns, by, timezone = span
    zone = ZoneInfo(timezone)
    cuts = edges(from_ns, to_ns, by, timezone)
    periods = [documents.Period(local(start, zone), local(end, zone)) for start, end in pairwise(cuts)]
    books = Books(channels, by, timezone, periods)
    known = history.devices()
    wanted = [
        each
        for each in known
        if (not only[0] or each.source == only[0])
        and (not only[1] or each.device == only[1])
        and (each.metric in REGISTERS or each.metric == "cost")
    ]
    if any(only) and not wanted:
        wanted_name = "/".join(part or "…" for part in only)
        names = sorted({f"{each.source}/{each.device}" for each in known if each.metric in REGISTERS})
        refuse(404, asked.unknown(f"energy of {wanted_name}", wanted_name, names))
    for each in wanted:
        name, channel = f"{each.source}/{each.device}", (each.source, each.device, each.metric)
        if each.metric == "cost":
            found = history.summaries(channel, *span)
            books.costs[name] = [one.change for one in found]
        else:
            books.energies[name, each.metric] = history.energy([channel], *span)[channel]
        await asyncio.sleep(0)
    return books
