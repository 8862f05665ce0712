"""The sums of a calibration: from samples without load and with a known one to the three numbers of a device."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import SourceTable
from workers import _clamp, mcp3008
from workers._calibration import CalibratedDevice, calibrated_a, without_noise
from workers._ina_chip import Device as InaDevice
from workers._pzem_registers import MODELS
from workers._pzem_unit import Device as PzemDevice

_DIGITS: Final = 6
_MOST_AT_REST: Final = 0.10  # of the full scale: more is a load
_MOST_NOISE: Final = 0.05  # of the full scale without load, of the value with one
_LEAST_LOAD: Final = 0.05  # of the full scale
_GAINS: Final = (0.5, 2.0)
_RMS_SCATTER: Final = 1.4  # what is left of noise that is higher than that shows as current


class Refusal(Exception):  # noqa: N818 - a judgement on measurements
    """These samples calibrate nothing: what, and what now."""

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")


@dataclass(frozen=True, slots=True)
class Meter:
    """What has to be known of a device: where it ends, how finely it tells, and how its values are corrected."""

    full_scale_a: float
    step_a: float
    signed: bool  # it tells which way the current flows
    rms: bool  # its noise adds in quadrature


@dataclass(frozen=True, slots=True)
class Calibration:
    """The three numbers of a device; `workers/_calibration.py` has the order in which they are applied."""

    current_gain: float = 1.0
    current_offset_a: float = 0.0
    noise_floor_a: float = 0.0

    def shown_a(self, neutral_a: float, meter: Meter) -> float:
        """Return what a device shows that shows `neutral_a` without calibration.

        >>> Calibration(2.0, 0.5, 0.25).shown_a(3.5, Meter(50, 0.01, signed=False, rms=False))
        6.0
        >>> Calibration(2.0, 0.0, 0.3).shown_a(0.5, Meter(50, 0.01, signed=False, rms=True))
        0.8
        """
        device = CalibratedDevice(
            name="x",
            current_gain=self.current_gain,
            current_offset_a=self.current_offset_a,
            noise_floor_a=self.noise_floor_a,
        )
        clean_a = without_noise(neutral_a, self.noise_floor_a) if meter.rms else neutral_a
        return calibrated_a(clean_a, device, signed=meter.signed)

    def mean_a(self, samples: Sequence[float], meter: Meter) -> float:
        return statistics.fmean(self.shown_a(sample, meter) for sample in samples)


def meter_of(options: SourceTable, device: CalibratedDevice) -> Meter:
    """Return what is known of a device. Raises TypeError for a kind that is not known here."""
    if isinstance(options, mcp3008.Options) and isinstance(device, _clamp.Device):
        full_a = _clamp.ends_at_a(device, options.volts_per_code)
        return Meter(full_a, 0.0001, signed=False, rms=device.mode == "true_rms")
    if isinstance(device, InaDevice):
        return Meter(device.max_current_a, 10e-6 / device.shunt_ohm, signed=True, rms=False)
    if isinstance(device, PzemDevice):
        model = MODELS[device.model]
        rated_a = device.rated_current_a or float(device.shunt_a) or model.rated_current_a
        return Meter(rated_a, 0.01 if model.is_dc else 0.001, signed=False, rms=False)
    raise TypeError(f"the full scale of a {options.kind} is not known")


def zero(samples: Sequence[float], meter: Meter, now: Calibration) -> Calibration:
    """Return a calibration with offset and noise floor from samples without load. Raise `Refusal`.

    >>> zero([0.03, 0.05, 0.04], Meter(50, 0.01, signed=False, rms=False), Calibration(1.5))
    Calibration(current_gain=1.5, current_offset_a=0.04, noise_floor_a=0.024495)
    >>> zero([0.3, 0.3, 0.3], Meter(50, 0.01, signed=False, rms=True), Calibration())
    Calibration(current_gain=1.0, current_offset_a=0.0, noise_floor_a=0.3)
    """
    mean_a, spread_a = statistics.fmean(samples), statistics.pstdev(samples)
    if abs(mean_a) > _MOST_AT_REST * meter.full_scale_a:
        raise Refusal(
            f"{mean_a:.4g} A without load is {abs(mean_a) / meter.full_scale_a:.0%} of its full scale,"
            f" {meter.full_scale_a:.4g} A: that is a load, or a fault",
            "switch the load off, take the clamp off the wire, or look at the wiring",
        )
    root_a = math.sqrt(statistics.fmean(sample**2 for sample in samples))
    noisy = max(map(abs, samples)) > max(_RMS_SCATTER * root_a, meter.step_a) if meter.rms else False
    if noisy or spread_a > _MOST_NOISE * meter.full_scale_a:
        raise Refusal(
            f"it is noisy: {min(samples):.4g} to {max(samples):.4g} A without load",
            "see that nothing switches meanwhile, keep the wires short and away from the mains, check the ground",
        )
    if meter.rms:
        return Calibration(now.current_gain, 0.0, _up(root_a))
    farthest_a = max(abs(sample - mean_a) for sample in samples)
    # What shows exactly the floor is not told as 0, so it lies above the farthest sample.
    return Calibration(now.current_gain, round(mean_a, _DIGITS), _up(max(3 * spread_a, 1.1 * farthest_a)))


def gain(samples: Sequence[float], known_a: float, meter: Meter, now: Calibration) -> Calibration:
    """Return a calibration with the gain that makes `known_a` of samples with a known load. Raise `Refusal`.

    >>> gain([4.9, 5.1], 5.5, Meter(50, 0.01, signed=False, rms=False), Calibration())
    Calibration(current_gain=1.1, current_offset_a=0.0, noise_floor_a=0.0)
    """
    least_a = _LEAST_LOAD * meter.full_scale_a
    neutral = Calibration(1.0, now.current_offset_a, now.noise_floor_a)
    shown = [neutral.shown_a(sample, meter) for sample in samples]
    mean_a, spread_a = statistics.fmean(shown), statistics.pstdev(shown)
    if abs(known_a) > 1.2 * meter.full_scale_a:
        raise Refusal(
            f"{known_a:.4g} A is beyond what it can measure, {meter.full_scale_a:.4g} A", "take a smaller load"
        )
    for what, size_a in (("the known load", known_a), ("what it shows", mean_a)):
        if abs(size_a) < least_a:
            raise Refusal(
                f"{what}, {size_a:.4g} A, is less than 5 % of the full scale, {meter.full_scale_a:.4g} A",
                "take a larger load: a kettle or a heater, and see that it is on and in the right wire",
            )
    if spread_a > _MOST_NOISE * abs(mean_a):
        raise Refusal(
            f"the load is not steady: {min(shown):.4g} to {max(shown):.4g} A",
            "take one that does not switch: a heater or a lamp, not a fridge or a charger",
        )
    factor = known_a / mean_a
    if factor < 0:
        raise Refusal(f"it shows {mean_a:.4g} A, the other way round", "swap the two wires of the shunt")
    if not _GAINS[0] <= factor <= _GAINS[1]:
        raise Refusal(
            f"it shows {mean_a:.4g} A of {known_a:.4g} A; a gain of {factor:.3g} is no calibration (0.5 to 2 is)",
            "correct what the configuration says of the clamp or the shunt first, or the known value",
        )
    return Calibration(round(factor, _DIGITS), now.current_offset_a, now.noise_floor_a)


def expected_error(samples: Sequence[float], meter: Meter, new: Calibration) -> float:
    """Return by what part the corrected value of a load may be off, that of the reference not counted (95 %).

    >>> round(expected_error([4.99, 5.01] * 50, Meter(50, 0.01, signed=False, rms=False), Calibration()), 5)
    0.0014
    """
    shown = [new.shown_a(sample, meter) for sample in samples]
    scatter_a = 2 * statistics.pstdev(shown) / math.sqrt(len(shown))
    return (scatter_a + meter.step_a / 2 * new.current_gain) / abs(statistics.fmean(shown))


def _up(value: float) -> float:
    return math.ceil(round(value * 10**_DIGITS, 3)) / 10**_DIGITS
