"""The tap from the writer to the api: it may lose, and it may never hold anybody up."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing

import pytest

import tap
from reading import Clock, Reading
from tap import Basin, Spout

SOME = [Reading("fridge", 5, {"power_w": 86.5, "state": "running", "pulses": 3})]


def test_what_is_let_out_arrives_as_it_was() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        Spout(writer_end).let_out("plugs", SOME, 1000, Clock.SYNCED)
        Spout(writer_end).let_out("plugs", SOME, 1000, None)
        first, second = Basin(api_end).drops(10)
    assert (first.source, first.offset_ns, first.clock, first.readings) == ("plugs", 1000, Clock.SYNCED, SOME)
    assert second.clock is None


def test_whoever_takes_gets_no_more_than_he_wants_at_once() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        for _ in range(5):
            Spout(writer_end).let_out("plugs", SOME, 0, Clock.SYNCED)
        basin = Basin(api_end)
        assert [len([*basin.drops(3)]) for _ in range(3)] == [3, 2, 0]


def test_a_tap_that_nobody_empties_holds_nobody_up_and_goes_on_when_it_is_emptied() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        spout, basin = Spout(writer_end), Basin(api_end)
        started_s = time.monotonic()
        for at_ns in range(20_000):
            spout.let_out("plugs", [Reading("fridge", at_ns, {"power_w": 1.0})], 0, Clock.SYNCED)
        assert time.monotonic() - started_s < 5
        kept = [drop.readings[0].at_ns for drop in basin.drops(100_000)]
        assert kept == [*range(len(kept))], "the oldest are kept, and the reader knows by their time that they are old"
        assert len(kept) < 20_000
        spout.let_out("plugs", [Reading("fridge", 99_999, {"power_w": 1.0})], 0, Clock.SYNCED)
        assert [drop.readings[0].at_ns for drop in basin.drops(10)] == [99_999]


def test_nothing_that_the_other_side_does_reaches_the_writer() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end):
        spout = Spout(writer_end)
        spout.let_out("plugs", [Reading("x", 0, {"state": "y" * 500_000})], 0, Clock.SYNCED)  # larger than the socket
        api_end.shutdown(socket.SHUT_RDWR)
        spout.let_out("plugs", SOME, 0, Clock.SYNCED)
        api_end.close()
        spout.let_out("plugs", SOME, 0, Clock.SYNCED)
    spout.let_out("plugs", SOME, 0, Clock.SYNCED)  # closed by ourselves
    Spout().let_out("plugs", SOME, 0, Clock.SYNCED)  # there is no api


def test_what_is_no_drop_is_left_out() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        writer_end.send(b"nonsense")
        writer_end.send(b"\x93\x01\x02\x03")
        Spout(writer_end).let_out("plugs", SOME, 0, Clock.SYNCED)
        assert [drop.source for drop in Basin(api_end).drops(10)] == ["plugs"]


def test_what_a_killed_reader_left_is_there_for_the_next_one() -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        child = os.fork()
        if not child:
            signal.pause()
        Spout(writer_end).let_out("plugs", SOME, 0, Clock.SYNCED)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert [drop.source for drop in Basin(api_end).drops(10)] == ["plugs"]


@pytest.mark.parametrize("readings", [[], SOME])
def test_nothing_is_sent_of_nothing(readings: list[Reading]) -> None:
    writer_end, api_end = tap.pair()
    with closing(writer_end), closing(api_end):
        Spout(writer_end).let_out("plugs", readings, 0, Clock.SYNCED)
        assert len([*Basin(api_end).drops(10)]) == bool(readings)
