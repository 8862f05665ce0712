"""InfluxData's own parser and type checker of Flux, in Node: what it takes, a server takes. It runs no query."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.process import missing_peer, require

_HERE = Path(__file__).parent / "flux"


@dataclass(frozen=True)
class Checked:
    """What the checker says of a script: its errors, each with its place, and the tree that it read."""

    errors: list[str]
    ast: dict[str, Any]

    def texts(self) -> list[str]:
        """Every string in the script, as the server understands it."""
        return [node["value"] for node in _nodes(self.ast) if node.get("type") == "StringLiteral"]

    @property
    def task(self) -> dict[str, str]:
        """The options of a task, as they are written: `every` is "1m"."""
        [option] = [node for node in self.ast["body"] if node["type"] == "OptionStatement"]
        assert option["assignment"]["id"]["name"] == "task"
        found = {}
        for pair in option["assignment"]["init"]["properties"]:
            value = pair["value"]
            texts = {"StringLiteral": lambda node: node["value"], "DurationLiteral": _duration}
            found[pair["key"]["name"]] = texts[value["type"]](value)
        return found


class FluxChecker:
    """Answers one script after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def check(self, script: str) -> Checked:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(script) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return Checked(**json.loads(line))
        raise AssertionError("the checker of Flux has ended")


@contextlib.contextmanager
def running_flux_checker() -> Iterator[FluxChecker]:
    node = require("node")
    if not (_HERE / "node_modules" / "@influxdata" / "flux-lsp-node").exists():
        missing_peer("the checker of Flux")
    command = [node, str(_HERE / "check.mjs")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield FluxChecker(process)
        assert process.stdin
        process.stdin.close()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(inner)


def _duration(node: dict[str, Any]) -> str:
    return "".join(f"{each['magnitude']}{each['unit']}" for each in node["values"])
