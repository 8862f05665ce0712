"""A real Prometheus, which scrapes what a test names and answers PromQL."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.peers.process import free_ports, require, running, wait_for


class QueryError(Exception):
    """Prometheus did not take a query; the text is its own."""


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus at `url`."""

    url: str

    def query(self, expression: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """Return the samples of an instant, each with `metric` and `value` ([seconds, text])."""
        fields = {"query": expression} | ({} if at_s is None else {"time": str(at_s)})
        return list(self._ask("/api/v1/query", fields)["data"]["result"])

    def query_range(self, expression: str, from_s: float, until_s: float, step_s: float) -> list[dict[str, Any]]:
        """Return the series of a range, each with `metric` and `values`."""
        fields = {"query": expression, "start": str(from_s), "end": str(until_s), "step": str(step_s)}
        return list(self._ask("/api/v1/query_range", fields)["data"]["result"])

    def label_values(self, label: str, selector: str) -> list[str]:
        return list(self._ask(f"/api/v1/label/{label}/values", {"match[]": selector})["data"])

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
            return True
        return False

    def _ask(self, path: str, fields: dict[str, str]) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(fields)}", timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise QueryError(f"{error.code}: {error.read().decode(errors='replace')[:2000]}") from error


@contextlib.contextmanager
def running_prometheus(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """Run a Prometheus with a configuration until the end of the block."""
    program = require("prometheus")
    (port,) = free_ports(1)
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    command = [
        program,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=30d",
    ]
    with running(command, port, folder / "prometheus.log"):
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(server.is_ready, "Prometheus to be ready")  # it listens before it answers
        yield server
