"""One output's thread: every record arrives, in the right order, whatever the peer does."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from config.settings import OutputTable, Site
from reading import Record
from tests.peers.process import wait_for
from tests.writer._helpers import BOOT, STAMP, Loop, assert_conserved, dead_letters, intake, state
from writer import Batch, Memo, Output, OutputDown, OutputRefused, delivery
from writer.delivery import DOWN, MOST_READINGS_A_BATCH, STOPPED, UP, Delivery
from writer.outbox import Intake, Outbox, Progress, Stamp
from writer.rows import HELD, RESTAMPED

FIRST_RETRY_S = 0.02
Answer = Callable[[list[int]], None]


def number(record: Record) -> int:
    return int(record.values["energy_wh"])


class Peer:
    """What the output talks to: it answers each batch as told and keeps what it took."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []  # for the next batches, then all are taken
        self.batches: list[list[int]] = []
        self.taken: list[int] = []
        self.asked_at_s: list[float] = []
        self.made = self.closed = 0
        self.memos: list[dict[str, int]] = []
        self.notes: dict[str, int] = {}  # the memo of the output that is in use


class ToPeer(Output):
    Options = OutputTable

    def __init__(self, peer: Peer, memo: Memo) -> None:
        super().__init__(OutputTable(), Site(), memo)
        self._peer = peer
        peer.made += 1
        peer.notes = memo

    def write(self, batch: Batch) -> None:
        numbers = [number(record) for record in batch]
        self._peer.asked_at_s.append(time.monotonic())
        self._peer.memos.append(dict(self.memo))
        self._peer.batches.append(numbers)
        if self._peer.answers:
            self._peer.answers.pop(0)(numbers)
        self._peer.taken += numbers
        self.memo["taken"] = self.memo.get("taken", 0) + len(numbers)

    def close(self) -> None:
        self._peer.closed += 1


def down(what: str = "no answer", **more: float | str) -> Answer:
    def answer(_: list[int]) -> None:
        raise OutputDown(what, **more)  # type: ignore[arg-type]

    return answer


def broken(error: Exception) -> Answer:
    def answer(_: list[int]) -> None:
        raise error

    return answer


class Bench:
    """An outbox, the loop that commits, and one output."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peer = Peer()
        self.outbox = Outbox(path, reserve_bytes=0, quota_bytes=10**9)
        self.outbox.serve(["peer"])
        self.loop = Loop(self.outbox)
        self.count = self.commits = 0
        self.wakes = 0

    def put(self, count: int, stamp: Stamp = STAMP) -> None:
        self.commits += 1
        self.loop.commit(intake(count, self.count, sequence=self.commits), stamp)
        self.count += count

    def start(
        self, make: Callable[[Memo], Output] | None = None, *, newest_first: bool = True, gather_s: float = 0.0
    ) -> Delivery:
        def wake() -> None:
            self.wakes += 1

        made = Delivery(
            "peer",
            make or (lambda memo: ToPeer(self.peer, memo)),
            self.path,
            self.outbox.progress["peer"],
            wake,
            newest_first=newest_first,
            gather_s=gather_s,
        )
        self.loop.deliveries = [made]
        made.rows_until(self.outbox.head)
        made.start()
        return made

    def fill(self, commits: int, count: int) -> None:
        """Put rows there that an output has been away for."""
        for _ in range(commits):
            self.commits += 1
            taken = intake(count, self.count, sequence=self.commits)
            self.outbox.commit(taken, STAMP, dict(self.outbox.progress))
            self.count += count

    def settle(self, within_s: float = 20.0) -> None:
        """Go on until everything is with the peer and that is committed."""
        (made,) = self.loop.deliveries
        self.loop.until(
            lambda: (
                not made.changed
                and self.outbox.progress["peer"].behind == self.outbox.head
                and not self.outbox.progress["peer"].gaps
            ),
            "the output to get everything",
            within_s,
        )
        assert_conserved(self.outbox)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(delivery, "_FIRST_RETRY_S", FIRST_RETRY_S)
    made = Bench(tmp_path / "outbox.db")
    yield made
    for each in made.loop.deliveries:
        each.leave()
        each.join(10)
        assert not each.is_alive()
    assert made.peer.closed == made.peer.made


# ---- what the peer answers


def test_rows_go_to_the_peer_in_order_and_are_forgotten_when_it_has_them(bench: Bench) -> None:
    bench.put(3)
    made = bench.start()
    bench.loop.until(lambda: bench.peer.taken == [0, 1, 2], "the first rows")
    bench.put(2)
    bench.settle()
    assert bench.peer.taken == [0, 1, 2, 3, 4]
    bench.loop.commit()
    assert bench.outbox._number("SELECT count(*) FROM row") == 0
    assert (made.state, made.failures) == (UP, 0)


def test_a_batch_that_a_dead_peer_did_not_take_comes_again_with_longer_and_longer_pauses(bench: Bench) -> None:
    bench.put(3)
    bench.peer.answers = [down()] * 4
    made = bench.start()
    wait_for(lambda: made.state == DOWN, "the output to be down")
    assert made.note == "no answer" and made.failing_since_ns and made.idle
    bench.settle()
    assert bench.peer.batches == [[0, 1, 2]] * 5
    assert bench.peer.taken == [0, 1, 2]
    asked = bench.peer.asked_at_s
    pauses = [after - before for before, after in pairwise(asked)]
    for turn, pause_s in enumerate(pauses):
        assert pause_s >= FIRST_RETRY_S * 2**turn * 0.8
    assert (made.state, made.note, made.failures, made.failing_since_ns) == (UP, "", 4, 0)
    assert bench.peer.made == 1
    bench.peer.answers = [down()]  # after a success the pauses begin anew
    bench.put(1)
    bench.settle()
    assert bench.peer.asked_at_s[-1] - bench.peer.asked_at_s[-2] < FIRST_RETRY_S * 2**4 * 0.8


def test_a_peer_that_comes_back_after_days_is_met_within_ten_seconds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody says otherwise: the pauses grow no further than that allows."""
    pauses_s: list[float] = []
    monkeypatch.setattr(delivery, "_FIRST_RETRY_S", 1.0)
    bench.put(3)
    bench.peer.answers = [down()] * 20
    monkeypatch.setattr(delivery.Delivery, "_pause", lambda self, pause_s: pauses_s.append(pause_s))
    bench.start()
    bench.settle()
    assert len(pauses_s) == 20
    assert max(pauses_s) < 10


