"""`restore`: put a house back from what `backup` made, into a place where nothing is."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from commands import _archive, _restore
from commands._archive import BadArchive, Manifest
from commands._configuration import ROOT, SITE, config_option
from commands._probe import leave, quietly
from commands._progress import shown_progress
from commands._restore import UNFINISHED, Refused, Restored, Target
from commands._screen import json_option, say_next
from supervise.instance import AlreadyRunning, lock

_FAILED: Final = 1


@click.command
@click.argument("archive", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@config_option
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Put everything into this directory, configuration and data, as a house of its own beside yours.",
)
@click.option("--check", is_flag=True, help="Only prove that the archive is whole; restores nothing.")
@json_option
@quietly
def command(archive: Path, path: Path | None, into: Path | None, *, check: bool, as_json: bool) -> None:
    """Put a house back from ARCHIVE.

    Its data goes to the data_dir of its configuration, where nothing may be yet, and the configuration to where there
    is none; one that is there already stays, and the one of the backup is put beside it. The house must not run.

    Example: ./orchestrator.py restore wattherd-backup-20261128.tar.gz
    """
    try:
        with _archive.opened(archive) as (tar, manifest, entries):
            configuration = _restore.read_configuration(tar, entries)
            total = sum(packed.bytes for packed in manifest.files.values())
            if check:
                _checked(tar, manifest, entries, total)
                _tell(manifest, None, None, as_json=as_json)
                if not as_json:
                    say_next(f"./orchestrator.py restore {shlex.quote(str(archive))}, where nothing is yet")
                return
            target = _target(manifest, configuration, path, into)
            restored = _restored(tar, manifest, entries, target)
    except (BadArchive, Refused) as error:
        leave(f"✗ nothing was restored: {error}", _FAILED)
    except (OSError, sqlite3.Error) as error:
        where = getattr(error, "filename", None) or archive
        leave(f"✗ nothing was restored: {where}: {getattr(error, 'strerror', None) or error}", _FAILED)
    _tell(manifest, target, restored, as_json=as_json)


def _target(manifest: Manifest, configuration: dict[str, bytes], path: Path | None, into: Path | None) -> Target:
    if into:
        into = into.absolute()
        return Target(into / manifest.config, into / "var", ROOT, moved=True)
    config = (path or SITE.with_name(manifest.config)).absolute()
    if config.exists():  # it stays, so its data_dir counts
        configuration = {
            each.name: each.read_bytes() for each in (config, *sorted(config.parent.glob("conf.d/*.toml")))
        }
    return Target(config, ROOT / Path(_restore.data_dir_of(configuration)).expanduser(), ROOT)


def _restored(tar: Any, manifest: Manifest, entries: Any, target: Target) -> Restored:
    """Do it: lock the place, unpack into a corner of it, check, and only then move."""
    data_dir = target.data_dir
    if os.geteuid() == 0 and (owner := ROOT.stat().st_uid) != 0:
        raise Refused(
            f"root would own it all, and the house could not write; run it as its user: sudo -u '#{owner}' \u2026"
        )
    data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    try:
        locked = lock(data_dir, 0)
    except AlreadyRunning as error:
        raise Refused(str(error)) from error
    place = data_dir / UNFINISHED
    try:
        _restore.empty_or_refused(data_dir)
        _room_or_refused(manifest, data_dir)
        place.mkdir(mode=0o700)
        try:
            with shown_progress("restore", sum(packed.bytes for packed in manifest.files.values())) as moved:
                _restore.unpacked(tar, manifest, entries, place, moved)
            passed_over = _restore.settled(place, manifest)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        restored = _restore.put_in_place(place, target)
        restored.passed_over = passed_over
        return restored
    finally:
        os.close(locked)


def _checked(tar: Any, manifest: Manifest, entries: Any, total: int) -> None:
    with tempfile.TemporaryDirectory(prefix="wattherd-restore-") as place, shown_progress("check", total) as moved:
        _room_or_refused(manifest, Path(place))
        _restore.unpacked(tar, manifest, entries, Path(place), moved)


def _room_or_refused(manifest: Manifest, directory: Path) -> None:
    wanted = sum(packed.bytes for packed in manifest.files.values())
    free = shutil.disk_usage(directory).free
    if free < wanted:
        raise Refused(f"{directory} has {free / 1e6:.0f} MB free, the backup takes {wanted / 1e6:.0f} MB")


def _tell(manifest: Manifest, target: Target | None, restored: Restored | None, *, as_json: bool) -> None:
    if as_json:
        told: dict[str, Any] = {
            "made": manifest.made_utc,
            "site": manifest.site,
            "files": len(manifest.files),
            "bytes": sum(packed.bytes for packed in manifest.files.values()),
            "waiting": manifest.waiting,
        }
        if target and restored:
            told |= {
                "data_dir": str(target.data_dir),
                "config": str(target.config),
                "written": [str(file) for file in restored.written],
                "kept": [str(file) for file in restored.kept],
                "passed_over": restored.passed_over,
            }
        click.echo(json.dumps(told, indent=2))
        return
    what = f"the backup of {manifest.site} made {manifest.made_utc}, {len(manifest.files)} files"
    if target is None or restored is None:
        click.echo(f"✓ {what}, is whole")
        return
    click.echo(f"✓ {what}, is in {target.data_dir}")
    for file in restored.written:
        click.echo(f"  wrote {file}")
    for file in restored.kept:
        click.echo(
            f"! there is another {file.name.removesuffix('.from-backup')} already; the one of the backup is {file}"
        )
    for output, count in restored.passed_over.items():
        click.echo(
            f"! output {output}: its files outside of data_dir have gone on since the backup; it goes on behind them, "
            f"and the {count} readings that waited for it then are taken as written"
        )
    option = "" if target.config == SITE else f" --config {target.config}"
    click.echo("What was measured after the backup is not in it; devices with a counter of their own tell the energy.")
    click.echo(f"Next: ./orchestrator.py check{option}, then ./orchestrator.py run{option}")
