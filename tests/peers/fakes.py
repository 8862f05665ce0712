"""Peers that misbehave on demand, on real sockets: what no real server can be asked to do at the right moment."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.peers.process import require

_A_TEST_AT_MOST_S = 30.0


def reset(connection: socket.socket) -> None:
    """Close with RST, as a crashed host does when it is back."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def self_signed_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 and its key, both in one file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    return certificate


class CarbonMood(Enum):
    LISTENS = "reads to the end, then closes"
    NEVER_CLOSES = "reads to the end and keeps the connection"
    DRIPS = "sends a byte now and then, and keeps the connection"
    RESETS = "reads some bytes, then resets"
    LEAVES_EARLY = "closes its half before it has read everything"


class RecordingCarbon:
    """Listens like carbon. `lines` has every whole line that was read; half a line is dropped, as carbon does."""

    def __init__(self, mood: CarbonMood = CarbonMood.LISTENS, *, reads_at_most: int = 1000) -> None:
        self.mood = mood
        self.lines: list[str] = []
        self.connections = 0
        self.read_to_the_end = threading.Event()
        self.may_close = threading.Event()  # clear it to have the last FIN wait
        self.may_close.set()
        self._reads_at_most = reads_at_most
        self._leaving = threading.Event()
        self._listener = socket.socket()
        # A small window, so that a sender notices who does not read.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        self.may_close.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_A_TEST_AT_MOST_S)
        self._listener.close()

    def _accept(self) -> None:
        while not self._leaving.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if self.mood is CarbonMood.RESETS:
                connection.recv(self._reads_at_most)
                reset(connection)
                return
            if self.mood is CarbonMood.LEAVES_EARLY:
                connection.recv(self._reads_at_most)
                connection.shutdown(socket.SHUT_WR)
                self._leaving.wait(_A_TEST_AT_MOST_S)
                return
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
                *whole, received = received.split(b"\n")
                self.lines += [line.decode("ascii") for line in whole]
            self.read_to_the_end.set()
            if self.mood is CarbonMood.DRIPS:
                while not self._leaving.wait(0.02):
                    connection.send(b".")
            elif self.mood is CarbonMood.NEVER_CLOSES:
                self._leaving.wait(_A_TEST_AT_MOST_S)
            self.may_close.wait(_A_TEST_AT_MOST_S)


@dataclass(frozen=True)
class Says:
    """An answer of a server that behaves."""

    status: int = 204
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class InfluxMood(Enum):
    RESETS_IN_THE_BODY = "reads the head and some of the body, then resets"
    BLACK_HOLE = "reads everything and never answers"
    HALF_AN_ANSWER = "closes in the middle of the status line"
    DRIPS = "answers a byte at a time, never to the end"


@dataclass(frozen=True)
class Request:
    target: str
    headers: dict[str, str]  # names in lower case
    lines: list[bytes]


class RecordingInflux:
    """Listens like InfluxDB. `stored` has the last of every line by series and time; `requests` all that was asked.

    Lines for which `refuses` is true are answered with 400 while the others of the same request are stored, which is
    what InfluxDB calls a partial write.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.stored: dict[tuple[bytes, bytes], bytes] = {}
        self.refuses: Callable[[bytes], bool] = lambda line: False
        self.most_lines = 10**9  # more are answered with 413
        self.connections = 0
        self._next: deque[Says | InfluxMood] = deque()
        self._leaving = threading.Event()
        self._open: list[socket.socket] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer.connections += 1
                outer._open.append(self.connection)

            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # connections break here on purpose

            def shutdown_request(self, request: Any) -> None:
                with contextlib.suppress(OSError):
                    super().shutdown_request(request)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.url = self.url.replace("http", "https")

    def then(self, *answers: Says | InfluxMood) -> None:
        """Answer the next requests so, and those after them as usual."""
        self._next.extend(answers)

    def hang_up(self) -> None:
        """Close every connection that is open, as an idle server does."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        self._server.shutdown()
        self.hang_up()
        self._thread.join(_A_TEST_AT_MOST_S)
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        answer = self._next.popleft() if self._next else None
        length = int(handler.headers["Content-Length"])
        if answer is InfluxMood.RESETS_IN_THE_BODY:
            handler.rfile.read(length // 2)
            handler.close_connection = True
            reset(handler.connection)
            return
        body = handler.rfile.read(length)
        if handler.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = Request(
            handler.path, {name.lower(): value for name, value in handler.headers.items()}, body.splitlines()
        )
        self.requests.append(request)
        if isinstance(answer, InfluxMood):
            handler.close_connection = True
        if answer is InfluxMood.BLACK_HOLE:
            self._leaving.wait(_A_TEST_AT_MOST_S)
        elif answer is InfluxMood.HALF_AN_ANSWER:
            handler.wfile.write(b"HTTP/1.1 20")
        elif answer is InfluxMood.DRIPS:
            handler.wfile.write(b"HTTP/1.1 204 No Content\r\nX-Slow: ")
            while not self._leaving.wait(0.02):
                handler.wfile.write(b".")
        else:
            self._say(handler, answer if isinstance(answer, Says) else self._store(request))

    def _store(self, request: Request) -> Says:
        if len(request.lines) > self.most_lines:
            return Says(413, b'{"error":"Request Entity Too Large"}')
        refused = [line for line in request.lines if self.refuses(line)]
        for line in request.lines:
            if line not in refused:
                series, _, rest = line.partition(b" ")
                self.stored[series, rest.rpartition(b" ")[2]] = line
        if refused:
            return Says(400, b'{"error":"partial write: field type conflict dropped=%d"}' % len(refused))
        return Says()

    def _say(self, handler: BaseHTTPRequestHandler, answer: Says) -> None:
        handler.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            handler.send_header(name, value)
        if answer.status != 204:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)
