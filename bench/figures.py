"""What a benchmark found, one figure a line: our cost, that of a peer or a limit, their ratio, and the budget of that.

Every module of this folder has `measure() -> list[Figure]`. Costs are compared within one run, in turns, by their
medians: how fast the machine is then matters little.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

RESULTS: Final = Path("var/bench")
LEAST_ROUNDS: Final = 5


class Figure(Struct, frozen=True):
    """One thing that was measured; less is better."""

    what: str
    ours: float
    unit: str
    peer: str  # what it is compared with: another program, or a limit
    theirs: float
    most: float = 1.0  # the budget: ours may be this much of theirs

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def met(self) -> bool:
        return self.ratio <= self.most


def medians(costs: Mapping[str, Callable[[], float]], rounds: int = LEAST_ROUNDS) -> dict[str, float]:
    """Measure all of them in turns, several times, so that whatever else the machine does meets them alike."""
    found: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(rounds):
        for name, cost in costs.items():
            found[name].append(cost())
    return {name: statistics.median(each) for name, each in found.items()}


def publish(name: str, figures: Iterable[Figure]) -> None:
    """Print the figures as a table, and write them beside it as `var/bench/<name>.json`."""
    figures = list(figures)
    print(table(figures))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode({"machine": machine(), "figures": rows(figures)})) + b"\n")
    print(f"{sum(not each.met for each in figures)} of {len(figures)} beyond their budget; written to {path}")


def table(figures: Iterable[Figure]) -> str:
    """Lay the figures out in columns.

    >>> print(table([Figure("a reading", 1.5, "µs", "Point", 7.5, 0.25)]))
    what               ours  against                          theirs     ratio   budget
    a reading       1.50 µs  Point                           7.50 µs     0.200     0.25  met
    """
    figures = list(figures)
    width = max([len("what"), *(len(each.what) for each in figures)]) + 2
    lines = [f"{'what':<{width}}{'ours':>12}  {'against':<28}{'theirs':>11}{'ratio':>10}{'budget':>9}"]
    for each in figures:
        ours, theirs = (f"{_rounded(cost)} {each.unit}" for cost in (each.ours, each.theirs))
        verdict = "met" if each.met else "NOT MET"
        compared = f"{each.peer:<28}{theirs:>11}{each.ratio:>10.3f}{each.most:>9.3g}"
        lines.append(f"{each.what:<{width}}{ours:>12}  {compared}  {verdict}")
    return "\n".join(lines)


def rows(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Return the figures as JSON has them, with what follows from them."""
    return [msgspec.structs.asdict(each) | {"ratio": each.ratio, "met": each.met} for each in figures]


def machine() -> dict[str, Any]:
    """Tell where it was measured."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "Model"))
    ]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _rounded(cost: float) -> str:
    return f"{cost:.0f}" if cost >= 1000 else f"{cost:.2f}"
