"""Every Flux query of the InfluxDB dashboard and its alerts, read by InfluxData's own parser and type checker.

What they compute is in test_grafana_flux.py, where somebody has built the engine. Here, what no type can tell is looked
at: that all of them read from the bucket that was chosen, within the time that the panel asks for, one site alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.deploy.dashboards import GRAFANA, filled_in, load, panels
from tests.deploy.metered_house import DAY_S
from tests.peers.flux_checker import FluxChecker, running_flux_checker

DASHBOARD = load("home-influxdb.json")
PANELS = {one.title: one for one in panels(DASHBOARD)}
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
CHOSEN = {
    "bucket": "PowerLogger_raw",
    "rollup": "PowerLogger_5m",
    "measurement": "electricity",
    "timezone": "Europe/London",
    "site": "home",
    "house_source": "meter",
    "house": "esp32-meter",
    "source": "(kasa|circuit)",
    "device": ".*",
    "circuit": "circuit",
    "gas": "gas",
}


@pytest.fixture(scope="module")
def checker() -> Iterator[FluxChecker]:
    with running_flux_checker() as running:
        yield running


def as_sent(query: str, from_s: int = 0, until_s: int = DAY_S, chosen: Mapping[str, str] = CHOSEN) -> str:
    """What Grafana sends: variables filled in, and `v` with the time range, behind the imports."""
    text = filled_in(query, chosen)
    imports = re.match(r"(?:import .*\n)*", text)
    assert imports
    start, stop = (f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}" for at_s in (from_s, until_s))
    v = f"option v = {{timeRangeStart: {start}, timeRangeStop: {stop}, windowPeriod: 60s}}\n"
    return text[: imports.end()] + v + text[imports.end() :]


def queries() -> list[tuple[str, str]]:
    return [(title, target["query"]) for title, one in PANELS.items() for target in one.targets]


def alerts() -> list[dict[str, Any]]:
    text = (GRAFANA / "provisioning" / "alerting" / "wattherd-influxdb.json").read_text()
    return [rule for group in json.loads(text)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("title", "query"), queries())
def test_every_query_of_a_panel_is_flux_and_its_types_fit(checker: FluxChecker, title: str, query: str) -> None:
    assert checker.check(as_sent(query)).errors == [], title


@pytest.mark.parametrize("name", [name for name, each in VARIABLES.items() if each["type"] == "query"])
def test_every_query_of_a_variable_is_flux_and_its_types_fit(checker: FluxChecker, name: str) -> None:
    assert checker.check(filled_in(VARIABLES[name]["query"], CHOSEN)).errors == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["title"])
def test_every_query_of_an_alert_is_flux_and_its_types_fit(checker: FluxChecker, rule: dict[str, Any]) -> None:
    query = rule["data"][0]["model"]["query"]
    assert checker.check(query).errors == []
    assert "v." not in query


def test_the_checker_would_have_told(checker: FluxChecker) -> None:
    query = PANELS["Today"].targets[0]["query"]
    for right, wrong in (
        ("nonNegative: true", "nonNegative: 1"),
        ("1d", '"1d"'),
        ("v.timeRangeStop", "v.timeRangeEnd"),
    ):
        assert right in query
        assert checker.check(as_sent(query.replace(right, wrong))).errors


@pytest.mark.parametrize(("title", "query"), queries())
def test_every_query_reads_what_was_chosen_and_no_more(title: str, query: str) -> None:
    reads = re.findall(
        r'from\(bucket: "([^"]*)"\)\n    \|> range\(start: ([^\n]*), stop: v\.timeRangeStop\)\n(.*)\n', query
    )
    assert len(reads) == query.count("from(bucket") > 0
    for bucket, start, which in reads:
        assert bucket == ("${rollup}" if title in ("Cost this week", "Cost this month") else "${bucket}")
        assert start in ("v.timeRangeStart", "date.sub(from: v.timeRangeStart, d: 1h)", "-5m")
        assert 'r._measurement == "${measurement}" and r.site == "${site}" and r._field == ' in which


@pytest.mark.parametrize(("title", "query"), queries())
def test_a_register_is_counted_by_its_steps_from_the_first_moment_on(title: str, query: str) -> None:
    """An hour further back, for the step into it; and cost alone may fall."""
    for field in re.findall(r'r\._field == "(energy_wh|energy_export_wh|gas_m3|cost)"', query):
        steps = "difference()" if field == "cost" else "difference(nonNegative: true)"
        assert "range(start: date.sub(from: v.timeRangeStart, d: 1h)" in query, title
        assert f"|> {steps}\n    |> filter(fn: (r) => r._time >= v.timeRangeStart)" in query


@pytest.mark.parametrize(("title", "query"), queries())
def test_a_day_is_one_of_the_site(title: str, query: str) -> None:
    if "every: 1d" in query:
        assert 'option location = timezone.location(name: "${timezone}")' in query, title
        assert 'timeSrc: "_start"' in query


def test_a_gap_is_a_gap() -> None:
    for title in ("Power", "Power by device", "Power by circuit", "Voltage", "Frequency"):
        assert "fn: mean, createEmpty: true" in PANELS[title].targets[0]["query"]
