"""What a Graphite keeps of an old reading, and how to send one that comes so late that its fine archive is over.

Whisper sums up by itself what it has in its finest archive, however late that came. A reading that is older than the
finest archive goes straight into a coarser one, where the last reading of each slot replaces all the others. So those
are summed up here, before they are sent, by the rule that carbon has for them in storage-aggregation.conf.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite
from typing import Final, NamedTuple

import msgspec

from graphite_helper import LineEncoder
from reading import LASTING, SUMMED, Record, Value
from writer import Memo

# Carbon may let points wait before it writes them. What is about to leave an archive counts as out of it.
_MARGIN_S: Final = 3600
_FORGET_AFTER_S: Final = 600.0  # without a very late reading: the backlog is through
_MOST_OPEN: Final = 1000
_OPEN: Final = "open "  # in the memo: the slot that a series has got to, and what is in it so far
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PART: Final = re.compile(r"(\d+)(?:([smhdwy])[a-z]*)?:(\d+)(?:([smhdwy])[a-z]*)?")


class Archive(NamedTuple):
    """One of the archives of a series."""

    step_s: int
    keeps_s: int


def archives(retentions: str) -> list[Archive]:
    """Read retentions as they stand in carbon's storage-schemas.conf; raise ValueError for what carbon would refuse.

    >>> archives("10s:7d,1m:30d")
    [Archive(step_s=10, keeps_s=604800), Archive(step_s=60, keeps_s=2592000)]
    >>> archives("60:1440")
    [Archive(step_s=60, keeps_s=86400)]
    """
    found = []
    for part in retentions.split(","):
        told = _PART.fullmatch(part.strip())
        if not told:
            raise ValueError(f'{part.strip()!r} is no retention; write them like "10s:7d,1m:30d,10m:1y"')
        step_s = int(told[1]) * _UNIT_S[told[2] or "s"]
        keeps_s = int(told[3]) * (_UNIT_S[told[4]] if told[4] else step_s)
        if step_s < 1 or keeps_s < step_s:
            raise ValueError(f"{part.strip()!r} keeps nothing")
        found.append(Archive(step_s, keeps_s))
    for finer, coarser in pairwise(found):
        if coarser.step_s <= finer.step_s or coarser.step_s % finer.step_s or coarser.keeps_s <= finer.keeps_s:
            raise ValueError(
                f"{retentions!r}: each archive needs a step that is a multiple of the one before it, and to keep longer"
            )
    return found


def _lasts_s(archive: Archive) -> int:
    """How old a reading may be to be sent to an archive."""
    return archive.keeps_s - min(_MARGIN_S, archive.keeps_s // 10)


class Sum(NamedTuple):
    """A slot of a series: when it begins, and the sum and number of the readings that are known to be in it."""

    slot_s: int
    total: float = 0.0
    readings: int = 0


class LateSlots:
    """Sums up what is older than the finest archive; a slot that two batches share has all that is in both."""

    def __init__(self, retentions: str, encoder: LineEncoder, memo: Memo) -> None:
        self._archives = archives(retentions)
        self._encoder = encoder
        self._memo = memo
        self._newest_s = time.monotonic()

    def before_ns(self, now_s: float) -> int:
        """Whatever was measured before this is too old for the finest archive."""
        return int((now_s - _lasts_s(self._archives[0])) * 1e9) if len(self._archives) > 1 else 0

    def lines(self, late: Sequence[Record], now_s: float) -> tuple[list[str], dict[str, int]]:
        """Return the lines for records that are late, and what to `keep` once carbon has them.

        Raises what the encoder raises for a record that Graphite can never hold; ask it before.
        """
        lines: list[str] = []
        sums: dict[str, dict[int, Sum]] = {path: {one.slot_s: one} for path, one in _opened(self._memo)}
        touched: dict[str, int] = {}  # the slot that each series has got to
        changed: set[tuple[str, int]] = set()
        summed: set[str] = set()
        for record in late:
            slot_s = record.time_ns // 1_000_000_000
            slot_s -= slot_s % self._step_s(record, now_s)
            lasting = {metric: value for metric, value in record.values.items() if metric in LASTING}
            if lasting:  # the last one of a slot is the right one
                lines.append(self._encoder.lines(msgspec.structs.replace(record, values=lasting)))
            for metric, value in record.values.items():
                if metric in lasting or not _is_number(value):
                    continue
                path = self._encoder.path(record, metric)
                slots = sums.setdefault(path, {})
                old = slots.get(slot_s, Sum(slot_s))
                slots[slot_s] = Sum(slot_s, old.total + float(value), old.readings + 1)
                touched[path] = slot_s
                changed.add((path, slot_s))
                if metric in SUMMED:
                    summed.add(path)
        for path, slot_s in sorted(changed):
            one = sums[path][slot_s]
            lines.append(f"{path} {one.total if path in summed else one.total / one.readings!r} {slot_s}\n")
        return lines, self._notes({path: sums[path][slot_s] for path, slot_s in touched.items()})

    def keep(self, notes: dict[str, int], *, late: bool) -> None:
        """Note what slots are open, or forget it when nothing late has come for a while."""
        if late:
            self._memo.update(notes)
            self._newest_s = time.monotonic()
            names = [key for key in self._memo if key.startswith(_OPEN)]
            for key in names[: max(0, len(names) - 3 * _MOST_OPEN)]:
                del self._memo[key]
        elif time.monotonic() - self._newest_s > _FORGET_AFTER_S:
            for key in [key for key in self._memo if key.startswith(_OPEN)]:
                del self._memo[key]

    def _step_s(self, record: Record, now_s: float) -> int:
        """Return the step of the archive that a record goes to first."""
        age_s = now_s - record.time_ns / 1e9
        for archive in self._archives:
            if age_s <= _lasts_s(archive):
                return archive.step_s
        return self._archives[-1].step_s

    def _notes(self, open_slots: dict[str, Sum]) -> dict[str, int]:
        return {
            key: value
            for path, one in open_slots.items()
            for key, value in (
                (f"{_OPEN}slot {path}", one.slot_s),
                (f"{_OPEN}total {path}", _bits(one.total)),
                (f"{_OPEN}count {path}", one.readings),
            )
        }


def _opened(memo: Memo) -> Iterator[tuple[str, Sum]]:
    head = f"{_OPEN}slot "
    for key, slot_s in memo.items():
        if key.startswith(head):
            path = key.removeprefix(head)
            total, count = memo.get(f"{_OPEN}total {path}"), memo.get(f"{_OPEN}count {path}")
            if total is not None and count:
                yield path, Sum(slot_s, _float(total), count)


def _bits(number: float) -> int:
    """Write a float as an integer, because a memo holds nothing else.

    >>> _float(_bits(0.1))
    0.1
    """
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def _float(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])


def _is_number(value: Value) -> bool:
    try:
        return not isinstance(value, str) and isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False
