"""The writer's loop in a process of its own, with real channels: what it takes, when it commits, how it leaves."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from channel import Receiver, Report, Sender, pair
from config.intervals import commit_interval_s, file_interval_s
from config.settings import ClockRules, OutputTable, Site
from config.settings import Writer as WriterTable
from reading import Clock, Origin, Reading, Record
from tests.peers.process import wait_for
from tests.writer._helpers import PR_SET_PDEATHSIG, Child, dead_letters, state
from vitals import Board, Row
from writer import Batch, Output, OutputDown, delivery, ingest
from writer import clock as wall
from writer.clock import wall_minus_monotonic_ns
from writer.ingest import Ingest, WriterPlan
from writer.outbox import Account, Outbox, Progress, Watermark

LONG_S = 600.0  # no test waits for a commit interval so long
Setup = Callable[[pytest.MonkeyPatch], None]


class Notebook(Output):
    """Writes each record down as a line of JSON; while there is a file `away`, it is down."""

    Options = OutputTable
    is_file = True

    def write(self, batch: Batch) -> None:
        directory = Path(self.site.data_dir)
        if (away := directory / "away").exists():
            raise OutputDown("away", retry_after_s=float(away.read_text() or 0))
        with (directory / "notebook").open("ab", buffering=0) as file:
            file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in batch))

    def close(self) -> None:
        pass


class House:
    """Channels, a board, and writers that come and go."""

    def __init__(self, directory: Path, streams: Sequence[str] = ("meter",)) -> None:
        self.directory = directory
        self.board = Board()
        self.vitals = self.board.claim("writer", "writer")
        self.output = self.board.claim("output", "notebook")
        self.ends = {stream: pair() for stream in streams}
        self.senders = {stream: Sender(self.ends[stream][0], stream, 1) for stream in streams}
        self.writers: list[Child] = []
        self.sent = 0

    def start(
        self,
        *,
        interval_s: float = 0.02,
        file_interval_s: float = 0.0,
        quota_mb: float = 256.0,
        require_sync: bool = False,
        hold_at_most_s: float = 600.0,
        offsets: bool = True,
        outputs: bool = True,
        tick_s: float = 0.05,
        setup: Setup | None = None,
    ) -> Child:
        """Fork a writer; `setup` changes what it finds."""

        def be_writer() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ingest, "output_class", lambda _: Notebook)
                patch.setattr(ingest, "_TICK_S", tick_s)
                patch.setattr(delivery, "_FIRST_RETRY_S", 0.02)
                if setup:
                    setup(patch)
                for worker_end, _ in self.ends.values():
                    worker_end.close()
                plan = WriterPlan(
                    self.directory,
                    Site(data_dir=str(self.directory)),
                    WriterTable(
                        commit_interval_s=interval_s,
                        file_interval_s=file_interval_s,
                        outbox_quota_mb=quota_mb,
                        outbox_reserve_mb=0,
                    ),
                    ClockRules(require_sync=require_sync, hold_at_most_s=hold_at_most_s),
                    {"notebook": OutputTable()} if outputs else {},
                )
                receivers = [Receiver(ends[1], stream, offsets=offsets) for stream, ends in self.ends.items()]
                Ingest(plan, receivers, self.vitals, {"notebook": self.output}).run()

        writer = Child(be_writer)
        self.writers.append(writer)
        return writer

    def beats(self) -> None:
        """Wait until the writer's loop goes round, having looked at all that was there before."""
        began_ns = time.monotonic_ns()
        wait_for(lambda: self.vitals["beat_ns"] > began_ns, "the writer's loop")
        began_ns = time.monotonic_ns()
        wait_for(lambda: self.vitals["beat_ns"] > began_ns, "another turn")

    def report(self, count: int = 1, *, stream: str = "meter", urgent: bool = False) -> None:
        for _ in range(count):
            reading = Reading("d", time.monotonic_ns(), {"pulses": self.sent})
            self.senders[stream].report([reading], urgent=urgent)
            self.sent += 1

    def raw(self, message: bytes, stream: str = "meter") -> None:
        self.ends[stream][0].send(message)

    def records(self) -> list[Record]:
        notebook = self.directory / "notebook"
        if not notebook.exists():
            return []
        whole, _, _ = notebook.read_bytes().rpartition(b"\n")  # the last line may be in the middle of being written
        return [msgspec.json.decode(line, type=Record) for line in whole.splitlines()]

    def numbers(self) -> list[Any]:
        return [record.values["pulses"] for record in self.records()]

    def arrive(self, count: int) -> None:
        wait_for(lambda: len(self.records()) >= count, f"{count} records to arrive")

    def waiting(self, stream: str = "meter") -> bool:
        """Whether a message is in the channel that was not taken."""
        return bool(select.select([self.ends[stream][1]], [], [], 0)[0])

    def stop(self) -> None:
        self.writers[-1].kill(signal.SIGTERM)
        assert self.writers[-1].wait(5) == 0

    def committed(self) -> Progress:
        """How far the output had got when that was last committed."""
        return msgspec.msgpack.decode(state(self.directory / "outbox.db")["output/notebook"], type=Progress)

    def assert_conserved(self) -> None:
        stored = state(self.directory / "outbox.db")
        progress = self.committed()
        account = msgspec.msgpack.decode(stored["account/notebook"], type=Account)
        with contextlib.closing(sqlite3.connect(self.directory / "outbox.db")) as connection:
            rows = connection.execute("SELECT id, count FROM row").fetchall()
        pending = sum(count for row, count in rows if progress.owes(row))
        dropped = progress.refused + progress.damaged + account.quota + account.lost
        assert account.accepted == progress.delivered + pending + dropped


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield from living(made)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, ["meter", "plugs"])
    yield from living(made)


