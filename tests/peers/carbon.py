"""A real carbon-cache, which writes what it is sent to whisper files within moments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import whisper

from tests.peers.process import free_ports, require, running

_CARBON_CONF = """
[cache]
STORAGE_DIR = {folder}
LOCAL_DATA_DIR = {folder}/whisper
CONF_DIR = {folder}
LOG_DIR = {folder}
PID_DIR = {folder}
USER =
DATABASE = whisper
MAX_CACHE_SIZE = inf
MAX_UPDATES_PER_SECOND = inf
MAX_CREATES_PER_MINUTE = inf
MIN_TIMESTAMP_RESOLUTION = 1
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {line_port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {pickle_port}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {query_port}
ENABLE_UDP_LISTENER = False
USE_FLOW_CONTROL = True
WHISPER_AUTOFLUSH = {autoflush}
CARBON_METRIC_INTERVAL = 0
"""
_STORAGE_SCHEMAS = """
[all]
pattern = .*
retentions = 1s:1d
"""


@dataclass(frozen=True)
class Carbon:
    """A carbon that listens on `port` of 127.0.0.1. Every series keeps one point a second for a day."""

    port: int
    folder: Path
    query_port: int  # where graphite-web asks for what is not in a file yet

    def file(self, path: str) -> Path:
        return self.whisper_dir / Path(*path.split(".")).with_suffix(".wsp")

    def points(self, path: str, step_s: int, from_s: int, until_s: int, now_s: int | None = None) -> dict[int, float]:
        """Return what one archive has from `from_s` up to and without `until_s`, by the beginning of its slot."""
        file = self.file(path)
        try:
            found = whisper.fetch(str(file), from_s - 1, until_s - 1, now=now_s, archiveToSelect=step_s)
        except (TypeError, whisper.WhisperException, OSError):  # not yet a whole file
            return {}
        if not found:
            return {}
        (start_s, _, step_s), values = found
        return {start_s + n * step_s: value for n, value in enumerate(values) if value is not None}

    def fetch(self, path: str, at_s: int) -> float | None:
        """Return what is in the file of `path` for that second, None while there is nothing."""
        file = self.file(path)
        if not file.exists():
            return None
        try:
            _, values = whisper.fetch(str(file), at_s - 1, at_s)
        except (TypeError, whisper.WhisperException, OSError):  # not yet a whole file
            return None
        return values[0]

    @property
    def whisper_dir(self) -> Path:
        return self.folder / "whisper"

    def series(self) -> list[str]:
        """Name every series that has a file."""
        root = self.folder / "whisper"
        return sorted(".".join(file.relative_to(root).with_suffix("").parts) for file in root.rglob("*.wsp"))


@contextlib.contextmanager
def running_carbon(
    folder: Path,
    *,
    schemas: str = _STORAGE_SCHEMAS,
    aggregation: str = "",
    environment: dict[str, str] | None = None,
    autoflush: bool = True,
) -> Iterator[Carbon]:
    """Run a carbon until the end of the block, with the storage-schemas.conf and storage-aggregation.conf given.

    As Debian sets it up, without `autoflush`, a point is seen in its file later than a test would wait for it.
    """
    program = require("carbon-cache")
    line_port, pickle_port, query_port = free_ports(3)
    (folder / "whisper").mkdir()
    (folder / "carbon.conf").write_text(
        _CARBON_CONF.format(
            folder=folder, line_port=line_port, pickle_port=pickle_port, query_port=query_port, autoflush=autoflush
        )
    )
    (folder / "storage-schemas.conf").write_text(schemas)
    (folder / "storage-aggregation.conf").write_text(aggregation)
    command = [program, f"--config={folder}/carbon.conf", f"--pidfile={folder}/carbon.pid", "--nodaemon", "start"]
    with running(command, line_port, folder / "carbon.log", {"GRAPHITE_ROOT": str(folder), **(environment or {})}):
        yield Carbon(line_port, folder, query_port)
