"""The work loop of a worker with a real report channel: its pace, its patience, what it lets through and says."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import channel
from channel import Receiver, Sender, decode_report
from config.settings import PolledTable, SourceTable
from reading import Quality, Reading
from tests.peers.process import wait_for
from vitals import Board, Row
from workers import Source, SourceError, _runtime
from workers._runtime import Pace, Retry, Worker


class Listening(SourceTable, frozen=True, kw_only=True):
    kind: str = "fake"


class Polled(PolledTable, frozen=True, kw_only=True):
    kind: str = "fake"


class Fake(Source):
    """Does whatever the test says: each call of `open` or `read` takes the next answer, the last one for ever."""

    Options = SourceTable

    def __init__(self, options: SourceTable) -> None:
        super().__init__("meter", options)
        self.opens: list[Any] = [None]
        self.reads: list[Any] = [[]]
        self.calls: list[str] = []
        self.read_at_s: list[float] = []

    def open(self) -> None:
        self.calls.append("open")
        self._next(self.opens)

    def read(self) -> list[Reading]:
        self.calls.append("read")
        self.read_at_s.append(time.monotonic())
        readings: list[Reading] = self._next(self.reads)
        return readings

    def close(self) -> None:
        self.calls.append("close")

    @staticmethod
    def _next(answers: list[Any]) -> Any:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Acknowledging(Fake):
    acknowledges = True


class Running:
    """A worker at work in a thread of the test, and the writer's end of its channel."""

    def __init__(self, source: Fake, row: Row) -> None:
        self.source = source
        self.row = row
        self.worker_end, writer_end = channel.pair()
        self.receiver = Receiver(writer_end, "meter")
        self.sender = Sender(self.worker_end, "meter", 1)
        self.worker = Worker(source, self.sender, row)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)

    def fill(self) -> int:
        """Fill the channel as another life of the worker might have left it."""
        filler = Sender(self.worker_end, "meter", 0)
        while not filler.backlog:
            filler.report([reading(0)] * 200)
        return filler.sent

    def received(self) -> list[Reading]:
        """Take what is in the channel, without what filled it."""
        reports = [decode_report(message) for message in self.receiver.peek() if message]
        self.receiver.consume()
        return [reading for report in reports if report.incarnation for reading in report.readings]

    def stop(self) -> None:
        self.worker.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    made: list[Running] = []
    monkeypatch.setattr(Retry, "pause_s", lambda _: 0.02)

    def maker(kind: type[Fake] = Fake, row: Row | None = None, options: SourceTable | None = None) -> Running:
        made.append(Running(kind(options or Listening()), row or Board().claim("worker", "meter")))
        return made[-1]

    yield maker
    for running in made:
        if running.thread.ident:
            running.stop()
        running.worker_end.close()
        running.receiver._end.close()


@pytest.fixture
def start(make: Start) -> Start:
    """Start a fake source that answers `reads` (and `opens`) in turn, the last one for ever."""

    def starter(*reads: Any, opens: tuple[Any, ...] = (None,), **more: Any) -> Running:
        running = make(**more)
        running.source.reads = list(reads)
        running.source.opens = list(opens)
        running.thread.start()
        return running

    return starter


def reading(number: float | int | str, metric: str = "power_w", device: str = "fridge") -> Reading:
    return Reading(device, 1, {metric: number})


def rests() -> list[Reading]:
    """What a listening source answers when nothing arrived: it waits a while first."""
    time.sleep(0.005)
    return []


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def _every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "meter")


# ---- pace


@given(st.floats(0.001, 1000), st.lists(st.floats(0, 5000), max_size=20))
def test_rounds_are_due_on_a_grid_and_missed_ones_are_skipped(interval_s: float, works_s: list[float]) -> None:
    pace = Pace(interval_s)
    now_s = first_s = 1000.0
    assert pace.pause_s(now_s) == 0
    for work_s in works_s:
        now_s += work_s
        pause_s = pace.pause_s(now_s)
        assert -1e-6 <= pause_s <= interval_s * (1 + 1e-6)
        now_s += max(0.0, pause_s)
        rounds = (now_s - first_s) / interval_s
        assert abs(rounds - round(rounds)) * interval_s < 1e-6 * max(1.0, now_s / interval_s)


