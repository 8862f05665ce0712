"""A broker that says what a test wants: for refusals that no Mosquitto can be talked into."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Answer = Callable[[int, bytes], bytes | None]  # kind of packet, its body; what to send, None to hang up

CONNECT, SUBSCRIBE, PINGREQ = 1, 8, 12
WELCOME = b"\x20\x02\x00\x00"


def suback(body: bytes, codes: Callable[[str], int]) -> bytes:
    """Answer a SUBSCRIBE, each filter with its own code: 0x80 is no."""
    number, rest, granted = body[:2], body[2:], b""
    while rest:
        length = int.from_bytes(rest[:2], "big")
        granted += bytes([codes(rest[2 : 2 + length].decode())])
        rest = rest[3 + length :]
    return bytes([0x90, 2 + len(granted)]) + number + granted


def published(topic: str, payload: bytes) -> bytes:
    """A PUBLISH with QoS 0."""
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    assert len(body) < 128
    return bytes([0x30, len(body)]) + body


@contextlib.contextmanager
def fake_broker(answer: Answer) -> Iterator[int]:
    """Serve on a port of 127.0.0.1, one client after the other, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        leaving = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, answer, leaving))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            leaving.set()
            with contextlib.suppress(OSError):
                socket.create_connection(server.getsockname(), timeout=1).close()
            thread.join(10)


def _serve(server: socket.socket, answer: Answer, leaving: threading.Event) -> None:
    while not leaving.is_set():
        client, _ = server.accept()
        with client, contextlib.suppress(OSError):
            client.settimeout(0.2)
            _talk(client, answer, leaving)


def _talk(client: socket.socket, answer: Answer, leaving: threading.Event) -> None:
    while not leaving.is_set():
        try:
            head = client.recv(1)
        except TimeoutError:
            continue
        if not head:
            return
        length = shift = 0
        while True:
            (digit,) = client.recv(1)
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                break
        body = b""
        while len(body) < length:
            body += client.recv(length - len(body))
        words = answer(head[0] >> 4, body)
        if words is None:
            return
        client.sendall(words)
