"""Grafana's own alerts: those of Prometheus are its rules, and those of Graphite ring when they should."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from config.settings import Site
from reading import Record
from tests.deploy.dashboards import GRAFANA, ROOT, reduced
from tests.peers.carbon import running_carbon
from tests.peers.graphite_web import GraphiteWeb, running_graphite_web
from tests.peers.process import wait_for
from writer import Batch, Memo
from writer.outputs.graphite import Graphite, Options

pytestmark = pytest.mark.timeout(300)  # servers are started, and fed with days

STORES = ("graphite", "influxdb", "prometheus")


def rules(store: str) -> list[dict[str, Any]]:
    [group] = json.loads((GRAFANA / "provisioning" / "alerting" / f"wattherd-{store}.json").read_text())["groups"]
    return list(group["rules"])


def rule(store: str, title: str) -> dict[str, Any]:
    [found] = [one for one in rules(store) if one["title"] == title]
    return found


def asked(one: Mapping[str, Any]) -> dict[str, Any]:
    """The query of a rule."""
    return dict(one["data"][0]["model"])


@pytest.mark.parametrize("store", STORES)
def test_each_rule_is_a_query_a_number_and_a_condition(store: str) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "wattherd.yaml").read_text())["datasources"]
    [ours] = [source for source in sources if source["uid"] == f"wattherd-{store}"]
    for one in rules(store):
        query, number, condition = one["data"]
        assert query["datasourceUid"] == ours["uid"]
        assert {number["datasourceUid"], condition["datasourceUid"]} == {"__expr__"}
        assert (
            [step["refId"] for step in one["data"]] == [step["model"]["refId"] for step in one["data"]] == list("ABC")
        )
        assert (number["model"]["type"], number["model"]["expression"]) == ("reduce", "A")
        assert one["condition"] == "C"
        assert query["relativeTimeRange"]["from"] > 0
        assert one["noDataState"] in ("OK", "Alerting")
        assert one["execErrState"] == "Error"
        assert one["labels"]["severity"]
        assert all(one["annotations"][word] for word in ("summary", "description"))


def test_no_two_rules_have_one_address_or_one_title_in_a_folder() -> None:
    everything = [one for store in STORES for one in rules(store)]
    assert len({one["uid"] for one in everything}) == len(everything)
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}", one["uid"]) for one in everything)
    for store in STORES:
        assert len({one["title"] for one in rules(store)}) == len(rules(store))


@pytest.mark.parametrize("store", STORES)
def test_nothing_looks_like_a_variable_of_grafanas_environment(store: str) -> None:
    """It puts in `${NAME}` in the words of a rule, and leaves queries as they are."""
    assert "${" not in (GRAFANA / "provisioning" / "alerting" / f"wattherd-{store}.json").read_text()


def test_the_rules_for_prometheus_are_those_that_promtool_has_tried_out() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    proven = {one["alert"]: one for group in groups for one in group["rules"]}
    made = {one["title"]: one for one in rules("prometheus")}
    assert {*made} == {*proven}
    for title, one in proven.items():
        assert asked(made[title])["expr"] == " ".join(one["expr"].split())
        assert made[title]["for"] == one.get("for", "0s")
        assert made[title]["labels"] == one["labels"]
        assert made[title]["data"][2]["model"]["expression"] == "is_number($B)"
        for word, text in one["annotations"].items():
            assert made[title]["annotations"][word] == text.replace("$value", "$values.B.Value")


# ---- Graphite


@dataclass(frozen=True)
class Shown:
    web: GraphiteWeb
    now_s: int

    def rings(self, title: str) -> set[str]:
        """Name the series for which a rule rings; what Grafana would say when there is none is in `noDataState`."""
        one = rule("graphite", title)
        query = asked(one)
        from_s = self.now_s - one["data"][0]["relativeTimeRange"]["from"]
        points = str(query["maxDataPoints"])
        found = self.web.render(query["target"], from_s=from_s, until_s=self.now_s, maxDataPoints=points)
        return {each["target"] for each in found if condition(one, [value for value, _ in each["datapoints"]])}


def condition(one: Mapping[str, Any], values: list[float | None]) -> bool:
    """What Grafana makes of a series by the steps B and C of a rule."""
    reduce, decide = (step["model"] for step in one["data"][1:])
    if reduce["settings"]["mode"] == "dropNN":
        values = [value for value in values if value is not None]
    if reduce["reducer"] == "min":
        number = min((value for value in values if value is not None), default=math.nan)
    else:
        assert reduce["reducer"] == "last"
        last = reduced(values, "last")
        number = math.nan if last is None else last
    if decide["type"] == "math":
        assert decide["expression"] == "is_nan($B) || is_null($B)"
        return math.isnan(number)
    [evaluator] = [each["evaluator"] for each in decide["conditions"]]
    assert evaluator["type"] == "gt"
    return number > evaluator["params"][0]


def records(now_s: int) -> Iterator[Record]:
    """A house that draws much, an iron with a thermostat, a kettle, one device silent of late and one gone for days."""
    for at_s in range(now_s - 5 * 3600, now_s + 1, 30):
        ago_s = now_s - at_s

        def read(source: str, device: str, power_w: float, at_s: int = at_s) -> Record:
            return Record(source, device, at_s * 10**9, {"power_w": power_w})

        yield read("meter", "esp32-meter", 8100.0 if ago_s < 1200 else 300.0)
        yield read("plugs", "iron", 1200.0 if at_s // 60 % 15 < 9 else 0.0)
        yield read("plugs", "kettle", 2800.0 if ago_s < 240 else 0.0)
        if ago_s > 720:
            yield read("plugs", "toaster", 0.0)
    yield Record("plugs", "gone", (now_s - 3 * 86_400) * 10**9, {"power_w": 5.0})


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    now_s = int(time.time()) // 30 * 30
    folder = tmp_path_factory.mktemp("carbon")
    schemas, aggregation = (
        (ROOT / "deploy" / "graphite" / f"storage-{kind}.conf").read_text() for kind in ("schemas", "aggregation")
    )
    with running_carbon(folder, schemas=schemas, aggregation=aggregation) as carbon:
        output = Graphite(msgspec.convert({"port": carbon.port, "timeout_s": 60}, Options), Site(), Memo())
        output.write(Batch([*records(now_s)]))
        with running_graphite_web(tmp_path_factory.mktemp("web"), carbon.whisper_dir, carbon.query_port) as web:
            newest = ("home.electricity.plugs.kettle.power_w", now_s // 10 * 10)
            wait_for(lambda: carbon.fetch(*newest) is not None, "the last reading in its file", 60)
            wait_for(lambda: len(carbon.series()) == 5, "all files")
            yield Shown(web, now_s)


def test_high_usage_rings_when_it_has_lasted_for_a_quarter_of_an_hour(shown: Shown) -> None:
    assert shown.rings("High usage") == {"house"}
    assert Shown(shown.web, shown.now_s - 600).rings("High usage") == set()


def test_an_iron_with_a_thermostat_is_left_on(shown: Shown) -> None:
    assert shown.rings("Device left on") == {"iron"}


def test_who_has_been_silent_for_five_minutes_rings_and_who_is_gone_for_days_does_not(shown: Shown) -> None:
    assert shown.rings("No data") == {"plugs.toaster"}


def test_when_graphite_has_nothing_at_all_that_is_an_alarm_too(tmp_path: Path) -> None:
    with running_graphite_web(tmp_path, tmp_path / "whisper") as web:
        assert Shown(web, int(time.time())).rings("No data") == set()
    assert rule("graphite", "No data")["noDataState"] == "Alerting"
    assert rule("graphite", "High usage")["noDataState"] == rule("graphite", "Device left on")["noDataState"] == "OK"
