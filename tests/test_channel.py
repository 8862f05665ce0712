"""The report channel: nothing that the kernel took is lost or doubled, whoever is killed, and nobody ever blocks."""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from channel import MOST_BYTES, MOST_READINGS, Receiver, Report, Sender, decode_report, pair
from reading import Reading
from tests.peers.process import wait_for
from tests.writer._helpers import Child, forked, killed_somewhere

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = pair()
    yield made
    for end in made:
        end.close()


def reading(number: int, text: str = "") -> Reading:
    return Reading("d", number, {"pulses": number, "state": text} if text else {"pulses": number})


def reports(receiver: Receiver) -> list[Report]:
    return [decode_report(message) for message in receiver.peek() if message is not None]


def numbers(seen: list[Report]) -> list[int]:
    return [each.at_ns for report in seen for each in report.readings]


def fill(end: socket.socket, size: int) -> int:
    """Send messages of `size` bytes until the kernel takes no more; return how many it took."""
    count = 0
    while True:
        try:
            end.send(b"x" * size)
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("offsets", [True, False])
def test_every_round_takes_exactly_what_it_looked_at(ends: Ends, offsets: bool) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s", offsets=offsets)
    seen: list[int] = []
    sent = 0
    while sent < 60 or seen != list(range(60)):
        for _ in range(3 if sent < 60 else 0):
            sender.report([reading(sent)])
            sent += 1
        looked_at = numbers(reports(receiver))
        seen += looked_at
        assert receiver.peeked == len(looked_at) <= (4 if offsets else 1)
        if sent < 60:
            sender.report([reading(sent)])  # after the look and before the taking: not to be taken
            sent += 1
        receiver.consume()
        assert receiver.peeked == 0
    assert reports(receiver) == []
    assert seen == list(range(60))


