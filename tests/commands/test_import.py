"""`import`: what older loggers wrote, in their own formats, into a history that then has each reading once."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from commands import _import_stage
from commands._import_formats import Row
from commands._import_stage import Stage
from history.queries import History
from reading import Record
from tests.commands.bench import ROOT, orchestrator
from tests.faults.house import House
from tests.peers.process import wait_for
from tests.writer.outputs._history import batch, write_all
from writer.outputs import _history_parcels
from writer.register import Rules

CONFIGURATION = """
[site]
timezone = "Europe/London"
data_dir = "{data_dir}"
[sources.loads]
kind = "simulated"
[outputs.history]
[tariffs.main]
currency = "GBP"
[[tariffs.main.periods]]
from = 2020-01-01
unit_rate_per_kwh = 0.10
"""
MONITOR = "timestamp,watts,appliance_id\n"
WHOLE = (1_500_000_000 * 10**9, 1_790_000_000 * 10**9)
WORDS = ("--device", "1=meter/grid", "--write", "--json")
Ran = tuple[int, dict[str, Any]]


def ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 10**9


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(CONFIGURATION.format(data_dir=tmp_path / "var"))
    return file


def run(site: Path, *words: str | Path) -> Ran:
    """Run the command in this process; return its status, and what it tells programs."""
    command = importlib.import_module("commands.import").command
    done = CliRunner().invoke(command, [*map(str, words), "--config", str(site), "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {"said": done.output}


@contextlib.contextmanager
def asked(site: Path) -> Iterator[History]:
    history = History(site.parent / "var" / "history.db")
    try:
        yield history
    finally:
        history.close()


def energy_wh(site: Path, channel: str, first: int = WHOLE[0], end: int = WHOLE[1], metric: str = "energy_wh") -> float:
    source, device = channel.split("/")
    with asked(site) as history:
        steps = history.energy_steps((source, device, metric), first, end, (end - first) // 10**9)
    return steps[0].amount or 0.0


def readings(site: Path, channel: str, metric: str) -> list[tuple[int, Any]]:
    """Every reading of a series; these are so new to the file that it still has all of them."""
    source, device = channel.split("/")
    with asked(site) as history:
        columns = history.series((source, device, metric), *WHOLE, 0)
    return [*zip(columns.at_ns, columns.last, strict=True)]


def machine_rows(start: str, count: int, step_s: int, watts: float) -> str:
    """What the current logger writes: ISO8601-ms-Z, device, machine, amps, volts, watts, state."""
    at = datetime.fromisoformat(start)
    rows = []
    for _ in range(count):
        stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        rows.append(f"{stamp},pi-001,machine-A,{watts / 690:.4f},{230.0:.1f},{watts:.2f},running\n")
        at += timedelta(seconds=step_s)
    return "".join(rows)


def monitor_rows(start: datetime, end: datetime, step: timedelta, watts: Callable[[int], float], appliance: int) -> str:
    """What the energy monitor writes: local time without a word of its zone."""
    rows, number = [], 0
    while start < end:
        local = start.astimezone(ZoneInfo("Europe/London"))
        rows.append(f"{local:%Y-%m-%d %H:%M:%S},{watts(number)},{appliance}\n")
        start, number = start + step, number + 1
    return "".join(rows)


# ---- the formats


def test_the_csv_of_the_current_logger_has_its_power_and_energy_but_none_over_a_gap(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "readings.csv"
    before, after = "2025-11-11T12:00:00+00:00", "2025-11-11T15:00:00+00:00"
    file.write_text(machine_rows(before, 361, 10, 690.0) + machine_rows(after, 361, 10, 690.0))
    status, told = run(site, file, "--device", "machine-A=loads/lathe", "--write")
    assert status == 0
    assert told["taken"] == {"new": 722 * 5, "repeated": 0, "overlapping": 0}
    assert told["channels"][0]["energy_wh"] == energy_wh(site, "loads/lathe") == 2 * 690.0
    assert energy_wh(site, "loads/lathe", ns("2025-11-11T13:00:00Z"), ns("2025-11-11T15:00:00Z")) == 0
    assert len(readings(site, "loads/lathe", "power_w")) == 722
    assert {said for _, said in readings(site, "loads/lathe", "state")} == {"running"}
    assert readings(site, "loads/lathe", "voltage_v")[0] == (ns("2025-11-11T12:00:00Z"), 230.0)


def test_the_hour_that_comes_twice_is_two_hours(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "energy_monitor.log"
    start, end = datetime(2025, 10, 25, 23, tzinfo=UTC), datetime(2025, 10, 26, 3, tzinfo=UTC)
    minute = timedelta(minutes=1)
    file.write_text(MONITOR + monitor_rows(start, end + minute, minute, lambda number: 1000.0 + number % 2, 1))
    status, told = run(site, file, "--device", "1=loads/fridge", "--write")
    assert (status, told["twice_in_the_files"]) == (0, 0)
    assert [at for at, _ in readings(site, "loads/fridge", "power_w")] == [
        ns("2025-10-25T23:00:00Z") + number * 60 * 10**9 for number in range(241)
    ]
    assert energy_wh(site, "loads/fridge") == pytest.approx(4002.0)


def test_a_time_that_does_not_exist_is_no_reading(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "energy_monitor.log"
    file.write_text(f"{MONITOR}2025-03-30 00:30:00,100,1\n2025-03-30 01:30:00,100,1\n2025-03-30 02:30:00,100,1\n")
    status, told = run(site, file, "--device", "1=loads/fridge")
    assert status == 3
    [sample] = told["files"][0]["samples"]
    assert sample.startswith("line 3: '2025-03-30 01:30:00' does not exist in Europe/London")


def test_day_and_month_are_never_guessed(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "energy_monitor.log"
    file.write_text(f"{MONITOR}03/04/2025 10:00:00,100,1\n")
    status, told = run(site, file, "--device", "1=loads/fridge", "--write")
    assert (status, "--dates dmy" in told["said"]) == (2, True)
    for order, day in (("dmy", "2025-04-03T09:00:00Z"), ("mdy", "2025-03-04T10:00:00Z")):
        _, told = run(site, file, "--device", "1=loads/fridge", "--dates", order)
        assert told["channels"][0]["first_utc_ns"] == ns(day)


def test_the_table_of_the_energy_monitor_says_the_same_as_its_log(site: Path, tmp_path: Path) -> None:
    start = datetime(2024, 12, 4, 10, tzinfo=UTC)
    text = monitor_rows(start, start + timedelta(hours=1), timedelta(seconds=30), lambda number: 125.5 + number, 1)
    log, table = tmp_path / "energy_monitor.log", tmp_path / "energy_data.db"
    log.write_text(MONITOR + text)
    with contextlib.closing(sqlite3.connect(table)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS readings (timestamp TEXT, watts REAL, appliance_id INTEGER)")
        rows = [line.split(",") for line in text.splitlines()]
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?)", [(at, float(w), int(a)) for at, w, a in rows])
        connection.commit()
    run(site, log, "--device", "1=loads/log", "--write")
    run(site, table, "--device", "1=loads/table", "--write")
    assert readings(site, "loads/log", "power_w") == readings(site, "loads/table", "power_w") != []
    assert energy_wh(site, "loads/log") == energy_wh(site, "loads/table") > 0


def queue(path: Path, lines: Iterable[str]) -> Path:
    """What PowerLogger keeps while InfluxDB is away."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL;")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS lp_queue"
            " (id INTEGER PRIMARY KEY AUTOINCREMENT, bucket TEXT NOT NULL, lp TEXT NOT NULL);"
        )
        connection.execute("CREATE INDEX IF NOT EXISTS idx_lp_queue_id ON lp_queue(id);")
        connection.executemany("INSERT INTO lp_queue (bucket, lp) VALUES (?, ?);", (("raw", line) for line in lines))
        connection.commit()
    return path


