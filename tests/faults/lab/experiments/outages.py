"""Graphite, InfluxDB and the broker go away in every way, independently of each other, while ten senders go on."""

from __future__ import annotations

import random
import threading
import time

from tests.faults.lab.bench import Bench
from tests.faults.lab.proxy import ANSWERS, Proxy, Way
from tests.faults.lab.rig import Rig, rig
from tests.peers.process import wait_for

PROMISE = "an output that is away delays no other one and loses nothing; the newest is there within 10 s of its return"
_BACK_WITHIN_S = 10.0
_SINKS = ("graphite", "influx", "mqtt")


def run(bench: Bench) -> None:
    with rig(bench, outputs=("csv", *_SINKS), settings="timeout_s = 2.0", proxied=True, pause_s=0.2) as made:
        made.oracle.start()
        outages = bench.times(50)
        plans: dict[str, list[Way]] = {}
        for sink in _SINKS:
            ways = [way for way in Way if way is not Way.WHOLE and (sink == "influx" or way not in ANSWERS)]
            plans[sink] = [ways[number % len(ways)] for number in range(outages)]
        chances = {sink: random.Random(bench.chance.random()) for sink in _SINKS}
        threads = [
            threading.Thread(target=_break_and_mend, args=(bench, made, sink, plan, chances[sink]))
            for sink, plan in plans.items()
        ]
        for thread in threads:
            thread.start()
        slowest_csv_s = _watch(made, threads)
        bench.figure("outages of each", outages)
        bench.figure("longest pause of the file meanwhile (s)", slowest_csv_s)
        bench.expect_within(slowest_csv_s, 3.0, "an output that was there, while others were away,")
        made.settle(120)
        made.judge()


def _break_and_mend(bench: Bench, made: Rig, sink: str, plan: list[Way], chance: random.Random) -> None:
    proxy = made.sinks.proxies[sink]
    for way in plan:
        try:
            _one(bench, made, proxy, sink, way, chance)
        except BaseException as error:  # noqa: BLE001 - also pytest's own way of failing
            bench.expect(False, f"{sink}, {way.value}: {error}")
            proxy.mends()


def _one(bench: Bench, made: Rig, proxy: Proxy, sink: str, way: Way, chance: random.Random) -> None:
    failures = made.house.metric("wattherd_output_failures_total", output=sink) or 0.0
    proxy.breaks(way)
    wait_for(
        lambda: (made.house.metric("wattherd_output_failures_total", output=sink) or 0.0) > failures,
        f"{sink} to be down: {way.value}",
        30,
    )
    time.sleep(chance.uniform(0, 3))
    proxy.mends()
    mended_s = time.monotonic()
    newest = made.oracle.newest
    wait_for(lambda: made.has(sink, newest), f"the newest reading at {sink} after: {way.value}", 120)
    back_s = time.monotonic() - mended_s
    name = f"newest at {sink} after its return, at the latest (s)"
    bench.figure(name, max(back_s, float(bench.sheet.figures.get(name, 0.0))))
    bench.expect_within(back_s, _BACK_WITHIN_S, f"{sink} to have the newest after: {way.value}")


def _watch(made: Rig, threads: list[threading.Thread]) -> float:
    """Return the longest time in which the file did not grow while others broke."""
    longest_s, size, grew_s = 0.0, -1, time.monotonic()
    while any(thread.is_alive() for thread in threads):
        now = sum(file.stat().st_size for file in (made.house.data_dir / "csv").glob("*.csv"))
        if now != size:
            longest_s = max(longest_s, time.monotonic() - grew_s)
            size, grew_s = now, time.monotonic()
        time.sleep(0.05)
    return longest_s
