"""The OpenAPI document, the pages that show it, and the page that links to everything; all of it works offline.

Swagger UI and ReDoc come as files of the package fastapi-offline, which is found and never imported.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any, Final

import msgspec
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response

from api import documents, seed_documents
from api.machines import MACHINE_DOCUMENTS
from api.metrics import VERSION
from api.site import file_of_package

_ABOUT: Final = """\
Everything that wattherd measures. From the machine itself no key is needed; from anywhere else send the key that
`./orchestrator.py key` made as `X-API-Key` or as `Authorization: Bearer`. Times are in UTC, numbers have their unit in
the name, `null` is what nobody knows. Every refusal is `{"error": "what, which, what now"}`.
"""
_TAGS: Final = [
    {"name": "now", "description": "What is measured now, and how every part of the house is."},
    {"name": "history", "description": "What was measured; for this there must be an `[outputs.history]`."},
    {"name": "energy monitor", "description": "The endpoints of the energy-monitor API, as its app knows them."},
    {"name": "machines", "description": "For those who watch over the house."},
]
_DOCUMENTS: Final = (
    documents.Problem,
    documents.House,
    documents.Live,
    documents.Devices,
    documents.Series,
    documents.Stack,
    documents.Energy,
    documents.Cost,
    documents.Gaps,
    documents.Health,
    seed_documents.EnergyNow,
    seed_documents.EnergyHistory,
    seed_documents.HistoricalData,
    seed_documents.Appliances,
    *MACHINE_DOCUMENTS,
)
# Swagger UI sets styles itself, ReDoc makes style sheets; neither may ask anybody else for anything.
_POLICY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
_SCRIPTS: Final = {
    "swagger.js": 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", supportedSubmitMethods: ["get"]});\n',
    "redoc.js": 'Redoc.init("/openapi.json", {disableSearch: true}, document.getElementById("docs"));\n',
}
_CARRIED: Final = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js")

_LINKS: Final = (
    ("The house", (("/", "the page", "power, energy and health, on a phone too"),)),
    (
        "The interface",
        (
            ("/docs", "documentation", "try every question here"),
            ("/redoc", "documentation", "the same, to read"),
            ("/openapi.json", "OpenAPI", "for programs"),
            ("/api/v1/live", "live", "what every device measures now"),
            ("/api/v1/devices", "devices", "what there is"),
            ("/api/v1/energy", "energy", "the last seven days"),
            ("/api/v1/cost", "cost", "the same in money"),
            ("/api/v1/gaps", "gaps", "what was not measured, and why"),
            ("/api/v1/download.csv", "CSV", "every reading of the last 24 hours"),
        ),
    ),
    (
        "The energy-monitor API",
        (
            ("/energy?applianceId=1", "energy", "an appliance now"),
            ("/energy/history?applianceId=1", "history", "its last 24 readings"),
            ("/appliances", "appliances", "all of them"),
            ("/logs/historical-data?days=7", "historical data", "seven days"),
            ("/logs/download/energy-monitor", "energy monitor log", "CSV"),
            ("/logs/download/api", "access log", "who asked for what"),
        ),
    ),
    (
        "For machines",
        (
            ("/metrics", "metrics", "for Prometheus"),
            ("/healthz", "alive?", "this process answers"),
            ("/readyz", "ready?", "everything measures, everything arrives; if not, why"),
        ),
    ),
)


def describe(app: FastAPI) -> None:
    """Let an application describe itself with the types that it really sends."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            found = get_openapi(title="wattherd", version=VERSION, description=_ABOUT, tags=_TAGS, routes=app.routes)
            _, schemas = msgspec.json.schema_components(_DOCUMENTS, ref_template="#/components/schemas/{name}")
            # FastAPI's own descriptions of mistakes are not what we send.
            found["components"] = {
                "schemas": schemas,
                "securitySchemes": {
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "bearer": {"type": "http", "scheme": "bearer"},
                },
            }
            _polish(found)
            found["security"] = [{}, {"key": []}, {"bearer": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _polish(found: dict[str, Any]) -> None:
    """Name each question by its first sentence, and put the examples where their texts are.

    FastAPI would name it by a function, and leave out of an example whatever is null.
    """
    for methods in found["paths"].values():
        methods["get"]["summary"] = re.split(r"[.:;,]( |$)", methods["get"]["description"], maxsplit=1)[0]
        for answer in methods["get"]["responses"].values():
            content = answer.get("content", {}).get("application/json", {})
            if "example" in content:
                content["example"] = json.loads(content["example"])


def routes_of_documentation(app: FastAPI, site: str) -> APIRouter:
    """Make the routes."""
    router = APIRouter(include_in_schema=False, default_response_class=Response)

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return JSONResponse(app.openapi())

    @router.get("/docs")
    async def docs() -> Response:
        style = '<link rel="stylesheet" href="/static/docs/swagger-ui.css">'
        return HTMLResponse(_page(site, style, "swagger-ui-bundle.js", "swagger.js"), headers=_POLICY)

    @router.get("/redoc")
    async def redoc() -> Response:
        return HTMLResponse(_page(site, "", "redoc.standalone.js", "redoc.js"), headers=_POLICY)

    @router.get("/static/docs/{name}")
    async def file(name: str, request: Request) -> Response:
        if script := _SCRIPTS.get(name):
            return Response(script, media_type="text/javascript; charset=utf-8")
        return file_of_package("fastapi_offline", name if name in _CARRIED else "", request)

    @router.get("/links")
    async def links() -> Response:
        return HTMLResponse(_links(site))

    return router


def _page(site: str, style: str, *scripts: str) -> str:
    loaded = "\n".join(f'<script src="/static/docs/{script}"></script>' for script in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(site)} · the interface of wattherd</title>
<link rel="icon" href="/static/icon.svg">
{style}
</head>
<body>
<div id="docs"></div>
{loaded}
</body>
</html>
"""


def _links(site: str) -> str:
    sections = "\n".join(
        f'<section class="card">\n<h2>{escape(title)}</h2>\n<dl>\n'
        + "\n".join(
            f'<dt><a href="{escape(path)}">{escape(name)}</a></dt><dd>{escape(what)}</dd>' for path, name, what in links
        )
        + "\n</dl>\n</section>"
        for title, links in _LINKS
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(site)} · wattherd</title>
<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/page.css">
</head>
<body>
<div id="inside">
<header><h1>{escape(site)}</h1></header>
<main id="main" class="links">
{sections}
</main>
<footer><span>wattherd {escape(VERSION)}</span></footer>
</div>
</body>
</html>
"""