def test_a_second_look_shows_only_what_is_new(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s")
    sender.report([reading(1)])
    assert numbers(reports(receiver)) == [1]
    assert numbers(reports(receiver)) == []
    sender.report([reading(2)])
    assert numbers(reports(receiver)) == [2]
    assert receiver.peeked == 2


def test_one_message_at_a_time_where_the_kernel_shows_only_the_first(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s", offsets=False)
    assert receiver.one_at_a_time
    for number in (1, 2):
        sender.report([reading(number)])
    assert not receiver.pressed
    assert numbers(reports(receiver)) == [1]
    assert receiver.pressed
    assert numbers(reports(receiver)) == []
    receiver.consume()
    assert not receiver.pressed
    assert numbers(reports(receiver)) == [2]


def test_the_successor_of_a_reader_killed_before_it_took_anything_sees_the_same_messages(ends: Ends) -> None:
    sender = Sender(ends[0], "s", 7)
    for number in range(5):
        sender.report([reading(number)])

    def look_and_die() -> None:
        receiver = Receiver(ends[1], "s")
        assert len(reports(receiver)) == 5
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(3):
        assert Child(look_and_die).wait() == -signal.SIGKILL
    sender.report([reading(5)])
    seen = reports(Receiver(ends[1], "s"))
    assert numbers(seen) == [0, 1, 2, 3, 4, 5]
    assert [(report.incarnation, report.sequence) for report in seen] == [(7, n) for n in range(1, 7)]


def test_a_reader_killed_while_it_takes_leaves_the_rest_whole(ends: Ends) -> None:
    sender = Sender(ends[0], "s", 1)
    for number in range(5):
        sender.report([reading(number)])

    def take_two_and_die() -> None:
        receiver = Receiver(ends[1], "s")
        assert len(reports(receiver)) == 5
        receiver.peeked = 2
        receiver.consume()
        os.kill(os.getpid(), signal.SIGKILL)

    assert Child(take_two_and_die).wait() == -signal.SIGKILL
    assert numbers(reports(Receiver(ends[1], "s"))) == [2, 3, 4]


def test_a_batch_is_cut_into_messages_that_fit(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s")
    batch = [reading(number, "x" * 150) for number in range(450)]
    sender.report(batch, urgent=True)
    assert sender.sent == 450 and sender.dropped == 0
    messages = [message for message in receiver.peek() if message is not None]
    assert all(len(message) <= MOST_BYTES for message in messages)
    seen = [decode_report(message) for message in messages]
    assert [each for report in seen for each in report.readings] == batch
    assert all(len(report.readings) <= MOST_READINGS and report.urgent for report in seen)
    assert [report.sequence for report in seen] == list(range(1, len(seen) + 1))


def test_a_reading_too_large_for_any_message_is_dropped_and_counted_and_its_neighbours_arrive(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s")
    sender.report([reading(1), reading(2, "x" * MOST_BYTES), reading(3)])
    assert (sender.sent, sender.dropped, sender.backlog) == (2, 1, 0)
    seen = reports(receiver)
    assert numbers(seen) == [1, 3]
    assert [report.sequence for report in seen] == [1, 2]  # no number is left out


def test_the_backlog_is_bounded_and_what_falls_out_is_the_oldest_and_counted(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1, most_backlog=100), Receiver(ends[1], "s")
    began_s = time.monotonic()
    for number in range(0, 20_000, 10):
        sender.report([reading(number + part) for part in range(10)])
        assert sender.backlog <= 100
        assert sender.sent + sender.backlog + sender.dropped == number + 10
    assert time.monotonic() - began_s < 5  # nobody reads, and nobody waited
    assert sender.dropped > 0
    first = numbers(reports(receiver))
    assert first == list(range(sender.sent))
    receiver.consume()
    assert sender.flush()
    assert sender.backlog == 0
    assert numbers(reports(receiver)) == list(range(19_900, 20_000))
    assert sender.sent + sender.dropped == 20_000


def test_what_the_kernel_would_take_is_not_dropped_because_the_backlog_is_full(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1, most_backlog=50), Receiver(ends[1], "s")
    sent = 0
    while sender.backlog < 50:
        sender.report([reading(sent)])
        sent += 1
    seen = numbers(reports(receiver))
    receiver.consume()
    sender.report([reading(sent)])  # the backlog is as long as it may be, and the channel is free again
    assert (sender.dropped, sender.backlog) == (0, 0)
    assert seen + numbers(reports(receiver)) == list(range(sent + 1))


def test_waiting_ends_when_there_is_room_again(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s")
    while not sender.backlog:
        sender.report([reading(0)])
    began_s = time.monotonic()
    sender.wait(0.05)
    assert 0.04 < time.monotonic() - began_s < 5
    reports(receiver)
    receiver.consume()
    began_s = time.monotonic()
    sender.wait(30)
    assert time.monotonic() - began_s < 5
    assert sender.flush()


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 100_000, 128 * 1024, 200_000])
def test_a_message_too_large_to_be_ours_is_one_message(ends: Ends, size: int, offsets: bool) -> None:
    receiver = Receiver(ends[1], "s", offsets=offsets)
    ends[0].send(b"before")
    ends[0].send(b"\x93" * size)
    for _ in range(1 if offsets else 2):
        looked = list(receiver.peek())
        if not offsets:
            receiver.consume()
    assert [None if message is None else len(message) for message in looked[-1:]] == [
        size if size <= 64 * 1024 else None
    ]
    ends[0].send(b"after the look")
    receiver.consume()
    assert list(receiver.peek()) == [b"after the look"]
    assert not receiver.ended


def test_the_end_is_seen_only_when_everything_was_looked_at(ends: Ends) -> None:
    sender, receiver = Sender(ends[0], "s", 1), Receiver(ends[1], "s")
    for number in range(3):
        sender.report([reading(number)])
    looking = receiver.peek()
    next(looking)
    ends[0].close()
    assert not receiver.ended
    assert len(list(looking)) == 2
    assert receiver.ended
    receiver.consume()
    assert list(receiver.peek()) == [] and receiver.ended


def test_an_absent_reader_is_no_reason_to_fail(ends: Ends) -> None:
    sender = Sender(ends[0], "s", 1, most_backlog=10)
    for number in range(2000):
        sender.report([reading(number)])
    assert sender.sent + sender.backlog + sender.dropped == 2000


@pytest.mark.parametrize("size", [20, 300, 1100, 2100, 3900, 7800, 8000, 12_000, MOST_BYTES])
def test_a_commit_is_pressed_for_when_the_socket_is_half_full_whatever_the_size_of_messages(
    ends: Ends, size: int
) -> None:
    fits = fill(ends[0], size)
    receiver = Receiver(ends[1], "s")
    looking = receiver.peek()
    pressed_at = next(count for count, _ in enumerate(looking, start=1) if receiver.pressed)
    assert fits * 0.3 <= pressed_at <= fits * 0.6
    list(looking)
    receiver.consume()
    assert not receiver.pressed


class Shared:
    """For each incarnation of the worker: the number before its first, how many the kernel took, how many it began."""

    def __init__(self, most: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, most * 24)).cast("q")

    def __getitem__(self, incarnation: int) -> list[int]:
        return self._numbers[3 * incarnation : 3 * incarnation + 3].tolist()

    def put(self, incarnation: int, field: int, value: int) -> None:
        self._numbers[3 * incarnation + field] = value  # one store; struct.pack_into writes zeros first


class CountingSocket(socket.socket):
    """Notes each message that the kernel took, at once: several may go out in one call of the sender."""

    shared: Shared
    incarnation: int

    def send(self, message: bytes) -> int:  # type: ignore[override]
        size = super().send(message)
        self.shared.put(self.incarnation, 1, self.shared[self.incarnation][1] + 1)
        return size


def send_for_ever(end: socket.socket, shared: Shared, incarnation: int, base: int) -> None:
    counting = CountingSocket(fileno=end.fileno())
    counting.shared, counting.incarnation = shared, incarnation
    sender = Sender(counting, "s", incarnation, most_backlog=10_000)
    shared.put(incarnation, 0, base)
    number = base
    while True:
        number += 1
        shared.put(incarnation, 2, number - base)
        sender.report([reading(number)])
        if sender.backlog > 5000:
            time.sleep(0.001)


def read_for_ever(end: socket.socket, directory: Path) -> None:
    """Keep what arrives as the writer does: the mark says, all at once, how much of the log counts and up to where."""
    mark, log = directory / "mark", directory / "log"
    length, last = json.loads(mark.read_text()) if mark.exists() else (0, [0, 0])
    with log.open("ab") as file:
        file.truncate(length)
        receiver = Receiver(end, "s")
        poll = select.poll()
        poll.register(receiver, select.POLLIN)
        while True:
            poll.poll()
            for report in reports(receiver):
                if [report.incarnation, report.sequence] > last:
                    last = [report.incarnation, report.sequence]
                    for each in report.readings:
                        length += file.write(struct.pack("qq", report.incarnation, each.at_ns))
            file.flush()
            (directory / "new").write_text(json.dumps([length, last]))
            (directory / "new").replace(mark)
            receiver.consume()


def test_kills_of_worker_and_reader_lose_and_double_nothing(ends: Ends, tmp_path: Path) -> None:
    kills = 100
    chance = random.Random(20251111)
    shared = Shared(kills + 2)
    incarnation, base = 1, 0
    worker = Child(lambda: send_for_ever(ends[0], shared, 1, 0))
    reader = Child(lambda: read_for_ever(ends[1], tmp_path))
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.008))  # the instant of the kill
            if chance.random() < 0.5:
                reader.kill()
                assert reader.wait() == -signal.SIGKILL
                reader = Child(lambda: read_for_ever(ends[1], tmp_path))
            else:
                worker.kill()
                assert worker.wait() == -signal.SIGKILL
                base += shared[incarnation][2]
                incarnation += 1
                worker = Child(partial(send_for_ever, ends[0], shared, incarnation, base))
        worker.kill()
        worker.wait()
        # An empty channel shows that all was taken; whoever looks must not disturb the reader's place.
        wait_for(lambda: not select.select([ends[1]], [], [], 0)[0], "the reader to take everything")
    finally:
        for child in (worker, reader):
            child.kill()
            child.wait()

    length, _ = json.loads((tmp_path / "mark").read_text())
    log = (tmp_path / "log").read_bytes()[:length]
    got: dict[int, list[int]] = {}
    for which, number in struct.iter_unpack("qq", log):
        got.setdefault(which, []).append(number)
    taken = 0
    for which in range(1, incarnation + 1):
        base, sent, _ = shared[which]
        arrived = got.pop(which, [])
        # Killed between the kernel's yes and the note of it, one more may have been taken: no other is in doubt.
        assert arrived in (list(range(base + 1, base + 1 + sent)), list(range(base + 1, base + 2 + sent)))
        taken += len(arrived)
    assert not got
    assert taken > kills
    assert Counter(struct.iter_unpack("qq", log)).most_common(1)[0][1] == 1


def test_a_worker_killed_in_the_middle_leaves_whole_messages(ends: Ends) -> None:
    chance = random.Random(5)
    receiver = Receiver(ends[1], "s")
    for incarnation in range(20):

        def send(incarnation: int = incarnation) -> None:
            sender = Sender(ends[0], "s", incarnation)
            while True:
                sender.report([reading(number, "x" * 100) for number in range(80)])

        killed_somewhere(send, chance, 0.01)
        seen = reports(receiver)
        assert all(report.incarnation == incarnation for report in seen)
        assert all(numbers([report]) == list(range(80)) for report in seen)
        receiver.consume()


def test_the_channel_outlives_both_of_its_users(ends: Ends) -> None:
    with forked(lambda: Sender(ends[0], "s", 1).report([reading(1)])) as worker:
        assert worker.wait() == 0
    seen = reports(Receiver(ends[1], "s"))
    assert numbers(seen) == [1]
