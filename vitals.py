"""The vitals board: heartbeat and counters of every process, in memory that the parent shares with all of them.

One row belongs to one process, which alone writes it; everybody reads. There is no lock, so nobody can be killed while
holding one: each number is one aligned store of eight bytes. Rows outlive the process that wrote them, so that
counters go on counting when its successor takes over.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from typing import Final

# Why a source refused something that arrived. The list is closed so that no message from outside can add a series.
REFUSALS: Final = (
    "malformed",
    "not_finite",
    "out_of_range",
    "unknown_device",
    "unauthorised",
    "too_large",
    "too_slow",
    "too_many",
    "repeated",
    "stale",
    "bounce",
)

# What each role counts. `_ns` is CLOCK_MONOTONIC unless the name says utc; totals only ever rise.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    # written by the parent, one row a child
    "process": ("state", "pid", "starts", "failures", "hangs", "since_ns"),
    # written by a worker
    "worker": (
        "beat_ns",
        "open",  # 1 while the source is open
        "open_failures",
        "read_failures",
        "rounds",
        "last_round_ns",
        "last_reading_ns",
        "readings",  # what the source returned
        "sent",  # readings that the kernel took into the report channel
        "backlog",  # readings that wait because the channel is full
        "dropped",  # readings that fell out of the backlog
        "rejected",  # readings that the runtime did not let pass: NaN, an unknown metric
        "devices_troubled",
        "simulated",
        "lost_edges",  # of a pulse meter: nobody read them, their numbers show that they were
        "realtime_refused",  # wishes for real time that were not granted
        *(f"refused_{reason}" for reason in REFUSALS),
    ),
    # written by the writer
    "writer": (
        "beat_ns",
        "accepted",  # readings committed
        "duplicates",
        "undated",  # readings that waited on the way, with no date that could be believed
        "dead_letters",
        "commits",
        "commit_failures",
        "held",  # records that wait for the clock
        "clock_synced",
        "clock_steps",
        "unsynced",  # records dated by a clock that was never set
        "gaps",  # silences of a device of more than five minutes that are over
        "salvages",
        "outbox_bytes",
        "last_commit_ns",
    ),
    # written by the writer, one row an output
    "output": (
        "state",  # see OUTPUT_STATES
        "accepted",  # accepted = delivered + pending + dropped by whatever reason, always
        "delivered",
        "pending",
        "dropped_refused",
        "dropped_quota",
        "dropped_damage",
        "failures",
        "newest_delivered_utc_ns",
        "oldest_pending_utc_ns",
        "failing_since_ns",
    ),
    # written by the api
    "api": ("beat_ns", "requests"),
}
OUTPUT_STATES: Final = ("starting", "up", "down", "stopped")
PROCESS_STATES: Final = ("starting", "running", "backoff", "degraded", "stopped")

_ROWS = 160
_NAME_BYTES = 80  # `source.` and the longest name fit
_ROLE_BYTES = 16
_NOTE_BYTES = 416
_SLOTS = 32
_ROW_BYTES = _NAME_BYTES + _ROLE_BYTES + _NOTE_BYTES + 8 * _SLOTS


class Row:
    """One row: numbers by name, and one note in words."""

    def __init__(self, memory: memoryview) -> None:
        self._name = memory[:_NAME_BYTES]
        self._role = memory[_NAME_BYTES : _NAME_BYTES + _ROLE_BYTES]
        self._note = memory[_NAME_BYTES + _ROLE_BYTES : _NAME_BYTES + _ROLE_BYTES + _NOTE_BYTES]
        self._slots = memory[_NAME_BYTES + _ROLE_BYTES + _NOTE_BYTES :].cast("q")

    @property
    def name(self) -> str:
        return _text(self._name)

    @property
    def role(self) -> str:
        return _text(self._role)

    @property
    def note(self) -> str:
        """What is wrong, and what to do now; empty when nothing is."""
        return _text(self._note)

    @note.setter
    def note(self, text: str) -> None:
        _put_text(self._note, text)

    def __getitem__(self, field: str) -> int:
        return self._slots[_SLOT[self._role.tobytes()][field]]

    def __setitem__(self, field: str, value: int) -> None:
        self._slots[_SLOT[self._role.tobytes()][field]] = value

    def add(self, field: str, count: int = 1) -> None:
        self._slots[_SLOT[self._role.tobytes()][field]] += count

    def beat(self) -> None:
        """Show that the work loop goes round."""
        self["beat_ns"] = time.monotonic_ns()

    def claim(self, role: str, name: str) -> None:
        """Make this the row of a role and a name, all numbers zero. Only the parent does that, before it forks."""
        self.clear()
        _put_text(self._name, name)
        _put_text(self._role, role)  # last: a row without a role is skipped by readers

    def clear(self) -> None:
        _put_text(self._role, "")
        _put_text(self._name, "")
        _put_text(self._note, "")
        for slot in range(_SLOTS):
            self._slots[slot] = 0


class Board:
    """All rows. Made by the parent before the first fork; every child inherits the same memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ROWS * _ROW_BYTES)
        view = memoryview(self._memory)
        self._rows = [Row(view[start : start + _ROW_BYTES]) for start in range(0, _ROWS * _ROW_BYTES, _ROW_BYTES)]

    def rows(self, role: str) -> Iterator[Row]:
        """Every row of a role."""
        return (row for row in self._rows if row.role == role)

    def find(self, role: str, name: str) -> Row | None:
        name = _cut(name, _NAME_BYTES)
        return next((row for row in self.rows(role) if row.name == name), None)

    def claim(self, role: str, name: str) -> Row:
        """Return the row of a role and a name, a fresh one if there is none yet."""
        if row := self.find(role, name):
            return row
        for row in self._rows:
            if not row.role:
                row.claim(role, name)
                return row
        raise MemoryError(f"the vitals board has no row left for {role} {name}: {_ROWS} are in use")

    def release(self, role: str, name: str) -> None:
        if row := self.find(role, name):
            row.clear()


# By the bytes of a role, as they stand in its row: a number is looked up many times a second, and never as text.
_SLOT: Final = {
    role.encode().ljust(_ROLE_BYTES, b"\0"): {field: slot for slot, field in enumerate(fields)}
    for role, fields in FIELDS.items()
}


def _text(memory: memoryview) -> str:
    return bytes(memory).split(b"\0", 1)[0].decode("utf-8", "replace")


def _put_text(memory: memoryview, text: str) -> None:
    memory[:] = _cut(text, len(memory)).encode().ljust(len(memory), b"\0")


def _cut(text: str, most_bytes: int) -> str:
    """Return as many whole characters of `text` as fit, with a zero after them.

    >>> _cut("küche", 3), _cut("küche", 4)
    ('k', 'kü')
    """
    encoded = text.replace("\0", " ").encode("utf-8", "replace")
    return encoded[: most_bytes - 1].decode("utf-8", "ignore")
