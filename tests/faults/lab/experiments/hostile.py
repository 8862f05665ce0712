"""Messages that no meter would send, over HTTP and MQTT, with names of devices that are none; and patience.

A million of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.faults.house import House
from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import Rig, rig
from tests.peers.mosquitto import running_mosquitto
from tests.peers.process import wait_for

PROMISE = "whatever strangers send, nothing of it is booked, nobody ends, and whoever is honest is answered"
_ROOT = Path(__file__).parents[4]
_PIPELINED, _MALFORMED, _PUBLISHED, _API = 250_000, 10_000, 720_000, 20_000
_SLOW_S = 20.0
_ANSWERED_WITHIN_S = 5.0
_MOST_GROWTH_MB = 20.0
_BROKER = """
[sources.broker]
kind = "mqtt"
port = {port}
watch = ["tele/#"]
[[sources.broker.devices]]
name = "boiler"
dialect = "tasmota"
topic = "boiler"
[[sources.broker.devices]]
name = "any"
dialect = "json"
topic = "any/json"
values = [{{path = "power", metric = "power_w"}}]
[[sources.broker.devices]]
name = "house"
dialect = "esp32"
topic = "house"
[[sources.broker.devices]]
name = "plug"
dialect = "shelly"
topic = "plug"
[[sources.broker.devices]]
name = "lamp"
dialect = "zigbee2mqtt"
topic = "lamp"
"""


def run(bench: Bench) -> None:
    (bench.directory / "broker").mkdir()
    with (
        # It hands on all that it gets: by itself it drops what it cannot hand on at once, and spares us.
        running_mosquitto(bench.directory / "broker", options=("max_queued_messages 0",)) as broker,
        rig(bench, _BROKER.format(port=broker.port), pause_s=0.1) as made,
    ):
        house = made.house
        names = [*(f"source.{source}" for source in house.sources), "source.broker", "writer", "api"]
        wait_for(lambda: all(map(house.pid, names)), "the house")
        pids = {name: house.pid(name) for name in names}
        before_mb = pss_mb(pids)
        made.oracle.start()
        port = house.ports["meter-0"]
        attacks = [
            ("pipelined", port, bench.times(_PIPELINED)),
            ("malformed", port, bench.times(_MALFORMED)),
            ("malformed", house.api_port, bench.times(_API)),
            ("published", broker.port, bench.times(_PUBLISHED)),
        ]
        began_s = time.monotonic()
        sent = sum(attack(bench, made, *attacks))
        bench.figure("hostile messages", sent)
        bench.figure("hostile messages a second", round(sent / (time.monotonic() - began_s)))
        bench.figure("of them refused and counted over MQTT", when_still(lambda: refusals(house, "broker")))
        bench.figure("of them refused and counted over HTTP", refusals(house, "meter-0"))
        [megabytes] = attack(bench, made, ("huge", port, 1024))
        bench.figure("two bodies of 1 GB: hung up after (MB)", megabytes)
        slow_s = max(3, round(_SLOW_S * min(1.0, bench.scale)))
        opened = sum(attack(bench, made, ("slowly", port, slow_s), ("slowly", house.api_port, slow_s)))
        bench.figure("connections of somebody who says a letter at a time", opened)
        made.settle(120)
        after = {name: house.pid(name) for name in names}
        bench.expect(after == pids, f"somebody ended: {pids} became {after}")
        grown_mb = {name: round(pss_mb({name: pid})[name] - before_mb[name]) for name, pid in pids.items()}
        bench.figure("memory grew at most by (MB PSS)", max(grown_mb.values()))
        bench.expect(max(grown_mb.values()) < _MOST_GROWTH_MB, f"memory grew by {grown_mb} MB")
        bench.expect("Traceback" not in house.log, f"a traceback is in {house.log_path}")
        bench.expect("forged" not in house.log, f"somebody wrote into {house.log_path}")
        bench.figure("lines of the log", house.log.count("\n"))
        made.judge()


def attack(bench: Bench, made: Rig, *attacks: tuple[str, int, int]) -> list[int]:
    """Run attacks side by side, and see that whoever is honest is answered meanwhile; return how much each sent."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.faults.lab.attackers",
                kind,
                str(port),
                str(count),
                str(bench.chance.random())[2:11],
            ],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for kind, port, count in attacks
    ]
    kinds = " and ".join(sorted({kind for kind, _, _ in attacks}))
    longest_s = 0.0
    while any(process.poll() is None for process in processes):
        now_s = time.time()
        waiting = [posted.first_s for posted in dict(made.oracle.posted).values() if not posted.answered_s]
        longest_s = max(longest_s, now_s - min(waiting, default=now_s))
        time.sleep(0.05)
    bench.figure(f"longest wait of a sender beside {kinds} (s)", longest_s)
    bench.expect_within(longest_s, _ANSWERED_WITHIN_S, f"an honest sender, beside {kinds},")
    sent = []
    for (kind, _, _), process in zip(attacks, processes, strict=True):
        out, err = process.communicate()
        bench.expect(process.returncode == 0 and not err, f"{kind}: {err[-500:]}")
        sent.append(int(out or 0))
    return sent


def when_still(count: Callable[[], int]) -> int:
    """Return a count as soon as it has stood still for two seconds."""
    counted, since_s = count(), time.monotonic()
    while time.monotonic() - since_s < 2:
        time.sleep(0.2)
        if (now := count()) != counted:
            counted, since_s = now, time.monotonic()
    return counted


def refusals(house: House, source: str) -> int:
    lines = (house.get("/metrics") or "").splitlines()
    ours = [line for line in lines if line.startswith("wattherd_source_refused_total{") and f'"{source}"' in line]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in ours))


def pss_mb(pids: dict[str, int | None]) -> dict[str, float]:
    return {name: psutil.Process(pid).memory_full_info().pss / 1e6 for name, pid in pids.items() if pid}