def test_new_rows_do_not_cut_a_pause_short(bench: Bench) -> None:
    bench.put(1)
    bench.peer.answers = [down(retry_after_s=0.6)]
    made = bench.start()
    wait_for(lambda: made.state == DOWN, "the output to be down")
    while len(bench.peer.batches) == 1:
        bench.put(1)
        time.sleep(0.01)
    assert bench.peer.asked_at_s[1] - bench.peer.asked_at_s[0] >= 0.6
    bench.settle()
    assert bench.peer.taken == list(range(bench.count))


@pytest.mark.parametrize(("wish_s", "least_s"), [(0.4, 0.4), (0.0, FIRST_RETRY_S), (-5.0, FIRST_RETRY_S)])
def test_the_peers_own_wish_is_respected_and_none_is_taken_for_leave_to_hammer(
    bench: Bench, wish_s: float, least_s: float
) -> None:
    bench.put(1)
    bench.peer.answers = [down("429", retry_after_s=wish_s)] * 2
    bench.start()
    bench.settle()
    first, second, third = bench.peer.asked_at_s
    assert min(second - first, third - second) >= least_s
    assert third - first < 5


def test_what_a_person_has_to_mend_stops_the_output_until_the_next_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_RETRY_WHEN_STOPPED_S", 0.3)
    bench.put(2)
    bench.peer.answers = [down("401", remedy="renew the token")]
    made = bench.start()
    wait_for(lambda: made.state == STOPPED, "the output to be stopped")
    assert made.note == "401; renew the token"
    assert made.idle
    bench.settle()
    assert bench.peer.asked_at_s[1] - bench.peer.asked_at_s[0] >= 0.3
    assert bench.peer.taken == [0, 1]
    assert (made.state, made.note) == (UP, "")


def test_refused_records_are_set_aside_as_dead_letters_and_counted(bench: Bench) -> None:
    def refuse(numbers: list[int]) -> None:
        bench.peer.taken += [each for each in numbers if each % 3]
        raise OutputRefused("400: no such field", [at for at, each in enumerate(numbers) if each % 3 == 0])

    bench.put(10)
    bench.peer.answers = [refuse]
    bench.start()
    bench.settle()
    bench.put(1)
    bench.settle()
    assert bench.peer.taken == [1, 2, 4, 5, 7, 8, 10]
    progress = bench.outbox.progress["peer"]
    assert (progress.delivered, progress.refused) == (7, 4)
    letters = dead_letters(bench.path)
    assert [number(msgspec.json.decode(body, type=Record)) for _, _, body in letters] == [0, 3, 6, 9]
    assert {(origin, reason) for origin, reason, _ in letters} == {("output peer", "400: no such field")}


