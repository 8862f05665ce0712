"""Real time for a worker whose kernel buffer must not overflow: priority, a core of its own, no paging, no collector.

The kernel stamps every edge, so a late reader falsifies nothing; what real time guards is the buffer, when a machine
that is short of processor time would let the reader wait for seconds. All of it is a wish: what this user may not have
is told once and shown as a number, and the work goes on without.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h
_MCL_CURRENT: Final = 1  # asm-generic/mman.h
_MCL_FUTURE: Final = 2
# Pages are locked as they are touched: those that all processes still share with the parent stay shared.
_MCL_ONFAULT: Final = 4
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_COLLECT_EVERY_S: Final = 600.0


class Realtime:
    """What one process has of it. Priority 0 and core -1 leave everything as it is."""

    def __init__(self, priority: int, core: int) -> None:
        self._priority = priority
        self._core = core
        self._entered = False
        self._collected_at_s = 0.0
        self.refused = 0  # wishes that were not granted

    def enter(self, log: logging.Logger) -> None:
        """Take what is granted; one warning for each wish that is not. A second call does nothing."""
        if self._entered:
            return
        self._entered = True
        if self._core >= 0:
            self._try(
                log, lambda: os.sched_setaffinity(0, {self._core}), f"core {self._core} of its own", self._no_core
            )
        if not self._priority:
            return
        scheduling = os.sched_param(self._priority)
        self._try(
            log,
            lambda: os.sched_setscheduler(0, os.SCHED_FIFO, scheduling),
            f"real-time priority {self._priority}",
            lambda _: (
                "grant CAP_SYS_NICE (systemd: AmbientCapabilities=CAP_SYS_NICE) or an rtprio limit of "
                f"{self._priority} (systemd: LimitRTPRIO={self._priority}; else a line for this user in "
                f"/etc/security/limits.conf: rtprio {self._priority}), or set priority = 0"
            ),
        )
        self._try(
            log,
            _lock_memory,
            "memory that is never paged out",
            lambda _: (
                "grant an unlimited memlock (systemd: LimitMEMLOCK=infinity; else a line for this user in "
                "/etc/security/limits.conf: memlock unlimited) or CAP_IPC_LOCK"
            ),
        )
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # ns; a thread may always ask for less
        gc.freeze()
        gc.disable()

    def rest(self, now_s: float) -> None:
        """Collect garbage now and then, at a moment when nothing waits; errors leave cycles behind."""
        if gc.isenabled() or now_s - self._collected_at_s < _COLLECT_EVERY_S:
            return
        self._collected_at_s = now_s
        gc.collect()

    def _try(
        self, log: logging.Logger, grant: Callable[[], None], what: str, what_now: Callable[[OSError], str]
    ) -> None:
        try:
            grant()
        except OSError as error:
            self.refused += 1
            log.warning("goes on without %s (%s); %s", what, error.strerror, what_now(error))

    def _no_core(self, error: OSError) -> str:
        if error.errno == errno.EINVAL:
            return f"this machine has the cores 0 to {(os.cpu_count() or 1) - 1} or may not use all: set another core"
        return "let this user set its affinity, or set core = -1"


def keep_off(cores: frozenset[int]) -> None:
    """Move this process away from `cores`, unless it would have none left."""
    allowed = os.sched_getaffinity(0)
    if allowed & cores and allowed - cores:
        os.sched_setaffinity(0, allowed - cores)


def _lock_memory() -> None:
    """Lock what is in memory, and what will be if there is no limit: beyond a limit every allocation would fail."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MCL_CURRENT | _MCL_ONFAULT
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY or _may_lock():
        flags |= _MCL_FUTURE
    if libc.mlockall(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _may_lock() -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)