def living(made: House) -> Iterator[House]:
    yield made
    for writer in made.writers:
        writer.kill()
        writer.wait()
    for ends in made.ends.values():
        for end in ends:
            end.close()


def commits_fail_while(file: Path) -> Setup:
    """As on a full disk: SQLite itself says no, after all was tried."""

    def setup(patch: pytest.MonkeyPatch) -> None:
        whole = Outbox._bury

        def bury(self: Outbox, letters: Sequence[tuple[str, str, bytes]]) -> None:
            whole(self, letters)
            pages = 1 if file.exists() else 2**30
            self._connection.execute(f"PRAGMA max_page_count = {pages}")
            if file.exists():
                self._connection.execute("INSERT INTO dead_letter VALUES (NULL, '', '', '', zeroblob(9999))")

        patch.setattr(Outbox, "_bury", bury)
        patch.setattr(ingest, "_RETRY_COMMIT_S", 0.05)

    return setup


# ---- what arrives


def test_what_is_reported_arrives_once_and_in_order_and_leaves_nothing_behind(two: House) -> None:
    two.start()
    for _ in range(20):
        two.report(3)
        two.report(2, stream="plugs")
    two.arrive(100)
    two.stop()
    assert sorted(two.numbers()) == list(range(100))
    for source in ("meter", "plugs"):
        numbers = [record.values["pulses"] for record in two.records() if record.source == source]
        assert numbers == sorted(numbers)
    assert all(abs(record.time_ns - time.time_ns()) < 60e9 and record.clock is Clock.SYNCED for record in two.records())
    assert not two.waiting() and not two.waiting("plugs")
    assert two.vitals["accepted"] == two.output["accepted"] == two.output["delivered"] == 100
    assert two.output["pending"] == 0
    two.assert_conserved()


def test_messages_that_make_no_sense_are_kept_as_dead_letters_and_the_rest_goes_on(two: House) -> None:
    encode = msgspec.msgpack.encode
    whole = encode(Report("meter", 1, 100, [Reading("d", 1, {"pulses": 1})]))
    broken = [
        b"\xc1",
        b"{}",
        whole[:-1],
        whole + b"more",
        whole.replace(b"meter", b"met\xffr"),
        encode(["meter", "one", 2, []]),
        encode(["meter", 1, 2, [["d", 1.5, {}]]]),
        encode(["meter", 1, 2, [["d", 1, {"pulses": None}]]]),
        encode(Report("plugs", 9, 9, [])),
        encode(Report("meter", 1, 100, [Reading("d", 1, {}), Reading("d", 2**63, {"pulses": 1})])),
        encode(Report("meter", 1, 100, [Reading("d", -(2**63), {"pulses": 1})])),
        encode(Report("meter", 2**63, 2**63, [])).replace(encode(2**63), b"\xd3" + b"\xff" * 8 + b"\xc0"),
    ]
    two.start()
    for number, message in enumerate(broken):
        two.report()
        two.raw(message)
        if number == 5:
            two.raw(b"x" * 100_000)
        two.report(stream="plugs")
    two.arrive(2 * len(broken))
    two.stop()
    assert sorted(two.numbers()) == list(range(2 * len(broken)))
    letters = dead_letters(two.directory / "outbox.db")
    assert [body for _, _, body in letters if body] == broken
    assert [reason for _, reason, body in letters if not body] == ["larger than any message of ours"]
    assert {origin for origin, _, _ in letters} == {"source meter"}
    assert two.vitals["dead_letters"] == len(broken) + 1
    two.assert_conserved()


