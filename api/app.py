"""What the api answers, put together. No request changes anything."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access_log import Accesses, AccessLog
from api.answers import listen_to_mistakes
from api.documentation import describe, routes_of_documentation
from api.doors import Door, Porch
from api.machines import routes_of_machines
from api.seed import routes_of_seed
from api.site import static_routes
from api.stream import Newsroom
from api.v1 import Sight, routes_of_now
from api.v1_gaps import routes_of_gaps
from api.v1_history import routes_of_history

_COMPRESSED_FROM_BYTES: Final = 1000
_NEVER_IN_A_THREAD: Final = 2**62  # what we send comes in pieces that the loop compresses in a moment
_HEADERS: Final = {
    "Cache-Control": "no-store",  # a number that comes from a cache is an old number shown as a new one
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def create_app(sight: Sight, newsroom: Newsroom, access_log: AccessLog) -> FastAPI:
    """Make the application for one house."""
    # FastAPI's own pages load their scripts from the internet, which a house without it does not have.
    app = FastAPI(title="wattherd", docs_url=None, redoc_url=None, openapi_url=None)
    settings, board = sight.settings, sight.board
    row = board.claim("api", "api")
    listen_to_mistakes(app)

    # All routes are `async`: they run in the loop that beats, so that a request that hangs is noticed, and the process
    # needs no second thread.
    describe(app)
    app.include_router(routes_of_documentation(app, settings.site.name))
    app.include_router(static_routes())
    app.include_router(routes_of_machines(sight))
    app.include_router(routes_of_seed(sight, access_log))
    app.include_router(routes_of_now(sight, newsroom))
    app.include_router(routes_of_history(sight))
    app.include_router(routes_of_gaps(sight))
    app.add_middleware(
        GZipMiddleware,
        minimum_size=_COMPRESSED_FROM_BYTES,
        compresslevel=5,
        thread_minimum_size=_NEVER_IN_A_THREAD,
    )
    app.add_middleware(Door, api=settings.api)
    if settings.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api.cors_origins,
            allow_methods=["GET", "HEAD"],
            allow_headers=["X-API-Key", "Authorization"],
        )
    app.add_middleware(Porch, api=settings.api)
    app.add_middleware(Accesses, access_log=access_log)
    app.add_middleware(_Guarded, count=lambda: row.add("requests"))
    return app


class _Guarded:
    """Counts every request on the board, also those that found nothing, and puts the same headers on every answer."""

    def __init__(self, app: ASGIApp, count: Any) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._count()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(_without_head(scope), receive, with_headers)


def _without_head(scope: Scope) -> MutableMapping[str, Any]:
    """Answer HEAD as GET: the server leaves the body out by itself."""
    return {**scope, "method": "GET", "wattherd.head": True} if scope.get("method") == "HEAD" else scope
