"""The Kasa source and the real python-kasa, against plugs of our own on loopback: what they show, and to whom."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import kasa
import msgspec
import pytest

import workers.kasa
from reading import METRICS
from tests.workers.kasa_devices import ACCOUNT, BlackHole, Device, Home, Klap, Legacy, at, options, reading_from
from workers import source_class
from workers._kasa_plug import Device as DeviceOptions
from workers.kasa import Kasa, Options

ROOT = Path(__file__).parents[2]
NEWER = ("get_emeter_data", "get_emeter_vgain_igain")
SHOWN = {"power_w": 86.123, "voltage_v": 238.412, "current_a": 0.412}


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.kasa.__doc__ or "").splitlines() if line.startswith("    "))
    table = tomllib.loads(text)["sources"]["plugs"]
    assert {*table} == {*Options.__struct_fields__}
    assert {*table["devices"][0]} == {*DeviceOptions.__struct_fields__}
    needed = {"kind": "kasa", "devices": [at("192.168.1.20")]}
    assert msgspec.convert(table, Options) == msgspec.convert(needed, Options)
    assert source_class("kasa") is Kasa


@pytest.mark.parametrize(
    ("devices", "change", "words"),
    [
        ([], {}, "no device is configured"),
        ([at("a"), at("b")], {}, "fridge is configured twice"),
        ([at("a"), at("A", "tv")], {}, "its watts would count twice"),
        ([at("a"), at("a", "tv", child="TV")], {}, "fridge is all of a and tv is there too, so its watts would count"),
        ([at("a", child="1"), at("a", "tv", child="1")], {}, 'two devices are the outlet "1" of a'),
        ([at("a", child="1", pin_ip=True), at("a", "tv", child="2")], {}, "are outlets of one strip"),
        ([at("a", device_id="fridge")], {}, "device_id of fridge is no id: the MAC that is printed on the plug"),
        ([at("http://a")], {}, "host"),
        ([at("")], {}, "host"),
        ([at("a")], {"username_env": "A"}, "username_env and password_env belong together"),
        ([at("a")], {"discovery_target": "everybody"}, "discovery_target"),
        ([at("a")], {"timeout_s": 0}, "timeout_s"),
        ([at("a")], {"interval_s": 0.5}, "interval_s"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(
    devices: list[dict[str, Any]], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        options(*devices, **change)


def test_no_driver_is_imported_before_the_source_is_opened() -> None:
    program = "import sys, workers.kasa; print(*{'kasa', 'aiohttp', 'cryptography'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_one_round_reads_old_and_new_plugs_and_the_outlets_of_strips(tmp_path: Path) -> None:
    old = Legacy(2)
    old.old_units = True
    home = Home(
        *(Legacy(1), old, Legacy(3, outlets=("Kettle", "TV", "Lamp"))),
        *(Klap(4, version=1), Klap(5), Klap(6, component=2, methods=("get_energy_usage", *NEWER))),
        *(Klap(7, component=2, methods=("get_current_power",)), Klap(8, component=2, outlets=("Left", "Right"))),
    )
    with home:
        devices = [
            *(at(home.at(number), f"plug{number}") for number in (1, 2, 4, 5, 6, 7)),
            *(at(home.at(3), "kettle", child="Kettle"), at(home.at(3), "lamp", child="3")),
            at(home.at(8), "right", child="Right"),
        ]
        with reading_from(home, tmp_path, *devices, with_account=True) as bench:
            shown = bench.round()
            assert not bench.troubles
            assert not bench.refused
    register = {"device_energy_wh": 12345.0}
    assert shown == {
        "plug1": {**SHOWN, **register},
        "plug2": {**SHOWN, **register},
        "plug4": {**SHOWN, **register},
        "plug5": {"power_w": 86.123},
        "plug6": SHOWN,
        "plug7": {"power_w": 86.0},
        "kettle": {**SHOWN, **register},
        "lamp": {**SHOWN, "power_w": 258.369, "current_a": 1.236, "device_energy_wh": 37035.0},
        "right": {"power_w": 172.246},
    }
    assert all(values.keys() <= METRICS for values in shown.values())


@pytest.mark.parametrize("kind", ["legacy", "old units", "strip", "klap 1", "klap 2", "klap 2, newer"])
def test_python_kasa_reads_the_same_from_the_same_plug(kind: str, tmp_path: Path) -> None:
    device: Any = {
        "legacy": Legacy(1),
        "old units": Legacy(1),
        "strip": Legacy(1, outlets=("Kettle", "TV")),
        "klap 1": Klap(1, version=1),
        "klap 2": Klap(1),
        "klap 2, newer": Klap(1, component=2, methods=("get_energy_usage", "get_current_power", *NEWER)),
    }[kind]
    device.old_units = kind == "old units"
    with Home(device) as home:
        children = {"child": "TV"} if kind == "strip" else {}
        with reading_from(home, tmp_path, at(device.address, **children), with_account=True) as bench:
            ours = bench.round()["fridge"]
        theirs = asyncio.run(second_opinion(device))
    register = theirs.pop("device_energy_wh")
    assert ours.pop("device_energy_wh", None) == (None if register is None else pytest.approx(register))
    assert ours == {metric: pytest.approx(value) for metric, value in theirs.items() if value is not None}


async def second_opinion(device: Device) -> dict[str, float | None]:
    """What the update and the Energy module of python-kasa make of a plug."""
    found = await kasa.Discover.discover_single(
        device.address, credentials=kasa.Credentials(*ACCOUNT.values()), discovery_timeout=5
    )
    assert found
    try:
        await found.update()
        meter = [*found.children, found][1 if found.children else 0].modules[kasa.Module.Energy]
        total_kwh = meter.consumption_total
        return {
            "power_w": meter.current_consumption,
            "voltage_v": meter.voltage,
            "current_a": meter.current,
            "device_energy_wh": None if total_kwh is None else total_kwh * 1000,
        }
    finally:
        await found.disconnect()


def test_a_whole_strip_is_the_sum_of_its_outlets_without_a_register(tmp_path: Path) -> None:
    with (
        Home(Legacy(1, outlets=("Kettle", "TV", "Lamp"))) as home,
        reading_from(home, tmp_path, at(home.at(1), "desk")) as bench,
    ):
        assert bench.round() == {"desk": {"power_w": 516.738, "current_a": 2.472, "voltage_v": 238.412}}


def test_a_sum_is_not_shown_when_an_outlet_is_missing_from_it(tmp_path: Path) -> None:
    strip = Legacy(1, outlets=("Kettle", "TV"))
    with Home(strip) as home, reading_from(home, tmp_path, at(home.at(1), "desk")) as bench:
        assert bench.round()
        strip.power_mw = 3_000_000  # the second outlet shows twice as much, which cannot be
        assert bench.round() == {}
        assert "it shows 6000 W, which cannot be" in bench.troubles["desk"]


def test_a_plug_is_asked_one_question_a_round(tmp_path: Path) -> None:
    legacy, smart = Legacy(1), Klap(2, component=2, methods=("get_energy_usage", *NEWER))
    with (
        Home(legacy, smart) as home,
        reading_from(home, tmp_path, at(home.at(1)), at(home.at(2), "tv"), with_account=True) as bench,
    ):
        bench.round()
        legacy.questions.clear()
        smart.questions.clear()
        for _ in range(3):
            assert len(bench.round()) == 2
        assert legacy.questions == [{"system": {"get_sysinfo": {}}, "emeter": {"get_realtime": {}}}] * 3
        asked = [[one["method"] for one in question["params"]["requests"]] for question in smart.questions]
        assert asked == [["get_device_info", "get_emeter_data"]] * 3


def test_nothing_that_a_plug_calls_itself_becomes_a_name(tmp_path: Path) -> None:
    evil = "x\nERROR meter: gone\x1b[31m" + "y" * 500
    plug, strip = Legacy(1, alias=evil), Legacy(2, outlets=(evil, evil))
    plug.sysinfo = {"model": evil, "sw_ver": evil}
    with Home(plug, strip) as home:
        devices = (at(home.at(1)), at(home.at(2), "tv", child="nobody"), at(home.at(2), "lamp", child="2"))
        with reading_from(home, tmp_path, *devices) as bench:
            assert {*bench.round()} == {"fridge", "lamp"}
            assert {*bench.troubles} == {"tv"}
            assert bench.troubles["tv"].isprintable()
            assert len(bench.troubles["tv"]) < 300


def test_a_black_hole_changes_nothing_for_the_others(tmp_path: Path) -> None:
    """One takes every question and no longer answers; at another address there never was anybody."""
    hole = Legacy(8)
    with Home(Legacy(1), Klap(2), hole) as home:
        sick = [at(home.at(8), "hole"), at("192.0.2.1", "nowhere")]
        devices = [*sick, at(home.at(1)), at(home.at(2), "tv")]
        with reading_from(home, tmp_path, *devices, timeout_s=1.5, with_account=True) as bench:
            assert {*bench.round()} == {"hole", "fridge", "tv"}
            hole.silent = True
            for _ in range(2):
                bench.clock_s += 1.0
                began_ns = time.monotonic_ns()
                readings = bench.source.read()
                ended_ns = time.monotonic_ns()
                assert [reading.device for reading in readings] == ["fridge", "tv"]
                # Both were measured before the first question of the hole was given up.
                assert all(reading.at_ns - began_ns < 1.5e9 for reading in readings)
                assert 1.4e9 < ended_ns - began_ns < 10e9
            assert {*bench.troubles} == {"hole", "nowhere"}
            assert bench.troubles["hole"].startswith(f"it does not answer at {home.at(8)}; see that it has power")
            asked = len(hole.questions)
            for _ in range(3):
                assert len(bench.round(after_s=0.3)) == 2
            assert len(hole.questions) == asked  # its next turn comes later


def test_a_home_of_black_holes_costs_a_round_its_budget_and_no_more(tmp_path: Path) -> None:
    holes = [BlackHole(number) for number in range(1, 9)]
    with Home(*holes) as home:
        devices = [at(home.at(hole.number), f"hole{hole.number}") for hole in holes]
        with reading_from(home, tmp_path, *devices, interval_s=2.0, timeout_s=2.0) as bench:
            began_s = time.monotonic()
            assert bench.round() == {}
            assert time.monotonic() - began_s < 10
            assert len(bench.troubles) == 8


def test_a_session_that_a_plug_forgot_and_a_connection_that_it_closed_cost_no_reading(tmp_path: Path) -> None:
    legacy, first, second = Legacy(1), Klap(2, version=1), Klap(3)
    with Home(legacy, first, second) as home:
        devices = [at(home.at(number), f"plug{number}") for number in (1, 2, 3)]
        with reading_from(home, tmp_path, *devices, with_account=True) as bench:
            assert len(bench.round()) == 3
            handshakes = first.handshakes, second.handshakes
            first.forget_sessions()
            second.forget_sessions()
            assert len(bench.round()) == 3
            assert (first.handshakes, second.handshakes) == (handshakes[0] + 1, handshakes[1] + 1)
            for plug in (legacy, first, second):
                home.hang_up(plug)
            assert len(bench.round()) == 3
            assert not bench.troubles


def test_a_meter_that_stops_answering_is_not_shown_with_its_last_value(tmp_path: Path) -> None:
    """python-kasa merges answers into those before, so there the last value would stay for ever."""
    plug = Legacy(1)
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        assert bench.round()
        plug.meter = False
        plug.sysinfo = {"feature": "TIM:ENE"}
        assert bench.round() == {}
        assert bench.round() == {}
        assert bench.round(after_s=1000) == {}
        assert "has no meter" in bench.troubles["fridge"]
