"""The real server in a real process, over loopback."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import statistics
import time

import pytest

import api.connections
from api import serve
from config.settings import Api
from tests.api.server import served


def test_it_serves_beats_counts_and_leaves_when_asked_although_connections_are_open(house):
    with served(house) as server:
        server.wait_until_it_serves()
        assert server.get("/healthz") == (200, '{"status":"ok"}')
        assert "wattherd_info" in server.get("/metrics")[1]
        assert house.row("api", "api")["requests"] == 2

        first, deadline = house.row("api", "api")["beat_ns"], time.monotonic() + 5
        while house.row("api", "api")["beat_ns"] == first:
            assert time.monotonic() < deadline, "the heartbeat stands still"
            time.sleep(0.05)

        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        kept.request("GET", "/readyz")
        assert json.loads(kept.getresponse().read())["status"] == "ready"
        with contextlib.closing(kept), server.connect() as half_a_request, server.connect():
            half_a_request.sendall(b"GET /metrics HTTP/1.1\r\nHo")
            os.kill(server.process.pid, signal.SIGTERM)
            assert server.end(within_s=3) == 0
        assert b"Traceback" not in server.log
        assert server.log.count(b"\n") == 1, f"one line, that it serves: {server.log.decode()}"


def test_an_answer_does_not_wait_for_an_acknowledgement(house):
    """Nagle's algorithm and a delayed acknowledgement together make 40 ms of every answer on a kept connection."""
    with served(house) as server:
        server.wait_until_it_serves()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)) as kept:
            took = []
            for _ in range(60):
                started = time.monotonic()
                kept.request("GET", "/healthz")
                kept.getresponse().read()
                took.append(time.monotonic() - started)
            assert statistics.median(took) < 0.03


def test_ctrl_c_is_left_to_the_parent(house):
    with served(house) as server:
        server.wait_until_it_serves()
        os.kill(server.process.pid, signal.SIGINT)
        for _ in range(3):
            assert server.get("/healthz")[0] == 200
        assert server.process.is_alive()


def test_a_port_in_use_is_told_and_not_retried_in_a_hurry(house):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        house.settings = with_api(house, port=port)
        with served(house) as server:
            assert server.end(within_s=5) == os.EX_CONFIG
            words = f"port {port} on 127.0.0.1 is in use; set [api] port to a free one"
            assert re.fullmatch(rf"\S+ ERROR api: {re.escape(words)}\n", server.log.decode())
            assert house.row("api", "api").note == words


def test_an_address_of_another_machine_is_told(house):
    house.settings = with_api(house, host="192.0.2.1", port=8000)
    with served(house) as server:
        assert server.end(within_s=5) == os.EX_CONFIG
        assert "192.0.2.1 is no address of this machine; set [api] host to one that it has" in server.log.decode()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "pi is no name that this machine knows; set [api] host"),
        (PermissionError(errno.EACCES, "denied"), "port 80 is kept for the system; set [api] port to 1024 or above"),
        (OSError(errno.ENOBUFS, "No buffers"), "cannot listen on port 80 of pi: No buffers; set [api] host"),
    ],
)
def test_every_reason_not_to_listen_says_what_to_do(error, words):
    assert serve._what_to_do(error, "pi", 80).startswith(words)


def test_a_thousand_idle_connections_keep_nobody_out(house, many_descriptors):
    with served(house, descriptors=512) as server, contextlib.ExitStack() as idle:
        server.wait_until_it_serves()
        for _ in range(10):
            for _ in range(100):
                idle.enter_context(server.connect())
            started = time.monotonic()
            assert server.get("/healthz")[0] == 200
            assert time.monotonic() - started < 5
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.end(within_s=3) == 0
        assert server.log.count(b"\n") == 1, server.log.decode()


@pytest.mark.parametrize(
    "first", [b"", b"GET /healthz HTTP/1.1\r\nHost: pi\r\n\r\n"], ids=["at once", "after a request"]
)
def test_whoever_sends_a_request_drop_by_drop_is_shown_the_door(house, monkeypatch, first):
    monkeypatch.setattr(api.connections, "PATIENCE_S", 0.3)
    with served(house) as server:
        server.wait_until_it_serves()
        with server.connect() as slow:
            slow.sendall(first + b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            deadline = time.monotonic() + 5
            with pytest.raises(ConnectionError):
                while time.monotonic() < deadline:
                    slow.sendall(b"x")
                    time.sleep(0.02)
        assert server.get("/healthz")[0] == 200


def test_a_head_that_never_ends_is_refused(house):
    with served(house) as server:
        server.wait_until_it_serves()
        with server.connect() as endless, contextlib.suppress(ConnectionError):
            endless.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
            assert endless.recv(100).startswith(b"HTTP/1.1 400")
        assert server.get("/healthz")[0] == 200
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.end(within_s=3) == 0
        assert server.log.count(b"\n") == 1, "a stranger cannot fill the log"


def with_api(house, **options):
    from msgspec.structs import replace

    return replace(house.settings, api=Api(**options))
