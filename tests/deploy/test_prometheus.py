"""The rules for Prometheus ring when they should and keep quiet when they should, by Prometheus' own judgement."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.channels import Channels
from api.devices import DeviceCollector
from api.limits import LimitsCollector
from api.live import Live
from api.metrics import render
from api.reconciliations import _Series
from config.settings import Api, ClockRules, Settings, Site, Supervise, Writer
from tests.peers.process import require
from vitals import Board

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
CASES = sorted((Path(__file__).parent / "prometheus").glob("*.yml"))


@pytest.fixture
def promtool() -> str:
    return require("promtool")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule["alert"] for rule in rules("alerts.yml")]
NEVER, ALWAYS = "vector(0) > 1", "vector(1)"


def series() -> set[str]:
    """Every series that the api can have."""
    house = Settings(
        site=Site(data_dir="/"),
        supervise=Supervise(),
        writer=Writer(),
        clock=ClockRules(),
        api=Api(),
        sources={},
        outputs={},
    )
    channels = Channels(house)
    beside = LimitsCollector(house, Board()), DeviceCollector(Live(channels), channels)
    page = render(Board(), "home", *beside).decode()
    return {*re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)} | {family.name for family in _Series().families}


def test_promtool_understands_the_whole_configuration(promtool: str) -> None:
    checked = run(promtool, "check", "config", RULES / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "alerts.yml" in checked.stdout
    assert f"{len(ALERTS)} rules found" in checked.stdout


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_the_rules_ring_when_they_should_and_not_before(promtool: str, case: str) -> None:
    tested = run(promtool, "test", "rules", Path(__file__).parent / "prometheus" / case)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.long
@pytest.mark.parametrize("instead", [NEVER, ALWAYS])
def test_an_alert_that_never_or_always_rang_would_be_noticed(promtool: str, tmp_path: Path, instead: str) -> None:
    """By one of the tests that name it."""
    broken = yaml.safe_load((RULES / "alerts.yml").read_text())
    mutants = [rule for group in broken["groups"] for rule in group["rules"] if rule["expr"] != instead]
    for rule in mutants:
        rule["expr"] = instead
        rule["annotations"] = {}  # to fill them in anew each minute is most of the work
    for file in RULES.glob("*.yml"):
        shutil.copy(file, tmp_path)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(broken))
    for case in CASES:
        text = case.read_text().replace("../../../deploy/prometheus/", "")
        (tmp_path / f"test-{case.name}").write_text(text)
    tested = run(promtool, "test", "rules", *tmp_path.glob("test-*.yml"))
    assert tested.returncode == 1
    # What did not come as expected, rather than what was not understood.
    noticed = set[str]()
    for difference in tested.stderr.split("exp:")[1:]:
        expected, got = ({*re.findall(r'alertname="(\w+)"', text)} for text in difference.split("got:"))
        noticed |= expected - got if instead == NEVER else got - expected
    assert noticed >= {rule["alert"] for rule in mutants}


def test_the_rules_ask_only_for_series_that_there_are() -> None:
    recorded = {rule["record"] for file in ("limits.yml", "recording.yml") for rule in rules(file)}
    asked = {
        name
        for file in ("recording.yml", "alerts.yml")
        for rule in rules(file)
        for name in re.findall(r"wattherd(?:_\w+|:[\w:]+)", rule["expr"])
    }
    assert asked
    assert asked <= series() | recorded


def test_each_alert_says_what_and_what_now_and_how_bad() -> None:
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in ("critical", "warning", "info", "none"), rule["alert"]
        assert {*rule["annotations"]} == {"summary", "description"}, rule["alert"]


def test_each_recording_is_asked_for_by_a_rule_or_a_dashboard() -> None:
    readers = [RULES / "alerts.yml", RULES / "recording.yml", *(ROOT / "deploy" / "grafana").rglob("*.json")]
    text = "\n".join(file.read_text() for file in readers)
    for rule in (*rules("limits.yml"), *rules("recording.yml")):
        assert re.search(rf"(?<!record: ){re.escape(rule['record'])}\b", text), rule["record"]


def test_the_page_about_prometheus_tells_of_each_alert_and_of_no_other() -> None:
    told = re.findall(r"`(Wattherd\w+)`", (ROOT / "docs" / "prometheus.md").read_text())
    assert {*told} == {*ALERTS}
