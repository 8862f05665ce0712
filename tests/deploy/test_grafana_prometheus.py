"""Every PromQL of the dashboards, asked of a real Prometheus that scrapes a real house in which something is wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from config.interface import hash_of_key
from tests.deploy.dashboards import ROOT, Panel, filled_in, load, panels
from tests.deploy.metered_house import DAY_S
from tests.faults.house import House
from tests.metered import metered
from tests.peers.process import free_ports, wait_for
from tests.peers.prometheus import Prometheus, running_prometheus

pytestmark = pytest.mark.timeout(300)  # servers are started, and fed with days

RULES = ROOT / "deploy" / "prometheus"
PANELS = {f"{name}: {one.title}": one for name in ("health.json", "home-prometheus.json") for one in panels(load(name))}
# Nothing of the kind can be simulated; test_grafana_energy.py has gas.
WITHOUT_GAS = {f"home-prometheus.json: {title}" for title in ("Gas today", "Gas today, energy", "Gas by day")}


@dataclass(frozen=True)
class Watched:
    """A house and the Prometheus that watches it."""

    prometheus: Prometheus
    house: House

    def series(self, one: Panel, target: int = 0) -> list[dict[str, object]]:
        asks = one.targets[target]
        now_s = time.time()
        values = {
            "instance": f"127.0.0.1:{self.house.api_port}",
            "source": ".*",
            "device": ".*",
            "circuit": "house",
            "__rate_interval": "4s",
            "__range": f"{round(now_s) - one.from_s(now_s)}s",
        }
        expression = filled_in(asks["expr"], values)
        if asks.get("instant"):
            return self.prometheus.query(expression, now_s)
        if one.raw.get("interval") == "1d":
            return self.prometheus.query_range(expression, one.from_s(now_s), now_s, DAY_S)
        return self.prometheus.query_range(expression, now_s - 30, now_s, 1)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One source cannot open its port, one output has nobody to talk to; meters were compared the day before.

    Whoever asks needs the key, as from another machine.
    """
    folder = tmp_path_factory.mktemp("house")
    (nobody,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        house = House(
            folder,
            f"[outputs.csv]\n[outputs.history]\n[outputs.graphite]\nport = {nobody}\ntimeout_s = 0.5\n",
            ["esp32-meter"],
            f"""
[sources.house]
kind = "simulated"
interval_s = 0.5
[sources.shed]
kind = "esp32_http"
port = {taken.getsockname()[1]}
[[sources.shed.devices]]
name = "shed-meter"
[channels.house.house-meter]
role = "grid"
tariff = "main"
[channels.house.fridge]
states = ["idle", "running"]
thresholds_w = [15.0]
[tariffs.main]
currency = "GBP"
[[tariffs.main.periods]]
from = 2025-01-01
unit_rate_per_kwh = 0.27
export_rate_per_kwh = 0.15
[reconciliations.house]
views = ["house/house-meter", "house/base"]
""",
        )
        now_ns = time.time_ns()
        loads = {"house/house-meter": lambda _: 500.0, "house/base": lambda _: 400.0}
        house.data_dir.mkdir(parents=True, exist_ok=True)
        metered(house.data_dir, loads, now_ns - 3 * 86_400 * 10**9, now_ns)
        key = folder / "wattherd.key"
        key.write_text("k3y-of-a-test")
        asks = f'[api]\nkey_hash = "{hash_of_key(key.read_text())}"\nalways_ask_for_key = true\n'
        house.write(house.config.read_text().replace("[api]\n", asks))
        house.start()
        try:
            wait_for(lambda: house.get("/healthz"), "the api of the house")
            assert house.get("/metrics") is None, "it is shown to nobody without a key"
            configuration = yaml.safe_load((RULES / "prometheus.yml").read_text())
            configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
            configuration["rule_files"] = [str(RULES / file) for file in configuration["rule_files"]]
            [job] = configuration["scrape_configs"]
            job["authorization"] = {"credentials_file": str(key)}
            job["static_configs"] = [{"targets": [f"127.0.0.1:{house.api_port}"]}]
            with running_prometheus(tmp_path_factory.mktemp("prometheus"), configuration) as prometheus:
                yield Watched(prometheus, house)
        finally:
            house.kill()


@pytest.mark.parametrize("title", sorted({*PANELS} - WITHOUT_GAS))
def test_every_query_has_an_answer(watched: Watched, title: str) -> None:
    for number, target in enumerate(PANELS[title].targets):
        wait_for(lambda number=number: watched.series(PANELS[title], number), f"{target['expr']} to have an answer", 60)


def test_the_variable_of_the_dashboard_finds_the_house(watched: Watched) -> None:
    found = wait_for(lambda: watched.prometheus.label_values("instance", "wattherd_info"), "the house to be known")
    assert found == [f"127.0.0.1:{watched.house.api_port}"]


def test_a_state_is_the_number_that_the_panel_has_a_name_for(watched: Watched) -> None:
    panel = PANELS["health.json: State"]
    names = {
        mapping["options"]["result"]["text"]: mapping["options"]
        for mapping in panel.raw["fieldConfig"]["defaults"]["mappings"]
    }

    def shown() -> dict[str, float]:
        return {str(each["metric"]["output"]): float(each["values"][-1][1]) for each in watched.series(panel)}

    wait_for(lambda: shown().get("graphite") == 2, "the output without a peer to be down")
    assert names["down"]["from"] < shown()["graphite"] < names["down"]["to"]
    assert names["up"]["from"] < shown()["csv"] < names["up"]["to"]


def test_what_is_wrong_rings_in_the_real_prometheus_too(watched: Watched) -> None:
    def pending() -> set[str]:
        return {each["metric"]["alertname"] for each in watched.prometheus.query("ALERTS")}

    wait_for(lambda: {"WattherdWatchdog", "WattherdSourceClosed", "WattherdOutputDown"} <= pending(), "its alerts", 60)
