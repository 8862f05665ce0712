"""`backup`: one file with everything that this house is, made while it goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from commands._archive import FORMAT, Manifest, Packer
from commands._backup import EXIT_FAILED, Instant, copy, instant
from commands._configuration import ROOT, chosen, config_option, read_or_exit
from commands._history import utc_now_ns
from commands._probe import leave, quietly
from commands._progress import shown_progress
from commands._screen import json_option
from commands._service import writable
from config.settings import Settings

_SUFFIX: Final = ".tar.gz"
_LEFT: Final = ".wattherd-backup-"  # what a backup that is being made is called
_SPARE_BYTES: Final = 50_000_000  # that stay free for the house


@click.command
@config_option
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Where to; by default data_dir/backups.")
@click.option("--with-secrets", is_flag=True, help="Put .env and files of keys in too; whoever has the file has them.")
@click.option("--keep", type=click.IntRange(min=1), help="Delete all but the newest KEEP backups there afterwards.")
@json_option
@quietly
def command(path: Path | None, to: Path | None, keep: int | None, *, with_secrets: bool, as_json: bool) -> None:
    """Make a backup of the whole house, while it runs or rests.

    All of it is of one instant: configuration, outbox with the registers, history, CSV files and what sources remember
    go into one wattherd-backup-YYYYMMDD.tar.gz. `restore` reads it.

    Example: ./orchestrator.py backup --to /mnt/nas --keep 7
    """
    began_s = time.monotonic()
    settings = read_or_exit(chosen(path))
    data_dir = settings.data_dir.absolute()
    _house_or_exit(data_dir)
    directory = (to or data_dir / "backups").absolute()
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        for left in directory.glob(f"{_LEFT}*"):
            left.unlink()  # of a backup that was killed
        with instant(data_dir, directory) as found:
            _room_or_exit(found, directory)
            made = _packed(settings, found, directory, with_secrets=with_secrets)
            told = _told(made, found, settings)
        deleted = _deleted(directory, keep) if keep else []
    except (OSError, sqlite3.Error) as error:
        where = getattr(error, "filename", None) or data_dir
        leave(f"✗ no backup was made: {where}: {getattr(error, 'strerror', None) or error}", EXIT_FAILED)
    told |= {"deleted": [file.name for file in deleted], "seconds": round(time.monotonic() - began_s, 1)}
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"✓ {made}: {told['files']} files, {made.stat().st_size / 1e6:.1f} MB, in {told['seconds']} s")
    for remark in told["remarks"]:
        click.echo(f"! {remark}")
    for file in deleted:
        click.echo(f"  deleted {file.name}")
    click.echo(f"Next: copy it to another machine; ./orchestrator.py restore --check {made} proves that it is whole")


def _house_or_exit(data_dir: Path) -> None:
    """Leave where there is nothing to keep, or where reading would leave files behind that the house cannot use."""
    if not any((data_dir / name).exists() for name in ("outbox.db", "history.db")):
        leave(f"there is nothing in {data_dir} yet: no house has run with this configuration", EXIT_FAILED)
    owner = data_dir.stat().st_uid
    if owner != os.geteuid():
        leave(f"{data_dir} belongs to another user; make its backup as that one: sudo -u '#{owner}' …", EXIT_FAILED)


def _room_or_exit(found: Instant, directory: Path) -> None:
    databases = [path.stat().st_size for path in found.databases]
    wanted = sum(databases) + sum(found.sizes.values()) + max(databases, default=0) + _SPARE_BYTES
    free = shutil.disk_usage(directory).free
    if free < wanted:
        leave(
            f"✗ {directory} has {free / 1e6:.0f} MB free and this may take {wanted / 1e6:.0f} MB; "
            "name a place on another disk: --to DIR",
            EXIT_FAILED,
        )


def _packed(settings: Settings, found: Instant, directory: Path, *, with_secrets: bool) -> Path:
    """Write the archive under a name that nobody takes for one, and rename it when it is on the disk."""
    data_dir = settings.data_dir.absolute()
    now = datetime.fromtimestamp(utc_now_ns(settings) // 10**9, UTC)
    final = _free_name(directory, now.astimezone(ZoneInfo(settings.site.timezone)))
    part = directory / f"{_LEFT}{os.getpid()}"
    copied = directory / f"{_LEFT}{os.getpid()}.db"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    total = sum(found.sizes.values()) + 2 * sum(path.stat().st_size for path in found.databases)
    try:
        with open(descriptor, "wb") as file, shown_progress("backup", total) as moved:
            packer = Packer(file, final.name.removesuffix(_SUFFIX), moved)
            for path, connection in found.databases.items():
                copy(connection, copied, moved)
                packer.add(f"data/{path.relative_to(data_dir)}", copied)
                copied.unlink()
            for path, size in found.sizes.items():
                if size:
                    packer.add(f"data/{path.relative_to(data_dir)}", path, size)
            for name, path in configuration(settings, found.remarks, with_secrets=with_secrets).items():
                packer.add(name, path)
            packer.finish(
                Manifest(
                    format=FORMAT,
                    made_utc=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
                    site=settings.site.name,
                    data_dir=str(data_dir),
                    config=settings.files[0].name,
                    head=found.head,
                    waiting=found.waiting,
                    files=packer.files,
                )
            )
            file.flush()
            os.fsync(file.fileno())
        part.rename(final)
    finally:
        part.unlink(missing_ok=True)
        copied.unlink(missing_ok=True)
    return final


def configuration(settings: Settings, remarks: list[str], *, with_secrets: bool) -> dict[str, Path]:
    """Return the files of the configuration, by their names in an archive."""
    first = settings.files[0].absolute()
    found = {f"config/{file.absolute().relative_to(first.parent)}": file for file in settings.files}
    for name in settings.prices:
        _add_place(found, "place", name, remarks)
    if with_secrets:
        env = next((file for file in (first.parent / ".env", first.parent.parent / ".env") if file.is_file()), None)
        if env and settings.secrets:
            found["secrets/beside/.env" if env.parent == first.parent else "secrets/above/.env"] = env
        for options in settings.sources.values():
            if (keys := getattr(options, "keys_file", "")) and (ROOT / Path(keys).expanduser()).is_file():
                _add_place(found, "secrets/place", keys, remarks)
    elif settings.secrets:
        remarks.append("secrets (.env, files of keys) are not in it; --with-secrets puts them in")
    return found


def _add_place(found: dict[str, Path], part: str, name: str, remarks: list[str]) -> None:
    path = Path(os.path.normpath(ROOT / Path(name).expanduser()))
    if path.is_relative_to(ROOT):
        found[f"{part}/{path.relative_to(ROOT)}"] = path
    else:
        remarks.append(f"{path} lies outside of {ROOT} and is not in it; it needs a backup of its own")


def _free_name(directory: Path, now: datetime) -> Path:
    first = directory / f"wattherd-backup-{now:%Y%m%d}{_SUFFIX}"
    return first if not first.exists() else directory / f"wattherd-backup-{now:%Y%m%d-%H%M%S}{_SUFFIX}"


def _deleted(directory: Path, keep: int) -> list[Path]:
    """Delete the oldest of ours in a directory."""
    there = sorted(directory.glob(f"wattherd-backup-*{_SUFFIX}"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    for file in there[:-keep]:
        file.unlink()
    return there[:-keep]


def _told(made: Path, found: Instant, settings: Settings) -> dict[str, Any]:
    for directory in writable(settings)[1:]:
        found.remarks.append(f"{directory} lies outside of data_dir and is not in it; it needs a backup of its own")
    with made.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "archive": str(made),
        "bytes": made.stat().st_size,
        "sha256": digest,
        "files": len(found.databases) + sum(size > 0 for size in found.sizes.values()),
        "waiting": found.waiting,
        "remarks": found.remarks,
    }
