"""Asks where the readings of a new house shall go, and proposes what it finds on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from commands._asking import Asking
from commands._influx_peer import Flavour, identify
from commands._init_look import host_and_port, listens
from commands._init_text import Block
from commands._peer import Peer, PeerDown

_HERE: Final = "127.0.0.1"
_CARBON: Final = 2003
_INFLUX: Final = f"http://{_HERE}:8086"
_PING_S: Final = 2.0
Keep = Callable[[str, str], None]  # a secret by its name


def asked_outputs(asking: Asking, keep: Keep, *, network: bool) -> list[Block]:
    """Return the outputs that are wished."""
    outputs = []
    if asking.yes("Keep the house's own history, for the page, bills and comparisons?", default=True):
        outputs.append(Block("[outputs.history]", "Minutes, hours and years in one bounded file, on this machine."))
    if asking.yes("Write CSV files?", default=True):
        outputs.append(Block("[outputs.csv]", "One file a day below data_dir, for spreadsheets."))
    outputs += _graphite(asking, network=network)
    outputs += _influx(asking, keep, network=network)
    return outputs


def _graphite(asking: Asking, *, network: bool) -> list[Block]:
    proposal = _HERE if network and listens(_HERE, _CARBON) else ""
    answer = asking.text("Where is Graphite's carbon (host or host:port)? Empty if there is none", proposal)
    if not answer:
        return []
    host, port = host_and_port(answer, _CARBON)
    lines = ["[outputs.graphite]", f"host = {json.dumps(host)}"]
    lines += [f"port = {port}"] if port != _CARBON else []
    return [Block("\n".join(lines), "Carbon must keep what it gets: deploy/graphite/ has its rules.")]


def _influx(asking: Asking, keep: Keep, *, network: bool) -> list[Block]:
    proposal = _INFLUX if network and listens(_HERE, urlsplit(_INFLUX).port or 0) else ""
    url = asking.text("Where is InfluxDB or VictoriaMetrics (http://…)? Empty if there is none", proposal)
    if not url:
        return []
    if "://" not in url:
        url = f"http://{url}"
    flavour, version = _identified(url)
    lines = ["[outputs.influx]", f"url = {json.dumps(url)}"]
    if flavour is Flavour.INFLUX_1:
        database = asking.text(f"It is InfluxDB {version}. Which database?", "wattherd")
        return [
            Block(
                "\n".join([*lines, 'api = "v1"', f"bucket = {json.dumps(database)}"]),
                f"InfluxDB {version}. Create the database once: influx -execute 'CREATE DATABASE \"{database}\"'",
            )
        ]
    if flavour is Flavour.VICTORIA:
        return [Block("\n".join(lines), "VictoriaMetrics; org and bucket have no meaning to it.")]
    lines.append(f"org = {json.dumps(asking.text('Its organisation?', 'home'))}")
    lines.append(f"bucket = {json.dumps(asking.text('The bucket for raw readings?', 'PowerLogger_raw'))}")
    lines.append('token_env = "INFLUX_TOKEN"')
    if not os.environ.get("INFLUX_TOKEN"):
        keep("INFLUX_TOKEN", asking.secret("A token that may write to it (empty: later, into .env)"))
    told = f"InfluxDB {version}".strip() if flavour is not Flavour.UNKNOWN else "InfluxDB; it does not answer now"
    return [Block("\n".join(lines), f"{told}. ./orchestrator.py influx setup makes its buckets, tasks and tokens.")]


def _identified(url: str) -> tuple[Flavour, str]:
    try:
        return identify(Peer(url, {}, _PING_S))
    except PeerDown:
        return Flavour.UNKNOWN, ""
