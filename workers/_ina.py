"""The INA family as its datasheets describe it: what each model can measure, its settings, and its registers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

ModelName = Literal["ina219", "ina226", "ina260", "ina3221"]

CONFIG: Final = 0x00
SHUNT: Final = 0x01
BUS: Final = 0x02
POWER: Final = 0x03
CURRENT: Final = 0x04
CALIBRATION: Final = 0x05
MANUFACTURER_ID: Final = 0xFE
DIE_ID: Final = 0xFF
TEXAS_INSTRUMENTS: Final = 0x5449
RESET: Final = 0x8000  # in CONFIG
_MEASURE_ONCE: Final = 3  # shunt and bus: nothing then changes between two registers that belong together
_COUNTS: Final = (1, 4, 16, 64, 128, 256, 512, 1024)  # what all but the INA219 can average
_588_US: Final = 3  # one conversion of all but the INA219, near to its 532 µs


@dataclass(frozen=True, slots=True)
class Model:
    """What differs between the models. An INA260 measures current itself: 1.25 mA, here as 2.5 µV on its 2 mΩ."""

    name: ModelName
    die_id: int | None  # without its last digit, the revision; the INA219 has none
    reset_config: int
    ours: int  # the bits of CONFIG that are settings and stay as they were written
    shunt_step_v: float
    shunt_end: int  # the last step: a shunt voltage there may be any larger one
    shunt_shift: int
    bus_step_v: float
    bus_shift: int
    most_bus_v: float  # what the chip stands
    flags: int  # the register with the ready flag
    ready: int
    overflow: int
    calibration_v: float  # the datasheet's constant, 0 without a calibration register
    current_divisor: int = 1
    own_shunt_ohm: float | None = None
    most_current_a: float = math.inf


MODELS: Final[dict[ModelName, Model]] = {
    model.name: model
    for model in (
        # SBOS448
        Model(
            "ina219", None, 0x399F, 0x3FF8, 10e-6, 32000, 0, 4e-3, 3, 26.0, BUS, 1 << 1, 1 << 0, 0.04096, 4096
        ),
        # SBOS547
        Model(
            "ina226", 0x2260, 0x4127, 0x0FF8, 2.5e-6, 0x7FFF, 0, 1.25e-3, 0, 36.0, 6, 1 << 3, 1 << 2, 0.00512, 2048
        ),
        # SBOS656
        Model(
            "ina260", 0x2270, 0x6127, 0x0FF8, 2.5e-6, 0x7FFF, 0, 1.25e-3, 0, 36.0, 6, 1 << 3, 1 << 2, 0.0,
            own_shunt_ohm=0.002, most_current_a=15.0,
        ),
        # SBOS576
        Model(
            "ina3221", 0x3220, 0x7127, 0x7FF8, 40e-6, 4095, 3, 8e-3, 3, 26.0, 0x0F, 1 << 0, 0, 0.0
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What is written into a chip before it measures, and what that means for its answers."""

    config: int
    calibration: int  # 0: there is no such register
    shunt_end: int  # in steps
    conversion_s: float


def settings(
    model: Model, *, shunt_ohm: float, max_current_a: float, averaging: int, channels: frozenset[int] = frozenset({1})
) -> Settings:
    """Return the settings for a shunt and the largest current on it.

    >>> adafruit = settings(MODELS["ina219"], shunt_ohm=0.1, max_current_a=3.2, averaging=1)
    >>> hex(adafruit.config), hex(adafruit.calibration)
    ('0x399b', '0x1000')
    >>> hex(settings(MODELS["ina219"], shunt_ohm=0.1, max_current_a=3.2, averaging=128).config)
    '0x3ffb'
    """
    calibration = 0
    if model.calibration_v:
        # The largest current is 32,000 of 32,767 steps: 3.2 A on 0.1 Ω then are the 100 µA that everybody has.
        exact = model.calibration_v * 32000 / (max_current_a * shunt_ohm)
        calibration = min(max(int(exact + 1e-6), 2), 0xFFFF) & 0xFFFE  # bit 0 cannot be written
    if model.name == "ina219":
        gain = next((gain for gain in range(4) if max_current_a * shunt_ohm <= 0.040001 * 2**gain), 3)
        adc = 3 if averaging == 1 else 8 + int(math.log2(averaging))
        config = 1 << 13 | gain << 11 | adc << 7 | adc << 3 | _MEASURE_ONCE  # 32 V; 40 mV times 2^gain
        return Settings(config, calibration, 4000 << gain, 2 * averaging * 532e-6)
    setting = next(index for index, count in enumerate(_COUNTS) if count >= averaging)
    config = setting << 9 | _588_US << 6 | _588_US << 3 | _MEASURE_ONCE
    conversion_s = 2 * _COUNTS[setting] * 588e-6
    if model.name == "ina3221":
        enabled = sum(1 << (15 - channel) for channel in channels)
        return Settings(enabled | config, 0, model.shunt_end, conversion_s * len(channels))
    return Settings(model.reset_config & 0x7000 | config, calibration, model.shunt_end, conversion_s)


