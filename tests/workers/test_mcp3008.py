"""Current clamps on an MCP3008: the sums on samples of every kind, and the source through the real spidev."""

from __future__ import annotations

import errno
import math
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers.mcp3008
from reading import METRICS
from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for
from tests.shim.bench import Bench, Round
from tests.shim.chips import Mcp3008 as Chip
from tests.shim.chips import Signal, Silent, code, level, rectified, sine
from tests.shim.simulators import Spi, simulated
from vitals import REFUSALS
from workers import SourceError, source_class
from workers._calibration import calibrated_a
from workers._clamp import Device, dc_average_a, ends_at_a, from_average, from_wave
from workers._mcp3008 import Converter, Series, Unusable, command, decode, decode_all
from workers._rms import Samples, covers, mean_product, wave
from workers.mcp3008 import Mcp3008, Options

PERIOD_NS = 20_000_000
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


# What samples mean


def test_all_sixteen_commands_are_those_of_the_datasheet() -> None:
    single = [command(channel).hex() for channel in range(8)]
    assert single == [f"01{first}00" for first in ("80", "90", "a0", "b0", "c0", "d0", "e0", "f0")]
    assert [command(channel, differential=True)[1] for channel in range(8)] == [channel << 4 for channel in range(8)]


@given(st.binary(min_size=3, max_size=3))
def test_an_answer_is_a_code_or_refused(reply: bytes) -> None:
    if reply[1] & 4:
        with pytest.raises(ValueError, match="null bit"):
            decode(reply)
    else:
        assert decode(reply) == int.from_bytes(reply, "big") & 0x3FF


@pytest.mark.parametrize(
    ("damaged", "words"), [(3, "no MCP3008 answers; check its supply"), (1, "1 of 3 answers are damaged; shorten")]
)
def test_answers_with_a_null_bit_are_refused_as_a_whole(damaged: int, words: str) -> None:
    with pytest.raises(Unusable, match=words) as refused:
        decode_all([b"\xff\xff\xff"] * damaged + [b"\xff\xfa\x00"] * (3 - damaged))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize(
    ("volts", "gain", "ct_a", "phases", "line_v", "amps", "watts"),
    [
        (1.65, 2, 20, 3, 240, 11.667262, 8400.4286),
        (0.8, 2, 20, 3, 240, 5.656854, 4072.9350),
        (3.3, 2, 20, 3, 240, 23.334524, 16800.857),
        (1.65, 100, 50, 3, 230, 0.583363, 402.5205),
        (3.3, 100, 50, 3, 230, 1.166726, 805.04),
    ],
)
def test_the_formula_is_that_of_the_project_that_it_replaces(
    volts: float, gain: float, ct_a: float, phases: int, line_v: float, amps: float, watts: float
) -> None:
    current_a = dc_average_a(volts, gain, ct_a)
    assert current_a == pytest.approx(amps, abs=1e-6)
    assert current_a * phases * line_v == pytest.approx(watts, abs=1e-2)


@given(
    st.lists(st.integers(0, 1023), min_size=1, max_size=50),
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.floats(0, 5),
    st.floats(0, 1),
)
def test_averages_tell_finite_values_within_the_range(
    codes: list[int], gain: float, offset_a: float, floor_a: float, factor: float
) -> None:
    device = Device(
        name="x",
        channel=0,
        current_gain=gain,
        current_offset_a=offset_a,
        noise_floor_a=floor_a,
        assumed_power_factor=factor,
    )
    told = from_average(device, codes, VOLTS_PER_CODE)
    current_a = told.values["current_a"]
    assert told.values.keys() <= METRICS
    assert isinstance(current_a, float)
    assert 0 <= current_a <= max(ends_at_a(device, VOLTS_PER_CODE), 0) + 1e-4
    assert ("power_w" in told.values) == (factor > 0)
    assert bool(told.trouble) == (max(codes) >= 1022)


def sampled(signal: Callable[[float], float], times_ns: list[int]) -> Samples:
    """A signal in codes, of time in cycles."""
    return Samples(times_ns, [max(0, min(1023, round(signal(at_ns / PERIOD_NS)))) for at_ns in times_ns])


