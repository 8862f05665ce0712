"""`orchestrator.py status`: a real house tells how it is, and its files tell it where it does not run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.bench import at_terminal, clean, orchestrator
from tests.faults.house import House
from tests.metered import HOUR_NS, QUARTER_NS, metered
from tests.peers.process import free_ports, wait_for

NS = 10**9


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    made: list[House] = []
    yield made
    for house in made:
        house.kill()


def told(house: House, code: int) -> dict[str, Any]:
    done = orchestrator("status", "--json", "--config", house.config)
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["status"] == code
    return document


def test_a_house_that_is_well_says_so_of_every_part(tmp_path: Path, houses: list[House]) -> None:
    house = House(tmp_path, "[outputs.csv]\n[outputs.history]\n", ["esp32-meter"])
    houses.append(house)
    house.started()
    for wh in (1000.0, 1500.0):
        house.post({"device": "esp32-meter", "pulses_total": int(wh), "power_w": 321.5})
    wait_for(lambda: (house.metric("wattherd_output_delivered_total", output="history") or 0) >= 2, "the readings")
    status = told(house, 0)
    assert status["running"]
    assert status["process"] == house.process.pid  # type: ignore[union-attr]
    assert {one["name"] for one in status["processes"]} == {"parent", "writer", "source.meter", "api"}
    assert all(0 < one["memory_bytes"] < 100e6 and one["up_s"] >= 0 for one in status["processes"])
    [source] = status["sources"]
    assert (source["name"], source["kind"], source["readings"]) == ("meter", "esp32_http", 2)
    assert source["last_reading_age_s"] < 30
    outputs = {one["name"]: one for one in status["outputs"]}
    assert {name: (one["delivered"], one["pending"], one["dropped"]) for name, one in outputs.items()} == {
        "csv": (2, 0, 0),
        "history": (2, 0, 0),
    }
    assert status["power_w"] == 321.5
    [today] = status["today"]
    assert (today["channel"], today["energy_wh"]) == ("meter/esp32-meter", 0.0), "no counter rises so fast"
    assert status["commit_interval_s"] == 0.2
    assert status["commit_mb_a_day_reckoned"] > 1000
    assert status["disk_free_bytes"] > 0
    assert status["outbox_bytes"] > 0
    shown = orchestrator("status", "--config", house.config)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert max(map(len, shown.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    assert f"✓ proof runs (process {house.process.pid}), and is well" in shown.stdout  # type: ignore[union-attr]
    assert "meter/esp32-meter   321.5       0.000" in shown.stdout
    assert "(reckoned: 432,000 commits of" in " ".join(shown.stdout.split())
    assert shown.stdout.splitlines()[-1] == f"Next: ./orchestrator.py audit --config {house.config}"


def test_what_is_wrong_comes_first_with_its_remedy(tmp_path: Path, houses: list[House]) -> None:
    (port,) = free_ports(1)
    house = House(tmp_path, f"[outputs.csv]\n[outputs.graphite]\nport = {port}\n", ["a"])
    houses.append(house)
    house.start()
    wait_for(lambda: house.get("/healthz"), "the api")
    house.post({"device": "a", "power_w": 1.0, "pulses_total": 1})
    wait_for(lambda: house.metric("wattherd_output_failures_total", output="graphite"), "the failure")
    status = told(house, 3)
    assert status["reasons"][0]["part"] == "output graphite"
    assert {one["name"]: one["pending"] for one in status["outputs"]} == {"csv": 0, "graphite": 1}
    shown = orchestrator("status", "--once", "--config", house.config)
    assert shown.returncode == 3
    assert "✗ output graphite: down" in shown.stdout
    assert "✗   graphite   down" in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("Next: ./orchestrator.py verify")


def test_a_house_that_was_stopped_tells_by_its_files_how_far_everything_got(
    tmp_path: Path, houses: list[House]
) -> None:
    (port,) = free_ports(1)
    house = House(tmp_path, f"[outputs.csv]\n[outputs.graphite]\nport = {port}\n", ["a"])
    houses.append(house)
    house.start()
    wait_for(lambda: house.get("/healthz"), "the api")
    house.post({"device": "a", "power_w": 1.0, "pulses_total": 1})
    wait_for(lambda: house.metric("wattherd_output_delivered_total", output="csv"), "the reading")
    house.stop()
    before = {path: path.read_bytes() for path in house.data_dir.iterdir() if path.name == "outbox.db"}
    status = told(house, 1)
    assert not status["running"]
    assert 0 <= status["stopped_ago_s"] < 60
    assert {one["name"]: (one["delivered"], one["pending"]) for one in status["outputs"]} == {
        "csv": (1, 0),
        "graphite": (0, 1),
    }
    assert status["sources"][0]["last_reading_age_s"] < 60
    shown = orchestrator("status", "--config", house.config)
    assert shown.returncode == 1
    assert "✗ proof does not run; it stopped" in shown.stdout
    assert shown.stdout.splitlines()[-1] == f"Next: ./orchestrator.py run --config {house.config}"
    assert {path: path.read_bytes() for path in before} == before, "who looks changes nothing"


def test_a_house_that_never_ran_says_so(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(f'[site]\ndata_dir = "{tmp_path}/var"\n[outputs.csv]\n')
    done = orchestrator("status", "--config", tmp_path / "site.toml")
    assert done.returncode == 1
    assert "it never ran" in " ".join(done.stdout.split())
    assert not (tmp_path / "var").exists()


def test_a_house_without_an_api_is_known_by_its_processes_and_its_files(tmp_path: Path, houses: list[House]) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    house.config.write_text(house.config.read_text().replace("[api]\n", "[api]\nenabled = false\n"))
    houses.append(house)
    house.start()
    wait_for(lambda: house.pid("source.meter"), "the house")
    wait_for(lambda: (house.data_dir / "outbox.db").exists(), "its outbox")
    status = told(house, 3)
    assert status["ready"] is None
    assert "it has no api to ask" in status["silence"]
    assert {one["name"] for one in status["processes"]} >= {"parent", "source.meter"}
    assert house.stop() == 0


def test_energy_today_is_that_since_local_midnight(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    # A zone in which it is about six in the morning now.
    hour = time.gmtime(now_ns // NS).tm_hour
    offset_h = (6 - hour + 11) % 24 - 11
    zone = f"Etc/GMT{-offset_h:+d}" if offset_h else "Etc/GMT"
    midnight_ns = now_ns - (now_ns + offset_h * HOUR_NS) % (24 * HOUR_NS)
    first_ns = midnight_ns - 4 * QUARTER_NS
    metered(tmp_path / "var", {"plugs/fridge": lambda _: 100.0}, first_ns, midnight_ns + 20 * QUARTER_NS)
    (tmp_path / "site.toml").write_text(
        f'[site]\ntimezone = "{zone}"\ndata_dir = "{tmp_path}/var"\n[outputs.history]\n'
    )
    done = orchestrator("status", "--json", "--config", tmp_path / "site.toml")
    [today] = json.loads(done.stdout)["today"]
    assert (today["channel"], today["energy_export_wh"]) == ("plugs/fridge", None)
    assert today["energy_wh"] == pytest.approx(500.0), "five hours of 100 W; the hour before midnight is yesterday's"
    assert "plugs/fridge" in orchestrator("status", "--config", tmp_path / "site.toml").stdout


def test_an_api_that_asks_for_a_key_gets_the_one_of_the_environment(tmp_path: Path, houses: list[House]) -> None:
    key_hash = f"sha256:{hashlib.sha256(b'a-key-of-mine').hexdigest()}"
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    table = f'[api]\nkey_hash = "{key_hash}"\nalways_ask_for_key = true\n'
    house.config.write_text(house.config.read_text().replace("[api]\n", table))
    houses.append(house)
    house.start()
    wait_for(lambda: house.get("/healthz"), "the api")
    assert "wants a key: put it into the variable WATTHERD_API_KEY" in told(house, 3)["silence"]
    done = orchestrator("status", "--json", "--config", house.config, environment={"WATTHERD_API_KEY": "a-key-of-mine"})
    assert done.returncode == 0, done.stdout


def test_at_a_terminal_it_goes_on_until_ctrl_c(tmp_path: Path, houses: list[House]) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    houses.append(house)
    house.started()
    with at_terminal("status", "--every", "0.2", "--config", house.config) as terminal:
        terminal.expect("proof runs")
        for number in range(1, 4):
            house.post({"device": "a", "power_w": 1.0, "pulses_total": number})
        terminal.wait(lambda: " 3 " in clean(terminal.seen).split("last reading")[-1], "the third reading")
        os.kill(terminal.process.pid, 2)
        assert terminal.end() == 0
        assert "last reading" in clean(terminal.seen.split("\x1b[?1049l")[-1]), "what was seen last stays"
