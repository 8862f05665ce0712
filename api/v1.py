"""`/api/v1`, what is now: the house, its devices, their values and how all parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api import documents, examples
from api.answers import Refused, described, refused_with, reply, streamed
from api.channels import Channels, parted
from api.health import simulated
from api.live import Live
from api.metrics import VERSION
from api.parts import health
from api.snapshot import look, now
from api.stream import MOST_READERS, Newsroom
from api.times import utc
from config.settings import Settings
from history.queries import History
from vitals import Board

_DEMO: Final = Path(__file__).parents[1] / "config" / "demo.toml"


@dataclass(frozen=True, slots=True)
class Sight:
    """All that the interface looks at."""

    settings: Settings
    board: Board
    channels: Channels
    live: Live
    history: History | None  # None: the house keeps none
    since_ns: int = 0  # CLOCK_MONOTONIC, when the house was started; 0: nobody knows


def routes_of_now(sight: Sight, newsroom: Newsroom) -> APIRouter:
    """Make the routes that need no history."""
    router = APIRouter(prefix="/api/v1", default_response_class=Response)

    @router.get("/house", tags=["now"], responses=described(documents.House, examples.HOUSE))
    async def house() -> Response:
        """Name the house, and say what to do next with a new one."""
        return reply(_house(sight))

    @router.get("/live", tags=["now"], responses=described(documents.Live, examples.LIVE))
    async def live() -> Response:
        """Tell what every device measures now, two seconds after it was measured at the latest.

        The power of the house is the sum of its grid meters, or where it has none of all its parts.
        """
        return reply(sight.live.document())

    @router.get(
        "/live/stream",
        tags=["now"],
        responses={
            200: {
                "description": "Events `live` and `health`, each with the same document as the route of that name",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": examples.STREAM}},
            },
            **refused_with(503),
        },
    )
    async def stream(request: Request) -> Response:
        """Go on telling as Server-Sent Events: at most once a second what changed, and at least every 10 seconds."""
        if newsroom.is_full:
            sentence = f"{MOST_READERS} readers are served already; close a page that you do not look at, or try again"
            raise Refused(503, sentence, {"Retry-After": "10"})
        return streamed(request, newsroom.read(), {"X-Accel-Buffering": "no"}, "text/event-stream")

    @router.get("/health", tags=["now"], responses=described(documents.Health, examples.HEALTH))
    async def how_it_is() -> Response:
        """Tell how every source, every output, the writer and the clock are; what is wrong first, with its remedy."""
        return reply(health(sight.settings, look(sight.board)))

    @router.get("/devices", tags=["now"], responses=described(documents.Devices, examples.DEVICES, 503))
    async def devices() -> Response:
        """List every device that is configured or was ever heard of."""
        return reply(_devices(sight))

    return router


def keeps_history(settings: Settings) -> bool:
    return any((output.kind or name) == "history" and output.enabled for name, output in settings.outputs.items())


def _house(sight: Sight) -> documents.House:
    settings, at = sight.settings, now()
    seen = look(sight.board)
    return documents.House(
        site=settings.site.name,
        timezone=settings.site.timezone,
        currency=sight.channels.currency,
        version=VERSION,
        simulated=simulated(seen),
        demo=_is_demo(settings),
        time=utc(at.utc_ns),
        started=utc(at.utc_ns - (at.monotonic_ns - sight.since_ns)) if sight.since_ns else None,
        hint=_hint(settings),
        history=sight.history is not None,
    )


def _is_demo(settings: Settings) -> bool:
    return any(file.resolve() == _DEMO for file in settings.files)


def _hint(settings: Settings) -> documents.Hint | None:
    if _is_demo(settings):
        return documents.Hint(
            "This is the demo house: no electricity is measured. Set up your own.", "./orchestrator.py init"
        )
    if not any(source.enabled for source in settings.sources.values()):
        return documents.Hint("No meter is read yet. Look for yours.", "./orchestrator.py discover")
    if not keeps_history(settings):
        return documents.Hint(
            "This house keeps no history, so there are no charts. Add [outputs.history] to the configuration.",
            "./orchestrator.py example history",
        )
    return None


def _devices(sight: Sight) -> documents.Devices:
    channels, live = sight.channels, sight.live
    metrics: dict[str, set[str]] = {name: set() for name in (*channels.configured, *live.heard_of)}
    last_ns: dict[str, int] = {}
    first_ns: dict[str, int] = {}
    for name in live.heard_of:
        if seen := live.seen(name):
            last_ns[name] = seen[0]
            metrics[name] |= {*seen[1]}
    if sight.history:
        for span in sight.history.extents():
            name = f"{span.source}/{span.device}"
            metrics.setdefault(name, set()).add(span.metric)
            first_ns[name] = min(span.first_ns, first_ns.get(name, span.first_ns))
            last_ns[name] = max(span.last_ns, last_ns.get(name, span.last_ns))
    return documents.Devices(
        [
            documents.KnownDevice(
                *parted(name),
                kind=channels.kind(name),
                role=channels.role(name),
                title=channels.title(name),
                metrics=sorted(metrics[name]),
                first=utc(first_ns[name]) if name in first_ns else None,
                last=utc(last_ns[name]) if name in last_ns else None,
                appliance_id=channels.appliance_id(name),
                tariff=channels.tariff(name),
            )
            for name in sorted(metrics)
        ]
    )
