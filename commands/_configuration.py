"""Which configuration a command works with, and how its mistakes are told."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

import click
from msgspec import structs

import logs
import workers
import writer
from config.env import env_files
from config.load import Catalog, ConfigurationError, load
from config.settings import OutputTable, Settings, SourceTable

ROOT: Final = Path(__file__).resolve().parent.parent
SITE: Final = ROOT / "config" / "site.toml"
DEMO: Final = ROOT / "config" / "demo.toml"
EXIT_CONFIGURATION: Final = 2

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration; by default config/site.toml, or the demo house where there is none.",
)


def chosen(path: Path | None) -> Path:
    """Return the configuration file to use, as short as it can be named from here."""
    found = path or (SITE if SITE.exists() else DEMO)
    relative = os.path.relpath(found)
    return Path(relative) if not relative.startswith("..") else found


def named(path: Path | None) -> str:
    """Return what a next command needs so that it is about the same house.

    >>> named(Path("my house.toml")), named(None)
    (" --config 'my house.toml'", '')
    """
    return f" --config {shlex.quote(click.format_filename(path))}" if path else ""


def is_demo(path: Path) -> bool:
    return path.resolve() == DEMO


def env_file(configuration: Path) -> Path:
    """Return the `.env` that counts for a configuration, or would."""
    beside, above = env_files(configuration)
    if beside.is_file() or above.is_file():
        return beside if beside.is_file() else above
    return ROOT / ".env" if configuration.resolve() == SITE else beside


def read(path: Path) -> Settings:
    """Read a configuration; from now on no log of this process shows its secrets. Raises `ConfigurationError`."""
    settings = load(path, catalog(), merge=not is_demo(path), base_directory=ROOT)
    for secret in settings.secrets.values():
        logs.hide(secret)
    # Started from wherever: the same house in the same place.
    site = structs.replace(settings.site, data_dir=str(ROOT / settings.data_dir))
    return structs.replace(settings, site=site)


def read_or_exit(path: Path) -> Settings:
    """Read a configuration; on a mistake tell all of them and leave with status 2."""
    try:
        return read(path)
    except ConfigurationError as error:
        complain(error)
        sys.exit(EXIT_CONFIGURATION)


def complain(error: ConfigurationError) -> None:
    for problem in error.problems:
        click.echo(problem, err=True)
    count = len(error.problems)
    click.echo(f"{count} mistake{'s' if count != 1 else ''} in the configuration; nothing was started", err=True)


def catalog() -> Catalog:
    """All kinds there are, with the table of options of each."""
    return Catalog(workers.kinds, _source_options, writer.kinds, _output_options)


def _source_options(kind: str) -> type[SourceTable]:
    return workers.source_class(kind).Options


def _output_options(kind: str) -> type[OutputTable]:
    return writer.output_class(kind).Options
