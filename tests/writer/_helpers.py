"""Forked processes that tests kill, and what stands in for the ingest loop where only the outbox matters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from reading import Reading
from tests.peers.process import wait_for
from writer.delivery import Delivery
from writer.outbox import Intake, Outbox, Progress, Stamp, Watermark
from writer.rows import SYNCED

PR_SET_PDEATHSIG = 1
BOOT = "0b00t"
STAMP = Stamp(BOOT, 1_700_000_000_000_000_000, SYNCED)


class Child:
    """A forked process that runs one function and then ends, whatever the parent's code would do next."""

    def __init__(self, main: Callable[[], object], dies_with_parent: bool = True) -> None:
        self.status: int | None = None
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            if dies_with_parent:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                main()
                status = 0
        except BaseException:  # noqa: BLE001 - a forked child must not return into the tests
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.status is None:
            os.kill(self.pid, number)

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self, within_s: float = 20.0) -> int:
        """Return how it ended: 0 if all went well, negative if it was killed."""
        wait_for(self.ended, "a child to end", within_s)
        assert self.status is not None
        return self.status

    def cpu_s(self) -> float:
        """Return the processor time that it has used so far."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def forked(main: Callable[[], object]) -> Iterator[Child]:
    child = Child(main)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def in_a_child(main: Callable[[], object]) -> None:
    """Run `main` in a process of its own, where an open outbox is left behind as a stopped writer leaves it."""
    with forked(main) as child:
        assert child.wait() == 0


def killed_somewhere(
    main: Callable[[], object],
    chance: random.Random,
    longest_s: float,
    begun: Callable[[], bool] = lambda: True,
) -> None:
    """Run `main` in a process that is killed at a random instant after `begun` is true."""
    with forked(main) as child:
        wait_for(begun, "the child to begin")
        time.sleep(chance.uniform(0, longest_s))  # the instant of the kill, not a wait for anything
        child.kill()
        assert child.wait() in (0, -signal.SIGKILL), "the child failed by itself"


def intake(count: int, first: int = 0, *, source: str = "meter", sequence: int = 0, device: str = "d") -> Intake:
    """`count` readings, numbered from `first` on."""
    readings = [
        Reading(device, number * 1_000_000, {"power_w": float(number), "energy_wh": number})
        for number in range(first, first + count)
    ]
    return Intake(
        readings={source: readings} if readings else {},
        watermarks={source: Watermark(1, sequence)} if sequence else {},
        count=count,
    )


def rows(path: Path) -> list[tuple[int, int, int, int, bytes]]:
    """(id, clock, raw, count, body) of every row that is on the disk."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, clock, raw, count, body FROM row ORDER BY id").fetchall()


def numbers(body: bytes) -> list[int]:
    """The numbers of the readings in a row made by `intake`."""
    decoded = msgspec.msgpack.decode(body, type=list[tuple[str, list[Reading]]])
    return [int(reading.values["energy_wh"]) for _, readings in decoded for reading in readings]


def state(path: Path) -> dict[str, bytes]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM state"))


def dead_letters(path: Path) -> list[tuple[str, str, bytes]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT origin, reason, body FROM dead_letter ORDER BY id").fetchall()


def assert_conserved(outbox: Outbox) -> None:
    """accepted = delivered + pending + dropped for each output, with what is pending counted row by row."""
    for name, progress in outbox.progress.items():
        account = outbox.accounts[name]
        dropped = progress.refused + progress.damaged + account.quota + account.lost
        assert account.accepted == progress.delivered + outbox.pending(progress) + dropped, (name, progress, account)


class Loop:
    """Commits what deliveries have to say, as the ingest loop does, whenever `turn` is called."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.deliveries: list[Delivery] = []

    def commit(self, taken: Intake | None = None, stamp: Stamp = STAMP) -> None:
        with contextlib.ExitStack() as held:
            for delivery in self.deliveries:
                held.enter_context(delivery.lock)
            snapshots = {delivery.output: delivery.snapshot() for delivery in self.deliveries}
            taken = taken or Intake()
            taken.dead_letters += [letter for _, _, letters in snapshots.values() for letter in letters]
            served: Mapping[str, Progress] = {name: done for name, (done, _, _) in snapshots.items()}
            busy: Sequence[tuple[int, int]] = [hands for _, hands, _ in snapshots.values() if hands]
            self.outbox.commit(taken, stamp, {**self.outbox.progress, **served}, busy)
            for delivery in self.deliveries:
                delivery.committed(len(snapshots[delivery.output][2]))
        for delivery in self.deliveries:
            delivery.rows_until(self.outbox.head)

    def turn(self) -> None:
        if any(delivery.changed for delivery in self.deliveries):
            self.commit()

    def until(self, condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
        """Turn until `condition` is true."""

        def met() -> object:
            self.turn()
            return condition()

        wait_for(met, what, within_s)
