"""A meter that blinks in a process of its own: `python -m tests.faults.lab.blinking DESCRIPTOR HZ`.

It writes the kernel's records of both edges of each pulse until its input ends, then prints when the first pulse
began and how many there were.
"""

from __future__ import annotations

import os
import select
import sys
import time

from tests.workers.pulse_bench import record
from workers._gpio import FALLING, RISING

SECOND = 10**9
WIDTH_NS = 4 * 10**6


def main() -> None:
    descriptor, hz = map(int, sys.argv[1:])
    start_ns, pulses = time.monotonic_ns(), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        at_ns = start_ns + pulses * SECOND // hz
        for edge, (kind, edge_ns) in enumerate(((FALLING, at_ns), (RISING, at_ns + WIDTH_NS)), 1):
            time.sleep(max(0, edge_ns - time.monotonic_ns()) / SECOND)
            os.write(descriptor, record(edge_ns, kind, 2 * pulses + edge))
        pulses += 1
    print(start_ns, pulses)


if __name__ == "__main__":
    main()
