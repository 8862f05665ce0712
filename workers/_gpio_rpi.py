"""Edges from any module that answers to `import RPi.GPIO`: where there is no GPIO character device to use.

It is the second choice: the module tells neither when an edge was nor that one was lost, so the stamp is that of the
callback and nothing outlives this process. `bouncetime` is never given, because it means two things: with RPi.GPIO
"ignore what follows for N ms", with rpi-lgpio "the level must hold for N ms", which swallows short pulses whole.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from workers import SourceError
from workers._gpio import FALLING, RISING, Edge, Line


class RpiEdges:
    """The lines of one `RPi.GPIO` module, which calls back from a thread of its own."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._gpio: Any = None
        self._came: deque[tuple[int, int, int]] = deque()  # at_ns, kind, offset: appending needs no lock
        self._numbers: Counter[int] = Counter()
        self._set_up: list[int] = []
        self._detecting: list[int] = []
        self._work_dir = ""
        self.descriptor = -1
        self.offsets: list[int] = []

    def open(self) -> None:
        names = [line.line for line in self._lines if isinstance(line.line, str)]
        if names:
            raise SourceError(f"RPi.GPIO knows no line names such as {names[0]!r}", "set `line` to the BCM number")
        # lgpio makes a pipe in its working directory, and fails with "/" and no rights; it looks when it is imported.
        if "LG_WD" not in os.environ:
            self._work_dir = os.environ["LG_WD"] = tempfile.mkdtemp(prefix="wattherd-lgpio-")
        try:
            self._gpio = gpio = importlib.import_module("RPi.GPIO")
        except ImportError as error:
            raise SourceError(
                "the module RPi.GPIO is not installed",
                "run: sudo apt install python3-rpi-lgpio, and let the virtual environment see system packages; or set "
                'backend = "gpiod"',
            ) from error
        except RuntimeError as error:
            raise SourceError(f"RPi.GPIO does not work here: {error}", 'set backend = "gpiod"') from error
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.offsets = [int(line.line) for line in self._lines]
        pulls = {"pull_up": gpio.PUD_UP, "pull_down": gpio.PUD_DOWN, "none": gpio.PUD_OFF}
        try:
            gpio.setwarnings(False)
            gpio.setmode(gpio.BCM)
            for offset, line in zip(self.offsets, self._lines, strict=True):
                gpio.setup(offset, gpio.IN, pull_up_down=pulls[line.bias])
                self._set_up.append(offset)
                # At the pin, before `active_low`.
                edge = gpio.RISING if (line.lead == RISING) is not line.active_low else gpio.FALLING
                gpio.add_event_detect(offset, gpio.BOTH if line.both else edge, callback=self._callback(line))
                self._detecting.append(offset)
        except Exception as error:
            raise SourceError(
                f"RPi.GPIO refuses its lines: {error}",
                "on a Pi 5 or a kernel from 6.6 on it needs python3-rpi-lgpio in place of python3-rpi.gpio; "
                "a line may also be in use by another program",
            ) from error

    def take(self) -> list[Edge]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        edges = []
        while self._came:
            at_ns, kind, offset = self._came.popleft()
            self._numbers[offset] += 1
            edges.append(Edge(at_ns, kind, offset, self._numbers[offset]))
        return edges

    def levels(self) -> list[bool]:
        high = [bool(self._gpio.input(offset)) is not line.active_low for offset, line in self._pairs()]
        return [level is (line.edge == "rising") for level, line in zip(high, self._lines, strict=True)]

    def close(self) -> None:
        gpio, set_up, detecting = self._gpio, self._set_up, self._detecting
        self._gpio, self._set_up, self._detecting = None, [], []
        try:
            for offset in detecting:
                gpio.remove_event_detect(offset)
            if set_up:
                gpio.cleanup(set_up)
        finally:
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
            self._came.clear()
            self._numbers.clear()
            if self._work_dir:
                shutil.rmtree(self._work_dir, ignore_errors=True)
                os.environ.pop("LG_WD", None)
                self._work_dir = ""

    def _pairs(self) -> list[tuple[int, Line]]:
        return list(zip(self.offsets, self._lines, strict=True))

    def _callback(self, line: Line) -> Callable[[int], None]:
        gpio, came, descriptor = self._gpio, self._came, self.descriptor

        def on_edge(offset: int) -> None:
            at_ns = time.monotonic_ns()  # first of all: nothing else tells when the edge was
            kind = line.lead
            if line.both:
                kind = RISING if bool(gpio.input(offset)) is not line.active_low else FALLING
            came.append((at_ns, kind, offset))
            with contextlib.suppress(OSError):  # a last callback may come while the lines are let go
                os.eventfd_write(descriptor, 1)

        return on_edge
