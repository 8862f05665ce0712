"""The logbook: what the writer sees of the house, dated, bounded, and kept through damage."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logbook.events import Event, Gap, What
from logbook.moment import Moment
from reading import Reading, Record
from tests.peers.process import wait_for
from tests.writer._helpers import BOOT, STAMP, intake, rows
from tests.writer.test_ingest import House
from vitals import PROCESS_STATES, Board
from writer import logbook as logbook_module
from writer.clock import WallClock
from writer.ledger_copy import LedgerCopy
from writer.logbook import HOUR_NS
from writer.lookout import _EVERY_NS, _MOST_AN_HOUR, Lookout, troubles_in
from writer.outbox import Intake, Outbox, Progress, Stamp, Watermark, balance
from writer.rows import HELD, SYNCED
from writer.salvage import open_outbox

RUNNING = PROCESS_STATES.index("running")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.db", reserve_bytes=0, quota_bytes=2**40)
    outbox.serve(["a"])
    yield outbox
    outbox.close()


class Watched:
    """A board with one source, and a lookout that looks whenever it is asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("writer.lookout._EVERY_NS", 0)
        self.board = Board()
        self.process = self.board.claim("process", "source.meter")
        self.worker = self.board.claim("worker", "meter")
        self.writer = self.board.claim("writer", "writer")
        self.output = self.board.claim("output", "csv")
        self.wall_ns = 10**18
        self.synchronised = True
        self.clock = WallClock(True, 600, synchronised=lambda: self.synchronised, offset=lambda: self.wall_ns)
        self.lives()
        self.worker["open"] = 1
        self.look_out()

    def look_out(self) -> None:
        self.lookout = Lookout(self.board, self.writer, {"csv": self.output}, self.clock)

    def lives(self) -> None:
        """Let the worker be a new process, whose heart beats."""
        self.process["state"] = RUNNING
        self.process["since_ns"] = time.monotonic_ns()
        self.worker["beat_ns"] = time.monotonic_ns() + 1

    def look(self) -> list[tuple[str, str, str]]:
        return [(event.what.value, event.part, event.note) for event in self.lookout.look()]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_process_that_ends_and_comes_back_is_noted_with_the_reason(watched: Watched) -> None:
    assert watched.look() == []
    last_beat_ns = watched.worker["beat_ns"]
    watched.process.add("failures")
    watched.process["since_ns"] = 0
    [event] = watched.lookout.look()
    assert (event.what, event.part) == (What.DOWN, "process source.meter")
    assert event.note == "it ended unasked and was started again"
    assert event.moment.at_ns == last_beat_ns, "nothing was measured after its last sign of life"
    watched.lives()
    assert watched.look() == [("up", "process source.meter", "")]
    watched.process.add("failures")
    watched.process.add("hangs")
    watched.lives()  # within one second, between two looks
    assert watched.look() == [("down", "process source.meter", "it hung and was replaced")]
    assert watched.look() == [("up", "process source.meter", "")]
    assert watched.look() == []


def test_a_source_that_is_taken_out_of_the_configuration_is_noted(watched: Watched) -> None:
    watched.look()
    watched.board.release("process", "source.meter")
    watched.board.release("worker", "meter")
    assert watched.look() == [("down", "process source.meter", "it is no longer in the configuration")]
    assert watched.look() == []


def test_a_source_that_cannot_be_opened_is_noted_once_until_it_can_be_read_again(watched: Watched) -> None:
    watched.worker["open"] = 0
    watched.worker.note = "there is no /dev/ttyUSB0; plug it in"
    assert watched.look() == [("down", "source meter", "there is no /dev/ttyUSB0; plug it in")]
    for is_open in (1, 0, 1):  # as it is opened, and fails with its first round
        watched.worker["open"] = is_open
        assert watched.look() == []
    watched.worker.note = ""
    assert watched.look() == [("up", "source meter", "")]


def test_devices_in_trouble_are_noted_one_by_one(watched: Watched) -> None:
    watched.worker["devices_troubled"] = 2
    watched.worker.note = "pv: no answer; look at the cable · grid: 2 V; is it on?"
    assert watched.look() == [
        ("down", "device meter/pv", "no answer; look at the cable"),
        ("down", "device meter/grid", "2 V; is it on?"),
    ]
    watched.worker["devices_troubled"] = 1
    watched.worker.note = "grid: 2 V; is it on?"
    assert watched.look() == [("up", "device meter/pv", "")]
    watched.worker["devices_troubled"] = 3  # the board had no room for the words on all of them
    watched.worker.note = "pv: no answer; look at the cable"
    assert watched.look() == [("down", "device meter/pv", "no answer; look at the cable")]
    watched.worker["devices_troubled"] = 0
    watched.worker.note = ""
    assert watched.look() == [("up", "device meter/pv", ""), ("up", "device meter/grid", "")]


