"""The calibration that every current sensor shares: three numbers a device, all measured while they are neutral.

They are applied in this order, so that each can be measured without knowing the ones after it:

1. `noise_floor_a`, true RMS only: noise adds to an RMS value in quadrature, and is taken out the same way.
2. `current_offset_a`, what the sensor shows at no load, is subtracted.
3. What is now smaller than `noise_floor_a` is told as 0: it cannot be told from nothing.
4. `current_gain` multiplies. It is the true current of a known load, divided by what step 2 leaves of it.

The first two are in amperes as the sensor shows them without calibration. Power follows the calibrated current.
"""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

from config.settings import DeviceTable


class CalibratedDevice(DeviceTable, frozen=True, kw_only=True):
    """A `[[sources.<name>.devices]]` table of a source that measures current."""

    current_gain: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    current_offset_a: Annotated[float, Meta(ge=-1000, le=1000)] = 0.0
    noise_floor_a: Annotated[float, Meta(ge=0, le=1000)] = 0.0


def without_noise(rms_a: float, noise_floor_a: float) -> float:
    """Take noise out of an RMS current (step 1).

    >>> without_noise(0.5, 0.3), without_noise(0.2, 0.3)
    (0.4, 0.0)
    """
    return math.sqrt(max(rms_a**2 - noise_floor_a**2, 0.0))


def calibrated_a(measured_a: float, device: CalibratedDevice, *, signed: bool) -> float:
    """Apply steps 2 to 4. `signed`: the sensor tells which way the current flows, so that below zero is no error.

    >>> device = CalibratedDevice(name="x", current_gain=2.0, current_offset_a=0.5, noise_floor_a=0.25)
    >>> [calibrated_a(amps, device, signed=True) for amps in (3.5, 0.625, 0.25, 0.0)]
    [6.0, 0.0, -0.5, -1.0]
    >>> [calibrated_a(amps, device, signed=False) for amps in (3.5, 0.625, 0.25, 0.0)]
    [6.0, 0.0, 0.0, 0.0]
    """
    current_a = measured_a - device.current_offset_a
    size_a = abs(current_a) if signed else current_a
    return 0.0 if size_a < device.noise_floor_a or (not signed and current_a < 0) else current_a * device.current_gain
