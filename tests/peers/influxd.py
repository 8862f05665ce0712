"""A real InfluxDB 1.x, for which `/write` refuses what is wrong with a real 400."""

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

_CONF = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
"""


@dataclass(frozen=True)
class Influxd:
    url: str

    def query(self, text: str, database: str = "", *, epoch: str = "ns") -> list[dict[str, Any]]:
        """Run InfluxQL and return the series of its first statement."""
        fields = {"q": text, "epoch": epoch} | ({"db": database} if database else {})
        with urllib.request.urlopen(f"{self.url}/query", urllib.parse.urlencode(fields).encode(), timeout=10) as answer:
            result = json.load(answer)["results"][0]
        assert "error" not in result, result
        return list(result.get("series", []))

    def create(self, database: str) -> None:
        self.query(f'CREATE DATABASE "{database}"')

    def write(self, database: str, policy: str, *lines: str) -> None:
        """Store line protocol in a retention policy, with times in nanoseconds."""
        query = urllib.parse.urlencode({"db": database, "rp": policy})
        with urllib.request.urlopen(f"{self.url}/write?{query}", "\n".join(lines).encode(), timeout=10):
            pass

    def points(self, text: str, database: str) -> list[dict[str, Any]]:
        """Run a SELECT and return its rows as tables from column to value, without the columns that are empty."""
        return [
            {name: value for name, value in zip(series["columns"], row, strict=True) if value is not None}
            for series in self.query(text, database)
            for row in series["values"]
        ]


@contextlib.contextmanager
def running_influxd(folder: Path) -> Iterator[Influxd]:
    program = require("influxd")
    port, rpc_port = free_ports(2)
    config = folder / "influxdb.conf"
    config.write_text(_CONF.format(folder=folder, port=port, rpc_port=rpc_port))
    with running([program, "-config", str(config)], port, folder / "influxd.log"):
        yield Influxd(f"http://127.0.0.1:{port}")
