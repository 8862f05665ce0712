"""`support`: one file with all that somebody who helps has to see, and with no secret in it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from commands._configuration import chosen, config_option, read
from commands._masking import Masking
from commands._probe import EXIT_FAILED, leave, quietly
from commands._screen import console, json_option, print_json, say, say_next
from commands._support import Bundle, database, files_of, log, machine, our_command, secrets_of, versions
from config.load import ConfigurationError
from writer.clock import wall_minus_monotonic_ns

_README: Final = """\
What wattherd's `support` command gathered. Every text went through a mask: known secrets and what looks like one are
***, network hardware is mac-1, mac-2, …, public addresses are public-address-1, …; the same one has the same name
everywhere. Names of devices, local addresses and readings' counts are not masked. Look it through before you send it.

"""
_NS: Final = 10**9


@click.command
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it; by default here.")
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="The log, where no journal has it.")
@click.option("--with-dead-letters", is_flag=True, help="Also what outputs refused, with its readings.")
@json_option
@config_option
@quietly
def command(
    path: Path | None, output: Path | None, log_file: Path | None, *, with_dead_letters: bool, as_json: bool
) -> None:
    """Pack all that a helper has to see, without secrets.

    The configuration masked, versions, what check, status, verify and audit say, the last of the log, the shape of the
    databases, facts of the machine. Nothing is sent anywhere, and no canary either.

    Status 1: it could not be written.

    Example: ./orchestrator.py support --log /var/log/wattherd.log
    """
    file = chosen(path)
    at_s = (time.monotonic_ns() + wall_minus_monotonic_ns()) // _NS
    target = output or Path(f"wattherd-support-{datetime.fromtimestamp(at_s, UTC):%Y%m%d-%H%M%S}.tar.gz")
    if target.exists():
        leave(f"{target} is there already; name another one with --output", EXIT_FAILED)
    bundle = Bundle(Masking(secrets_of(file)))
    words = ("--config", str(file))
    data_dir = _data_dir(file)
    for what, gather in _parts(bundle, file, words, data_dir, log_file, dead_letters=with_dead_letters):
        if not as_json and console().is_terminal:
            click.echo(f"\rgathering {what:<40}", err=True, nl=False)
        gather()
    listed = "".join(f"{one.name:<24} {one.size:>9,} bytes  {one.what}\n" for one in bundle.members)
    bundle.add("README.txt", "this list", _README + listed)
    try:
        bundle.write(target, at_s)
    except OSError as error:
        leave(f"{target} cannot be written ({error.strerror}); name another place with --output", EXIT_FAILED)
    if as_json:
        members = [{"name": one.name, "what": one.what, "bytes": one.size} for one in bundle.members]
        print_json({"file": str(target), "members": members, "masked": bundle.masking.count})
    else:
        _show(bundle, target)
    sys.exit(0)


def _parts(
    bundle: Bundle,
    file: Path,
    words: tuple[str, ...],
    data_dir: Path | None,
    log_file: Path | None,
    *,
    dead_letters: bool,
) -> list[tuple[str, Callable[[], None]]]:
    """List what is gathered, in this order."""

    def configuration() -> None:
        for one in files_of(file):
            with suppress(OSError):
                bundle.add(f"config/{one.name}", "the configuration, masked", one.read_text(errors="replace"))

    def said(name: str, *arguments: str) -> Callable[[], None]:
        return lambda: bundle.add(f"{name}.txt", f"what `{name}` says", our_command(name, *arguments, *words))

    def the_log() -> None:
        text, where = log(log_file)
        bundle.add("log.txt", f"the last of the log, from {where}", text)

    def databases() -> None:
        if data_dir:
            for name in ("outbox.db", "history.db"):
                told = database(data_dir / name, dead_letters=dead_letters)
                bundle.add(f"{name}.json", "its shape and how much is in it, no readings", told)

    return [
        ("the configuration", configuration),
        ("versions", lambda: bundle.add("versions.txt", "what runs here", versions())),
        ("what check says", said("check")),
        ("what status says", said("status", "--once")),
        ("what verify says", said("verify", "--no-canary")),
        ("what audit says", said("audit", "--since", "7d")),
        ("the log", the_log),
        ("the databases", databases),
        ("the machine", lambda: bundle.add("machine.txt", "the machine, its devices, its kernel's log", machine())),
    ]


def _data_dir(file: Path) -> Path | None:
    """Return where the data lies, if the configuration can be understood."""
    try:
        return read(file).data_dir
    except ConfigurationError:
        return None


def _show(bundle: Bundle, target: Path) -> None:
    if console().is_terminal:
        click.echo("\r" + " " * 60 + "\r", err=True, nl=False)
    for one in bundle.members:
        say(f"  {one.name}: {one.what}", indent=4)
    click.echo()
    say(f"✓ {target}: {len(bundle.members)} files, {bundle.masking.count:,} places masked, for its owner alone")
    say_next(f"look it through, then send it to whom you trust: tar -xOf {target} | less")
