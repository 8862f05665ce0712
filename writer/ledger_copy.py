"""A copy of the registers beside the outbox, for the day on which damage takes them: a register must never fall."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from files import replaced
from writer.ledger import REGISTERS, Channel

log = logging.getLogger("writer.ledger")

_EVERY_S: Final = 3600.0  # what happened since is booked from the counters of the devices, when they go on from it


class LedgerCopy:
    """One file, written anew every hour and at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due_s = time.monotonic() + _EVERY_S

    def keep(self, channels: Mapping[str, Channel], *, now: bool = False) -> None:
        """Write the copy if it is time, or `now`. That it cannot be written stops nothing."""
        if (time.monotonic() < self._due_s and not now) or not channels:
            return
        self._due_s = time.monotonic() + _EVERY_S
        try:
            replaced(self._path, msgspec.msgpack.encode(dict(channels)))
        except OSError as error:
            log.warning("the copy of the ledger cannot be written: %s", error)

    def higher_than(self, channels: Mapping[str, Channel]) -> dict[str, Channel]:
        """Return those that are missing in `channels`, or lower there than they were."""
        try:
            copy = msgspec.msgpack.decode(self._path.read_bytes(), type=dict[str, Channel])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:  # msgspec's own errors too
            log.error("the copy of the ledger cannot be read: %s", error)
            return {}
        lower = {name: channel for name, channel in copy.items() if _is_lower(channels.get(name), channel)}
        if lower:
            log.warning("%d channels of the ledger were lost with the outbox and go on from their copy", len(lower))
        return lower


def _is_lower(channel: Channel | None, copy: Channel) -> bool:
    return channel is None or any(
        channel.register(metric).told_uwh < copy.register(metric).told_uwh for metric in REGISTERS
    )
