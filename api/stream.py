"""Server-Sent Events: the newest values and the health of the house, as editions that are made once for all readers.

A reader that is slow misses editions and never piles them up; one that does not read at all is shown the door by
`PatientProtocol`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from api import documents
from api.live import Live
from api.parts import gist

MOST_READERS: Final = 32
RETRY_MS: Final = 1000
_EDITION_EVERY_S: Final = 1.0
_AT_LEAST_EVERY_S: Final = 10.0


class Newsroom:
    """Looks once a second, while anybody reads, whether there is news."""

    def __init__(self, live: Live, health: Callable[[], documents.Health]) -> None:
        self._live = live
        self._health = health
        self._frames: dict[str, tuple[int, bytes]] = {"live": (0, b""), "health": (0, b"")}  # edition and event
        self._told: dict[str, object] = {}  # what the newest editions are about
        self._made_s = dict.fromkeys(self._frames, 0.0)
        self._news = asyncio.Event()
        self._closed = False
        self.readers = 0

    async def work(self) -> None:
        """Make editions until the process ends."""
        while True:
            await asyncio.sleep(_EDITION_EVERY_S)
            if self.readers and self._make():
                self._wake()

    def close(self) -> None:
        """Let every reader go."""
        self._closed = True
        self._wake()

    @property
    def is_full(self) -> bool:
        return self.readers >= MOST_READERS

    async def read(self) -> AsyncIterator[bytes]:
        """Yield events for one reader, the first ones at once."""
        if not self.readers:
            self._make()  # nobody has looked for a while
        self.readers += 1
        try:
            read: dict[str, int] = {}
            yield b"retry: %d\n\n" % RETRY_MS
            while not self._closed:
                news = self._news
                new = [(name, *frame) for name, frame in self._frames.items() if frame[0] != read.get(name)]
                for name, edition, _ in new:
                    read[name] = edition
                if new:
                    yield b"".join(event for _, _, event in new)
                await news.wait()
        finally:
            self.readers -= 1

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _make(self) -> bool:
        """Make what is new into an edition; return whether there was anything."""
        health = self._health()
        about: dict[str, object] = {"live": (self._live.version, self._live.stale()), "health": gist(health)}
        now_s = time.monotonic()
        due = {name for name, made_s in self._made_s.items() if now_s - made_s >= _AT_LEAST_EVERY_S}
        changed = [name for name, what in about.items() if name in due or self._told.get(name) != what]
        for name in changed:
            self._made_s[name] = now_s
            document = health if name == "health" else self._live.document()
            event = b"event: %s\ndata: %s\n\n" % (name.encode(), documents.encode(document))
            self._frames[name] = (self._frames[name][0] + 1, event)
        self._told = about
        return bool(changed)
