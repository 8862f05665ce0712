"""`check`: read the configuration, say everything that is wrong with it, start nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from commands._configuration import EXIT_CONFIGURATION, chosen, complain, config_option, named, read
from commands._screen import json_option, print_json
from config.load import ConfigurationError


@click.command
@json_option
@config_option
def command(path: Path | None, *, as_json: bool) -> None:
    """Check the configuration; starts nothing. Status 2 when something is wrong with it.

    Example: ./orchestrator.py check --config config/site.toml
    """
    file = chosen(path)
    try:
        settings = read(file)
    except ConfigurationError as error:
        if as_json:
            print_json({"status": EXIT_CONFIGURATION, "mistakes": error.problems})
        else:
            complain(error)
        sys.exit(EXIT_CONFIGURATION)
    if as_json:
        print_json(
            {
                "status": 0,
                "files": [str(one) for one in settings.files],
                "sources": {name: options.kind for name, options in settings.sources.items()},
                "outputs": {name: options.kind or name for name, options in settings.outputs.items()},
                "remarks": settings.remarks,
            }
        )
        return
    devices = sum(len(getattr(options, "devices", ())) for options in settings.sources.values())
    click.echo(
        f"{', '.join(click.format_filename(one) for one in settings.files)}: good. "
        f"{_count(len(settings.sources), 'source')}, {_count(devices, 'device')}, "
        f"{_count(len(settings.outputs), 'output')}."
    )
    for remark in settings.remarks:
        click.echo(f"Mind: {remark}")
    if not settings.sources:
        click.echo("No [sources.…] yet, so nothing will be measured; config/example.toml shows every kind.")
    if not settings.outputs:
        click.echo("No [outputs.…] yet, so what is measured goes nowhere; [outputs.csv] is the simplest.")
    click.echo(f"Next: ./orchestrator.py run{named(path)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
