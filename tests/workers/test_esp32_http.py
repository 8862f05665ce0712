"""The HTTP receiver, spoken to over real sockets; and its decoder, given everything that is not JSON of a meter."""

from __future__ import annotations

import errno
import http.client
import json
import math
import select
import shutil
import socket
import subprocess
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import channel
import workers.esp32_http
from reading import METRICS, Origin, Reading
from vitals import REFUSALS, Board
from workers import SourceError, source_class
from workers._esp32 import Device, decode
from workers._http import Limits
from workers._json import NotJson, Refused
from workers._runtime import Worker
from workers.esp32_http import Esp32Http, Options

MESSAGE = {"device": "esp32-meter", "boot": "a1b2", "seq": 1, "pulses_total": 91234, "power_w": 1492.3}
DEVICES = {name: Device(name=name) for name in ("esp32-meter", "solar")}


def make(limits: Limits | None = None, **options: Any) -> Esp32Http:
    source = Esp32Http("meter", Options(kind="esp32_http", port=0, devices=tuple(DEVICES.values()), **options))
    source.round_s = 0.005
    source.limits = limits or Limits()
    return source


@contextmanager
def opened(limits: Limits | None = None, **options: Any) -> Iterator[Esp32Http]:
    source = make(limits, **options)
    try:
        source.open()
        yield source
    finally:
        source.close()


@pytest.fixture
def source() -> Iterator[Esp32Http]:
    with opened() as source:
        yield source


def connect(source: Esp32Http) -> socket.socket:
    client = socket.create_connection(source.address)
    client.settimeout(0.005)
    return client


def post(body: bytes | dict[str, Any] | list[Any], path: str = "/", *headers: str) -> bytes:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_until(source: Esp32Http, done: Callable[[list[Reading]], object], deadline_s: float = 5.0) -> list[Reading]:
    """Read as the runtime does, until `done`."""
    readings: list[Reading] = []
    end = time.monotonic() + deadline_s
    while not done(readings):
        assert time.monotonic() < end, "nothing came in time"
        readings += source.read()
    return readings


