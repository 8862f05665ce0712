"""The tap: what the writer has just derived, on its way to the api before it is on the disk. It is lossy on purpose.

One `SOCK_SEQPACKET` pair for the whole life of the house; the parent keeps both ends. The writer puts in what the
kernel takes and drops the rest, so an api that is slow, stopped or away holds nobody up. What a dead api left unread
its successor finds, and knows by its `at_ns` that it is old.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from reading import Clock, Reading

_LARGEST_MESSAGE: Final = 256 * 1024  # beyond what a socket's buffer holds


class Drop(Struct, frozen=True, array_like=True):
    """Some readings of one source, with their registers, costs and states, as they are about to be committed."""

    source: str
    offset_ns: int  # UTC minus CLOCK_MONOTONIC, the best that is known
    clock: Clock | None  # None: the clock is not set yet, and the readings will wait for it
    readings: list[Reading]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Drop).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Make a tap: the writer's end and the api's end."""
    writer_end, api_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    writer_end.setblocking(False)
    api_end.setblocking(False)
    return writer_end, api_end


class Spout:
    """The writer's side. It never blocks and never fails; without an end it does nothing."""

    def __init__(self, end: socket.socket | None = None) -> None:
        self._end = end

    def let_out(self, source: str, readings: Sequence[Reading], offset_ns: int, clock: Clock | None) -> None:
        """Show readings to the api, or drop them."""
        if self._end is None or not readings:
            return
        try:
            self._end.send(_encode(Drop(source, offset_ns, clock, [*readings])))
        except (OSError, ValueError):  # full, too large, shut by its other side, or a number that no wire has
            pass


class Basin:
    """The api's side."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def drops(self, most: int) -> Iterator[Drop]:
        """Yield what has arrived, but not more than `most`, so that whoever asks gets to something else too."""
        for _ in range(most):
            try:
                message = self._end.recv(_LARGEST_MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            if not message:
                return
            try:
                yield _decode(message)
            except ValueError:  # of a writer of another version, say; the next one comes in a moment
                continue