@pytest.mark.parametrize("offsets", [True, False])
def test_messages_that_were_committed_before_are_dropped_and_counted(house: House, offsets: bool) -> None:
    house.start(offsets=offsets)
    house.report(3)
    house.arrive(3)
    again = [Report("meter", 1, number, [Reading("d", 1, {"pulses": 1000})]) for number in (1, 2, 3)]
    for report in [*again, Report("meter", 0, 99, [Reading("d", 1, {"pulses": 1000})] * 2)]:
        house.raw(msgspec.msgpack.encode(report))
    wait_for(lambda: not house.waiting(), "the repeats to be taken from the channel")
    house.report(2)
    house.arrive(5)
    house.stop()
    assert house.numbers() == [0, 1, 2, 3, 4]
    assert house.vitals["duplicates"] == 5
    house.assert_conserved()


@pytest.mark.parametrize("offsets", [True, False])
def test_a_channel_full_of_what_a_killed_predecessor_had_committed_is_emptied(house: House, offsets: bool) -> None:
    """Nothing else is there to commit, and no output gets on: yet the worker must be able to send."""
    (house.directory / "away").touch()
    while not house.senders["meter"].backlog:
        house.report()
    in_the_channel = house.senders["meter"].sent if offsets else 1

    def die(_: Receiver) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dies_after_the_commit(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Receiver, "consume", die)

    assert house.start(offsets=offsets, setup=dies_after_the_commit).wait() == -signal.SIGKILL
    house.start(offsets=offsets)
    wait_for(house.senders["meter"].flush, "the channel to have room")
    wait_for(lambda: not house.waiting(), "the channel to be empty")
    assert house.vitals["duplicates"] == in_the_channel
    (house.directory / "away").unlink()
    house.arrive(house.sent)
    house.stop()
    assert house.numbers() == list(range(house.sent))


def test_a_new_incarnation_of_a_worker_is_no_repeat(house: House) -> None:
    house.start()
    house.report(3)
    house.arrive(3)
    house.senders["meter"] = Sender(house.ends["meter"][0], "meter", 2)
    house.report(3)
    house.arrive(6)
    house.stop()
    assert house.numbers() == [0, 1, 2, 3, 4, 5]
    assert house.vitals["duplicates"] == 0


def test_what_a_device_sends_again_is_booked_once_also_by_the_next_writer(house: House) -> None:
    sender = house.senders["meter"]

    def send(*numbers: int, boot: str = "b00t", device: str = "d") -> None:
        at_ns = time.monotonic_ns()
        sender.report([Reading(device, at_ns, {"pulses": each}, origin=Origin(boot, each)) for each in numbers])

    house.start()
    send(1, 2)
    send(2, 3, 3)
    send(3, device="e")
    send(3, boot="new")
    house.arrive(5)
    house.stop()
    house.start()
    send(2, 3, 4)
    send(3, boot="new")
    sender.report([Reading("d", 1, {"pulses": number}, origin=Origin("", 7)) for number in (8, 9)])  # not numbered
    house.arrive(8)
    wait_for(lambda: house.committed().delivered == 8, "that to be committed, too")
    house.writers[-1].kill()
    house.writers[-1].wait()
    house.start()
    send(4, 5)
    house.arrive(9)
    house.stop()
    assert house.numbers() == [1, 2, 3, 3, 3, 4, 8, 9, 5]
    assert house.vitals["duplicates"] == 2 + 3 + 1
    house.assert_conserved()


HOUR_NS = 3600 * 10**9


@pytest.mark.parametrize(
    ("age_ns", "believed"),
    [(HOUR_NS, True), (23 * HOUR_NS, True), (25 * HOUR_NS, False), (-HOUR_NS, False), (-(10**9), False)],
)
def test_a_devices_own_date_is_believed_when_it_can_be_true(house: House, age_ns: int, believed: bool) -> None:
    house.start()
    now_ns = time.time_ns()
    dated = Reading("d", time.monotonic_ns(), {"pulses": 0}, origin=Origin("b", 1, now_ns - age_ns))
    house.senders["meter"].report([dated])
    house.arrive(1)
    (record,) = house.records()
    assert abs(record.time_ns - (now_ns - age_ns if believed else now_ns)) < 10**9
    house.stop()