def test_each_pulse_that_waits_in_the_queue_of_powerlogger_counts_once(site: Path, tmp_path: Path) -> None:
    begin = ns("2025-06-01T10:00:00Z")
    pulses = [f"PowerPulse,PulseType=Import Pulse=1i {begin + number * 3_600_000_001}" for number in range(500)]
    sold = [f"PowerPulse,PulseType=Export Pulse=1i {begin + number * 9 * 10**9}" for number in range(100)]
    minutes = [
        f"PowerPulse_1m,PulseType=Import,window=1m PulseCount=17i {begin + number * 60 * 10**9}" for number in range(30)
    ]
    retried = pulses[:50]  # a batch that failed twice is there twice
    file = queue(tmp_path / "write_queue.sqlite", [*pulses, *minutes, *sold, *retried])
    words = (file, "--device", "Import=pulse/grid", "--device", "Export=pulse/solar")
    status, told = run(site, *words, "--write")
    assert (status, "--pulses-per-kwh" in told["said"]) == (2, True)
    status, told = run(site, *words, "--pulses-per-kwh", "800", "--write")
    assert (status, told["twice_in_the_files"], told["files"][0]["left_out"]) == (0, 50, 30)
    assert energy_wh(site, "pulse/grid") == 500 * 1000 / 800
    assert energy_wh(site, "pulse/grid", metric="pulses") == 500
    assert energy_wh(site, "pulse/solar", metric="energy_export_wh") == 100 * 1000 / 800
    assert energy_wh(site, "pulse/solar") == 0


