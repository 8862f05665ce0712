"""Tells what the lab found: a table in the terminal, the same as JSON and Markdown, and the figures of the promises."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.faults.lab.bench import EXPERIMENTS, Sheet

_COLUMNS = ("experiment", "output", "sent", "accepted", "delivered", "pending", "dropped", "lost", "doubled")


def rows(sheets: Sequence[Sheet]) -> list[tuple[str, ...]]:
    """One row for each output of each experiment that has any."""
    found = []
    for sheet in sheets:
        for output, counts in sorted(sheet.outputs.items()):
            dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items() if count) or "0"
            numbers = (counts.sent, counts.accepted, counts.delivered, counts.pending)
            ends = (counts.lost, counts.doubled)
            found.append((sheet.experiment, output, *map(str, numbers), dropped, *map(str, ends)))
    return found


def verdict(sheet: Sheet) -> str:
    if sheet.skipped:
        return f"skipped: {sheet.skipped}"
    return "as promised" if sheet.passed else f"{len(sheet.differences)} differences"


def figures(sheet: Sheet) -> str:
    """All figures of an experiment in one line.

    >>> figures(Sheet("kills", "nothing is lost", 1, 1.0, figures={"kills": 1000, "worst pause (s)": 0.25}))
    'kills 1,000 · worst pause (s) 0.25'
    """
    return " · ".join(f"{name} {_number(value)}" for name, value in sheet.figures.items())


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def print_all(sheets: Sequence[Sheet]) -> None:
    console = Console()
    table = Table(*_COLUMNS, title="readings")
    for row in rows(sheets):
        table.add_row(*row)
    console.print(table)
    table = Table("experiment", "verdict", "s", "figures", title="experiments")
    for sheet in sheets:
        colour = "yellow" if sheet.skipped else "green" if sheet.passed else "red"
        table.add_row(sheet.experiment, f"[{colour}]{verdict(sheet)}[/]", f"{sheet.took_s:.0f}", figures(sheet))
    console.print(table)
    for sheet in sheets:
        for difference in sheet.differences:
            console.print(f"[red]{sheet.experiment}[/]: {difference}", highlight=False, markup=True)


def write_all(sheets: Sequence[Sheet], directory: Path) -> None:
    """Write `report.json` and `report.md`."""
    directory.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "experiments": sheets}
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    (directory / "report.md").write_text(markdown(sheets))


def markdown(sheets: Sequence[Sheet]) -> str:
    lines = [f"# What the fault lab found\n\nOn {machine()}.\n"]
    lines += [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *map(_line, rows(sheets)), ""]
    lines += [_line(("experiment", "verdict", "seconds", "figures")), _line(["---"] * 4)]
    lines += [_line((sheet.experiment, verdict(sheet), f"{sheet.took_s:.0f}", figures(sheet))) for sheet in sheets]
    for sheet in sheets:
        lines += [f"\n- {sheet.experiment}: {difference}" for difference in sheet.differences]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def machine() -> str:
    """The class of this machine."""
    return f"{os.cpu_count()} {platform.machine()} cores, CPython {platform.python_version()}"


_BEGIN, _END = "<!-- figures of the last run -->", "<!-- end of the figures -->"


def write_figures(sheets: Sequence[Sheet], page: Path) -> None:
    """Put what was found between the two marks of a page; what other experiments had found there stays."""
    before, _, rest = page.read_text().partition(_BEGIN)
    old, _, after = rest.partition(_END)
    lines = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")}
    lines |= {sheet.experiment: _promise(sheet) for sheet in sheets}
    head = [_line(("experiment", "what it shows", "figures of the last run", "verdict")), _line(["---"] * 4)]
    ordered = [lines[name] for name in EXPERIMENTS if name in lines]
    page.write_text("\n".join([f"{before}{_BEGIN}\n\nOn {machine()}.\n", *head, *ordered, f"\n{_END}{after}"]))


def _promise(sheet: Sheet) -> str:
    """One line of the table of promises."""
    outputs = sheet.outputs.values()
    readings = max((counts.sent for counts in outputs), default=0)
    lost, doubled = sum(counts.lost for counts in outputs), sum(counts.doubled for counts in outputs)
    told = [f"{readings:,} sent", f"{lost:,} lost", f"{doubled:,} doubled"] if outputs else []
    told += [
        f"{name} {_number(value)}" for name, value in sheet.figures.items() if name not in ("readings", "attempts")
    ]
    scale = "" if sheet.scale == 1.0 else f" `--scale {sheet.scale:g}`"
    seconds = f"{verdict(sheet)}, seed {sheet.seed}, {sheet.took_s:.0f} s{scale}"
    return _line((f"`{sheet.experiment}`", sheet.promise, " · ".join(told), seconds))
