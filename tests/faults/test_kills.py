"""Whatever is killed, and whenever: nothing that was answered is lost, nothing is doubled, every time is true."""

from __future__ import annotations

import datetime
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import House, Oracle, csv_rows, graphite_points, influx_points
from tests.peers.fakes import RecordingCarbon, RecordingInflux
from tests.peers.process import wait_for

DEVICES = [f"esp32-{number}" for number in range(6)]
KILLS = 40  # the fault lab does a thousand, and a hundred of the parent
KILLS_OF_THE_PARENT = 4
CLOCK_SLACK_S = 0.05


@pytest.fixture
def peers() -> Iterator[tuple[RecordingCarbon, RecordingInflux]]:
    with RecordingCarbon() as carbon, RecordingInflux() as influx:
        yield carbon, influx


def outputs(carbon: RecordingCarbon, influx: RecordingInflux) -> str:
    return f"""
[outputs.csv]
[outputs.graphite]
port = {carbon.port}
[outputs.influx]
url = "{influx.url}"
"""


def test_kills_of_worker_and_writer_lose_and_double_nothing(
    tmp_path: Path, peers: tuple[RecordingCarbon, RecordingInflux]
) -> None:
    chance = random.Random(20261120)
    house = House(tmp_path, outputs(*peers), DEVICES).started()
    try:
        oracle = Oracle(house).start()
        kills: Counter[str] = Counter()
        while kills.total() < KILLS:
            time.sleep(chance.uniform(0.02, 0.35))
            victims = chance.choice([["source.meter"], ["writer"], ["source.meter", "writer"]])
            # Both at once counts as one kill: what matters is that neither can clean up after the other.
            pids = [pid for pid in map(house.pid, victims) if pid]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            if len(pids) == len(victims):
                kills["+".join(victims)] += 1
        oracle.finish()
        judge(house, oracle, *peers)
        assert house.stop() == 0
        judge_the_disk(house, oracle)
        print(f"kills {dict(kills)}, readings {len(oracle.posted)}, attempts {oracle.attempts}: 0 lost, 0 doubled")
    finally:
        house.kill()


def test_kills_of_the_parent_lose_and_double_nothing(
    tmp_path: Path, peers: tuple[RecordingCarbon, RecordingInflux]
) -> None:
    chance = random.Random(20261121)
    house = House(tmp_path, outputs(*peers), DEVICES).started()
    try:
        oracle = Oracle(house).start()
        for _ in range(KILLS_OF_THE_PARENT):
            time.sleep(chance.uniform(0.0, 0.5))
            house.kill()
            house.start()
            wait_for(lambda: house.pid("source.meter") and house.pid("writer"), "the house to be back")
        oracle.finish()
        wait_for(house.is_ready, "the last house to be ready")
        judge(house, oracle, *peers)
        assert house.stop() == 0
        judge_the_disk(house, oracle)
    finally:
        house.kill()


def judge(house: House, oracle: Oracle, carbon: RecordingCarbon, influx: RecordingInflux) -> None:
    """Compare what the recording peers got with what the oracle knows."""
    answered = set(oracle.posted)
    for output in ("csv", "graphite", "influx"):
        wait_for(
            lambda output=output: (
                house.metric("wattherd_output_delivered_total", output=output) == len(answered)
                and house.metric("wattherd_output_pending", output=output) == 0
            ),
            f"output {output} to have {len(answered)} readings, no less and no more",
            60,
        )
    points = influx_points([line for request in influx.requests for line in request.lines])
    assert set(points) == answered
    assert all(len(lines) == 1 for lines in points.values()), "one reading, sent again, is the same line"
    for number, lines in points.items():
        (line,) = lines
        assert_time(oracle, number, int(line.rsplit(b" ", 1)[1]) / 1e9)
    whole = graphite_points(carbon.lines)
    assert set(whole) == answered
    assert all(len(lines) == 1 for lines in whole.values())


def judge_the_disk(house: House, oracle: Oracle) -> None:
    """Compare the CSV file, byte by byte, and the outbox's own books with what the oracle knows."""
    rows = csv_rows(house.data_dir / "csv")
    pulses = Counter((row[2], int(row[4])) for row in rows if row[3] == "pulses")
    assert pulses == Counter(dict.fromkeys(oracle.posted, 1))
    # A pulse is a watt-hour, and the register begins with the first: whoever was killed, it is always right.
    registers = Counter((row[2], float(row[4]) + 1) for row in rows if row[3] == "energy_wh")
    assert registers == Counter(dict.fromkeys(oracle.posted, 1))
    power = Counter(row[2] for row in rows if row[3] == "power_w")
    assert power == Counter(device for device, _ in oracle.posted)
    for row in rows:
        if row[3] == "pulses":
            assert_time(oracle, (row[2], int(row[4])), datetime.datetime.fromisoformat(row[0]).timestamp())
    balance = house.balance()
    assert set(balance) == {"csv", "graphite", "influx"}
    for output, numbers in balance.items():
        assert numbers.holds, (output, numbers)
        assert numbers.accepted == numbers.delivered == len(oracle.posted), (output, numbers)


def assert_time(oracle: Oracle, number: tuple[str, int], time_s: float) -> None:
    posted = oracle.posted[number]
    assert posted.first_s - CLOCK_SLACK_S <= time_s <= posted.answered_s + CLOCK_SLACK_S, (number, posted, time_s)