def test_an_export_comes_back_as_it_was(site: Path, tmp_path: Path) -> None:
    begin = ns("2025-10-01T10:00:00Z")
    records = [
        Record("plugs", "fridge", begin + number * 10**10, {"power_w": 80.5 + number, "energy_wh": 7000.0 + number / 3})
        for number in range(300)
    ]
    write_all(tmp_path / "old", [batch(*records)])
    old = tmp_path / "old.toml"
    old.write_text(CONFIGURATION.format(data_dir=tmp_path / "old"))
    file = tmp_path / "export.csv"
    done = orchestrator(
        "export", "--config", old, "--from", "2025-10-01", "--to", "2025-10-01", "--step", "raw", "--out", file
    )
    assert done.returncode == 0, done.stderr
    status, _ = run(site, file, "--write")
    assert status == 0
    assert readings(site, "plugs/fridge", "power_w") == [(each.time_ns, each.values["power_w"]) for each in records]
    assert energy_wh(site, "plugs/fridge") == pytest.approx(299 / 3, abs=1e-5)
    done = orchestrator("export", "--config", old, "--from", "2025-10-01", "--to", "2025-10-01", "--out", file)
    status, told = run(site, file, "--write")
    assert (status, "sum of several readings" in told["files"][0]["samples"][0]) == (1, True)


