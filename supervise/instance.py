"""What makes this run of the house the only one, and its numbers used once: the lock and the incarnations."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from files import replaced

_BLOCK: Final = 1000  # incarnations reserved by one write to the disk


class AlreadyRunning(Exception):  # noqa: N818 - a state of the world, not a fault
    """Another wattherd works in this data directory."""


class NoPlace(Exception):  # noqa: N818 - as above
    """Nothing can be written into the data directory just now."""


def lock(data_dir: Path, patience_s: float) -> int:
    """Lock the data directory for this parent and its writer; return the descriptor that holds the lock.

    The writer inherits it: when a parent is killed its writer still empties the channels, and a new parent must not
    start a second one beside it. So a lock that is held is asked for again for a while. Raises `AlreadyRunning`, and
    `NoPlace` where there has never been one and no room is left for it.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "wattherd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NoPlace(f"{data_dir} cannot be used ({error.strerror}); free some space or mend the disk") from error
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
            number = f"{os.getpid()}\n".encode()
            with contextlib.suppress(OSError):  # it is for people; on a full disk a new file has no room for it
                os.pwrite(descriptor, number, 0)
                os.ftruncate(descriptor, len(number))  # afterwards: what is let go of, a full disk does not give again
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
        """Have the disk know that numbers are used. Raises `OSError`."""
        reserved = self._next + _BLOCK
        content = f"{reserved}\n".encode()
        try:
            replaced(self._path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not self._path.exists():
                raise
            # A full disk has no room for a new file. The old one has its block, of which this changes some bytes.
            with self._path.open("r+b") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        self._reserved = reserved
