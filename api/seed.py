"""The endpoints of the energy-monitor API, at the root and in its shapes, so that its app goes on working.

Appliances have the numbers of `[api] appliances`. Times are those of the site and carry no zone, as the app wants them;
so the hour that comes twice when summer time ends is there twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api import seed_documents as documents
from api.access_log import AccessLog
from api.answers import Refused, described, refused_with, reply, streamed
from api.channels import parted
from api.seed_files import HEADER, Wanted, csv_files, csv_of_history, database, first_midnight_ns, in_pieces
from api.snapshot import now
from api.times import naive
from api.v1 import Sight
from config.interface import Appliance
from history.queries import History

MOST_DAYS: Final = 366
_MOST_READINGS: Final = 1000  # of all appliances, in one answer

ApplianceId = Annotated[int, Query(ge=1, le=1_000_000, description="a number of `/appliances`", examples=[1])]
OneAppliance = Annotated[int | None, Query(ge=1, le=1_000_000, description="of one appliance only")]
Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="how many days back, today included", examples=[7])]


def routes_of_seed(sight: Sight, access_log: AccessLog) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["energy monitor"], default_response_class=Response)
    zone = ZoneInfo(sight.settings.site.timezone)
    appliances = {one.id: one for one in sight.settings.api.appliances}

    def appliance(number: int) -> Appliance:
        if found := appliances.get(number):
            return found
        raise Refused(404, f"there is no appliance {number}; /appliances lists them, [api] appliances numbers them")

    @router.get("/energy", responses=described(documents.EnergyNow, documents.ENERGY, 404, 422, 503))
    async def energy(applianceId: ApplianceId = 1) -> Response:  # noqa: N803 - the app's own word
        """Return the power of an appliance now. Of one that is silent there is none, rather than an old one."""
        one = appliance(applianceId)
        power = sight.live.power_now(one.channel)
        if power is None:
            raise Refused(503, f"{one.name} ({one.channel}) has said nothing of late; is it switched on and in reach?")
        time_ns, watts = power
        return reply(documents.EnergyNow(naive(time_ns, zone, "microseconds"), watts, applianceId))

    @router.get("/energy/history", responses=described(documents.EnergyHistory, documents.HISTORY, 404, 422))
    async def last_readings(applianceId: ApplianceId = 1) -> Response:  # noqa: N803
        """Return the last 24 readings of an appliance, oldest first."""
        one = appliance(applianceId)
        data = [
            documents.EnergyNow(naive(time_ns, zone), watts, one.id)
            for time_ns, watts in sight.live.recent(one.channel)
        ]
        return reply(documents.EnergyHistory(data))

    @router.get("/appliances", responses=described(documents.Appliances, documents.APPLIANCES))
    async def all_appliances() -> Response:
        """List the appliances."""
        return reply(documents.Appliances([documents.Appliance(one.id, one.name) for one in appliances.values()]))

    @router.get(
        "/logs/historical-data", responses=described(documents.HistoricalData, documents.HISTORICAL_DATA, 404, 422, 503)
    )
    async def historical_data(days: Days = 7, applianceId: OneAppliance = None) -> Response:  # noqa: N803
        """Return the power of some days, averaged so that it fits, and each day's average, extremes and count."""
        chosen = [appliance(applianceId)] if applianceId else [*appliances.values()]
        return reply(_historical_data(_kept(sight), chosen, days, zone))

    @router.get(
        "/logs/download/energy-monitor",
        responses={
            200: {
                "description": "`timestamp,watts,appliance_id`, or an SQLite file with a table `readings` of the same",
                "content": {
                    "text/csv": {"schema": {"type": "string"}, "example": documents.ENERGY_MONITOR},
                    "application/vnd.sqlite3": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **refused_with(404, 422, 503),
        },
    )
    async def download_energy_monitor(
        request: Request,
        days: Days = 7,
        format: Annotated[str, Query(pattern="^(csv|sqlite)$", description="csv or sqlite")] = "csv",
    ) -> Response:
        """Download every reading of the appliances: from the files of a CSV output, or else from the history."""
        to_ns = now().utc_ns
        wanted = Wanted((*appliances.values(),), first_midnight_ns(to_ns, days, zone), to_ns, zone)
        if format == "sqlite":
            content = await database(_kept(sight), wanted)
            return Response(content, 200, _attached("energy_monitor.db"), "application/vnd.sqlite3")
        files = csv_files(sight.settings, wanted)
        pieces = in_pieces(files, HEADER) if files else csv_of_history(_kept(sight), wanted)
        return streamed(request, pieces, _attached("energy_monitor.log"), "text/csv")

    @router.get(
        "/logs/download/api",
        responses={
            200: {
                "description": "One line a request, oldest first",
                "content": {"text/csv": {"schema": {"type": "string"}, "example": documents.ACCESS_LOG}},
            },
            **refused_with(404),
        },
    )
    async def download_accesses(request: Request) -> Response:
        """Download who asked for what."""
        if not (files := access_log.files()):
            raise Refused(404, "there is no access log yet, or [api] access_log_days is 0")
        return streamed(request, in_pieces(files), _attached("api_access.log"), "text/csv")

    return router


def _kept(sight: Sight) -> History:
    if sight.history is None:
        raise Refused(404, "this house keeps no history; add [outputs.history] to the configuration")
    return sight.history


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _historical_data(
    history: History, appliances: list[Appliance], days: int, zone: ZoneInfo
) -> documents.HistoricalData:
    to_ns = now().utc_ns
    from_ns = first_midnight_ns(to_ns, days, zone)
    data: list[tuple[int, documents.EnergyNow]] = []
    summed: dict[int, list[tuple[int, float, float, float]]] = {}
    for one in appliances:
        channel = (*parted(one.channel), "power_w")
        most_points = _MOST_READINGS // max(1, len(appliances))
        found = history.series(channel, from_ns, to_ns, most_points=most_points)
        data += [
            (at_ns, documents.EnergyNow(naive(at_ns, zone), round(mean, 3), one.id))
            for at_ns, mean in zip(found.at_ns, found.mean, strict=True)
            if mean is not None
        ]
        for day in history.summaries(channel, from_ns, to_ns, "day", zone.key):
            if day.n and day.mean is not None and day.least is not None and day.most is not None:
                summed.setdefault(day.start_ns, []).append((day.n, day.mean, day.least, day.most))
    data.sort(key=lambda each: each[0])
    return documents.HistoricalData([each for _, each in data], [*_daily(summed, zone)])


def _daily(summed: dict[int, list[tuple[int, float, float, float]]], zone: ZoneInfo) -> Iterator[documents.DailyStats]:
    for start_ns, parts in sorted(summed.items()):
        readings = sum(n for n, *_ in parts)
        yield documents.DailyStats(
            date=naive(start_ns, zone)[:10],
            avg_watts=round(sum(n * mean for n, mean, *_ in parts) / readings, 3),
            max_watts=max(most for *_, most in parts),
            min_watts=min(least for *_, least, _ in parts),
            total_readings=readings,
        )
