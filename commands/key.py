"""`key`: a new key for those who ask the api from elsewhere. It is shown once; the configuration keeps its hash."""

from __future__ import annotations

import secrets
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, is_demo, read
from commands._probe import leave
from config.edit import EditError, restore, set_table_values, table_holder
from config.interface import hash_of_key, is_loopback
from config.load import ConfigurationError, pieces_of
from config.settings import Settings

_FAILED: Final = 1
_BYTES: Final = 32


@click.command
@click.option("--yes", is_flag=True, help="Make the key that there is invalid without a question.")
@config_option
def command(path: Path | None, *, yes: bool) -> None:
    """Make a key for those who ask from other machines.

    Example: ./orchestrator.py key --yes
    """
    file = chosen(path)
    if is_demo(file):
        leave("the demo house has no key; write config/site.toml first: ./orchestrator.py init", EXIT_CONFIGURATION)
    where = table_holder([file, *pieces_of(file)], "api")
    if _has_key(where) and not yes and not _confirmed("There is a key already. Shall it be valid no more?"):
        leave("Nothing was changed.", _FAILED)
    key = secrets.token_urlsafe(_BYTES)
    settings = _write(file, where, hash_of_key(key))
    click.echo("This is the key. It is shown only now, and kept nowhere:\n")
    click.echo(f"  {key}\n")
    click.echo(f"{where} has its hash. Send it as X-API-Key, or enter it where the page asks for it.")
    click.echo(_next(settings))


def _has_key(file: Path) -> bool:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(tomllib.loads(file.read_text(encoding="utf-8"))["api"]["key_hash"])
    return False


def _write(file: Path, where: Path, key_hash: str) -> Settings:
    """Write, and see that the configuration holds now; without a key it may not have."""
    try:
        backup = set_table_values(where, "api", {"key_hash": key_hash})
    except EditError as error:
        leave(f"{error}\nNothing was written, and there is no new key.", _FAILED)
    try:
        settings = read(file)
    except ConfigurationError as error:
        restore(where, backup)
        problems = "\n".join(error.problems)
        leave(f"{problems}\n{where} would not be valid with it, so it is as it was.", _FAILED)
    backup.unlink()  # it may have the hash of a key that is to be valid no more
    return settings


def _next(settings: Settings) -> str:
    reload = f'kill -HUP "$(cat {settings.data_dir}/wattherd.lock)"'
    if is_loopback(settings.api.host):
        return f'Next: set [api] host to this machine\'s address, or to "0.0.0.0" for all; then {reload}'
    return f"Next, if the house runs: {reload}"


def _confirmed(words: str) -> bool:
    with suppress(click.Abort):
        return sys.stdin.isatty() and click.confirm(words)
    click.echo(err=True)
    return False
