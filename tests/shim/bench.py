"""A workbench: sources in another process, one after the other, whose SPI and I2C end in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.shim.simulators import DeviceFile, Simulator, named
from workers import SourceError


@dataclass
class Round:
    """What one `read()` told."""

    values: dict[str, dict[str, Any]]  # by device
    troubles: dict[str, str]
    refused: dict[str, int]


class Bench:
    """Made once for many tests: a process takes longer to start than most of them."""

    def __init__(self) -> None:
        self.simulator = Simulator({})
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("run_source.py"))],
            env=self.simulator.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def clear(self) -> None:
        with self._process:
            self._process.kill()
        self.simulator.stop()

    @contextmanager
    def source(self, table: dict[str, Any], **files: DeviceFile) -> Iterator[Bench]:
        """Put a source on the bench that is not open yet, with files named like `spidev0_0` and `i2c_1`."""
        self.simulator.files = dict(named(files))
        self._call(f"make {json.dumps(table)}")
        try:
            yield self
        finally:
            self.close()

    @contextmanager
    def opened(self, table: dict[str, Any], **files: DeviceFile) -> Iterator[Bench]:
        with self.source(table, **files):
            self.open()
            yield self

    def open(self) -> None:
        self._call("open")

    def read(self) -> Round:
        answer = self._call("read")
        return Round(
            {device: values for device, _, values, *_ in answer["readings"]}, answer["troubles"], answer["refused"]
        )

    def close(self) -> None:
        self._call("close")

    def _call(self, line: str) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answered = self._process.stdout.readline()
        assert answered, f"the source died: {self._process.wait(10)}"
        answer: dict[str, Any] = json.loads(answered)
        if "error" in answer:
            raise SourceError(*answer["error"])
        return answer
