"""The disk is full at every stage of a house: at its first start, at work, at a kill, at its end, with damage found."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.faults.house import House
from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import Rig, rig
from tests.faults.lab.small_disk import Filler, small_disk
from tests.peers.process import wait_for

PROMISE = "a full disk stops nothing for ever: nothing that was answered is lost, and service goes on by itself"
_FULL_FOR_S = 3.0
_SERVES_AFTER_S = 10.0
_RESERVE_MB = 1.5


def run(bench: Bench) -> None:
    # The smallest disk has room for no history, which wants some megabytes for a log of its own.
    for megabytes, outputs in ((8, ("csv", "graphite", "influx")), (32, ("csv", "graphite", "history", "influx"))):
        place = bench.directory / f"{megabytes}"
        with (
            small_disk(place, megabytes) as disk,
            rig(
                bench,
                outputs=outputs,
                data_dir=disk / "var",
                starts=False,
                pause_s=0.1,  # the files grow too, and are not to fill the disk themselves
                writer=f"outbox_reserve_mb = {_RESERVE_MB}",
                directory=place / "house",
            ) as made,
        ):
            go_through(bench, made, Filler(disk))


def go_through(bench: Bench, made: Rig, filler: Filler) -> None:
    stages = [at_the_first_start, at_work, at_work_slowly, at_a_kill, over_a_restart, over_a_kill_of_all]
    for _ in range(bench.times(3)):
        for stage in stages:
            stage(made, filler)
            recovers(made, filler, stage)
        stages = stages[1:]
    made.settle(120)
    made.judge()


def at_the_first_start(made: Rig, filler: Filler) -> None:
    filler.fill()
    made.house.start()
    made.oracle.start()
    wait_for(lambda: "No space" in made.house.log, "the house to find no room", 60)
    time.sleep(_FULL_FOR_S)


def at_work(made: Rig, filler: Filler) -> None:
    before = len(made.oracle.posted)
    filler.fill()
    time.sleep(_FULL_FOR_S)
    made.bench.expect(len(made.oracle.posted) > before + 10, "the reserve took nothing while the disk was full")


def at_work_slowly(made: Rig, filler: Filler) -> None:
    """Full but for some kilobytes, over and over: whatever is written next is what does not fit."""
    for _ in range(6):
        filler.fill(made.bench.chance.randrange(40_000))
        time.sleep(_FULL_FOR_S / 6)


def at_a_kill(made: Rig, filler: Filler) -> None:
    filler.fill()
    for name in ("writer", "source.meter-0", "writer"):
        time.sleep(_FULL_FOR_S / 3)
        if pid := made.house.pid(name):
            os.kill(pid, signal.SIGKILL)


def over_a_restart(made: Rig, filler: Filler) -> None:
    filler.fill()
    made.bench.expect(made.house.stop() == 0, "the house did not stop well on a full disk")
    filler.fill()
    made.house.start()
    wait_for(lambda: made.house.pid("writer"), "the house to start on a full disk", 60)
    time.sleep(_FULL_FOR_S)


def over_a_kill_of_all(made: Rig, filler: Filler) -> None:
    filler.fill()
    made.house.kill()
    filler.fill()
    made.house.start()
    time.sleep(_FULL_FOR_S)


def recovers(made: Rig, filler: Filler, stage: Callable[[Rig, Filler], None]) -> None:
    """Give the disk back, and wait until readings are accepted and delivered again."""
    bench, house = made.bench, made.house
    assert house.process
    what = stage.__name__.replace("_", " ")
    status = house.process.poll()
    # Where there never was a house nothing can be begun; whoever supervises it tries again for any status but 2.
    expected = (None, 1) if stage is at_the_first_start else (None,)
    bench.expect(status in expected, f"{what}: the house ended with {status}; its log: {house.log_path}")
    filler.give_back()
    if status is not None:
        house.start()
    began_s = time.monotonic()
    delivered = dict.fromkeys(made.outputs, -1.0)
    for _ in range(2):
        for output, before in delivered.items():
            delivered[output] = wait_for(
                lambda output=output, before=before: more_than(house, output, before),
                f"{what}: {output} to get readings again; log: {house.log_path}",
                90,
            )
    name = f"serves again after a disk full {what}, at the latest (s)"
    took_s = time.monotonic() - began_s
    bench.figure(name, max(float(bench.sheet.figures.get(name, 0.0)), took_s))
    bench.expect_within(took_s, _SERVES_AFTER_S, f"to serve again ({what})")


def more_than(house: House, output: str, before: float) -> float | None:
    delivered = house.metric("wattherd_output_delivered_total", output=output)
    return delivered + 1e-9 if delivered is not None and delivered > before else None
