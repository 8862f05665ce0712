"""What the user says of numbers that do not say it themselves: where each stands, what it is, in which unit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from config.settings import Table
from workers._measured import NUMBERS, Measured

# How large each unit is in ours. The first metric of a row is what a number of that unit is when no metric is given.
_UNITS: Final = (
    (("power_w",), {"mW": 0.001, "W": 1, "kW": 1000, "MW": 1e6, "pulses/min": 0}),
    (("apparent_power_va",), {"VA": 1, "kVA": 1000}),
    (("reactive_power_var",), {"var": 1, "kvar": 1000}),
    (("device_energy_wh", "device_energy_export_wh"), {"Wmin": 1 / 60, "Wh": 1, "kWh": 1000, "MWh": 1e6}),
    (("voltage_v",), {"mV": 0.001, "V": 1, "kV": 1000}),
    (("current_a",), {"mA": 0.001, "A": 1}),
    (("frequency_hz",), {"Hz": 1}),
    (("power_factor",), {"%": 0.01}),
    (("temperature_c",), {"°C": 1}),
    (("gas_m3",), {"m³": 1, "m3": 1, "L": 0.001}),
    (("pulses",), {"pulses": 1}),
)
_METRIC: Final = {unit: metrics[0] for metrics, units in _UNITS for unit in units}
_SIZE: Final = {(metric, unit): size for metrics, units in _UNITS for metric in metrics for unit, size in units.items()}
METRICS: Final = tuple(sorted(NUMBERS - {"energy_wh", "energy_export_wh", "cost"}))  # those are what we count ourselves

_STEP: Final = re.compile(r"([^.\[\]]+)((?:\[\d{1,4}\])*)(?:\.(?=.)|$)|((?:\[\d{1,4}\])+)(?:\.(?=.)|$)")
_MOST_STEPS: Final = 32


class Value(Table, frozen=True, kw_only=True):
    """An item of `values`: one number of a device."""

    path: str = ""  # json: where it stands, "ENERGY.Power[0]", "" for a bare number; esphome: the sensor in its topic
    metric: str = ""  # without it the unit tells
    unit: str = ""  # as it is sent; without it the metric's own
    scale: float = 1.0  # what the number is multiplied with besides

    def __post_init__(self) -> None:
        if not self.metric and self.unit not in _METRIC:
            raise ValueError(f"it needs a metric ({', '.join(METRICS)}) or a unit ({', '.join(_METRIC)})")
        if self.metric and self.metric not in METRICS:
            raise ValueError(f"there is no metric {self.metric!r}: choose one of {', '.join(METRICS)}")
        if self.unit and (self.meaning, self.unit) not in _SIZE:
            fitting = [unit for metric, unit in _SIZE if metric == self.meaning]
            units = f"choose one of {', '.join(fitting)}" if fitting else "leave it out and use scale"
            raise ValueError(f"{self.meaning} has no unit {self.unit!r}: {units}")
        if not 1e-9 <= abs(self.scale) <= 1e9:
            raise ValueError(f"a scale of {self.scale:g} cannot be meant")
        if len(list(steps(self.path))) > _MOST_STEPS:
            raise ValueError(f"its path has more than {_MOST_STEPS} steps")

    @property
    def meaning(self) -> str:
        """The metric that the number is."""
        return self.metric or _METRIC[self.unit]

    def put(self, measured: Measured, raw: object, pulses_per_kwh: float) -> None:
        """Take the number as it was sent.

        >>> measured = Measured(25000.0)
        >>> Value(unit="pulses/min").put(measured, "24.9", pulses_per_kwh=1000)
        >>> Value(unit="pulses").put(measured, "91234", pulses_per_kwh=1000)
        >>> measured.values
        {'power_w': 1494.0, 'pulses': 91234, 'device_energy_wh': 91234.0}
        """
        size = 60_000 / pulses_per_kwh if self.unit == "pulses/min" else _SIZE.get((self.meaning, self.unit), 1)
        measured.put(self.meaning, raw, size * self.scale, name=self.path)
        if self.meaning == "pulses" and "pulses" in measured.values:
            measured.put("device_energy_wh", measured.values["pulses"], 1000 / pulses_per_kwh, name=self.path)


def steps(path: str) -> Iterator[str | int]:
    """Return the names and the places in lists that lead to a number, from the outermost; raise `ValueError`.

    >>> list(steps("ENERGY.Power[0]")), list(steps("[1].value")), list(steps(""))
    (['ENERGY', 'Power', 0], [1, 'value'], [])
    """
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise ValueError(f'the path {path!r} cannot be read: write it like "ENERGY.Power[0]"')
        if step[1]:
            yield step[1]
        yield from (int(place) for place in re.findall(r"\d+", step[2] or step[3] or ""))
        at = step.end()


def found(content: Any, path: str) -> Any:
    """Return what stands at a path of parsed JSON, None where there is nothing.

    >>> content = {"ENERGY": {"Power": [52, 5]}}
    >>> found(content, "ENERGY.Power[1]"), found(content, "ENERGY.Power[2]"), found(content, "ENERGY.Power.x")
    (5, None, None)
    """
    for step in steps(path):
        if isinstance(step, str):
            content = content.get(step) if isinstance(content, dict) else None
        else:
            content = content[step] if isinstance(content, list) and step < len(content) else None
    return content
