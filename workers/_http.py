"""A small HTTP server for sources that are posted to: one thread, strict limits, answers that may wait for a round.

The loop turns only inside `run()`, so nothing happens behind the back of a source, and a request that the source has
taken may stay open until its readings are safe. The wire itself is h11's; this file adds what a stranger may cost us.
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import h11


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sender may cost."""

    body_bytes: int = 64 * 1024
    head_bytes: int = 8 * 1024
    connections: int = 64
    head_s: float = 5.0  # from the first byte of a request (or the connection) to the end of its headers
    body_s: float = 10.0  # from there to the end of its body
    idle_s: float = 60.0  # between two requests of one connection
    write_s: float = 5.0  # until the other side has taken an answer
    linger_s: float = 2.0  # from the last answer until the other side closes
    linger_bytes: int = 1024 * 1024  # what it may send meanwhile


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. Header names are lower case, values are what was sent."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; one with a `reason` of `vitals.REFUSALS` is counted as a refusal."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    reason: str = ""


Reply = Callable[[Answer], None]


def success(**fields: object) -> Answer:
    return Answer(200, _json(fields))


def refusal(status: int, reason: str, what: str, what_now: str, *headers: tuple[str, str]) -> Answer:
    """Refuse a request: what is wrong, and what its sender should do now."""
    body = _json({"error": what, "what_now": what_now})
    return Answer(status, body, (("Content-Type", "application/json"), *headers), reason)


