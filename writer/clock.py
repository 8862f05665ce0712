"""The only place that turns monotonic time into UTC, and that knows whether the time of day can be believed."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from logbook.moment import boot_id

log = logging.getLogger("writer.clock")

STEP_NS: Final = 500_000_000  # the kernel slews by at most 500 ppm, so half a second at once is a step
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronised
_STA_UNSYNC: Final = 0x40
# What is there when a time service looks after the clock; without any, waiting for it would be waiting for ever.
_TIME_SERVICES: Final = (
    "/run/systemd/timesync",
    "/run/chrony",
    "/run/chronyd.pid",
    "/run/ntpd.pid",
    "/run/ntpsec",
    "/run/openntpd.sock",
)


class _Timeval(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long)]


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2), in the layout of the machine's own C compiler."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("pad", ctypes.c_int * 11),
    ]


def kernel_says_synchronised() -> bool:
    """Ask adjtimex(2), read-only; needs no privilege."""
    timex = _Timex()
    result = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    return result >= 0 and result != _TIME_ERROR and not timex.status & _STA_UNSYNC


def has_time_service() -> bool:
    return any(Path(sign).exists() for sign in _TIME_SERVICES)


def wall_minus_monotonic_ns() -> int:
    """Measure UTC − CLOCK_MONOTONIC; the tightest of five looks, so that being interrupted between two does no harm."""
    looks = []
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        after = time.monotonic_ns()
        looks.append((after - before, wall - (before + after) // 2))
    return min(looks)[1]


class WallClock:
    """The offset that turns CLOCK_MONOTONIC into UTC, followed from look to look."""

    def __init__(
        self,
        require_sync: bool | Literal["auto"],
        hold_at_most_s: float,
        *,
        synchronised: Callable[[], bool] = kernel_says_synchronised,
        offset: Callable[[], int] = wall_minus_monotonic_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._required = has_time_service() if require_sync == "auto" else require_sync
        self._synchronised = synchronised
        self._offset = offset
        self._monotonic = monotonic
        self._give_up_at_s = monotonic() + hold_at_most_s
        self.boot = boot_id()
        self.offset_ns = offset()
        self.trusted = False  # the offset is right: the clock was set, or nobody here ever sets it
        self.steps = 0
        self.look()

    @property
    def hopeless(self) -> bool:
        """Not set within the time limit: what is held goes out with the best guess there is."""
        return not self.trusted and self._monotonic() >= self._give_up_at_s

    def look(self) -> None:
        """Measure anew. Once set, a clock stays trusted: a time server out of reach does not make it wrong."""
        offset_ns = self._offset()
        if self.trusted and abs(offset_ns - self.offset_ns) >= STEP_NS:
            self.steps += 1
            log.warning("the clock was set by %+.3f s", (offset_ns - self.offset_ns) / 1e9)
        self.offset_ns = offset_ns
        if not self.trusted and (not self._required or self._synchronised()):
            self.trusted = True
