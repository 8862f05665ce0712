"""What samples of a clamp mean: the sums, on samples of every kind, also those of a machine that had no time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reading import METRICS
from tests.shim.chips import Mcp3008 as Chip
from tests.shim.chips import Signal, rectified, sine
from vitals import REFUSALS
from workers._calibration import calibrated_a
from workers._clamp import Device, dc_average_a, ends_at_a, from_average, from_wave
from workers._mcp3008 import Converter, Series, Unusable, command, decode, decode_all
from workers._rms import Samples, covers, mean_product, wave

PERIOD_NS = 20_000_000
VOLTS_PER_CODE = 3.3 / 1023


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