def test_an_output_and_a_clock_are_noted(watched: Watched) -> None:
    watched.output["state"], watched.output.note = 2, "connection refused"
    assert watched.look() == [("down", "output csv", "connection refused")]
    watched.output["state"], watched.output.note = 1, ""
    watched.wall_ns += 600 * 10**9
    watched.clock.look()
    assert watched.look() == [("step", "clock", "the clock was set by +600.0 s"), ("up", "output csv", "")]


def test_the_setting_of_the_clock_is_noted(watched: Watched) -> None:
    watched.synchronised = False
    watched.clock = WallClock(True, 600, synchronised=lambda: watched.synchronised, offset=lambda: watched.wall_ns)
    watched.look_out()
    assert watched.look() == []
    watched.synchronised = True
    watched.clock.look()
    assert [what for what, _, _ in watched.look()] == ["set"]
    hopeless = WallClock(True, -1, synchronised=lambda: False, offset=lambda: watched.wall_ns)
    watched.clock = WallClock(True, 0.05, synchronised=lambda: False, offset=lambda: watched.wall_ns)
    watched.look_out()
    assert hopeless.hopeless
    wait_for(lambda: watched.clock.hopeless, "the end of patience")
    assert [what for what, _, _ in watched.look()] == ["guessed"]


def test_what_comes_and_goes_all_day_does_not_fill_the_logbook(watched: Watched) -> None:
    noted = []
    for number in range(200):
        watched.output["state"] = 1 + number % 2
        noted += watched.look()
    assert len(noted) == _MOST_AN_HOUR
    assert _EVERY_NS == 10**9
    watched.worker["open"], watched.worker.note = 0, "no answer for 1 s"
    assert len(watched.look()) == 1
    watched.worker.note = "no answer for 2 s"
    assert watched.look() == []


def test_readings_that_a_worker_could_not_hand_over_are_noted(watched: Watched) -> None:
    watched.worker.add("dropped", 7)
    [event] = watched.lookout.look()
    assert (event.what, event.part, event.number) == (What.DROPPED, "source meter", 7)
    assert watched.look() == []


def test_a_number_that_was_left_out_is_a_message_that_never_came(watched: Watched) -> None:
    def missing(last: tuple[int, int], number: tuple[int, int]) -> list[int]:
        return [event.number for event in watched.lookout.missing("meter", Watermark(*last), Watermark(*number))]

    assert missing((5, 8), (5, 9)) == []
    assert missing((5, 8), (5, 12)) == [3]
    assert missing((5, 8), (6, 1)) == []
    assert missing((5, 8), (6, 3)) == [2]
    assert missing((0, 0), (6, 3)) == [], "a stream that nobody knows"


def test_how_the_house_ended_is_told_by_the_next_one(watched: Watched, outbox: Outbox) -> None:
    def begin() -> list[tuple[str, str]]:
        events = list(watched.lookout.begin(outbox.logbook, None))
        stamp = Stamp(watched.clock.boot, watched.clock.offset_ns, SYNCED)
        outbox.commit(Intake(events=events), stamp, dict(outbox.progress))
        return [(event.what.value, event.note) for event in events]

    assert begin() == [("began", "")]
    assert begin() == [("down", "wattherd was killed"), ("began", "")]
    stopped = Intake(events=list(watched.lookout.end(orphaned=False)))
    outbox.commit(stopped, Stamp("another boot", 0, SYNCED), dict(outbox.progress))
    assert begin() == [("began", "")]
    outbox.commit(Intake(), Stamp("another boot", 10**18, SYNCED), dict(outbox.progress))
    assert begin() == [("down", "the power was cut, or the computer started anew"), ("began", "")]
    assert list(watched.lookout.end(orphaned=True)) == []
    watched.writer.beat()  # the parent lives: only the writer is another one
    watched.look_out()
    assert begin() == [("down", "the writer ended unasked and was started again"), ("up", "")]


def test_a_new_writer_goes_on_from_what_its_predecessor_noted(watched: Watched, outbox: Outbox) -> None:
    told = [Event(What.DOWN, "source meter", Moment(BOOT, 1, 1), "no port"), Event(What.BEGAN, "house", Moment())]
    told += [Event(What.DOWN, "output csv", Moment(BOOT, 5, 5), "away")]
    outbox.commit(Intake(events=told), STAMP, dict(outbox.progress))
    watched.writer.beat()
    watched.lives()  # the worker was replaced while there was no writer
    watched.look_out()
    list(watched.lookout.begin(outbox.logbook, None))
    watched.output["state"] = 1
    assert [event[:2] for event in watched.look()] == [
        ("down", "process source.meter"),
        ("up", "output csv"),
    ]


