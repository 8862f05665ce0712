"""What the Prometheus dashboard says of nine days is what the registers rose by, gas and costs included."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from api.devices import SHOWN
from tests.deploy.dashboards import filled_in, instant, load, panels
from tests.deploy.metered_house import DAY_S, GAS, HOUSE, PARTS, MeteredHouse
from tests.peers.process import require, wait_for
from tests.peers.prometheus import Prometheus, running_prometheus

pytestmark = pytest.mark.timeout(300)  # servers are started, and fed with days

PANELS = {one.title: one for one in panels(load("home-prometheus.json"))}
INSTANCE = "pi:8000"


def exposition(house: MeteredHouse) -> Iterator[str]:
    """The series that the api would have shown, once a minute; gas is fresh for five minutes of every half hour."""
    scraped = range(house.until_s - (house.until_s - house.from_s) // 60 * 60, house.until_s + 1, 60)

    def series(name: str, of: str, more: str = "") -> str:
        source, device = of.split("/")
        return f'{name}{{job="wattherd",instance="{INSTANCE}",source="{source}",device="{device}"{more}}}'

    def samples(named: str, known: dict[int, float], fresh_s: int) -> Iterator[str]:
        for at_s in scraped:
            read_s = at_s // 30 * 30 if fresh_s == 30 else at_s // 1800 * 1800
            if at_s - read_s <= fresh_s and read_s in known:
                yield f"{named} {known[read_s]!r} {at_s}\n"

    for (channel, metric), known in house.registers.items():
        shown = SHOWN[metric]
        name = shown.name + ("_total" if shown.is_counter else "")
        direction = f',direction="{shown.direction}"' if shown.direction else ""
        yield (
            f"# TYPE {shown.name} {'counter' if shown.is_counter else 'gauge'}\n"
            if metric != "energy_export_wh"
            else ""
        )
        yield from samples(series(name, channel, direction), known, 300 if channel == GAS else 30)
    always = dict.fromkeys(house.registers[HOUSE, "energy_wh"], 1.0)
    for channel in (HOUSE, *PARTS, GAS):
        role = "grid" if channel == HOUSE else "part"
        yield from samples(series("wattherd_device_info", channel, f',kind="any",role="{role}"'), always, 30)
        if channel != GAS:
            powers = {at_s: house.power_w(channel, at_s) for at_s in always}
            yield from samples(series(SHOWN["power_w"].name, channel), powers, 30)
    yield "# EOF\n"


@dataclass(frozen=True)
class Told:
    prometheus: Prometheus
    house: MeteredHouse

    def series(self, title: str, target: int = 0) -> dict[str, list[tuple[float, int]]]:
        """What a panel shows, by the name that it is drawn under."""
        one, now_s = PANELS[title], self.house.until_s
        asks, from_s = one.targets[target], one.from_s(now_s)
        values = {"instance": INSTANCE, "source": ".*", "device": ".*", "circuit": "circuit"}
        expression = filled_in(asks["expr"], values | {"__range": f"{now_s - from_s}s"})
        if asks["instant"]:
            found = [(each["metric"], [each["value"]]) for each in self.prometheus.query(expression, now_s)]
        else:
            step_s = DAY_S if one.raw.get("interval") == "1d" else 300
            ranges = self.prometheus.query_range(expression, from_s, now_s, step_s)
            found = [(each["metric"], each["values"]) for each in ranges]
        return {
            labels.get("Device", labels.get("device", asks["legendFormat"])): [
                (float(text), int(at)) for at, text in points
            ]
            for labels, points in found
        }

    def number(self, title: str, name: str) -> float:
        points = self.series(title)[name]
        return points[0 if PANELS[title].calc == "first" else -1][0]

    def kwh(self, channel: str, from_s: int, until_s: int, metric: str = "energy_wh") -> float:
        return self.house.between(channel, metric, from_s, until_s) / 1000


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    promtool, folder = require("promtool"), tmp_path_factory.mktemp("prometheus")
    now_s = int(time.time())
    if now_s % DAY_S < 180:  # a day that has hardly begun has nothing to show
        time.sleep(180 - now_s % DAY_S)
        now_s = int(time.time())
    house = MeteredHouse(now_s - 9 * DAY_S, now_s - now_s % 60)
    text = folder / "metrics"
    text.write_text("".join(exposition(house)))
    backfill = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=240h", "openmetrics"]
    command = [*backfill, "--quiet", text, folder / "tsdb"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert made.returncode == 0, made.stdout + made.stderr
    with running_prometheus(folder, {"scrape_configs": []}) as prometheus:
        told = Told(prometheus, house)
        wait_for(lambda: told.series("Power by device"), "the nine days to be there")
        yield told


def near(kwh: float, most_w: float = 4000) -> object:
    """A scrape a minute may be a minute off at either end of a day."""
    return pytest.approx(kwh, abs=most_w * 120 / 3.6e6)


def test_today_and_yesterday_are_what_the_register_rose_by(told: Told) -> None:
    begin, now_s = instant("now/d", told.house.until_s), told.house.until_s
    assert told.number("Today", "used") == near(told.kwh(HOUSE, begin, now_s))
    assert told.number("Yesterday", "used") == near(told.kwh(HOUSE, begin - DAY_S, begin))
    assert told.number("Sent out today", "sent out") == near(told.kwh(HOUSE, begin, now_s, "energy_export_wh"))


def test_each_bar_stands_at_the_beginning_of_its_day_and_is_its_energy(told: Told) -> None:
    begin = instant("now/d", told.house.until_s)
    for name, target, sign, metric in (("used", 0, 1, "energy_wh"), ("sent out", 1, -1, "energy_export_wh")):
        bars = told.series("Seven days", target)[name]
        assert [at_s for _, at_s in bars] == [begin + number * DAY_S for number in range(-7, 1)]
        for value, at_s in bars:
            assert value == near(sign * told.kwh(HOUSE, at_s, at_s + DAY_S, metric))


def test_the_table_has_each_device_with_its_power_and_its_energy_but_not_the_meters(told: Told) -> None:
    begin, now_s = instant("now/d", told.house.until_s), told.house.until_s
    power, energy = told.series("Every device"), told.series("Every device", 1)
    assert {*power} == {*energy} == {channel.replace("/", ".") for channel in PARTS}
    for channel in PARTS:
        name = channel.replace("/", ".")
        assert power[name][0][0] == told.house.power_w(channel, now_s)
        assert energy[name][0][0] == near(told.kwh(channel, begin, now_s))


def test_areas_and_bars_are_of_the_devices_alone(told: Told) -> None:
    for title in ("Power by device", "Energy by device and day"):
        assert {*told.series(title)} == {channel.replace("/", ".") for channel in PARTS}
    assert {*told.series("Power by circuit")} == {*told.series("Today by circuit")} == {"cooker", "microwave"}


def test_costs_are_what_the_register_of_cost_rose_by(told: Told) -> None:
    now_s = told.house.until_s
    for title, since in (("Cost today", "now/d"), ("Cost this week", "now/w"), ("Cost this month", "now/M")):
        begin = max(instant(since, now_s), told.house.from_s)
        true = told.house.between(HOUSE, "cost", begin, now_s)
        assert told.number(title, "cost") == pytest.approx(true, abs=0.05, rel=0.002), title


def test_gas_that_is_there_for_five_minutes_of_each_half_hour_is_all_counted(told: Told) -> None:
    begin = instant("now/d", told.house.until_s)
    bars = told.series("Gas by day")["gas"]
    for value, at_s in bars[:-1]:
        assert value == pytest.approx(told.house.between(GAS, "gas_m3", at_s, at_s + DAY_S), abs=0.1)
    energy = told.number("Gas today, energy", "gas")
    assert energy == pytest.approx(told.kwh(GAS, begin, told.house.until_s // 1800 * 1800), abs=5)
