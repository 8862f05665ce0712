"""A pulse source on a pipe in place of the kernel's request, and what a parent keeps for one worker after the other."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from channel import Receiver, decode_report, pair
from reading import Reading
from supervise.fork import Life, fork
from vitals import Board
from workers import _runtime
from workers._pulse import Tally
from workers._pulse_memory import Memory, State
from workers.pulse import Options, Pulse


def record(at_ns: int, kind: int, number: int, offset: int = 20) -> bytes:
    return struct.pack("=QIIII6I", at_ns, kind, offset, number % 2**32, number % 2**32, *[0] * 6)


def options(**changes: Any) -> Options:
    table = {"kind": "pulse", "priority": 0, "devices": [{"name": "import"}], **changes}
    return msgspec.convert(table, Options)


class Bench:
    """What the parent keeps, and a way to feed it."""

    def __init__(self, table: Options, name: str = "pulse") -> None:
        self.table, self.name = table, name
        self.lines, self.feed = os.pipe()
        self.memory = Memory.new()
        offsets = [n if isinstance(n := device.where, int) else 0 for device in table.devices]
        now_ns = time.monotonic_ns()
        tallies = {device.name: Tally("b00t", device.wh_per_pulse, since_ns=now_ns) for device in table.devices}
        self.memory.note(State(Pulse(name, table)._request, offsets, tallies, []))
        self.deposits: list[tuple[str, int]] = []  # name and mode of what was deposited

    @property
    def kept(self) -> dict[str, int]:
        return {"lines": self.lines, "count": self.memory.descriptor}

    def source(self) -> Pulse:
        """A worker's source; it owns copies, as a forked process would."""
        source = Pulse(self.name, self.table)
        source.kept.update({name: os.dup(descriptor) for name, descriptor in self.kept.items()})
        source.deposit = lambda name, descriptor: self.deposits.append((name, os.fstat(descriptor).st_mode))
        source.wait_s = source.gather_s = 0.01
        return source

    def write(self, *records: bytes) -> None:
        os.write(self.feed, b"".join(records))

    def close(self) -> None:
        for descriptor in (self.lines, self.feed, self.memory.descriptor):
            with suppress(OSError):
                os.close(descriptor)


@contextmanager
def bench(table: Options) -> Iterator[Bench]:
    made = Bench(table)
    try:
        yield made
    finally:
        made.close()


class Keeper:
    """Keeps what the parent keeps, and starts one worker after the other, each the real runtime in a real process."""

    def __init__(self, made: Bench) -> None:
        self._made = made
        self._worker_end, self._writer_end = pair()
        self._receiver = Receiver(self._writer_end, made.name)
        self._incarnation = 0
        self.vitals = Board().claim("worker", made.name)
        self.told: list[Reading] = []  # what arrived at the writer's end

    def start(self) -> Life:
        self._incarnation += 1
        self.vitals["open"] = 0
        return fork(self._made.name, self._live, [self._worker_end.fileno(), *self._made.kept.values()])

    def _live(self) -> None:
        _runtime.main(
            self._made.name,
            self._made.table,
            end=self._worker_end,
            incarnation=self._incarnation,
            vitals=self.vitals,
            directory=Path("nowhere"),
            kept=self._made.kept,
            deposit=lambda _name, _descriptor: None,
        )

    def listen(self) -> None:
        for message in self._receiver.peek():
            assert message
            self.told += decode_report(message).readings
        self._receiver.consume()

    def close(self) -> None:
        for end in (self._worker_end, self._writer_end):
            end.close()


@contextmanager
def keeper(made: Bench) -> Iterator[Keeper]:
    kept = Keeper(made)
    try:
        yield kept
    finally:
        kept.close()


def wait_until_read(made: Bench) -> None:
    poll = select.poll()
    poll.register(made.lines, select.POLLIN)
    deadline_s = time.monotonic() + 10
    while poll.poll(0):
        assert time.monotonic() < deadline_s, "nobody reads"
        time.sleep(0.0005)
