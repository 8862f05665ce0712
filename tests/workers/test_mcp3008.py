"""Current clamps on an MCP3008: the sums on samples of every kind, and the source through the real spidev."""

from __future__ import annotations

import errno
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import workers.mcp3008
from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for
from tests.shim.bench import Bench, Round
from tests.shim.chips import Mcp3008 as Chip
from tests.shim.chips import Signal, Silent, code, level, rectified, sine
from tests.shim.simulators import Spi, simulated
from workers import SourceError, source_class
from workers._clamp import Device
from workers.mcp3008 import Mcp3008, Options

VOLTS_PER_CODE = 3.3 / 1023


def table(*devices: dict[str, Any], **options: Any) -> dict[str, Any]:
    named = [{"name": f"d{number}", "channel": number, **device} for number, device in enumerate(devices)]
    return {"kind": "mcp3008", "devices": named, **options}


def make(*devices: dict[str, Any], **options: Any) -> Options:
    return msgspec.convert(table(*devices, **options), Options)


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.mcp3008.__doc__ or "").splitlines() if line.startswith("    "))
    example = tomllib.loads(text)["sources"]["clamps"]
    assert msgspec.convert(example, Options) == Options(kind="mcp3008", devices=(Device(name="machine-A", channel=0),))
    assert {*example} == {*Options.__struct_fields__}
    assert {*example["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("mcp3008") is Mcp3008


def test_the_defaults_are_those_of_the_project_that_it_replaces() -> None:
    (device,) = make({}).devices
    assert (device.amplifier_gain, device.ct_range_amps, device.line_voltage_v, device.phases) == (
        100.0,
        50.0,
        230.0,
        3,
    )
    assert (device.sample_rate_hz, device.averaging_window, device.idle_threshold_a) == (50.0, 20, 0.5)
    assert make({}).adc_full_scale == 1023


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": []}, "no device is configured"),
        (table({"name": "a"}, {"name": "a"}), "configured twice"),
        (table({}, {"channel": 0}), "counted twice"),
        (table({"channel": 8}), "channel"),
        (table({}, speed_hz=1_350_001), "1350000 at 3.3 V"),
        (table({}, speed_hz=3_600_001, vref_v=5.0), "3600000 at 5 V"),
        (table({}, speed_hz=9_999), "speed_hz"),
        (table({}, mains_hz=55), "mains_hz"),
        (table({"voltage_channel": 1}), 'needs mode = "true_rms"'),
        (table({"mode": "true_rms", "voltage_channel": 0}), "the same input"),
        (table({"averaging_window": 300}), "takes 6 s"),
        (table({"assumed_power_factor": 1.1}), "assumed_power_factor"),
        (table({"current_gain": 0.0}), "current_gain"),
        (table({"current_gain": float("nan")}), "current_gain"),
        (table({"ct_range_amps": float("inf")}), "ct_range_amps"),
        (table({"idle_threshold_a": 1.2}), "can never be left"),
        (table({"fault_threshold_a": 0.5}), "not above idle_threshold_a"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "mcp3008", **options}, Options)


def test_a_threshold_out_of_reach_is_refused_with_the_numbers() -> None:
    with pytest.raises(
        msgspec.ValidationError,
        match=r"d0: fault_threshold_a = 100 can never be reached: this input ends at 1\.17 A \(805 VA\)",
    ):
        make({"fault_threshold_a": 100.0})
    with pytest.raises(msgspec.ValidationError, match=r"fault_threshold_a = 71 .* ends at 70\.7 A"):
        make({"mode": "true_rms", "fault_threshold_a": 71.0})
    make({"fault_threshold_a": 100.0, "amplifier_gain": 1.0})
    make({"mode": "true_rms", "fault_threshold_a": 70.0})


# The source, through the real spidev


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.clear()


def values_of(round_: Round, device: str) -> dict[str, Any]:
    assert device in round_.values, round_.troubles
    return round_.values[device]


def sound_round(bench: Bench, within_s: float = 40) -> Round:
    """Return a round in which sampling never paused: a machine that runs many tests may take more than one."""
    found: list[Round] = []

    def is_sound_round() -> bool:
        found.append(bench.read())
        return not any("give this machine less to do" in trouble for trouble in found[-1].troubles.values())

    wait_for(is_sound_round, "a round without pauses", within_s)
    return found[-1]


def read_once(bench: Bench, inputs: dict[int, Signal], *devices: dict[str, Any], **options: Any) -> Round:
    with bench.opened(table(*devices, **options), spidev0_0=Spi(Chip(inputs))):
        return sound_round(bench)


AS_VOLTS = {"amplifier_gain": 1.0, "ct_range_amps": math.sqrt(2), "idle_threshold_a": 0.0}  # current_a = volts


def test_all_eight_channels_are_exact(bench: Bench) -> None:
    codes = [0, 1, 511, 512, 682, 1021, 100, 999]
    devices = [AS_VOLTS | {"averaging_window": 3, "sample_rate_hz": 500.0}] * 8
    file = Spi(Chip({channel: code(number) for channel, number in enumerate(codes)}))
    with bench.opened(table(*devices), spidev0_0=file):
        for _ in range(3):
            round_ = bench.read()
            assert [round_.values[f"d{channel}"]["current_a"] for channel in range(8)] == [
                round(number * VOLTS_PER_CODE, 4) for number in codes
            ]
            assert not round_.troubles
        assert file.speed_hz == 1_000_000


def test_differential_pairs_are_exact_both_ways(bench: Bench) -> None:
    inputs = {channel: level(number / 1024 * 3.3) for channel, number in enumerate((600, 200, 50, 800, 512, 511, 9, 5))}
    device = AS_VOLTS | {"averaging_window": 2, "sample_rate_hz": 500.0, "differential": True}
    round_ = read_once(bench, inputs, *[device] * 8)
    assert [round(round_.values[f"d{channel}"]["current_a"] / VOLTS_PER_CODE) for channel in range(8)] == pytest.approx(
        [400, 0, 0, 750, 1, 0, 4, 0], abs=1
    )


@pytest.mark.parametrize("mains_hz", [50, 60])
def test_the_rms_of_a_sine_is_within_one_percent(bench: Bench, mains_hz: int) -> None:
    inputs = {0: sine(0.5, hz=mains_hz), 1: sine(0.05, hz=mains_hz, offset_v=1.6, phase_deg=77)}
    inputs[2] = sine(0.3, hz=mains_hz, harmonics={3: 0.4, 5: 0.2})
    devices = [{"mode": "true_rms", "ical_a_per_v": 100.0, "phases": 1}] * 3
    round_ = read_once(bench, inputs, *devices, mains_hz=mains_hz, adc_full_scale=1024)
    assert values_of(round_, "d0")["current_a"] == pytest.approx(50, rel=0.01)
    assert values_of(round_, "d1")["current_a"] == pytest.approx(5, rel=0.01)
    assert values_of(round_, "d2")["current_a"] == pytest.approx(30 * math.sqrt(1 + 0.4**2 + 0.2**2), rel=0.01)
    assert values_of(round_, "d0")["power_w"] == values_of(round_, "d0")["apparent_power_va"]
    assert not {"voltage_v", "power_factor"} & round_.values["d0"].keys()


@pytest.mark.parametrize(
    ("lag_deg", "transformer_deg", "shift_deg"), [(0, 0, 0), (60, 0, 0), (-37, 0, 0), (60, 8, 8), (180, 0, 0)]
)
def test_real_power_with_a_voltage_channel(
    bench: Bench, lag_deg: float, transformer_deg: float, shift_deg: float
) -> None:
    inputs = {0: sine(0.2, phase_deg=-lag_deg), 7: sine(0.575, phase_deg=transformer_deg)}
    device = {"mode": "true_rms", "ical_a_per_v": 50.0, "voltage_channel": 7, "vcal": 400.0, "phases": 1}
    round_ = read_once(bench, inputs, device | {"phase_shift_deg": float(shift_deg)}, adc_full_scale=1024)
    values = values_of(round_, "d0")
    true_factor = math.cos(math.radians(lag_deg))
    assert values["voltage_v"] == pytest.approx(230, rel=0.01)
    assert values["current_a"] == pytest.approx(10, rel=0.01)
    assert values["apparent_power_va"] == pytest.approx(2300, rel=0.02)
    assert values["power_w"] == pytest.approx(2300 * true_factor, abs=35)
    assert values["power_factor"] == pytest.approx(true_factor, abs=0.015)


def test_a_voltage_channel_without_its_transformer_leaves_power_out(bench: Bench) -> None:
    device = {"mode": "true_rms", "voltage_channel": 7, "fault_threshold_a": 20.0}
    round_ = read_once(bench, {0: sine(0.5), 7: level(1.65)}, device)
    assert values_of(round_, "d0").keys() == {"current_a", "state"}
    assert round_.values["d0"]["state"] == "fault"
    assert "which is no mains" in round_.troubles["d0"]
    assert round_.refused["out_of_range"] == 1


def test_states_follow_the_thresholds(bench: Bench) -> None:
    inputs = {0: level(0.2), 1: level(1.0), 2: level(2.0), 3: level(2.0)}
    device = AS_VOLTS | {"idle_threshold_a": 0.5, "fault_threshold_a": 1.5, "sample_rate_hz": 500.0}
    round_ = read_once(bench, inputs, *[device] * 3, device | {"fault_threshold_a": "none"})
    assert [round_.values[f"d{number}"]["state"] for number in range(4)] == ["idle", "running", "fault", "running"]


@pytest.mark.parametrize("mode", ["dc_average", "true_rms"])
def test_no_chip_is_refused_and_told_until_there_is_one(bench: Bench, mode: str) -> None:
    file = Spi(Silent(0xFF))
    with bench.opened(table({"mode": mode}), spidev0_0=file):
        round_ = sound_round(bench)
        assert not round_.values
        assert round_.troubles["d0"].startswith("no MCP3008 answers; check its supply")
        assert round_.refused["malformed"] >= 1
        file.chip = Chip({0: sine(0.5)})
        round_ = sound_round(bench)
        assert round_.values
        assert not round_.troubles


def test_zeros_of_all_inputs_are_told_as_nothing_connected(bench: Bench) -> None:
    quick = {"sample_rate_hz": 500.0}
    file = Spi(Silent(0x00))
    with bench.opened(table(quick, {"mode": "true_rms"}), spidev0_0=file):
        round_ = sound_round(bench)
        assert "nothing seems connected" in round_.troubles["d0"]
        assert "nothing seems connected" in round_.troubles["d1"]
        assert round_.values["d0"]["current_a"] == 0
        assert "d1" not in round_.values
        # A machine that stands still, beside an input that does not.
        file.chip = Chip({0: level(0), 1: sine(0.5)})
        round_ = sound_round(bench)
        assert round_.values["d0"] == {"current_a": 0, "apparent_power_va": 0, "power_w": 0, "state": "idle"}
        assert not round_.troubles


def test_a_saturated_input_is_told_and_said_to_be_more(bench: Bench) -> None:
    inputs = {0: level(3.3), 1: sine(1.3), 2: level(3.3), 3: rectified(2.4)}
    quick = {"sample_rate_hz": 500.0, "fault_threshold_a": 1.1}
    round_ = read_once(bench, inputs, quick, {"mode": "true_rms"}, {"mode": "true_rms"}, {"sample_rate_hz": 500.0})
    assert round_.values["d0"]["current_a"] == pytest.approx(1.1667, abs=1e-4)
    assert round_.values["d0"]["state"] == "fault"
    assert "rests at VREF" in round_.troubles["d0"]
    assert "more flows than is told; it takes a larger clamp or a smaller burden" in round_.troubles["d1"]
    assert 60 < round_.values["d1"]["current_a"] < 80
    assert "rests at VREF: nothing seems connected" in round_.troubles["d2"]
    assert "d2" not in round_.values
    assert "more flows than is told; it takes a larger clamp or less amplifier_gain" in round_.troubles["d3"]


def test_a_failing_transfer_closes_the_source_and_it_can_be_opened_again(bench: Bench) -> None:
    file = Spi(Chip({0: level(1)}))
    with bench.source(table({"sample_rate_hz": 500.0}), spidev0_0=file):
        bench.open()
        file.fail = errno.EIO
        with pytest.raises(SourceError, match=r"/dev/spidev0.0 failed \(Input/output error\); check the wires"):
            bench.read()
        bench.close()
        wait_for(lambda: bench.simulator.open_files == 0, "the file to be closed")
        file.fail = 0
        bench.open()
        assert bench.read().values


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "there is no /dev/spidev0.0; enable SPI: sudo raspi-config nonint do_spi 0"),
        (errno.EACCES, "this user may not use /dev/spidev0.0; add it to the group spi: sudo usermod -aG spi"),
        (errno.EIO, "/dev/spidev0.0 cannot be opened"),
    ],
)
def test_a_file_that_cannot_be_opened_says_what_to_do(bench: Bench, number: int, words: str) -> None:
    with bench.source(table({})):
        bench.simulator.files["/dev/spidev0.0"] = number
        with pytest.raises(SourceError, match=words):
            bench.open()


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    made: list[House] = []
    yield made
    for house in made:
        house.kill()