def test_refused_records_are_not_lost_while_the_commit_fails(bench: Bench) -> None:
    def refuse(_: list[int]) -> None:
        raise OutputRefused("400", [0])

    bench.put(2)
    bench.peer.answers = [refuse]
    made = bench.start()
    wait_for(lambda: made.changed, "the output to book")
    bench.outbox._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(sqlite3.OperationalError):
        bench.loop.commit()
    assert dead_letters(bench.path) == []
    bench.outbox._connection.execute("PRAGMA query_only = 0")
    bench.settle()
    assert len(dead_letters(bench.path)) == 1
    assert bench.outbox.progress["peer"].refused == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("no"),
        OutputRefused("nonsense", [99]),
        OutputRefused("nonsense", [-1]),
        sqlite3.OperationalError("its own"),
    ],
    ids=repr,
)
def test_a_broken_output_is_made_anew_and_nothing_is_lost(bench: Bench, error: Exception) -> None:
    bench.put(3)
    bench.peer.answers = [broken(error)] * 3
    made = bench.start()
    bench.settle()
    assert bench.peer.taken == [0, 1, 2]
    assert bench.peer.batches == [[0, 1, 2]] * 4
    assert (bench.peer.made, bench.peer.closed) == (4, 3)
    assert made.failures == 3
    assert bench.outbox.progress["peer"].delivered == 3
    assert dead_letters(bench.path) == []


def test_an_output_that_cannot_be_made_is_tried_again(bench: Bench) -> None:
    tries = 0

    def make(memo: Memo) -> Output:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no such place") if tries == 1 else OutputDown("not yet")
        return ToPeer(bench.peer, memo)

    bench.put(1)
    bench.start(make)
    bench.settle()
    assert (tries, bench.peer.taken) == (3, [0])


