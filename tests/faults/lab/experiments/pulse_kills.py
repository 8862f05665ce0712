"""SIGKILL of the reader of pulses, again and again, while a meter blinks at 100 Hz; the count must be exact."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import workers._gpio_chip
from tests.faults.house import Balance
from tests.faults.lab.bench import Bench
from tests.workers.pulse_bench import bench as pulse_bench
from tests.workers.pulse_bench import keeper, options, wait_until_read
from workers._gpio import Edge
from workers.pulse import Pulse

PROMISE = "whoever reads the pulses may die at any moment: no pulse is lost, none is counted twice, energy error 0"
_ROOT = Path(__file__).parents[4]
_HZ = 100
_SECOND = 10**9


def run(bench: Bench) -> None:
    device = {"name": "import", "output": "led", "max_power_w": 400_000, "min_pulse_ms": 2}
    decode = workers._gpio_chip.decode

    def slow_decode(data: bytes) -> list[Edge]:  # more of the kills fall between reading and noting
        time.sleep(0.001)
        return decode(data)

    kills = bench.times(500)
    with pytest.MonkeyPatch.context() as patch, pulse_bench(options(devices=[device])) as made, keeper(made) as house:
        patch.setattr(workers._gpio_chip, "decode", slow_decode)
        patch.setattr(Pulse, "gather_s", 0.004)
        patch.setattr(logging.root.manager, "disable", logging.WARNING)  # each kill has something to tell
        meter = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.lab.blinking", str(made.feed), str(_HZ)],
            cwd=_ROOT,
            pass_fds=[made.feed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(kills):
            worker = house.start()
            while not house.vitals["open"] and not worker.ended and bench.chance.random() > 0.002:
                time.sleep(0.0005)
            time.sleep(bench.chance.uniform(0.0, 0.03))
            worker.send(signal.SIGKILL)
            bench.expect(worker.bury() == -signal.SIGKILL, "a worker ended by itself")
            bench.more("kills before it had opened the lines" if not house.vitals["open"] else "kills of one that read")
            house.listen()
        told, _ = meter.communicate(b"enough", timeout=60)
        start_ns, pulses = map(int, told.split())
        worker = house.start()
        wait_until_read(made)
        worker.send(signal.SIGTERM)
        bench.expect(worker.bury() == 0, "the last worker did not leave well")
        house.listen()
    counts = [int(one.values["pulses"]) for one in house.told if "pulses" in one.values]
    energy_wh = [float(one.values["device_energy_wh"]) for one in house.told if "pulses" in one.values]
    events: dict[int, set[int]] = {}
    for one in house.told:
        if one.origin:
            events.setdefault(one.origin.sequence, set()).add(one.at_ns)
    wrong = [n for n, times_ns in events.items() if times_ns != {start_ns + (n - 1) * _SECOND // _HZ}]
    account = Balance(counts[-1], counts[-1], 0, {})
    bench.count("count", account, sent=pulses, lost=max(0, pulses - counts[-1]), doubled=max(0, counts[-1] - pulses))
    bench.expect(counts == sorted(counts), "the count fell")
    bench.expect(counts[-1] == pulses, f"{pulses} pulses, {counts[-1]} counted")
    bench.expect(not wrong, f"{len(wrong)} pulses have a wrong time, such as {wrong[:3]}")
    bench.figure("pulses", pulses)
    bench.figure("told one by one, each at its edge", len(events))
    bench.figure("energy error (Wh)", energy_wh[-1] - pulses)
    bench.expect(energy_wh[-1] == pulses, f"{energy_wh[-1]} Wh of {pulses}")
