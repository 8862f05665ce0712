"""SIGKILL, at random, of workers, writer and api, singly and in pairs, while ten senders go on."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress

from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import rig

PROMISE = "kill -9 of any process loses and doubles nothing that was answered"


def run(bench: Bench) -> None:
    with rig(bench) as made:
        workers = [f"source.{source}" for source in made.house.sources]
        made.oracle.start()
        kills: Counter[str] = Counter()
        wanted = bench.times(1000)
        while kills.total() < wanted:
            time.sleep(bench.chance.uniform(0.005, 0.15))
            worker = bench.chance.choice(workers)
            victims = bench.chance.choice(
                [[worker], ["writer"], ["api"], [worker, "writer"], [worker, "api"], ["writer", "api"]]
            )
            # Both at once counts as one kill: what matters is that neither can clean up after the other.
            dead = 0
            for pid in [pid for pid in map(made.house.pid, victims) if pid]:
                with suppress(ProcessLookupError):  # it was on its way out already
                    os.kill(pid, signal.SIGKILL)
                    dead += 1
            if dead == len(victims):
                kills["+".join(victim.partition(".")[0].replace("source", "worker") for victim in victims)] += 1
        made.settle(120)
        made.judge()
        bench.figure("kills", kills.total())
        for victims_, count in sorted(kills.items()):
            bench.figure(f"kills of {victims_}", count)
