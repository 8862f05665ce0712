"""SIGKILL of the parent, whom somebody outside starts again, as systemd would: nobody may outlive it, all come back."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from tests.faults.house import House
from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import rig
from tests.peers.process import wait_for

PROMISE = "kill -9 of the parent loses and doubles nothing; no orphan after 2 s, all back in 3 s"
_ORPHAN_S = 2.0
_BACK_S = 3.0


def run(bench: Bench) -> None:
    with rig(bench) as made:
        house = made.house
        names = [*(f"source.{source}" for source in house.sources), "writer", "api"]
        made.oracle.start()
        orphans_s, back_s = [], []
        for _ in range(bench.times(100)):
            time.sleep(bench.chance.uniform(0.0, 0.6))
            pids = children(house)
            house.kill()
            killed_s = time.monotonic()
            house.start()
            wait_for(lambda pids=pids: not any(map(is_alive, pids)), "every orphan to be gone", 90)
            orphans_s.append(time.monotonic() - killed_s)
            wait_for(lambda: all(map(house.pid, names)), "everybody to be back", 90)
            back_s.append(time.monotonic() - killed_s)
        made.settle()
        made.judge()
        bench.figure("kills of the parent", len(back_s))
        for what, times_s, most_s in (("orphans gone", orphans_s, _ORPHAN_S), ("all back", back_s, _BACK_S)):
            bench.figure(f"{what} after, median (s)", sorted(times_s)[len(times_s) // 2])
            bench.figure(f"{what} after, at the latest (s)", max(times_s))
            bench.expect_within(max(times_s), most_s, what)


def children(house: House) -> list[int]:
    assert house.process is not None
    path = Path(f"/proc/{house.process.pid}/task/{house.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has buried yet does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
