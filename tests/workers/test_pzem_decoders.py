"""The decoders of PZEM registers and of faults: the frames of the manuals, and everything that is none."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reading import METRICS
from tests.workers.pzem_slave import ac, crc, dc
from workers._calibration import CalibratedDevice
from workers._modbus import Fault, crc16, fault_of
from workers._pzem_registers import corrected, decode, out_of_range

WORDS = st.integers(0, 0xFFFF)
ASK_8 = bytes.fromhex("01 04 00 00 00 08 f1 cc")
SOUND_DC = "01 04 10 04 ec 01 59 10 fb 00 00 86 a0 00 01 00 00 00 00 94 a2"

# The answers of DEVICES 3.2 and one that ESPHome recorded; in some P is not V times I, on purpose.
FRAMES: list[tuple[str, dict[str, float], int]] = [
    (SOUND_DC, {"voltage_v": 12.6, "current_a": 3.45, "power_w": 434.7, "device_energy_wh": 100_000}, 0),
    (
        "05 04 10 12 d5 3a 98 0a 58 00 01 42 40 00 0f 00 00 00 00 77 08",
        {"voltage_v": 48.21, "current_a": 150.0, "power_w": 6818.4, "device_energy_wh": 1_000_000},
        0,
    ),
    (
        "01 04 10 02 8a 00 00 00 00 00 00 86 a0 00 01 00 00 ff ff ca 1a",
        {"voltage_v": 6.5, "current_a": 0, "power_w": 0, "device_energy_wh": 100_000},
        1,
    ),
    (
        "01 04 10 05 40 00 0a 00 0d 00 00 00 02 00 00 00 00 00 00 d6 29",
        {"voltage_v": 13.44, "current_a": 0.1, "power_w": 1.3, "device_energy_wh": 2},
        0,
    ),
    (
        "01 04 14 09 00 14 61 00 00 2c 9b 00 00 86 a0 00 01 01 f4 00 5f 00 00 0c 73",
        {
            "voltage_v": 230.4,
            "current_a": 5.217,
            "power_w": 1141.9,
            "device_energy_wh": 100_000,
            "frequency_hz": 50.0,
            "power_factor": 0.95,
        },
        0,
    ),
    (
        "01 04 14 08 fa 11 70 00 01 dd 0e 00 01 42 40 00 0f 01 f3 00 64 ff ff ca 3f",
        {
            "voltage_v": 229.8,
            "current_a": 70.0,
            "power_w": 12212.6,
            "device_energy_wh": 1_000_000,
            "frequency_hz": 49.9,
            "power_factor": 1.0,
        },
        1,
    ),
]


def words_of(frame: bytes) -> list[int]:
    assert frame[2] == len(frame) - 5
    return list(struct.unpack(f">{frame[2] // 2}H", frame[3:-2]))


@pytest.mark.parametrize(("text", "values", "alarms"), FRAMES)
def test_the_frames_of_the_manuals_are_decoded(text: str, values: dict[str, float], alarms: int) -> None:
    frame = bytes.fromhex(text)
    assert crc16(frame[:-2]) == frame[-2:]
    shown = decode(words_of(frame))
    assert shown.values == values
    assert len(shown.alarms) == alarms
    assert not out_of_range(shown.values, is_dc=frame[2] == 16, rated_current_a=300)


@given(st.lists(WORDS, min_size=8, max_size=8) | st.lists(WORDS, min_size=10, max_size=10))
def test_whatever_the_registers_hold_it_is_within_the_limits_or_refused(registers: list[int]) -> None:
    is_dc = len(registers) == 8
    shown = decode(registers)
    assert shown.values.keys() <= METRICS
    assert ("frequency_hz" in shown.values) != is_dc
    assert all(isinstance(value, float) and value >= 0 for value in shown.values.values())
    if not out_of_range(shown.values, is_dc=is_dc, rated_current_a=100):
        assert shown.values["voltage_v"] <= 350 if is_dc else 80 <= shown.values["voltage_v"] <= 280
        assert shown.values["current_a"] <= 120
        assert shown.values["power_w"] <= 1.2 * shown.values["voltage_v"] * 120 + 1
        assert shown.values["device_energy_wh"] < 10_000_000


@given(
    volts=st.integers(0, 35_000),
    centiamperes=st.integers(0, 0xFFFF),
    deciwatts=st.integers(0, 0xFFFFFFFF),
    wh=st.integers(0, 0xFFFFFFFF),
    alarms=st.tuples(st.booleans(), st.booleans()),
)
def test_what_a_dc_unit_counts_is_what_is_decoded(
    volts: int, centiamperes: int, deciwatts: int, wh: int, alarms: tuple[bool, bool]
) -> None:
    shown = decode(dc(1, volts / 100, centiamperes / 100, deciwatts / 10, wh, alarms=alarms).inputs)
    assert list(shown.values.values()) == [volts / 100, centiamperes / 100, deciwatts / 10, wh]
    assert len(shown.alarms) == sum(alarms)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.booleans())
def test_what_an_ac_unit_counts_is_what_is_decoded(milliamperes: int, deciwatts: int, wh: int, alarm: bool) -> None:
    shown = decode(ac(1, 230.4, milliamperes / 1000, deciwatts / 10, wh, 50.1, 0.87, alarm=alarm).inputs)
    assert list(shown.values.values()) == [230.4, milliamperes / 1000, deciwatts / 10, wh, 50.1, 0.87]
    assert bool(shown.alarms) == alarm


@pytest.mark.parametrize("count", [0, 7, 9, 11])
def test_another_number_of_registers_is_no_measurement(count: int) -> None:
    with pytest.raises(ValueError, match="8 or 10 registers"):
        decode([0] * count)


GOOD_DC = {"voltage_v": 12.0, "current_a": 10.0, "power_w": 120.0, "device_energy_wh": 5.0}
GOOD_AC = {**GOOD_DC, "voltage_v": 230.0, "power_w": 2300.0, "frequency_hz": 50.0, "power_factor": 1.0}


@pytest.mark.parametrize(
    ("values", "change"),
    [
        (GOOD_DC, {"voltage_v": 350.01}),
        (GOOD_DC, {"current_a": 120.01}),
        (GOOD_DC, {"power_w": 1.2 * 12 * 120 + 2}),
        (GOOD_DC, {"device_energy_wh": 1e7}),
        (GOOD_AC, {"voltage_v": 79.9}),
        (GOOD_AC, {"voltage_v": 280.1}),
        (GOOD_AC, {"frequency_hz": 44.9}),
        (GOOD_AC, {"frequency_hz": 65.1}),
        (GOOD_AC, {"power_factor": 1.01}),
    ],
)
def test_a_value_beyond_its_limit_is_named(values: dict[str, float], change: dict[str, float]) -> None:
    is_dc = "frequency_hz" not in values
    assert not out_of_range(values, is_dc=is_dc, rated_current_a=100)
    assert out_of_range({**values, **change}, is_dc=is_dc, rated_current_a=100).startswith(next(iter(change)))


@given(
    st.integers(0, 30_000).map(lambda centivolts: centivolts / 100),
    st.integers(0, 30_000).map(lambda centiamperes: centiamperes / 100),
    st.builds(
        CalibratedDevice,
        name=st.just("x"),
        current_gain=st.floats(0.5, 2),
        current_offset_a=st.floats(-1, 1),
        noise_floor_a=st.floats(0, 1),
    ),
)
def test_a_calibration_never_makes_power_out_of_nothing_nor_touches_the_counter(
    volts: float, amperes: float, device: CalibratedDevice
) -> None:
    values = {"voltage_v": volts, "current_a": amperes, "power_w": volts * amperes, "device_energy_wh": 7.0}
    after = corrected(values, device)
    assert (after["voltage_v"], after["device_energy_wh"]) == (volts, 7.0)
    assert after["power_w"] == pytest.approx(volts * after["current_a"], abs=0.05, rel=1e-3)
    if not after["current_a"]:
        assert after["power_w"] == 0
    assert corrected(values, CalibratedDevice(name="x")) == values


def answer(*body: int) -> bytes:
    return bytes(body) + crc(bytes(body))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.SILENT),
        (bytes.fromhex(SOUND_DC)[:-1] + b"\xa3", Fault.DAMAGED),
        (bytes.fromhex(SOUND_DC)[:2], Fault.CUT),
        (bytes.fromhex(SOUND_DC)[:12], Fault.CUT),
        (b"\x01", Fault.CUT),
        (b"\xff\x00" + bytes.fromhex(SOUND_DC)[:-2], Fault.NOISE),
        (answer(2, 4, 2, 0, 0), Fault.WRONG_UNIT),
        (answer(1, 0x84, 2), Fault.REFUSED),
        (answer(1, 0x84), Fault.NOISE),
        (answer(1, 0x83, 2), Fault.NOISE),
        (answer(1, 3, 2, 0, 0), Fault.NOISE),
        (ASK_8, Fault.ECHO),
        (ASK_8 + bytes.fromhex(SOUND_DC), Fault.ECHO),
    ],
)
def test_each_bad_answer_has_its_name(data: bytes, fault: Fault) -> None:
    assert fault_of(ASK_8, data).fault is fault


def test_a_local_echo_is_taken_off_before_the_answer_is_judged() -> None:
    def fault(data: bytes) -> Any:
        return fault_of(ASK_8, data, local_echo=True).fault

    assert fault(ASK_8) is Fault.SILENT
    assert fault(ASK_8 + answer(1, 0x84, 2)) is Fault.REFUSED
    assert fault(answer(1, 0x84, 2)) is Fault.NO_ECHO
    assert fault(b"") is Fault.SILENT


@given(st.integers(0, 247), st.sampled_from([3, 4, 6, 0x42]), st.binary(max_size=40), st.booleans())
def test_any_bytes_have_a_name_and_words(unit: int, function: int, data: bytes, echo: bool) -> None:
    sent = answer(unit, function, 0, 0, 0, 8)
    fault = fault_of(sent, data, local_echo=echo)
    assert f"{fault}".isprintable()
    assert (fault.fault is Fault.SILENT) == (not data or (echo and data == sent))
