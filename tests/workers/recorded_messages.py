"""Reads the messages that tests/workers/payloads has recorded."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

DIALECTS = ("esp32", "esphome", "tasmota", "shelly", "zigbee2mqtt", "json")


def recorded(name: str) -> list[dict[str, Any]]:
    """Every message of one file, with the name of its dialect."""
    messages = tomllib.loads((Path(__file__).parent / "payloads" / f"{name}.toml").read_text())["message"]
    return [{"dialect": name, **message} for message in messages]
