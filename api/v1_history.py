"""`/api/v1`, what was: series, energy and money, asked of the history.

The questions run in the loop: each takes some milliseconds, its parameters are bounded, and between one channel and the
next the loop gets to everybody else. So the process needs no second thread, and the heart-beat is honest.
"""

from __future__ import annotations

import asyncio
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter
from fastapi.responses import Response

from api import asked, documents, examples
from api.answers import Refused, described, reply
from api.books import books_of
from api.live import Live
from api.v1 import Sight
from history.buckets import GAUGE, KIND_NAMES, SECOND_NS, kind_of
from history.queries import History
from history.snapshot import Channel

_UNITS: Final = {
    "w": "W",
    "va": "VA",
    "var": "var",
    "v": "V",
    "a": "A",
    "hz": "Hz",
    "wh": "Wh",
    "m3": "m³",
    "c": "°C",
}


def routes_of_history(sight: Sight) -> APIRouter:
    """Make the routes that ask the history."""
    router = APIRouter(prefix="/api/v1", tags=["history"], default_response_class=Response)
    zone = ZoneInfo(sight.settings.site.timezone)
    currency = sight.channels.currency

    @router.get("/series", responses=described(documents.Series, examples.SERIES, 404, 422, 503))
    async def series(
        *,
        source: asked.SourceName,
        device: asked.DeviceName,
        metric: asked.Metric,
        from_: asked.From = "-24h",
        to: asked.To = "now",
        step: asked.Step = "auto",
    ) -> Response:
        """Return one metric of one device in steps."""
        history = kept(sight)
        from_ns, to_ns = asked.span(from_, to, zone)
        wanted_s = asked.step_s(step, from_ns, to_ns)
        known = named(history, (source, device, metric), sight.live)
        found = history.series((source, device, metric), from_ns, to_ns, wanted_s)
        answer = documents.Series(
            source,
            device,
            metric,
            unit_of(metric, currency),
            KIND_NAMES[known],
            found.step_s,
            [at_ns // SECOND_NS for at_ns in found.at_ns],
            found.n,
            found.mean,
            found.min,
            found.max,
            found.last,
            found.increase,
        )
        return reply(answer)

    @router.get("/series/stack", responses=described(documents.Stack, examples.STACK, 404, 422, 503))
    async def stack(
        metric: asked.Metric = "power_w", from_: asked.From = "-24h", to: asked.To = "now", step: asked.Step = "auto"
    ) -> Response:
        """Return one metric of every device on one axis of time."""
        history = kept(sight)
        from_ns, to_ns = asked.span(from_, to, zone)
        wanted_s = asked.step_s(step, from_ns, to_ns)
        columns = {}
        for each in [one for one in history.devices() if one.metric == metric and one.kind == GAUGE]:
            columns[each] = history.series((each.source, each.device, metric), from_ns, to_ns, wanted_s)
            await asyncio.sleep(0)
        steps = {found.step_s for found in columns.values()}
        times = sorted({at_ns for found in columns.values() for at_ns in found.at_ns})
        answer = documents.Stack(
            metric,
            unit_of(metric, currency),
            max(steps, default=wanted_s or 0),
            [at_ns // SECOND_NS for at_ns in times],
            [
                documents.StackedSeries(
                    each.source,
                    each.device,
                    sight.channels.role(f"{each.source}/{each.device}"),
                    [*map(dict(zip(found.at_ns, found.mean, strict=True)).get, times)],
                )
                for each, found in columns.items()
                if found.at_ns
            ],
        )
        return reply(answer)

    @router.get("/energy", responses=described(documents.Energy, examples.ENERGY, 404, 422, 503))
    async def energy(
        by: asked.By = "day",
        from_: asked.PeriodsFrom = None,
        to: asked.To = "now",
        source: asked.OneSource = None,
        device: asked.OneDevice = None,
    ) -> Response:
        """Return what the house and each channel used, gave away and paid in each local period."""
        history = kept(sight)
        span = asked.periods(by, from_, to, zone)
        books = await books_of(sight.channels, history, span, (source, device))
        return reply(books.energy())

    @router.get("/cost", responses=described(documents.Cost, examples.COST, 404, 422, 503))
    async def cost(by: asked.By = "day", from_: asked.PeriodsFrom = None, to: asked.To = "now") -> Response:
        """Return what each channel with a tariff cost in each local period, less what its export earned."""
        history = kept(sight)
        span = asked.periods(by, from_, to, zone)
        books = await books_of(sight.channels, history, span)
        return reply(books.cost())

    return router


def kept(sight: Sight) -> History:
    """Return the history, or say that there is none."""
    if sight.history is None:
        raise Refused(404, "this house keeps no history; add [outputs.history] to the configuration")
    return sight.history


def named(history: History, wanted: Channel, live: Live) -> int:
    """Return the kind of a series, or say which ones there are. What came a moment ago may not be in the file yet."""
    known = {(each.source, each.device, each.metric): each for each in history.devices()}
    if found := known.get(wanted):
        return found.kind
    source, device, metric = wanted
    if (value := live.last(f"{source}/{device}", metric)) is not None:
        return kind_of(metric, value)
    metrics = sorted(name for *channel, name in known if channel == [source, device])
    if metrics:
        raise Refused(404, asked.unknown(f"metric {metric} of {source}/{device}", metric, metrics))
    channels = sorted({f"{each[0]}/{each[1]}" for each in known})
    raise Refused(404, asked.unknown(f"history of {source}/{device}", f"{source}/{device}", channels))


def unit_of(metric: str, currency: str | None) -> str:
    """Tell the unit of a metric by its name.

    >>> [unit_of(metric, "GBP") for metric in ("power_w", "gas_m3", "power_factor", "cost", "unit_rate_per_kwh")]
    ['W', 'm³', '', 'GBP', 'GBP/kWh']
    """
    money = currency or ""
    if metric == "cost":
        return money
    if metric == "unit_rate_per_kwh":
        return f"{money}/kWh"
    if metric == "standing_charge_per_day":
        return f"{money}/day"
    return _UNITS.get(metric.rpartition("_")[2], "")
