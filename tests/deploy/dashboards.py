"""Reads the committed dashboards as Grafana would: their panels, what each one asks, and for which time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard, and the range of the dashboard that it belongs to."""

    raw: dict[str, Any]
    dashboard_from: str

    @property
    def title(self) -> str:
        return str(self.raw["title"])

    @property
    def targets(self) -> list[dict[str, Any]]:
        return list(self.raw.get("targets", ()))

    @property
    def calc(self) -> str:
        """What makes one number of a series, for panels that show one."""
        return str(self.raw["options"]["reduceOptions"]["calcs"][0])

    def from_s(self, now_s: float, timezone: str = "UTC") -> int:
        return instant(self.raw.get("timeFrom") or self.dashboard_from, now_s, timezone)


def load(name: str) -> dict[str, Any]:
    return dict(json.loads((GRAFANA / "dashboards" / name).read_text()))


def panels(dashboard: Mapping[str, Any]) -> Iterator[Panel]:
    """Every panel that asks something, in the order in which it stands."""
    for panel in dashboard["panels"]:
        for each in (panel, *panel.get("panels", ())):
            if each.get("targets"):
                yield Panel(each, dashboard["time"]["from"])


def panel(dashboard: Mapping[str, Any], title: str) -> Panel:
    [found] = [one for one in panels(dashboard) if one.title == title]
    return found


def instant(expression: str, now_s: float, timezone: str = "UTC") -> int:
    """Return the second that "now-7d/d" or "now/M" means to somebody in a time zone, with weeks that begin on Monday.

    >>> noon = 1795780800  # Friday 2026-11-27 12:00
    >>> [instant(each, noon) - noon for each in ("now", "now-1h", "now/d", "now-1d/d", "now/w", "now/M")]
    [0, -3600, -43200, -129600, -388800, -2289600]
    """
    match = re.fullmatch(r"now(?:-(\d+)([mhdw]))?(?:/([dwM]))?", expression)
    assert match, expression
    at = datetime.fromtimestamp(now_s, ZoneInfo(timezone))
    if match[1]:
        at -= timedelta(**{{"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[match[2]]: int(match[1])})
    if match[3]:
        at = at.replace(hour=0, minute=0, second=0, microsecond=0)
        at -= timedelta(days={"d": 0, "w": at.weekday(), "M": at.day - 1}[match[3]])
    return round(at.timestamp())


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Put values in the place of variables; every one has to be there."""
    return re.sub(r"\$\{(\w+)(?::regex)?\}|\$(\w+)", lambda match: values[match[1] or match[2]], text)


def reduced(values: list[float | None], calc: str) -> float | None:
    """What Grafana makes of a series: the calculations that our panels use."""
    known = [value for value in values if value is not None]
    match calc:
        case "first" | "last":
            return values[0 if calc == "first" else -1] if values else None
        case "lastNotNull":
            return known[-1] if known else None
        case "sum":
            return sum(known) if known else None
    raise ValueError(f"no panel of ours reduces by {calc}")
