"""A house whose disk is full starts all the same, and gives no number twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervise.instance import Incarnations, NoPlace, lock
from tests.faults.house import House
from tests.faults.lab.small_disk import Filler, small_disk
from tests.peers.process import wait_for


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, 12) as place:
        yield place


def test_numbers_of_starts_rise_also_where_there_is_no_room_for_a_new_file(disk: Path) -> None:
    first = next(Incarnations(disk))
    Filler(disk).fill()
    some = Incarnations(disk)
    numbers = [next(some) for _ in range(2500)]
    assert numbers == sorted({first, *numbers})[1:]
    assert next(Incarnations(disk)) > numbers[-1]


def test_the_lock_of_a_house_is_had_on_a_full_disk_and_says_whose_it_is(disk: Path) -> None:
    os.close(lock(disk, 0.0))
    Filler(disk).fill()
    os.close(lock(disk, 0.0))
    assert (disk / "wattherd.lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(NoPlace, match=r"No space left on device.*free some space"):
        lock(disk / "new", 0.0)


def test_a_house_that_was_stopped_starts_on_a_full_disk_and_takes_readings(disk: Path, tmp_path: Path) -> None:
    """At boot nobody is there to make room, and a start that is refused as a mistake would not be tried again."""
    house = House(tmp_path / "house", "[outputs.csv]\n", ["a"], data_dir=disk / "var", writer="outbox_reserve_mb = 2")
    try:
        house.started()
        assert house.post({"device": "a", "pulses_total": 1})[0] == 200
        assert house.stop() == 0
        Filler(disk).fill()
        house.start()
        wait_for(
            lambda: house.pid("writer") and house.metric("wattherd_writer_commits_total") is not None, "the writer"
        )
        for number in range(2, 20):
            assert house.post({"device": "a", "pulses_total": number})[0] == 200
        wait_for(
            lambda: house.metric("wattherd_output_accepted_total", output="csv") == 19, "all of it to be committed"
        )
        assert "Traceback" not in house.log
        Filler(disk).give_back()
        wait_for(lambda: house.metric("wattherd_output_delivered_total", output="csv") == 19, "the file", 60)
        assert house.stop() == 0
    finally:
        house.kill()
