"""For machines that watch over the house: whether this process lives, whether all is well, and every number."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from msgspec import UNSET, Struct, UnsetType
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.answers import described, refused_with, reply
from api.devices import DeviceCollector
from api.health import reasons_not_ready, simulated
from api.limits import LimitsCollector
from api.metrics import render
from api.reconciliations import ReconciliationCollector
from api.snapshot import look
from api.v1 import Sight


class Alive(Struct, frozen=True):
    """This process answers; that says nothing of the house."""

    status: str


class Why(Struct, frozen=True):
    """One thing that keeps the house from being ready."""

    part: str
    what: str


class Readiness(Struct, frozen=True):
    """Whether everything measures and everything arrives."""

    status: str
    reasons: list[Why] | UnsetType = UNSET  # only where there are some
    simulated: bool | UnsetType = UNSET  # only where it is so


_ALIVE: Final = Alive("ok")
_NOT_READY: Final = Readiness("not ready", [Why("source meter", "no port; plug it in")])
MACHINE_DOCUMENTS: Final = (Alive, Readiness)


def routes_of_machines(sight: Sight) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["machines"], default_response_class=Response)
    settings, board = sight.settings, sight.board
    compared = ReconciliationCollector(settings, lambda: look(board).utc_ns)
    beside = (compared, LimitsCollector(settings, board), DeviceCollector(sight.live, sight.channels))

    @router.get("/healthz", responses=described(Alive, _ALIVE))
    async def healthz() -> Response:
        """This process lives. Whether the house is well is another question: `/readyz`."""
        return reply(_ALIVE)

    ready = described(Readiness, Readiness("ready"))
    ready[503] = {**described(Readiness, _NOT_READY)[200], "description": "Not ready, and every reason"}

    @router.get("/readyz", responses=ready)
    async def readyz() -> Response:
        """Everything measures and everything arrives; if not, 503 and every reason."""
        seen = look(board)
        demo = True if simulated(seen) else UNSET
        if reasons := reasons_not_ready(settings, seen):
            listed = [Why(reason.part, reason.what) for reason in reasons]
            return reply(Readiness("not ready", listed, demo), 503)
        return reply(Readiness("ready", simulated=demo))

    content = {"text/plain": {"schema": {"type": "string"}, "example": "wattherd_writer_accepted_total 91234.0\n"}}

    @router.get("/metrics", responses={200: {"description": "Text format 0.0.4", "content": content}, **refused_with()})
    async def metrics() -> Response:
        """Every number of the board, every device as it is now, and how meters agree, for Prometheus."""
        text = render(board, settings.site.name, *beside)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