def wait_for(done: Callable[[], object], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Answers:
    """The answers of one connection, read while the source does its rounds."""

    def __init__(self, source: Esp32Http, client: socket.socket) -> None:
        self.source, self.client, self.received, self.closed = source, client, b"", False

    def next(self) -> tuple[int, dict[str, str], bytes]:
        read_until(self.source, lambda _: self._complete())
        head, _, rest = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        self.received = rest[length:]
        return int(status.split()[1]), headers, rest[:length]

    def end(self) -> None:
        read_until(self.source, lambda _: self._pull() or self.closed)

    def _complete(self) -> bool:
        self._pull()
        head, blank, rest = self.received.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        return bool(blank) and len(rest) >= length

    def _pull(self) -> None:
        try:
            while data := self.client.recv(65536):
                self.received += data
            self.closed = True
        except TimeoutError:
            pass
        except ConnectionResetError:
            self.closed = True


def ask(source: Esp32Http, request: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send one request on a connection of its own and return its answer."""
    with closing(connect(source)) as client:
        client.sendall(request)
        status, headers, body = Answers(source, client).next()
        return status, headers, json.loads(body)


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.esp32_http.__doc__ or "").splitlines() if line.startswith("    "))
    table = tomllib.loads(text)["sources"]["meter"]
    options = msgspec.convert(table, Options)
    assert options == Options(kind="esp32_http", devices=(Device(name="esp32-meter"),))
    assert {*table} == {*Options.__struct_fields__}
    assert {*table["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("esp32_http") is Esp32Http


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": []}, "no device is configured"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, "configured twice"),
        ({"host": "0.0.0.0"}, "token_env"),
        ({"host": "192.168.1.2"}, "token_env"),
        ({"host": "raspberrypi"}, "token_env"),
        ({"devices": [{"name": "a", "pulses_per_kwh": 0}]}, "pulses_per_kwh"),
        ({"devices": [{"name": "a", "pulses_per_kwh": float("inf")}]}, "pulses_per_kwh"),
        ({"devices": [{"name": "a.b"}]}, "name"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "esp32_http", "devices": [{"name": "a"}], **change}, Options)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(host: str) -> None:
    msgspec.convert({"kind": "esp32_http", "devices": [{"name": "a"}], "host": host}, Options)


def test_a_port_in_use_says_what_to_do(source: Esp32Http) -> None:
    other = Esp32Http("meter", msgspec.structs.replace(source.options, port=source.address[1]))
    with pytest.raises(SourceError) as refused:
        other.open()
    other.close()
    assert refused.value.what == f"port {source.address[1]} on 127.0.0.1 is in use"
    assert refused.value.what_now == "stop the other program or set another port for [sources.meter]"


def test_an_address_of_another_machine_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_TOKEN", "correct horse")
    source = make(host="192.0.2.1", token_env="METER_TOKEN")
    with pytest.raises(SourceError, match="no address of this machine"):
        source.open()
    source.close()


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "above 1023"), (-2, "correct host and port")])
def test_every_refusal_to_listen_has_a_next_step(number: int, words: str) -> None:
    assert words in make()._cannot_listen(OSError(number, "why")).what_now


def test_a_source_opens_again_on_the_same_port_after_it_was_closed(source: Esp32Http) -> None:
    source.options = msgspec.structs.replace(source.options, port=source.address[1])
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        read_until(source, len)
    source.close()
    source.open()
    assert ask(source, post(MESSAGE))[0] == 200


def test_it_can_be_closed_unopened_and_twice() -> None:
    source = make()
    source.close()
    source.open()
    source.close()
    source.close()
    with pytest.raises(SourceError):
        source.read()


def test_connections_that_are_just_arriving_are_closed_without_a_trace(source: Esp32Http) -> None:
    for rounds in range(4):
        clients = [connect(source) for _ in range(5)]
        for client in clients:
            client.sendall(post(MESSAGE))
        for _ in range(rounds):
            source._server.run(0)
        source.close()
        for client in clients:
            answers = Answers(source, client)
            while not answers.closed:
                answers._pull()
            assert b"HTTP/1.1 200" not in answers.received
            client.close()
        source.open()
        assert source.read() == []


# When it answers


def test_a_message_is_answered_only_when_the_next_round_is_asked_for(source: Esp32Http) -> None:
    before = time.monotonic_ns()
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        [reading] = read_until(source, len)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert source.read() == []
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert reading.device == "esp32-meter"
    assert before < reading.at_ns < time.monotonic_ns()
    assert reading.values == {"pulses": 91234, "device_energy_wh": 91234.0, "power_w": 1492.3}
    assert reading.origin == Origin("a1b2", 1)
    assert not source.refused


def test_a_message_is_confirmed_only_when_the_report_channel_has_it(source: Esp32Http) -> None:
    source.options = msgspec.structs.replace(source.options, port=source.address[1])
    source.close()
    worker_end, writer_end = channel.pair()
    vitals = Board().claim("worker", "meter")
    sender = channel.Sender(worker_end, "meter", 1)
    worker = Worker(source, sender, vitals)
    process = threading.Thread(target=worker.run)
    with worker_end, writer_end:
        with pytest.raises(BlockingIOError):
            while True:
                worker_end.send(b"full")
        process.start()
        try:
            wait_for(lambda: vitals["open"])
            with closing(connect(source)) as client:
                client.sendall(post(MESSAGE))
                wait_for(lambda: sender.backlog)
                client.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    client.recv(1)
                while (message := writer_end.recv(100_000)) == b"full":
                    wait_for(lambda: select.select([writer_end], [], [], 0.1)[0])
                [reading] = channel.decode_report(message).readings
                client.settimeout(5)
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
        finally:
            worker.stop()
            process.join()
    assert reading.origin == Origin("a1b2", 1)


def test_a_message_that_nobody_asked_on_for_is_never_confirmed(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        read_until(source, len)
        source.close()
        assert client.recv(1000).startswith(b"HTTP/1.1 503")
        source.open()
    # nor is it taken for known when it comes again
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        assert len(read_until(source, len)) == 1


@pytest.mark.parametrize("path", ["/", "/data", "/api/v1/ingest/pulse", "/data?from=attic"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_every_path_and_content_type_will_do(source: Esp32Http, path: str, content_type: str | None) -> None:
    headers = [f"Content-Type: {content_type}"] if content_type else []
    status, _, body = ask(source, post(MESSAGE, path, *headers))
    assert (status, body) == (200, {"status": "ok", "accepted": 1})


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_curl_gets_its_answer(source: Esp32Http) -> None:
    host, port = source.address
    # so large that curl asks first whether it may send it (Expect: 100-continue)
    padded = json.dumps(MESSAGE).ljust(60_000)
    command = ["curl", "-sS", "-H", "Expect: 100-continue", "-d", "@-", f"http://{host}:{port}/"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdin
        curl.stdin.write(padded)
        curl.stdin.close()
        read_until(source, lambda _: curl.poll() is not None)
        assert curl.stdout
        assert json.loads(curl.stdout.read()) == {"status": "ok", "accepted": 1}


def test_a_browser_is_told_how_to_post(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, body = Answers(source, client).next()
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert b"curl -d" in body
    assert not source.refused


def test_only_the_head_is_answered_to_head(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = Answers(source, client)
        answers.end()
    head, _, body = answers.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""


def test_other_paths_and_methods_are_refused(source: Esp32Http) -> None:
    assert ask(source, post(MESSAGE, "/elsewhere"))[0] == 404
    status, headers, _ = ask(source, b"GET /data HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers["allow"]) == (405, "POST")
    status, headers, _ = ask(source, b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
    assert source.refused == {"malformed": 3}


def test_old_senders_without_keep_alive_are_answered(source: Esp32Http) -> None:
    body = json.dumps(MESSAGE).encode()
    with closing(connect(source)) as client:
        client.sendall(b"POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        answers = Answers(source, client)
        assert answers.next()[0] == 200
        answers.end()


def test_a_sender_that_has_only_finished_speaking_is_answered(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        client.shutdown(socket.SHUT_WR)
        answers = Answers(source, client)
        assert answers.next()[0] == 200
        answers.end()


def test_a_sender_that_does_not_wait_for_its_answer_loses_nothing(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
    assert len(read_until(source, len)) == 1
    source.read()
    assert ask(source, post(MESSAGE))[2] == {"status": "repeated", "accepted": 0}


def test_a_connection_serves_many_messages(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        answers = Answers(source, client)
        for seq in range(5):
            client.sendall(post({**MESSAGE, "seq": seq}))
            assert answers.next()[0] == 200
        client.sendall(post(b"no json"))
        assert answers.next()[0] == 400
        client.sendall(post({**MESSAGE, "seq": 5}))
        assert answers.next()[0] == 200
        assert len(source._server.connections) == 1


def test_messages_sent_without_waiting_are_answered_in_order(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        requests = [post({**MESSAGE, "seq": 1}), post(b"{"), post({**MESSAGE, "seq": 2}), post({**MESSAGE, "seq": 1})]
        client.sendall(b"".join(requests))
        [first] = read_until(source, len)
        with pytest.raises(TimeoutError):
            client.recv(1)
        [second] = read_until(source, len)
        answers = Answers(source, client)
        assert [answers.next()[0] for _ in requests] == [200, 400, 200, 200]
    assert (first.origin, second.origin) == (Origin("a1b2", 1), Origin("a1b2", 2))
    assert source.refused == {"malformed": 1, "repeated": 1}


def test_many_senders_at_once_are_all_answered(source: Esp32Http) -> None:
    statuses: Counter[int] = Counter()

    def send(sender: int) -> None:
        with closing(http.client.HTTPConnection(*source.address)) as connection:
            for seq in range(5):
                connection.request("POST", "/", json.dumps({**MESSAGE, "boot": str(sender), "seq": seq}))
                with connection.getresponse() as response:
                    response.read()
                    statuses[response.status] += 1

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(20)]
    for sender in senders:
        sender.start()
    readings = read_until(source, lambda _: not any(sender.is_alive() for sender in senders))
    assert statuses == {200: 100}
    assert len({(reading.origin.boot, reading.origin.sequence) for reading in readings if reading.origin}) == 100


# Messages that come again


def test_a_repeated_message_is_confirmed_and_not_booked(source: Esp32Http) -> None:
    assert ask(source, post(MESSAGE))[2] == {"status": "ok", "accepted": 1}
    assert ask(source, post(MESSAGE))[2] == {"status": "repeated", "accepted": 0}
    assert source.refused == {"repeated": 1}


def test_a_message_twice_in_one_round_is_one_reading_and_both_wait_for_it(source: Esp32Http) -> None:
    with closing(connect(source)) as one, closing(connect(source)) as two:
        one.sendall(post(MESSAGE))
        two.sendall(post(MESSAGE))
        source.round_s = 1.0
        time.sleep(0.05)  # both requests are in the kernel before the round begins: it takes them at once
        assert len(read_until(source, len)) == 1
        if source.refused["repeated"]:
            with pytest.raises(TimeoutError):
                two.recv(1)
        source.round_s = 0.005
        for client in (one, two):
            assert Answers(source, client).next()[0] == 200
    assert source.refused == {"repeated": 1}


def test_a_backlog_that_is_known_in_part_is_taken_in_part(source: Esp32Http) -> None:
    backlog = [{**MESSAGE, "seq": seq} for seq in range(1, 4)]
    ask(source, post(backlog[:2]))
    assert ask(source, post(backlog))[2] == {"status": "ok", "accepted": 1}
    assert source.refused == {"repeated": 2}


def test_new_values_under_an_old_number_are_taken_unnumbered_and_reported(source: Esp32Http) -> None:
    ask(source, post(MESSAGE))
    with closing(connect(source)) as client:
        client.sendall(post({**MESSAGE, "pulses_total": 5, "ts": 1795180560}))
        [reading] = read_until(source, len)
    assert reading.origin == Origin("", 0, 1795180560 * 10**9)
    assert "numbers two messages the same" in source.troubles["esp32-meter"]
    ask(source, post({**MESSAGE, "seq": 2}))
    assert not source.troubles


def test_only_the_latest_numbers_are_remembered(source: Esp32Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.esp32_http._REMEMBERED", 10)
    ask(source, post([{**MESSAGE, "seq": seq} for seq in range(30)]))
    assert len(source._acknowledged) == 10
    assert ask(source, post({**MESSAGE, "seq": 0}))[2]["status"] == "ok"  # the writer remembers longer


def test_a_meter_that_counts_otherwise_than_configured_is_reported(source: Esp32Http) -> None:
    ask(source, post({**MESSAGE, "imp_per_kwh": 800}))
    assert "counts 800 pulses per kWh, the configuration says 1000" in source.troubles["esp32-meter"]
    ask(source, post({**MESSAGE, "seq": 2, "imp_per_kwh": 1000}))
    assert not source.troubles


# Who may send


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Esp32Http]:
    monkeypatch.setenv("METER_TOKEN", "correct horse")
    with opened(token_env="METER_TOKEN") as source:
        yield source


@pytest.mark.parametrize("header", ["Authorization: Bearer correct horse", "X-API-Key: correct horse"])
def test_the_right_token_opens(guarded: Esp32Http, header: str) -> None:
    assert ask(guarded, post(MESSAGE, "/", header))[0] == 200


@pytest.mark.parametrize(
    "header",
    ["X-Nothing: 1", "Authorization: Bearer wrong", "Authorization: correct horse", "X-API-Key: ", "X-API-Key: corr"],
)
def test_a_missing_or_wrong_token_is_refused(guarded: Esp32Http, header: str) -> None:
    status, headers, body = ask(guarded, post(MESSAGE, "/", header))
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert "correct horse" not in str(body)
    assert guarded.refused == {"unauthorised": 1}


def test_a_token_that_is_not_set_is_an_error_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METER_TOKEN", raising=False)
    source = make(token_env="METER_TOKEN")
    with pytest.raises(SourceError, match="METER_TOKEN is not set"):
        source.open()
    source.close()


def test_a_page_in_a_browser_may_not_post(source: Esp32Http) -> None:
    assert ask(source, post(MESSAGE, "/", "Origin: https://evil.example"))[0] == 403
    assert source.refused == {"unauthorised": 1}


# What a sender may cost


def test_a_body_of_64_kib_is_the_most(source: Esp32Http) -> None:
    most = json.dumps(MESSAGE).ljust(64 * 1024).encode()
    assert ask(source, post(most))[0] == 200
    assert ask(source, post(most + b" "))[0] == 413
    assert source.refused == {"too_large": 1}


def test_a_large_body_is_refused_before_it_is_sent(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        answers = Answers(source, client)
        assert answers.next()[0] == 413
        answers.end()


def test_a_sender_that_goes_on_sending_still_sees_why_it_was_refused(source: Esp32Http) -> None:
    refused: list[int] = []

    def flood() -> None:
        with closing(http.client.HTTPConnection(*source.address)) as connection:
            connection.request("POST", "/", b" " * 2_000_000)
            refused.append(connection.getresponse().status)

    sender = threading.Thread(target=flood)
    sender.start()
    read_until(source, lambda _: not sender.is_alive())
    assert refused == [413]


def test_an_endless_chunked_body_is_cut_off(source: Esp32Http) -> None:
    with closing(connect(source)) as client:
        client.settimeout(5)
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            client.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
            source.read()
        client.settimeout(0.005)
        assert Answers(source, client).next()[0] == 413
    assert source.refused == {"too_large": 1}


def test_a_chunked_message_is_taken(source: Esp32Http) -> None:
    body = json.dumps(MESSAGE).encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(body),
        body,
    )
    assert ask(source, request)[0] == 200


def test_a_length_that_is_too_short_makes_the_rest_a_broken_request(source: Esp32Http) -> None:
    body = json.dumps(MESSAGE).encode()
    with closing(connect(source)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" + body + b"\r\n\r\n")
        answers = Answers(source, client)
        assert [answers.next()[0], answers.next()[0]] == [400, 400]
        answers.end()
    assert source.refused == {"malformed": 2}


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999999999999999999999", b"5, 6"])
def test_a_length_that_is_none_is_refused(source: Esp32Http, length: bytes) -> None:
    status, _, _ = ask(source, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n{}")
    assert status == 400


def test_what_is_no_http_is_refused(source: Esp32Http) -> None:
    assert ask(source, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")[0] == 400
    assert ask(source, b"POST / HTTP/1.1\r\n\r\n")[0] == 400  # no Host
    assert source.refused == {"malformed": 2}


def test_endless_headers_are_cut_off(source: Esp32Http) -> None:
    status, _, _ = ask(source, b"POST / HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"x" * 9000)
    assert status == 431
    assert source.refused == {"too_large": 1}


def test_slow_headers_are_cut_off() -> None:
    with opened(Limits(head_s=0.1)) as source:
        assert ask(source, b"POST / HTTP/1.1\r\nHost:")[0] == 408
        assert source.refused == {"too_slow": 1}


def test_headers_that_trickle_do_not_win_time() -> None:
    with opened(Limits(head_s=0.2)) as source, closing(connect(source)) as client:
        begun = time.monotonic()
        for byte in b"POST / HTTP/1.1\r\nX-Slow: " + b"x" * 100:
            client.send(bytes([byte]))
            source.read()
            if source.refused:
                break
        assert source.refused == {"too_slow": 1}
        assert time.monotonic() - begun < 5


def test_a_slow_body_is_cut_off() -> None:
    with opened(Limits(body_s=0.1)) as source:
        assert ask(source, b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"device"')[0] == 408
        assert source.refused == {"too_slow": 1}


def test_the_slow_start_of_a_second_message_is_cut_off_too() -> None:
    with opened(Limits(head_s=0.1)) as source, closing(connect(source)) as client:
        client.sendall(post(MESSAGE) + b"POST / HT")
        answers = Answers(source, client)
        assert [answers.next()[0], answers.next()[0]] == [200, 408]


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    with opened(Limits(head_s=0.1)) as source, closing(connect(source)) as client:
        answers = Answers(source, client)
        answers.end()
        assert answers.received == b""
        assert not source.refused


def test_an_idle_connection_is_closed() -> None:
    with opened(Limits(idle_s=0.1)) as source, closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        answers = Answers(source, client)
        assert answers.next()[0] == 200
        answers.end()
        assert not source.refused


def test_a_message_may_wait_long_for_its_readings_to_be_safe() -> None:
    with opened(Limits(head_s=0.05, body_s=0.05, idle_s=0.05)) as source, closing(connect(source)) as client:
        client.sendall(post(MESSAGE))
        read_until(source, len)
        time.sleep(0.3)  # the report channel is full: nobody calls read()
        assert Answers(source, client).next()[0] == 200


def test_what_arrived_while_the_house_was_busy_is_not_called_slow() -> None:
    with opened(Limits(head_s=0.05, body_s=0.05)) as source, closing(connect(source)) as client:
        head, _, body = post(MESSAGE).partition(b"\r\n\r\n")
        client.sendall(head + b"\r\n\r\n")
        source.read()
        client.sendall(body)
        time.sleep(0.2)
        assert Answers(source, client).next()[0] == 200


def test_who_does_not_read_its_answers_is_cut_off() -> None:
    with opened(Limits(write_s=0.1)) as source, closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        source._server._listener.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        client.connect(source.address)
        client.settimeout(0.001)
        requests, sent = post(b"no json") * 1000, 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                sent += client.send(requests[sent % len(requests) :])
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
            source.read()
        else:
            pytest.fail("the connection was never cut off")
        read_until(source, lambda _: not source._server.connections)


def test_one_connection_too_many_takes_the_place_of_the_one_that_keeps_us_waiting_longest() -> None:
    with opened(Limits(connections=4)) as source, ExitStack() as clients:
        slow = [clients.enter_context(closing(connect(source))) for _ in range(4)]
        for client in slow:
            client.sendall(b"P")
        read_until(source, lambda _: len(source._server.connections) == 4)
        honest = clients.enter_context(closing(connect(source)))
        honest.sendall(post(MESSAGE))
        assert Answers(source, honest).next()[0] == 200
        assert source.refused == {"too_many": 1}
        read_until(source, lambda _: len(source._server.connections) == 4)
        with pytest.raises(OSError):  # the first one is gone, all others are there
            while slow[0].send(b"O"):
                source.read()
        slow[1].sendall(post(MESSAGE)[1:])
        assert Answers(source, slow[1]).next()[0] == 200


def test_of_several_senders_the_one_with_most_connections_makes_room() -> None:
    with opened(Limits(connections=4)) as source, ExitStack() as clients:
        other = clients.enter_context(closing(socket.socket()))
        other.bind(("127.0.0.2", 0))
        other.connect(source.address)
        other.settimeout(0.005)
        read_until(source, lambda _: len(source._server.connections) == 1)
        for _ in range(4):
            clients.enter_context(closing(connect(source)))
        read_until(source, lambda _: source.refused["too_many"])
        other.sendall(post(MESSAGE))
        assert Answers(source, other).next()[0] == 200


def test_one_connection_too_many_is_told_to_come_back_while_all_others_are_served() -> None:
    with opened(Limits(connections=4)) as source, ExitStack() as clients:
        for _ in range(4):
            clients.enter_context(closing(connect(source))).sendall(post(MESSAGE))
        server = source._server
        while sum(connection.is_served for connection in server.connections) < 4:
            server.run(0.005)  # nobody calls read(), so nothing is answered yet
        late = clients.enter_context(closing(connect(source)))
        late.sendall(post(MESSAGE))
        while not source.refused["too_many"]:
            server.run(0.005)
        answers = Answers(source, late)
        status, headers, _ = answers.next()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
        answers.end()


def test_a_crowd_does_not_pile_up() -> None:
    with opened(Limits(connections=2)) as source:
        clients = [connect(source) for _ in range(20)]
        try:
            read_until(source, lambda _: source.refused["too_many"] >= 2)
            for _ in range(10):
                source.read()
                assert len(source._server.connections) <= 4
        finally:
            for client in clients:
                client.close()
        read_until(source, lambda _: not source._server.connections)
        assert ask(source, post(MESSAGE))[0] == 200


def test_who_goes_on_and_on_behind_its_refusal_is_cut_off() -> None:
    with opened(Limits(body_bytes=1000, linger_s=60.0, linger_bytes=100_000)) as source:
        client = connect(source)
        with closing(client):
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
            answers = Answers(source, client)
            assert answers.next()[0] == 413
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                for _ in range(1000):
                    with suppress(TimeoutError):
                        client.send(b"x" * 10_000)
                    source.read()
        read_until(source, lambda _: not source._server.connections)


def test_sixty_four_connections_are_the_usual_most() -> None:
    assert Limits() == Limits(65536, 8192, 64, 5.0, 10.0, 60.0, 5.0, 2.0, 1024 * 1024)


# What a message may hold


def values(**fields: Any) -> dict[str, Any]:
    [(reading, _)] = decode(json.dumps({"device": "esp32-meter", **fields}).encode(), DEVICES, 0, "meter")
    return dict(reading.values)


def reason(payload: bytes | dict[str, Any] | list[Any]) -> str:
    payload = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(Refused) as refused:
        decode(payload, DEVICES, 0, "meter")
    return refused.value.reason


@pytest.mark.parametrize("name", ["pulses_total", "total_pulses", "pulse_count"])
def test_the_count_has_many_names(name: str) -> None:
    assert values(**{name: 1500}) == {"pulses": 1500, "device_energy_wh": 1500.0}
    assert isinstance(values(**{name: 1500.0})["pulses"], int)


@pytest.mark.parametrize(
    ("field", "said", "wh"),
    [
        ("energy_kwh", 91.5, 91500),
        ("total_kwh", 91.5, 91500),
        ("kwh", 91.5, 91500),
        ("energy", 91, 91000),
        ("energy_wh", 7, 7),
    ],
)
def test_energy_has_many_names(field: str, said: float, wh: float) -> None:
    assert values(**{field: said}) == {"device_energy_wh": wh}


@pytest.mark.parametrize(("field", "said"), [("power_w", 1500), ("power", 1500.0), ("power_kw", 1.5), ("kw", "1.5")])
def test_power_has_many_names(field: str, said: object) -> None:
    assert values(**{field: said}) == {"power_w": 1500.0}


def test_the_count_wins_over_the_energy_that_firmware_made_of_it() -> None:
    assert values(pulses_total=1500, energy_kwh=99) == {"pulses": 1500, "device_energy_wh": 1500.0}


def test_pulses_since_the_last_message_alone_are_refused() -> None:
    assert reason({"device": "esp32-meter", "pulses": 7, "boot": "a", "seq": 1}) == "malformed"
    assert values(pulses=7, power_w=5) == {"power_w": 5.0}


def test_null_is_nothing() -> None:
    assert values(pulses_total=5, power_w=None, ts=None, boot=None, age_ms=None) == {
        "pulses": 5,
        "device_energy_wh": 5.0,
    }
    assert values(power_w=None, power=3) == {"power_w": 3.0}


def test_export_is_negative_power() -> None:
    assert values(power_w=-3600) == {"power_w": -3600.0}


@pytest.mark.parametrize("power_w", [25000.1, -25000.1, 1e300, 10**400, "25001"])
def test_impossible_power_is_refused_and_not_clamped(power_w: object) -> None:
    assert reason({"device": "esp32-meter", "power_w": power_w}) in ("out_of_range", "not_finite")


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"nan"', b'"-inf"', b"9" * 5000])
def test_what_is_not_finite_is_refused(token: bytes) -> None:
    assert reason(b'{"device": "esp32-meter", "power_w": %s}' % token) == "not_finite"


@pytest.mark.parametrize("said", [True, False, "", "abc", "1_000", " 5", "0x10", [], {}, "٣"])
def test_what_is_no_number_is_refused(said: object) -> None:
    assert reason({"device": "esp32-meter", "power_w": said}) == "malformed"
    assert reason({"device": "esp32-meter", "pulses_total": said}) == "malformed"


@pytest.mark.parametrize(("said", "why"), [(-1, "out_of_range"), (2**53 + 1, "out_of_range"), (1.5, "malformed")])
def test_what_is_no_count_is_refused(said: float, why: str) -> None:
    assert reason({"device": "esp32-meter", "pulses_total": said}) == why
    assert reason({"device": "esp32-meter", "power_w": 1, "boot": "a", "seq": said}) == why


@pytest.mark.parametrize("boot", [True, "", "two words", "tab\t", "\ud800", "x" * 65, [], 1.5])
def test_a_boot_that_names_nothing_is_refused(boot: object) -> None:
    assert reason({"device": "esp32-meter", "power_w": 1, "boot": boot, "seq": 1}) == "malformed"


def test_a_message_is_numbered_only_by_boot_and_sequence_together() -> None:
    def origin(**fields: Any) -> Origin | None:
        payload = json.dumps({"device": "solar", "power_w": 1, **fields}).encode()
        return decode(payload, DEVICES, 0, "meter")[0].reading.origin

    assert origin() is origin(seq=5) is origin(boot="a") is origin(ts=0) is origin(ts="2026-11-20") is None
    assert origin(boot=3735928559, seq="5") == Origin("3735928559", 5)
    assert origin(ts=1795180560) == Origin("", 0, 1795180560 * 10**9)
    assert origin(boot="a", seq=5, timestamp=848495760123) == Origin("a", 5, 1795180560_123 * 10**6)


def test_age_moves_a_reading_back_in_time() -> None:
    payload = json.dumps([{"device": "solar", "power_w": 1, "age_ms": age} for age in (60_000, 0)]).encode()
    assert [reading.at_ns for reading, _ in decode(payload, DEVICES, 0, "meter")] == [-60_000_000_000, 0]
    assert reason({"device": "solar", "power_w": 1, "age_ms": -1}) == "out_of_range"
    assert reason({"device": "solar", "power_w": 1, "age_ms": 8 * 86_400_000}) == "stale"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"device=esp32-meter&power=5",
        b'{"device": "esp32-meter", "power_w": 1} trailing',
        b'{"device": "esp32-meter", "power_w": 1, "power_w": 2}',
        b'{"device": "\xff"}',
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"5",
        b"null",
        b'"text"',
        b"[[]]",
        b"[1]",
    ],
)
def test_what_is_no_json_message_is_a_bad_request(source: Esp32Http, payload: bytes) -> None:
    status, _, body = ask(source, post(payload))
    assert status == 400
    assert body["what_now"].startswith("send one JSON object")
    assert source.refused == {"malformed": 1}


def test_json_from_windows_is_json() -> None:
    assert decode(b'\xef\xbb\xbf{"device": "solar", "power_w": 1}', DEVICES, 0, "meter")


def test_an_unknown_device_is_told_which_table_to_add(source: Esp32Http) -> None:
    status, _, body = ask(source, post({**MESSAGE, "device": "attic"}))
    assert (status, body["error"]) == (422, 'no device "attic" is configured')
    assert '[[sources.meter.devices]] with name = "attic"' in body["what_now"]
    assert source.refused == {"unknown_device": 1}


@pytest.mark.parametrize("name", ["a.b", "a\nERROR forged", "a=1,b", "\u202eevil", "\x1b[31m", "x" * 64, "", "\ud800"])
def test_a_name_that_cannot_be_configured_is_never_repeated(source: Esp32Http, name: str) -> None:
    status, _, body = ask(source, post({**MESSAGE, "device": name}))
    assert (status, body["error"]) == (422, "the name of the device cannot be one")
    assert source.refused == {"unknown_device": 1}


def test_a_message_without_a_device_is_told_the_names() -> None:
    assert reason({"power_w": 1}) == reason({"device": ["solar"], "power_w": 1}) == "malformed"


def test_a_backlog_is_taken_as_a_whole_or_not_at_all(source: Esp32Http) -> None:
    backlog = [{**MESSAGE, "seq": seq} for seq in range(200)]
    assert ask(source, post([*backlog[:3], {**MESSAGE, "device": "attic"}]))[0] == 422
    assert ask(source, post(backlog))[2] == {"status": "ok", "accepted": 200}
    status, _, _ = ask(source, post([{"device": "solar", "power_w": 1}] * 201))
    assert status == 413
    assert ask(source, post([]))[0] == 422
    assert source.refused == {"unknown_device": 1, "too_large": 1, "malformed": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1e999", "-5", "nan"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("pulses_total", "pulse_count", "energy", "kwh", "power_w", "kw", "boot", "seq", "ts", "age_ms", "imp_per_kwh")
PLAUSIBLE = st.fixed_dictionaries(
    {"device": st.sampled_from([*DEVICES, "attic"]) | JSON},
    optional={name: st.integers(0, 20_000) | st.floats() | JSON for name in FIELDS},
)


def check_decoded(payload: bytes) -> None:
    try:
        messages = decode(payload, DEVICES, 10**15, "meter")
    except Refused as refused:
        assert refused.reason in REFUSALS
        assert f"{refused}".isprintable()
        return
    for reading, trouble in messages:
        assert reading.device in DEVICES
        assert reading.values.keys() <= METRICS
        assert reading.values
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in reading.values.values())
        assert 10**15 - 7 * 86_400 * 10**9 <= reading.at_ns <= 10**15
        assert trouble.isprintable()
        assert msgspec.json.decode(msgspec.json.encode(reading), type=Reading) == reading
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(reading), type=Reading) == reading


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_become_readings(payload: bytes) -> None:
    check_decoded(payload)


@settings(deadline=None)
@given(JSON | PLAUSIBLE | st.lists(PLAUSIBLE, max_size=3))
def test_any_json_is_refused_or_becomes_readings(content: Any) -> None:
    check_decoded(json.dumps(content).encode())


@settings(deadline=None)
@given(st.integers(0, 2**53), st.floats(1, 1_000_000))
def test_energy_is_what_the_count_says(pulses: int, pulses_per_kwh: float) -> None:
    meter = {"m": Device(name="m", pulses_per_kwh=pulses_per_kwh)}
    [(reading, _)] = decode(json.dumps({"device": "m", "pulses_total": pulses}).encode(), meter, 0, "meter")
    assert reading.values["pulses"] == pulses
    assert reading.values["device_energy_wh"] == pytest.approx(pulses / pulses_per_kwh * 1000)


def test_a_refusal_to_parse_is_a_refusal() -> None:
    assert issubclass(NotJson, Refused)
