"""Pulses on the kernel's own GPIO character device: each is counted once, whatever happens to whoever reads them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpiod
import msgspec
import pytest

from reading import Quality, Reading
from tests.faults.house import House
from tests.peers.process import wait_for
from tests.virtual_hardware.devices import SimulatedChip, patient_house, values_of
from workers import SourceError
from workers._gpio import Line
from workers._gpio_chip import ChipEdges
from workers.pulse import Options, Pulse

LINE = 20
PULSE_S = 0.004  # longer than the shortest that is one
BUFFER = 1024  # what the kernel grants at most


def options(chip: SimulatedChip, **changes: Any) -> Options:
    device = {"name": "import", "output": "led", "max_power_w": 400_000, "min_pulse_ms": 2, "min_interval_ms": 1}
    table = {"kind": "pulse", "priority": 0, "chip": chip.path, "events": False, "report_interval_s": 0.1}
    return msgspec.convert({**table, "devices": [device | changes]}, Options)


@contextlib.contextmanager
def opened(table: Options) -> Iterator[Pulse]:
    source = Pulse("pulse", table)
    source.open()
    try:
        yield source
    finally:
        source.close()
        for descriptor in source.kept.values():
            os.close(descriptor)


@contextlib.contextmanager
def requested(chip: str, *, both: bool = False) -> Iterator[ChipEdges]:
    edges = ChipEdges(chip, [Line(LINE, "falling", both=both, bias="pull_up", active_low=False)], "test")
    edges.open()
    try:
        yield edges
    finally:
        os.close(edges.descriptor)


def counted(source: Pulse, wanted: int) -> list[Reading]:
    """Read until so many pulses are counted, and twice more for those that nobody wants; return all reports."""
    reports: list[Reading] = []

    def read() -> bool:
        reports.extend(one for one in source.read() if "pulses" in one.values)
        return bool(reports) and pulses(reports) >= wanted

    wait_for(read, f"{wanted} pulses", within_s=60)
    for _ in range(2):
        time.sleep(0.15)
        read()
    return reports


def pulses(reports: list[Reading]) -> int:
    return int(reports[-1].values["pulses"])


def test_each_pulse_is_an_event_with_the_time_at_which_it_was(chip: SimulatedChip) -> None:
    with requested(chip.path) as edges:
        before_ns = time.monotonic_ns()
        chip.pulse(LINE, 10)
        after_ns = time.monotonic_ns()
        seen = edges.take()
    times = [edge.at_ns for edge in seen]
    assert [edge.number for edge in seen] == [*range(1, 11)]
    assert times == sorted(times)
    assert before_ns <= times[0] <= times[-1] <= after_ns


def test_the_chip_of_a_raspberry_pi_is_found_by_its_label(chip: SimulatedChip) -> None:
    with requested("auto") as edges:
        chip.pulse(LINE, 3)
        assert len(edges.take()) == 3


def test_a_hundred_pulses_are_a_hundred(chip: SimulatedChip) -> None:
    with opened(options(chip)) as source:
        source.read()
        chip.pulse(LINE, 100, low_s=PULSE_S, high_s=PULSE_S)
        reports = counted(source, 100)
    assert pulses(reports) == 100
    assert reports[-1].values["device_energy_wh"] == 100.0
    assert {report.quality for report in reports} == {Quality.MEASURED}


def test_what_the_kernel_had_no_room_for_is_counted_by_the_numbers_of_the_edges(chip: SimulatedChip) -> None:
    """Nobody reads for far longer than the kernel's buffer lasts: the oldest edges are gone, the count is not."""
    with opened(options(chip)) as source:
        chip.pulse(LINE, 900, low_s=0.0021, high_s=0.001)  # two edges each
        reports = counted(source, 900)
        lost = source.lost_edges
    assert pulses(reports) == 900
    assert lost == 2 * 900 - BUFFER
    assert reports[0].quality is Quality.ESTIMATED


def test_a_line_that_another_program_has_is_named_with_that_program(chip: SimulatedChip) -> None:
    wanted = {LINE: gpiod.LineSettings(direction=gpiod.line.Direction.INPUT)}
    with (
        gpiod.request_lines(chip.path, config=wanted, consumer="emonhub"),
        pytest.raises(SourceError, match="line 20 is in use by emonhub"),
        opened(options(chip)),
    ):
        pass


def test_a_chip_that_goes_away_is_told_and_comes_back(chip: SimulatedChip) -> None:
    source = Pulse("pulse", options(chip))
    source.open()
    chip.pulse(LINE, 5, low_s=PULSE_S, high_s=PULSE_S)
    assert pulses(counted(source, 5)) == 5
    chip.unplug()
    with pytest.raises(SourceError, match="the GPIO chip went away"):
        for _ in range(5):
            source.read()
    source.close()
    chip.plug_in()
    source.options = options(chip)  # it may have another number now
    source.open()
    chip.pulse(LINE, 5, low_s=PULSE_S, high_s=PULSE_S)
    assert pulses(counted(source, 10)) == 10
    source.close()


def test_a_bouncing_contact_makes_one_pulse(chip: SimulatedChip) -> None:
    """With times that a slow machine keeps too: each pulse is preceded by four that are too short to be one."""
    with opened(options(chip, max_power_w=5_000, min_pulse_ms=150, min_interval_ms=300)) as source:
        source.read()
        for _ in range(5):
            chip.pulse(LINE, 4)
            chip.pulse(LINE, 1, low_s=0.3, high_s=0.3)
        reports = counted(source, 5)
    assert pulses(reports) == 5
    assert source.refused["bounce"] > 0


@pytest.fixture
def house(chip: SimulatedChip, tmp_path: Path) -> Iterator[House]:
    table = f"""
[outputs.csv]
[sources.pulse]
kind = "pulse"
chip = "{chip.path}"
report_interval_s = 0.2
[[sources.pulse.devices]]
name = "import"
output = "led"
max_power_w = 400000
min_pulse_ms = 2
min_interval_ms = 1
"""
    with patient_house(tmp_path, table) as found:
        yield found


def pulses_in(house: House) -> int:
    return max(map(int, map(float, values_of(house, "pulse", "import", "pulses"))), default=0)


def test_a_house_counts_what_comes_while_its_pulse_worker_is_dead(chip: SimulatedChip, house: House) -> None:
    """Twenty murders of the pulse worker, pulses before, during and after: all are counted, none twice."""
    sent = 0
    for _ in range(20):
        worker = wait_for(lambda: house.pid("source.pulse"), "a pulse worker", within_s=60)
        chip.pulse(LINE, 5, low_s=PULSE_S, high_s=PULSE_S)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        chip.pulse(LINE, 10, low_s=PULSE_S, high_s=PULSE_S)
        sent += 15
        wait_for(lambda before=worker: house.pid("source.pulse") not in (None, before), "its successor", within_s=60)
    wait_for(lambda: pulses_in(house) >= sent, f"{sent} pulses in the file", within_s=90)
    assert house.stop(within_s=60) == 0
    assert pulses_in(house) == sent
    assert "Traceback" not in house.log


def test_a_worker_that_stands_still_loses_no_pulse(chip: SimulatedChip, house: House) -> None:
    worker = wait_for(lambda: house.pid("source.pulse"), "a pulse worker", within_s=60)
    os.kill(worker, signal.SIGSTOP)
    chip.pulse(LINE, 200, low_s=PULSE_S, high_s=PULSE_S)
    os.kill(worker, signal.SIGCONT)
    wait_for(lambda: pulses_in(house) >= 200, "200 pulses in the file", within_s=90)
    assert house.stop(within_s=60) == 0
    assert pulses_in(house) == 200
