"""The PZEM source: shunts, models, silence that is none, and the time that a round has."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.workers.pzem_line import ac_device, dc_device, line
from tests.workers.pzem_slave import ac, dc, frame


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-adapter"


# Shunts


def test_another_shunt_than_configured_is_a_trouble_and_its_amperes_are_left_out(link: Path) -> None:
    with line(link, {1: dc(1, shunt=1), 2: dc(2)}, dc_device(1), dc_device(2)) as house:
        shown = house.round()
        assert shown["dc1"] == {"voltage_v": 12.6}
        assert shown["dc2"]["current_a"] == 3.45
        assert "unit 1 is set to a shunt of 50 A, the configuration says 100 A" in house.troubles["dc1"]
        assert "./orchestrator.py pzem set-shunt 1 100" in house.troubles["dc1"]
        assert house.slave.units[1].holdings[3] == 1
        assert all(request[1] in (3, 4) for request in house.slave.requests)
        house.source.close()
        house.slave.units[1].holdings[3] = 0
        house.source.open()
        assert house.round()["dc1"]["current_a"] == 3.45
        assert not house.troubles


def test_a_shunt_code_that_nobody_knows_is_named(link: Path) -> None:
    with line(link, {1: dc(1, shunt=9)}, dc_device(1)) as house:
        house.round()
        assert "a shunt of an unknown kind (code 9)" in house.troubles["dc1"]


def test_shunt_codes_are_written_only_where_wished_and_read_back(link: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with line(link, {1: dc(1, shunt=1), 2: dc(2)}, dc_device(1), dc_device(2), apply_shunt_codes=True) as house:
        assert house.round()["dc1"]["current_a"] == 3.45
        assert house.slave.asked(1)[:3] == [
            frame("01 03 00 00 00 04"),
            frame("01 06 00 03 00 00"),
            frame("01 03 00 03 00 01"),
        ]
        assert house.slave.asked(1)[1].hex(" ") == "01 06 00 03 00 00 79 ca"
        assert all(request[1] != 6 for request in house.slave.asked(2))
        assert not house.troubles
    assert "unit 1 is set to its shunt of 100 A now; it was set to 50 A" in caplog.text


def test_a_unit_of_another_model_is_named_and_nothing_it_shows_is_believed(link: Path) -> None:
    units = {1: ac(1), 2: dc(2), 3: dc(3, shunt=None)}
    with line(link, units, dc_device(1), ac_device(2), dc_device(3), ac_device(4)) as house:
        assert house.round() == {}
        assert "unit 1 is no 017: it lacks the settings of one; correct its model" in house.troubles["dc1"]
        assert "unit 2 refuses what it is asked: it has no such register" in house.troubles["ac2"]
        assert "unit 3 is no 017" in house.troubles["dc3"]


def test_a_003_has_no_shunt_and_needs_none(link: Path) -> None:
    device = {"name": "pump", "unit": 3, "model": "003"}
    with line(link, {3: dc(3, shunt=None)}, device) as house:
        assert house.round().keys() == {"pump"}
        assert not house.troubles


# Silence that is none


def test_silence_after_a_low_voltage_is_the_night_and_no_trouble(link: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    units = {1: dc(1), 2: ac(2)}
    with line(link, units, dc_device(1), ac_device(2)) as house:
        house.round()
        units[1].inputs[0] = 712
        assert house.round()["dc1"]["voltage_v"] == 7.12
        units[1].present = False
        probes = sum(house.asks(1) for _ in range(60))
        assert probes == 1 + 119 // 60
        assert not house.troubles
        assert caplog.text.count("silent, as expected below 7 V (it showed 7.12 V last)") == 1
        units[1].present = True
        units[1].inputs[0] = 1260
        assert house.round(60).keys() == {"dc1", "ac2"}
    assert caplog.text.count("dc1: unit 1 answers again, 12.60 V") == 1


def test_silence_from_the_start_is_expected_only_of_a_unit_that_is_said_to_go_dark(link: Path) -> None:
    with line(link, {}, dc_device(1, silent_when_dark=True), dc_device(2)) as house:
        house.round()
        assert house.troubles.keys() == {"dc2"}
        assert "if it is dark and below 7 V now, set silent_when_dark = true" in house.troubles["dc2"]


def test_silence_in_full_light_is_a_fault_also_of_a_panel(link: Path) -> None:
    units = {1: dc(1, 38.0)}
    with line(link, units, dc_device(1, silent_when_dark=True)) as house:
        house.round()
        units[1].present = False
        house.round()
        house.round()
        assert "unit 1 does not answer" in house.troubles["dc1"]


def test_the_low_voltage_alarm_of_a_panel_is_the_evening(link: Path) -> None:
    units = {n: dc(n, 6.5, 0, 0, alarms=(False, True)) for n in (1, 2)}
    with line(link, units, dc_device(1, silent_when_dark=True), dc_device(2)) as house:
        assert house.round().keys() == {"dc1", "dc2"}
        assert house.troubles.keys() == {"dc2"}


# Time


def test_a_round_ends_with_its_budget_and_the_rest_goes_first_in_the_next(link: Path) -> None:
    devices = [ac_device(n) for n in range(1, 7)]
    with line(link, {n: ac(n) for n in range(1, 7)}, *devices, interval_s=2.0) as house:
        start_s, bus = 0.0, house.source.bus
        house.source.now_s = lambda: start_s + 0.5 * bus.transactions  # each transaction takes half a second
        rounds = []
        for _ in range(3):
            rounds.append([reading.device for reading in house.source.read()])
            start_s += 10
        assert rounds == [["ac1", "ac2", "ac3", "ac4"], ["ac5", "ac6", "ac1", "ac2"], ["ac3", "ac4", "ac5", "ac6"]]
        for _ in range(6):
            house.source.read()
        assert "raise interval_s or round_budget_s" in house.troubles["ac1"]


def test_silent_units_never_take_the_time_of_those_that_answer(link: Path) -> None:
    devices = [ac_device(n) for n in range(1, 7)]
    with line(link, {5: ac(5), 6: ac(6)}, *devices, interval_s=2.0, timeout_s=0.1) as house:
        clock = 0.0
        bus = house.source.bus
        house.source.now_s = lambda: clock + 0.5 * bus.transactions
        for _ in range(2):  # until everybody was asked once
            house.source.read()
            clock += 2
        for _ in range(4):
            assert {reading.device for reading in house.source.read()} == {"ac5", "ac6"}
            clock += 2


def test_a_warning_stays_while_the_unit_is_silent_after_it(link: Path) -> None:
    units = {1: dc(1, 6.5, 0, 0, alarms=(False, True))}
    with line(link, units, dc_device(1)) as house:
        house.round()
        units[1].present = False
        house.round()
        assert "its low-voltage alarm is on" in house.troubles["dc1"]
        assert "does not answer" not in house.troubles["dc1"]
