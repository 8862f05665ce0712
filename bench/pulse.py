"""How late a pulse worker wakes under full load, and what an edge costs it. `sudo python -m bench.pulse`

stress-ng keeps every core busy. Three processes sleep a millisecond again and again, in turns: one with the real time
that `workers/_realtime.py` takes, one without, and cyclictest, which is C and the measure of what the kernel can do.
Edges go through the raw reader of `workers/_gpio_chip.py` as the kernel's own records, 1,024 at a time, as many as the
kernel holds for a request; a pipe stands for the chip, so what is told is the reader's share of the processor, and the
rate at which it would fill one core. That no edge is lost over a real gpiochip is proved in tests/virtual_hardware.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import LEAST_ROUNDS, Figure, Finding, Skipped, parser, publish
from workers._gpio_chip import ChipEdges
from workers._realtime import Realtime

ROOT = Path(__file__).parents[1]
PRIORITY = 80
MOST_P50, MOST_P99, MOST_EDGE_US = 1.5, 0.05, 100.0
_RECORD = struct.Struct("=QIIII6I")
_HELD = 1024


def lateness_us(seconds: float, *, tuned: bool) -> tuple[float, float]:
    """Sleep a millisecond again and again; return how much longer it took, p50 and p99."""
    realtime = Realtime(PRIORITY if tuned else 0, (os.cpu_count() or 1) - 1 if tuned else -1)
    realtime.enter(logging.getLogger("bench"))
    if realtime.refused:
        raise PermissionError("real time was not granted")
    late: list[float] = []
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    while (begun_ns := time.monotonic_ns()) < until_ns:
        time.sleep(0.001)
        late.append((time.monotonic_ns() - begun_ns - 1_000_000) / 1000)
    cuts = statistics.quantiles(late, n=100)
    return cuts[49], cuts[98]


@contextlib.contextmanager
def full_load() -> Iterator[None]:
    process = subprocess.Popen(
        ["stress-ng", "--cpu", str(2 * (os.cpu_count() or 1)), "--vm", "1", "--vm-bytes", "64M", "--quiet"]
    )
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


def in_a_process(kind: str, seconds: float) -> tuple[float, float]:
    words = [sys.executable, "-m", "bench.pulse", "--as", kind, "--seconds", str(seconds)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    p50_us, p99_us = map(float, done.stdout.split())
    return p50_us, p99_us


def cyclictest_us(seconds: float) -> float:
    """Return the average lateness that cyclictest finds."""
    words = ["cyclictest", "--mlockall", f"--priority={PRIORITY}", "--interval=1000", "--quiet"]
    core = (os.cpu_count() or 1) - 1
    words += [f"--affinity={core}", "--threads=1", f"--loops={int(seconds * 1000)}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    [average] = re.findall(r"Avg:\s*(\d+)", done.stdout)
    return float(average)


def woken(seconds: float, rounds: int) -> list[Finding]:
    what = "wake-up under full load"
    for program, package in (("stress-ng", "stress-ng"), ("cyclictest", "rt-tests")):
        if not shutil.which(program):
            return [Skipped(what, f"no {program}; try: apt install {package}")]
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:
        return [Skipped(what, "real-time priority is not granted here; try: sudo")]
    tuned, untuned, cyclic = [], [], []
    with full_load():
        for _ in range(rounds):
            tuned.append(in_a_process("tuned", seconds))
            untuned.append(in_a_process("untuned", seconds))
            cyclic.append(cyclictest_us(seconds))
    (p50_us, p99_us), (_, plain_p99_us) = (
        tuple(statistics.median(each) for each in zip(*found, strict=True)) for found in (tuned, untuned)
    )
    return [
        Figure(
            "wake-up under full load, p50", p50_us, "µs", "cyclictest, average", statistics.median(cyclic), MOST_P50
        ),
        Figure("wake-up under full load, p99", p99_us, "µs", "without real time, p99", plain_p99_us, MOST_P99),
    ]


def edge_us(bursts: int) -> float:
    """Return µs of CPU an edge, and see that none is missing."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    with open(out, "rb"), open(into, "wb", buffering=0) as chip:
        edges = ChipEdges("auto", [], "bench")
        edges.adopt(out, [17])
        number = taken = 0
        spent_ns = 0
        for _ in range(bursts):
            records = (_RECORD.pack(time.monotonic_ns(), 1, 17, 0, number + n + 1, *[0] * 6) for n in range(_HELD))
            assert chip.write(b"".join(records)) == _HELD * _RECORD.size
            number += _HELD
            begun_ns = time.process_time_ns()
            while found := edges.take():
                for edge in found:
                    taken += 1
                    if edge.number != taken:
                        raise RuntimeError(f"edge {taken} is missing")
            spent_ns += time.process_time_ns() - begun_ns
    if taken != number:
        raise RuntimeError(f"{number - taken} edges are missing")
    return spent_ns / 1000 / taken


def measure(seconds: float = 3.0, rounds: int = LEAST_ROUNDS, bursts: int = 200) -> list[Finding]:
    cost_us = statistics.median(edge_us(bursts) for _ in range(rounds))
    print(f"the raw reader takes {1e6 / cost_us:,.0f} edges a second of one core, and lost none")
    return [
        *woken(seconds, rounds),
        Figure("an edge through the raw reader", cost_us, "µs", "10,000 a second", MOST_EDGE_US),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--as", dest="kind", choices=["tuned", "untuned"], help="be one of those that sleep")
    arguments.add_argument("--seconds", type=float, default=3.0, help="how long one sleeps in a round")
    told = arguments.parse_args()
    if told.kind:
        print(*lateness_us(told.seconds, tuned=told.kind == "tuned"))
        return
    findings = measure(0.3, 1, bursts=20) if told.quick else measure(told.seconds)
    publish("pulse", findings, told.results)


if __name__ == "__main__":
    main()