def test_what_is_noted_before_the_clock_is_set_is_dated_afterwards(outbox: Outbox) -> None:
    event = Event(What.UP, "source meter", Moment(BOOT, 50, 0))
    gap = Gap("meter/house", Moment(BOOT, 20, 0), Moment(BOOT, 40, 0))
    old = Gap("meter/house", Moment("an earlier boot", 20, 0), Moment(BOOT, 40, 0))
    outbox.commit(Intake(events=[event], gaps=[gap, old]), Stamp(BOOT, 1000, HELD), dict(outbox.progress))
    assert [one.moment.utc_ns for one in outbox.logbook.events()] == [0]
    assert outbox.logbook.alive == Moment(BOOT, outbox.logbook.alive.at_ns, 0)
    outbox.commit(intake(1), Stamp(BOOT, 5000, SYNCED), dict(outbox.progress))
    assert [one.moment.utc_ns for one in outbox.logbook.events()] == [5050]
    assert [(one.last.utc_ns, one.next.utc_ns) for one in outbox.logbook.silences()] == [(5020, 5040), (0, 5040)]


def test_only_the_newest_are_kept(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logbook_module, "MOST_NOTED", 10)
    for number in range(30):
        events = [Event(What.UP, "p", Moment(BOOT, number, 1), number=number)]
        gaps = [Gap("m/d", Moment(BOOT, number, 1), Moment(BOOT, number + 1, 1))]
        stamp = Stamp(BOOT, number * HOUR_NS, SYNCED)
        outbox.commit(Intake(events=events, gaps=gaps), stamp, dict(outbox.progress))
    assert [one.number for one in outbox.logbook.events()] == list(range(20, 30))
    assert len(list(outbox.logbook.silences())) == 10
    hours = time.monotonic_ns() // HOUR_NS
    found = outbox.logbook.opening("a", 0)
    assert found and found[0] in (hours + 20, hours + 19)


def test_a_commit_that_fails_notes_nothing(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(outbox.logbook, "_put_alive", fail)
    taken = Intake(events=[Event(What.UP, "p", Moment(BOOT, 1, 1))])
    with pytest.raises(sqlite3.OperationalError):
        outbox.commit(taken, STAMP, dict(outbox.progress))
    monkeypatch.undo()
    assert list(outbox.logbook.events()) == []
    assert outbox.logbook.opening("a", 2**40) is None
    outbox.commit(taken, STAMP, dict(outbox.progress))
    assert len(list(outbox.logbook.events())) == 1


def test_nothing_is_committed_for_a_beginning_alone_but_for_a_trouble_is() -> None:
    assert not Intake(events=[Event(What.BEGAN, "house", Moment()), Event(What.DOWN, "house", Moment())])
    assert Intake(events=[Event(What.DOWN, "source meter", Moment())])


def test_what_makes_room_is_told_with_the_time_that_it_was_measured(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", reserve_bytes=0, quota_bytes=3000)
    outbox.serve(["a", "b"])
    for sequence in range(1, 21):
        progress = dict(outbox.progress)
        progress["b"] = Progress(front=outbox.head, delivered=outbox.accounts["b"].accepted)
        outbox.commit(intake(20, 20 * sequence, sequence=sequence), STAMP, progress)
    losses = list(outbox.logbook.losses())
    assert {(loss.output, loss.reason) for loss in losses} == {("a", "quota")}
    assert sum(loss.readings for loss in losses) == outbox.accounts["a"].quota > 0
    assert losses[0].first_utc_ns == 20 * 1_000_000 + STAMP.offset_ns
    assert losses[0].first_utc_ns < losses[-1].last_utc_ns < 20 * 21 * 1_000_000 + STAMP.offset_ns
    assert len(losses) <= 2, "a line an hour"
    if len(losses) == 1:
        assert losses[0].last_utc_ns - losses[0].first_utc_ns > 100 * 1_000_000, "over all that was dropped in the hour"
    outbox.close()


def test_what_is_refused_is_told_with_the_time_that_it_was_measured(outbox: Outbox) -> None:
    outbox.commit(intake(3, sequence=1), STAMP, dict(outbox.progress))
    letters = [
        ("output a", "no such field", msgspec.json.encode(Record("meter", "d", 10**18 + number, {"power_w": 1.0})))
        for number in (7, 5)
    ]
    outbox.commit(Intake(dead_letters=letters), STAMP, {"a": Progress(front=1, delivered=1, refused=2)})
    [loss] = outbox.logbook.losses()
    assert (loss.reason, loss.readings, loss.first_utc_ns, loss.last_utc_ns) == ("refused", 2, 10**18 + 5, 10**18 + 7)


def test_readings_that_damage_took_are_told(outbox: Outbox, tmp_path: Path) -> None:
    outbox.commit(intake(5, sequence=1), STAMP, dict(outbox.progress))
    outbox.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        connection.execute("DELETE FROM row")
        connection.commit()
    again = Outbox(tmp_path / "outbox.db", reserve_bytes=0, quota_bytes=2**40)
    again.serve(["a"])
    assert [(loss.reason, loss.readings) for loss in again.logbook.losses()] == [("damage", 5)]
    again.close()


@settings(max_examples=20)  # each commit goes to the disk
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 2)), max_size=8))
def test_the_account_since_any_hour_balances(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, ...]]
) -> None:
    outbox = Outbox(tmp_path_factory.mktemp("o") / "outbox.db", reserve_bytes=0, quota_bytes=4000)
    outbox.serve(["a"])
    hour0 = time.monotonic_ns() // HOUR_NS
    for sequence, (count, take, hours) in enumerate(steps, 1):
        hour0 += hours
        done = msgspec.structs.replace(outbox.progress["a"])
        for row, _, _, readings, _ in rows(outbox.path):
            if row > done.front and readings <= take:
                done.front, done.delivered, take = row, done.delivered + readings, take - readings
            elif row > done.front:
                break
        stamp = Stamp(BOOT, hour0 * HOUR_NS, SYNCED)
        outbox.commit(intake(count, sequence=sequence), stamp, {"a": done})
        now = balance(outbox.progress["a"], outbox.accounts["a"])
        assert now.pending == outbox.pending(outbox.progress["a"])
        for hour in range(hour0 - 3, hour0 + 3):
            found = outbox.logbook.opening("a", hour)
            assert found
            then = found[1]
            assert all(late >= early for late, early in zip(now, then, strict=True))
            came = now.accepted - then.accepted
            went = now.delivered - then.delivered + sum(now.dropped.values()) - sum(then.dropped.values())
            assert then.pending + came == went + outbox.pending(outbox.progress["a"])
    outbox.close()


