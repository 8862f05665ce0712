"""The Tuya source and good devices: every protocol version, plugs, clamps, rail meters, gateways, channels."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reading import METRICS
from tests.peers.process import wait_for
from tests.workers.tuya_devices import BEAT, QUERY, REFRESH, Device, a_plug, an_address, plugged_in
from tests.workers.tuya_house import a_source, house, keys_file, meter, open_descriptors, options
from workers._tuya_memory import Memory
from workers.tuya import Tuya

PLUG = {"current_a": 0.412, "power_w": 86.1, "voltage_v": 238.4}
CLAMPS = {"1": 123456, "2": 400, "101": 5000, "102": "REVERSE", "104": "FORWARD", "105": 120, "106": 100000}
CLAMPS |= {"107": 300, "108": 23456, "109": 100, "110": 98, "111": 4998, "112": 2301, "113": 2200, "114": 60}
CLAMPS |= {"115": 4880, "121": 87}


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_a_plug_of_every_version_is_read(tmp_path: Path, version: str) -> None:
    with house(tmp_path, [Device(version)]) as home:
        before_ns = time.monotonic_ns()
        reading = home.until("plug", **PLUG)
        assert before_ns <= reading.at_ns <= time.monotonic_ns()
        assert not home.source.troubles
        assert reading.values.keys() <= METRICS


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_the_version_is_tried_out_once_and_a_successor_knows_it(tmp_path: Path, version: str) -> None:
    device = Device(version, ends_strangers=version != "3.4")
    deposits: dict[str, int] = {}

    def deposit(label: str, descriptor: int) -> None:
        deposits[label] = os.dup(descriptor)

    table = meter(device, version="auto")
    with house(tmp_path, [device], table, attributes={"deposit": deposit}) as home:
        home.until("plug", **PLUG)
        tried = device.connections
        assert tried == ["3.3", "3.4", "3.5", "3.1"].index(version) + 1
        for _ in range(3):
            device.drop()
            home.hears()
        assert device.connections == tried + 3, "it is not tried out again"
        assert [*deposits] == [Memory.LABEL]

        successor = a_source(home.source.options)
        successor.kept.update(deposits)
        home.source.close()
        before = device.connections
        successor.open()
        try:
            wait_for(successor.read, "a reading of the successor")
        finally:
            successor.close()
        assert device.connections == before + 1
        [kept] = deposits.values()
        os.fstat(kept)  # what the parent keeps stays open
        os.close(kept)


def test_the_version_that_the_wizard_saw_is_tried_first(tmp_path: Path) -> None:
    device = Device("3.5")
    file = keys_file(tmp_path, device, version="3.5")
    with house(tmp_path, [device], meter(device, version="auto"), keys_file=file) as home:
        home.until("plug", **PLUG)
        assert device.connections == 1


def test_new_firmware_with_another_version_is_found(tmp_path: Path) -> None:
    device = Device("3.3", ends_strangers=True)
    with house(tmp_path, [device], meter(device, version="auto")) as home:
        home.hears()
        device.version = "3.5"
        device.drop()
        home.hears()
        assert home.source.links[device.device_id].version == "3.5"


def test_the_connection_stays_and_shows_signs_of_life(tmp_path: Path) -> None:
    device = Device("3.4")
    with house(tmp_path, [device], interval_s=0.2) as home:

        def many() -> bool:
            home.round()
            return len(device.commands(BEAT)) >= 3

        wait_for(many, "three signs of life")
        assert device.connections == 1
        assert len(home.readings) >= 3


def test_a_device_is_told_to_measure_before_it_is_read(tmp_path: Path) -> None:
    device = Device("3.3", remembers=True)
    device.measured = {**a_plug(), "19": 5}
    with house(tmp_path, [device]) as home:
        assert home.until("plug", **PLUG), "not the 0.5 W of yesterday"
        assert all(reading.values.get("power_w") != 0.5 for reading in home.readings)
        device.dps["19"] = 20000
        home.until("plug", **{**PLUG, "power_w": 2000.0})
    commands = device.commands(REFRESH, QUERY)
    assert commands[:2] == [REFRESH, QUERY]
    assert {"dpId": [18, 19, 20]} in [content for command, content in device.heard if command == REFRESH]


def test_what_is_pushed_is_told_as_it_is_however_partial(tmp_path: Path) -> None:
    device = Device("3.5")
    with house(tmp_path, [device], interval_s=60) as home:
        home.hears()
        asked = len(device.heard)
        device.push({"19": 1000})
        home.until("plug", power_w=100.0)
        device.push({"20": 2300, "1": False})
        home.until("plug", voltage_v=230.0)
        assert len(device.heard) - asked <= 3, "signs of life only"


def test_nothing_is_told_twice(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], interval_s=60) as home:
        first = home.hears()
        device.push({"19": 1000})
        home.until("plug", power_w=100.0)
        for _ in range(10):
            assert home.round() == []
        assert len({reading.at_ns for reading in home.readings}) == len(home.readings)
        assert first.at_ns < home.readings[-1].at_ns


def test_a_device_that_only_pushes_is_read(tmp_path: Path) -> None:
    device = Device("3.5", only_pushes=True)
    with house(tmp_path, [device]) as home:

        def told() -> bool:
            device.push({"18": 412, "19": 861, "20": 2384})
            home.round()
            return any(reading.values == PLUG for reading in home.readings)

        wait_for(told, "what was pushed")
        assert not home.source.troubles


def test_a_device_that_wants_its_data_points_named_is_read(tmp_path: Path) -> None:
    device = Device("3.3", wants_list=True, device_id="bf0123456789abcdefghijkl"[:22])
    with house(tmp_path, [device]) as home:
        home.until("plug", **PLUG)
        assert device.connections == 1


def test_a_device_that_hangs_up_when_told_to_measure_is_read_all_the_same(tmp_path: Path) -> None:
    device = Device("3.4", hangs_up_at=(REFRESH,))
    with house(tmp_path, [device]) as home:
        home.hears()
        connections = device.connections
        for _ in range(3):
            home.hears()
        assert device.connections <= connections + 2
        home.until_well()


@pytest.mark.parametrize("product", ["auto", "dual-meter"])
def test_the_two_clamps_of_a_meter_are_two_devices_on_one_connection(tmp_path: Path, product: str) -> None:
    device = Device("3.4", dps=CLAMPS)
    tables = [
        meter(device, name, channel=channel, product=product) for name, channel in (("a", "a"), ("b", "b"), ("all", ""))
    ]
    with house(tmp_path, [device], *tables) as home:
        both = {"frequency_hz": 49.98, "voltage_v": 230.1}
        own = {"power_w": -500.0, "current_a": 2.2, "power_factor": 0.98}
        home.until("a", **both, **own, device_energy_wh=1_000_000.0, device_energy_export_wh=3000.0)
        own = {"power_w": 12.0, "current_a": 0.06, "power_factor": 0.87}
        home.until("b", **both, **own, device_energy_wh=234_560.0, device_energy_export_wh=1000.0)
        energies = {"device_energy_wh": 1_234_560.0, "device_energy_export_wh": 4000.0}
        home.until("all", **both, **energies, power_w=488.0)
        assert device.connections == 1


def test_power_without_a_direction_waits_for_one(tmp_path: Path) -> None:
    device = Device("3.3", dps={**CLAMPS, "102": "?"})
    with house(tmp_path, [device], meter(device, channel="a")) as home:
        assert "power_w" not in home.hears().values
        device.dps["102"] = "FORWARD"
        wait_for(lambda: any(one.values.get("power_w") == 500.0 for one in home.round()), "power with a sign")
        device.push({"101": 4000})
        wait_for(lambda: any(one.values.get("power_w") == 400.0 for one in home.round()), "power alone, soon after")


def test_a_rail_meter_is_read(tmp_path: Path) -> None:
    device = Device("3.4", dps={"1": True, "6": "CQoAMDkACuY=", "9": 0, "16": True, "17": "AQEB"})
    with house(tmp_path, [device], meter(device, "breaker")) as home:
        home.until("breaker", voltage_v=231.4, current_a=12.345, power_w=2790.0)
        assert not home.source.troubles, "that 1 is a switch here is no trouble"
    device = Device("3.4", dps={"1": 3296, "6": "CQoAMDkACuY=", "9": 0, "16": True, "17": "AQEB", "103": 31})
    with house(tmp_path, [device], meter(device, "cooker")) as home:
        values = {"voltage_v": 231.4, "current_a": 12.345, "power_w": 2790.0}
        home.until("cooker", **values, device_energy_wh=32_960.0, temperature_c=31.0)


def test_the_phases_of_a_rail_meter_are_told_apart(tmp_path: Path) -> None:
    phases = {"6": "CWkAARgAACo=", "7": "CYYAAlsAAD8=", "8": "CYoAAbkAACg="}
    device = Device("3.5", dps={"1": 3296, **phases})
    tables = [meter(device, f"phase-{channel or 'all'}", channel=channel) for channel in ("", "a", "b", "c")]
    with house(tmp_path, [device], *tables) as home:
        home.until("phase-a", voltage_v=240.9, current_a=0.28, power_w=42.0)
        home.until("phase-b", voltage_v=243.8, current_a=0.603, power_w=63.0)
        home.until("phase-c", voltage_v=244.2, current_a=0.441, power_w=40.0)
        home.until("phase-all", device_energy_wh=32_960.0)


def test_power_of_another_scale_is_refused_with_what_to_set(tmp_path: Path) -> None:
    device = Device("3.3", dps={"6": "CQoAMDkAbPw="})  # 27,900 from 231.4 V and 12.345 A
    with house(tmp_path, [device]) as home:
        trouble = home.until_trouble("27900 W from 231.4 V")
        assert "set power_divisor = 10" in trouble
        assert home.source.refused["out_of_range"]
        assert not home.readings
    device = Device("3.3", dps={"6": "CQoAMDkAbPw="})
    with house(tmp_path, [device], meter(device, power_divisor=10)) as home:
        home.until("plug", voltage_v=231.4, current_a=12.345, power_w=2790.0)


def test_the_mapping_of_the_wizard_counts_more_than_what_a_device_looks_like(tmp_path: Path) -> None:
    mapping = {
        "19": {"code": "cur_power", "type": "Integer", "values": {"scale": 0, "unit": "W"}},
        "20": {"code": "cur_voltage", "type": "Integer", "values": {"scale": 1, "unit": "V"}},
        "18": {"code": "cur_current", "type": "Integer", "values": {"scale": 3, "unit": "A"}},
        "17": {"code": "add_ele", "type": "Integer", "values": {"scale": 3, "unit": "kwh"}},
    }
    device = Device("3.3")
    with house(tmp_path, [device], keys_file=keys_file(tmp_path, device, mapping=mapping)) as home:
        home.until("plug", current_a=0.412, power_w=861.0, voltage_v=238.4)
    device = Device("3.3")
    with house(tmp_path, [device], meter(device, product="plug-a")) as home:
        home.until("plug", **PLUG)


def test_devices_on_a_gateway_share_its_connection(tmp_path: Path) -> None:
    children = {"a4c1": a_plug(10.0), "a4c2": a_plug(20.0)}
    gateway = Device("3.4", dps={}, children=children)
    tables = [meter(gateway, f"child-{cid}", cid=cid) for cid in children]
    with house(tmp_path, [gateway], *tables) as home:
        home.until("child-a4c1", **{**PLUG, "power_w": 10.0})
        home.until("child-a4c2", **{**PLUG, "power_w": 20.0})

        def told() -> set[str]:
            gateway.push({"19": 333}, cid="a4c2")  # a round that asks it in the same moment may overwrite one of them
            home.round()
            return {reading.device for reading in home.readings if reading.values.get("power_w") == 33.3}

        assert wait_for(told, "what it pushed") == {"child-a4c2"}
        assert gateway.connections == 1


def test_opening_and_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    good = Device("3.4")
    lost = Device(device_id="bfbfbfbfbfbf")
    file = keys_file(tmp_path, good, lost)
    tables = [meter(good), meter(lost, "lost", host="")]
    source = a_source(options(*tables, keys_file=str(file)), ears_on=an_address())

    def open_and_close(*, reading: bool) -> None:
        source.open()
        wait_for(source.read, "a reading") if reading else source.read()
        source.close()

    with plugged_in(good, lost):
        open_and_close(reading=True)
        wait_for(lambda: good.clients == 0, "the device to notice")
        before, threads = open_descriptors(), threading.active_count()
        for turn in range(30):
            open_and_close(reading=turn % 10 == 0)
        wait_for(lambda: open_descriptors() == before, "the last descriptor to be closed, also at the device")
        assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": []}, "no device is configured"),
        ({"devices": [{"name": "a", "id": "bf012345678", "host": "plug.lan"}]}, "is no IP address"),
        ({"devices": [{"name": "a", "id": "bf012345678", "version": "3.1"}]}, "give its address as host"),
        ({"devices": [{"name": "a", "id": "bf012345678", "product": "toaster"}]}, "there is no product 'toaster'"),
        ({"devices": [{"name": "a", "id": "bf012345678", "product": "plug-a", "channel": "a"}]}, 'a plug-a has ""'),
        ({"devices": [{"name": "a", "id": "bf012345678"}, {"name": "a", "id": "bf012345679"}]}, "configured twice"),
        ({"devices": [{"name": "a", "id": "bf012345678"}, {"name": "b", "id": "bf012345678"}]}, "are the same device"),
        (
            {
                "devices": [
                    {"name": "a", "id": "bf012345678", "host": "192.0.2.1"},
                    {"name": "b", "id": "bf012345678", "channel": "a", "host": "192.0.2.2"},
                ]
            },
            "share a connection: give them the same host",
        ),
        ({"devices": [{"name": "a", "id": "bf0\n12345678"}]}, "id"),
        ({"devices": [{"name": "a", "id": "bf012345678"}], "interval_s": 61}, "<= 60"),
    ],
)
def test_a_mistake_in_the_configuration_is_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        msgspec.convert({"kind": "tuya", **changes}, Tuya.Options)
