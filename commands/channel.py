"""`channel`: what to do when a device gets another name, is replaced, or measures something else from now on."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path
from typing import Final

import click

from commands._configuration import chosen, config_option, read_or_exit
from commands._ledger import ask, channel_or_exit, opened
from commands._probe import leave
from config.settings import NAME_PATTERN
from history.rename import rename as history_rename
from writer.errands import Errand, Rename, Replace, Repurpose

_USAGE: Final = 2


@click.group
def command() -> None:
    """Rename, replace or repurpose a channel.

    These are three different things. A channel is a device under the name that the configuration gives it,
    source/device. Its register goes on when it is renamed or when its device is replaced; it ends when the device
    measures something else from now on.
    """


@command.command(short_help="The same meter under another name.")
@click.argument("channel")
@click.argument("name")
@config_option
def rename(channel: str, name: str, path: Path | None) -> None:
    """Let CHANNEL go on under NAME: the same meter, with another name in the configuration.

    Say it first, then change the name in the configuration and reload: with the first reading under the new name the
    register goes on where the old one ended.
    """
    old, new = _old_and_new(channel, name, path)
    settings = read_or_exit(chosen(path))
    answer = ask(settings, Rename(old, new))
    if answer.startswith("✗"):
        leave(answer, 1)
    click.echo(answer)
    try:
        renamed = history_rename(settings.data_dir / "history.db", _parts(old), _parts(new))
    except sqlite3.Error as error:
        leave(f"✗ its history is still that of {old} ({error}); ask again", 1)
    if renamed:
        click.echo(f"Its history is that of {new} now. Graphite and InfluxDB keep theirs under the old name.")
    click.echo(f"Next: name it {new.partition('/')[2]} in the configuration, then reload the house.")


@command.command(short_help="Another device in the same place.")
@click.argument("channel")
@click.option("--note", default="", help="What was replaced by what.")
@config_option
def replace(channel: str, note: str, path: Path | None) -> None:
    """There is another device on CHANNEL: let its counter go on from where the register is."""
    with opened(read_or_exit(chosen(path))) as outbox:
        name = channel_or_exit(outbox, channel)
    _carry_out(path, Replace(name, note), "")


@command.command(short_help="Another purpose for the same device.")
@click.argument("channel")
@click.argument("name")
@click.option("--note", default="", help="Why.")
@config_option
def repurpose(channel: str, name: str, note: str, path: Path | None) -> None:
    """The device of CHANNEL measures something else from now on, NAME: its register begins anew there."""
    old, new = _old_and_new(channel, name, path)
    _carry_out(
        path,
        Repurpose(old, new, note),
        f"Next: name it {new.partition('/')[2]} in the configuration, then reload the house.",
    )


def _old_and_new(channel: str, name: str, path: Path | None) -> tuple[str, str]:
    with opened(read_or_exit(chosen(path))) as outbox:
        old = channel_or_exit(outbox, channel)
    new = name.replace(".", "/", 1) if "/" in name or "." in name else f"{old.partition('/')[0]}/{name}"
    if not all(re.fullmatch(NAME_PATTERN, part) for part in new.split("/", 1)):
        leave(f"{name!r} is no name for a channel: letters, digits, - and _, at most 63 of them", _USAGE)
    return old, new


def _parts(channel: str) -> tuple[str, str]:
    source, _, device = channel.partition("/")
    return source, device


def _carry_out(path: Path | None, errand: Errand, next_step: str) -> None:
    answer = ask(read_or_exit(chosen(path)), errand)
    failed = answer.startswith("✗")
    click.echo(answer, err=failed)
    if next_step and not failed:
        click.echo(next_step)
    sys.exit(1 if failed else 0)
