"""The file that a backup is: a tar of regular files with a list of their checksums, and how one is read that may lie.

wattherd-backup-20261128/
    data/…            what lay in data_dir
    config/…          the configuration, with its conf.d
    place/…           files of prices, by their paths from where wattherd lies
    secrets/…         .env, if it was asked for
    MANIFEST.json     the last one: name, size and SHA-256 of all others
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec
from msgspec import Struct

FORMAT: Final = 1
MANIFEST: Final = "MANIFEST.json"
PARTS: Final = ("data", "config", "place", "secrets")
_NAME: Final = re.compile(r"wattherd-backup-\d{8}(-\d{6})?")
_MOST_MANIFEST_BYTES: Final = 64_000_000
_MOST_FILES: Final = 500_000
_CHUNK: Final = 1 << 20

Progress = Callable[[int], None]  # is told how many bytes came along


class Packed(Struct, frozen=True):
    """One file of an archive."""

    bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What an archive says of itself."""

    format: int
    made_utc: str
    site: str
    data_dir: str  # where it lay
    config: str  # the name of the configuration, site.toml say
    head: int  # the number of the newest row of the outbox
    waiting: dict[str, int]  # readings that an output had not got yet, by output
    files: dict[str, Packed]


class BadArchive(Exception):  # noqa: N818 - a verdict
    """An archive that cannot be believed: what, and what now."""


class Packer:
    """Writes an archive, file by file, and its list at the end."""

    def __init__(self, file: IO[bytes], name: str, moved: Progress) -> None:
        self.files: dict[str, Packed] = {}
        self._top = name
        self._moved = moved
        # No name and no time in the header: what is the same is the same file.
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        self._tar = tarfile.TarFile(mode="w", fileobj=self._gzip, format=tarfile.PAX_FORMAT)

    def add(self, name: str, path: Path, most_bytes: int | None = None) -> None:
        """Add a file, or its first `most_bytes`; one that is gone by now is left out. Raises `OSError`."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            size = size if most_bytes is None else min(size, most_bytes)
            counted = _Counted(file, size, self._moved)
            self._tar.addfile(self._entry(name, size, os.fstat(file.fileno()).st_mtime), counted)
        self.files[name] = Packed(size, counted.sha256)

    def finish(self, manifest: Manifest) -> None:
        text = msgspec.json.format(msgspec.json.encode(manifest))
        self._tar.addfile(self._entry(MANIFEST, len(text), 0), io.BytesIO(text))
        self._tar.close()
        self._gzip.close()

    def _entry(self, name: str, size: int, modified_s: float) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(f"{self._top}/{name}")
        entry.size, entry.mtime, entry.mode = size, int(modified_s), 0o600
        return entry


class _Counted(io.RawIOBase):
    """Reads exactly `size` bytes of a file; one that got shorter meanwhile is filled up with nothing and told."""

    def __init__(self, file: IO[bytes], size: int, moved: Progress) -> None:
        self._file = file
        self._rest = size
        self._moved = moved
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self._rest if size < 0 else min(size, self._rest)
        content = self._file.read(wanted)
        if len(content) < wanted:
            raise OSError(0, "it got shorter while it was read; try again", str(self._file.name))
        self._rest -= len(content)
        self._digest.update(content)
        self._moved(len(content))
        return content

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[tuple[tarfile.TarFile, Manifest, dict[str, tarfile.TarInfo]]]:
    """Open an archive whose names are all believed: nothing in it can land outside its place. Raise `BadArchive`."""
    try:
        with tarfile.open(path, "r:gz") as tar:
            yield tar, *_contents(tar)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadArchive(f"{path} is no whole archive ({error}); copy it anew, or take another one") from error


def _contents(tar: tarfile.TarFile) -> tuple[Manifest, dict[str, tarfile.TarInfo]]:
    entries: dict[str, tarfile.TarInfo] = {}
    top = ""
    for entry in tar:
        first, _, name = entry.name.partition("/")
        top = top or first
        if not entry.isreg():
            raise BadArchive(f"{entry.name!r:.200} in it is no regular file; this is no backup of wattherd")
        if first != top or not _NAME.fullmatch(top) or not _is_inside(name):
            raise BadArchive(f"{entry.name!r:.200} in it would land elsewhere; this is no backup of wattherd")
        if name in entries:
            raise BadArchive(f"{entry.name!r:.200} is in it twice; this is no backup of wattherd")
        entries[name] = entry
        if len(entries) > _MOST_FILES:
            raise BadArchive(f"it has more than {_MOST_FILES} files; this is no backup of wattherd")
    if tar.fileobj:
        while tar.fileobj.read(_CHUNK):  # up to the checksum at the very end
            pass
    listed = entries.pop(MANIFEST, None)
    if listed is None:
        raise BadArchive("its list of checksums is missing: it is not whole, or no backup of wattherd")
    if listed.size > _MOST_MANIFEST_BYTES:
        raise BadArchive("its list of checksums is too long; this is no backup of wattherd")
    manifest = _manifest(tar, listed)
    if {name: entry.size for name, entry in entries.items()} != {
        name: packed.bytes for name, packed in manifest.files.items()
    }:
        raise BadArchive("it has other files than it says; copy it anew, or take another one")
    return manifest, entries


def _manifest(tar: tarfile.TarFile, listed: tarfile.TarInfo) -> Manifest:
    file = tar.extractfile(listed)
    try:
        manifest = msgspec.json.decode(file.read() if file else b"", type=Manifest)
    except ValueError as error:  # msgspec's own errors, and text that is no UTF-8
        raise BadArchive(f"its list of checksums cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise BadArchive(f"it is of format {manifest.format}, this wattherd reads {FORMAT}; take a newer wattherd")
    if "/" in manifest.config or manifest.config in ("", ".", ".."):
        raise BadArchive(f"{manifest.config!r:.100} is no name of a configuration; this is no backup of wattherd")
    return manifest


def _is_inside(name: str) -> bool:
    """Whether a name stays in the part that it begins with.

    >>> [_is_inside(name) for name in ("data/outbox.db", "data/../x", "data//etc/x", "/data/x", "else/x", "data")]
    [True, False, False, False, False, False]
    """
    parts = PurePosixPath(name).parts
    return name == MANIFEST or (
        len(parts) > 1 and parts[0] in PARTS and ".." not in parts and "\0" not in name and "/".join(parts) == name
    )


def extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, packed: Packed, to: Path, *, moved: Progress) -> None:
    """Write one file, new, and down to the disk. Raise `BadArchive` if it is not what the list says."""
    source = tar.extractfile(entry)
    if source is None:
        raise BadArchive(f"{entry.name!r:.200} cannot be read")
    digest = hashlib.sha256()
    to.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        while content := source.read(_CHUNK):
            digest.update(content)
            file.write(content)
            moved(len(content))
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != packed.sha256:
        raise BadArchive(f"{entry.name} is not what it was when it was packed; copy the archive anew")