def clock_set_by(file: Path) -> Setup:
    """A clock that is an hour wrong until there is a file."""

    def setup(patch: pytest.MonkeyPatch) -> None:
        defaults = {
            **(wall.WallClock.__init__.__kwdefaults__ or {}),
            "synchronised": file.exists,
            "offset": lambda: wall_minus_monotonic_ns() - (0 if file.exists() else HOUR_NS),
        }
        patch.setattr(wall.WallClock.__init__, "__kwdefaults__", defaults)

    return setup


def test_a_devices_own_date_is_not_believed_while_our_own_clock_is_not_set(house: House) -> None:
    is_set = house.directory / "set"
    house.start(require_sync=True, setup=clock_set_by(is_set))
    at_ns = time.monotonic_ns()
    house.senders["meter"].report(
        [Reading("d", at_ns, {"pulses": 0}, origin=Origin("b", 1, time.time_ns() - 3 * HOUR_NS))]
    )
    wait_for(lambda: house.vitals["held"] == 1, "the reading to be held")
    is_set.touch()
    house.arrive(1)
    (record,) = house.records()
    assert record.clock is Clock.RESTAMPED
    assert abs(record.time_ns - (at_ns + wall_minus_monotonic_ns())) < 10**8
    house.stop()


# ---- the clock


def test_what_came_before_the_clock_was_set_gets_the_right_date_afterwards(house: House) -> None:
    is_set = house.directory / "set"
    house.start(require_sync=True, setup=clock_set_by(is_set))
    began_ns = time.time_ns()
    house.report(3)
    wait_for(lambda: house.vitals["held"] == 3, "the readings to be held")
    house.writers[-1].kill()
    house.writers[-1].wait()
    house.start(require_sync=True, setup=clock_set_by(is_set))  # a successor goes on holding them
    house.report(2)
    wait_for(lambda: house.vitals["held"] == 5, "the new ones to be held, too")
    house.beats()
    assert house.records() == []
    assert house.vitals["clock_synced"] == 0
    is_set.touch()
    house.arrive(5)
    house.report(1)
    house.arrive(6)
    house.stop()
    assert house.numbers() == [0, 1, 2, 3, 4, 5]
    assert [record.clock for record in house.records()] == [Clock.RESTAMPED] * 5 + [Clock.SYNCED]
    assert all(began_ns - 10**8 < record.time_ns < time.time_ns() for record in house.records())
    assert (house.vitals["held"], house.vitals["clock_synced"], house.vitals["clock_steps"]) == (0, 1, 0)
    assert house.vitals["unsynced"] == 0


def test_a_clock_that_is_never_set_delays_readings_no_longer_than_the_limit(house: House) -> None:
    house.start(require_sync=True, hold_at_most_s=0.5, setup=clock_set_by(house.directory / "set"))
    house.report(2)
    house.arrive(2)
    house.report(1)
    house.arrive(3)
    house.stop()
    assert [record.clock for record in house.records()] == [Clock.UNSYNCED] * 3
    assert house.vitals["unsynced"] == 3
    assert house.vitals["held"] == 0


def test_what_is_committed_as_held_at_the_very_end_of_the_limit_is_not_forgotten(house: House) -> None:
    """The limit passes while a commit is under way."""

    def setup(patch: pytest.MonkeyPatch) -> None:
        clock_set_by(house.directory / "set")(patch)
        whole = Outbox.commit

        def commit(self: Outbox, *arguments: Any) -> None:
            whole(self, *arguments)
            patch.setattr(wall.WallClock, "hopeless", True)

        patch.setattr(wall.WallClock, "hopeless", False)
        patch.setattr(Outbox, "commit", commit)

    house.start(require_sync=True, setup=setup)
    house.report(2)
    house.arrive(2)
    assert [record.clock for record in house.records()] == [Clock.UNSYNCED] * 2
    house.stop()


# ---- when it commits


def test_nothing_is_committed_before_the_interval_is_over(house: House) -> None:
    house.start(interval_s=1.0)
    house.beats()
    began_s = time.monotonic()
    house.report(1)
    wait_for(lambda: house.vitals["commits"], "the commit")
    assert time.monotonic() - began_s >= 0.9
    house.stop()


