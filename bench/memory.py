"""What the house takes of the memory: PSS of all its processes. `python -m bench.memory [--minutes 60]`

PSS counts a shared page once, divided among those who share it; RSS would count it in each of them. "One of each kind"
has all the drivers loaded, though nothing is wired; "ten sources" has ten receivers for ESP32s, and beside it ten model
houses, each of which also keeps the model. What a further worker costs is the difference to twenty. Spawned, every
process would be an interpreter of its own that has imported what the parent has: so many are started, and their PSS is
summed up.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.figures import Figure, Finding, parser, publish
from tests.faults.house import House
from tests.peers.process import free_ports, wait_for

ROOT = Path(__file__).parents[1]
MB = 1e6
BUDGET_MB, WORKER_MB = 140.0, 9.0
LEAST_MINUTES = 10.0  # of watching: in fewer, what a house grows by once counts as if it did so all the time
TELEGRAF_MB = 84.0  # RSS with its usual buffer of 10,000 metrics full: github.com/influxdata/telegraf/wiki/MetricBuffer
_SETTLED_S = 15.0

_OUTPUTS = """
[outputs.csv]
[outputs.graphite]
port = 9
[outputs.influx]
url = "http://127.0.0.1:9"
org = "home"
bucket = "raw"
token_env = "BENCH_TOKEN"
[outputs.history]
"""
_KINDS = """
[sources.house]
kind = "simulated"
[sources.pulse]
kind = "pulse"
[sources.clamps]
kind = "mcp3008"
[[sources.clamps.devices]]
name = "machine"
channel = 0
[sources.shunts]
kind = "pzem"
port = "/dev/ttyUSB0"
[[sources.shunts.devices]]
name = "battery"
unit = 1
model = "017"
shunt_a = 100
[sources.rails]
kind = "ina219"
[[sources.rails.devices]]
name = "lamp"
[sources.plugs]
kind = "kasa"
[[sources.plugs.devices]]
name = "plug"
host = "127.0.0.1"
[sources.rail]
kind = "tuya"
[[sources.rail.devices]]
name = "oven"
id = "0123456789abcdef0123"
host = "127.0.0.1"
key_env = "BENCH_KEY"
[sources.broker]
kind = "mqtt"
host = "127.0.0.1"
port = 9
[[sources.broker.devices]]
name = "boiler"
dialect = "tasmota"
topic = "boiler"
[sources.smart]
kind = "glow"
host = "127.0.0.1"
port = 9
[[sources.smart.devices]]
name = "grid"
"""


def pss_mb(pids: list[int], kind: str = "Pss") -> float:
    """Return the summed PSS of some processes in megabytes, or another kind of their memory."""
    total = 0.0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        [line] = [line for line in rollup.splitlines() if line.startswith(f"{kind}:")]
        total += int(line.split()[1]) * 1024 / MB
    return total


def house_mb(sources: str, minutes: float = 0.0) -> tuple[float, float, int]:
    """Run a house; return its PSS, by how much it grew in an hour (MB), and how many processes it has.

    PSS grows also when somebody else who uses the same libraries ends. So growth is judged by what they have written.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        house = House(Path(name), _OUTPUTS, ["unused"], sources)
        house.environment = {"BENCH_TOKEN": "token", "BENCH_KEY": "0123456789abcdef"}
        try:
            house.start()
            assert house.process is not None
            parent = psutil.Process(house.process.pid)
            wait_for(lambda: "the house runs" in house.log, f"the house to run:\n{house.log}", within_s=60)
            time.sleep(_SETTLED_S)
            pids = [parent.pid, *(child.pid for child in parent.children(recursive=True))]
            first = pss_mb(pids)
            seen = [(0.0, pss_mb(pids, "Private_Dirty"))]
            begun_s = time.monotonic()
            while (passed_s := time.monotonic() - begun_s) < minutes * 60:
                time.sleep(min(10.0, minutes * 6))
                pids = [parent.pid, *(child.pid for child in parent.children(recursive=True))]
                seen.append((passed_s / 3600, pss_mb(pids, "Private_Dirty")))
            slope = statistics.linear_regression(*zip(*seen, strict=True)).slope if len(seen) > 2 else 0.0
            return first, slope, len(pids)
        finally:
            house.kill()


def simulated(many: int) -> str:
    """So many sources, together with the one that every house of ours has."""
    return "".join(f'[sources.house{number}]\nkind = "simulated"\n' for number in range(many - 1))


def receivers(many: int) -> str:
    return "".join(
        f'[sources.meter{number}]\nkind = "esp32_http"\nport = {port}\n'
        f'[[sources.meter{number}.devices]]\nname = "m{number}"\n'
        for number, port in enumerate(free_ports(many - 1))
    )


def spawned_mb(processes: int) -> float:
    """Return what so many interpreters take that have imported what the parent has, as spawn would have it."""
    code = "import commands._house, time; print(flush=True); time.sleep(600)"
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        return pss_mb([process.pid for process in started])
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def measure(minutes: float = 2.0) -> list[Finding]:
    ten_mb, slope, processes = house_mb(receivers(10), minutes)
    twenty_mb, _, _ = house_mb(receivers(20))
    models_mb, _, _ = house_mb(simulated(10))
    kinds_mb, _, many = house_mb(_KINDS)
    figures: list[Finding] = [
        Figure(f"ten sources, {processes} processes", ten_mb, "MB", "140 MB", BUDGET_MB),
        Figure("the same", ten_mb, "MB", "spawned", spawned_mb(processes)),
        Figure("the same", ten_mb, "MB", "Telegraf, as documented", TELEGRAF_MB, None),
        Figure("a further worker", (twenty_mb - ten_mb) / 10, "MB", "9 MB", WORKER_MB),
        Figure("ten model houses", models_mb, "MB", "140 MB", BUDGET_MB),
        Figure(f"one of each kind, {many} processes", kinds_mb, "MB", "140 MB", BUDGET_MB),
    ]
    if minutes:
        judged = 1.0 if minutes >= LEAST_MINUTES else None
        figures.append(Figure(f"growth an hour, seen {minutes:g} min", max(slope, 0.0), "MB", "2 MB", 2.0, judged))
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=2.0, help="watch for growth so long (2; an hour says more)")
    told = arguments.parse_args()
    publish("memory", measure(0.0 if told.quick else told.minutes), told.results)


if __name__ == "__main__":
    main()
