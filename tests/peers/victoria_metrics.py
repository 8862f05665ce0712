"""A real VictoriaMetrics, which takes the line protocol of InfluxDB 2 and tells what it stored."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.process import free_ports, require, running


@dataclass(frozen=True)
class VictoriaMetrics:
    url: str

    def export(self, selector: str) -> list[dict[str, Any]]:
        """Return every series that `selector` matches, with `metric`, `values` and `timestamps` (ms)."""
        with urllib.request.urlopen(f"{self.url}/internal/force_flush", timeout=10):
            pass
        query = urllib.parse.urlencode({"match[]": selector})
        with urllib.request.urlopen(f"{self.url}/api/v1/export?{query}", timeout=10) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]


@contextlib.contextmanager
def running_victoria_metrics(folder: Path) -> Iterator[VictoriaMetrics]:
    program = require("victoria-metrics")
    (port,) = free_ports(1)
    command = [
        program,
        f"-storageDataPath={folder}/data",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
        "-memory.allowedBytes=64MiB",
    ]
    with running(command, port, folder / "victoria-metrics.log"):
        yield VictoriaMetrics(f"http://127.0.0.1:{port}")