def test_an_urgent_report_is_committed_at_once_with_all_that_came_before(house: House) -> None:
    house.start(interval_s=LONG_S)
    house.report(5)
    house.beats()
    assert house.vitals["commits"] == 0
    house.report(1, urgent=True)
    house.arrive(6)
    assert house.vitals["commits"] == 1
    assert house.numbers() == list(range(6))
    house.report(1)  # and the haste is over
    house.beats()
    assert house.waiting()
    house.stop()


def test_a_channel_that_is_half_full_does_not_wait_for_the_interval(house: House) -> None:
    house.start(interval_s=LONG_S)
    count = 0
    while not house.vitals["commits"]:
        beat = house.vitals["beat_ns"]
        house.report(1)
        count += 1
        assert count < 400 or wait_for(lambda: house.vitals["commits"], "the early commit")
        wait_for(lambda beat=beat: house.vitals["beat_ns"] != beat, "it to look")  # however busy the machine is
    assert house.senders["meter"].backlog == 0
    assert count >= 100
    house.stop()
    assert house.numbers() == list(range(count))


def test_one_message_at_a_time_is_taken_as_fast_as_it_is_committed(house: House) -> None:
    house.report(100)
    began_s = time.monotonic()
    house.start(offsets=False, interval_s=LONG_S, tick_s=0.5, outputs=False)
    wait_for(lambda: house.vitals["accepted"] == 100, "them to be committed", 40)
    assert time.monotonic() - began_s < 20  # and not one of them each time the loop happens to turn
    house.stop()


def turns_of(patch: pytest.MonkeyPatch, count: Path) -> None:
    whole = Ingest._turn

    def turn(self: Ingest) -> None:
        with count.open("ab") as file:
            file.write(b".")
        whole(self)

    patch.setattr(Ingest, "_turn", turn)


@pytest.mark.parametrize("offsets", [True, False])
def test_what_waits_for_its_commit_does_not_keep_the_loop_turning(house: House, offsets: bool) -> None:
    count = house.directory / "turns"
    writer = house.start(
        interval_s=LONG_S if offsets else 0.02,
        offsets=offsets,
        tick_s=0.5,
        setup=lambda patch: turns_of(patch, count),
    )
    house.report(5)
    if offsets:
        house.beats()
        assert house.waiting()
    else:
        house.arrive(5)
        house.beats()
    turns, cpu_s = count.stat().st_size, writer.cpu_s()
    time.sleep(1.5)  # what is measured is how little happens
    assert count.stat().st_size - turns <= 6
    assert writer.cpu_s() - cpu_s < 0.2
    house.stop()


def test_a_commit_that_fails_takes_nothing_and_is_made_up_for(two: House) -> None:
    full = two.directory / "full"
    two.start(setup=commits_fail_while(full))
    two.report(2)
    two.arrive(2)
    full.touch()
    two.report(3)
    two.report(2, stream="plugs")
    wait_for(lambda: two.vitals["commit_failures"] >= 3, "commits to fail")
    assert "free some space" in two.vitals.note
    assert two.waiting() and two.waiting("plugs")
    two.report(1)
    two.beats()
    assert len(two.records()) == 2
    with contextlib.closing(sqlite3.connect(two.directory / "outbox.db")) as connection:
        assert connection.execute("SELECT count(*) FROM row WHERE id > 1").fetchone() == (0,)
    full.unlink()
    two.arrive(8)
    wait_for(lambda: not two.vitals.note, "the note to go")
    two.stop()
    assert Counter(two.numbers()) == Counter(range(8))
    assert two.vitals["accepted"] == 8
    two.assert_conserved()


def test_a_failing_commit_is_not_tried_all_the_time(house: House) -> None:
    full, count = house.directory / "full", house.directory / "turns"
    full.touch()

    def setup(patch: pytest.MonkeyPatch) -> None:
        commits_fail_while(full)(patch)
        patch.setattr(ingest, "_RETRY_COMMIT_S", 0.5)
        turns_of(patch, count)

    house.start(setup=setup, tick_s=0.5)
    house.report(1, urgent=True)
    wait_for(lambda: house.vitals["commit_failures"], "the first failure")
    before = count.stat().st_size
    time.sleep(1.2)  # what is measured is how little happens
    assert 1 <= house.vitals["commit_failures"] <= 4
    assert count.stat().st_size - before <= 10
    full.unlink()
    house.arrive(1)
    house.stop()


