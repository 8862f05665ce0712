"""`channel`: what to do when a device gets another name, is replaced, or measures something else from now on."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Final

import click

from commands._configuration import chosen, config_option, named, read_or_exit
from commands._ledger import ask, carry_out, channel_or_exit, opened
from commands._probe import leave
from commands._screen import json_option, print_json
from config.settings import NAME_PATTERN
from history.rename import rename as history_rename
from writer.errands import Rename, Replace, Repurpose

_USAGE: Final = 2


@click.group
def command() -> None:
    """Rename, replace or repurpose a channel.

    These are three different things. A channel is a device under the name that the configuration gives it,
    source/device. Its register goes on when it is renamed or when its device is replaced; it ends when the device
    measures something else from now on.

    Example: ./orchestrator.py channel rename meter/esp32-meter grid
    """


@command.command(short_help="The same meter under another name.")
@click.argument("channel")
@click.argument("name")
@config_option
@json_option
def rename(channel: str, name: str, path: Path | None, *, as_json: bool) -> None:
    """Let CHANNEL go on under NAME: the same meter, with another name in the configuration.

    Say it first, then change the name in the configuration and reload: with the first reading under the new name the
    register goes on where the old one ended.

    Example: ./orchestrator.py channel rename meter/esp32-meter grid
    """
    old, new = _old_and_new(channel, name, path)
    settings = read_or_exit(chosen(path))
    answer = ask(settings, Rename(old, new))
    if answer.startswith("✗"):
        leave(answer, 1)
    try:
        renamed = history_rename(settings.data_dir / "history.db", _parts(old), _parts(new))
    except sqlite3.Error as error:
        leave(f"{answer}\n✗ its history is still that of {old} ({error}); ask again", 1)
    if as_json:
        print_json({"status": 0, "answer": answer, "history": bool(renamed), "next": _next(new)})
        return
    click.echo(answer)
    if renamed:
        click.echo(f"Its history is that of {new} now. Graphite and InfluxDB keep theirs under the old name.")
    click.echo(f"Next: {_next(new)}")


@command.command(short_help="Another device in the same place.")
@click.argument("channel")
@click.option("--note", default="", help="What was replaced by what.")
@config_option
@json_option
def replace(channel: str, note: str, path: Path | None, *, as_json: bool) -> None:
    """There is another device on CHANNEL: let its counter go on from where the register is.

    Example: ./orchestrator.py channel replace meter/grid --note "new meter"
    """
    settings = read_or_exit(chosen(path))
    with opened(settings) as outbox:
        name = channel_or_exit(outbox, channel)
    carry_out(settings, Replace(name, note), as_json=as_json, next_step=f"./orchestrator.py ledger show{named(path)}")


@command.command(short_help="Another purpose for the same device.")
@click.argument("channel")
@click.argument("name")
@click.option("--note", default="", help="Why.")
@config_option
@json_option
def repurpose(channel: str, name: str, note: str, path: Path | None, *, as_json: bool) -> None:
    """The device of CHANNEL measures something else from now on, NAME: its register begins anew there.

    Example: ./orchestrator.py channel repurpose plugs/kettle toaster
    """
    old, new = _old_and_new(channel, name, path)
    carry_out(read_or_exit(chosen(path)), Repurpose(old, new, note), as_json=as_json, next_step=_next(new))


def _next(new: str) -> str:
    return f"name it {new.partition('/')[2]} in the configuration, then reload the house."


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
