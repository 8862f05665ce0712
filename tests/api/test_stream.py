"""The live stream over real sockets: at once, when something changed, bounded, and never in anybody's way."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from typing import Any

import psutil
import pytest

import api.connections
import api.stream
import tap
from api.stream import MOST_READERS
from reading import Clock, Reading
from tap import Basin, Spout
from tests.api.server import Server, served
from tests.peers.process import wait_for


class Reader:
    """Reads the stream as a browser does."""

    def __init__(self, server: Server) -> None:
        self.connection = server.connect()
        self.connection.sendall(b"GET /api/v1/live/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._lines = self.connection.makefile("rb")
        self.status = int(self._lines.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._lines.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value

    def body(self) -> Iterator[bytes]:
        """Yield the lines, without the framing of chunks."""
        while size := int(self._lines.readline() or b"0", 16):
            yield from self._lines.read(size).splitlines(keepends=True)
            self._lines.readline()

    def events(self) -> Iterator[tuple[str, Any]]:
        name = ""
        for line in self.body():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)

    def close(self) -> None:
        self._lines.close()
        self.connection.close()


class Tapped:
    """A served house, the writer's end of its tap, and readers that are closed in the end."""

    def __init__(self, house: Any, stack: ExitStack) -> None:
        writer_end, api_end = tap.pair()
        stack.enter_context(closing(writer_end))
        stack.enter_context(closing(api_end))
        self._stack = stack
        self._spout = Spout(writer_end)
        self.server: Server = stack.enter_context(served(house, basin=Basin(api_end)))
        self.server.wait_until_it_serves()

    def tell(self, device: str = "a", **values: float) -> None:
        offset_ns = time.time_ns() - time.monotonic_ns()
        self._spout.let_out("meter", [Reading(device, time.monotonic_ns(), values)], offset_ns, Clock.SYNCED)

    def reader(self) -> Reader:
        return self._stack.enter_context(closing(Reader(self.server)))


@pytest.fixture
def tapped(house) -> Iterator[Tapped]:
    with ExitStack() as stack:
        yield Tapped(house, stack)


def next_of(events: Iterator[tuple[str, Any]], name: str, fits: Callable[[Any], Any] = bool) -> Any:
    return next(document for found, document in events if found == name and fits(document))


