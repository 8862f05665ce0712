"""A real MicroPython in Node, with the firmware of deploy/esp32 and a fake board to run it on."""

from __future__ import annotations

import json
import os
import select
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.peers.process import require

_HERE = Path(__file__).parent
_PACKAGE = _HERE / "node_modules" / "@micropython" / "micropython-webassembly-pyscript"


class Interpreter:
    """Runs one script after the other, each in a fresh MicroPython."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._unread = b""
        self.console: list[str] = []  # what the last script printed

    def run(self, script: str, **options: Any) -> Any:
        """Return what the script leaves in `result`."""
        self.begin(script, **options)
        return self.end()

    def begin(self, script: str, **options: Any) -> None:
        request = {"script": "from board import *\n" + textwrap.dedent(script), **options}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def end(self, meanwhile: Callable[[], object] = lambda: None, within_s: float = 90.0) -> Any:
        """Wait for the answer, and do something again and again while waiting."""
        assert self._process.stdout
        deadline_s = time.monotonic() + within_s
        while b"\n" not in self._unread:
            meanwhile()
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited {within_s} s for MicroPython")
            if select.select([self._process.stdout], [], [], 0.01)[0]:
                came = os.read(self._process.stdout.fileno(), 1 << 16)
                if not came:
                    pytest.fail("Node has ended; what it said is in the log of the test")
                self._unread += came
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line)
        self.console = answer["console"]
        if "error" in answer:
            pytest.fail(answer["error"] + "\n" + "\n".join(self.console), pytrace=False)
        return answer["result"]


@contextmanager
def interpreter(log: Path) -> Iterator[Interpreter]:
    node = require("node")
    if not _PACKAGE.is_dir():
        missing = "MicroPython for Node is not installed; try: make peers"
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [node, str(_HERE / "run.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
        )
        with process:
            try:
                yield Interpreter(process)
            finally:
                process.kill()