def test_a_writer_killed_while_commits_fail_loses_nothing(house: House) -> None:
    full = house.directory / "full"
    full.touch()
    house.start(setup=commits_fail_while(full))
    house.report(5)
    wait_for(lambda: house.vitals["commit_failures"], "commits to fail")
    house.writers[-1].kill()
    house.writers[-1].wait()
    full.unlink()
    house.start(setup=commits_fail_while(full))
    house.arrive(5)
    house.stop()
    assert house.numbers() == list(range(5))


# ---- outputs


def test_an_output_that_is_away_delays_neither_the_receiving_nor_the_leaving(house: House) -> None:
    (house.directory / "away").touch()
    house.start()
    house.report(50)
    wait_for(lambda: house.vitals["accepted"] == 50, "all to be committed")
    wait_for(lambda: house.output["state"] == 2, "the output to be down")
    assert house.output["pending"] == 50
    assert house.output.note == "away"
    began_s = time.monotonic()
    house.stop()
    assert time.monotonic() - began_s < 5
    house.assert_conserved()
    (house.directory / "away").unlink()
    house.start()
    house.arrive(50)
    assert house.numbers() == list(range(50))
    wait_for(lambda: house.output["pending"] == 0 and house.output["state"] == 1, "the board to say so")
    house.stop()


def test_a_writer_that_starts_with_a_long_backlog_sends_the_newest_first(house: House) -> None:
    (house.directory / "away").write_text("600")  # it does not even try in between
    house.start()
    while house.sent < 12_000:
        batch = [Reading("d", time.monotonic_ns(), {"pulses": house.sent + n}) for n in range(1000)]
        house.senders["meter"].report(batch)
        house.sent += 1000
        wait_for(lambda: house.vitals["accepted"] == house.sent, "them to be committed")
    house.report(1)
    wait_for(lambda: house.vitals["accepted"] == house.sent, "the newest to be committed")
    house.stop()
    (house.directory / "away").unlink()

    def slow_thread(patch: pytest.MonkeyPatch) -> None:
        whole = ingest.Delivery.rows_until

        def rows_until(self: ingest.Delivery, head: int, *, hurry: bool) -> None:
            time.sleep(0.1)  # the thread, if it runs already, looks before it is told
            whole(self, head, hurry=hurry)

        patch.setattr(ingest.Delivery, "rows_until", rows_until)

    house.start(setup=slow_thread)
    house.arrive(house.sent)
    house.stop()
    assert house.numbers()[0] == house.sent - 1
    assert Counter(house.numbers()) == Counter(range(house.sent))


class Careful(Notebook):
    """Must have a note on the disk before it writes anything."""

    def write(self, batch: Batch) -> None:
        self.memo["batches"] = self.memo.get("batches", 0) + 1
        self.memo.keep()
        super().write(batch)


