"""The files of the web page: ours from `api/static`, uPlot from its package, which is found and never imported."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.answers import Refused

_OURS: Final = Path(__file__).parent / "static"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
_BORROWED: Final = {"uPlot.iife.js": "uplot", "uPlot.min.css": "uplot"}


def static_routes() -> APIRouter:
    """Make the routes of the page."""
    router = APIRouter(include_in_schema=False, default_response_class=Response)

    @router.get("/")
    async def page(request: Request) -> Response:
        return _sent(_OURS / "index.html", request)

    @router.get("/static/{name}")
    async def static(name: str, request: Request) -> Response:
        if package := _BORROWED.get(name):
            return file_of_package(package, name, request)
        return _sent(_OURS / name, request)

    return router


def file_of_package(package: str, name: str, request: Request) -> Response:
    """Send a static file that a package carries, without importing it."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return _sent(Path(next(iter(places or []), "/nowhere")) / "static" / name, request)


def _at_home(content: bytes) -> bytes:
    """Let ReDoc show our picture where it would fetch its own from the internet, to which it has no way."""
    return content.replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"/static/icon.svg")


def _sent(file: Path, request: Request) -> Response:
    """Send a file; to a browser that has the same already, nothing but that it does."""
    kind = _MEDIA_TYPES.get(file.suffix)
    try:
        content = file.read_bytes() if kind else b""
    except (OSError, ValueError):
        kind = None
    if kind is None:
        raise Refused(404, f"there is no {file.name}; run make install, which installs what the page is drawn with")
    if file.name == "redoc.standalone.js":
        content = _at_home(content)
    tag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(content, 200, headers, kind)