def assert_rms(
    times_ns: list[int], amplitude: float, offset: float, phase: float, third: float, *, within: float
) -> None:
    def signal(turns: float) -> float:
        angle = 2 * math.pi * (turns + phase)
        return offset + amplitude * (math.sin(angle) + third * math.sin(3 * angle))

    measured = wave(sampled(signal, times_ns), PERIOD_NS)
    assert measured.rms == pytest.approx(amplitude * math.sqrt((1 + third**2) / 2), rel=within, abs=0.5)
    assert measured.offset == pytest.approx(offset, abs=0.5 + within * amplitude)


@given(
    st.lists(st.integers(-240_000, 240_000), min_size=40, max_size=200),
    st.floats(50, 350),
    st.floats(400, 600),
    st.floats(0, 1),
    st.floats(0, 0.3),
)
def test_whatever_covers_the_cycle_finds_the_rms_within_three_percent(
    shifts: list[int], amplitude: float, offset: float, phase: float, third: float
) -> None:
    times_ns = [max(0, 500_000 * number + shift) for number, shift in enumerate(shifts)]
    assert covers(Samples(times_ns, times_ns), PERIOD_NS)
    assert_rms(times_ns, amplitude, offset, phase, third, within=0.03)


def test_uneven_sampling_with_holes_finds_the_rms_within_one_percent() -> None:
    chance = Random(1)
    for _ in range(100):
        times_ns, at_ns = [], 0
        while at_ns < 10 * PERIOD_NS:
            times_ns.append(at_ns)
            at_ns += chance.randrange(100_000, 500_000) if chance.random() > 0.02 else chance.randrange(15_000_000)
        if covers(Samples(times_ns, times_ns), PERIOD_NS):
            assert_rms(times_ns, chance.uniform(50, 350), chance.uniform(400, 600), chance.random(), 0.3, within=0.01)


@pytest.mark.parametrize("true_hz", [49.8, 49.9, 50.0, 50.1, 50.2])
def test_a_mains_that_is_not_at_its_nominal_frequency_costs_less_than_half_a_percent(true_hz: float) -> None:
    for start in range(10):
        times = list(range(0, 10 * PERIOD_NS, 130_000))
        codes = [512 + 300 * math.sin(2 * math.pi * true_hz * at_ns / 1e9 + start) for at_ns in times]
        assert wave(Samples(times, codes), PERIOD_NS).rms == pytest.approx(300 / math.sqrt(2), rel=0.005)


def even(phase_deg: float, amplitude: float, per_cycle: int, lag: float = 0) -> Samples:
    """Ten cycles of a sine; `lag` in parts of the distance between two samples."""
    times = [round(PERIOD_NS * (number + lag) / per_cycle) for number in range(10 * per_cycle)]
    phase = math.radians(phase_deg)
    return sampled(lambda turns: 512 + amplitude * math.sin(2 * math.pi * turns + phase), times)


@pytest.mark.parametrize("per_cycle", [40, 100])
@pytest.mark.parametrize("phase_deg", [-90, -60, -30, 0, 45, 180])
def test_real_power_is_found_though_the_two_are_never_sampled_at_once(phase_deg: int, per_cycle: int) -> None:
    product = mean_product(
        even(phase_deg, 300, per_cycle), even(0, 400, per_cycle, lag=0.5), PERIOD_NS, phase_shift_deg=0
    )
    assert product == pytest.approx(300 * 400 / 2 * math.cos(math.radians(phase_deg)), abs=0.005 * 300 * 400 / 2)


def test_a_phase_shift_is_taken_out() -> None:
    current, voltage = even(0, 300, 80), even(7, 400, 80, lag=0.5)
    assert mean_product(current, voltage, PERIOD_NS, phase_shift_deg=7) == pytest.approx(300 * 400 / 2, rel=0.002)
    assert mean_product(current, voltage, PERIOD_NS, phase_shift_deg=-83) == pytest.approx(0, abs=200)


def test_current_without_a_voltage_beside_it_has_no_power() -> None:
    current, voltage = even(0, 300, 80), even(0, 400, 80, lag=0.5)
    with pytest.raises(ValueError, match="too few"):
        mean_product(current, Samples(voltage.at_ns[::8], voltage.codes[::8]), PERIOD_NS, phase_shift_deg=0)


class Wire:
    """A converter behind a slow or an interrupted line; its clock is the real one."""

    def __init__(self, signal: Signal, delay_s: Callable[[], float]) -> None:
        self.chip = Chip({0: signal})
        self.delay_s = delay_s

    def transfer(self, sent: bytes) -> bytes:
        time.sleep(self.delay_s())
        return self.chip.exchange(sent)