def test_an_output_that_has_to_note_something_while_all_is_drained_is_not_kept_waiting(house: House) -> None:
    def setup(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(ingest, "output_class", lambda _: Careful)

    house.start(interval_s=LONG_S, setup=setup)
    house.report(5)
    house.beats()
    began_s = time.monotonic()
    house.stop()
    assert time.monotonic() - began_s < 5
    assert house.numbers() == list(range(5))


def test_a_file_gets_what_has_gathered_for_it_when_the_writer_is_stopped(house: House) -> None:
    house.start(file_interval_s=240)
    house.report()
    house.arrive(1)
    for _ in range(5):
        commits = house.vitals["commits"]
        house.report(10)
        wait_for(lambda commits=commits: house.vitals["commits"] > commits, "a commit")
    wait_for(lambda: house.output["pending"] == 50, "the board to show what waits")
    assert house.numbers() == [0]
    wait_for(lambda: house.output["oldest_pending_utc_ns"] == 0, "the output not to look as if it were behind")
    house.stop()
    assert house.numbers() == list(range(51))
    house.assert_conserved()


def test_a_file_gathers_nothing_once_the_outbox_fills_up(house: House) -> None:
    house.start(file_interval_s=240, quota_mb=1)
    house.report()
    house.arrive(1)
    text = "x" * 10_000
    for number in range(1, 40):  # 400 kB of the megabyte
        house.senders["meter"].report([Reading("d", time.monotonic_ns(), {"pulses": number, "state": text})])
        wait_for(lambda: not house.waiting(), "the reading to be taken")
    wait_for(lambda: len(house.numbers()) > 25, "what had gathered")
    house.stop()
    assert house.numbers() == list(range(40))


# ---- leaving


def test_a_writer_that_is_stopped_takes_everything_and_delivers_it(two: House) -> None:
    two.start(interval_s=LONG_S)
    two.beats()
    two.report(50)
    two.report(50, stream="plugs")
    two.stop()
    assert sorted(two.numbers()) == list(range(100))
    assert not two.waiting() and not two.waiting("plugs")
    two.assert_conserved()


def test_a_writer_that_is_stopped_takes_one_message_after_the_other_where_it_must(house: House) -> None:
    house.start(interval_s=LONG_S, offsets=False)
    house.beats()
    house.report(60)
    house.stop()
    assert house.numbers() == list(range(60))
    assert not house.waiting()


@pytest.mark.parametrize("offsets", [True, False])
def test_repeats_do_not_stand_in_the_way_of_draining(house: House, offsets: bool) -> None:
    house.start(offsets=offsets)
    house.report(2)
    house.arrive(2)
    wait_for(lambda: not house.waiting(), "the channel to be empty")
    house.writers[-1].kill(signal.SIGSTOP)
    for number in (1, 2):
        house.raw(msgspec.msgpack.encode(Report("meter", 1, number, [Reading("d", 1, {"pulses": 1000})])))
    house.report(3)
    house.writers[-1].kill(signal.SIGTERM)
    house.writers[-1].kill(signal.SIGCONT)
    assert house.writers[-1].wait(5) == 0
    assert house.numbers() == [0, 1, 2, 3, 4]
    assert not house.waiting()


def test_a_writer_that_is_stopped_while_it_starts_drains_all_the_same(house: House) -> None:
    """Checking a large outbox takes seconds; nobody comes after this writer when the house stops."""
    checking, go_on = house.directory / "checking", house.directory / "go on"

    def setup(patch: pytest.MonkeyPatch) -> None:
        whole = ingest.open_outbox

        def slow(*arguments: Any, **named: Any) -> Any:
            checking.touch()
            wait_for(go_on.exists, "the check to be over")
            return whole(*arguments, **named)

        patch.setattr(ingest, "open_outbox", slow)

    house.report(5)
    house.start(setup=setup)
    wait_for(checking.exists, "the check")
    house.writers[-1].kill(signal.SIGTERM)
    go_on.touch()
    assert house.writers[-1].wait(5) == 0
    assert house.numbers() == list(range(5))
    assert not house.waiting()


def test_a_writer_that_is_stopped_while_the_disk_is_full_leaves_in_time(house: House) -> None:
    full = house.directory / "full"
    full.touch()
    house.start(setup=commits_fail_while(full))
    house.report(3)
    wait_for(lambda: house.vitals["commit_failures"], "commits to fail")
    house.stop()
    assert house.waiting()


def send_some_more_without_a_parent(end: socket.socket, parent: int, began: Path) -> None:
    sender = Sender(end, "meter", 1)
    for number in range(30):
        sender.report([Reading("d", time.monotonic_ns(), {"pulses": number})])
        if number == 9:
            began.touch()
            wait_for(lambda: os.getppid() != parent, "the parent to be gone")
        time.sleep(0.02)  # longer than the writer takes for a turn: it must not take a pause for the end


def test_a_writer_without_a_parent_goes_on_until_the_workers_are_gone(tmp_path: Path) -> None:
    """The parent is killed; its worker lives a little longer, and then nobody holds the channel's other end."""
    house = House(tmp_path)
    pids, began = tmp_path / "pids", tmp_path / "began"

    def be_parent() -> None:
        parent, end = os.getpid(), house.ends["meter"][0]
        worker = Child(lambda: send_some_more_without_a_parent(end, parent, began), dies_with_parent=False)

        def die_with_the_parent(patch: pytest.MonkeyPatch) -> None:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            patch.setattr(ingest, "_LEAVE_S", 20.0)

        writer = house.start(interval_s=LONG_S, setup=die_with_the_parent)
        wait_for(began.exists, "the worker")
        house.beats()
        pids.write_text(json.dumps([worker.pid, writer.pid]))
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        parent = Child(be_parent)
        for end in house.ends["meter"]:
            end.close()
        assert parent.wait() == -signal.SIGKILL
        worker, writer = json.loads(pids.read_text())
        wait_for(lambda: not Path(f"/proc/{writer}").exists() or zombie(writer), "the writer to leave")
        assert not Path(f"/proc/{worker}").exists() or zombie(worker)  # it did not leave before the worker had
        outbox = state(tmp_path / "outbox.db")
        assert msgspec.msgpack.decode(outbox["stream/meter"], type=Watermark) == Watermark(1, 30)
        assert msgspec.msgpack.decode(outbox["account/notebook"], type=Account).accepted == 30
        assert house.numbers() == list(range(len(house.numbers())))
        house.assert_conserved()
    finally:
        for pid in json.loads(pids.read_text()) if pids.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# ---- the board


def test_the_board_says_what_the_outbox_counts(house: House) -> None:
    house.start()
    house.report(7)
    house.arrive(7)
    (house.directory / "away").touch()
    house.report(4)
    wait_for(lambda: house.vitals["accepted"] == 11 and house.output["pending"] == 4, "the board to show it")

    def equation(row: Row) -> bool:
        dropped = row["dropped_refused"] + row["dropped_quota"] + row["dropped_damage"]
        return row["accepted"] == row["delivered"] + row["pending"] + dropped

    assert equation(house.output)
    assert house.vitals["outbox_bytes"] > 0 and house.vitals["last_commit_ns"] > 0
    house.stop()
    with contextlib.closing(sqlite3.connect(house.directory / "outbox.db")) as connection:
        assert connection.execute("SELECT sum(count) FROM row").fetchone() == (4,)
    house.assert_conserved()


def test_a_damaged_outbox_is_counted_and_the_writer_works(house: House) -> None:
    (house.directory / "outbox.db").write_bytes(b"damaged" * 1000)
    house.start()
    house.report(3)
    house.arrive(3)
    assert house.vitals["salvages"] == 1
    house.stop()


def test_without_outputs_it_takes_what_comes(house: House) -> None:
    house.start(outputs=False)
    house.report(10)
    wait_for(lambda: house.vitals["accepted"] == 10, "them to be committed")
    wait_for(lambda: not house.waiting(), "the channel to be empty")
    house.stop()


@pytest.mark.parametrize("table", ["state", "row"])
def test_an_outbox_that_is_damaged_while_the_writer_works_is_set_aside_too(house: House, table: str) -> None:
    """The state is met by the next commit, a row by the output that is to get it; neither may wait for a restart."""
    house.start()
    house.report(5)
    house.arrive(5)
    if table == "row":
        (house.directory / "away").touch()
        house.report(5)
        wait_for(lambda: not house.waiting(), "the rows to be committed")
    path = house.directory / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    (house.directory / "away").unlink(missing_ok=True)
    house.report(3)
    assert house.writers[-1].wait(10) == 1
    house.start()
    house.report(4)
    wait_for(lambda: {*house.numbers()} >= {*range(house.sent - 7, house.sent)}, "what came since")
    house.stop()
    assert len(list(house.directory.glob("outbox.db.damaged-?"))) == 1
    assert house.vitals["salvages"] == 1
    house.assert_conserved()


def test_a_moment_in_which_the_disk_cannot_read_is_no_damage(house: House) -> None:
    def one_moment(patch: pytest.MonkeyPatch) -> None:
        commit = Outbox.commit
        failed: list[int] = []

        def fail_once(self: Outbox, *arguments: Any) -> None:
            if not failed:
                failed.append(1)
                error = sqlite3.DatabaseError("database disk image is malformed")
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            commit(self, *arguments)

        patch.setattr(Outbox, "commit", fail_once)
        patch.setattr(ingest, "_RETRY_COMMIT_S", 0.02)

    house.start(setup=one_moment)
    house.report(5)
    house.arrive(5)
    house.stop()
    assert house.vitals["commit_failures"] == 1
    assert not list(house.directory.glob("*.damaged-*"))


def test_the_intervals_are_the_users_or_what_the_disk_can_bear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (commit_interval_s(2.5, tmp_path), file_interval_s(2.5, tmp_path)) == (2.5, 2.5)
    card, disk = "/sys/devices/platform/mmc1/block/mmcblk0/mmcblk0p2", "/sys/block/sda"
    for device, commit_s, file_s in ((card, 10.0, 60.0), (disk, 1.0, 0.0)):
        monkeypatch.setattr(os.path, "realpath", lambda _, device=device: device)
        place = tmp_path / "not" / "yet" / "there"
        assert (commit_interval_s("auto", place), file_interval_s("auto", place)) == (commit_s, file_s)
