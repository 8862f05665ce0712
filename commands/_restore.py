"""Puts a house back from an archive: all of it or nothing, into a place where nothing is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit

from commands import _archive
from commands._archive import BadArchive, Manifest
from commands._backup import SKIPPED
from config.settings import Site
from files import replaced
from writer.outbox import Account, Progress
from writer.outbox_file import connect
from writer.transaction import transaction

UNFINISHED: Final = ".restoring"  # where everything is put until it is whole
_LAST: Final = "outbox.db"  # with it the place becomes a house
_SIDES: Final = {"secrets/beside/": Path(), "secrets/above/": Path("..")}


class Refused(Exception):  # noqa: N818 - an answer
    """Nothing was restored: what, and what now."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a house is put."""

    config: Path  # the configuration, site.toml say
    data_dir: Path
    root: Path  # where wattherd lies
    moved: bool = False  # data_dir is another one than the configuration says, which has to follow


@dataclass(slots=True)
class Restored:
    """What became of it."""

    written: list[Path] = field(default_factory=list)  # of the configuration and the secrets
    kept: list[Path] = field(default_factory=list)  # there was another one already; ours lies beside it
    passed_over: dict[str, int] = field(default_factory=dict)  # readings that a file beyond our reach has got already


def data_dir_of(configuration: Mapping[str, bytes]) -> str:
    """Return the `[site] data_dir` of some files of a configuration, which may have other mistakes."""
    for text in configuration.values():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(tomllib.loads(text.decode("utf-8-sig"))["site"]["data_dir"])
    return Site().data_dir


def read_configuration(tar: tarfile.TarFile, entries: Mapping[str, tarfile.TarInfo]) -> dict[str, bytes]:
    """Return the files of the configuration, by their names in the archive."""
    found = {}
    for name, entry in entries.items():
        if name.startswith("config/") and name.endswith(".toml") and (file := tar.extractfile(entry)):
            found[name] = file.read()
    return found


def empty_or_refused(data_dir: Path) -> None:
    """See that nothing of a house is in `data_dir`; what a killed restore has left there goes. Raise `Refused`."""
    if not data_dir.exists():
        return
    there = [path for path in data_dir.iterdir() if path.name not in (*SKIPPED, "lost+found")]
    if (data_dir / UNFINISHED) in there and (data_dir / _LAST) not in there:
        for path in there:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif there:
        raise Refused(
            f"{data_dir} is not empty ({there[0].name} and so on); move it aside first: mv {data_dir} {data_dir}.old"
        )


def unpacked(
    tar: tarfile.TarFile,
    manifest: Manifest,
    entries: Mapping[str, tarfile.TarInfo],
    place: Path,
    moved: _archive.Progress,
) -> None:
    """Write everything below `place`, check it against the list and each database in itself. Raise `BadArchive`."""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        _archive.extract(tar, entry, manifest.files[name], place / name, moved=moved)
    for path in sorted((place / "data").rglob("*.db")):
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            verdict = str(error)
        if verdict != "ok":
            raise BadArchive(f"{path.name} in it is damaged: {verdict}; take another backup")


def settled(place: Path, manifest: Manifest) -> dict[str, int]:
    """Make the outbox agree with files that were not in the backup and have gone on since it was made.

    The outbox has noted how long each file was. A file outside of data_dir that is longer now has readings that came
    afterwards: to cut it off would lose them, to append what waited then would double it. So its output goes on behind
    everything that the outbox knows. Return how many readings that passes over, by output.
    """
    outbox = place / "data" / "outbox.db"
    if not outbox.exists():
        return {}
    passed_over = {}
    with contextlib.closing(connect(outbox)) as connection:
        state = dict(connection.execute("SELECT key, value FROM state"))
        head = msgspec.msgpack.decode(state["head"], type=int) if "head" in state else 0
        for key, value in state.items():
            if not key.startswith("output/") or not _has_gone_on(progress := _decoded(value), manifest):
                continue
            name = key.removeprefix("output/")
            account = msgspec.msgpack.decode(state[f"account/{name}"], type=Account)
            waiting = sum(count for row, count in connection.execute("SELECT id, count FROM row") if progress.owes(row))
            passed_over[name] = waiting
            # It has them: the file has grown by what waited and more.
            done = msgspec.structs.replace(
                progress, front=head, gaps=[], memo={}, delivered=progress.delivered + waiting
            )
            with transaction(connection):
                for changed, content in ((key, done), (f"account/{name}", account)):
                    connection.execute(
                        "UPDATE state SET value = ? WHERE key = ?", (msgspec.msgpack.encode(content), changed)
                    )
        connection.execute("PRAGMA journal_mode = DELETE")  # so that it is one file
    return passed_over


def _decoded(value: bytes) -> Progress:
    return msgspec.msgpack.decode(value, type=Progress)


def _has_gone_on(progress: Progress, manifest: Manifest) -> bool:
    for file, size in progress.memo.items():
        path = Path(file)
        if path.is_absolute() and not path.is_relative_to(manifest.data_dir):
            with contextlib.suppress(OSError):
                if path.stat().st_size > size:
                    return True
    return False


def put_in_place(place: Path, target: Target) -> Restored:
    """Move what is whole to where it belongs; configuration and secrets first, the outbox last. Raises `OSError`."""
    restored = Restored()
    for file in _files(place / "config"):
        text = file.read_bytes()
        to = target.config.parent / file.relative_to(place / "config")
        if target.moved:
            text = _with_data_dir(text, target.data_dir, is_first=to == target.config)
        _put(text, to, 0o644, restored)
    for part, side in _SIDES.items():
        if (file := place / part / ".env").exists():
            _put(file.read_bytes(), Path(os.path.normpath(target.config.parent / side / ".env")), 0o600, restored)
    for part, mode in (("place", 0o644), ("secrets/place", 0o600)):
        for file in _files(place / part):
            _put(file.read_bytes(), target.root / file.relative_to(place / part), mode, restored)
    data = place / "data"
    for path in sorted(data.iterdir(), key=lambda each: each.name == _LAST) if data.exists() else ():
        path.rename(target.data_dir / path.name)
    shutil.rmtree(place)
    return restored


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _put(content: bytes, to: Path, mode: int, restored: Restored) -> None:
    """Write a file; where there is another one already ours goes beside it."""
    with contextlib.suppress(OSError):
        if to.read_bytes() == content:
            return
    if to.exists():
        to = to.with_name(f"{to.name}.from-backup")
        restored.kept.append(to)
    else:
        restored.written.append(to)
    replaced(to, content, mode=mode)


def _with_data_dir(text: bytes, data_dir: Path, *, is_first: bool) -> bytes:
    """Name another data_dir in a file of the configuration: where it stands, or in the first file."""
    try:
        document: Any = tomlkit.parse(text.decode("utf-8-sig"))
        site = document.get("site")
        if site is not None and "data_dir" in site:
            site["data_dir"] = str(data_dir)
        elif is_first:
            document.setdefault("site", tomlkit.table())["data_dir"] = str(data_dir)
    except (ValueError, TypeError, AttributeError):
        return text  # a configuration with mistakes is put back as it was
    return str(tomlkit.dumps(document)).encode()
