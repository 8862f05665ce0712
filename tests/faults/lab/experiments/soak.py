"""Ten times the load of a big house for minutes or for a day: nothing that is held may go on growing."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from pathlib import Path

import psutil

from tests.faults.house import House, Oracle, Posted
from tests.faults.lab.bench import Bench
from tests.faults.lab.counting import CountingCarbon, CountingInflux
from tests.peers.process import wait_for

PROMISE = "under ten times the load descriptors, memory, threads and write-ahead logs stay as they are"
_DEVICES = 10
_PAUSE_S = 0.1  # each of ten devices ten times a second, where a house has a reading a second of each
_EVERY_S = 2.0
_MOST_GROWTH = {"descriptors": 1.0, "threads": 1.0, "memory (MB)": 3.0}  # see _WARM
_WARM = 2 / 3  # of the time: three minutes have their first fold of the history by then, whose memory stays
_MOST_LOG_MB = 10.0  # checkpoints begin long before, but the file keeps the size that it had


class Newest(dict[tuple[str, int], Posted]):
    """What was posted, without all but the newest: a day has ten million readings."""

    def __setitem__(self, number: tuple[str, int], posted: Posted) -> None:
        super().__setitem__(number, posted)
        self.pop((number[0], number[1] - 10), None)


def run(bench: Bench) -> None:
    with CountingCarbon() as carbon, CountingInflux() as influx:
        outputs = (
            f"[outputs.csv]\n[outputs.history]\n[outputs.graphite]\nport = {carbon.port}\n"
            f'[outputs.influx]\nurl = "{influx.url}"\n'
        )
        sources = {f"meter-{number}": [f"esp32-{number}"] for number in range(_DEVICES)}
        house = House(bench.directory / "house", outputs, sources, commit_interval_s=1.0)
        oracle = Oracle(house, _PAUSE_S, posted=Newest())
        try:
            house.started()
            began_s = time.monotonic()
            oracle.start()
            soak_s = bench.minutes * 60 * min(1.0, bench.scale)
            time.sleep(soak_s * _WARM)
            samples = watch(house, began_s + soak_s)
            oracle.finish()
            sent = {device: max(number for name, number in oracle.posted if name == device) for device in house.devices}
            for output in ("csv", "graphite", "history", "influx"):
                wait_for(
                    lambda output=output: house.metric("wattherd_output_pending", output=output) == 0,
                    f"{output} to have it all",
                    60,
                )
            took_s = time.monotonic() - began_s
            bench.expect(house.stop() == 0, "the house did not stop well")
        finally:
            oracle.give_up()
            house.kill()
    total = sum(sent.values())
    for output, account in house.balance().items():
        tally = {"graphite": carbon.tally, "influx": influx.tally}.get(output)
        lost = sum(sent[device] - tally.different(device) for device in sent) if tally else 0
        bench.count(output, account, sent=total, lost=lost)
        bench.expect(account.holds and account.delivered == total and not lost, f"{output}: {account} of {total}")
    bench.figure("minutes", took_s / 60)
    bench.figure("readings a second", total / took_s)
    for kind, most in _MOST_GROWTH.items():
        grown = {name: growth(samples[name, kind]) for name, of in samples if of == kind}
        if kind == "memory (MB)":  # what is shared with whoever else runs here comes and goes with them
            grown = {name: min(by, growth(samples[name, "private memory (MB)"])) for name, by in grown.items()}
        worst = max(grown, key=lambda name: grown[name])
        bench.figure(f"growth of {kind} in its last third, at most", f"{grown[worst]:+.2f} ({worst})")
        bench.expect(grown[worst] < most, f"{kind} of {worst} grew by {grown[worst]:.2f}: the limit is {most}")
    for what in ("outbox.db-wal", "history.db-wal"):
        log_mb = max(size for _, size in samples[what, "log (MB)"])
        bench.figure(f"{what}, at most (MB)", log_mb)
        bench.expect(log_mb < _MOST_LOG_MB, f"{what} grew to {log_mb:.1f} MB: the limit is {_MOST_LOG_MB}")


def watch(house: House, until_s: float) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return what each process and each log had, by what and kind, with the time of each look."""
    assert house.process
    pids = {"parent": house.process.pid, **{name: house.pid(name) for name in ("writer", "api", "source.meter-0")}}
    samples: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    while (now_s := time.monotonic()) < until_s:
        for name, pid in pids.items():
            process = psutil.Process(pid)
            memory = process.memory_full_info()
            samples[name, "descriptors"].append((now_s, process.num_fds()))
            samples[name, "threads"].append((now_s, process.num_threads()))
            samples[name, "memory (MB)"].append((now_s, memory.pss / 1e6))
            samples[name, "private memory (MB)"].append((now_s, memory.uss / 1e6))
        for log in ("outbox.db-wal", "history.db-wal"):
            samples[log, "log (MB)"].append((now_s, size_mb(house.data_dir / log)))
        time.sleep(_EVERY_S)
    return samples


def size_mb(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size / 1e6
    return 0.0


def growth(samples: list[tuple[float, float]]) -> float:
    """How much something grew from the first sample to the last, by the straight line that fits best.

    >>> round(growth([(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]), 6)
    4.0
    >>> growth([(0.0, 5.0), (1.0, 9.0), (2.0, 5.0)])
    0.0
    """
    mean_s = sum(at_s for at_s, _ in samples) / len(samples)
    mean = sum(value for _, value in samples) / len(samples)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in samples)
    slope = sum((at_s - mean_s) * (value - mean) for at_s, value in samples) / spread if spread else 0.0
    return slope * (samples[-1][0] - samples[0][0])
