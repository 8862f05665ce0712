"""A file system of a few megabytes, for who may mount one, and what fills it to the last byte."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_AT_ONCE = 65536


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """Mount an ext4 of its own, or where that is not to be had a bounded tmpfs; skip where that is not either."""
    place = directory / "small"
    place.mkdir(parents=True)
    image = directory / "small.img"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    ways = [
        [
            ["mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ],
        [["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)]],
    ]
    for way in ways:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            for command in way:
                subprocess.run(command, check=True, capture_output=True)
            break
    else:
        pytest.skip("nobody here may mount a small file system")
    try:
        yield place
    finally:
        # Lazily: whoever was killed with the house may have it open a moment longer.
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


class Filler:
    """Takes the rest of a disk, and gives it back."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def fill(self, leave_bytes: int = 0) -> None:
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(_AT_ONCE))
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x")
        if leave_bytes:
            os.truncate(self._path, max(0, self._path.stat().st_size - leave_bytes))

    def give_back(self) -> None:
        self._path.unlink(missing_ok=True)
