"""One current clamp on an analogue input: its options, where its range ends, and what its samples mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from reading import Value
from workers._calibration import CalibratedDevice, calibrated_a, without_noise
from workers._mcp3008 import HIGHEST_CODE, Unusable
from workers._rms import Samples, mean_product, wave

_LONGEST_WINDOW_S: Final = 5.0
_LOWEST_MAINS_V: Final = 80.0
_HIGHEST_MAINS_V: Final = 280.0

Channel = Annotated[int, Meta(ge=0, le=7)]


class Device(CalibratedDevice, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]`: one clamp."""

    channel: Channel
    differential: bool = False
    mode: Literal["dc_average", "true_rms"] = "dc_average"
    amplifier_gain: Annotated[float, Meta(gt=0, le=1e6)] = 100.0
    ct_range_amps: Annotated[float, Meta(gt=0, le=1e5)] = 50.0
    sample_rate_hz: Annotated[float, Meta(gt=0, le=1000)] = 50.0
    averaging_window: Annotated[int, Meta(ge=1, le=5000)] = 20
    ical_a_per_v: Annotated[float, Meta(gt=0, le=1e5)] = 60.6
    voltage_channel: Channel | Literal["none"] = "none"
    vcal: Annotated[float, Meta(gt=0, le=1e5)] = 230.0
    phase_shift_deg: Annotated[float, Meta(ge=-90, le=90)] = 0.0
    phases: Literal[1, 2, 3] = 3
    line_voltage_v: Annotated[float, Meta(gt=0, le=1000)] = 230.0
    assumed_power_factor: Annotated[float, Meta(ge=0, le=1)] = 1.0
    idle_threshold_a: Annotated[float, Meta(ge=0, le=1e5)] = 0.5
    fault_threshold_a: Annotated[float, Meta(gt=0, le=1e5)] | Literal["none"] = "none"


class Told(NamedTuple):
    """What a device shows; values that would be meaningless are left out, and the trouble says why."""

    values: dict[str, Value]
    trouble: str = ""
    refused: str = ""  # one of `vitals.REFUSALS`, where something was left out


def dc_average_a(volts: float, amplifier_gain: float, ct_range_amps: float) -> float:
    """Return RMS amperes from the mean of a rectified and amplified clamp that gives 1 V at its rated current.

    The formula of PowerMonitoringBasic (Digital Shoestring, University of Cambridge): input ÷ gain × range ÷ √2.

    >>> [round(dc_average_a(volts, 2, 20), 6) for volts in (1.65, 0.8, 3.3)]
    [11.667262, 5.656854, 23.334524]
    >>> [round(dc_average_a(volts, 100, 50), 6) for volts in (1.65, 3.3)]
    [0.583363, 1.166726]
    """
    return volts / amplifier_gain * ct_range_amps / math.sqrt(2)


def ends_at_a(device: Device, volts_per_code: float) -> float:
    """Return the largest RMS current that a device can show: of a sine, where it sees the wave.

    >>> round(ends_at_a(Device(name="x", channel=0), 3.3 / 1023), 6)
    1.166726
    >>> round(ends_at_a(Device(name="x", channel=0, mode="true_rms"), 3.3 / 1023), 2)
    70.7
    """
    top_v = HIGHEST_CODE * volts_per_code
    if device.mode == "dc_average":
        end_a = dc_average_a(top_v, device.amplifier_gain, device.ct_range_amps)
    else:
        end_a = without_noise(top_v / 2 / math.sqrt(2) * device.ical_a_per_v, device.noise_floor_a)
    return calibrated_a(end_a, device, signed=False)


def check(device: Device, volts_per_code: float) -> None:
    """Raise ValueError for options of a device that do not go together."""
    if device.voltage_channel != "none" and device.mode != "true_rms":
        raise ValueError(f'{device.name}: a voltage_channel needs mode = "true_rms"')
    if device.voltage_channel == device.channel:
        raise ValueError(f"{device.name}: channel and voltage_channel are the same input")
    window_s = device.averaging_window / device.sample_rate_hz
    if device.mode == "dc_average" and window_s > _LONGEST_WINDOW_S:
        raise ValueError(
            f"{device.name}: averaging_window = {device.averaging_window} at sample_rate_hz ="
            f" {device.sample_rate_hz:g} takes {window_s:g} s; {_LONGEST_WINDOW_S:g} s is the most"
        )
    end_a, idle_a, fault_a = ends_at_a(device, volts_per_code), device.idle_threshold_a, device.fault_threshold_a
    end = f"this input ends at {end_a:.3g} A ({device.phases * end_a * device.line_voltage_v:.3g} VA)"
    if fault_a != "none" and fault_a >= end_a:
        raise ValueError(f"{device.name}: fault_threshold_a = {fault_a:g} can never be reached: {end}")
    if idle_a >= end_a:
        raise ValueError(f"{device.name}: idle_threshold_a = {idle_a:g} can never be left: {end}")
    if fault_a != "none" and fault_a <= idle_a:
        raise ValueError(f"{device.name}: fault_threshold_a = {fault_a:g} is not above idle_threshold_a = {idle_a:g}")


