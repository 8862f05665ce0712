"""The report channel: how readings get from a worker to the writer, whoever is killed on the way.

Each worker has one `SOCK_SEQPACKET` pair for its whole life; the parent keeps both ends, so what the kernel accepted
outlives the worker and the writer alike. The writer peeks, commits what it saw together with the stream's watermark in
one transaction, and only then consumes. Killed in between, its successor peeks the same messages again and knows them
by their numbers.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from reading import Reading

MOST_READINGS: Final = 200  # in one message: the price of a message is per message, not per byte
MOST_BYTES: Final = 16 * 1024
MOST_BACKLOG: Final = 20_000  # readings that a worker holds back while the channel is full
_LARGEST_MESSAGE: Final = 64 * 1024  # what the writer looks at; a longer one is a dead letter
_SO_PEEK_OFF: Final = 42  # asm-generic/socket.h; Python has no name for it


class Report(Struct, frozen=True, array_like=True):
    """One message. (stream, incarnation, sequence) is its number, used once in the whole life of a site."""

    stream: str  # the source's name in the configuration
    incarnation: int  # rises with every start of the worker, handed out by the parent
    sequence: int  # rises by one a message
    readings: list[Reading]
    urgent: bool = False  # commit now rather than at the end of the commit interval


_encode = msgspec.msgpack.Encoder().encode
decode_report = msgspec.msgpack.Decoder(Report).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Make a channel: the worker's end and the writer's end."""
    worker_end, writer_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker_end.setblocking(False)
    writer_end.setblocking(False)
    return worker_end, writer_end


class Sender:
    """The worker's side. It never blocks: what the kernel does not take waits in a bounded backlog, oldest first."""

    def __init__(self, end: socket.socket, stream: str, incarnation: int, *, most_backlog: int = MOST_BACKLOG) -> None:
        self._end = end
        self._stream = stream
        self._incarnation = incarnation
        self._sequence = 0
        self._most_backlog = most_backlog
        self._waiting: deque[tuple[bytes, int]] = deque()  # an encoded message, and how many readings it has
        self.backlog = 0  # readings that wait
        self.sent = 0  # readings that the kernel took: from here on none is lost by a kill
        self.dropped = 0  # readings that fell out of the backlog or are too large for a message

    def report(self, readings: Sequence[Reading], *, urgent: bool = False) -> None:
        """Send `readings`, or put them behind those that wait already."""
        for message, count in self._messages(readings, urgent=urgent):
            self._waiting.append((message, count))
            self.backlog += count
        self.flush()
        while self.backlog > self._most_backlog:
            _, count = self._waiting.popleft()
            self.backlog -= count
            self.dropped += count

    def flush(self) -> bool:
        """Send what waits, as far as the kernel takes it; return whether all is gone."""
        while self._waiting:
            message, count = self._waiting[0]
            try:
                self._end.send(message)
            except BlockingIOError:
                return False
            self._waiting.popleft()
            self.backlog -= count
            self.sent += count
        return True

    def wait(self, timeout_s: float) -> None:
        """Wait until the kernel would take something more."""
        poll = select.poll()
        poll.register(self._end, select.POLLOUT)
        poll.poll(timeout_s * 1000)

    def _messages(self, readings: Sequence[Reading], *, urgent: bool) -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(readings), MOST_READINGS):
            yield from self._fit(list(readings[start : start + MOST_READINGS]), urgent=urgent)

    def _fit(self, readings: list[Reading], *, urgent: bool) -> Iterator[tuple[bytes, int]]:
        message = _encode(Report(self._stream, self._incarnation, self._sequence + 1, readings, urgent))
        if len(message) <= MOST_BYTES:
            self._sequence += 1
            yield message, len(readings)
        elif len(readings) == 1:
            self.dropped += 1
        else:
            half = len(readings) // 2
            yield from self._fit(readings[:half], urgent=urgent)
            yield from self._fit(readings[half:], urgent=urgent)


class Receiver:
    """The writer's side of one channel: look at messages without taking them, take them when they are committed."""

    def __init__(self, end: socket.socket, stream: str, *, offsets: bool = True) -> None:
        self._end = end
        self.stream = stream
        self.ended = False  # every holder of the other end is gone, and all was looked at
        self.peeked = 0  # messages looked at and not taken
        self._peeked_cost = 0
        self._half_full = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        self._offsets = offsets
        if offsets:
            try:
                # The offset lives in the socket, which we share with our predecessor: start at the first message.
                end.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
            except OSError:
                self._offsets = False  # this kernel shows only the first message: one message a commit

    def fileno(self) -> int:
        return self._end.fileno()

    def peek(self) -> Iterator[bytes | None]:
        """Look at every message not looked at yet; None stands for one that is too large to be ours."""
        while self._offsets or not self.peeked:
            try:
                message, _, flags, _ = self._end.recvmsg(_LARGEST_MESSAGE, 0, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                return
            if not message:
                self.ended = True  # nobody sends empty messages, so this is the end
                return
            self.peeked += 1
            self._peeked_cost += _kernel_cost(len(message))
            too_large = bool(flags & socket.MSG_TRUNC)
            while self._offsets and flags & socket.MSG_TRUNC:  # the offset counts bytes: it is within that message yet
                _, _, flags, _ = self._end.recvmsg(_LARGEST_MESSAGE, 0, socket.MSG_PEEK)
            yield None if too_large else message

    @property
    def one_at_a_time(self) -> bool:
        """This kernel shows only the first message: look again after each commit."""
        return not self._offsets

    @property
    def pressed(self) -> bool:
        """Whether a commit should not wait: the socket is half full, or shows one message at a time."""
        return self._peeked_cost >= self._half_full or (not self._offsets and self.peeked > 0)

    def consume(self) -> None:
        """Take everything that was looked at: call it when that is committed, never before."""
        for _ in range(self.peeked):
            self._end.recv(1)  # the rest of the message goes with it
        self.peeked = self._peeked_cost = 0


def _kernel_cost(size: int) -> int:
    """Return what a message takes of the socket's buffer: memory comes in powers of two, and each message has a head.

    Measured: 278 messages of 20 bytes or 13 of 8,000 fill the default buffer of 212,992 bytes.

    >>> [-(-212_992 // _kernel_cost(size)) for size in (20, 300, 1100, 3900, 8000, 16_000)]
    [278, 167, 93, 26, 13, 13]
    """
    return 256 + max(512, 1 << (size + 319).bit_length())
