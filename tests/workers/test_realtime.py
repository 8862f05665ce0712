"""Real time as the kernel shows it from outside, and what is said when it is not granted."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.process import free_ports, wait_for
from workers._realtime import Realtime

ROOT = Path(__file__).parents[2]
RUN = """
import json, logging, os, resource, sys
sys.path.insert(0, sys.argv[1])
from workers._realtime import Realtime, keep_off
logging.basicConfig(format="%(message)s", stream=sys.stderr)
log = logging.getLogger("pulse")
"""


def run(script: str) -> tuple[dict[str, object], list[str]]:
    """Run a script in a process of its own; return what it printed as JSON, and its log."""
    done = subprocess.run([sys.executable, "-c", RUN + script, str(ROOT)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()


def may_be_realtime() -> bool:
    """Whether this user may have what the tests ask for."""
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def test_nobody_is_asked_for_anything_by_default(caplog: pytest.LogCaptureFixture) -> None:
    realtime = Realtime(priority=0, core=-1)
    before = os.sched_getaffinity(0)
    realtime.enter(logging.getLogger("pulse"))
    assert (realtime.refused, caplog.messages, os.sched_getaffinity(0)) == (0, [], before)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_is_refused_is_told_once_each_and_the_work_goes_on() -> None:
    """A process that may do nothing: without capabilities, with limits of zero."""
    shown, log = run("""
for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_MEMLOCK):
    resource.setrlimit(limit, (0, 0))
if os.geteuid() == 0:
    os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
realtime = Realtime(50, 4000)
realtime.enter(log)
realtime.enter(log)
print(json.dumps({"refused": realtime.refused}))
""")
    assert shown == {"refused": 3}
    assert len(log) == 3
    core, priority, memory = log
    assert re.match(r"goes on without core 4000 of its own \(Invalid argument\); this machine has the cores 0 to", core)
    assert "CAP_SYS_NICE" in priority
    assert "LimitRTPRIO=50" in priority
    assert "rtprio 50" in priority
    assert "LimitMEMLOCK=infinity" in memory
    assert "memlock unlimited" in memory


def test_the_collector_rests_and_is_run_now_and_then() -> None:
    shown, _ = run("""
import gc
realtime = Realtime(1, -1)
realtime.enter(log)
collected = []
gc.callbacks.append(lambda phase, info: collected.append(phase) if phase == "start" else None)
for now_s in (1000.0, 1001.0, 1599.0, 1600.0, 1700.0):
    realtime.rest(now_s)
print(json.dumps({"enabled": gc.isenabled(), "collected": len(collected), "frozen": gc.get_freeze_count() > 1000}))
""")
    assert shown == {"enabled": False, "collected": 2, "frozen": True}


def test_a_process_keeps_off_what_is_reserved_unless_nothing_is_left() -> None:
    shown, _ = run("""
every = os.sched_getaffinity(0)
one = min(every)
keep_off(frozenset({one}))
others = os.sched_getaffinity(0)
keep_off(frozenset(every))
print(json.dumps({"others": sorted(others), "left": sorted(os.sched_getaffinity(0)), "every": sorted(every)}))
""")
    every = shown["every"]
    assert isinstance(every, list)
    assert shown["others"] == shown["left"] == (every[1:] or every)


# A house with a pulse source on a core of its own, as `ps` and /proc show it


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core cannot be shared out")
    config, log_path = tmp_path / "site.toml", tmp_path / "log"
    config.write_text(f"""
[site]
data_dir = "{tmp_path / "var"}"
[api]
port = {free_ports(1)[0]}
[sources.pulse]
kind = "pulse"
core = {cores[-1]}
priority = 50
chip = "/dev/gpiochip-that-is-not-there"
[sources.demo]
kind = "simulated"
[outputs.csv]
directory = "{tmp_path / "csv"}"
""")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "orchestrator.py", "run", "--config", str(config)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield process.pid, log_path
    finally:
        process.terminate()
        assert process.wait(20) == 0, log_path.read_text()


def children(parent: int) -> dict[str, int]:
    """The children of a process by the names that `ps` shows."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in pids}


def test_the_pulse_worker_has_its_core_and_its_priority_and_the_others_keep_off(house: tuple[int, Path]) -> None:
    parent, log_path = house
    cores = os.sched_getaffinity(0)
    core = max(cores)
    names = {"source.pulse", "source.demo", "writer", "api"}
    wait_for(lambda: "there is no /dev/gpiochip" in log_path.read_text(), "the pulse source to have tried")
    wait_for(lambda: children(parent).keys() == names, "all processes")
    processes = children(parent)
    pulse = processes.pop("source.pulse")
    assert os.sched_getaffinity(pulse) == {core}
    assert {name: os.sched_getaffinity(pid) for name, pid in processes.items()} == dict.fromkeys(
        names - {"source.pulse"}, cores - {core}
    )
    assert os.sched_getaffinity(parent) == cores - {core}
    for pid in (parent, *processes.values()):
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    if may_be_realtime():
        assert os.sched_getscheduler(pulse) == os.SCHED_FIFO
        assert os.sched_getparam(pulse).sched_priority == 50
        locked_kb = re.search(r"VmLck:\s+(\d+) kB", Path(f"/proc/{pulse}/status").read_text())
        assert locked_kb
        assert int(locked_kb[1]) > 1000
        assert Path(f"/proc/{pulse}/timerslack_ns").read_text().strip() in ("0", "1")  # a real-time process has none
        assert "goes on without" not in log_path.read_text()
    else:
        assert os.sched_getscheduler(pulse) == os.SCHED_OTHER
        assert log_path.read_text().count("goes on without real-time priority 50") == 1
