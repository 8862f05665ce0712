"""The port of a PZEM line: found, refused, busy, unplugged in the middle of an answer, and back."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for
from tests.workers.pzem_line import ac_device, by_device, dc_device, line, options
from tests.workers.pzem_slave import ac, dc, half_then_unplug, plugged_in
from workers import SourceError
from workers.pzem import Pzem


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "usb-adapter"


def test_a_port_that_is_not_there_is_named_with_where_to_look(link: Path) -> None:
    source = Pzem("shunts", options(dc_device(1), port=str(link), ports=["usb:1a86:7523"]))
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    assert caught.value.what == f"{link} is not there; no adapter usb:1a86:7523 is plugged in"
    assert "ls /dev/serial/by-id" in caught.value.what_now


def test_the_port_of_another_process_is_left_alone_and_its_holder_is_named(link: Path) -> None:
    with line(link, {1: dc(1)}, dc_device(1)) as house:
        other = Pzem("other", options(dc_device(1), port=str(link)))
        with pytest.raises(SourceError, match=f"is in use by process {os.getpid()} .*stop the other program"):
            other.open()
        other.close()
        assert house.round().keys() == {"dc1"}


def test_a_port_without_permission_names_the_group(link: Path) -> None:
    with plugged_in(link, {1: dc(1)}):
        terminal = str(link.readlink())
        Path(terminal).chmod(0)
        source = Pzem("shunts", options(dc_device(1), port=terminal))
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)  # root may use everything
        try:
            with pytest.raises(SourceError, match=r"may not use .*sudo usermod -aG dialout \$USER"):
                source.open()
        finally:
            os.seteuid(was)
            source.close()


def test_what_is_no_serial_port_is_refused_in_words(tmp_path: Path) -> None:
    plain = tmp_path / "file"
    plain.write_text("")
    for path in (plain, tmp_path):
        source = Pzem("shunts", options(dc_device(1), port=str(path)))
        with pytest.raises(SourceError, match="cannot be used as a serial port"):
            source.open()
        source.close()


def test_of_several_candidates_the_one_with_the_units_is_taken(tmp_path: Path) -> None:
    absent, wrong, right = (tmp_path / name for name in ("absent", "wrong", "right"))
    with plugged_in(wrong, {}), plugged_in(right, {1: dc(1)}):
        source = Pzem("shunts", options(dc_device(1), port=str(absent), ports=[str(wrong), str(right)]))
        source.open()
        assert source.bus.path == str(right)
        assert by_device(source.read()).keys() == {"dc1"}
        source.close()
        lonely = Pzem("shunts", options(dc_device(7), port=str(absent), ports=[str(wrong), str(right)]))
        lonely.open()
        assert lonely.bus.path == str(wrong)
        lonely.close()


def test_an_adapter_is_found_by_its_usb_numbers_wherever_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serial.tools import list_ports

    plugged: list[Any] = []
    monkeypatch.setattr(list_ports, "comports", lambda: plugged)
    source = Pzem("shunts", options(dc_device(1), port="usb:1a86:7523:A5"))
    for name in ("ttyUSB0", "ttyUSB1"):
        with plugged_in(tmp_path / name, {1: dc(1)}):
            device = str(tmp_path / name)
            plugged[:] = [
                SimpleNamespace(device="/dev/other", vid=0x1A86, pid=0x7523, serial_number="B6"),
                SimpleNamespace(device="/dev/onboard", vid=None, pid=None, serial_number=None),
                SimpleNamespace(device=device, vid=0x1A86, pid=0x7523, serial_number="A5"),
            ]
            source.open()
            assert source.bus.path == device
            assert source.read()
        with pytest.raises(SourceError, match="is gone"):
            source.read()
        source.close()
    both = Pzem("shunts", options(dc_device(1), port="usb:1a86:7523"))
    with pytest.raises(SourceError, match=r"2 adapters are usb:1a86:7523.*add the serial number"):
        both.open()


def test_unplugging_in_the_middle_of_an_answer_keeps_what_was_read_before(link: Path) -> None:
    units = {1: dc(1), 2: ac(2), 3: dc(3)}
    with line(link, units, dc_device(1), ac_device(2), dc_device(3)) as house:
        house.round()
        house.slave.next_moods[2].append(half_then_unplug)
        assert house.round().keys() == {"dc1"}
        with pytest.raises(SourceError, match=r"is gone: .*plug the adapter in again"):
            house.round()
        house.source.close()
        with pytest.raises(SourceError, match="is not there"):
            house.source.open()
        house.source.close()
        house.slave.plug_in()
        house.source.open()
        assert house.round().keys() == {"dc1", "ac2", "dc3"}


def test_a_port_on_which_nobody_answers_for_long_is_opened_anew(link: Path) -> None:
    units = {1: dc(1)}
    with line(link, units, dc_device(1), reopen_when_silent_s=120, timeout_s=0.05) as house:
        house.round()
        units[1].present = False
        for _ in range(59):
            house.round()
        with pytest.raises(SourceError, match=r"no unit on .* has answered for 120 s"):
            house.round()
        house.source.close()
        house.source.open()
        assert house.asks(1) == 1


def test_a_night_in_which_all_are_dark_does_not_open_the_port_anew(link: Path) -> None:
    with line(link, {}, dc_device(1, silent_when_dark=True), reopen_when_silent_s=10, timeout_s=0.05) as house:
        for _ in range(5):
            house.round(60)
        assert not house.troubles


def test_a_house_survives_unplugging_in_mid_read_without_a_new_process(tmp_path: Path, link: Path) -> None:
    table = f"""
[outputs.csv]
[sources.shunts]
kind = "pzem"
port = "{link}"
interval_s = 0.1
round_budget_s = 0.1
[[sources.shunts.devices]]
name = "battery"
unit = 1
model = "017"
shunt_a = 100
[[sources.shunts.devices]]
name = "cooker"
unit = 2
model = "016"
"""
    house = House(tmp_path / "house", table, ["unused"])

    def volts() -> list[str]:
        rows = csv_rows(house.data_dir / "csv")
        return [row[4] for row in rows if row[1:4] == ["shunts", "battery", "voltage_v"]]

    with plugged_in(link, {1: dc(1), 2: ac(2)}) as slave:
        try:
            house.started()
            wait_for(lambda: len(volts()) > 2, "readings of the battery")
            process = house.pid("source.shunts")
            slave.next_moods[2].append(half_then_unplug)
            wait_for(lambda: slave.master < 0, "the adapter to be pulled out")
            wait_for(lambda: "is gone" in house.log and "is not there" in house.log, "words about it")
            slave.units[1] = dc(1, 13.5)
            slave.plug_in()
            wait_for(lambda: "13.5" in volts(), "readings after the adapter is back")
            assert house.pid("source.shunts") == process is not None
            assert house.metric("wattherd_source_restarts_total", source="shunts") in (None, 0.0)
            assert {float(one) for one in volts()} == {12.6, 13.5}
            assert "Traceback" not in house.log
            assert house.stop() == 0
        finally:
            house.kill()
