"""HTTP connections that cannot be used to keep others out: who says nothing for too long is shown the door.

uvicorn waits for ever for the first request of a connection and for the rest of a slow one, and its own
`limit_concurrency` turns *everybody* away while idle connections use it up. A meter's number must not depend on that.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

# Few enough for every descriptor limit, many enough for a house of dashboards.
MOST_CONNECTIONS: Final = 200
# A browser or Prometheus sends a request at once; what is slower than this is broken or means harm.
PATIENCE_S: Final = 10.0


class PatientProtocol(H11Protocol):
    """uvicorn's protocol with a limit to its patience: between two looks at it a connection has to get somewhere."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arrived_s = time.monotonic()
        self._looked_at: Any = None
        self._next_look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._next_look = self.loop.call_later(PATIENCE_S, self._look)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look:
            self._next_look.cancel()
        super().connection_lost(exc)

    @property
    def waits_for_peer(self) -> bool:
        """No request is being answered, or the peer does not fetch the answer."""
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    def _look(self) -> None:
        if self.waits_for_peer and self.cycle is self._looked_at:
            self.transport.abort()
            return
        self._looked_at = self.cycle
        self._next_look = self.loop.call_later(PATIENCE_S, self._look)

    def _make_room(self) -> None:
        """Of too many connections, close the oldest that waits; this one, if all others are served."""
        # Those that were closed a moment ago are still among uvicorn's, and would be chosen again and again.
        open_now = [other for other in self.connections if not other.transport.is_closing()]
        if len(open_now) > MOST_CONNECTIONS:
            waiting = [other for other in open_now if isinstance(other, PatientProtocol) and other.waits_for_peer]
            min(waiting, key=lambda other: other._arrived_s, default=self).transport.abort()
