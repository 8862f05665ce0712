"""SIGSTOP of anybody, the parent too, and then SIGCONT: what stands still long is replaced, nothing is lost."""

from __future__ import annotations

import os
import signal
import time

from tests.faults.house import House
from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import rig
from tests.peers.process import wait_for

PROMISE = "a process that stands still and goes on loses and doubles nothing; one that hangs is replaced"
_HUNG_AFTER_S = 2.0


def run(bench: Bench) -> None:
    with rig(bench, supervise=f"hung_after_s = {_HUNG_AFTER_S}") as made:
        house = made.house
        assert house.process is not None
        parent = house.process.pid
        made.oracle.start()
        kinds = ["worker", "writer", "api", "parent"]
        for round_ in range(bench.times(40, least=4)):
            kind = kinds[round_ % len(kinds)]
            worker = f"source.{bench.chance.choice([*house.sources])}"
            pid = parent if kind == "parent" else house.pid(worker if kind == "worker" else kind)
            if pid is None:
                continue
            os.kill(pid, signal.SIGSTOP)
            time.sleep(bench.chance.uniform(0.05, 1.2))
            os.kill(pid, signal.SIGCONT)
            bench.more(f"stops of {kind}")
        replaced_s = [_hang(house, name) for name in ("source.meter-0", "writer", "api")]
        bench.figure("hung ones replaced", len(replaced_s))
        bench.figure("replaced after, at the latest (s)", max(replaced_s))
        made.settle()
        made.judge()


def _hang(house: House, name: str) -> float:
    """Stop a process for good; return after how long another one beats in its place."""
    before = wait_for(lambda: house.pid(name), f"{name} to be there")
    os.kill(before, signal.SIGSTOP)
    began_s = time.monotonic()
    wait_for(lambda: house.pid(name) not in (None, before), f"{name} to be replaced")
    return time.monotonic() - began_s