def test_an_outbox_that_cannot_be_read_for_a_while_does_not_end_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.put(2)
    failures = iter([sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")] * 2)
    whole_rows, whole_init = delivery.Reader.rows, delivery.Reader.__init__

    def rows(self: delivery.Reader, after: int, upto: int | None, most_readings: int) -> list[delivery.Row]:
        for failure in failures:
            raise failure
        return whole_rows(self, after, upto, most_readings)

    opened: list[Path] = []

    def init(self: delivery.Reader, path: Path) -> None:
        opened.append(path)
        if len(opened) == 1:
            raise sqlite3.OperationalError("unable to open database file")
        whole_init(self, path)

    monkeypatch.setattr(delivery.Reader, "rows", rows)
    monkeypatch.setattr(delivery.Reader, "__init__", init)
    made = bench.start()
    bench.settle()
    assert bench.peer.taken == [0, 1]
    assert made.failures == 5
    assert "output peer is down: the outbox cannot be read: unable to open" in caplog.text
    assert "this is a bug" not in caplog.text


def test_a_row_that_cannot_be_read_is_counted_as_damaged_and_the_rest_goes_on(bench: Bench) -> None:
    bench.fill(3, 4)
    bench.outbox._connection.execute("UPDATE row SET body = x'ff' WHERE id = 2")
    bench.start()
    bench.settle()
    assert bench.peer.taken == [0, 1, 2, 3, 8, 9, 10, 11]
    progress = bench.outbox.progress["peer"]
    assert (progress.delivered, progress.damaged) == (8, 4)


# ---- after an absence


def test_after_a_long_absence_the_newest_go_first_and_the_gap_follows_oldest_first(bench: Bench) -> None:
    bench.fill(20, 1000)
    made = bench.start()
    bench.loop.until(lambda: len(bench.peer.batches) >= 2, "two batches")
    bench.settle()
    first, *others = bench.peer.batches
    assert first == list(range(19_000, 20_000))
    assert [each for batch in others for each in batch] == list(range(19_000))
    assert all(len(batch) <= MOST_READINGS_A_BATCH for batch in others)
    assert bench.outbox.progress["peer"].gaps == []
    assert made.newest_delivered_utc_ns == STAMP.offset_ns + 19_999 * 1_000_000


def test_the_newest_go_first_however_often_it_was_tried_in_vain(bench: Bench) -> None:
    def away(_: list[int]) -> None:
        bench.peer.answers.append(away)
        raise OutputDown("away", retry_after_s=0.001)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_FIRST_RETRY_S", 0.001)
        patch.setattr(delivery, "_FAR_BEHIND", 100)
        bench.peer.answers = [away]
        made = bench.start()
        for _ in range(2 * delivery._MOST_GAPS):
            for _ in range(3):
                bench.put(50)
            tried = len(bench.peer.batches)
            wait_for(lambda tried=tried: len(bench.peer.batches) > tried + 1, "two more tries")
        assert len(made.snapshot()[0].gaps) == 1
        bench.put(1)
        bench.peer.answers.clear()
        bench.settle()
    # What came since the last try goes before the gap; it is never as much as would be a new gap.
    assert bench.peer.taken.index(bench.count - 1) < 1000
    assert Counter(bench.peer.taken) == Counter(range(bench.count))


def test_a_short_absence_is_made_up_for_in_order(bench: Bench) -> None:
    bench.fill(10, 1000)
    bench.start()
    bench.settle()
    assert bench.peer.taken == list(range(10_000))


def test_an_output_that_wants_order_gets_it_however_long_it_was_away(bench: Bench) -> None:
    bench.fill(20, 1000)
    bench.start(newest_first=False)
    bench.settle()
    assert bench.peer.taken == list(range(20_000))


def test_an_output_that_gathers_is_served_once_for_many_commits(bench: Bench) -> None:
    gather_s = 1.5
    bench.start(gather_s=gather_s)
    bench.put(1)
    wait_for(lambda: bench.peer.taken == [0], "the first reading, which waits for no others")
    for _ in range(5):
        bench.put(10)
        bench.loop.turn()
    bench.settle()
    assert bench.peer.taken == list(range(51))
    first_s, *later_s = bench.peer.asked_at_s
    assert later_s[0] - first_s >= gather_s
    assert len(bench.peer.batches) < 6, "each commit was taken there by itself"


def test_what_gathers_is_nothing_that_an_output_is_behind_with(bench: Bench) -> None:
    output = bench.start(gather_s=600.0)
    bench.put(1)
    wait_for(lambda: bench.peer.taken == [0], "the first reading")
    wait_for(lambda: not output.oldest_pending_utc_ns, "it to be booked")
    for _ in range(5):
        bench.put(10)
    assert not output.idle
    assert (output.oldest_pending_utc_ns, output.state) == (0, UP)


@pytest.mark.parametrize("away", [False, True])
def test_a_backlog_does_not_gather(bench: Bench, away: bool) -> None:
    bench.fill(20, 1000)
    bench.peer.answers = [down()] if away else []
    bench.start(gather_s=600.0)
    bench.settle()
    assert Counter(bench.peer.taken) == Counter(range(20_000))


def test_an_output_with_more_to_do_gathers_nothing_until_that_is_done(bench: Bench) -> None:
    made: list[ToPeer] = []

    def make(memo: Memo) -> ToPeer:
        made.append(ToPeer(bench.peer, memo))
        made[0].has_more_to_do = True
        return made[0]

    output = bench.start(make, gather_s=600.0)
    for _ in range(3):
        bench.put(10)
        bench.settle()
    assert bench.peer.taken == list(range(30))
    made[0].has_more_to_do = False
    bench.put(10)
    bench.settle()
    bench.put(10)
    assert not output.idle
    assert bench.peer.taken == list(range(40))


def test_who_leaves_hurries_what_gathers(bench: Bench) -> None:
    output = bench.start(gather_s=600.0)
    bench.put(1)
    wait_for(lambda: output.idle and bench.peer.taken == [0], "the first reading")
    bench.put(10)
    assert not output.idle
    output.rows_until(bench.outbox.head, hurry=True)
    bench.settle()
    assert bench.peer.taken == list(range(11))


def test_while_a_gap_is_worked_off_what_is_new_goes_first(bench: Bench) -> None:
    may_go_on = threading.Event()
    arrived = threading.Event()

    def slow(_: list[int]) -> None:
        arrived.set()
        assert may_go_on.wait(20)

    bench.fill(20, 1000)
    bench.peer.answers = [lambda _: None, slow]
    bench.start()
    assert arrived.wait(20)
    bench.put(5)
    may_go_on.set()
    bench.settle()
    assert bench.peer.batches[2] == list(range(20_000, 20_005))
    assert sorted(bench.peer.taken) == list(range(20_005))


def test_an_output_that_comes_and_goes_gets_every_record_exactly_once(bench: Bench) -> None:
    chance = random.Random(3)

    def moody(_: list[int]) -> None:
        bench.peer.answers.append(moody)
        match chance.randrange(4):
            case 0:
                raise OutputDown("moody", retry_after_s=0.001)
            case 1:
                raise RuntimeError("moody")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_FIRST_RETRY_S", 0.001)
        patch.setattr(delivery, "_LAST_RETRY_S", 0.002)
        patch.setattr(delivery, "_FAR_BEHIND", 100)
        patch.setattr(delivery, "MOST_READINGS_A_BATCH", 60)
        bench.peer.answers = [moody]
        bench.fill(30, 20)
        made = bench.start()
        gaps = 0
        for _ in range(100):
            bench.put(chance.randrange(1, 40))
            gaps = max(gaps, len(made.snapshot()[0].gaps))
            assert_conserved(bench.outbox)
        bench.settle()
    assert Counter(bench.peer.taken) == Counter(range(bench.count))
    assert bench.outbox.progress["peer"].delivered == bench.count
    assert gaps > 1


def test_rows_in_a_gap_that_wait_for_the_clock_are_not_given_up(bench: Bench) -> None:
    bench.fill(2, 1000)
    for _ in range(15):
        bench.put(1000, Stamp(BOOT, 0, HELD))
    made = bench.start()
    bench.loop.until(lambda: made.snapshot()[0].delivered == 2000, "what has a date to arrive")
    bench.loop.commit()
    assert bench.outbox._number("SELECT sum(count) FROM row") == 15_000
    bench.outbox.date_held(Stamp(BOOT, 10**18, RESTAMPED))
    bench.settle()
    assert Counter(bench.peer.taken) == Counter(range(17_000))


def test_a_gap_that_the_quota_emptied_is_closed_and_so_is_a_front_without_rows(bench: Bench) -> None:
    bench.fill(20, 1000)
    stopped = threading.Event()

    def stop(_: list[int]) -> None:
        assert stopped.wait(20)
        raise OutputDown("gone", retry_after_s=0.5)

    bench.peer.answers = [stop]
    made = bench.start()
    wait_for(lambda: bench.peer.batches, "the newest to be in hand")
    bench.outbox._quota_bytes = 1
    bench.put(1000)
    assert [row for (row,) in bench.outbox._connection.execute("SELECT id FROM row")] == [20]  # the one in hand
    stopped.set()
    wait_for(lambda: made.state == DOWN and made.snapshot()[1] is None, "the output to be down")
    bench.put(1000)
    bench.settle()
    assert bench.peer.taken == []
    assert bench.outbox.accounts["peer"].quota == 22_000
    wait_for(lambda: made.idle, "the output to have nothing to do")


# ---- memo, snapshots, leaving


class Noting(ToPeer):
    """Notes before it writes, and looks whether the note is on the disk."""

    path: Path
    failed = 0

    def write(self, batch: Batch) -> None:
        self.memo["before"] = number(batch[0])
        try:
            self.memo.keep()
        except OutputDown:
            Noting.failed += 1
            raise
        stored = msgspec.msgpack.decode(state(self.path)["output/peer"], type=Progress)
        assert stored.memo["before"] == number(batch[0])
        assert stored.delivered == self.memo.get("taken", 0)  # with all that was confirmed, and no more
        super().write(batch)


@pytest.fixture
def noting(bench: Bench) -> Callable[[Memo], Output]:
    Noting.path, Noting.failed = bench.path, 0
    return lambda memo: Noting(bench.peer, memo)


def test_what_is_kept_is_on_the_disk_when_keep_returns(bench: Bench, noting: Callable[[Memo], Output]) -> None:
    made = bench.start(noting)
    for _ in range(5):
        bench.put(2)
        bench.settle()
    assert bench.peer.taken == list(range(10))
    assert made.failures == 0
    assert bench.outbox.progress["peer"].memo == {"before": 8, "taken": 10}


def test_keep_asks_for_a_commit_at_once(bench: Bench, noting: Callable[[Memo], Output]) -> None:
    made = bench.start(noting)
    bench.put(1)
    wait_for(lambda: made.urgent, "the request")
    assert made.changed and bench.wakes
    bench.settle()
    assert not made.urgent


def test_keep_does_not_stand_in_the_way_of_commits_that_fail_for_a_while(
    bench: Bench, noting: Callable[[Memo], Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LONGEST_KEEP_S", 0.2)
    bench.put(1)
    made = bench.start(noting)
    bench.outbox._connection.execute("PRAGMA query_only = 1")
    failures = 0
    while Noting.failed < 2:
        wait_for(lambda: made.urgent, "the request to commit")
        began_s = time.monotonic()
        with pytest.raises(sqlite3.OperationalError):
            bench.loop.commit()
        assert time.monotonic() - began_s < 5  # the lock was free
        failures += 1
        time.sleep(0.02)
    assert bench.peer.taken == []
    bench.outbox._connection.execute("PRAGMA query_only = 0")
    bench.settle()
    assert bench.peer.taken == [0]
    assert made.state == UP


def test_a_new_output_gets_the_memo_that_was_confirmed(bench: Bench) -> None:
    bench.put(3)
    bench.start()
    bench.settle()
    memos = bench.peer.memos

    def note_and_break(_: list[int]) -> None:
        bench.peer.notes["taken"] = 99
        raise ValueError("a bug")

    bench.peer.answers = [note_and_break]
    bench.put(2)
    bench.settle()
    assert memos[-2:] == [{"taken": 3}, {"taken": 3}]
    assert bench.outbox.progress["peer"].memo == {"taken": 5}


def test_a_snapshot_is_consistent_whenever_it_is_taken_and_does_not_change_afterwards(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_FAR_BEHIND", 100)
        patch.setattr(delivery, "MOST_READINGS_A_BATCH", 10)
        bench.fill(100, 10)
        bench.peer.answers = [lambda _: time.sleep(0.002)] * 100  # so that there is something to see
        made = bench.start()
        kept: list[tuple[Progress, bytes]] = []
        while len(bench.peer.taken) < 1000:
            with made.lock:
                progress, hands, _ = made.snapshot()
            kept.append((progress, msgspec.msgpack.encode(progress)))
            assert progress.memo.get("taken", 0) == progress.delivered
            assert progress.delivered == 1000 - bench.outbox.pending(progress)
            assert hands is None or progress.owes(hands[1])
        bench.settle()
    assert any(progress.gaps for progress, _ in kept)
    for progress, encoded in kept:
        assert msgspec.msgpack.encode(progress) == encoded


def test_the_rows_in_hand_are_those_that_the_peer_is_looking_at(bench: Bench) -> None:
    go_on = threading.Event()

    def look(_: list[int]) -> None:
        assert go_on.wait(20)

    bench.fill(3, 2)
    bench.peer.answers = [look]
    made = bench.start()
    wait_for(lambda: bench.peer.batches, "the batch")
    with made.lock:
        assert made.snapshot()[1] == (0, 3)
    go_on.set()
    bench.settle()
    with made.lock:
        assert made.snapshot()[1] is None


@pytest.mark.parametrize("answer", [down(retry_after_s=600.0), down("401", remedy="mend it"), None])
def test_leaving_ends_the_thread_at_once_whatever_it_waits_for(bench: Bench, answer: Answer | None) -> None:
    if answer:
        bench.peer.answers = [answer]
        bench.put(1)
    made = bench.start()
    if answer:
        wait_for(lambda: made.failures, "the pause")
    began_s = time.monotonic()
    made.leave()
    made.join(10)
    assert not made.is_alive()
    assert time.monotonic() - began_s < 1


def test_leaving_waits_for_the_batch_in_hand_and_books_it(bench: Bench) -> None:
    go_on, arrived = threading.Event(), threading.Event()

    def slow(_: list[int]) -> None:
        arrived.set()
        assert go_on.wait(20)

    bench.fill(1, 3)
    bench.peer.answers = [slow]
    made = bench.start()
    assert arrived.wait(20)
    made.leave()
    go_on.set()
    made.join(10)
    assert not made.is_alive()
    bench.loop.commit()
    assert bench.outbox.progress["peer"].delivered == 3
    assert_conserved(bench.outbox)


def test_an_output_with_nothing_to_do_uses_no_processor(bench: Bench) -> None:
    bench.put(1)
    made = bench.start()
    bench.settle()
    took = 0
    whole = made._take

    def counting() -> object:
        nonlocal took
        took += 1
        return whole()

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(made, "_take", counting)
        time.sleep(0.5)  # what is measured is how often it wakes up
    assert took <= 2


def test_nothing_is_committed_for_an_output_that_did_nothing(bench: Bench) -> None:
    made = bench.start()
    bench.loop.commit(Intake())
    assert not made.changed and made.idle