def test_a_slow_round_does_not_shift_the_ones_after_it(start: Start) -> None:
    interval_s = 0.2
    running = start(lambda: time.sleep(0.28) or [], rests, options=Polled(interval_s=interval_s))
    at_s = running.source.read_at_s
    wait_for(lambda: len(at_s) >= 6, "six rounds")
    grid = [round((one_s - at_s[0]) / interval_s, 9) for one_s in at_s]
    assert all(place >= number for number, place in enumerate(grid[1:], start=2)), "the missed round is caught up with"
    assert median(place % 1 for place in grid[1:]) < 0.3, "rounds do not begin on the grid"


def test_a_long_pause_has_a_beating_heart_and_ends_promptly(start: Start) -> None:
    running = start([], options=Polled(interval_s=3600))
    wait_for(lambda: running.row["rounds"] == 1, "the first round")
    beats = {running.row["beat_ns"]}
    wait_for(lambda: beats.add(running.row["beat_ns"]) or len(beats) > 3, "three more beats", within_s=3)
    began_s = time.monotonic()
    running.stop()
    assert time.monotonic() - began_s < 5
    assert running.source.calls == ["open", "read", "close"]


# ---- failures


def test_pauses_between_attempts_grow_to_a_minute_and_begin_anew_after_a_success() -> None:
    retry = Retry()
    assert [retry.pause_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    retry.forget()
    assert retry.pause_s() == 1


def test_a_source_that_cannot_open_is_closed_and_opened_again_until_it_can(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    away = SourceError("the bus is away", "plug it in")
    gate = threading.Event()
    running = start(rests, opens=(away, away, lambda: gate.wait(10) and away, None))
    wait_for(lambda: running.row["open_failures"] == 2, "two failures")
    assert running.row.note == "the bus is away; plug it in"
    assert running.row["open"] == 0
    gate.set()
    wait_for(lambda: not running.row.note, "the source to work again")
    assert running.row["open"] == 1
    running.stop()
    assert running.row["open"] == 0
    assert running.row["open_failures"] == 3
    assert "".join(call[0] for call in running.source.calls).startswith("ocococ" + "or")
    assert running.source.calls[-1] == "close"
    assert running.source.calls.count("open") == running.source.calls.count("close")
    assert said(caplog) == [("WARNING", "the bus is away; plug it in"), ("INFO", "works again")]


def test_whatever_a_driver_raises_the_house_goes_on(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start([reading(1)], opens=(ZeroDivisionError("no"), ZeroDivisionError("no"), None))
    wait_for(lambda: running.row["sent"] > 0, "a reading")
    assert running.row["open_failures"] == 2
    wait_for(lambda: len(caplog.records) == 2, "the word that it works again, which follows the reading")
    failed, works = caplog.records
    assert failed.getMessage() == "the source failed: ZeroDivisionError: no"
    assert failed.levelname == "ERROR"
    assert failed.exc_info
    assert works.getMessage() == "works again"


def test_a_source_that_fails_to_read_is_closed_and_opened_anew(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    gone = SourceError("no answer", "look at the cable")
    running = start([reading(1)], gone, gone, [reading(2)], rests)
    wait_for(lambda: running.row["sent"] == 2, "both readings")
    wait_for(lambda: not running.row.note, "the source to work again")
    assert running.row["read_failures"] == 2
    assert "".join(call[0] for call in running.source.calls).startswith("orrcorcorr")
    assert [one.values["power_w"] for one in running.received()] == [1, 2]
    wait_for(lambda: len(caplog.records) == 2, "the word that it works again")
    assert said(caplog) == [("WARNING", "no answer; look at the cable"), ("INFO", "works again")]


def test_a_failure_too_long_for_the_board_is_said_once_too(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = start(SourceError("ü" * 500, "call the electrician"))
    wait_for(lambda: running.row["read_failures"] > 3, "some failures")
    assert len(caplog.records) == 1


def test_a_successor_says_nothing_new_of_the_failure_that_its_predecessor_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    row = Board().claim("worker", "meter")
    row.note = "no answer; look at the cable"
    running = start(SourceError("no answer", "look at the cable"), rests, row=row)
    wait_for(lambda: not running.row.note, "the source to work again")
    assert said(caplog) == [("INFO", "works again")]


def test_a_source_that_fails_to_close_is_opened_again(make: Start) -> None:
    running = make()
    running.source.reads = [ValueError("no"), [reading(1)]]
    running.source.close = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    running.thread.start()
    wait_for(lambda: running.row["sent"] > 0, "a reading")


def test_what_is_wrong_with_single_devices_is_said_when_it_changes(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    troubles: dict[str, str] = {}
    running = start(rests)
    running.source.troubles = troubles

    def now(count: int, note: str) -> None:
        wait_for(lambda: running.row["devices_troubled"] == count and running.row.note == note, note)

    troubles["fridge"] = "silent; look at it"
    now(1, "fridge: silent; look at it")
    running.source.troubles = troubles = {**troubles, "kettle": "hot; wait"}
    now(2, "fridge: silent; look at it · kettle: hot; wait")
    running.source.troubles = troubles = {"fridge": "loud; look again", "kettle": "hot; wait"}
    now(2, "fridge: loud; look again · kettle: hot; wait")
    running.source.troubles = {"kettle": "hot; wait"}
    now(1, "kettle: hot; wait")
    running.source.troubles = {}
    now(0, "")
    assert said(caplog) == [
        ("WARNING", "fridge: silent; look at it"),
        ("WARNING", "kettle: hot; wait"),
        ("WARNING", "fridge: loud; look again"),
        ("INFO", "fridge: works again"),
        ("INFO", "kettle: works again"),
    ]


def test_after_a_failure_of_the_source_the_board_shows_its_devices_again(
    make: Start, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    running = make()
    running.source.reads = [rests, lambda: gate.wait(10) and rests(), SourceError("no answer", "look"), rests]
    running.source.troubles = {"fridge": "silent; look at it"}
    running.thread.start()
    wait_for(lambda: running.row.note == "fridge: silent; look at it", "the trouble")
    gate.set()
    wait_for(lambda: running.row["read_failures"] == 1, "the failure")
    wait_for(lambda: running.row.note == "fridge: silent; look at it", "the trouble to be shown again")
    assert said(caplog) == [
        ("WARNING", "fridge: silent; look at it"),
        ("WARNING", "no answer; look"),
        ("INFO", "works again"),
    ]


# ---- what is let through


class Watts(float):
    """A driver's own kind of number."""


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (reading(float("nan")), "power_w of fridge is rejected: nan is not finite"),
        (reading(float("inf")), "power_w of fridge is rejected: inf is not finite"),
        (reading(float("-inf")), "power_w of fridge is rejected: -inf is not finite"),
        (reading(2**63, "pulses"), "pulses of fridge is rejected: the number is too large"),
        (reading(-(2**63), "pulses"), "pulses of fridge is rejected: the number is too large"),
        (reading(1, "watts"), "watts of fridge is rejected: there is no such metric"),
        (reading(1, "w" * 999), f"{'w' * 64} of fridge is rejected: there is no such metric"),
        (reading("x" * 65, "state"), "state of fridge is rejected: the text is too long"),
        (reading("a\nb", "state"), "state of fridge is rejected: the text has characters that cannot be shown"),
        (reading("\ud800", "state"), "state of fridge is rejected: the text has characters that cannot be shown"),
        (reading(True, "state"), "state of fridge is rejected: bool is no kind of value"),
        (reading(None), "power_w of fridge is rejected: NoneType is no kind of value"),  # type: ignore[arg-type]
        (reading(Decimal(1)), "power_w of fridge is rejected: Decimal is no kind of value"),  # type: ignore[arg-type]
        (reading(Watts(1)), "power_w of fridge is rejected: Watts is no kind of value"),
        (Reading("fridge", 1, {}), "reading of fridge is rejected: it has no value"),
        (Reading("fridge", 1, {"power_w": 1.0, "x": 1}), "x of fridge is rejected: there is no such metric"),
    ],
)
def test_a_value_that_makes_no_sense_is_counted_and_told_once_and_the_rest_of_the_round_goes_on(
    start: Start, caplog: pytest.LogCaptureFixture, bad: Reading, why: str
) -> None:
    good = [reading(1), reading(2**63 - 1, "pulses"), reading("x" * 64, "state"), reading(-1.5, device="kettle")]
    running = start([*good[:2], bad, *good[2:]], [bad], rests)
    wait_for(lambda: running.row["rejected"] == 2, "two rejections")
    wait_for(lambda: running.row["sent"] == 4, "the other readings")
    assert running.received() == good
    assert running.row["readings"] == 6
    assert said(caplog) == [("WARNING", why)]


def test_each_device_and_metric_is_told_of_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    nan = float("nan")
    bad = [reading(nan, metric, device) for metric in ("power_w", "voltage_v") for device in ("fridge", "kettle")]
    running = start(bad, bad, rests)
    wait_for(lambda: running.row["rejected"] == 8, "eight rejections")
    assert len(caplog.records) == 4


def test_the_board_says_whether_what_comes_is_simulated(start: Start) -> None:
    toy = Reading("fridge", 1, {"power_w": 1}, Quality.SIMULATED)
    running = start([toy, reading(1)], rests)
    wait_for(lambda: running.row["sent"] == 2, "the readings")
    assert running.row["simulated"] == 1
    running.source.reads = [[reading(1)], rests]
    wait_for(lambda: running.row["sent"] == 3, "a real reading")
    assert running.row["simulated"] == 0


def test_what_a_source_refused_is_added_to_what_its_predecessors_refused(start: Start) -> None:
    row = Board().claim("worker", "meter")
    row["refused_malformed"] = row["sent"] = 40
    running = start([reading(1)], rests, row=row)
    running.source.refused["malformed"] += 2
    running.source.refused["a reason that is not on the list"] += 1
    wait_for(lambda: row["refused_malformed"] == 42, "the refusals")
    assert row["sent"] == 41


# ---- a channel that takes no more


def test_who_waits_for_an_answer_gets_none_before_the_channel_has_everything(make: Start) -> None:
    running = make(kind=Acknowledging)
    running.fill()
    running.source.reads = [[reading(7)], rests]
    running.thread.start()
    wait_for(lambda: running.row["backlog"] == 1, "a backlog")
    beat = running.row["beat_ns"]
    wait_for(lambda: running.row["beat_ns"] > beat + 10**9, "a second of patience")
    assert running.source.calls == ["open", "read"], "the next read() would be a promise that is not kept yet"
    assert running.row["sent"] == 0
    while not running.received():
        pass
    wait_for(lambda: running.source.calls.count("read") > 1, "the next read")
    assert (running.row["backlog"], running.row["sent"], running.row["dropped"]) == (0, 1, 0)


def test_who_waits_for_an_answer_does_not_hinder_the_stop(
    make: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_runtime, "_LAST_WORDS_S", 0.2)
    running = make(kind=Acknowledging)
    running.fill()
    running.source.reads = [[reading(7)], rests]
    running.thread.start()
    wait_for(lambda: running.row["backlog"] == 1, "a backlog")
    running.stop()
    assert running.source.calls == ["open", "read", "close"]
    assert (running.row["backlog"], running.row["sent"], running.row["dropped"]) == (0, 0, 1)
    assert said(caplog) == [("WARNING", "1 readings are lost: the writer did not take them before the stop")]


def test_what_the_channel_does_not_take_waits_and_goes_later_in_its_order(make: Start) -> None:
    running = make(options=Polled(interval_s=0.01))
    running.fill()
    numbers = iter(range(10**6))
    running.source.reads = [lambda: [reading(next(numbers))]]
    running.thread.start()
    wait_for(lambda: running.row["backlog"] >= 20, "a backlog")
    running.source.reads = [[]]
    got: list[Any] = []
    wait_for(
        lambda: got.extend(one.values["power_w"] for one in running.received()) or (got and not running.row["backlog"]),
        "the backlog to drain",
    )
    got += [one.values["power_w"] for one in running.received()]
    assert got == list(range(next(numbers)))
    assert running.row["sent"] == running.row["readings"] == len(got)


def test_a_backlog_drains_during_a_long_pause_too(make: Start) -> None:
    running = make(options=Polled(interval_s=3600))
    running.fill()
    running.source.reads = [[reading(7)]]
    running.thread.start()
    wait_for(lambda: running.row["backlog"] == 1, "a backlog")
    while not (got := running.received()):
        time.sleep(0.001)
    assert [one.values["power_w"] for one in got] == [7]
    wait_for(lambda: running.row["sent"] == 1, "the count")
    assert running.source.calls == ["open", "read"]


def test_at_the_end_what_waits_is_sent_if_the_writer_takes_it(make: Start, caplog: pytest.LogCaptureFixture) -> None:
    running = make()
    running.fill()
    running.source.reads = [[reading(7)], rests]
    running.thread.start()
    wait_for(lambda: running.row["backlog"] == 1, "a backlog")
    running.worker.stop()
    wait_for(lambda: running.source.calls[-1] == "close", "the source to be closed")
    while not (got := running.received()):
        time.sleep(0.001)
    running.stop()
    assert [one.values["power_w"] for one in got] == [7]
    assert (running.row["backlog"], running.row["sent"], running.row["dropped"]) == (0, 1, 0)
    assert said(caplog) == []


@given(
    st.lists(
        st.lists(st.sampled_from([1.0, float("nan"), "on", 2**70]), max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_every_reading_is_sent_or_waits_or_is_counted_as_lost(rounds: list[list[Any]]) -> None:
    running = Running(Fake(Listening()), Board().claim("worker", "meter"))
    answers = iter(rounds)

    def read() -> list[Reading]:
        try:
            return [reading(value, "state" if value == "on" else "power_w") for value in next(answers)]
        except StopIteration:
            running.worker.stop()
            return []

    running.source.reads = [read]
    logging.disable()
    try:
        running.worker.run()
        got = len(running.received())
    finally:
        logging.disable(logging.NOTSET)
        running.worker_end.close()
        running.receiver._end.close()
    row = running.row
    assert row["readings"] == sum(map(len, rounds))
    assert row["readings"] == row["sent"] + row["backlog"] + row["dropped"] + row["rejected"]
    assert got == row["sent"]


# ---- the process


@pytest.mark.parametrize("interval_s", [0.05, 3600])
def test_sigterm_ends_a_worker_process_promptly_with_everything_sent(interval_s: float) -> None:
    from workers.simulated import Options

    row = Board().claim("worker", "house")
    worker_end, writer_end = channel.pair()
    pid = os.fork()
    if pid == 0:
        try:
            options = Options(kind="simulated", interval_s=interval_s)
            _runtime.main(
                "house",
                options,
                end=worker_end,
                incarnation=1,
                vitals=row,
                directory=Path("nowhere"),
                kept={},
                deposit=lambda _name, _descriptor: None,
            )
        finally:
            os._exit(0 if row["open"] == 0 else 1)
    wait_for(lambda: row["rounds"] > 0, "a round")
    os.kill(pid, signal.SIGTERM)
    began_s = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert time.monotonic() - began_s < 2.0
    assert status == 0
    receiver = Receiver(writer_end, "house")
    reports = [decode_report(message) for message in receiver.peek() if message]
    assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
    assert sum(len(report.readings) for report in reports) == row["sent"] == row["readings"]
    assert row["simulated"] == 1
    worker_end.close()
    writer_end.close()
