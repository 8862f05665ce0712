"""`/api/v1`, what there is no number of, and all numbers as a file: gaps with their causes, and series as CSV."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api import asked, documents, examples
from api.answers import Refused, described, refused_with, reply, streamed
from api.gaps import gaps
from api.series_csv import csv_of
from api.snapshot import now
from api.times import read
from api.v1 import Sight
from api.v1_history import kept, named

_MOST_ROWS: Final = 2_000_000

Since = Annotated[
    str, Query(description='what ended after this time, or goes on: "-7d", say', examples=["-7d"], **asked.TIME)
]


def routes_of_gaps(sight: Sight) -> APIRouter:
    """Make the routes."""
    router = APIRouter(prefix="/api/v1", tags=["history"], default_response_class=Response)
    zone = ZoneInfo(sight.settings.site.timezone)

    @router.get("/gaps", responses=described(documents.Gaps, examples.GAPS, 422, 503))
    async def all_gaps(since: Since = "-7d") -> Response:
        """List for which times nothing was measured, with the cause and whether the energy of that time is known."""
        at = now()
        try:
            since_ns = read(since, at.utc_ns, zone)
        except ValueError as error:
            raise Refused(422, f"since: {error}") from error
        path = sight.settings.data_dir / "outbox.db"
        if not path.exists():
            return reply(documents.Gaps([]))  # the house has never been started
        try:
            return reply(await gaps(path, sight.channels, since_ns, at))
        except sqlite3.Error as error:
            raise Refused(503, f"the outbox cannot be read: {error}; the writer mends it, ask again") from error

    @router.get(
        "/download.csv",
        responses={
            200: {
                "description": "One row a step; without a device: of all devices, one after the other",
                "content": {"text/csv": {"schema": {"type": "string"}, "example": examples.CSV}},
            },
            **refused_with(404, 422, 503),
        },
    )
    async def download(
        request: Request,
        *,
        source: asked.OneSource = None,
        device: asked.OneDevice = None,
        metric: asked.OneMetric = None,
        from_: asked.From = "-24h",
        to: asked.To = "now",
        step: asked.RawStep = "raw",
    ) -> Response:
        """Download series as CSV: every reading as it came, or steps."""
        history = kept(sight)
        from_ns, to_ns = asked.span(from_, to, zone)
        if source and device and metric:
            named(history, (source, device, metric), sight.live)
        chosen = [
            each
            for each in history.extents()
            if source in (None, each.source) and device in (None, each.device) and metric in (None, each.metric)
        ]
        if not chosen and (source or device or metric):
            wanted = "/".join(part or "…" for part in (source, device, metric))
            raise Refused(404, f"there is no history of {wanted}; /api/v1/devices lists what there is")
        step_s = None if step == "auto" else 0 if step == "raw" else int(step)
        if step_s and len(chosen) * (to_ns - from_ns) // (step_s * 10**9) > _MOST_ROWS:
            raise Refused(
                422, f"step {step} would be more than {_MOST_ROWS:,} rows; make it longer, or the time shorter"
            )
        headers = {"Content-Disposition": 'attachment; filename="wattherd.csv"'}
        return streamed(request, csv_of(history, chosen, from_ns, to_ns, step_s), headers, "text/csv")

    return router
