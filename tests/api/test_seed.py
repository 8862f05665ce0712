"""The energy-monitor API as its app knows it: paths, names, shapes and the example values of its documentation."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

import tap
from config.interface import Api, Appliance
from config.settings import OutputTable, Settings
from reading import Clock, Quality, Reading, Record
from tap import Basin, Spout
from tests.api.recorded import record
from tests.api.server import Server, served
from tests.peers.process import wait_for
from writer.outputs.csv import Options as CsvOptions

APPLIANCES = (
    Appliance(id=1, name="Refrigerator", channel="meter/fridge"),
    Appliance(id=2, name="Air Conditioner", channel="meter/air"),
    Appliance(id=3, name="Water Heater", channel="meter/heater"),
)
MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}")
SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
MINUTE_NS = 60 * 10**9
LONDON = ZoneInfo("Europe/London")


def kept(settings: Settings, **outputs: OutputTable) -> Settings:
    return replace(
        settings, api=Api(port=0, appliances=APPLIANCES), outputs=outputs or {"history": OutputTable(kind="history")}
    )


class Kept:
    """A served house whose readings come through the tap, as they do from the writer."""

    def __init__(self, house: Any, stack: ExitStack) -> None:
        writer_end, api_end = tap.pair()
        stack.enter_context(closing(writer_end))
        stack.enter_context(closing(api_end))
        self._spout = Spout(writer_end)
        self.server: Server = stack.enter_context(served(house, basin=Basin(api_end)))
        self.server.wait_until_it_serves()

    def tell(self, device: str, *, age_s: float = 0.0, **values: float) -> None:
        at_ns = time.monotonic_ns() - round(age_s * 1e9)
        offset_ns = time.time_ns() - time.monotonic_ns()
        self._spout.let_out("meter", [Reading(device, at_ns, values)], offset_ns, Clock.SYNCED)

    def get(self, path: str) -> Any:
        answer = self.server.ask(path)
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/json"
        return answer.json


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_the_power_now_is_as_in_the_example(house, stack: ExitStack) -> None:
    house.settings = kept(house.settings)
    kept_house = Kept(house, stack)
    kept_house.tell("fridge", power_w=125.5)
    wait_for(lambda: kept_house.server.ask("/energy").status == 200, "the reading")
    for path in ("/energy?applianceId=1", "/energy"):
        found = kept_house.get(path)
        assert [*found] == ["timestamp", "watts", "applianceId"]
        assert (found["watts"], found["applianceId"]) == (125.5, 1)
        assert MICROSECONDS.fullmatch(found["timestamp"])
        at = datetime.fromisoformat(found["timestamp"]).replace(tzinfo=LONDON)
        assert abs((datetime.now(UTC) - at).total_seconds()) < 30


def test_of_a_silent_appliance_there_is_no_power_rather_than_an_old_one(house, stack: ExitStack) -> None:
    house.settings = kept(house.settings)
    kept_house = Kept(house, stack)
    kept_house.tell("fridge", age_s=400, power_w=125.5)
    kept_house.tell("air", power_w=1.0)
    wait_for(lambda: kept_house.server.ask("/energy?applianceId=2").status == 200, "the readings")
    for number, words in ((1, "Refrigerator (meter/fridge)"), (3, "Water Heater (meter/heater)")):
        answer = kept_house.server.ask(f"/energy?applianceId={number}")
        assert answer.status == 503
        assert answer.json == {"error": f"{words} has said nothing of late; is it switched on and in reach?"}


def test_the_last_24_readings_are_as_in_the_example(house, stack: ExitStack) -> None:
    house.settings = kept(house.settings)
    kept_house = Kept(house, stack)
    assert kept_house.get("/energy/history?applianceId=1") == {"data": []}
    for number in range(30):
        kept_house.tell("fridge", age_s=30 - number, power_w=120.3 + number)
    wait_for(lambda: len(kept_house.get("/energy/history")["data"]) == 24, "the readings")
    data = kept_house.get("/energy/history?applianceId=1")["data"]
    assert [reading["watts"] for reading in data] == [120.3 + number for number in range(6, 30)]
    for reading in data:
        assert [*reading] == ["timestamp", "watts", "applianceId"]
        assert SECONDS.fullmatch(reading["timestamp"])
        assert reading["applianceId"] == 1
    assert [reading["timestamp"] for reading in data] == sorted(reading["timestamp"] for reading in data)


def test_the_last_24_readings_are_known_to_a_new_process_too(house, stack: ExitStack, tmp_path: Path) -> None:
    now_ns = time.time_ns()
    record(
        tmp_path,
        [Record("meter", "fridge", now_ns - (40 - n) * 10**10, {"power_w": 100.0 + n}) for n in range(40)],
    )
    house.settings = kept(house.settings)
    data = Kept(house, stack).get("/energy/history")["data"]
    assert [reading["watts"] for reading in data] == [100.0 + n for n in range(16, 40)]


def test_the_appliances_are_as_in_the_example(house, stack: ExitStack) -> None:
    house.settings = kept(house.settings)
    assert Kept(house, stack).get("/appliances") == {
        "appliances": [
            {"id": 1, "name": "Refrigerator"},
            {"id": 2, "name": "Air Conditioner"},
            {"id": 3, "name": "Water Heater"},
        ]
    }


def local_midnight_ns(days_ago: int) -> int:
    day = (datetime.now(LONDON) - timedelta(days=days_ago)).date()
    return int(datetime.combine(day, datetime.min.time(), LONDON).timestamp()) * 10**9


def a_day(folder: Path, days_ago: int = 1) -> None:
    """Record a day of 144 readings of one appliance whose numbers are those of the example."""
    midnight_ns = local_midnight_ns(days_ago)
    watts = [45.3, 180.5] + [115.2 + (2.3 / 142)] * 142  # so that they are 115.2 on average
    watts = [round(one, 9) for one in watts]
    watts[-1] += 115.2 * 144 - sum(watts)
    record(
        folder,
        [Record("meter", "fridge", midnight_ns + n * 10 * MINUTE_NS, {"power_w": watts[n]}) for n in range(144)],
    )


def test_historical_data_is_as_in_the_example(house, stack: ExitStack, tmp_path: Path) -> None:
    a_day(tmp_path)
    house.settings = kept(house.settings)
    kept_house = Kept(house, stack)
    found = kept_house.get("/logs/historical-data?days=7")
    assert [*found] == ["data", "daily_stats"]
    yesterday = str((datetime.now(LONDON) - timedelta(days=1)).date())
    [stats] = found["daily_stats"]
    assert [*stats] == ["date", "avg_watts", "max_watts", "min_watts", "total_readings"]
    assert stats == {
        "date": yesterday,
        "avg_watts": 115.2,
        "max_watts": 180.5,
        "min_watts": 45.3,
        "total_readings": 144,
    }
    for reading in found["data"]:
        assert [*reading] == ["timestamp", "watts", "applianceId"]
        assert reading["timestamp"].startswith(yesterday)
        assert 45.3 <= reading["watts"] <= 180.5
    assert kept_house.get("/logs/historical-data?days=1")["daily_stats"] == []
    assert kept_house.get("/logs/historical-data?days=7&applianceId=2") == {"data": [], "daily_stats": []}
    assert kept_house.get("/logs/historical-data")["daily_stats"] == [stats]


def test_days_have_the_readings_of_all_appliances(house, stack: ExitStack, tmp_path: Path) -> None:
    a_day(tmp_path)
    midnight_ns = local_midnight_ns(1)
    record(tmp_path, [Record("meter", "air", midnight_ns + n * MINUTE_NS, {"power_w": 1000.0}) for n in range(16)], 2)
    house.settings = kept(house.settings)
    [stats] = Kept(house, stack).get("/logs/historical-data?days=2")["daily_stats"]
    assert (stats["total_readings"], stats["min_watts"], stats["max_watts"]) == (160, 45.3, 1000.0)
    assert stats["avg_watts"] == pytest.approx((144 * 115.2 + 16 * 1000) / 160, abs=1e-3)


@pytest.mark.parametrize("outputs", ["history", "csv"])
def test_the_log_is_the_csv_of_the_example(house, stack: ExitStack, tmp_path: Path, outputs: str) -> None:
    if outputs == "history":
        a_day(tmp_path)
        house.settings = kept(house.settings)
    else:
        files = CsvOptions(kind="csv", profile="energy_monitor", directory="monitor", appliances={"fridge": 1})
        house.settings = kept(house.settings, csv=files)
        (tmp_path / "monitor").mkdir()
        for days_ago in (400, 1, 0):
            day = datetime.fromtimestamp(local_midnight_ns(days_ago) / 1e9, LONDON)
            rows = "".join(f"{day:%Y-%m-%d} 10:{n:02}:00,{125.5 + n},1\n" for n in range(3))
            (tmp_path / f"monitor/energy_monitor-{day:%Y-%m-%d}.log").write_text(
                "timestamp,watts,appliance_id\n" + rows
            )
    kept_house = Kept(house, stack)
    answer = kept_house.server.ask("/logs/download/energy-monitor")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="energy_monitor.log"'
    header, *rows = csv.reader(io.StringIO(answer.body.decode()))
    assert header == ["timestamp", "watts", "appliance_id"]
    assert len(rows) == (144 if outputs == "history" else 6)
    for timestamp, watts, number in rows:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", timestamp)
        assert float(watts) > 0
        assert number == "1"
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert kept_house.server.ask("/logs/download/energy-monitor", "HEAD").status == 200


def test_the_log_is_there_as_an_sqlite_table_too(house, stack: ExitStack, tmp_path: Path) -> None:
    a_day(tmp_path)
    house.settings = kept(house.settings)
    answer = Kept(house, stack).server.ask("/logs/download/energy-monitor?format=sqlite&days=3")
    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    (tmp_path / "copy.db").write_bytes(answer.body)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT count(*), min(watts), max(watts) FROM readings").fetchone() == (
            144,
            45.3,
            180.5,
        )
        first = connection.execute("SELECT timestamp, watts, appliance_id FROM readings").fetchone()
    yesterday = str((datetime.now(LONDON) - timedelta(days=1)).date())
    assert first == (f"{yesterday} 00:00:00", 45.3, 1)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/energy?applianceId=4", 404, "there is no appliance 4; /appliances lists them"),
        ("/energy?applianceId=x", 422, "applianceId: "),
        ("/energy?applianceId=0", 422, "applianceId: "),
        ("/energy/history?applianceId=99999999999", 422, "applianceId: "),
        ("/logs/historical-data?days=0", 422, "days: "),
        ("/logs/historical-data?days=367", 422, "days: "),
        ("/logs/historical-data?days=1.5", 422, "days: "),
        ("/logs/download/energy-monitor?format=xml", 422, "format: "),
        ("/logs/download/other", 404, "there is no /logs/download/other"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_plain_words(house, stack: ExitStack, path: str, status: int, words: str):
    house.settings = kept(house.settings)
    answer = Kept(house, stack).server.ask(path)
    assert (answer.status, [*answer.json]) == (status, ["error"])
    assert answer.json["error"].startswith(words)


def test_a_house_that_keeps_nothing_says_so(house, stack: ExitStack) -> None:
    house.settings = kept(house.settings, graphite=OutputTable(kind="graphite"))
    kept_house = Kept(house, stack)
    for path in ("/logs/historical-data", "/logs/download/energy-monitor"):
        answer = kept_house.server.ask(path)
        assert answer.status == 404
        assert answer.json["error"] == "this house keeps no history; add [outputs.history] to the configuration"


def test_simulated_readings_count_like_others(house, stack: ExitStack, tmp_path: Path) -> None:
    record(tmp_path, [Record("meter", "fridge", time.time_ns() - 10**9, {"power_w": 5.0}, Quality.SIMULATED)])
    house.settings = kept(house.settings)
    assert Kept(house, stack).get("/energy")["watts"] == 5.0