def test_the_files_of_the_csv_output_are_known(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "electricity-2025-05-01.csv"
    file.write_text(
        "time,source,device,metric,value,quality,clock\n"
        "2025-05-01T10:00:00.000000Z,plugs,kettle,energy_wh,5000,measured,synced\n"
        "2025-05-01T10:00:00.000000Z,plugs,kettle,power_w,2000,measured,synced\n"
        "2025-05-01T10:00:10.000000Z,plugs,kettle,energy_wh,5005.5,measured,synced\n"
        "2025-05-01T10:00:10.000000Z,plugs,kettle,power_w,9000,simulated,synced\n"
    )
    assert run(site, file, "--write")[0] == 0
    assert energy_wh(site, "plugs/kettle") == 5.5, "the file has the energy, so power is not asked"


# ---- what is refused


def test_broken_lines_are_told_with_their_numbers_and_nothing_is_taken_in(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "energy_monitor.log"
    file.write_text(
        f"{MONITOR}2024-12-04 10:00:00,125.5,1\n2024-12-04 10:01:00,many,1\n1970-01-01 00:00:05,120,1\n"
        "2024-12-04 10:02:00,nan,1\n2124-12-04 10:02:00,100,1\n2024-12-04 10:03:00,118.7,1\n2024-12-04 10:0"
    )
    status, told = run(site, file, "--device", "1=loads/fridge", "--write")
    assert (status, told["files"][0]["rows"], told["files"][0]["broken"]) == (1, 2, 5)
    assert [sample.partition(":")[0] for sample in told["files"][0]["samples"]] == [
        f"line {n}" for n in (3, 4, 5, 6, 8)
    ]
    assert not (site.parent / "var" / "history.db").exists()
    status, told = run(site, file, "--device", "1=loads/fridge", "--write", "--skip-broken")
    assert (status, told["taken"]["new"]) == (3, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"2024-12-04 10:00:01 - INFO - GET /energy?applianceId=1\n", "a log of who asked"),
        (b"\xff\xfe\x00\x00nothing\xe9", "neither text nor SQLite"),
        (b"a,b\n", "no logger of docs/import.md"),
        (b"", "it is empty"),
    ],
)
def test_another_file_is_refused_in_words(content: bytes, words: str, site: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    status, told = run(site, file)
    assert (status, words in told["said"]) == (2, True), told


def test_a_device_without_a_channel_is_asked_for(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "energy_monitor.log"
    file.write_text(f"{MONITOR}2024-12-04 10:00:00,125.5,1\n2024-12-04 10:00:00,130.2,2\n")
    status, told = run(site, file, "--device", "1=loads/fridge", "--write")
    assert (status, told["unnamed"]) == (2, ["2"])
    status, told = run(site, file, "--device", "1=loads/fridge", "--device", "2=-")
    assert (status, [each["channel"] for each in told["channels"]]) == (0, ["loads/fridge"])
    assert not (site.parent / "var" / "history.db").exists(), "without --write it only tells"


# ---- once, and beside what is there


def long_log(path: Path, rows: int, start: str = "2025-02-01T00:00:00+00:00") -> Path:
    begin, step = datetime.fromisoformat(start), timedelta(seconds=30)
    path.write_text(MONITOR + monitor_rows(begin, begin + rows * step, step, lambda number: 100.0 + number % 50, 1))
    return path


def test_a_file_that_comes_again_adds_only_what_is_new_in_it(site: Path, tmp_path: Path) -> None:
    words = ("--device", "1=loads/fridge", "--write")
    file = long_log(tmp_path / "energy_monitor.log", 700)
    run(site, file, *words)
    before = readings(site, "loads/fridge", "energy_wh")
    _, told = run(site, file, *words)
    assert told["taken"] == {"new": 0, "repeated": 1400, "overlapping": 0}
    assert readings(site, "loads/fridge", "energy_wh") == before
    _, told = run(site, long_log(file, 1000), *words)
    assert told["taken"] == {"new": 600, "repeated": 1400, "overlapping": 0}
    assert energy_wh(site, "loads/fridge") == pytest.approx(told["channels"][0]["energy_wh"], abs=1e-5)
    _, told = run(site, long_log(tmp_path / "older.log", 500, "2024-06-01T00:00:00+00:00"), *words)
    assert told["taken"]["new"] == 1000
    older = told["channels"][0]["energy_wh"]
    assert energy_wh(site, "loads/fridge", end=ns("2025-01-01T00:00:00Z")) == pytest.approx(older, abs=1e-5)


@pytest.mark.parametrize("height_wh", [0.0, 300_000.0])
def test_no_total_jumps_where_the_house_goes_on(height_wh: float, site: Path, tmp_path: Path) -> None:
    begin = ns("2025-02-01T05:10:00Z")
    own = [
        Record("loads", "fridge", begin + number * 10**10, {"power_w": 90.0, "energy_wh": height_wh + number * 0.25})
        for number in range(361)
    ]
    write_all(tmp_path / "var", [batch(*own)])
    file = long_log(tmp_path / "energy_monitor.log", 700)  # to 05:50, so 40 minutes beside each other
    status, told = run(site, file, "--device", "1=loads/fridge", "--write")
    assert (status, told["taken"]) == (0, {"new": 1240, "repeated": 0, "overlapping": 160})
    before = energy_wh(site, "loads/fridge", end=begin)
    only = long_log(tmp_path / "only.log", 620)
    _, alone = run(site, only, "--device", "1=loads/alone")
    assert before == pytest.approx(alone["channels"][0]["energy_wh"], abs=1e-5)
    assert energy_wh(site, "loads/fridge") == pytest.approx(before + 90.0, abs=1e-5)
    bill = orchestrator(
        "bill",
        "loads/fridge",
        "--from",
        "2025-02-01",
        "--to",
        "2025-02-01",
        "--tariff",
        "main",
        "--json",
        "--config",
        site,
    )
    assert bill.returncode == 0, bill.stderr
    told = json.loads(bill.stdout)["total"]
    assert any(value == pytest.approx(before + 90, abs=1e-3) for value in told.values()), told


def test_who_is_killed_in_the_middle_and_asks_again_has_all_of_it_once(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = long_log(tmp_path / "energy_monitor.log", 1500)
    words = (file, "--device", "1=loads/fridge", "--write")
    monkeypatch.setattr(_history_parcels, "_PORTION", 400)
    child = os.fork()
    if not child:  # killed when half a portion lies in an open transaction, after some that are committed
        portions = iter(range(100))
        remember = _history_parcels.remember

        def killing(*arguments: Any) -> None:
            remember(*arguments)
            if next(portions) == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(_history_parcels, "remember", killing)
        run(site, *words)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert len(readings(site, "loads/fridge", "energy_wh")) == 400, "one portion, and nothing of the open one"
    status, told = run(site, *words)
    assert status == 0
    assert not [*(site.parent / "var" / "import").iterdir()]
    assert energy_wh(site, "loads/fridge") == pytest.approx(told["channels"][0]["energy_wh"], abs=1e-5)
    assert len(readings(site, "loads/fridge", "power_w")) == 1500


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_import_stage, "_AT_ONCE", 200)
    tracemalloc.start()
    try:
        stage = Stage(tmp_path / "parcel")
        for number in range(8_000):
            stage.add("a/b", Row("1", 10**18 + number * 10**9, {"power_w": 100.0 + number}))
        [kept] = stage.finish({"a/b": Rules()}, {}, frozenset())
        stage.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.rows == 8_000
    assert peak < 400_000, "less than fifty bytes a row"


def test_a_house_that_runs_takes_it_in_itself(tmp_path: Path) -> None:
    house = House(tmp_path, "[outputs.history]\n", ["grid"])
    try:
        house.started()
        house.post({"device": "grid", "pulses_total": 1000, "power_w": 500.0})
        wait_for(lambda: (house.data_dir / "history.db").exists(), "the history")
        file = long_log(tmp_path / "energy_monitor.log", 300)
        process = subprocess.Popen(
            [sys.executable, ROOT / "orchestrator.py", "import", file, "--config", house.config, *WORDS],
            stdout=subprocess.PIPE,
        )
        pulses = iter(range(1001, 100_000))

        def done() -> bool:
            house.post({"device": "grid", "pulses_total": next(pulses), "power_w": 500.0})
            return process.poll() is not None

        wait_for(done, "the writer to take it in", 90)
        told = json.loads(process.communicate(timeout=60)[0])
        assert told["taken"] == {"new": 600, "repeated": 0, "overlapping": 0}
        imported = energy_wh(house.config, "meter/grid", end=ns("2026-01-01T00:00:00Z"))
        assert imported == pytest.approx(told["channels"][0]["energy_wh"], abs=1e-5)
        wanted = "source=meter&device=grid&metric=power_w&from=2025-02-01T00:00:00Z&to=2025-02-02T00:00:00Z&step=3600"
        answer = house.get(f"/api/v1/series?{wanted}")
        assert answer is not None
        assert sum(json.loads(answer)["n"]) == 300
        register = json.loads(orchestrator("ledger", "show", "--json", "--config", house.config).stdout)
        assert register["meter/grid"]["energy_wh"] < 100_000, "the ledger has only what the house has counted"
        assert house.stop() == 0
    finally:
        house.kill()