def widest_shunt_v(model: Model) -> float:
    """Return the largest shunt voltage.

    >>> {name: widest_shunt_v(model) for name, model in MODELS.items()}
    {'ina219': 0.32, 'ina226': 0.0819175, 'ina260': 0.0819175, 'ina3221': 0.1638}
    """
    return round(model.shunt_end * model.shunt_step_v, 9)


def ends_at_a(model: Model, shunt_ohm: float) -> float:
    """Return the largest current that a model can measure with a shunt.

    >>> [round(ends_at_a(model, 0.1), 3) for model in MODELS.values()]
    [3.2, 0.819, 15.0, 1.638]
    """
    return min(widest_shunt_v(model) / (model.own_shunt_ohm or shunt_ohm), model.most_current_a)


class Measured(NamedTuple):
    """What the registers of one channel say."""

    current_a: float
    voltage_v: float
    at_end: bool  # of the range of the shunt voltage: the current may be any larger one
    agrees: bool  # with what the chip made of it, as far as it has a calibration


def measured(
    model: Model, chosen: Settings, *, shunt: int, bus: int, current: int | None = None, shunt_ohm: float = 0.1
) -> Measured:
    """Return what registers mean; the current is ours, of the shunt voltage, and register 4 is only compared.

    >>> chosen = settings(MODELS["ina219"], shunt_ohm=0.1, max_current_a=3.2, averaging=1)
    >>> for dump in ((0x0C80, 0x5DC2, 0x0C80), (0xFBE6, 0x2712, 0xFBE6), (0x7D00, 0xBB82, 0x7D00), (0x0C80, 0x5DC2, 0)):
    ...     one = measured(MODELS["ina219"], chosen, shunt=dump[0], bus=dump[1], current=dump[2])
    ...     print(f"{one.current_a:.4f} A {one.voltage_v:.3f} V", one.at_end, one.agrees)
    0.3200 A 12.000 V False True
    -0.1050 A 5.000 V False True
    3.2000 A 24.000 V True True
    0.3200 A 12.000 V False False
    """
    steps = signed(shunt) >> model.shunt_shift
    current_a = steps * model.shunt_step_v / (model.own_shunt_ohm or shunt_ohm)
    bus_steps = bus >> model.bus_shift if model.name == "ina219" else signed(bus) >> model.bus_shift
    agrees = True
    if current is not None and chosen.calibration:
        expected = steps * chosen.calibration / model.current_divisor
        agrees = abs(signed(current) - expected) <= 4 + 0.02 * abs(expected)
    return Measured(current_a, bus_steps * model.bus_step_v, abs(steps) >= chosen.shunt_end, agrees)


def signed(word: int) -> int:
    """Read a register as a two's complement.

    >>> signed(0xFBE6), signed(0x7FFF), signed(0x8000)
    (-1050, 32767, -32768)
    """
    return word - 0x10000 if word & 0x8000 else word


def swapped(word: int) -> int:
    """Turn a word of SMBus, which sends the low byte first, into one of the INA family, which sends the high one first.

    >>> hex(swapped(0xC25D)), hex(swapped(0x800C))
    ('0x5dc2', '0xc80')
    """
    return (word & 0xFF) << 8 | word >> 8


def keeps(model: Model, chosen: Settings, config: int) -> bool:
    """Tell whether CONFIG still says what was written; its mode and its reserved bits may differ.

    >>> chosen = settings(MODELS["ina226"], shunt_ohm=0.01, max_current_a=8.0, averaging=16)
    >>> keeps(MODELS["ina226"], chosen, chosen.config & ~7), keeps(MODELS["ina226"], chosen, 0x4127)
    (True, False)
    """
    return (config ^ chosen.config) & model.ours == 0
