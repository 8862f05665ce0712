"""Runs `orchestrator.py` as a user does: in a process of its own, with or without a terminal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def clean(text: str) -> str:
    """Without colours and what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def orchestrator(
    *words: str | Path, environment: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "orchestrator.py", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


class Terminal:
    """A command at a terminal, and the person before it."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.seen = ""
        self.process = process
        self._master = master

    def expect(self, words: str, within_s: float = 20.0) -> None:
        self.wait(lambda: words in clean(self.seen), f"{words!r}", within_s)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read to the end; return the status."""
        self.wait(lambda: self.process.poll() is not None, "the end")
        self._read(0.05)
        assert "Traceback" not in self.seen, self.seen
        return self.process.returncode

    def wait(self, condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited for {what}; seen last:\n{clean(self.seen)[-2000:]}"
            self._read(0.02)

    def _read(self, timeout_s: float) -> None:
        while select.select([self._master], [], [], timeout_s)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            self.seen += data.decode(errors="replace")


@contextmanager
def at_terminal(*words: str | Path, environment: dict[str, str] | None = None) -> Iterator[Terminal]:
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / "orchestrator.py", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", **(environment or {})},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
