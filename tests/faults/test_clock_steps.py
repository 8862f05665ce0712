"""The whole house while somebody turns the wall clock: every reading gets the true time, and no energy is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import csv_rows
from tests.faults.turned import TurnedHouse
from tests.peers.process import wait_for

HOUR = 3600 * 10**9
YEAR = 365 * 24 * HOUR
SLACK_S = 0.5


@pytest.fixture
def turned(tmp_path: Path) -> Iterator[TurnedHouse]:
    turned = TurnedHouse(tmp_path, "require_sync = true")
    yield turned
    turned.house.kill()


def test_a_boot_without_a_clock_holds_what_it_measures_and_dates_it_afterwards(turned: TurnedHouse) -> None:
    """A Pi has no battery: it wakes up in 1970, or where it was switched off, until the network tells the time."""
    turned.clock.turn(-56 * YEAR, is_set=False)
    house = turned.house
    house.start()
    wait_for(lambda: house.metric("wattherd_process_up", process="api"), "the api")
    turned.post(5)
    wait_for(lambda: house.metric("wattherd_writer_held_records") == 5, "the readings to be held")
    assert csv_rows(house.data_dir / "csv") == []
    wait_for(lambda: house.metric("wattherd_clock_synchronised") == 0, "the clock to be shown as not set")
    turned.clock.turn(0, is_set=True)
    turned.has(5)
    turned.post(2)
    turned.has(7)
    for number, (at_s, clock) in turned.rows().items():
        assert abs(at_s - turned.posted[number]) < SLACK_S, number
        assert clock == ("restamped" if number <= 5 else "synced"), number
    wait_for(lambda: house.metric("wattherd_clock_steps_total") == 0, "no step: nobody had believed the clock before")
    assert list(turned.rows("energy_wh")) == [0, 1, 2, 3, 4, 5, 6]


def test_a_boot_that_never_learns_the_time_lets_go_after_the_limit_and_says_so(tmp_path: Path) -> None:
    turned = TurnedHouse(tmp_path, "require_sync = true\nhold_at_most_s = 2")
    try:
        turned.clock.turn(-HOUR, is_set=False)
        turned.house.start()
        wait_for(lambda: turned.house.metric("wattherd_process_up", process="api"), "the api")
        turned.post(3)
        turned.has(3)
        for number, (at_s, clock) in turned.rows().items():
            assert clock == "unsynced"
            assert abs(at_s + 3600 - turned.posted[number]) < SLACK_S
    finally:
        turned.house.kill()


@pytest.mark.parametrize("step", [HOUR, -20 * YEAR])  # the fault lab turns it forty times
def test_a_step_is_counted_and_followed_and_costs_no_energy(turned: TurnedHouse, step: int) -> None:
    turned.clock.turn(step, is_set=True)
    house = turned.house.started()
    turned.post(3)
    turned.has(3)
    turned.clock.turn(0, is_set=True)
    wait_for(lambda: house.metric("wattherd_clock_steps_total") == 1, "the step to be seen")
    turned.post(3)
    turned.has(6)
    for number, (at_s, _) in turned.rows().items():
        wrong_s = step / 1e9 if number <= 3 else 0
        assert abs(at_s - wrong_s - turned.posted[number]) < SLACK_S, number
    # The register and every duration live on the monotonic clock: whatever the date was, no energy came or went.
    registers = [float(row[4]) for row in csv_rows(house.data_dir / "csv") if row[3] == "energy_wh"]
    assert sorted(registers) == [0, 7, 14, 21, 28, 35]
    assert house.is_ready()


def test_a_smeared_leap_second_is_followed_and_is_no_step(turned: TurnedHouse) -> None:
    """Time servers spread the extra second over a day; here over a second and a half, in parts that a slew could do."""
    turned.clock.turn(0, is_set=True)
    house = turned.house.started()
    for part in range(1, 31):
        turned.clock.turn(-part * 10**9 // 30, is_set=True)
        if part % 10 == 0:
            turned.post(1)
        time.sleep(0.05)
    turned.has(3)
    for number, (at_s, clock) in turned.rows().items():
        assert -1 - SLACK_S < at_s - turned.posted[number] < SLACK_S
        assert clock == "synced"
    wait_for(lambda: house.metric("wattherd_clock_steps_total") == 0, "no step to be counted")
