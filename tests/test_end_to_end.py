"""The main job, from a POST to three stores, with real servers, outages, reloads and hostile senders."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import ROOT, House, Oracle, csv_rows, influx_points
from tests.peers.carbon import Carbon
from tests.peers.fakes import CarbonMood, InfluxMood, RecordingCarbon, RecordingInflux, Says
from tests.peers.influxd import Influxd
from tests.peers.process import free_ports, wait_for
from tests.peers.victoria_metrics import VictoriaMetrics

CURL = ["curl", "-s", "-d", '{"device":"esp32-meter","pulses_total":91234,"power_w":1492.3}']


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    made: list[House] = []
    yield made
    for house in made:
        house.kill()


def test_what_curl_posts_stands_in_graphite_in_influxdb_and_in_csv(
    tmp_path: Path, houses: list[House], carbon: Carbon, influxd: Influxd, victoria_metrics: VictoriaMetrics
) -> None:
    influxd.create("spine")
    victoria = urllib.parse.urlsplit(victoria_metrics.url).netloc
    house = House(
        tmp_path,
        f"""
[outputs.csv]
[outputs.graphite]
port = {carbon.port}
prefix = "spine"
[outputs.influx]
url = "{influxd.url}"
api = "v1"
bucket = "spine"
[outputs.victoria]
kind = "influx"
url = "http://{victoria}"
""",
        ["esp32-meter"],
    )
    houses.append(house)
    house.started()
    before_s = time.time()
    answer = subprocess.run([*CURL, f"http://127.0.0.1:{house.post_port}/"], capture_output=True, check=True)
    after_s = time.time()
    assert json.loads(answer.stdout) == {"status": "ok", "accepted": 1}

    wait_for(lambda: influxd.points("SELECT * FROM electricity", "spine"), "the point in InfluxDB")
    (point,) = influxd.points("SELECT * FROM electricity", "spine")
    assert before_s - 0.1 <= point["time"] / 1e9 <= after_s + 0.1
    assert (point["pulses"], point["power_w"]) == (91234, 1492.3)
    assert (point["site"], point["source"], point["device"]) == ("proof", "meter", "esp32-meter")

    at_s = point["time"] // 10**9
    wait_for(lambda: carbon.fetch("spine.meter.esp32-meter.power_w", at_s) == 1492.3, "the point in Graphite")
    wait_for(lambda: carbon.fetch("spine.meter.esp32-meter.pulses", at_s) == 91234, "its other value")

    wait_for(lambda: csv_rows(house.data_dir / "csv"), "the rows in the file")
    rows = {row[3]: row[4] for row in csv_rows(house.data_dir / "csv")}
    assert (float(rows["pulses"]), float(rows["power_w"])) == (91234, 1492.3)

    def in_victoria() -> list[dict[str, object]]:
        return victoria_metrics.export('{__name__="electricity_power_w",device="esp32-meter",site="proof"}')

    wait_for(in_victoria, "the point in VictoriaMetrics")
    assert in_victoria()[0]["values"] == [1492.3]
    assert house.stop() == 0
    for output, numbers in house.balance().items():
        assert numbers.holds, output
        assert numbers.accepted == numbers.delivered == 1, output
    assert "WARNING" not in house.log
    assert "ERROR" not in house.log


@pytest.mark.long
def test_outages_of_influxdb_delay_and_lose_nothing(tmp_path: Path, houses: list[House]) -> None:
    with RecordingInflux() as influx:
        house = House(tmp_path, f'[outputs.csv]\n[outputs.influx]\nurl = "{influx.url}"\ntimeout_s = 0.5\n', ["a", "b"])
        houses.append(house)
        house.started()
        oracle = Oracle(house).start()
        outages = [
            Says(500, b"busy"),
            Says(429, b"slow down", {"Retry-After": "1"}),
            InfluxMood.RESETS_IN_THE_BODY,
            InfluxMood.BLACK_HOLE,
            InfluxMood.HALF_AN_ANSWER,
            InfluxMood.DRIPS,
        ]
        for outage in outages:
            failures = house.metric("wattherd_output_failures_total", output="influx") or 0
            influx.then(outage, outage)  # a kept connection that breaks is tried once more at once
            wait_for(
                lambda failures=failures: (
                    (house.metric("wattherd_output_failures_total", output="influx") or 0) > failures
                ),
                f"the failure by {outage}",
            )
            # The other output, and the receiving, never noticed.
            written = house.metric("wattherd_output_delivered_total", output="csv") or 0
            wait_for(
                lambda written=written: (house.metric("wattherd_output_delivered_total", output="csv") or 0) > written,
                "the file to grow meanwhile",
            )
            wait_for(lambda: house.metric("wattherd_output_state", output="influx", state="up") == 1, "its return", 30)
        oracle.finish()
        wait_for(
            lambda: house.metric("wattherd_output_delivered_total", output="influx") == len(oracle.posted),
            "InfluxDB to have everything",
        )
        points = influx_points([line for request in influx.requests for line in request.lines])
        assert set(points) == set(oracle.posted)
        assert all(len(lines) == 1 for lines in points.values())
        assert house.stop() == 0
        assert all(numbers.holds for numbers in house.balance().values())


def test_readings_that_influxdb_refuses_are_set_aside_and_counted(tmp_path: Path, houses: list[House]) -> None:
    with RecordingInflux() as influx:
        influx.refuses = lambda line: b"pulses=13" in line or b"pulses=7," in line
        house = House(tmp_path, f'[outputs.influx]\nurl = "{influx.url}"\n', ["a"])
        houses.append(house)
        house.started()
        for number in range(1, 21):
            assert house.post({"device": "a", "pulses_total": number, "power_w": 1})[0] == 200
        wait_for(lambda: house.metric("wattherd_output_delivered_total", output="influx") == 18, "the good ones")
        wait_for(
            lambda: house.metric("wattherd_output_dropped_total", output="influx", reason="refused") == 2,
            "both refusals to be counted",
        )
        assert house.stop() == 0
        assert house.balance()["influx"].holds


def test_a_carbon_that_resets_refuses_or_never_closes_delays_and_loses_nothing(
    tmp_path: Path, houses: list[House]
) -> None:
    with RecordingCarbon() as carbon:
        house = House(tmp_path, f"[outputs.graphite]\nport = {carbon.port}\ntimeout_s = 0.5\n", ["a"])
        houses.append(house)
        house.started()
        for number, mood in enumerate([CarbonMood.RESETS, CarbonMood.NEVER_CLOSES], start=1):
            carbon.mood = mood
            failures = house.metric("wattherd_output_failures_total", output="graphite") or 0
            assert house.post({"device": "a", "pulses_total": number})[0] == 200
            wait_for(
                lambda failures=failures: (
                    (house.metric("wattherd_output_failures_total", output="graphite") or 0) > failures
                ),
                f"the failure by {mood}",
            )
            wait_for(lambda: house.metric("wattherd_output_pending", output="graphite") == 1, "one to be pending")
            carbon.mood = CarbonMood.LISTENS
            wait_for(lambda: house.metric("wattherd_output_pending", output="graphite") == 0, "its return", 30)
        points = {line.rsplit(" ", 1)[0] for line in carbon.lines if ".pulses " in line}
        assert points == {f"home.electricity.meter.a.pulses {number}" for number in (1, 2)}
        assert house.stop() == 0


def test_an_output_nobody_listens_for_is_named_with_what_to_do(tmp_path: Path, houses: list[House]) -> None:
    (port,) = free_ports(1)
    house = House(tmp_path, f"[outputs.csv]\n[outputs.graphite]\nport = {port}\n", ["a"])
    houses.append(house)
    house.start()
    wait_for(lambda: house.is_ready() or house.metric("wattherd_process_up", process="api"), "the api")
    assert house.post({"device": "a", "power_w": 1})[0] == 200
    wait_for(lambda: house.metric("wattherd_output_state", output="graphite", state="down") == 1, "the state")
    assert not house.is_ready()
    assert f"127.0.0.1:{port}" in house.log
    wait_for(lambda: csv_rows(house.data_dir / "csv"), "the other output to have it")


# No time, port or process number holds these digits by chance.
HOSTILE_POWER = "31415926"
HOSTILE_NAMES = [
    "a.b",
    "a b",
    "a\nb",
    "a=b,c=d",
    "a\r\nelectricity,device=a power_w=31415926.5 1",
    "../../a",
    "",
    "é",
    "A" * 500,
]


def test_a_name_from_the_wire_gets_nowhere(tmp_path: Path, houses: list[House]) -> None:
    with RecordingInflux() as influx:
        house = House(tmp_path, f'[outputs.csv]\n[outputs.influx]\nurl = "{influx.url}"\n', ["a"])
        houses.append(house)
        house.started()
        for name in HOSTILE_NAMES:
            status, body = house.post({"device": name, "power_w": 31415926.5})
            assert status == 422, name
            assert b"\n" not in body.strip(), name
        for bad in (b"", b"{", b'{"device":"a","power_w":NaN}', b'{"device":"a","power_w":1e999}', b"[]", b"\xff"):
            status, _ = house.post(bad)
            assert 400 <= status < 500, bad
        assert house.post({"device": "a", "power_w": 1})[0] == 200
        wait_for(lambda: house.metric("wattherd_output_delivered_total", output="influx") == 1, "the good one")
        wait_for(
            lambda: house.metric("wattherd_source_refused_total", reason="unknown_device") == len(HOSTILE_NAMES),
            "all to be refused",
        )
        assert house.stop() == 0
        lines = [line for request in influx.requests for line in request.lines]
        assert len(lines) == 1
        assert HOSTILE_POWER.encode() not in b"".join(lines)
        assert HOSTILE_POWER not in "".join(row[4] for row in csv_rows(house.data_dir / "csv"))
        assert all(HOSTILE_POWER not in line for line in house.log.splitlines())


def test_a_reload_adds_and_removes_while_the_rest_goes_on(tmp_path: Path, houses: list[House]) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    houses.append(house)
    house.started()
    meter = house.pid("source.meter")
    (port,) = free_ports(1)
    second = f'\n[sources.garage]\nkind = "esp32_http"\nport = {port}\n[[sources.garage.devices]]\nname = "car"\n'
    house.configure("[outputs.csv]\n", second)
    assert house.process is not None
    house.process.send_signal(1)
    wait_for(lambda: house.pid("source.garage") and house.metric("wattherd_source_open", source="garage"), "the garage")
    assert house.pid("source.meter") == meter
    assert house.post({"device": "a", "power_w": 1})[0] == 200
    house.configure("[outputs.cvs]\n")
    house.process.send_signal(1)
    wait_for(lambda: "nothing was changed" in house.log, "the refusal")
    assert re.search(r"reload: .*site\.toml:\d+: \[outputs\.cvs\] kind: .*did you mean \"csv\"", house.log)
    house.configure("[outputs.csv]\n")
    house.process.send_signal(1)
    wait_for(lambda: house.pid("source.garage") is None, "the garage to leave")
    assert house.pid("source.meter") == meter
    assert house.post({"device": "a", "power_w": 2})[0] == 200
    assert house.stop() == 0
    powers = [row for row in csv_rows(house.data_dir / "csv") if row[3] == "power_w"]
    assert [row[4] for row in powers] == ["1.0", "2.0"]


def test_ports_in_use_are_named_and_the_rest_of_the_house_runs(tmp_path: Path, houses: list[House]) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    houses.append(house)
    with socket.create_server(("127.0.0.1", house.post_port)):
        house.start()
        wait_for(lambda: house.metric("wattherd_source_open_failures_total", source="meter"), "the failure")
        assert not house.is_ready()
        assert f"port {house.post_port} on 127.0.0.1 is in use" in house.log
    wait_for(house.is_ready, "the house to take the port when it is free")
    assert house.stop() == 0
    assert "Traceback" not in house.log
    with socket.create_server(("127.0.0.1", house.api_port)):
        house.start()
        wait_for(lambda: "it cannot work with this configuration" in house.log, "the api to say so")
        assert f"port {house.api_port} on 127.0.0.1 is in use" in house.log
        wait_for(lambda: house.pid("source.meter"), "the source to run all the same")
    assert house.stop() == 0
    assert "Traceback" not in house.log


def test_the_demo_house_runs_and_says_that_it_is_one(tmp_path: Path) -> None:
    api_port, post_port = free_ports(2)
    demo = tmp_path / "config" / "demo.toml"
    demo.parent.mkdir()
    text = (ROOT / "config" / "demo.toml").read_text()
    text = text.replace('data_dir = "var/demo"', f'data_dir = "{tmp_path}/var/demo"')
    text = text.replace('kind = "esp32_http"', f'kind = "esp32_http"\nport = {post_port}')
    demo.write_text(text + f"\n[api]\nport = {api_port}\n")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "orchestrator.py"), "run", "--config", str(demo)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ,
    )
    try:
        wait_for(lambda: csv_rows(tmp_path / "var" / "demo" / "csv"), "the first rows", 30)
        rows = csv_rows(tmp_path / "var" / "demo" / "csv")
        assert {row[5] for row in rows if row[1] == "house"} == {"simulated"}
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0, out.decode()
    assert "Traceback" not in out.decode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_data_directory_is_told_before_anything_starts(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refuses_to_start(tmp_path, locked / "var", "Permission denied")


def test_a_data_directory_that_is_a_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refuses_to_start(tmp_path, tmp_path / "file", "cannot be written")


def refuses_to_start(tmp_path: Path, data_dir: Path, words: str) -> None:
    (tmp_path / "site.toml").write_text(f'[site]\ndata_dir = "{data_dir}"\n')
    done = subprocess.run(
        [sys.executable, "orchestrator.py", "run", "--config", str(tmp_path / "site.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_that_changed_reaches_whoever_uses_it_at_a_reload(tmp_path: Path, houses: list[House]) -> None:
    with RecordingInflux() as influx:
        token = tmp_path / ".env"
        token.touch(mode=0o600)
        token.write_text("PROOF_TOKEN=first-token\n")
        house = House(tmp_path, f'[outputs.influx]\nurl = "{influx.url}"\ntoken_env = "PROOF_TOKEN"\n', ["a"])
        houses.append(house)
        house.started()
        meter = house.pid("source.meter")
        assert house.post({"device": "a", "power_w": 1})[0] == 200
        wait_for(lambda: influx.requests, "the first request")
        token.write_text("PROOF_TOKEN=second-token\n")
        assert house.process is not None
        house.process.send_signal(1)
        wait_for(lambda: "reloaded" in house.log, "the reload")
        assert house.post({"device": "a", "power_w": 2})[0] == 200
        wait_for(lambda: len(influx.requests) > 1, "the second request")
        tokens = [request.headers["authorization"] for request in influx.requests]
        assert tokens == ["Token first-token", "Token second-token"]
        assert house.pid("source.meter") == meter
        assert house.stop() == 0
        assert "token" not in house.log
