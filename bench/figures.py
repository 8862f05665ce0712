"""What a benchmark found, one figure a line: our cost, that of a peer or a limit, their ratio, and the budget of that.

Every bench of this folder has `measure()`, which returns them. Costs are compared within one run, in turns, by their
medians: how fast the machine is then matters little.
"""

from __future__ import annotations

import argparse
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


class Figure(Struct, frozen=True, tag=True):
    """One thing that was measured; less is better."""

    what: str
    ours: float
    unit: str
    peer: str  # what it is compared with: another program, or a limit
    theirs: float
    most: float | None = 1.0  # the budget: ours may be this much of theirs; None: it is there to be compared with

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        return None if self.most is None else self.ratio <= self.most


class Skipped(Struct, frozen=True, tag=True):
    """What was not measured here, and what it would take."""

    what: str
    why: str


Finding = Figure | Skipped


class Report(Struct, frozen=True):
    """What one bench found, as it is written to a file."""

    machine: dict[str, Any]
    figures: list[Finding]


def medians(costs: Mapping[str, Callable[[], float]], rounds: int = LEAST_ROUNDS) -> dict[str, float]:
    """Measure all of them in turns, several times, so that whatever else the machine does meets them alike."""
    found: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(rounds):
        for name, cost in costs.items():
            found[name].append(cost())
    return {name: statistics.median(each) for name, each in found.items()}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return what every bench can be told."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument(
        "--quick", action="store_true", help="whether it works at all: few rounds, figures of little worth"
    )
    found.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the JSON goes (var/bench)")
    return found


def publish(name: str, findings: Iterable[Finding], results: Path = RESULTS) -> None:
    """Print the figures as a table, and write them beside it as `<name>.json`."""
    findings = list(findings)
    print(table(findings))
    path = write(name, findings, results)
    print(f"{verdict(findings)}; written to {path}")


def write(name: str, findings: Iterable[Finding], results: Path) -> Path:
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{name}.json"
    path.write_bytes(
        msgspec.json.format(msgspec.json.encode({"machine": machine(), "figures": rows(findings)})) + b"\n"
    )
    return path


def read(path: Path) -> list[Finding]:
    """Return what `write` wrote; what follows from the figures is reckoned anew."""
    return msgspec.json.decode(path.read_bytes(), type=Report).figures


def verdict(findings: Iterable[Finding]) -> str:
    """Say in one line how it went.

    >>> verdict([Figure("a reading", 1.5, "µs", "Point", 7.5, 0.25), Skipped("a pulse", "no root")])
    '1 of 1 within their budget, 1 skipped'
    """
    findings = list(findings)
    skipped = sum(isinstance(each, Skipped) for each in findings)
    verdicts = [each.met for each in findings if isinstance(each, Figure) and each.met is not None]
    told = f"{sum(verdicts)} of {len(verdicts)} within their budget"
    return f"{told}, {skipped} skipped" if skipped else told


def table(findings: Iterable[Finding]) -> str:
    """Lay the figures out in 100 columns.

    >>> print(table([Figure("a reading", 1.5, "µs", "Point", 7.5, 0.25), Skipped("a pulse", "no root")]))
    what                                      ours  against                   theirs   ratio  budget
    a reading                              1.50 µs  Point                    7.50 µs   0.200    0.25 met
    a pulse                             skipped: no root
    """
    lines = [f"{'what':<34}{'ours':>12}  {'against':<22}{'theirs':>10}{'ratio':>8}{'budget':>8}"]
    for each in findings:
        if isinstance(each, Skipped):
            lines.append(f"{_cut(each.what, 34):<36}skipped: {each.why}")
            continue
        ours, theirs, ratio, most, met = columns(each)
        line = f"{_cut(each.what, 34):<34}{ours:>12}  {_cut(each.peer, 22):<22}{theirs:>10}{ratio:>8}{most:>8} {met}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def columns(figure: Figure) -> tuple[str, str, str, str, str]:
    """Return ours, theirs, ratio, budget and verdict as they are printed."""
    ours, theirs = (f"{_rounded(cost)} {figure.unit}".strip() for cost in (figure.ours, figure.theirs))
    ratio = f"{figure.ratio:.3f}" if figure.ratio < 1000 else f"{figure.ratio:.0f}"
    if figure.most is None:
        return ours, theirs, ratio, "-", ""
    return ours, theirs, ratio, f"{figure.most:.3g}", "met" if figure.met else "NOT"


def rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return the figures as JSON has them, with what follows from them."""
    return [
        msgspec.to_builtins(each) | ({"ratio": each.ratio, "met": each.met} if isinstance(each, Figure) else {})
        for each in findings
    ]


def machine() -> dict[str, Any]:
    """Tell where it was measured."""
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "Model"))
    ]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _rounded(cost: float) -> str:
    return f"{cost:.0f}" if cost >= 1000 else f"{cost:.2f}"
