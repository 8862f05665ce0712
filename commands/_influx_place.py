"""Which InfluxDB a command is about, what its buckets are called, and with which token: the configuration or `.env`.

PowerLogger had all of it in `.env`: INFLUX_HOST, INFLUX_ORG, INFLUX_TOKEN, RAW_BUCKET, B1M_BUCKET, B5M_BUCKET,
B1H_BUCKET and MEASUREMENT. That still works; where there is an [outputs.influx] that one counts: the writer goes by it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

import logs
from commands._configuration import EXIT_CONFIGURATION, chosen, complain, env_file, is_demo, read
from commands._probe import leave
from config.env import read_env, with_secrets
from config.load import ConfigurationError
from config.settings import Settings
from files import replaced
from writer.outputs._influx_rollups import RAW_KEEPS_S, rolled_levels
from writer.outputs.influx import Options

ADMIN_TOKEN: Final = "INFLUX_TOKEN"  # noqa: S105 - the name of a variable
WRITER_TOKEN: Final = "INFLUX_WRITER_TOKEN"  # noqa: S105
READ_TOKEN: Final = "INFLUX_READ_TOKEN"  # noqa: S105
_VARIABLES: Final = {
    "INFLUX_HOST": "url",
    "INFLUX_ORG": "org",
    "RAW_BUCKET": "bucket",
    "B1M_BUCKET": "bucket_1m",
    "B5M_BUCKET": "bucket_5m",
    "B1H_BUCKET": "bucket_1h",
    "MEASUREMENT": "pulse_measurement",
}
_NOT_SET: Final = re.compile(r"the environment variable (\w+) is not set")
_NOT_YET: Final = "not-made-yet"


@dataclass(frozen=True, slots=True)
class Place:
    """One InfluxDB, as the writer or `.env` names it."""

    options: Options
    token: str  # an administrator's, "" if there is none
    password: str
    told_by: str  # where the names come from
    env_file: Path  # where secrets are kept
    output: str = ""  # the name of its [outputs.<name>], if it has one
    differs: tuple[str, ...] = ()  # what .env says otherwise, and does not count

    @property
    def buckets(self) -> dict[str, int]:
        """The names of all buckets with what they keep in seconds, 0 for ever: the raw one first."""
        rolled = {bucket: level.keeps_s for level, bucket in rolled_levels(self.options)}
        return {self.options.bucket: RAW_KEEPS_S, **rolled}

    @property
    def writer_variable(self) -> str:
        """The variable that the writer takes its token from, or will."""
        named = self.options.token_env
        return named if named and named != ADMIN_TOKEN else WRITER_TOKEN


def place_or_exit(path: Path | None, output: str | None, token_env: str) -> Place:
    """Find the InfluxDB that is meant; leave with status 2 when that cannot be told."""
    file = chosen(path)
    problems: list[str] = []
    variables = read_env(file, problems) | os.environ
    for problem in problems:
        leave(problem, EXIT_CONFIGURATION)
    token = variables.get(token_env, "").strip()
    settings = None if is_demo(file) and path is None else _read_or_exit(file)
    tables = _influx_tables(settings)
    if output and output not in tables:
        listed = f"; there is: {', '.join(tables)}" if tables else ""
        leave(f"there is no [outputs.{output}] of kind influx{listed}", EXIT_CONFIGURATION)
    if len(tables) > 1 and not output:
        leave(f"there are several: {', '.join(tables)}; say which: --output NAME", EXIT_CONFIGURATION)
    if not tables or settings is None:
        return Place(_from_variables(variables), _hidden(token), "", ".env", env_file(file))
    name = output or next(iter(tables))
    options = tables[name]
    secrets = {variable: secret for variable, secret in settings.secrets.items() if secret != _NOT_YET}
    return Place(
        options,
        token=_hidden(token or secrets.get(options.token_env, "")),
        password=_hidden(secrets.get(options.password_env, "")),
        told_by=os.path.relpath(file),
        env_file=env_file(file),
        output=name,
        differs=tuple(_differing(options, variables)),
    )


def keep_in_env(file: Path, secrets: dict[str, str]) -> None:
    """Write variables into `.env`, mode 600, in the place of what they were; all other lines stay."""
    text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
    named = re.compile(rf"\s*(export\s+)?({'|'.join(secrets)})\s*=")
    kept = "".join(line for line in text.splitlines(keepends=True) if not named.match(line))
    replaced(file, with_secrets(kept, secrets).encode())


def _read_or_exit(file: Path) -> Settings:
    """Read the configuration, although the tokens that it names may not have been made yet."""
    missing: list[str] = []
    try:
        return read(file)
    except ConfigurationError as error:
        missing = _NOT_SET.findall("\n".join(error.problems))
    os.environ.update(dict.fromkeys(missing, _NOT_YET))
    try:
        return read(file)
    except ConfigurationError as error:
        complain(error)
        sys.exit(EXIT_CONFIGURATION)
    finally:
        for variable in missing:
            del os.environ[variable]


def _influx_tables(settings: Settings | None) -> dict[str, Options]:
    outputs: Iterable[tuple[str, Any]] = settings.outputs.items() if settings else ()
    return {name: table for name, table in outputs if isinstance(table, Options) and table.enabled}


def _from_variables(variables: dict[str, str]) -> Options:
    named = {key: variables[variable].strip() for variable, key in _VARIABLES.items() if variables.get(variable)}
    try:
        return msgspec.convert(named, Options)
    except msgspec.ValidationError as error:
        leave(f".env: {error}", EXIT_CONFIGURATION)


def _differing(options: Options, variables: dict[str, str]) -> Iterable[str]:
    for variable, key in _VARIABLES.items():
        told = variables.get(variable, "").strip()
        if told and told != getattr(options, key):
            yield f"{variable}={told} is not used: the configuration has {key} = {getattr(options, key)!r}"


def _hidden(secret: str) -> str:
    if secret:
        logs.hide(secret)
    return secret


def mask(token: str) -> str:
    """Show enough of a token to know which one it is, and too little to use it.

    >>> mask("3EDgXV1TOvCk4ssy3wbQ" * 4 + "abcdefgh")
    '3EDgXV1TOvCk4ssy3wb...'
    >>> mask("secret"), mask("")
    ('s...', '(none)')
    """
    return f"{token[: min(19, len(token) // 4)]}..." if token else "(none)"
