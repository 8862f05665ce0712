"""What makes this run of the house the only one, and its numbers used once: the lock and the incarnations."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_BLOCK: Final = 1000  # incarnations reserved by one write to the disk


class AlreadyRunning(Exception):  # noqa: N818 - a state of the world, not a fault
    """Another wattherd works in this data directory."""


def lock(data_dir: Path, patience_s: float) -> int:
    """Lock the data directory for this parent and its writer; return the descriptor that holds the lock.

    The writer inherits it: when a parent is killed its writer still empties the channels, and a new parent must not
    start a second one beside it. So a lock that is held is asked for again for a while. Raises `AlreadyRunning`.
    """
    descriptor = os.open(data_dir / "wattherd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                raise AlreadyRunning(
                    f"another wattherd (process {holder}) works in {data_dir}; stop it, or set another [site] data_dir"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


class Incarnations:
    """Numbers for the starts of workers that rise for the whole life of a site, power cuts included."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "incarnation"
        self._next = self._reserved = self._stored()

    def __next__(self) -> int:
        if self._next >= self._reserved:
            self._reserve()
        self._next += 1
        return self._next - 1

    def __iter__(self) -> Incarnations:
        return self

    def _stored(self) -> int:
        """Where to go on. Should the file be lost, the seconds since 1970 are beyond any number of starts."""
        try:
            return int(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return int(time.time())

    def _reserve(self) -> None:
        self._reserved = self._next + _BLOCK
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            file.write(f"{self._reserved}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
