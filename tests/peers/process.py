"""Starts real servers for tests: on loopback, on ports nobody uses, dead when the tests are."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import pytest

T = TypeVar("T")
_FIRST_PORT: Final = 11_000  # up to here browsers shun some; from 32,768 on the kernel hands them out
_SHARES: Final = 16
_SHARE: Final = 1_300


def require(program: str) -> str:
    """Return where `program` is; skip the test if nowhere, or fail it where REQUIRE_PEERS=1 says that it must be."""
    found = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/bin")
    return found or missing_peer(program)


def missing_peer(program: str) -> NoReturn:
    """Skip the test, or fail it where REQUIRE_PEERS=1 says that `program` must be there."""
    missing = f"{program} is not installed; try: make peers"
    if os.environ.get("REQUIRE_PEERS") == "1":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listened on a moment ago, and that stay free while a house of ours is stopped.

    The kernel hands out none of these by itself, and each process of pytest-xdist has its own.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + number % _SHARES * _SHARE
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = first + secrets.randbelow(_SHARE)
            with contextlib.suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
        return found


def wait_for(condition: Callable[[], T], what: str, within_s: float = 60.0) -> T:
    """Return the first answer of `condition` that is true; fail when there is none in time."""
    deadline_s = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {within_s} s for {what}", pytrace=False)
        time.sleep(0.01)
    return answer


def slowness() -> float:
    """Return how many times longer than its own work a new process takes; 1.0 on an idle machine."""
    ratios = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", "import json, http.client"], check=True)
        after = os.times()
        worked_s = after.children_user + after.children_system - before.children_user - before.children_system
        ratios.append((after.elapsed - before.elapsed) / max(worked_s, 0.01))
    return max(1.0, sorted(ratios)[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run `command` until the end of the block; it is ready when it listens on `port`."""
    # Even if the tests are killed, no server is left behind.
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, f"{command[0]} to listen on port {port}")
        if process.poll() is not None:
            pytest.fail(f"{command[0]} ended with {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
        yield
    finally:
        process.kill()
        process.wait()
