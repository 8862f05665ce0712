"""The source `mqtt` in a whole house: whatever is killed, each message is booked once, and the others do not notice."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from tests.faults.house import House, csv_rows
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.process import wait_for
from tests.workers.broker_bench import STATE, Esp32, pulses

KILLS = 8
WORST_GAP_S = 5.0  # a source that is held up by a broker that hangs is held up for 20 s


def source(broker: Mosquitto, more: str = "") -> str:
    return f"""
[outputs.csv]
[sources.broker]
kind = "mqtt"
port = {broker.port}
status_topic = "house/status"
{more}
[[sources.broker.devices]]
name = "house"
dialect = "esp32"
topic = "esp32-meter"
"""


def test_kills_of_worker_and_writer_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261120)
    (tmp_path / "broker").mkdir()
    # The device has no clock: a worker that is back within a minute still knows that nothing is older.
    with running_mosquitto(tmp_path / "broker") as broker:
        house = House(tmp_path / "house", source(broker, "stale_after_s = 60"), ["unused"]).started()
        try:
            with broker.watch("house/status") as seen:
                wait_for(lambda: seen, "the source to be there")
            esp32 = Esp32(broker)
            kills: Counter[str] = Counter()
            while kills.total() < KILLS:
                before = esp32.published
                wait_for(lambda before=before: esp32.published > before + 3, "messages")  # type: ignore[misc]
                time.sleep(chance.uniform(0.0, 0.1))
                victims = chance.choice([["source.broker"], ["source.broker"], ["source.broker", "writer"]])
                pids = [pid for pid in map(house.pid, victims) if pid]
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                if len(pids) == len(victims):
                    kills["+".join(victims)] += 1
            esp32.finish()
            wait_for(
                lambda: house.metric("wattherd_output_delivered_total", output="csv") == esp32.published,
                f"{esp32.published} readings, no less and no more",
                60,
            )
            assert house.stop() == 0
        finally:
            house.kill()
    numbers = [int(row[4]) for row in csv_rows(house.data_dir / "csv") if row[3] == "pulses"]
    assert Counter(numbers) == Counter(range(1, esp32.published + 1))
    print(f"kills {dict(kills)}, messages {esp32.published}: 0 lost, 0 doubled")


def test_a_broker_that_hangs_and_dies_is_not_noticed_by_the_others(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    other = '[sources.other]\nkind = "simulated"\ninterval_s = 0.1\n'
    other += '[[sources.other.devices]]\nname = "other"\nload = "fridge"\n'
    with running_mosquitto(tmp_path / "broker") as broker:
        house = House(tmp_path / "house", other + source(broker), ["unused"]).started()
        try:
            with broker.watch("house/status") as seen:
                wait_for(lambda: seen, "the source to be there")
            broker.publish(STATE, pulses(1))
            wait_for(lambda: number_of(house, "broker") == 1, "the first reading")
            broker.pause()
            hung = number_of(house, "other")
            wait_for(lambda: number_of(house, "other") > hung + 20, "twenty readings of the other")
            broker.stop(signal.SIGKILL)
            wait_for(lambda: "closed the connection" in house.log, "the source to tell it")
            died = number_of(house, "other")
            wait_for(lambda: number_of(house, "other") > died + 5, "five more")
            broker.start()
            broker.publish(STATE, pulses(2))
            wait_for(lambda: broker_is_back(house, broker), "the source to be back", 30)
            assert house.stop() == 0
        finally:
            house.kill()
    rows = csv_rows(house.data_dir / "csv")
    times = sorted({datetime.datetime.fromisoformat(row[0]).timestamp() for row in rows if row[2] == "other"})
    gaps = [after - before for before, after in itertools.pairwise(times)]
    print(f"{len(times)} readings of the other source, the longest gap {max(gaps):.3f} s")
    assert max(gaps) < WORST_GAP_S


def number_of(house: House, name: str) -> int:
    """How many readings a source has returned."""
    return int(house.metric("wattherd_source_readings_total", source=name) or 0)


def broker_is_back(house: House, broker: Mosquitto) -> bool:
    """Whether a reading gets through again."""
    broker.publish(STATE, pulses(3))
    return number_of(house, "broker") >= 2
