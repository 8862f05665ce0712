"""Collects the numbers of one message: what cannot be true is left out, counted and told, and the rest stays."""

from __future__ import annotations

from typing import Final

from workers._json import Refused, number

Values = dict[str, float | int | str]

# What no meter of a home or a workshop shows. Powers are held against the most that the device can have.
_POWERS: Final = ("power_w", "apparent_power_va", "reactive_power_var")
_RANGES: Final = {
    "voltage_v": (0.0, 500.0),  # 0: behind a relay that is off; 400: between phases
    "current_a": (-1000.0, 1000.0),
    "frequency_hz": (45.0, 65.0),
    "power_factor": (-1.0, 1.0),
    "temperature_c": (-60.0, 200.0),
    "energy_wh": (0.0, 1e11),
    "energy_export_wh": (0.0, 1e11),
    "device_energy_wh": (0.0, 1e11),
    "device_energy_export_wh": (0.0, 1e11),
    "gas_m3": (0.0, 1e7),
    "pulses": (0.0, 2.0**53),
    "cost": (-1e9, 1e9),
    "unit_rate_per_kwh": (-1e5, 1e5),  # in any currency; below zero when there is too much wind
    "standing_charge_per_day": (0.0, 1e6),
}
NUMBERS: Final = frozenset({*_POWERS, *_RANGES})

# How devices write that they have no value just now.
_NOTHING: Final = ("", "-", "---", "null", "none", "unknown", "unavailable")
_LOOK: Final = "check the device and how it is wired"


class Measured:
    """The values of one device, as one message has them."""

    def __init__(self, max_power_w: float) -> None:
        self.values: Values = {}
        self.refused: list[str] = []  # by `vitals.REFUSALS`
        self.troubles: dict[str, str] = {}  # by metric: "what; what now"
        self._max_power_w = max_power_w

    def put(self, metric: str, raw: object, scale: float = 1, name: str = "") -> None:
        """Take a number as it was sent, `scale` times as large in our unit; `name` is what the sender calls it.

        >>> measured = Measured(max_power_w=3680.0)
        >>> measured.put("power_w", "56.2")
        >>> measured.put("device_energy_wh", 4595.563, 1000)
        >>> measured.put("current_a", "unavailable")
        >>> measured.put("voltage_v", 65535, name="Voltage")
        >>> measured.values, measured.refused
        ({'power_w': 56.2, 'device_energy_wh': 4595563.0}, ['out_of_range'])
        >>> measured.troubles["voltage_v"]
        'its Voltage of 65535 V cannot be (0 to 500 V); check the device and how it is wired'
        """
        name = name or metric
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in _NOTHING):
            return
        try:
            value = number(raw.strip() if isinstance(raw, str) else raw, name)
        except Refused as refused:
            if refused.reason == "not_finite":  # only another way to write that there is none
                self.refused.append(refused.reason)
            else:
                self.refuse(metric, refused.reason, f"its {name} is no number")
            return
        if scale != 1:
            value = round(value * scale, 6)
        if metric == "frequency_hz" and value == 0:
            return  # not measured
        low, high = (-self._max_power_w, self._max_power_w) if metric in _POWERS else _RANGES[metric]
        if metric == "pulses" and value % 1:
            self.refuse(metric, "malformed", f"its {name} is no whole number")
            return
        if low <= value <= high:
            self.values[metric] = int(value) if metric == "pulses" else float(value)
            return
        unit = _unit(metric)
        what_now = "set max_power_w of the device if it can be so much" if metric in _POWERS else _LOOK
        self.refuse(
            metric, "out_of_range", f"its {name} of {value:.10g}{unit} cannot be ({low:g} to {high:g}{unit})", what_now
        )

    def refuse(self, metric: str, reason: str, what: str, what_now: str = _LOOK) -> None:
        """Leave a metric out, and say why."""
        self.refused.append(reason)
        self.troubles[metric] = f"{what}; {what_now}"


def _unit(metric: str) -> str:
    """Return the unit that ends a metric, as it stands behind a number.

    >>> _unit("power_w"), _unit("device_energy_wh"), _unit("power_factor")
    (' W', ' Wh', '')
    """
    return _UNITS.get(metric.rpartition("_")[2], "")


_UNITS: Final = {
    "w": " W",
    "va": " VA",
    "var": " var",
    "v": " V",
    "a": " A",
    "hz": " Hz",
    "wh": " Wh",
    "m3": " m³",
    "c": " °C",
}
