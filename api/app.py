"""What the api answers: every answer is made from the board when it is asked for, and no request changes anything."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Receive, Scope, Send

from api.health import reasons_not_ready, simulated
from api.limits import LimitsCollector
from api.metrics import render
from api.page import landing_page
from api.reconciliations import ReconciliationCollector
from api.snapshot import look
from config.settings import Settings
from vitals import Board, Row

_READ_ONLY = ["GET", "HEAD"]
_HEADERS = {
    "Cache-Control": "no-store",  # a number that comes from a cache is an old number shown as a new one
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
}


def create_app(settings: Settings, board: Board) -> FastAPI:
    """Make the application for one house."""
    # FastAPI's own pages load their scripts from the internet, which a house without it does not have.
    app = FastAPI(title="wattherd", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Count, row=board.claim("api", "api"))
    compared = ReconciliationCollector(settings, lambda: look(board).utc_ns)
    limits = LimitsCollector(settings, board)

    # All of them are `async`: they run in the loop that beats, so that a request that hangs is noticed, and the
    # process needs no second thread.

    @app.api_route("/healthz", methods=_READ_ONLY)
    async def healthz() -> Response:
        """This process lives. Whether the house is well is another question: `/readyz`."""
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    @app.api_route("/readyz", methods=_READ_ONLY)
    async def readyz() -> Response:
        """Everything measures and everything arrives; if not, 503 and every reason."""
        seen = look(board)
        demo = {"simulated": True} if simulated(seen) else {}
        if reasons := reasons_not_ready(settings, seen):
            listed = [{"part": reason.part, "what": reason.what} for reason in reasons]
            return JSONResponse({"status": "not ready", "reasons": listed, **demo}, 503, headers=_HEADERS)
        return JSONResponse({"status": "ready", **demo}, headers=_HEADERS)

    @app.api_route("/metrics", methods=_READ_ONLY)
    async def metrics() -> Response:
        """Every number of the board, and what the history says of reconciliations, for Prometheus."""
        return Response(
            render(board, settings.site.name, compared, limits), headers=_HEADERS, media_type=CONTENT_TYPE_PLAIN_0_0_4
        )

    @app.api_route("/", methods=_READ_ONLY)
    async def page() -> Response:
        """The landing page, for people."""
        return HTMLResponse(landing_page(settings, look(board)), headers=_HEADERS)

    return app


class _Count:
    """Counts every request on the board, also those that found nothing."""

    def __init__(self, app: ASGIApp, row: Row) -> None:
        self._app = app
        self._row = row

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._row.add("requests")
        await self._app(scope, receive, send)