def test_a_real_house_reads_its_clamps(tmp_path: Path, houses: list[House], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {0: level(1.65), 5: sine(0.5)}
    clamps = """
[sources.clamps]
kind = "mcp3008"
interval_s = 0.3
[[sources.clamps.devices]]
name = "machine"
channel = 0
sample_rate_hz = 500.0
[[sources.clamps.devices]]
name = "oven"
channel = 5
mode = "true_rms"
phases = 1
"""
    with simulated(spidev0_0=Spi(Chip(inputs))) as simulator:
        for name in ("LD_PRELOAD", "WATTHERD_SHIM_SOCKET"):
            monkeypatch.setenv(name, simulator.environment[name])
        house = House(tmp_path, "[outputs.csv]\n", ["esp32-meter"], more=clamps)
        houses.append(house)
        house.start()

        def rows() -> dict[tuple[str, str], str]:
            return {(row[2], row[3]): row[4] for row in csv_rows(house.data_dir / "csv")}

        wait_for(lambda: {("machine", "state"), ("oven", "current_a")} <= rows().keys(), "both clamps in the file")
        assert float(rows()["machine", "current_a"]) == pytest.approx(0.5834, abs=0.002)
        assert rows()["machine", "state"] == "running"
        assert float(rows()["oven", "current_a"]) == pytest.approx(30.3, rel=0.01)
        assert house.stop() == 0
        wait_for(lambda: simulator.open_files == 0, "the device file to be closed")
