"""`orchestrator.py once`: reads once and writes to every output, as the house would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from supervise.instance import lock
from tests.commands.bench import ROOT, orchestrator
from tests.faults.house import csv_rows
from tests.peers.fakes import RecordingCarbon
from tests.peers.process import free_ports, listens, wait_for

HEAD = '[site]\ndata_dir = "{folder}/var"\n'
SIMULATED = '[sources.demo]\nkind = "simulated"\n'


def site(folder: Path, text: str) -> Path:
    file = folder / "site.toml"
    file.write_text(HEAD.format(folder=folder) + text)
    return file


def test_what_a_source_says_stands_in_every_output_with_its_register(tmp_path: Path) -> None:
    with RecordingCarbon() as carbon:
        file = site(tmp_path, f"{SIMULATED}[outputs.csv]\n[outputs.graphite]\nport = {carbon.port}\n")
        for times in (1, 2):
            done = orchestrator("once", "--config", file)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "✓ csv: " in done.stdout
            assert "✓ graphite: " in done.stdout
            assert done.stdout.endswith(f"Next: ./orchestrator.py run --config {file}\n")
            assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
            rows = csv_rows(tmp_path / "var" / "csv")
            assert len([row for row in rows if row[2:4] == ["fridge", "power_w"]]) == times
            registers = [float(row[4]) for row in rows if row[2:4] == ["fridge", "energy_wh"]]
            assert len(registers) == times
            assert registers == sorted(registers)
        assert any(".fridge.power_w " in line for line in carbon.lines)


@pytest.mark.long
def test_a_register_never_falls_although_the_outbox_is_destroyed(tmp_path: Path) -> None:
    file = site(tmp_path, f"{SIMULATED}[outputs.csv]\n")
    registers: list[float] = []
    for damage in (False, False, True, False):
        if damage:
            for part in (tmp_path / "var").glob("outbox.db*"):
                part.write_bytes(b"\xa5" * 8192)
        assert orchestrator("once", "--config", file).returncode == 0
        rows = csv_rows(tmp_path / "var" / "csv")
        registers.append([float(row[4]) for row in rows if row[2:4] == ["fridge", "energy_wh"]][-1])
    assert registers == sorted(registers)
    assert registers[0] < registers[-1]


def test_an_output_that_is_away_gets_it_from_the_next_who_comes(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    file = site(tmp_path, f"{SIMULATED}[outputs.csv]\n[outputs.graphite]\nport = {port}\n")
    done = orchestrator("once", "--config", file)
    assert done.returncode == 3
    assert "! graphite: 0 of " in done.stdout
    assert "waits in the outbox" in done.stdout
    with RecordingCarbon() as carbon:
        file = site(tmp_path, f"{SIMULATED}[outputs.csv]\n[outputs.graphite]\nport = {carbon.port}\n")
        done = orchestrator("once", "--config", file, "--json")
        assert done.returncode == 0
        outputs = json.loads(done.stdout)["outputs"]
        assert outputs["graphite"]["delivered"] == 2 * outputs["csv"]["delivered"]
        assert carbon.lines


def test_who_sends_and_waits_is_answered_when_it_is_safe(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    table = (
        f'[sources.meter]\nkind = "esp32_http"\nport = {port}\n[[sources.meter.devices]]\nname = "m"\n[outputs.csv]\n'
    )
    file = site(tmp_path, table)
    command = [sys.executable, ROOT / "orchestrator.py", "once", "meter", "--config", file, "--wait", "30"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for(lambda: listens(port), "the port")
        body = json.dumps({"device": "m", "boot": "b", "seq": 1, "pulses_total": 9}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=20) as answer:
            assert json.load(answer)["status"] == "ok"
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert b"csv: 1 written" in out
    assert [row[4] for row in csv_rows(tmp_path / "var" / "csv") if row[3] == "pulses"] == ["9"]


def test_beside_a_running_house_it_refuses(tmp_path: Path) -> None:
    file = site(tmp_path, f"{SIMULATED}[outputs.csv]\n")
    (tmp_path / "var").mkdir()
    locked = lock(tmp_path / "var", 0)
    try:
        done = orchestrator("once", "--config", file)
    finally:
        os.close(locked)
    assert done.returncode == 1
    assert "the house runs already" in done.stderr


def test_without_outputs_or_sources_there_is_nothing_to_do(tmp_path: Path) -> None:
    done = orchestrator("once", "--config", site(tmp_path, SIMULATED))
    assert (done.returncode, "nowhere to write to" in done.stderr) == (2, True)
    done = orchestrator("once", "--config", site(tmp_path, "[outputs.csv]\n"))
    assert (done.returncode, "No source" in done.stderr) == (2, True)
