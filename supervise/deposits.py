"""Descriptors that outlive the worker that opened them: the parent keeps them for its successor.

A GPIO line request goes on queueing edges in the kernel as long as somebody holds its descriptor. The worker hands a
copy to the parent over a socket of their own; the next worker finds it open, under the same name.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from typing import Final

_MOST_DESCRIPTORS: Final = 16  # of one worker
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the way from a worker to the parent: the worker's end and the parent's end."""
    worker_end, parent_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_end.setblocking(False)
    return worker_end, parent_end


class Deposits:
    """What one worker has deposited."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.kept: dict[str, int] = {}

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[str]:
        """Take what the worker sent; return the names that are new or have a new descriptor."""
        names: list[str] = []
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._end, 256, 4)
            except (BlockingIOError, ConnectionError):
                return names
            if not message and not descriptors:
                return names
            name = message.decode("ascii", "replace")
            if len(descriptors) == 1 and _NAME.fullmatch(name) and (name in self.kept or self._has_room):
                self.release(name)
                self.kept[name] = descriptors[0]
                names.append(name)
            else:
                for descriptor in descriptors:
                    os.close(descriptor)

    def release(self, name: str) -> None:
        if name in self.kept:
            with contextlib.suppress(OSError):
                os.close(self.kept.pop(name))

    def close(self) -> None:
        for name in list(self.kept):
            self.release(name)
        self._end.close()

    @property
    def _has_room(self) -> bool:
        return len(self.kept) < _MOST_DESCRIPTORS
