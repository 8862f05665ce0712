"""Kills at the exact instants that chance hardly ever hits: around the commit, the consuming, the booking."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from channel import Receiver, Sender, pair
from config.settings import ClockRules, Site, Writer
from reading import Reading
from tests.faults.house import csv_rows
from tests.peers.process import wait_for
from vitals import Board
from writer.delivery import Delivery
from writer.ingest import Ingest, WriterPlan
from writer.outbox import Account, Outbox, Progress
from writer.outputs.csv import Csv, Options

PR_SET_PDEATHSIG = 1
STREAMS = ("kitchen", "garage")
Patch = Callable[[pytest.MonkeyPatch], None]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "commit", die)


def in_the_middle_of_the_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "_bury", die)


def after_the_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Receiver, "consume", die)


def between_consuming_two_channels(patch: pytest.MonkeyPatch) -> None:
    consume = Receiver.consume
    taken: list[str] = []

    def one_and_die(self: Receiver) -> None:
        if taken:
            die()
        consume(self)
        taken.append(self.stream)

    patch.setattr(Receiver, "consume", one_and_die)


def in_the_middle_of_consuming_one_channel(patch: pytest.MonkeyPatch) -> None:
    def half(self: Receiver) -> None:
        for _ in range(max(1, self.peeked // 2)):
            self._end.recv(1)
        die()

    patch.setattr(Receiver, "consume", half)


def after_an_output_wrote_and_before_it_is_booked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Delivery, "_book", die)


def after_an_output_is_booked_and_before_that_is_committed(patch: pytest.MonkeyPatch) -> None:
    book = Delivery._book

    def book_and_die(self: Delivery, *arguments: object) -> None:
        book(self, *arguments)  # type: ignore[arg-type]
        die()

    patch.setattr(Delivery, "_book", book_and_die)


def while_a_file_is_being_written(patch: pytest.MonkeyPatch) -> None:
    append = Csv._append

    def append_and_die(self: Csv, files: dict[str, bytes]) -> dict[str, int]:
        append(self, {file: text[: len(text) // 2] for file, text in files.items()})
        die()
        return {}

    patch.setattr(Csv, "_append", append_and_die)


POINTS = [
    before_the_commit,
    in_the_middle_of_the_commit,
    after_the_commit,
    between_consuming_two_channels,
    in_the_middle_of_consuming_one_channel,
    after_an_output_wrote_and_before_it_is_booked,
    after_an_output_is_booked_and_before_that_is_committed,
    while_a_file_is_being_written,
]


def fork_writer(data_dir: Path, ends: dict[str, socket.socket], point: Patch | None = None) -> int:
    """Fork a writer on the writers' ends of `ends`; with `point` it dies there."""
    tests = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no writer outlives the tests
        if os.getppid() != tests:
            die()
        with pytest.MonkeyPatch.context() as patch:
            if point:
                point(patch)
            board = Board()
            plan = WriterPlan(
                data_dir,
                Site(data_dir=str(data_dir)),
                Writer(commit_interval_s=0.02, outbox_reserve_mb=0),
                ClockRules(require_sync=False),
                {"csv": Options()},
            )
            receivers = [Receiver(end, stream) for stream, end in ends.items()]
            Ingest(plan, receivers, board.claim("writer", "writer"), {"csv": board.claim("output", "csv")}).run()
        os._exit(0)
    finally:
        os._exit(1)


def ends_killed(pid: int) -> bool:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended and not os.WIFSIGNALED(status):
        pytest.fail("the writer was to be killed and ended by itself")
    return bool(ended)


def lines(directory: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in directory.glob("*.csv"))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_writer_killed(tmp_path: Path, point: Patch) -> None:
    channels = {stream: pair() for stream in STREAMS}
    senders = {stream: Sender(ends[0], stream, incarnation=1) for stream, ends in channels.items()}
    writers_ends = {stream: ends[1] for stream, ends in channels.items()}
    sent: Counter[tuple[str, int]] = Counter()

    def send(count: int) -> None:
        for stream in STREAMS:
            for _ in range(count):
                number = len(sent)
                senders[stream].report([Reading("plug", time.monotonic_ns(), {"pulses": number})])
                sent[stream, number] += 1

    send(5)
    for _ in range(3):
        victim = fork_writer(tmp_path, writers_ends, point)
        wait_for(lambda victim=victim: ends_killed(victim), "the kill")
        send(2)
    survivor = fork_writer(tmp_path, writers_ends)
    wait_for(lambda: lines(tmp_path / "csv") >= 1 + len(sent), "everything to be in the file")
    os.kill(survivor, signal.SIGTERM)
    assert os.waitpid(survivor, 0)[1] == 0
    for ends in channels.values():
        for end in ends:
            end.close()

    rows = csv_rows(tmp_path / "csv")
    assert Counter((row[1], int(row[4])) for row in rows) == sent
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as outbox:
        state = dict(outbox.execute("SELECT key, value FROM state"))
        assert outbox.execute("SELECT count(*) FROM row").fetchone() == (0,)
    progress = msgspec.msgpack.decode(state["output/csv"], type=Progress)
    account = msgspec.msgpack.decode(state["account/csv"], type=Account)
    assert (account.accepted, progress.delivered) == (len(sent), len(sent))