def test_an_output_that_comes_back_under_its_old_name_begins_anew(outbox: Outbox) -> None:
    outbox.commit(intake(5, sequence=1), STAMP, dict(outbox.progress))
    assert outbox.logbook.opening("a", 2**40)
    outbox.serve([])
    assert outbox.logbook.opening("a", 2**40) is None


def test_the_logbook_survives_a_damaged_outbox(outbox: Outbox, tmp_path: Path) -> None:
    event = Event(What.DOWN, "source meter", Moment(BOOT, 1, 1), "no port")
    gap = Gap("meter/house", Moment(BOOT, 1, 1), Moment(BOOT, 2, 2))
    outbox.commit(with_notes(intake(3, sequence=1), event, gap), STAMP, dict(outbox.progress))
    outbox.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        connection.execute("UPDATE row SET clock = 9")
        connection.execute("INSERT INTO event VALUES (NULL, 'up', x'ff', 'b', 'no number', 0, '', 0)")
        connection.commit()
    again, salvage = open_outbox(
        tmp_path / "outbox.db", LedgerCopy(tmp_path / "ledger.copy"), reserve_bytes=0, quota_bytes=2**40
    )
    assert salvage
    assert list(again.logbook.events()) == [event]
    assert list(again.logbook.silences()) == [gap]
    found = again.logbook.opening("a", 2**40)
    assert found and found[1].accepted == 0
    again.close()


def with_notes(taken: Intake, event: Event, gap: Gap) -> Intake:
    taken.events.append(event)
    taken.gaps.append(gap)
    return taken


def test_the_writer_notes_a_silence_and_a_message_that_never_came(tmp_path: Path) -> None:
    house = House(tmp_path)
    writer = house.start()
    try:
        house.report()
        house.arrive(1)
        house.senders["meter"]._sequence += 2  # as if two had fallen out of the worker's backlog
        house.senders["meter"].report([Reading("d", time.monotonic_ns() + 301 * 10**9, {"pulses": 1})])
        house.arrive(2)
        wait_for(lambda: house.vitals["gaps"] == 1, "the silence on the board")
        house.stop()
    finally:
        writer.kill()
        for end in house.ends["meter"]:
            end.close()
    outbox = Outbox(tmp_path / "outbox.db", reserve_bytes=0, quota_bytes=2**40)
    [gap] = outbox.logbook.silences()
    assert gap.channel == "meter/d"
    assert gap.next.at_ns - gap.last.at_ns > 300 * 10**9
    told = [(event.what.value, event.part, event.number) for event in outbox.logbook.events()]
    assert told == [("began", "house", 0), ("missing", "source meter", 2), ("down", "house", 0)]
    outbox.close()


def test_a_note_is_taken_apart_whatever_is_in_it() -> None:
    assert troubles_in("") == {}
    assert troubles_in("no device: is named here · or there") == {}


@given(st.text(max_size=100))
def test_no_note_is_too_strange(note: str) -> None:
    assert all(isinstance(trouble, str) for trouble in troubles_in(note).values())
