"""How old a message from a broker can be at most, proved by the broker itself.

A broker that keeps messages for us, a full buffer, a worker that was busy: in each of them messages wait, and none of
them shows for how long. So every few seconds a marker with the present time is published to a topic of our own. A
broker keeps the order of what it has for one client: whatever comes after a marker came to the broker after it, too.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
from typing import Final

_MARKERS_A_LIMIT: Final = 4  # while nothing waits, proofs are at most a quarter of the limit old
_NOTE: Final = struct.Struct("=QQ")


class Fence:
    """Knows the instant that everything younger came after. Times are CLOCK_MONOTONIC."""

    def __init__(self, topic: str, stale_after_s: float) -> None:
        self.topic = topic
        self._limit_ns = round(stale_after_s * 1e9)  # 0: whatever comes is taken for new
        self._token = secrets.token_hex(8)  # of this process: the time of a marker means nothing after a reboot
        self._younger_than_ns: int | None = None
        self._marked_ns = 0
        self._connected_ns = 0
        self._closed = False  # by a marker of this connection

    def connected(self, now_ns: int, younger_than_ns: int | None) -> None:
        """Begin anew: what will come is younger than an instant, None if nobody knows that."""
        self._connected_ns, self._younger_than_ns = now_ns, younger_than_ns
        self._marked_ns, self._closed = 0, False

    def marker(self, now_ns: int) -> bytes:
        """Return what is to be published now, if anything is.

        One that has not come back is no reason to wait: a broker whose queue is full throws it away.
        """
        if not self._limit_ns or (self._marked_ns and now_ns - self._marked_ns < self._limit_ns // _MARKERS_A_LIMIT):
            return b""
        self._marked_ns = now_ns
        return f"{self._token} {now_ns}".encode()

    def pass_by(self, payload: bytes, *, repeated: bool) -> None:
        """Note a marker that came back. One that was sent again may come after younger ones."""
        token, _, marked = payload.partition(b" ")
        if token != self._token.encode() or repeated or not marked.isdigit():
            return
        self._younger_than_ns = max(self._younger_than_ns or 0, min(int(marked), self._marked_ns))
        self._closed = True

    def is_fresh(self, now_ns: int) -> bool:
        """Whether what came now was published less than `stale_after_s` ago."""
        if not self._limit_ns:
            return True
        return self._younger_than_ns is not None and now_ns - self._younger_than_ns <= self._limit_ns

    def is_open(self, now_ns: int) -> bool:
        """Whether no marker has come back, long after it should have."""
        return bool(self._limit_ns) and not self._closed and now_ns - self._connected_ns > 3 * self._limit_ns

    @property
    def younger_than_ns(self) -> int | None:
        return self._younger_than_ns


class Memory:
    """The last proof that held when everything was acknowledged, in memory that outlives a worker which is killed.

    What its successor gets from the kept session was then not there yet, so it is younger. That holds as long as the
    broker was there all the time: one that crashed sends again, and not as repeated, what it had when it saved last.
    """

    def __init__(self, descriptor: int, session: str) -> None:
        self.descriptor = descriptor
        self._session = int.from_bytes(hashlib.sha256(session.encode()).digest()[:8], "little")

    @classmethod
    def new(cls, session: str) -> Memory:
        return cls(os.memfd_create("wattherd-fence", os.MFD_CLOEXEC), session)

    def load(self) -> int | None:
        """Return the instant, None if there is none or it is that of another session."""
        note = os.pread(self.descriptor, _NOTE.size, 0)
        if len(note) < _NOTE.size:
            return None
        session, younger_than_ns = _NOTE.unpack(note)
        return younger_than_ns if session == self._session else None

    def note(self, younger_than_ns: int) -> None:
        os.pwrite(self.descriptor, _NOTE.pack(self._session, younger_than_ns), 0)

    def forget(self) -> None:
        os.pwrite(self.descriptor, bytes(_NOTE.size), 0)
