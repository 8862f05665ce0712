"""What an experiment gets and what it leaves: a place, a chance that can be had again, a scale, a sheet of findings."""

from __future__ import annotations

import importlib
import random
import time
import traceback
from pathlib import Path

import pytest
from msgspec import Struct

from tests.faults.house import Balance
from tests.peers.process import slowness

EXPERIMENTS = (
    "kills",
    "parent_kills",
    "stops",
    "failing_calls",
    "power_cut",
    "damage",
    "disk_full",
    "outages",
    "absence",
    "reloads",
    "pulse_kills",
    "clock_steps",
    "hostile",
    "soak",
)
ALONE = frozenset({"parent_kills"})  # it promises how soon all processes are there: nothing else may start meanwhile
_BUSY = 1.5  # from here on the sheet says that the machine was busy


class Counts(Struct):
    """What became of the readings at one output."""

    sent: int = 0  # distinct readings that the oracle posted
    accepted: int = 0
    delivered: int = 0
    pending: int = 0
    dropped: dict[str, int] = {}  # by reason
    lost: int = 0  # that the oracle knows of and the output has not
    doubled: int = 0  # that the output has more than once


class Sheet(Struct):
    """The findings of one experiment."""

    experiment: str
    promise: str
    seed: int
    scale: float
    outputs: dict[str, Counts] = {}
    figures: dict[str, float | int | str] = {}
    differences: list[str] = []
    skipped: str = ""
    took_s: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.differences and not self.skipped


class Bench:
    """One experiment at work."""

    def __init__(self, experiment: str, directory: Path, seed: int, scale: float, minutes: float = 3.0) -> None:
        module = importlib.import_module(f"tests.faults.lab.experiments.{experiment}")
        self._run = module.run
        self.directory = directory
        self.scale = scale
        self.minutes = minutes  # of the soak
        self.chance = random.Random(f"{seed}/{experiment}")
        self.busy = slowness()  # how many times longer everything takes, because of what else this machine does
        self.sheet = Sheet(experiment, module.PROMISE, seed, scale)

    def run(self) -> Sheet:
        """Do the experiment. Whatever it raises is a difference too."""
        began_s = time.monotonic()
        try:
            self._run(self)
        except pytest.skip.Exception as reason:
            self.sheet.skipped = str(reason)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - also pytest's own way of failing, which is no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = str(error).strip() or type(error).__name__
            self.sheet.differences.append(f"{told[:2000]} ({Path(where.filename).name}:{where.lineno})")
        self.busy = max(self.busy, slowness())
        if self.busy > _BUSY:
            self.figure("how many times slower the machine was than an idle one", self.busy)
        self.sheet.took_s = round(time.monotonic() - began_s, 1)
        return self.sheet

    def times(self, full: int, least: int = 1) -> int:
        """How often to do what the whole experiment does `full` times."""
        return max(least, round(full * self.scale))

    @property
    def stride(self) -> int:
        """Of what the whole experiment does with each, do it with each so-and-so-manieth."""
        return max(1, round(1 / self.scale))

    def expect(self, holds: object, what: str) -> None:
        """Note a difference, and go on, where something is not as promised."""
        if not holds:
            self.sheet.differences.append(what)

    def expect_within(self, took_s: float, limit_s: float, what: str) -> None:
        """Note it as a difference where something took too long, on a machine that has nothing else to do.

        On one that has, the limit is as much longer as a new process takes longer than the work in it.
        """
        self.busy = max(self.busy, slowness())
        if took_s > limit_s * self.busy:
            self.expect(False, f"{what} took {took_s:.1f} s: the limit is {limit_s} s, times {self.busy:.1f} (busy)")

    def add(self, part: Sheet) -> None:
        """Add the findings of a part of the experiment."""
        self.sheet.differences += part.differences
        for output, more in part.outputs.items():
            counts = self.sheet.outputs.setdefault(output, Counts(dropped={}))
            for field in ("sent", "accepted", "delivered", "pending", "lost", "doubled"):
                setattr(counts, field, getattr(counts, field) + getattr(more, field))
            for reason, count in more.dropped.items():
                counts.dropped[reason] = counts.dropped.get(reason, 0) + count

    def count(self, output: str, account: Balance, *, sent: int, lost: int = 0, doubled: int = 0) -> None:
        """Add what became of readings at an output to what the sheet has of it."""
        counts = Counts(sent, account.accepted, account.delivered, account.pending, account.dropped, lost, doubled)
        self.add(Sheet("", "", 0, 0.0, {output: counts}))

    def figure(self, name: str, value: float | str) -> None:
        self.sheet.figures[name] = round(value, 3) if isinstance(value, float) else value

    def more(self, name: str, count: int = 1) -> None:
        """Add to a figure."""
        self.sheet.figures[name] = int(self.sheet.figures.get(name, 0)) + count