def from_average(device: Device, codes: Sequence[int], volts_per_code: float) -> Told:
    """Return what the samples of a rectified input show.

    >>> told = from_average(Device(name="x", channel=0), [511, 512], 3.3 / 1023)
    >>> told.values
    {'current_a': 0.5834, 'apparent_power_va': 402.52, 'power_w': 402.52, 'state': 'running'}
    """
    mean_v = sum(codes) / len(codes) * volts_per_code
    measured_a = dc_average_a(mean_v, device.amplifier_gain, device.ct_range_amps)
    return _without_voltage(device, calibrated_a(measured_a, device, signed=False), _saturation(device, codes))


def from_wave(
    device: Device, current: Samples, voltage: Samples | None, period_ns: float, volts_per_code: float
) -> Told:
    """Return what some cycles of an input show, and of the voltage channel if there is one.

    Raise `Unusable` where the input rests at an end of its range: its bias, half of VREF, is missing.
    """
    lowest, highest = min(current.codes), max(current.codes)
    if highest <= 1 or lowest >= HIGHEST_CODE - 1:
        end = "0 V" if highest <= 1 else "VREF"
        raise Unusable(
            "out_of_range",
            f"the input rests at {end}: nothing seems connected; check the clamp and its bias of half VREF",
        )
    a_per_code = device.ical_a_per_v * volts_per_code
    rms_a = wave(current, period_ns).rms * a_per_code
    current_a = calibrated_a(without_noise(rms_a, device.noise_floor_a), device, signed=False)
    trouble = _saturation(device, current.codes, low=True)
    if voltage is None:
        return _without_voltage(device, current_a, trouble)
    v_per_code = device.vcal * volts_per_code
    voltage_v = wave(voltage, period_ns).rms * v_per_code
    if not _LOWEST_MAINS_V <= voltage_v <= _HIGHEST_MAINS_V:
        words = (
            f"voltage_channel {device.voltage_channel} shows {voltage_v:.1f} V, which is no mains:"
            " power is left out; plug the transformer in, or correct vcal"
        )
        return Told({"current_a": round(current_a, 4), "state": _state(device, current_a)}, words, "out_of_range")
    try:
        product = mean_product(current, voltage, period_ns, phase_shift_deg=device.phase_shift_deg)
    except ValueError as error:
        raise Unusable("too_slow", f"{error}; give this machine less to do, or raise speed_hz") from error
    # What is too small to be told from nothing has no power either.
    power_w = product * a_per_code * v_per_code * device.current_gain * device.phases if current_a else 0.0
    apparent_va = voltage_v * current_a * device.phases
    values: dict[str, Value] = {
        "current_a": round(current_a, 4),
        "apparent_power_va": round(apparent_va, 2),
        "power_w": round(power_w, 2),
        "voltage_v": round(voltage_v, 2),
    }
    if apparent_va:  # what draws nothing has no power factor
        # Taking the noise out of the current alone may leave it a hair above 1.
        values["power_factor"] = round(max(-1.0, min(1.0, power_w / apparent_va)), 3)
    return Told(values | {"state": _state(device, current_a)}, trouble)


def _without_voltage(device: Device, current_a: float, trouble: str) -> Told:
    apparent_va = device.phases * current_a * device.line_voltage_v
    values: dict[str, Value] = {"current_a": round(current_a, 4), "apparent_power_va": round(apparent_va, 2)}
    if device.assumed_power_factor:
        values["power_w"] = round(apparent_va * device.assumed_power_factor, 2)
    return Told(values | {"state": _state(device, current_a)}, trouble)


def _state(device: Device, current_a: float) -> str:
    if device.fault_threshold_a != "none" and current_a > device.fault_threshold_a:
        return "fault"
    return "idle" if current_a < device.idle_threshold_a else "running"


def _saturation(device: Device, codes: Sequence[float], *, low: bool = False) -> str:
    """Say that a signal is cut off. It is told nevertheless: an overload must not look like an absence."""
    cut = sum(code >= HIGHEST_CODE - 1 or (low and code <= 1) for code in codes)
    if not cut:
        return ""
    if cut == len(codes):
        return "the input rests at VREF: the current is beyond the range, or nothing seems connected; check the clamp"
    share = f"{max(1, round(100 * cut / len(codes)))} % of the samples are at an end of the range"
    smaller = "a smaller burden (and its ical_a_per_v)" if device.mode == "true_rms" else "less amplifier_gain"
    return f"{share}: more flows than is told; it takes a larger clamp or {smaller}"
