"""`test`: read a source once, here and now, and show what it says; nothing is written anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from commands._configuration import chosen, config_option, named, read_or_exit
from commands._probe import quietly, running_house
from commands._screen import json_option, say_next
from commands._trial import show, summed_up, tried, wait_option, wanted_or_exit
from workers import source_class


@click.command
@click.argument("source", required=False)
@config_option
@wait_option
@json_option
@quietly
def command(source: str | None, path: Path | None, wait_s: float, as_json: bool) -> None:
    """Read sources once and print what they say; write nothing.

    All of them if no SOURCE is named. Status 1: it failed; 3: some of it failed.

    Example: ./orchestrator.py test meter --wait 30
    """
    settings = read_or_exit(chosen(path))
    wanted = wanted_or_exit(settings, source)
    house = running_house(settings)
    outcomes = []
    for name, options in wanted.items():
        outcome = tried(name, options, house, wait_s)
        if outcome.readings and source_class(options.kind).acknowledges:
            outcome.notes.append("what came was not acknowledged: its sender will send it again, to the house")
        outcomes.append(outcome)
        if not as_json:
            show(outcome)
    if as_json:
        told = {one.source: one.told() for one in outcomes}
        click.echo(json.dumps({"sources": told}, ensure_ascii=False, indent=2))
    else:
        good = sum(not one.status for one in outcomes)
        if source is None:
            click.echo(
                f"{good} of {len(outcomes)} source{'' if len(outcomes) == 1 else 's'} good; nothing was written."
            )
        following = "verify" if good < len(outcomes) else "once" if house is None else "status"
        say_next(f"./orchestrator.py {following}{named(path)}")
    sys.exit(summed_up([one.status for one in outcomes]))