class Server:
    """Listens on one address.

    `admit(request)` sees the headers and may end a request right there. `receive(body, reply)` answers at once, or
    returns None and calls `reply(answer)` in a later round. Refusals are counted in `refused`.
    """

    def __init__(
        self,
        admit: Callable[[Request], Answer | None],
        receive: Callable[[bytes, Reply], Answer | None],
        refused: Counter[str],
        limits: Limits,
    ) -> None:
        self.admit = admit
        self.receive = receive
        self.refused = refused
        self.limits = limits
        self.connections: set[_Connection] = set()
        self.loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None

    def open(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address. Raise `OSError` where that is not possible."""
        listening = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        self._listener = self.loop.run_until_complete(
            self.loop.create_server(lambda: _Connection(self), sock=listening)
        )
        address: tuple[str, int] = listening.getsockname()[:2]
        return address

    def run(self, at_most_s: float) -> None:
        """Serve until `stop()` is called, or for so long."""
        timer = self.loop.call_later(at_most_s, self.loop.stop)
        self.loop.run_forever()
        timer.cancel()

    def stop(self) -> None:
        """End `run()` once everything is done that has arrived with what called this."""
        self.loop.stop()

    def close(self, at_most_s: float = 0.5) -> None:
        """Stop listening, tell those who wait for an answer that none will come, and let go of everything."""
        if self._listener:
            for listening in self._listener.sockets:
                self.loop.remove_reader(listening)
            # Each task is accepting a connection, and would leak it if the listener were gone.
            while asyncio.all_tasks(self.loop):
                self.run(0)
            self._listener.close()
        for connection in list(self.connections):
            connection.close()
        if self.connections:
            self.run(at_most_s)
        for connection in list(self.connections):
            connection.abort()
        self.run(0)
        self.loop.close()

    def make_room(self) -> bool:
        """For one more connection, let go of one; False where the requests of all are in the hands of the source.

        It is one of the sender that holds the most of them, and of those the one that keeps us waiting longest: nobody
        who says a letter at a time on all the connections that there may be keeps a meter out.
        """
        held = [connection for connection in self.connections if not connection.is_ending]
        if len(held) < self.limits.connections:
            return True
        crowds = Counter(connection.host for connection in held)
        waiting = [connection for connection in held if not connection.is_served]
        if not waiting:
            return False
        longest = min(waiting, key=lambda connection: (-crowds[connection.host], connection.waiting_since_s))
        self.refused["too_many"] += 1
        longest.abort()
        return True

    def left(self, connection: _Connection) -> None:
        """Forget a connection that is gone."""
        self.connections.discard(connection)
        if not self.connections and not (self._listener and self._listener.is_serving()):
            self.stop()


_NO_REQUEST = Request("", "", {})
_BOTH_DONE = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


class _Phase(enum.Enum):
    IDLE = enum.auto()  # nothing of the next request has arrived
    HEAD = enum.auto()
    BODY = enum.auto()
    PENDING = enum.auto()  # the source has the request and has not answered
    LINGERING = enum.auto()  # the last answer is out: what still arrives is thrown away


class _Connection(asyncio.Protocol):
    """One sender. A callback per event and no coroutine: what has arrived always comes before a deadline."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.head_bytes)
        self._phase = _Phase.IDLE
        self._request = _NO_REQUEST
        self._body = bytearray()
        self._thrown_away = 0  # bytes that came after the last answer
        self._deadline: asyncio.TimerHandle | None = None
        self._unwritten: asyncio.TimerHandle | None = None  # runs while the other side does not take our answer
        self.host = ""
        self.waiting_since_s = server.loop.time()  # for a request that is whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # mypy: the loop hands every stream protocol a transport that reads and writes
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)
        self.host = str((transport.get_extra_info("peername") or ("",))[0])
        limits = self._server.limits
        has_room = self._server.make_room()
        self._server.connections.add(self)
        if len(self._server.connections) > 2 * limits.connections:
            self.abort()
            return
        self._enter(_Phase.IDLE, limits.head_s)
        if not has_room:
            what_now = "close connections that are not needed, then try again"
            answer = refusal(503, "too_many", "too many connections at once", what_now, ("Retry-After", "5"))
            self._answer(answer, last=True)

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.LINGERING:
            self._thrown_away += len(data)
            if self._thrown_away > self._server.limits.linger_bytes:
                self.abort()
            return
        if self._phase is _Phase.IDLE:
            self._enter(_Phase.HEAD, self._server.limits.head_s)
        self._feed(data)

    def eof_received(self) -> bool:
        if self._phase is not _Phase.LINGERING:
            self._feed(b"")
        return self._phase is _Phase.PENDING  # whoever has only finished speaking still gets an answer

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._unwritten):
            if timer:
                timer.cancel()
        self._server.left(self)

    def pause_writing(self) -> None:
        self._unwritten = self._server.loop.call_later(self._server.limits.write_s, self.abort)
        self._listen()

    def resume_writing(self) -> None:
        if self._unwritten:
            self._unwritten.cancel()
        self._unwritten = None
        self._listen()

    @property
    def is_ending(self) -> bool:
        return self._phase is _Phase.LINGERING or self._transport.is_closing()

    @property
    def is_served(self) -> bool:
        """Whether the source has a whole request of it."""
        return self._phase is _Phase.PENDING

    def close(self) -> None:
        if self._phase is _Phase.PENDING:
            what_now = "send it again in a few seconds"
            self._answer(refusal(503, "", "the receiver is being stopped", what_now, ("Retry-After", "5")), last=True)
        elif self._phase is not _Phase.LINGERING:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _feed(self, data: bytes | None = None) -> None:
        try:
            if data is not None:
                self._http.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            reason = "too_large" if status == 431 else "malformed"
            what_now = "send HTTP/1.1, headers of at most 8 KiB and the real Content-Length"
            what = f"this is no HTTP request: {str(error)[:200]}"
            self._answer(refusal(status, reason, what, what_now), last=True)

    def _advance(self) -> None:
        """Go on with what has arrived, until more is needed or the source has to answer first."""
        while self._phase not in (_Phase.PENDING, _Phase.LINGERING):
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data):
                self._body += event.data
                self._check_size(len(self._body))
            elif isinstance(event, h11.EndOfMessage):
                self._enter(_Phase.PENDING)
                if answer := self._server.receive(bytes(self._body), self._reply):
                    self._answer(answer)
            elif isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            else:  # more is needed; a part of the next request may be here already
                if self._phase is _Phase.IDLE and self._http.trailing_data[0]:
                    self._enter(_Phase.HEAD, self._server.limits.head_s)
                return

    def _begin(self, head: h11.Request) -> None:
        headers = dict(head.headers)
        path = head.target.split(b"?")[0].decode("ascii", "replace")
        self._request = Request(head.method.decode("ascii", "replace"), path, headers)
        self._body.clear()
        self._enter(_Phase.BODY, self._server.limits.body_s)
        if answer := self._server.admit(self._request):
            self._answer(answer, last=True)  # its body may be on the way still, and nobody is going to read it
            return
        self._check_size(int(headers.get(b"content-length", b"0")))
        if self._phase is _Phase.BODY and self._http.they_are_waiting_for_100_continue:
            self._transport.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")

    def _check_size(self, size: int) -> None:
        most = self._server.limits.body_bytes
        if size > most:
            answer = refusal(413, "too_large", f"the body is larger than {most} bytes", "send fewer messages at once")
            self._answer(answer, last=True)

    def _reply(self, answer: Answer) -> None:
        """Answer in a later round, then turn to what arrived meanwhile."""
        if self._phase is not _Phase.PENDING or self._transport.is_closing():
            return
        self._answer(answer)
        self._feed()

    def _answer(self, answer: Answer, *, last: bool = False) -> None:
        if answer.reason:
            self._server.refused[answer.reason] += 1
        if self._transport.is_closing() or self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._transport.close()  # the other side has left in the middle of a request
            return
        self._transport.write(self._encode(answer, last=last))
        if not last and self._http.states == _BOTH_DONE:
            self._http.start_next_cycle()
            self._request = _NO_REQUEST
            self.waiting_since_s = self._server.loop.time()
            self._enter(_Phase.IDLE, self._server.limits.idle_s)
        else:
            # Closing with unread bytes in the kernel makes it send a reset, which can overtake the answer.
            self._enter(_Phase.LINGERING, self._server.limits.linger_s)
            try:
                self._transport.write_eof()
            except OSError:
                self.abort()  # the other side is gone already

    def _encode(self, answer: Answer, *, last: bool) -> bytes:
        headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
        if last:
            headers.append(("Connection", "close"))
        events: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
        if self._request.method != "HEAD":
            events.append(h11.Data(data=answer.body))
        events.append(h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    def _enter(self, phase: _Phase, deadline_s: float | None = None) -> None:
        self._phase = phase
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self._server.loop.call_later(deadline_s, self._too_late) if deadline_s is not None else None
        self._listen()

    def _too_late(self) -> None:
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            answer = refusal(408, "too_slow", "the request did not arrive in time", "send it again, in one go")
            self._answer(answer, last=True)
        else:
            self.abort()

    def _listen(self) -> None:
        """Read on, unless the sender has to wait for an answer or does not take one: nobody fills our memory."""
        if self._phase is _Phase.PENDING or self._unwritten:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
