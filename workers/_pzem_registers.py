"""What the registers of a PZEM mean: pure decoders, the limits of each model, the codes of the shunts.

Register maps: the makers' manuals of PZEM-003/017 and PZEM-004T v3/014/016. A value of 32 bits has its low word first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from workers._calibration import CalibratedDevice, calibrated_a

ModelName = Literal["017", "003", "004t", "014", "016"]

INPUTS: Final = 4  # function 4 reads the measurements
HOLDINGS: Final = 3  # function 3 reads the settings, function 6 writes one
RESET_ENERGY: Final = 0x42
ADDRESS: Final = 2  # holding register, of every model
SHUNT: Final = 3  # holding register, of the 017 alone
ANY_UNIT: Final = 0xF8  # every unit answers to it: only for a line with a single one
SHUNT_CODE: Final[Mapping[int, int]] = {100: 0, 50: 1, 200: 2, 300: 3}  # amperes at 75 mV
SHUNT_A: Final[Mapping[int, int]] = {code: amperes for amperes, code in SHUNT_CODE.items()}
_ALARM: Final = 0xFFFF
_MOST_ENERGY_WH: Final = 9_999_990  # the AC counters wrap at 9999.99 kWh, the DC ones end at 9999 kWh


@dataclass(frozen=True, slots=True)
class Model:
    """What one model measures."""

    name: str
    is_dc: bool
    rated_current_a: float  # of the 017: its largest shunt
    holdings: int  # settings that it is asked for when it is met, to see that it is what the configuration says

    @property
    def registers(self) -> int:
        return 8 if self.is_dc else 10


MODELS: Final[Mapping[str, Model]] = {
    "017": Model("017", is_dc=True, rated_current_a=300, holdings=4),
    "003": Model("003", is_dc=True, rated_current_a=10, holdings=3),
    "004t": Model("004t", is_dc=False, rated_current_a=100, holdings=0),
    "014": Model("014", is_dc=False, rated_current_a=10, holdings=0),
    "016": Model("016", is_dc=False, rated_current_a=100, holdings=0),
}


class Shown(NamedTuple):
    """What a unit shows, and which of its own alarms is on."""

    values: dict[str, float]
    alarms: tuple[str, ...]


def decode(registers: Sequence[int]) -> Shown:
    """Decode a block of input registers: eight are of a DC model, ten of an AC one.

    >>> decode([0x04EC, 0x0159, 0x10FB, 0, 0x86A0, 1, 0, 0]).values
    {'voltage_v': 12.6, 'current_a': 3.45, 'power_w': 434.7, 'device_energy_wh': 100000.0}
    >>> decode([0x028A, 0, 0, 0, 0x86A0, 1, 0, 0xFFFF]).alarms
    ('its low-voltage alarm is on',)
    >>> decode([0x08FA, 0x1170, 1, 0xDD0E, 1, 0x4240, 15, 0x01F3, 0x64, 0xFFFF]) # doctest: +NORMALIZE_WHITESPACE
    Shown(values={'voltage_v': 229.8, 'current_a': 70.0, 'power_w': 12212.6, 'device_energy_wh': 1000000.0,
    'frequency_hz': 49.9, 'power_factor': 1.0}, alarms=('its power alarm is on',))
    """
    if len(registers) == 8:
        volts, amperes, *_, high, low = registers
        values = {
            "voltage_v": volts / 100,
            "current_a": amperes / 100,
            "power_w": _long(registers[2:4]) / 10,
            "device_energy_wh": float(_long(registers[4:6])),
        }
        on = {"its high-voltage alarm is on": high, "its low-voltage alarm is on": low}
    elif len(registers) == 10:
        values = {
            "voltage_v": registers[0] / 10,
            "current_a": _long(registers[1:3]) / 1000,
            "power_w": _long(registers[3:5]) / 10,
            "device_energy_wh": float(_long(registers[5:7])),
            "frequency_hz": registers[7] / 10,
            "power_factor": registers[8] / 100,
        }
        on = {"its power alarm is on": registers[9]}
    else:
        raise ValueError(f"8 or 10 registers are a measurement, not {len(registers)}")
    return Shown(values, tuple(words for words, word in on.items() if word == _ALARM))


def out_of_range(values: Mapping[str, float], *, is_dc: bool, rated_current_a: float) -> str:
    """Say which value cannot be, or nothing. A margin of a fifth is what a meter may show above its rating.

    >>> out_of_range({"voltage_v": 412.0, "current_a": 1.0, "power_w": 412.0}, is_dc=True, rated_current_a=100)
    'voltage_v 412 is not within 0 and 350'
    """
    most_a = 1.2 * rated_current_a
    limits: dict[str, tuple[float, float]] = {
        "voltage_v": (0, 350) if is_dc else (80, 280),
        "current_a": (0, min(most_a, 330) if is_dc else most_a),
        # Power is averaged by the unit itself and is not volts times amperes of the same instant.
        "power_w": (0, 1.2 * values["voltage_v"] * most_a + 1),
        "device_energy_wh": (0, _MOST_ENERGY_WH),
        "frequency_hz": (45, 65),
        "power_factor": (0, 1),
    }
    for metric, value in values.items():
        least, most = limits[metric]
        if not least <= value <= most:
            return f"{metric} {value:.7g} is not within {least:.4g} and {most:.7g}"
    return ""


def corrected(values: Mapping[str, float], device: CalibratedDevice) -> dict[str, float]:
    """Apply a calibration to the current, and let power follow it.

    The unit's own energy counter stays as it is: corrected, it would jump whenever the correction changes.

    >>> device = CalibratedDevice(name="x", current_gain=1.1, current_offset_a=0.5, noise_floor_a=0.1)
    >>> measured = {"voltage_v": 12.0, "current_a": 10.5, "power_w": 126.0, "device_energy_wh": 7.0}
    >>> corrected(measured, device)
    {'voltage_v': 12.0, 'current_a': 11.0, 'power_w': 132.0, 'device_energy_wh': 7.0}
    >>> corrected(measured | {"current_a": 0.55}, device)["power_w"]
    0.0
    """
    measured_a = values["current_a"]
    current_a = calibrated_a(measured_a, device, signed=False)
    if current_a == measured_a:
        return dict(values)
    if measured_a:
        power_w = values["power_w"] * current_a / measured_a
    else:
        power_w = values["voltage_v"] * current_a * values.get("power_factor", 1.0)
    return {**values, "current_a": round(current_a, 4), "power_w": round(power_w, 2)}


def _long(words: Sequence[int]) -> int:
    low, high = words
    return low | high << 16
