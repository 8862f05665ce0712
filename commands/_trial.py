"""Reads a source here and now, as `test` and `once` do, and shows what it said in 80 columns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands._probe import (
    EXIT_FAILED,
    EXIT_PARTLY,
    Probe,
    Unreachable,
    collected_notes,
    leave,
    opened,
    source_or_exit,
)
from config.settings import PolledTable, Settings, SourceTable
from config.words import printable
from reading import Reading, Value

_WIDTH: Final = 80
_SECOND_ROUND_S: Final = 1.1  # a device that was silent is asked again after a second
_UNITS: Final = {"w": "W", "va": "VA", "var": "var", "v": "V", "a": "A", "hz": "Hz", "wh": "Wh", "m3": "m³", "c": "°C"}
# What becomes of the readings: True when they are safe, so that a sender that waits for an answer may have one.
Taker = Callable[[list[Reading]], bool]


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
    readings: list[Reading] = field(default_factory=list)
    error: str = ""  # what, and what now, where it could not be read at all

    def told(self) -> dict[str, Any]:
        """Return it for a program."""
        told = {name: getattr(self, name) for name in ("source", "kind", "troubles", "refused", "notes", "error")}
        devices = {device: asdict(shown) for device, shown in self.devices.items()}
        return {**told, "devices": devices, "status": self.status}

    @property
    def status(self) -> int:
        if self.error or not self.devices:
            return EXIT_FAILED
        return EXIT_PARTLY if self.troubles or self.refused else 0


def summed_up(statuses: list[int]) -> int:
    """Sum up what several sources came to.

    >>> [summed_up(each) for each in ([0, 0], [1, 1], [0, 1], [3, 0], [1])]
    [0, 1, 3, 3, 1]
    """
    return statuses[0] if len({*statuses}) == 1 else EXIT_PARTLY


wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long to listen to a source that is not asked but told.",
)


def wanted_or_exit(settings: Settings, source: str | None) -> dict[str, SourceTable]:
    """Return the source that was named, or all that are enabled; leave with status 2 where there is none.

    From here on the environment has the secrets of the configuration, as that of a worker has.
    """
    os.environ.update(settings.secrets)
    if source is not None:
        return {source: source_or_exit(settings, source)}
    wanted = {name: options for name, options in settings.sources.items() if options.enabled}
    if not wanted:
        leave("No source is configured and enabled; config/example.toml shows every kind.", 2)
    return wanted


def tried(name: str, options: SourceTable, house: int | None, wait_s: float, take: Taker = lambda _: False) -> Outcome:
    """Read a source once, or listen to it for a while; `take` gets the readings while it is open."""
    outcome = Outcome(name, options.kind)
    with collected_notes() as notes:
        try:
            with opened(name, options, house) as probe:
                try:
                    if isinstance(options, PolledTable):
                        _ask(probe, options, outcome)
                    else:
                        _listen(probe, options, outcome, wait_s)
                    if take(outcome.readings) and probe.acknowledges:
                        probe.read()  # that it is asked again is what lets it answer
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
    where = ""
    if hasattr(options, "port"):
        where = " at the broker" if hasattr(options, "client_id") else f" on port {options.port}"
    console = Console(stderr=True)
    words = f"{outcome.source}: listening{where} for {wait_s:g} s"
    if not console.is_terminal:
        click.echo(words, err=True)
    ends_s = time.monotonic() + wait_s
    with console.status(words) as status:
        while (rest_s := ends_s - time.monotonic()) > 0:
            status.update(f"{outcome.source}: listening{where}, {rest_s:.0f} s more; Ctrl-C ends it")
            if _take(probe, outcome) and probe.acknowledges:
                return
    if not outcome.devices:
        outcome.error = (
            f"nothing arrived{where} in {wait_s:g} s; see that the devices are on and know where to send to,"
            " or listen longer with --wait 60"
        )


def _take(probe: Probe, outcome: Outcome) -> bool:
    readings = probe.read()
    outcome.readings += readings
    for reading in readings:
        shown = outcome.devices.setdefault(reading.device, Shown(reading.quality.value))
        shown.quality = reading.quality.value
        shown.values |= reading.values
    return bool(readings)


def show(outcome: Outcome) -> None:
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
