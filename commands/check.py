"""`check`: read the configuration, say everything that is wrong with it, start nothing."""

from __future__ import annotations

from pathlib import Path

import click

from commands._configuration import chosen, config_option, read_or_exit


@click.command
@config_option
def command(path: Path | None) -> None:
    """Check the configuration; starts nothing. Status 2 when something is wrong with it."""
    file = chosen(path)
    settings = read_or_exit(file)
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
    click.echo(f"Next: ./orchestrator.py run{f' --config {click.format_filename(path)}' if path else ''}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
