"""`once`: read sources once and write what they say to every output, without starting the house."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from channel import Receiver, Sender, pair
from commands._configuration import chosen, config_option, named, read_or_exit
from commands._house import writer_plan
from commands._probe import EXIT_PARTLY, leave, quietly, running_house
from commands._screen import json_option, say_next
from commands._trial import Outcome, show, summed_up, tried, wait_option, wanted_or_exit
from config.settings import Settings
from config.words import printable
from reading import Reading
from supervise.instance import AlreadyRunning, Incarnations, lock
from vitals import OUTPUT_STATES, Board
from writer.ingest import Ingest

_DELIVER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one output has of it."""

    output: str
    accepted: int
    delivered: int
    refused: int
    note: str

    @property
    def line(self) -> str:
        if self.delivered == self.accepted:
            return f"✓ {self.output}: {self.delivered} written"
        why = f": {printable(self.note)}" if self.note else ""
        refused = f", {self.refused} refused" if self.refused else ""
        return (
            f"! {self.output}: {self.delivered} of {self.accepted} written{refused}, the rest waits in the outbox{why}"
        )


@click.command
@click.argument("source", required=False)
@config_option
@wait_option
@json_option
@quietly
def command(source: str | None, path: Path | None, wait_s: float, as_json: bool) -> None:
    """Read sources once and write what they say to every output.

    All of them if no SOURCE is named. What an output does not take now waits for the house. Status 1: it failed; 3:
    some of it failed.

    Example: ./orchestrator.py once meter --wait 30
    """
    settings = read_or_exit(chosen(path))
    wanted = wanted_or_exit(settings, source)
    if not any(options.enabled for options in settings.outputs.values()):
        leave("No output is configured and enabled, so there is nowhere to write to; [outputs.csv] is the simplest.", 2)
    house = running_house(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        locked = lock(settings.data_dir, 0)
    except AlreadyRunning:
        leave(f"the house runs already{f' (process {house})' if house else ''} and reads its sources by itself", 1)
    try:
        outcomes: list[Outcome] = []
        written: list[Delivered] = []
        for name, options in wanted.items():
            outcome = tried(name, options, None, wait_s, functools.partial(_write, settings, name, written))
            outcomes.append(outcome)
            if not as_json:
                show(outcome)
    finally:
        os.close(locked)
    outputs = _summed(written)
    if as_json:
        told = {one.output: {"accepted": one.accepted, "delivered": one.delivered, "note": one.note} for one in outputs}
        click.echo(json.dumps({"sources": {one.source: one.told() for one in outcomes}, "outputs": told}, indent=2))
    else:
        for one in outputs:
            click.echo(one.line)
        say_next(f"./orchestrator.py run{named(path)}")
    status = summed_up([one.status for one in outcomes])
    sys.exit(status or (EXIT_PARTLY if any(one.delivered < one.accepted for one in outputs) else 0))


def _write(settings: Settings, source: str, written: list[Delivered], readings: Sequence[Reading]) -> bool:
    """Have a writer commit the readings of one source and serve the outputs, as it does in the house."""
    if not readings:
        return False
    ours, theirs = pair()
    with ours, theirs:
        sender = Sender(ours, source, next(Incarnations(settings.data_dir)))
        sender.report(readings)
        if sender.backlog or sender.dropped:
            leave(f"{source} has more to say than fits into one go; start the house", 1)
        plan = writer_plan(settings)
        board = Board()
        rows = {name: board.claim("output", name) for name in plan.outputs}
        writer = Ingest(plan, [Receiver(theirs, source)], board.claim("writer", "writer"), rows)
        before = writer.books()
        writer.run_once(_DELIVER_S)
    for name, row in rows.items():
        note = row.note or (f"it is {OUTPUT_STATES[row['state']]}" if row["pending"] else "")
        accepted, delivered, refused = (
            now - then for now, then in zip(writer.books()[name], before[name], strict=True)
        )
        written.append(Delivered(name, accepted, delivered, refused, note))
    return True


def _summed(written: Sequence[Delivered]) -> list[Delivered]:
    """Sum up over the sources, an output a line."""
    names = dict.fromkeys(one.output for one in written)
    return [
        Delivered(
            name,
            sum(one.accepted for one in written if one.output == name),
            sum(one.delivered for one in written if one.output == name),
            sum(one.refused for one in written if one.output == name),
            next((one.note for one in reversed(written) if one.output == name), ""),
        )
        for name in names
    ]
