"""A wire between the house and a sink that breaks on demand, in every way in which a network or a server breaks."""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import threading
from types import TracebackType
from typing import Self

from tests.peers.fakes import reset

_LOOK_S = 0.05
_AT_ONCE = 65536


class Way(enum.Enum):
    """How it breaks."""

    WHOLE = "nothing is wrong"
    REFUSED = "nobody listens"
    RESET = "connections are reset"
    BLACK_HOLE = "nothing ever comes back"
    BUSY = "it answers 429"
    BROKEN = "it answers 500"
    HALF_AN_ANSWER = "it is cut in the middle of an answer, or of what it was sent"


ANSWERS = {
    Way.BUSY: b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy",
    Way.BROKEN: b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nalas!",
}


class Proxy:
    """Passes on to `target`, which `answers` or only listens, what comes to `port`, while nothing is wrong."""

    def __init__(self, target: int, *, answers: bool = True) -> None:
        self._target = target
        self._answers = answers
        self._way = Way.WHOLE
        self._leaving = threading.Event()
        self._breaks = 0  # how often it broke or was mended, not counting what leaves connections open
        self._guard = threading.Lock()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        self.breaks(Way.REFUSED)
        self._threads[0].join(10)

    def breaks(self, way: Way) -> None:
        """Break so from now on; connections that are open break with it."""
        with self._guard:
            self._way = way
            if way is not Way.BLACK_HOLE:
                self._breaks += 1
            if way is Way.REFUSED and self._listener:
                self._listener.close()
                self._listener = None
            elif way is not Way.REFUSED and not self._listener:
                self._listener = socket.create_server(("127.0.0.1", self.port))

    def mends(self) -> None:
        self.breaks(Way.WHOLE)

    def _accept(self) -> None:
        while not self._leaving.is_set():
            listener = self._listener
            if listener is None:
                self._leaving.wait(_LOOK_S)
                continue
            with contextlib.suppress(OSError, ValueError):
                if select.select([listener], [], [], _LOOK_S)[0]:
                    connection, _ = listener.accept()
                    threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._guard:
            way, breaks = self._way, self._breaks
        with client, contextlib.suppress(OSError):
            try:
                if way is Way.BLACK_HOLE:
                    while self._way is way and not self._leaving.wait(_LOOK_S):
                        pass
                elif way in ANSWERS:
                    self._say(client, ANSWERS[way])
                    return
                elif way is not Way.RESET and self._pass_on(client, way, breaks):
                    return
            except OSError:
                pass
            # Never an orderly end: to whoever sends to carbon, that says that all was read.
            reset(client)

    def _say(self, client: socket.socket, answer: bytes) -> None:
        """Read a request to its end, as far as it says where that is, and answer it."""
        client.settimeout(2)
        received = b""
        while b"\r\n\r\n" not in received:
            if not (chunk := client.recv(_AT_ONCE)):
                return
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        while missing > 0 and (chunk := client.recv(_AT_ONCE)):
            missing -= len(chunk)
        client.sendall(answer)

    def _pass_on(self, client: socket.socket, way: Way, breaks: int) -> bool:
        """Carry bytes both ways, and return whether to the end; one that breaks half-way carries only the first few."""
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            peers = {client: server, server: client}
            while peers:
                if self._way is Way.BLACK_HOLE:  # what is open stays so, and nothing moves
                    if self._leaving.wait(_LOOK_S):
                        return False
                    continue
                if self._breaks != breaks:
                    return False
                for each in select.select(list(peers), [], [], _LOOK_S)[0]:
                    chunk = each.recv(_AT_ONCE)
                    if not chunk:
                        peers.pop(each).shutdown(socket.SHUT_WR)
                    elif way is Way.HALF_AN_ANSWER and (each is server or not self._answers):
                        peers[each].sendall(chunk[: max(1, len(chunk) // 2)])
                        return False
                    else:
                        peers[each].sendall(chunk)
        return True
