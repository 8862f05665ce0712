"""How answers and refusals look: JSON that no cache keeps, and one sentence where there is none."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from msgspec import Struct
from starlette.exceptions import HTTPException

from api import documents
from config.words import printable

log = logging.getLogger("api")

_WHY: Final = {
    400: "The question cannot be answered as it is asked",
    403: "Only with the key",
    404: "There is no such thing",
    422: "A parameter is not as it must be",
    503: "Not now",
}


class Refused(Exception):  # noqa: N818 - an answer, and no error of ours
    """There is no answer, and one sentence says why: what, which, what now."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = printable(sentence)
        self.headers = headers


def refuse(status: int, sentence: str) -> NoReturn:
    raise Refused(status, sentence)


def reply(document: Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Send a document."""
    return Response(documents.encode(document), status, dict(headers or {}), "application/json")


def streamed(request: Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str], media_type: str) -> Response:
    """Send something long in pieces; none of them is made for whoever only wants to know whether it is there."""
    if request.scope.get("wattherd.head"):
        return Response(None, 200, dict(headers), media_type)
    return StreamingResponse(pieces, 200, dict(headers), media_type)


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return reply(documents.Problem(sentence), status, headers)


def described(kind: type[Struct], example: Struct, *refusals: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers of a route for its documentation; the key may always be missing.

    The example is a text here: see `api.documentation`.
    """
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    found: dict[int | str, dict[str, Any]] = {
        200: {
            "description": (kind.__doc__ or "").strip(),
            "content": {"application/json": {"schema": schema, "example": documents.encode(example).decode()}},
        }
    }
    return found | refused_with(*refusals)


def refused_with(*refusals: int) -> dict[int | str, dict[str, Any]]:
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHY[status], "content": problem} for status in sorted({403, *refusals})}


def listen_to_mistakes(app: FastAPI) -> None:
    """Let every refusal of an application look alike, whoever utters it."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return refusal(error.status, error.sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        given = "" if first["type"] == "missing" else f", got {first.get('input')!r:.60}"
        return refusal(
            422, printable(f"{name}: {str(first['msg'])[:1].lower()}{str(first['msg'])[1:]}{given}; see /docs")
        )

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        sentence = {
            404: f"there is no {request.url.path[:200]}; /links lists what there is",
            405: "this is asked with GET; nothing here can be changed over the network",
        }.get(error.status_code, str(error.detail))
        return refusal(error.status_code, printable(sentence), error.headers)

    @app.exception_handler(sqlite3.Error)
    async def unreadable(_: Request, error: sqlite3.Error) -> Response:
        return refusal(503, printable(f"the history cannot be read: {error}; the writer mends what it can, ask again"))

    @app.exception_handler(Exception)
    async def wrong(request: Request, error: Exception) -> Response:
        log.error("%s cannot be answered; this is a bug", request.url.path, exc_info=error)
        return refusal(500, "this cannot be answered because of a fault in wattherd; its log has the details")
