"""The PZEM source and the real driver, against a strict line on a pseudo-terminal: answers, good and bad."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workers.pzem
from reading import METRICS
from tests.workers.pzem_line import ac_device, dc_device, line, options
from tests.workers.pzem_slave import (
    Mood,
    Unit,
    ac,
    as_unit,
    bad_crc,
    cut,
    dc,
    echo_alone,
    echoed,
    frame,
    garbage_before,
    late,
    refuse,
    say,
    silent,
)
from workers import source_class
from workers._modbus import Fault
from workers._pzem_unit import Device
from workers.pzem import Options, Pzem

ROOT = Path(__file__).parents[2]


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-adapter"


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.pzem.__doc__ or "").splitlines() if line.startswith("    "))
    table = tomllib.loads(text)["sources"]["shunts"]
    assert {*table} == {*Options.__struct_fields__}
    assert {*table["devices"][0]} == {*Device.__struct_fields__}
    shown = msgspec.convert(table, Options)
    needed = {"kind": "pzem", "port": shown.port, "devices": [dc_device(1, name="battery")]}
    assert shown == msgspec.convert(needed, Options)
    assert source_class("pzem") is Pzem


@pytest.mark.parametrize(
    ("devices", "change", "words"),
    [
        ([], {}, "no device is configured"),
        ([dc_device(1)], {"port": ""}, "no port is configured"),
        ([dc_device(1)], {"port": "COM3"}, "'COM3' is no port"),
        ([dc_device(1)], {"ports": ["usb:12"]}, "'usb:12' is no port"),
        ([dc_device(1), ac_device(1)], {}, "dc1 and ac1 both have unit 1: two units with one address disturb"),
        ([dc_device(1), dc_device(2, name="dc1")], {}, "dc1 is configured twice"),
        ([dc_device(1, shunt_a=0)], {}, "say which shunt is fitted, shunt_a = 50, 100, 200 or 300"),
        ([dc_device(1, shunt_a=75)], {}, "shunt_a"),
        ([ac_device(1, shunt_a=100)], {}, "leave out shunt_a"),
        ([ac_device(1, silent_when_dark=True)], {}, "leave out silent_when_dark"),
        ([dc_device(0)], {}, "unit"),
        ([dc_device(248)], {}, "unit"),
        ([dc_device(1, model="018")], {}, "model"),
        ([dc_device(1)], {"pause_ms": 4}, "less than 3.5 characters: at least 4.01"),
        ([dc_device(1)], {"round_budget_s": 3, "interval_s": 2}, "longer than interval_s"),
        ([dc_device(1)], {"stop_bits": 3}, "stop_bits"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(
    devices: list[dict[str, Any]], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        options(*devices, **change)


def test_no_driver_is_imported_before_a_port_is_opened() -> None:
    program = "import sys, workers.pzem, commands.pzem; print(*{'serial', 'minimalmodbus'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_one_round_reads_every_unit_with_the_frames_of_the_manual(link: Path) -> None:
    units = {1: dc(1, watts=434.7), 2: ac(2), 5: dc(5, 48.21, 150.0, 6818.4, 1_000_000, shunt=2)}
    devices = [dc_device(1), ac_device(2), dc_device(5, shunt_a=200)]
    with line(link, units, *devices) as house:
        shown = house.round()
        assert house.slave.requests == [
            frame("01 03 00 00 00 04"),
            frame("01 04 00 00 00 08"),
            frame("02 04 00 00 00 0a"),
            frame("05 03 00 00 00 04"),
            frame("05 04 00 00 00 08"),
        ]
        house.slave.requests.clear()
        assert house.round() == shown
        assert [request[:2].hex() for request in house.slave.requests] == ["0104", "0204", "0504"]
        assert house.slave.stop_bits == 2
    assert shown == {
        "dc1": {"voltage_v": 12.6, "current_a": 3.45, "power_w": 434.7, "device_energy_wh": 100_000},
        "ac2": {
            "voltage_v": 230.4,
            "current_a": 5.217,
            "power_w": 1141.9,
            "device_energy_wh": 100_000,
            "frequency_hz": 50.0,
            "power_factor": 0.95,
        },
        "dc5": {"voltage_v": 48.21, "current_a": 150.0, "power_w": 6818.4, "device_energy_wh": 1_000_000},
    }
    assert shown["ac2"].keys() <= METRICS
    assert not house.troubles


def test_a_line_of_ac_units_alone_has_one_stop_bit(link: Path) -> None:
    with line(link, {2: ac(2)}, ac_device(2)) as house:
        assert house.round()
        assert house.slave.stop_bits == 1


def test_ten_units_are_read_in_one_round(link: Path) -> None:
    units = {n: dc(n) if n % 2 else ac(n) for n in range(1, 11)}
    devices = [dc_device(n) if n % 2 else ac_device(n) for n in range(1, 11)]
    with line(link, units, *devices, interval_s=2.0, pause_ms=20, timeout_s=0.3) as house:
        assert len(house.round()) == 10
        before = house.source.bus.transactions
        assert len(house.round()) == 10
        assert house.source.bus.transactions - before == 10


def test_a_dead_unit_costs_one_probe_and_the_others_go_on(link: Path) -> None:
    units = {1: dc(1), 2: ac(2), 3: dc(3)}
    with line(link, units, dc_device(1), ac_device(2), dc_device(3)) as house:
        house.round()
        units[2].present = False
        probes = []
        for _ in range(70):
            before = len(house.slave.asked(2))
            assert house.round().keys() == {"dc1", "dc3"}
            probes.append(len(house.slave.asked(2)) - before)
        assert max(probes) == 1
        # 0, 2, 4, 8, 16, 32, 62 and 122 s after the first: pauses of 1, 2, 4, 8 … seconds on a grid of two
        assert [2 * at for at, asked in enumerate(probes) if asked] == [0, 2, 4, 8, 16, 32, 64, 124]
        assert house.troubles.keys() == {"ac2"}
        assert "unit 2 does not answer; check the A and B wires, its 5 V supply" in house.troubles["ac2"]
        assert "./orchestrator.py pzem scan" in house.troubles["ac2"]
        assert house.source.units[1].faults == {Fault.SILENT: 8}
        units[2].present = True
        assert house.round(60).keys() == {"dc1", "ac2", "dc3"}
        assert not house.troubles
        assert house.asks(2) == 1


def test_a_unit_that_never_answered_is_told_at_once_and_one_that_missed_once_is_not(link: Path) -> None:
    with line(link, {1: dc(1)}, dc_device(1), ac_device(9)) as house:
        house.round()
        assert "unit 9 does not answer" in house.troubles["ac9"]
        house.slave.next_moods[1].append(silent)
        assert house.round() == {}
        assert house.troubles.keys() == {"ac9"}
        assert house.round().keys() == {"dc1"}


@pytest.mark.parametrize(
    ("mood", "fault", "words"),
    [
        (bad_crc, Fault.DAMAGED, "the answer of unit 2 is damaged: its checksum is wrong"),
        (cut, Fault.CUT, "the answer of unit 2 ends too early"),
        (garbage_before, Fault.NOISE, "what comes from unit 2 is no answer"),
        (say(b"\x02\x04\x00\x00\x00"), Fault.DAMAGED, "damaged"),
        (as_unit(7), Fault.WRONG_UNIT, "unit 7 answers where unit 2 was asked; raise timeout_s"),
        (refuse(2), Fault.REFUSED, "unit 2 refuses what it is asked: it has no such register; check its model"),
        (refuse(4), Fault.REFUSED, "unit 2 refuses what it is asked: it failed at it"),
        (echoed, Fault.ECHO, "the adapter sends back what it is sent; set local_echo = true"),
        (echo_alone, Fault.ECHO, "the adapter sends back what it is sent; set local_echo = true"),
    ],
)
def test_each_kind_of_bad_answer_has_words_of_its_own(link: Path, mood: Mood, fault: Fault, words: str) -> None:
    with line(link, {1: dc(1), 2: ac(2), 3: dc(3)}, dc_device(1), ac_device(2), dc_device(3)) as house:
        house.slave.moods[2] = mood
        for _ in range(2):
            assert house.round(60).keys() == {"dc1", "dc3"}
        assert words in house.troubles["ac2"]
        assert {*house.source.units[1].faults} == {fault}
        assert house.source.refused["malformed"] == (
            0 if fault is Fault.REFUSED else house.source.units[1].faults[fault]
        )
        house.slave.moods.clear()
        assert house.round(60).keys() == {"dc1", "ac2", "dc3"}
        assert not house.troubles


def test_a_damaged_answer_is_asked_for_again_in_the_same_round(link: Path) -> None:
    with line(link, {1: dc(1)}, dc_device(1)) as house:
        house.round()
        house.slave.next_moods[1].append(bad_crc)
        assert house.asks(1) == 2
        assert not house.troubles
        assert house.source.refused == {"malformed": 1}


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_unit(link: Path) -> None:
    units = {1: dc(1, 11.0), 2: dc(2, 22.0)}
    with line(link, units, dc_device(1), dc_device(2), retries=2) as house:
        house.round()
        house.slave.next_moods[1].append(late(0.16))  # the timeout is 0.15 s
        assert house.round()["dc2"]["voltage_v"] == 22.0
        shown = house.round()
        assert (shown["dc1"]["voltage_v"], shown["dc2"]["voltage_v"]) == (11.0, 22.0)


def test_the_next_unit_is_asked_only_when_a_chattering_one_is_quiet(link: Path) -> None:
    units = {1: ac(1), 2: ac(2)}
    with line(link, units, ac_device(1), ac_device(2), retries=0, pause_ms=50, timeout_s=0.4) as house:
        house.slave.moods[1] = lambda *_: [(0.008 * n, b"\xff" * 25) for n in range(12)]
        house.slave.moods[2] = late(0.06)
        assert house.round().keys() == {"ac2"}
        assert [unit.faults for unit in house.source.units] == [{Fault.NOISE: 1}, {}]


def test_a_line_that_is_bad_in_changing_ways_is_one_trouble(link: Path) -> None:
    with line(link, {1: ac(1)}, ac_device(1)) as house:
        house.slave.moods[1] = bad_crc
        house.round()
        words = house.troubles["ac1"]
        for mood in (cut, garbage_before, bad_crc):
            house.slave.moods[1] = mood
            house.round(60)
            assert house.troubles["ac1"] == words


def test_a_unit_that_often_answers_badly_is_a_trouble_although_it_is_read(link: Path) -> None:
    with line(link, {1: ac(1)}, ac_device(1)) as house:
        for _ in range(25):
            house.slave.next_moods[1].append(bad_crc)
            assert house.round()
        assert "one answer of unit 1 in five is bad" in house.troubles["ac1"]
        for _ in range(100):
            house.round()
        assert not house.troubles


def test_an_adapter_that_echoes_works_when_the_configuration_says_so(link: Path) -> None:
    with line(link, {1: dc(1)}, dc_device(1), local_echo=True) as house:
        house.slave.moods[1] = echoed
        assert house.round().keys() == {"dc1"}
        del house.slave.moods[1]
        house.round()
        house.round()
        assert "set local_echo = false" in house.troubles["dc1"]


@pytest.mark.parametrize(
    ("unit", "device", "words"),
    [
        (dc(1, volts=351), dc_device(1), "voltage_v 351 is not within 0 and 350"),
        (dc(1, amperes=130), dc_device(1), "current_a 130 is not within 0 and 120"),
        (dc(1, amperes=13), dc_device(1, rated_current_a=10), "current_a 13 is not within 0 and 12"),
        (dc(1, watts=5000), dc_device(1), "power_w 5000 is not within"),
        (dc(1, wh=0xFFFFFFFF), dc_device(1), "device_energy_wh"),
        (ac(1, hertz=0), ac_device(1), "frequency_hz 0 is not within 45 and 65"),
        (ac(1, volts=20), ac_device(1), "voltage_v 20 is not within 80 and 280"),
    ],
)
def test_what_cannot_be_is_refused_counted_and_never_clamped(
    link: Path, unit: Unit, device: dict[str, Any], words: str
) -> None:
    with line(link, {1: unit, 2: ac(2)}, device, ac_device(2)) as house:
        for _ in range(2):
            assert house.round().keys() == {"ac2"}
        assert words in house.troubles[device["name"]]
        assert house.source.refused == {"out_of_range": 2}
        house.slave.units[1] = dc(1) if "shunt_a" in device else ac(1)
        assert house.round().keys() == {device["name"], "ac2"}
        assert not house.troubles


def test_the_alarms_of_a_unit_are_troubles_and_its_readings_go_on(link: Path) -> None:
    units = {1: dc(1, alarms=(True, False)), 2: ac(2, alarm=True)}
    with line(link, units, dc_device(1), ac_device(2)) as house:
        assert house.round().keys() == {"dc1", "ac2"}
        assert "unit 1 warns: its high-voltage alarm is on" in house.troubles["dc1"]
        assert "unit 2 warns: its power alarm is on" in house.troubles["ac2"]
        units[2].inputs[9] = 0
        house.round()
        assert house.troubles.keys() == {"dc1"}


def test_a_calibration_is_applied_to_current_and_power(link: Path) -> None:
    with line(link, {1: dc(1)}, dc_device(1, current_gain=1.02, current_offset_a=0.05)) as house:
        shown = house.round()["dc1"]
    assert shown["current_a"] == pytest.approx((3.45 - 0.05) * 1.02)
    assert shown["power_w"] == pytest.approx(43.4 * 3.40 * 1.02 / 3.45, abs=0.01)
    assert shown["device_energy_wh"] == 100_000


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=3))
def test_whatever_comes_over_the_line_the_others_are_read(tmp_path: Path, noise: list[bytes]) -> None:
    with line(tmp_path / "x", {1: ac(1), 2: ac(2)}, ac_device(1), ac_device(2), timeout_s=0.1, retries=3) as house:
        house.slave.next_moods[1].extend(say(one) for one in noise)
        shown = house.round()
        assert shown["ac2"]["power_w"] == 1141.9
        assert shown.get("ac1", shown["ac2"]) == shown["ac2"]
