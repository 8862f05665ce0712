"""Prometheus is told of meters that should agree: from the history, once a minute, and nothing that is not known."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics, reconciliations
from api.reconciliations import ReconciliationCollector
from config.settings import ReconciliationTable, Settings, Site
from tests.api.conftest import House, app_of
from tests.metered import HOUR_NS, Load, metered

NOON_NS = int(datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()) * 10**9
TABLES = {
    "house": ReconciliationTable(views=("smart/grid", "meter/led")),
    "rooms": ReconciliationTable(views=("smart/grid", "plugs/tv + plugs/fridge")),
}
Samples = dict[tuple[str, ...], float]


class Clock:
    """The hands of both clocks."""

    def __init__(self) -> None:
        self.utc_ns = NOON_NS
        self.monotonic_ns = 5

    def passes(self, seconds: float) -> None:
        self.utc_ns += round(seconds * 10**9)
        self.monotonic_ns += round(seconds * 10**9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reconciliations.time, "monotonic_ns", lambda: clock.monotonic_ns)
    return clock


@pytest.fixture
def settings(house: House, tmp_path: Path) -> Settings:
    site = Site(name="cottage", timezone="UTC", data_dir=str(tmp_path))
    return msgspec.structs.replace(house.settings, site=site, reconciliations=TABLES)


@pytest.fixture
def collector(settings: Settings, clock: Clock) -> Iterator[ReconciliationCollector]:
    collector = ReconciliationCollector(settings, lambda: clock.utc_ns)
    yield collector
    collector.close()


def steady(watts: float) -> Load:
    return lambda at_ns: watts


def page(house: House, collector: ReconciliationCollector) -> bytes:
    return metrics.render(house.board, "cottage", collector)


def samples(house: House, collector: ReconciliationCollector) -> Samples:
    found = [
        sample
        for family in text_string_to_metric_families(page(house, collector).decode())
        for sample in family.samples
        if "reconciliation" in sample.name
    ]
    return {
        (sample.name.removeprefix("wattherd_reconciliation_"), *sample.labels.values()): sample.value
        for sample in found
    }


def measured(tmp_path: Path, to_ns: int = NOON_NS, **watts: float) -> None:
    names = {"grid": "smart/grid", "led": "meter/led", "tv": "plugs/tv", "fridge": "plugs/fridge"}
    meters = {names[name]: steady(power_w) for name, power_w in watts.items()}
    metered(tmp_path, meters, NOON_NS - 60 * HOUR_NS, to_ns)


def test_yesterday_and_now_are_told_of_each_reconciliation(
    tmp_path: Path, house: House, collector: ReconciliationCollector
) -> None:
    measured(tmp_path, grid=1000, led=990, tv=900, fridge=300)
    rooms = "plugs/tv + plugs/fridge"
    assert samples(house, collector) == {
        ("complete", "house"): 1,
        ("complete", "rooms"): 1,
        ("difference_ratio", "house", "meter/led"): -0.01,
        ("difference_ratio", "rooms", rooms): 0.2,
        ("outside", "house", "meter/led"): 0,
        ("outside", "rooms", rooms): 1,
        ("unaccounted_watts", "house", "meter/led"): 10,
        ("unaccounted_watts", "rooms", rooms): -200,
        ("negative", "house", "meter/led"): 0,
        ("negative", "rooms", rooms): 1,
    }


def test_promtool_has_nothing_to_say_about_these_series(
    tmp_path: Path, house: House, collector: ReconciliationCollector
) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("promtool is missing: make peers")
        pytest.skip("promtool is missing: apt install prometheus")
    measured(tmp_path, grid=1000, led=990)
    checked = subprocess.run([promtool, "check", "metrics"], input=page(house, collector), capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_what_is_old_or_not_complete_is_absent_and_never_stale(
    tmp_path: Path, house: House, collector: ReconciliationCollector, clock: Clock
) -> None:
    measured(tmp_path, grid=1000, led=800)
    assert samples(house, collector)["difference_ratio", "house", "meter/led"] == -0.2
    clock.passes(61)
    found = samples(house, collector)
    assert ("unaccounted_watts", "house", "meter/led") not in found
    assert found["difference_ratio", "house", "meter/led"] == -0.2
    clock.passes(24 * 3600)
    assert samples(house, collector) == {("complete", "house"): 0, ("complete", "rooms"): 0}


def test_the_history_is_asked_once_a_minute_however_often_one_scrapes(
    tmp_path: Path, house: House, collector: ReconciliationCollector, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    days_of = reconciliations.days_of
    monkeypatch.setattr(reconciliations, "days_of", lambda *words: (asked.append(words), days_of(*words))[1])
    measured(tmp_path, grid=1000, led=800)
    for _ in range(5):
        samples(house, collector)
        clock.passes(11.9)
    assert len(asked) == len(TABLES)
    clock.passes(1)
    samples(house, collector)
    assert len(asked) == 2 * len(TABLES)


def test_without_a_history_the_rest_of_the_page_is_as_ever(
    tmp_path: Path, house: House, collector: ReconciliationCollector, clock: Clock
) -> None:
    assert samples(house, collector) == {}
    assert b"wattherd_process_up" in page(house, collector)
    measured(tmp_path, grid=1000, led=800)
    clock.passes(60)
    assert samples(house, collector)["complete", "house"] == 1


def test_a_damaged_history_is_told_to_the_log_once_and_breaks_nothing(
    tmp_path: Path,
    house: House,
    collector: ReconciliationCollector,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database" * 1000)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert samples(house, collector) == {}
            assert b"wattherd_process_up" in page(house, collector)
            clock.passes(61)
    assert [record.message for record in caplog.records if "cannot be read" in record.message] == [
        caplog.records[0].message
    ]
    (tmp_path / "history.db").unlink()
    measured(tmp_path, grid=1000, led=800)
    assert samples(house, collector)["complete", "house"] == 1


def test_the_app_shows_them(tmp_path: Path, settings: Settings, house: House) -> None:
    measured(tmp_path, grid=1000, led=800)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b"", "server": ("", 1)}
    scope["client"] = ("127.0.0.1", 1)
    asyncio.run(app_of(settings, house.board)(scope, receive, send))  # type: ignore[arg-type]
    body = b"".join(message.get("body", b"") for message in sent)  # type: ignore[misc]
    assert b'wattherd_reconciliation_complete{reconciliation="house"}' in body
