"""Every target of the Graphite dashboard, rendered by a real graphite-web from what our output gave a real carbon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from config.settings import Site
from reading import Record
from tests.deploy.dashboards import ROOT, Panel, filled_in, instant, load, panels, reduced
from tests.deploy.metered_house import DAY_S, GAS, HOUSE, PARTS, MeteredHouse
from tests.peers.carbon import running_carbon
from tests.peers.graphite_web import GraphiteWeb, running_graphite_web
from tests.peers.process import wait_for
from writer import Batch, Memo
from writer.outputs.graphite import Graphite, Options

pytestmark = pytest.mark.timeout(300)  # servers are started, and fed with days

DASHBOARD = load("home-graphite.json")
PANELS = {one.title: one for one in panels(DASHBOARD)}
VARIABLES = {
    "prefix": "home.electricity",
    "house": "meter.esp32-meter",
    "source": "*",
    "device": "*",
    "circuit": "circuit",
    "gas": "glow.gas",
}
RULES = ROOT / "deploy" / "graphite"
SCHEMAS = (RULES / "storage-schemas.conf").read_text()
AGGREGATION = (RULES / "storage-aggregation.conf").read_text()


@dataclass(frozen=True)
class Shown:
    """A house as graphite-web shows it."""

    web: GraphiteWeb
    house: MeteredHouse

    def series(self, one: Panel, target: int = 0, **variables: str) -> dict[str, list[tuple[float | None, int]]]:
        """What a target of a panel comes to, by the name that is drawn."""
        text = filled_in(one.targets[target]["target"], VARIABLES | variables)
        points = {"maxDataPoints": str(one.raw.get("maxDataPoints", 300))}  # a narrow panel, unless it says otherwise
        from_s = one.from_s(self.house.until_s)
        found = self.web.render(text, from_s=from_s, until_s=self.house.until_s, **points)
        return {each["target"]: [(value, at_s) for value, at_s in each["datapoints"]] for each in found}

    def number(self, title: str, name: str, target: int = 0) -> float | None:
        """The number that a panel shows for a series."""
        points = self.series(PANELS[title], target)[name]
        return reduced([value for value, _ in points], PANELS[title].calc)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    now_s = int(time.time())
    if now_s % DAY_S < 180:  # a day that has hardly begun has nothing to show
        time.sleep(180 - now_s % DAY_S)
        now_s = int(time.time())
    until_s = now_s - now_s % 30
    house = MeteredHouse(until_s - 9 * DAY_S, until_s)
    folder = tmp_path_factory.mktemp("carbon")
    with running_carbon(folder, schemas=SCHEMAS, aggregation=AGGREGATION) as carbon:
        write(carbon.port, "home.electricity", list(house.records()))
        # The same house, whose readings are missing for two hours of yesterday, and from twelve minutes ago on.
        silent = range(until_s - 12 * 60, until_s + 1)
        cut_off = [record for record in house.records(silent=silent) if record.time_ns > (until_s - 2 * DAY_S) * 10**9]
        away = range(until_s - DAY_S, until_s - DAY_S + 7200)
        write(
            carbon.port, "home.electricity.cut", [record for record in cut_off if record.time_ns // 10**9 not in away]
        )
        with running_graphite_web(tmp_path_factory.mktemp("web"), carbon.whisper_dir, carbon.query_port) as web:
            newest = f"home.electricity.{HOUSE.replace('/', '.')}.power_w"
            wait_for(lambda: carbon.fetch(newest, until_s // 10 * 10) is not None, "the last reading in its file", 60)
            yield Shown(web, house)


def write(port: int, prefix: str, records: list[Record]) -> None:
    options = msgspec.convert({"port": port, "timeout_s": 60, "prefix": prefix}, Options)
    output = Graphite(options, Site(), Memo())
    for start in range(0, len(records), 5000):
        output.write(Batch(records[start : start + 5000]))
    output.close()


@pytest.mark.long
@pytest.mark.parametrize("title", PANELS)
def test_every_target_renders_something(shown: Shown, title: str) -> None:
    for number, _ in enumerate(PANELS[title].targets):
        series = shown.series(PANELS[title], number)
        assert series
        for name, points in series.items():
            assert [value for value, _ in points if value is not None], f"{name} has no number at all"
            assert not name.count("("), "it is drawn under its formula"


def today(shown: Shown) -> int:
    return instant("now/d", shown.house.until_s)


def energy(shown: Shown, channel: str, from_s: int, until_s: int, metric: str = "energy_wh") -> float:
    return shown.house.between(channel, metric, from_s, until_s)


def test_the_energy_of_today_and_yesterday_is_that_of_the_register(shown: Shown) -> None:
    begin, now = today(shown), shown.house.until_s
    assert shown.number("Today", "used") == pytest.approx(energy(shown, HOUSE, begin, now) / 1000, abs=0.005)
    assert shown.number("Yesterday", "used") == pytest.approx(
        energy(shown, HOUSE, begin - DAY_S, begin) / 1000, abs=0.02
    )
    sent_out = energy(shown, HOUSE, begin, now, "energy_export_wh") / 1000
    assert shown.number("Sent out today", "sent out") == pytest.approx(sent_out, abs=0.06)


def test_each_bar_is_the_energy_of_its_day(shown: Shown) -> None:
    begin = today(shown)
    bars = shown.series(PANELS["Seven days"])["used"]
    assert len(bars) == 8
    for number, (value, at_s) in enumerate(bars):
        day = begin + (number - 7) * DAY_S
        assert day <= at_s <= day + 600
        assert value == pytest.approx(energy(shown, HOUSE, day, day + DAY_S) / 1000, abs=0.06)
    out = shown.series(PANELS["Seven days"], 1)["sent out"]
    assert out[3][0] == pytest.approx(
        -energy(shown, HOUSE, begin - 4 * DAY_S, begin - 3 * DAY_S, "energy_export_wh") / 1e3
    )


def test_no_watt_hour_is_lost_between_the_bars(shown: Shown) -> None:
    bars = [value for value, _ in shown.series(PANELS["Seven days"])["used"]]
    whole = energy(shown, HOUSE, today(shown) - 7 * DAY_S, shown.house.until_s) / 1000
    assert sum(value for value in bars if value) == pytest.approx(whole, abs=0.06)


def test_the_table_has_each_device_once_with_its_power_and_its_energy(shown: Shown) -> None:
    rows = table(shown)
    assert {*rows} == {channel.replace("/", ".") for channel in PARTS}
    for channel in PARTS:
        row = rows[channel.replace("/", ".")]
        assert row["Power"] == shown.house.power_w(channel, shown.house.until_s)
        true_kwh = energy(shown, channel, today(shown), shown.house.until_s) / 1000
        assert row["Today"] == pytest.approx(true_kwh, abs=0.045)


def table(shown: Shown, **variables: str) -> dict[str, dict[str, float | None]]:
    """What Grafana makes of the heap of series: a number of each, its name taken apart, a row for each device."""
    panel = PANELS["Every device"]
    reduce, extract, matrix, _ = panel.raw["transformations"]
    assert (reduce["id"], extract["options"]["format"], matrix["id"]) == ("reduce", "kvp", "groupingToMatrix")
    heap = [item for number in range(2) for item in shown.series(panel, number, **variables).items()]
    rows: dict[str, dict[str, float | None]] = {}
    for name, points in heap:
        number = reduced([value for value, _ in points], reduce["options"]["reducers"][0])
        assert number is not None, "Grafana would take the whole column for one without numbers"
        cell = dict(pair.split("=") for pair in name.split(" "))
        rows.setdefault(cell[matrix["options"]["rowField"]], {})[cell[matrix["options"]["columnField"]]] = number
    return rows


def test_the_meter_of_the_house_is_not_stacked_upon_its_own_parts(shown: Shown) -> None:
    assert {*shown.series(PANELS["Power by device"])} == {channel.replace("/", ".") for channel in PARTS}


def test_circuits_have_their_own_names(shown: Shown) -> None:
    assert {*shown.series(PANELS["Power by circuit"])} == {"cooker", "microwave"}
    cooker = energy(shown, "circuit/cooker", today(shown), shown.house.until_s) / 1000
    assert shown.number("Today by circuit", "cooker") == pytest.approx(cooker, abs=0.045)


def test_what_it_cost_today_this_week_and_this_month_is_what_the_register_of_cost_rose_by(shown: Shown) -> None:
    house, now = shown.house, shown.house.until_s
    for title, since in (("Cost today", "now/d"), ("Cost this week", "now/w"), ("Cost this month", "now/M")):
        begin = max(instant(since, now), house.from_s)
        assert shown.number(title, "cost") == pytest.approx(house.between(HOUSE, "cost", begin, now), abs=0.01), title


def test_gas_that_is_read_by_the_half_hour_is_all_there(shown: Shown) -> None:
    read_s = shown.house.until_s // 1800 * 1800
    for title, metric, scale in (("Gas today", "gas_m3", 1), ("Gas today, energy", "energy_wh", 1000)):
        true = energy(shown, GAS, today(shown), read_s, metric) / scale
        assert shown.number(title, "gas") == pytest.approx(true, abs=0.5), title
    bars = shown.series(PANELS["Gas by day"])["gas"]
    assert [value for value, _ in bars][1:7] == [pytest.approx(2.4)] * 6


def test_power_is_shown_as_it_was_measured(shown: Shown) -> None:
    assert shown.number("Now", "house") == shown.house.power_w(HOUSE, shown.house.until_s)


def test_an_old_number_is_not_shown_as_a_new_one(shown: Shown) -> None:
    [now] = shown.series(PANELS["Now"], prefix="home.electricity.cut").values()
    assert reduced([value for value, _ in now], PANELS["Now"].calc) is None
    rows = table(shown, prefix="home.electricity.cut")
    assert len(rows) == len(PARTS)
    assert all("Power" not in row and row["Today"] is not None for row in rows.values())


def test_a_silence_is_a_gap_and_what_flowed_in_it_is_counted_when_it_is_over(shown: Shown) -> None:
    until_s = shown.house.until_s
    [power] = shown.series(PANELS["Power by device"], prefix="home.electricity.cut", device="fridge").values()
    away = range(until_s - DAY_S + 300, until_s - DAY_S + 6600)
    assert [value for value, at_s in power if at_s in away] == [None] * len([1 for _, at_s in power if at_s in away])
    [days] = shown.series(PANELS["Today"], prefix="home.electricity.cut").values()
    seen = shown.house.between(HOUSE, "energy_wh", today(shown) - DAY_S, until_s - 12 * 60 - 30) / 1000
    assert sum(value for value, _ in days if value) == pytest.approx(seen, abs=0.06)


def test_a_register_that_begins_anew_makes_no_day_negative(shown: Shown, tmp_path: Path) -> None:
    """After the ledger was lost it counts from nothing again."""
    until_s = shown.house.until_s
    with running_carbon(tmp_path, schemas=SCHEMAS, aggregation=AGGREGATION) as carbon:
        counts = {until_s - 60: 5000.0, until_s - 40: 5010.0, until_s - 20: 3.0, until_s: 7.0}
        records = [Record("meter", "esp32-meter", at_s * 10**9, {"energy_wh": wh}) for at_s, wh in counts.items()]
        write(carbon.port, "home.electricity", records)
        with running_graphite_web(tmp_path / "web", carbon.whisper_dir, carbon.query_port) as web:
            newest = "home.electricity.meter.esp32-meter.energy_wh"
            wait_for(lambda: carbon.fetch(newest, until_s // 10 * 10) is not None, "the last reading in its file", 60)
            [days] = Shown(web, shown.house).series(PANELS["Today"]).values()
    assert sum(value for value, _ in days if value) == pytest.approx(0.014)
