"""What the InfluxDB dashboard shows of nine days is what the registers rose by, by the engine of Flux itself.

The days are those on which summer time ends: one of them has 25 hours.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest

from tests.deploy.dashboards import GRAFANA, Panel, instant, load, panels, reduced
from tests.deploy.metered_house import DAY_S, GAS, HOUSE, PARTS, MeteredHouse
from tests.deploy.test_grafana_influx import CHOSEN, as_sent
from tests.peers import flux_engine

pytestmark = [flux_engine.NEEDED, pytest.mark.timeout(300)]

ZONE = "Europe/London"
NOW_S = round(datetime.fromisoformat("2026-10-27T15:00:00+00:00").timestamp())
STEP_S = 300  # a reading every five minutes keeps the script short
SILENT = range(NOW_S - 30 * 3600, NOW_S - 27 * 3600)
PANELS = {one.title: one for one in panels(load("home-influxdb.json"))}
EVERYBODY = CHOSEN | {"source": ".*"}

Points = dict[str, list[tuple[float | str | None, int]]]


@pytest.fixture(scope="module")
def house() -> MeteredHouse:
    return MeteredHouse(NOW_S - 9 * DAY_S, NOW_S)


@pytest.fixture(scope="module")
def stored(house: MeteredHouse) -> str:
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, Any]]] = {}
    for record in house.records(silent=SILENT):
        at_s = record.time_ns // 10**9
        if at_s % STEP_S:
            continue
        values = dict(record.values)
        if record.device == "fridge":
            values["state"] = "running" if float(values["power_w"]) > 15 else "idle"
        for field, value in values.items():
            key = {"_field": field, "_measurement": "electricity", "device": record.device, "site": "home"}
            series.setdefault((*key.items(), ("source", record.source)), []).append((at_s, value))
    elsewhere = (("_field", "power_w"), ("_measurement", "electricity"), ("device", "kettle"), ("site", "elsewhere"))
    series[(*elsewhere, ("source", "kasa"))] = [(NOW_S - 60.0, 2000.0)]
    return flux_engine.stored(series)


def run(one: Panel, stored: str, target: int = 0) -> list[dict[str, str]]:
    """The rows that a target of a panel gets."""
    script = as_sent(one.targets[target]["query"], one.from_s(NOW_S, ZONE), NOW_S, EVERYBODY)
    imports = re.match(r"(?:import .*\n)*", script)
    assert imports
    return list(flux_engine.run(f'import "csv"\n{imports[0]}{stored}{script[imports.end() :]}', NOW_S))


def series(title: str, stored: str, target: int = 0) -> Points:
    """What a panel draws, by name."""
    found: Points = {}
    for row in run(PANELS[title], stored, target):
        value = row["_value"]
        number = float(value) if re.fullmatch(r"-?[\d.]+(?:e[-+]?\d+)?", value) else value or None
        found.setdefault(row["_field"], []).append((number, round(datetime.fromisoformat(row["_time"]).timestamp())))
    return found


def number(title: str, name: str, stored: str) -> float | None:
    return reduced([value for value, _ in series(title, stored)[name]], PANELS[title].calc)  # type: ignore[misc]


def rise(house: MeteredHouse, channel: str, from_s: int, until_s: int, metric: str = "energy_wh") -> float:
    """What was counted by the readings of a time, its end not included; a step belongs to the reading at its end."""
    every_s = 1800 if channel == GAS else STEP_S

    def before(at_s: int) -> int:
        read_s = min(at_s - 1, NOW_S) // every_s * every_s
        while read_s in SILENT:
            read_s -= every_s
        return read_s

    return house.between(channel, metric, before(from_s), before(until_s))


def midnight(days_ago: int) -> int:
    return instant(f"now-{days_ago}d/d" if days_ago else "now/d", NOW_S, ZONE)


@pytest.mark.parametrize("title", PANELS)
def test_every_query_has_an_answer(title: str, stored: str) -> None:
    for target, _ in enumerate(PANELS[title].targets):
        found = run(PANELS[title], stored, target)
        assert [row for row in found if any(row.get(column) for column in ("_value", "Power", "Today"))]


def test_a_day_of_25_hours_has_the_energy_of_25_hours(house: MeteredHouse, stored: str) -> None:
    assert midnight(1) - midnight(2) == DAY_S + 3600
    for name, target, sign, metric in (("used", 0, 1, "energy_wh"), ("sent out", 1, -1, "energy_export_wh")):
        bars = series("Seven days", stored, target)[name]
        assert [at_s for _, at_s in bars] == [midnight(days) for days in range(7, -1, -1)]
        for days, (value, _) in zip(range(7, -1, -1), bars, strict=True):
            until_s = midnight(days - 1) if days else NOW_S
            assert value == pytest.approx(sign * rise(house, HOUSE, midnight(days), until_s, metric) / 1000)


def test_today_and_yesterday_lack_nothing(house: MeteredHouse, stored: str) -> None:
    used = rise(house, HOUSE, midnight(0), NOW_S) / 1000
    assert number("Today", "used", stored) == pytest.approx(used)
    assert number("Yesterday", "used", stored) == pytest.approx(rise(house, HOUSE, midnight(1), midnight(0)) / 1000)
    sent_out = rise(house, HOUSE, midnight(0), NOW_S, "energy_export_wh") / 1000
    assert number("Sent out today", "sent out", stored) == pytest.approx(sent_out)


def test_the_table_has_a_row_for_each_device_of_this_site_but_not_for_its_meters(
    house: MeteredHouse, stored: str
) -> None:
    rows = {row["Device"]: row for row in run(PANELS["Every device"], stored)}
    assert {*rows} == {channel.replace("/", ".") for channel in PARTS}
    for channel in PARTS:
        row = rows[channel.replace("/", ".")]
        assert float(row["Power"]) == house.power_w(channel, NOW_S - STEP_S)
        assert float(row["Today"]) == pytest.approx(rise(house, channel, midnight(0), NOW_S) / 1000)


def test_costs_and_gas_are_what_their_registers_rose_by(house: MeteredHouse, stored: str) -> None:
    for title, since in (("Cost today", "now/d"), ("Cost this week", "now/w"), ("Cost this month", "now/M")):
        begin_s = max(instant(since, NOW_S, ZONE), house.from_s + 1)
        assert number(title, "cost", stored) == pytest.approx(rise(house, HOUSE, begin_s, NOW_S, "cost")), title
    gas = rise(house, GAS, midnight(0), NOW_S, "gas_m3")
    assert number("Gas today", "gas", stored) == pytest.approx(gas)
    energy = rise(house, GAS, midnight(0), NOW_S) / 1000
    assert number("Gas today, energy", "gas", stored) == pytest.approx(energy)


def test_a_silence_is_a_gap_and_an_old_power_is_none(house: MeteredHouse, stored: str) -> None:
    power = PANELS["Power"]
    query = {"query": power.targets[0]["query"].replace("v.windowPeriod", "10m")}
    wider = Panel(power.raw | {"targets": [query], "timeFrom": "now-48h"}, power.dashboard_from)
    points = {round(datetime.fromisoformat(row["_time"]).timestamp()): row["_value"] for row in run(wider, stored)}
    assert {points[at_s] for at_s in points if SILENT.start + 600 < at_s <= SILENT.stop} == {""}
    assert points[SILENT.start - 600]
    assert number("Now", "house", stored) == house.power_w(HOUSE, NOW_S - STEP_S)
    script = as_sent(PANELS["Now"].targets[0]["query"], NOW_S, NOW_S + 400, EVERYBODY)
    assert list(flux_engine.run(f'import "csv"\n{stored}{script}', NOW_S + 400)) == []


def test_alerts_ring_for_who_is_silent_and_not_for_who_is_not(stored: str) -> None:
    text = (GRAFANA / "provisioning" / "alerting" / "wattherd-influxdb.json").read_text()
    asked = {rule["title"]: rule["data"][0]["model"]["query"] for rule in json.loads(text)["groups"][0]["rules"]}
    ages = list(flux_engine.run(f'import "csv"\n{stored}{asked["No data"]}', NOW_S + 301))
    assert {row["device"] for row in ages if float(row["_value"]) > 300} == {"esp32-meter", "kettle"} | {
        channel.split("/")[1] for channel in PARTS
    }
    assert not [
        row for row in flux_engine.run(f'import "csv"\n{stored}{asked["No data"]}', NOW_S) if float(row["_value"]) > 300
    ]
    powers = [float(row["_value"]) for row in flux_engine.run(f'import "csv"\n{stored}{asked["High usage"]}', NOW_S)]
    assert len(powers) == 900 / STEP_S
