"""How long a dead worker is missed: from SIGKILL to the next reading that is taken. `python -m bench.restart`

A worker that receives over HTTP is killed in a running house; a sender tries again and again, and what counts is when
it is answered with 200. Beside it the same worker is started as a new interpreter would start it, and the same sender
waits for the same answer. A hung worker is stopped with SIGSTOP; it is replaced when its heartbeat is missed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import LEAST_ROUNDS, Figure, medians, parser, publish
from tests.faults.house import House
from tests.peers.process import free_ports, wait_for

ROOT = Path(__file__).parents[1]
HUNG_AFTER_S = 2.0
_ALONE = """
import sys, tempfile, time
from pathlib import Path
import msgspec
import logs
from channel import pair
from vitals import Board
from workers import _runtime, esp32_http
logs.start()
options = msgspec.convert(
    {"kind": "esp32_http", "port": int(sys.argv[1]), "devices": [{"name": "meter"}]}, esp32_http.Options
)
ours, theirs = pair()
board = Board()
_runtime.main("meter", options, end=ours, incarnation=time.time_ns(), vitals=board.claim("worker", "meter"),
              directory=Path(tempfile.mkdtemp()), kept={}, deposit=lambda name, descriptor: None)
"""
_number = iter(range(10**9))


def answered(port: int) -> bool:
    """Whether a reading is taken now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/", json.dumps({"device": "meter", "pulses_total": next(_number)}))
        return connection.getresponse().status == 200
    return False


def waited_s(port: int, since_s: float) -> float:
    while not answered(port):
        time.sleep(0.001)
    return time.monotonic() - since_s


def replaced_s(house: House) -> float:
    """Kill the worker of a house and return when it is back."""
    time.sleep(1.5)  # one that ended at once again would wait
    worker = wait_for(lambda: house.pid("source.meter"), "the worker")
    begun_s = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    return waited_s(house.post_port, begun_s)


def hung_s(house: House) -> float:
    time.sleep(1.5)
    worker = wait_for(lambda: house.pid("source.meter"), "the worker")
    begun_s = time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: house.pid("source.meter") not in (None, worker), "a successor", within_s=60)
    return waited_s(house.post_port, begun_s)


def spawned_s() -> float:
    """Start a worker in a new interpreter and return when it answers."""
    [port] = free_ports(1)
    begun_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", _ALONE, str(port)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        return waited_s(port, begun_s)
    finally:
        process.kill()
        process.wait()


def measure(rounds: int = LEAST_ROUNDS) -> list[Figure]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        house = House(Path(name), "[outputs.csv]\n", ["meter"])
        # Each death is to be like the first one within a minute, after which a process starts at once.
        supervise = f"[supervise]\nhung_after_s = {HUNG_AFTER_S}\nlongest_pause_s = 0.001\n"
        house.head = re.sub(r"\[supervise\]\n(longest_pause_s.*\n)?", supervise, house.head)
        house.configure("[outputs.csv]\n")
        try:
            house.start()
            wait_for(house.is_ready, "the house to be ready", within_s=120)
            found = medians({"ours": lambda: replaced_s(house), "spawned": spawned_s}, rounds)
            hang_s = hung_s(house)
        finally:
            house.kill()
    return [
        Figure(
            "a killed worker's next reading", found["ours"] * 1000, "ms", "a spawned one", found["spawned"] * 1000, 0.2
        ),
        Figure("a hung worker's next reading", hang_s, "s", "hung_after_s + 3 s", HUNG_AFTER_S + 3),
    ]


def main() -> None:
    told = parser(__doc__).parse_args()
    publish("restart", measure(1 if told.quick else LEAST_ROUNDS), told.results)


if __name__ == "__main__":
    main()
