"""The house under a real supervisord, with the configuration that is shipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.house import ROOT, House, csv_rows
from tests.peers.process import wait_for

SUPERVISORD = Path(sys.executable).with_name("supervisord")


@pytest.mark.long
def test_supervisord_starts_restarts_and_stops_the_house(tmp_path: Path) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["a"])
    shipped = (ROOT / "deploy" / "supervisor" / "wattherd.conf").read_text()
    shipped = shipped.replace(
        "/home/pi/wattherd/.venv/bin/python /home/pi/wattherd/orchestrator.py run",
        f"{sys.executable} {ROOT}/orchestrator.py run --config {house.config}",
    )
    shipped = shipped.replace("directory=/home/pi/wattherd", f"directory={ROOT}").replace("user=pi\n", "")
    shipped = shipped.replace("/var/log/wattherd.log", f"{tmp_path}/wattherd.log")
    assert "/home/pi" not in shipped
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={tmp_path}/supervisord.log\npidfile={tmp_path}/supervisord.pid\n{shipped}"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}  # supervisor's own imports warn, ours are tested elsewhere
    supervisord = subprocess.Popen([SUPERVISORD, "-c", configuration], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_for(house.is_ready, "the house to be ready", 30)
        assert house.post({"device": "a", "power_w": 1})[0] == 200
        (parent,) = children(supervisord.pid)
        os.kill(parent, 9)
        wait_for(lambda: children(supervisord.pid) not in ([], [parent]), "another parent", 20)
        wait_for(house.is_ready, "the house to be ready again", 30)
        assert house.post({"device": "a", "power_w": 2})[0] == 200
        everyone = [pid for child in children(supervisord.pid) for pid in [child, *children(child)]]
        assert len(everyone) == 4
    finally:
        supervisord.terminate()
        supervisord.wait(40)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone), "nobody to be left", 5)
    powers = [row[4] for row in csv_rows(house.data_dir / "csv") if row[3] == "power_w"]
    assert sorted(powers) == ["1.0", "2.0"]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
