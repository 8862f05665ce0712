"""What a row of the outbox holds: the readings of all sources of one commit, packed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from reading import COUNTERS, Clock, Reading, Record

log = logging.getLogger("writer.rows")

MOST_READINGS_A_ROW: Final = 2000
HELD, SYNCED, RESTAMPED, UNSYNCED = range(4)  # what is known of the time of a row; a held one waits for the clock
CLOCKS: Final = {SYNCED: Clock.SYNCED, RESTAMPED: Clock.RESTAMPED, UNSYNCED: Clock.UNSYNCED}

Body = list[tuple[str, list[Reading]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


@dataclass(frozen=True, slots=True)
class Row:
    """A committed row, as an output gets it. It has fewer records than readings only if it could not be read back."""

    id: int
    count: int
    records: list[Record]


def pack(readings: Mapping[str, list[Reading]]) -> Iterator[tuple[bytes, int]]:
    """Pack the readings of all sources into as few bodies as possible."""
    body: Body = []
    room = MOST_READINGS_A_ROW
    for source, of_source in readings.items():
        start = 0
        while start < len(of_source):
            some = of_source[start : start + room]
            body.append((source, some))
            start += len(some)
            room -= len(some)
            if not room:
                yield _encode(body), MOST_READINGS_A_ROW
                body, room = [], MOST_READINGS_A_ROW
    if body:
        yield _encode(body), MOST_READINGS_A_ROW - room


def unpack(row_id: int, body: bytes, offset_ns: int, clock: int) -> list[Record]:
    try:
        decoded = _decode(body)
    except ValueError as error:  # msgspec's own errors, and text that is no UTF-8
        log.error("row %d of the outbox cannot be read back: %s", row_id, error)
        return []
    state = CLOCKS[clock]
    return [
        Record(source, reading.device, reading.at_ns + offset_ns, reading.values, reading.quality, state)
        for source, readings in decoded
        for reading in readings
    ]


def only_counters(body: bytes) -> tuple[bytes, int]:
    """Keep each device's last counters of a row and nothing else; return the new body and how many readings it has.

    A body that cannot be read has none.
    """
    kept: Body = []
    with contextlib.suppress(ValueError):
        for source, readings in _decode(body):
            last: dict[str, Reading] = {}
            for reading in readings:
                counters = {metric: value for metric, value in reading.values.items() if metric in COUNTERS}
                if counters:
                    last[reading.device] = msgspec.structs.replace(reading, values=counters)
            if last:
                kept.append((source, list(last.values())))
    return (_encode(kept), sum(len(readings) for _, readings in kept)) if kept else (b"", 0)