def test_the_first_events_are_there_at_once(tapped: Tapped) -> None:
    started_s = time.monotonic()
    reader = tapped.reader()
    assert (reader.status, reader.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (reader.headers["cache-control"], reader.headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-encoding" not in reader.headers
    body = reader.body()
    assert next(body) == b"retry: 1000\n"
    names = [line for _ in range(7) if (line := next(body)).startswith(b"event: ")]
    assert names == [b"event: live\n", b"event: health\n"]
    assert time.monotonic() - started_s < 5


def test_the_same_is_told_as_by_the_routes(tapped: Tapped) -> None:
    tapped.tell(power_w=1.0)
    wait_for(lambda: tapped.server.ask("/api/v1/live").json["devices"], "the reading")
    events = tapped.reader().events()
    live, health = next_of(events, "live"), next_of(events, "health")
    told = tapped.server.ask("/api/v1/live").json
    assert live["house"] == told["house"]
    assert [one["values"] for one in live["devices"]] == [one["values"] for one in told["devices"]]
    assert health["reasons"] == tapped.server.ask("/api/v1/health").json["reasons"]


def test_what_changes_is_told_within_two_seconds_and_at_most_once_a_second(tapped: Tapped) -> None:
    events = tapped.reader().events()
    next_of(events, "live")
    came_s = []
    for number in range(1, 4):
        tapped.tell(power_w=float(number))
        told_s = time.monotonic()
        next_of(events, "live", lambda live, number=number: live["house"]["power_w"] == number)
        came_s.append(time.monotonic())
        assert came_s[-1] - told_s < 2
    assert all(later - earlier > 0.5 for earlier, later in pairwise(came_s))


def test_a_change_of_the_health_is_told(house, tapped: Tapped) -> None:
    events = tapped.reader().events()
    assert next_of(events, "health")["ready"]
    house.put("worker", "meter", note="no port; plug it in", open=0)
    health = next_of(events, "health", lambda health: not health["ready"])
    assert health["reasons"] == [{"part": "source meter", "what": "no port", "remedy": "plug it in"}]
    assert [(one["name"], one["state"], one["mood"]) for one in health["sources"]] == [
        ("meter", "not open", "bad"),
        ("plugs", "reading", "good"),
    ]


def test_silence_is_told_although_nothing_came(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.channels._LISTENED_STALE_S", 1.0)
    with ExitStack() as stack:
        tapped = Tapped(house, stack)
        tapped.tell(power_w=1.0)
        events = tapped.reader().events()
        next_of(events, "live", lambda live: live["devices"] and not live["devices"][0]["stale"])
        [device] = next_of(events, "live", lambda live: live["devices"][0]["stale"])["devices"]
        assert (device["values"], device["last_values"]) == ({}, {"power_w": 1.0})


def test_a_stream_in_which_nothing_changes_goes_on(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.stream, "_AT_LEAST_EVERY_S", 2.0)
    monkeypatch.setattr(api.connections, "PATIENCE_S", 0.3)
    with ExitStack() as stack:
        events = Tapped(house, stack).reader().events()
        for _ in range(3):
            next_of(events, "live")


def test_so_many_may_read_and_no_more(tapped: Tapped) -> None:
    readers = [tapped.reader() for _ in range(MOST_READERS)]
    for reader in readers:
        next_of(reader.events(), "live")
    one_more = tapped.reader()
    assert (one_more.status, one_more.headers["retry-after"]) == (503, "10")
    assert tapped.server.ask("/api/v1/live").status == 200
    readers[0].connection.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: tapped.reader().status == 200, "room for another one")


def test_whoever_does_not_read_is_dropped_and_costs_no_memory(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.stream, "_AT_LEAST_EVERY_S", 0.0)
    monkeypatch.setattr(api.stream, "_EDITION_EVERY_S", 0.005)
    monkeypatch.setattr(api.connections, "PATIENCE_S", 1.0)
    with ExitStack() as stack:
        tapped = Tapped(house, stack)
        for number in range(200):
            tapped.tell(f"device-{number}", power_w=1.0, energy_wh=2.0, voltage_v=230.0)
        wait_for(lambda: len(tapped.server.ask("/api/v1/live").json["devices"]) == 200, "the devices")
        sleeper, awake = tapped.reader(), tapped.reader()
        process = psutil.Process(tapped.server.process.pid)
        before = process.memory_info().rss
        events, deadline_s = awake.events(), time.monotonic() + 60
        while sleeper.connection in open_connections(tapped, sleeper):
            next_of(events, "live")
            assert time.monotonic() < deadline_s, "it is still there"
        assert process.memory_info().rss - before < 20_000_000
        next_of(events, "live")


def open_connections(tapped: Tapped, reader: Reader) -> list[socket.socket]:
    """Return the reader's connection while the server has it open."""
    mine = reader.connection.getsockname()[1]
    process = psutil.Process(tapped.server.process.pid)
    theirs = {one.raddr.port for one in process.net_connections("tcp") if one.raddr and one.status == "ESTABLISHED"}
    return [reader.connection] if mine in theirs else []


def test_a_stream_is_served_beside_a_thousand_idle_connections(many_descriptors: None, tapped: Tapped) -> None:
    events = tapped.reader().events()
    next_of(events, "live")
    with ExitStack() as idle:
        for number in range(1000):
            idle.enter_context(tapped.server.connect())
            if number % 250 == 0:
                tapped.tell(power_w=float(number + 1))
                told_s = time.monotonic()
                next_of(events, "live", lambda live, number=number: live["house"]["power_w"] == number + 1)
                assert time.monotonic() - told_s < 3
        assert tapped.server.ask("/healthz").status == 200


def test_the_house_stops_although_somebody_reads(tapped: Tapped) -> None:
    events = tapped.reader().events()
    next_of(events, "live")
    os.kill(tapped.server.process.pid, signal.SIGTERM)
    assert tapped.server.end(within_s=3) == 0
    assert b"Traceback" not in tapped.server.log
    assert tapped.server.log.count(b"\n") == 1, tapped.server.log.decode()
