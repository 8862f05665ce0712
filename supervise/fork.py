"""How a child process is forked, signalled and buried."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NoReturn

log = logging.getLogger("parent")

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NAME: Final = 15
_EVERY_SIGNAL: Final = signal.valid_signals()


@dataclass(frozen=True, slots=True)
class Life:
    """A running child. `pidfd` becomes readable when it ends, and signals sent through it reach nobody else."""

    pid: int
    pidfd: int
    since_s: float  # monotonic

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    @property
    def ended(self) -> bool:
        return os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def bury(self) -> int:
        """Return the exit status of one that ended (negative: the signal that killed it), and forget it."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)


def fork(
    name: str, main: Callable[[], None], keep: Collection[int], dies_with_parent: signal.Signals = signal.SIGKILL
) -> Life:
    """Fork a child that runs `main` and has no descriptor but stdin, stdout, stderr and `keep`.

    Signals are blocked around the fork, so that none meant for the parent runs the parent's handler in the child.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _EVERY_SIGNAL)
    try:
        pid = os.fork()
        if pid == 0:
            _live(name, main, keep, parent, dies_with_parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Life(pid, os.pidfd_open(pid), time.monotonic())


def _live(
    name: str,
    main: Callable[[], None],
    keep: Collection[int],
    parent: int,
    dies_with_parent: signal.Signals,
) -> NoReturn:
    """Be the child, from the fork to the end; never return into the parent's code."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what follows
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, int(dies_with_parent), 0, 0, 0)
        prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)
        if os.getppid() != parent:  # it died before prctl could see it
            os._exit(1)
        _close_all_but({0, 1, 2, *keep})
        faulthandler.enable()  # SIGABRT, which the hung get first, prints the stack
        main()
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        log.exception("%s failed; this is a bug", name)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _close_all_but(keep: set[int]) -> None:
    for descriptor in [int(entry) for entry in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - names, not paths
        if descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)
