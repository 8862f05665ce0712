"""The files of the web page: ours from `api/static`, uPlot from its package, which is found and never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from api.answers import refuse

_OURS: Final = Path(__file__).parent / "static"
PAGE: Final = _OURS / "index.html"
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
    async def page() -> Response:
        return _sent(PAGE)

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        if package := _BORROWED.get(name):
            return _sent(package_files(package) / name)
        return _sent(_OURS / name)

    return router


def package_files(package: str) -> Path:
    """Find the static files of a package without importing it."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places or []), "/nowhere")) / "static"


def _sent(file: Path) -> Response:
    kind = _MEDIA_TYPES.get(file.suffix)
    try:
        content = file.read_bytes() if kind else b""
    except (OSError, ValueError):
        kind = None
    if kind is None:
        refuse(404, f"there is no {file.name}; run make install, which installs what the page is drawn with")
    return Response(content, media_type=kind)
