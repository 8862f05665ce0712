"""Which serial port is meant, and in words why it cannot be had."""

from __future__ import annotations

import errno
import grp
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

_USB: Final = re.compile(r"usb:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?")
_BY_ID: Final = Path("/dev/serial/by-id")
_SHOWN: Final = 3  # ports that a message names: it has to fit on a line


class Unusable(Exception):  # noqa: N818 - a state of the port, not a fault of ours
    """A port cannot be used just now."""

    def __init__(self, what: str, what_now: str, *, absent: bool = False) -> None:
        super().__init__(f"{what}; {what_now}")
        self.what = what
        self.what_now = what_now
        self.absent = absent


def is_candidate(text: str) -> bool:
    """Tell whether this can name a port.

    >>> [is_candidate(text) for text in ("/dev/ttyUSB0", "usb:1a86:7523", "usb:1a86:7523:A50285BI", "ttyUSB0", "usb:1")]
    [True, True, True, False, False]
    """
    return text.startswith("/") or bool(_USB.fullmatch(text))


def find(candidate: str, comports: Callable[[], Iterable[Any]]) -> str:
    """Return the path of a port as it is now: the number of a USB adapter changes when it is plugged in again."""
    if not (usb := _USB.fullmatch(candidate)):
        if not os.path.lexists(candidate):
            raise _absent(f"{candidate} is not there")
        return candidate
    vendor, product, serial_number = int(usb[1], 16), int(usb[2], 16), usb[3]
    found = sorted(
        port.device
        for port in comports()
        if (port.vid, port.pid) == (vendor, product) and serial_number in (None, port.serial_number)
    )
    if not found:
        raise _absent(f"no adapter {candidate} is plugged in")
    if len(found) > 1:
        raise Unusable(
            f"{len(found)} adapters are {candidate}: {_listed(found)}",
            "add the serial number (usb:VID:PID:serial), or name one of them by its path in /dev/serial/by-path",
        )
    return str(found[0])


def refusal(candidate: str, path: str, error: Exception) -> Unusable:
    """Say why `path` could not be opened."""
    name = path if candidate == path else f"{candidate} ({path})"
    number = error.errno if isinstance(error, OSError) else None
    match number:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return _absent(f"{name} is not there")
        case errno.EACCES | errno.EPERM:
            group = _group(path)
            return Unusable(
                f"this user may not use {name}",
                f"run: sudo usermod -aG {group} $USER, then log in again (a service: restart it)",
            )
        case errno.EAGAIN | errno.EBUSY:
            return Unusable(
                f"{name} is in use{_by_whom(path)}", "stop the other program, or the house that runs, and try again"
            )
    return Unusable(
        f"{name} cannot be used as a serial port ({error})", f"name another port; ls {_BY_ID} shows those there are"
    )


def _absent(what: str) -> Unusable:
    try:
        there = sorted(str(path) for path in _BY_ID.iterdir())
    except OSError:
        there = []
    seen = f"it shows {_listed(there)}" if there else "it shows none now"
    return Unusable(what, f"plug in the adapter, or correct port: ls {_BY_ID} ({seen})", absent=True)


def _listed(paths: list[str]) -> str:
    """Name some of them.

    >>> _listed(["a", "b"]), _listed(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    rest = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _group(path: str) -> str:
    """Return the group that may use the port; dialout on every Debian."""
    try:
        name = grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116 - it may be anything, also no file
    except (OSError, KeyError):
        return "dialout"
    return "dialout" if name in ("root", "tty") else name


def _by_whom(path: str) -> str:
    """Name the process that holds the lock of the port, if the kernel tells."""
    try:
        device = os.stat(path)  # noqa: PTH116 - as above
        place = f"{os.major(device.st_dev):02x}:{os.minor(device.st_dev):02x}:{device.st_ino}"
        for lock in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = lock.split()
            if "FLOCK" in words and place in words and "->" not in words:
                pid = words[words.index(place) - 1]
                name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
                return f" by process {pid} ({name})"
    except OSError:
        pass
    return ""
