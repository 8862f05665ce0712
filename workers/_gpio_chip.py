"""Edges from the GPIO character device: requested with `gpiod`, read as the kernel's own records of 48 bytes.

The library requests the lines; from then on there is only a descriptor. It can be kept by another process, where edges
go on queueing while no reader lives, and reading its raw records keeps up with rates at which objects fall behind.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from workers import SourceError
from workers._gpio import Busy, Edge, Line, NoChip

_RECORD: Final = struct.Struct("=QIIII6I")  # linux/gpio.h: gpio_v2_line_event, the same on 32 and 64 bits
_MOST_RECORDS: Final = 256  # taken by one read
# The most that the kernel grants (GPIO_V2_LINES_MAX * 16), for all lines of a request together: minutes of pulses.
_BUFFER: Final = 1024
_GET_VALUES: Final = 0xC010B40F  # linux/gpio.h: GPIO_V2_LINE_GET_VALUES_IOCTL
_LEVELS: Final = struct.Struct("=QQ")  # gpio_v2_line_values: bits, mask
# The chip with the header pins, by what it calls itself; its number has changed from kernel to kernel.
_LABELS: Final = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")  # Pi 5, Pi 4, those before
_DEVICES: Final = Path("/dev")
_GONE: Final = frozenset({errno.ENODEV, errno.ENXIO, errno.EIO})


class ChipEdges:
    """The lines of one request."""

    def __init__(self, chip: str, lines: Sequence[Line], consumer: str) -> None:
        self._chip = chip
        self._lines = lines
        self._consumer = consumer
        self.descriptor = -1
        self.offsets: list[int] = []

    def open(self) -> None:
        """Request all lines at once. `descriptor` is then the request, and belongs to whoever called."""
        try:
            import gpiod
            from gpiod.line import Bias, Clock, Direction
            from gpiod.line import Edge as Detect
        except ImportError as error:
            raise NoChip("the Python package gpiod is not installed", "run: make install") from error
        if not hasattr(gpiod, "request_lines"):
            raise NoChip(
                "the Python package gpiod is version 1, from before the kernel numbered edges",
                "let wattherd use its own virtual environment: make install",
            )
        biases = {"pull_up": Bias.PULL_UP, "pull_down": Bias.PULL_DOWN, "none": Bias.DISABLED}
        edges = {"rising": Detect.RISING, "falling": Detect.FALLING}
        with _chip(gpiod, self._chip) as chip:
            path = str(chip.path)
            self.offsets = [_offset(chip, line.line) for line in self._lines]
            settings = {
                offset: gpiod.LineSettings(
                    direction=Direction.INPUT,
                    edge_detection=Detect.BOTH if line.both else edges[line.edge],
                    bias=biases[line.bias],
                    active_low=line.active_low,
                    event_clock=Clock.MONOTONIC,
                )
                for offset, line in zip(self.offsets, self._lines, strict=True)
            }
            if len(settings) < len(self._lines):
                raise SourceError("two channels have the same line", "correct `line`: a name and a number can be one")
            try:
                request = chip.request_lines(settings, consumer=self._consumer, event_buffer_size=_BUFFER)
            except OSError as error:
                raise _refused(chip, path, self.offsets, error) from error
        # A copy that no object of the library closes behind our back: the request lives as long as any copy does.
        self.descriptor = os.dup(request.fd)
        request.release()
        os.set_blocking(self.descriptor, False)

    def adopt(self, descriptor: int, offsets: list[int]) -> None:
        """Go on with a request that a predecessor made."""
        self.descriptor, self.offsets = descriptor, offsets
        os.set_blocking(descriptor, False)

    def take(self) -> list[Edge]:
        try:
            data = os.read(self.descriptor, _RECORD.size * _MOST_RECORDS)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno in _GONE:
                raise gone() from error
            raise
        if not data:
            raise gone()
        return decode(data)

    def levels(self) -> list[bool]:
        try:
            mask = (1 << len(self.offsets)) - 1
            answer = fcntl.ioctl(self.descriptor, _GET_VALUES, _LEVELS.pack(0, mask))
        except OSError:
            return []  # a chip that is gone says so to the reader; here it only is not known
        bits, _ = _LEVELS.unpack(answer)
        return [bool(bits >> place & 1) is (line.edge == "rising") for place, line in enumerate(self._lines)]

    def close(self) -> None:
        self.descriptor = -1  # kept open: edges queue there for whoever reads on


def decode(data: bytes) -> list[Edge]:
    """Decode `gpio_v2_line_event` records; an incomplete one at the end is none of the kernel's.

    >>> sample = bytes.fromhex("79df0d86487000000100000014000000070000000300000000000000") + bytes(20)
    >>> decode(sample)
    [Edge(at_ns=123456789012345, kind=1, offset=20, number=3)]
    """
    whole = memoryview(data)[: len(data) - len(data) % _RECORD.size]
    return [Edge(at_ns, kind, offset, number) for at_ns, kind, offset, _, number, *_ in _RECORD.iter_unpack(whole)]


def gone() -> SourceError:
    return SourceError(
        "the GPIO chip went away while its lines were read",
        "if it hangs on USB or I2C, plug it in again; else look at `dmesg`",
    )


def _chip(gpiod: Any, wanted: str) -> Any:
    """Open the chip that `wanted` means: "auto", a path, or a label."""
    if wanted.startswith("/"):
        return _opened(gpiod, wanted)
    paths = sorted({os.path.realpath(path) for path in _DEVICES.glob("gpiochip*")})
    if not paths:
        raise NoChip(
            "there is no GPIO chip on this machine (no /dev/gpiochip*)",
            "run this source on the Raspberry Pi that has the meter; in a container pass --device /dev/gpiochip0",
        )
    found: dict[str, str] = {}  # label: path
    denied: SourceError | None = None
    for path in paths:
        try:
            with _opened(gpiod, path) as chip:
                found.setdefault(str(chip.get_info().label), path)
        except SourceError as error:
            denied = denied or error
    labels = _LABELS if wanted == "auto" else (wanted,)
    path_or_none = next((found[label] for label in labels if label in found), None)
    if path_or_none is None and wanted == "auto" and len(found) == 1 and denied is None:
        path_or_none = next(iter(found.values()))
    if path_or_none is None and denied is not None:
        raise denied
    if path_or_none is None:
        there = ", ".join(f"{label} ({path})" for label, path in found.items())
        what = "none of the GPIO chips is one of a Raspberry Pi" if wanted == "auto" else f"no GPIO chip is {wanted}"
        raise SourceError(f"{what}; there are: {there}", 'set chip = "…" to one of these labels')
    return _opened(gpiod, path_or_none)


def _opened(gpiod: Any, path: str) -> Any:
    try:
        return gpiod.Chip(path)
    except PermissionError as error:
        raise SourceError(
            f"this user may not open {path}",
            f"run: sudo usermod -aG {_group(path)} $USER, and log in again; under systemd: "
            f"SupplementaryGroups={_group(path)}",
        ) from error
    except FileNotFoundError as error:
        raise NoChip(f"there is no {path}", 'set chip = "auto", or to what `ls /dev/gpiochip*` shows') from error
    except OSError as error:
        raise NoChip(f"{path} is no GPIO chip ({error.strerror})", 'set chip = "auto"') from error


def _group(path: str) -> str:
    """Name the group that may open a device; "gpio", as on Raspberry Pi OS, where only root may."""
    try:
        name = grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        return "gpio"
    return "gpio" if name == "root" else name


def _offset(chip: Any, line: int | str) -> int:
    try:
        return int(chip.line_offset_from_id(line))
    except (OSError, ValueError) as error:  # a name that is not there, a number beyond the last
        label = chip.get_info().label
        raise SourceError(f"the chip {label} has no line {line!r}", "see what it has: gpioinfo") from error


def _refused(chip: Any, path: str, offsets: Sequence[int], error: OSError) -> SourceError:
    if error.errno == errno.EBUSY:
        holders = {offset: chip.get_line_info(offset) for offset in offsets}
        busy = {offset: str(info.consumer or "the kernel") for offset, info in holders.items() if info.used}
        if not busy:
            return Busy("a line is in use, by whom nobody says", "see: gpioinfo", frozenset())
        who = ", ".join(f"line {offset} is in use by {consumer}" for offset, consumer in busy.items())
        return Busy(
            who,
            "stop that program, or free the line: look for a dtoverlay in config.txt and an export in /sys/class/gpio",
            frozenset(busy.values()),
        )
    if error.errno in (errno.EINVAL, errno.ENXIO):
        return SourceError(
            f"{path} refuses the lines {', '.join(map(str, offsets))} ({error.strerror})",
            'correct `line` (0 to 27 are on the header of a Pi) or try bias = "none"',
        )
    return SourceError(f"{path} refuses its lines ({error.strerror})", "look at `dmesg`")
