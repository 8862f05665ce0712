"""`test`: read a source once, here and now, and show what it says; nothing is written anywhere."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands._configuration import chosen, config_option, read_or_exit
from commands._probe import (
    EXIT_FAILED,
    EXIT_PARTLY,
    Probe,
    Unreachable,
    collected_notes,
    opened,
    quietly,
    running_house,
    source_or_exit,
)
from config.settings import PolledTable, SourceTable
from config.words import printable
from reading import Value

_WIDTH: Final = 80
_SECOND_ROUND_S: Final = 1.1  # a device that was silent is asked again after a second
_UNITS: Final = {"w": "W", "va": "VA", "var": "var", "v": "V", "a": "A", "hz": "Hz", "wh": "Wh", "m3": "m³", "c": "°C"}


@dataclass(slots=True)
class Shown:
    """What one device said last of each metric, and how that came to be."""

    quality: str
    values: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What the test of one source came to."""

    source: str
    kind: str
    devices: dict[str, Shown] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""  # what, and what now, where it could not be read at all

    @property
    def status(self) -> int:
        if self.error or not self.devices:
            return EXIT_FAILED
        return EXIT_PARTLY if self.troubles or self.refused else 0


@click.command
@click.argument("source", required=False)
@config_option
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long to listen to a source that is not asked but told.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@quietly
def command(source: str | None, path: Path | None, wait_s: float, as_json: bool) -> None:
    """Read sources once and print what they say; write nothing.

    All of them if no SOURCE is named. Status 1: it failed; 3: some of it failed.
    """
    settings = read_or_exit(chosen(path))
    if source is None:
        wanted = {name: options for name, options in settings.sources.items() if options.enabled}
    else:
        wanted = {source: source_or_exit(settings, source)}
    if not wanted:
        click.echo("No source is configured and enabled; config/example.toml shows every kind.", err=True)
        sys.exit(2)
    house = running_house(settings)
    outcomes = []
    for name, options in wanted.items():
        outcome = _try(name, options, house, wait_s)
        outcomes.append(outcome)
        if not as_json:
            _show(outcome)
    if as_json:
        told = {one.source: {**asdict(one), "status": one.status} for one in outcomes}
        click.echo(json.dumps({"sources": told}, ensure_ascii=False, indent=2))
    elif source is None:
        good = sum(not one.status for one in outcomes)
        click.echo(f"{good} of {len(outcomes)} source{'' if len(outcomes) == 1 else 's'} good; nothing was written.")
    sys.exit(_status([one.status for one in outcomes]))


def _status(statuses: list[int]) -> int:
    """Sum up.

    >>> [_status(each) for each in ([0, 0], [1, 1], [0, 1], [3, 0], [1])]
    [0, 1, 3, 3, 1]
    """
    return statuses[0] if len({*statuses}) == 1 else EXIT_PARTLY


def _try(name: str, options: SourceTable, house: int | None, wait_s: float) -> Outcome:
    outcome = Outcome(name, options.kind)
    with collected_notes() as notes:
        try:
            with opened(name, options, house) as probe:
                try:
                    if isinstance(options, PolledTable):
                        _ask(probe, options, outcome)
                    else:
                        _listen(probe, options, outcome, wait_s)
                finally:
                    outcome.troubles, outcome.refused = dict(probe.troubles), probe.refused
        except Unreachable as unreachable:
            outcome.error = printable(str(unreachable))
    outcome.notes += map(printable, notes.words)
    return outcome


def _ask(probe: Probe, options: PolledTable, outcome: Outcome) -> None:
    """Do one round, and a second one where the first had nothing: some devices are slow to wake."""
    if not _take(probe, outcome):
        time.sleep(min(options.interval_s, _SECOND_ROUND_S))
        _take(probe, outcome)
    if not outcome.devices and not probe.troubles:
        outcome.notes.append("it was asked twice and said nothing; check its devices in the configuration")


def _listen(probe: Probe, options: SourceTable, outcome: Outcome, wait_s: float) -> None:
    """Take what arrives. A sender that waits for an answer gets none, so that it sends to the house again."""
    where = f" on port {options.port}" if hasattr(options, "port") else ""
    console = Console(stderr=True)
    words = f"{outcome.source}: listening{where} for {wait_s:g} s"
    if not console.is_terminal:
        click.echo(words, err=True)
    ends_s = time.monotonic() + wait_s
    with console.status(words) as status:
        while (rest_s := ends_s - time.monotonic()) > 0:
            status.update(f"{outcome.source}: listening{where}, {rest_s:.0f} s more; Ctrl-C ends it")
            if _take(probe, outcome) and probe.acknowledges:
                outcome.notes.append("what came was not acknowledged: its sender will send it again, to the house")
                return
    if not outcome.devices:
        outcome.error = (
            f"nothing arrived{where} in {wait_s:g} s; see that the sender is on and knows the address of this machine,"
            " or listen longer with --wait 60"
        )


def _take(probe: Probe, outcome: Outcome) -> bool:
    readings = probe.read()
    for reading in readings:
        shown = outcome.devices.setdefault(reading.device, Shown(reading.quality.value))
        shown.quality = reading.quality.value
        shown.values |= reading.values
    return bool(readings)


def _show(outcome: Outcome) -> None:
    """Print one source in 80 columns."""
    console = Console(width=_WIDTH, highlight=False, soft_wrap=False)
    console.print(Text(f"{outcome.source} ({outcome.kind})", "bold"))
    if outcome.devices:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("device", "metric", "value", "quality"):
            table.add_column(column, overflow="fold", justify="right" if column == "value" else "left")
        for device, shown in outcome.devices.items():
            for number, (metric, value) in enumerate(shown.values.items()):
                name = "" if number else device
                table.add_row(Text(name), Text(metric), Text(with_unit(metric, value)), Text(shown.quality))
        console.print(table)
    for words in _words(outcome):
        click.echo(words)
    click.echo()


def _words(outcome: Outcome) -> list[str]:
    words = [f"✗ {outcome.error}"] if outcome.error else []
    words += [f"! {device}: {printable(trouble)}" for device, trouble in outcome.troubles.items()]
    words += [f"! refused {count} × as {reason.replace('_', ' ')}" for reason, count in outcome.refused.items()]
    words += [f"  {note}" for note in outcome.notes]
    return words


def with_unit(metric: str, value: Any) -> str:
    """Return a value as one reads it.

    >>> with_unit("power_w", 1141.9), with_unit("device_energy_wh", 100000.0), with_unit("state", "idle")
    ('1141.9 W', '100000 Wh', 'idle')
    >>> with_unit("pulses", 12), with_unit("current_a", -0.105)
    ('12', '-0.105 A')
    """
    if isinstance(value, str):
        return printable(value)
    unit = _UNITS.get(metric.rpartition("_")[2], "") if "_" in metric else ""
    number = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f"{number} {unit}".rstrip()