def test_a_machine_that_pauses_now_and_then_still_finds_the_rms() -> None:
    chance = Random(2)
    wire = Wire(sine(0.5), lambda: chance.choice([0] * 60 + [0.004]))
    (samples,) = Converter(wire.transfer, 50).burst([command(0)])
    assert wave(samples, PERIOD_NS).rms * 3.3 / 1024 == pytest.approx(0.5, rel=0.01)


def test_a_machine_with_too_much_to_do_is_told_so() -> None:
    with pytest.raises(Unusable, match="sampling pauses too often") as refused:
        Converter(Wire(sine(0.5), lambda: 0.0012).transfer, 50).burst([command(0)])
    assert refused.value.reason == "too_slow"


def test_samples_of_a_series_go_once_through_the_mains_cycle() -> None:
    series = Series(command(0), 20, 50.0)
    phases = sorted(series.due_s(number, 0.02) % 0.02 for number in range(20))
    assert [round(1e6 * phase) % 20_000 for phase in phases] == pytest.approx(
        [1000 * number for number in range(20)], abs=1
    )


def test_an_average_of_an_unsmoothed_rectified_wave_is_right_though_sampling_is_as_fast_as_the_mains() -> None:
    ripple, series = rectified(1.0), Series(command(0), 20, 50.0)
    for begin_s in (0.0, 0.003, 0.0077):
        codes = [int(ripple(begin_s + series.due_s(number, 0.02)) / 3.3 * 1024) for number in range(20)]
        assert sum(codes) / 20 / 1024 * 3.3 == pytest.approx(1.0, rel=0.01)


@given(
    st.floats(0, 500),
    st.floats(0, 1023),
    st.floats(0.5, 1.5),
    st.floats(0, 0.5),
    st.floats(-math.pi, math.pi),
)
def test_waves_tell_finite_values_within_the_range(
    amplitude: float, offset: float, gain: float, floor_a: float, phase: float
) -> None:
    device = Device(
        name="x", channel=0, mode="true_rms", voltage_channel=1, vcal=300.0, current_gain=gain, noise_floor_a=floor_a
    )
    times = list(range(0, 10 * PERIOD_NS, 250_000))
    current = sampled(lambda turns: offset + amplitude * math.sin(2 * math.pi * turns + phase), times)
    try:
        told = from_wave(device, current, even(0, 340, 80, lag=0.5), PERIOD_NS, VOLTS_PER_CODE)
    except Unusable as unusable:
        assert unusable.reason in REFUSALS
        return
    values: dict[str, Any] = told.values
    assert values.keys() <= METRICS
    assert 0 <= values["current_a"] <= math.sqrt(2) * 1023 / 2 * VOLTS_PER_CODE * 60.6 * gain
    assert -1 <= values.get("power_factor", 0) <= 1
    assert abs(values["power_w"]) <= 1.02 * values["apparent_power_va"] + floor_a * 1000 + 0.1


def test_noise_is_taken_out_and_what_is_smaller_is_nothing() -> None:
    device = Device(name="x", channel=0, mode="true_rms", noise_floor_a=0.3, phases=1)
    a_per_code = VOLTS_PER_CODE * device.ical_a_per_v

    def told_a(rms_a: float) -> Any:
        amplitude = rms_a * math.sqrt(2) / a_per_code
        times = list(range(0, PERIOD_NS, 250_000))
        exact = Samples(times, [512 + amplitude * math.sin(2 * math.pi * at / PERIOD_NS) for at in times])
        return from_wave(device, exact, None, PERIOD_NS, VOLTS_PER_CODE).values["current_a"]

    assert told_a(0.5) == pytest.approx(0.4, abs=1e-3)
    assert told_a(0.4) == 0.0
    assert told_a(30) == pytest.approx(math.sqrt(900 - 0.09), abs=1e-3)


def test_the_calibration_of_a_known_load_makes_it_true() -> None:
    zero_a, load_a, true_a = 0.07, 4.57, 4.95  # as shown with neutral values
    device = Device(name="x", channel=0, current_offset_a=zero_a, current_gain=true_a / (load_a - zero_a))
    assert calibrated_a(zero_a, device, signed=False) == 0
    assert calibrated_a(load_a, device, signed=False) == pytest.approx(true_a)


# The source, through the real spidev


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.clear()


def values_of(round_: Round, device: str) -> dict[str, Any]:
    assert device in round_.values, round_.troubles
    return round_.values[device]


def sound_round(bench: Bench, within_s: float = 15) -> Round:
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
