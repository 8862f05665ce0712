"""One channel of a pulse source: its table, what follows from it, and what is reported of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from config.settings import DeviceTable, Positive
from reading import Quality, Reading, Value
from workers._gpio import Line
from workers._pulse import S0_MOST_HZ, Rules, Tally, interval_s, s0_most_w

Type = Literal["import", "export", "generate"]
_NotNegative = Annotated[float, Meta(ge=0)]

_LINES: Final[dict[Type, int]] = {"import": 20, "export": 26, "generate": 21}
_MIN_PULSE_MS: Final = {"s0": 10.0, "led": 2.0}
_STUCK_NS: Final = 10 * 10**9  # a pulse lasts well under a second
_UNSTUCK_NS: Final = 20 * 10**9  # an inverted line would come and go with each pulse


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a pulse source: one channel."""

    type: Type = "import"
    line: Annotated[int, Meta(ge=0)] | str = "auto"
    output: Literal["s0", "led"] = "s0"
    edge: Literal["falling", "rising"] = "falling"
    bias: Literal["pull_up", "pull_down", "none"] = "pull_up"
    active_low: bool = False
    imp_per_kwh: Positive = 1000.0
    ct_ratio: Positive = 1.0
    max_power_w: Positive = 25_000.0
    min_pulse_ms: _NotNegative | Literal["auto"] = "auto"
    min_interval_ms: _NotNegative | Literal["auto"] = "auto"
    timeout_s: Positive = 300.0

    def __post_init__(self) -> None:
        if self.fastest_ms <= self.shortest_ms:
            raise ValueError(
                f"min_pulse_ms of {self.shortest_ms:g} rejects pulses that come every {self.fastest_ms:.1f} ms, as at "
                f"max_power_w of {self.max_power_w:,.0f}: lower one of the two"
            )
        if self.min_interval_ms != "auto" and self.min_interval_ms >= self.fastest_ms:
            raise ValueError(
                f"min_interval_ms of {self.min_interval_ms:g} rejects pulses that come every {self.fastest_ms:.1f} ms, "
                f"as at max_power_w of {self.max_power_w:,.0f}: lower one of the two"
            )

    @property
    def where(self) -> int | str:
        """The line: the one of the type if none is named."""
        return _LINES[self.type] if self.line == "auto" else self.line

    @property
    def fastest_ms(self) -> float:
        """Between two pulses at the highest power."""
        return 1000 * interval_s(self.imp_per_kwh, self.ct_ratio, self.max_power_w)

    @property
    def shortest_ms(self) -> float:
        """What a pulse must last to be one."""
        return _MIN_PULSE_MS[self.output] if self.min_pulse_ms == "auto" else self.min_pulse_ms

    @property
    def wanted(self) -> Line:
        both = self.shortest_ms > 0
        return Line(line=self.where, edge=self.edge, both=both, bias=self.bias, active_low=self.active_low)

    @property
    def rules(self) -> Rules:
        nearest_ms = self.fastest_ms / 2 if self.min_interval_ms == "auto" else self.min_interval_ms
        return Rules(
            lead=self.wanted.lead,
            both=self.wanted.both,
            min_pulse_ns=round(self.shortest_ms * 1e6),
            min_interval_ns=round(nearest_ms * 1e6),
            timeout_ns=round(self.timeout_s * 1e9),
        )

    @property
    def wh_per_pulse(self) -> float:
        return 1000 * self.ct_ratio / self.imp_per_kwh

    @property
    def beyond_s0(self) -> str:
        """Say that an S0 output cannot tell the highest power, or nothing.

        >>> Device(name="import", imp_per_kwh=3200).beyond_s0
        'an S0 output gives 16.7 pulses a second at most, 25,000 W would be 22.2; set max_power_w = 18750 or less'
        >>> Device(name="import").beyond_s0
        ''
        """
        if self.output != "s0" or self.fastest_ms >= 1000 / S0_MOST_HZ - 1e-6:
            return ""
        most_w = s0_most_w(self.imp_per_kwh, self.ct_ratio)
        return (
            f"an S0 output gives {S0_MOST_HZ:.1f} pulses a second at most, {self.max_power_w:,.0f} W would be "
            f"{1000 / self.fastest_ms:.1f}; set max_power_w = {int(most_w + 1e-6)} or less"
        )


class Channel:
    """What is reported of one channel, and when."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.name = device.name
        self.rules = device.rules
        self.lost = 0  # edges, since the last report
        self._shown: bool | None = None  # whether power flowed when it was reported last; None: that was not known
        self._active_since_ns = 0
        self._stuck_ns = 0

    def report(self, tally: Tally, now_ns: int, *, due: bool) -> Reading | None:
        """Return the power and the count, if that is due or the state has changed since it was shown."""
        power_w = tally.power_w(now_ns, self.rules)
        state = None if power_w is None else power_w > 0
        if not (due or self.lost or state != self._shown):
            return None
        quality = Quality.ESTIMATED if self.lost else Quality.MEASURED
        self._shown, self.lost = state, 0
        return Reading(self.name, now_ns, self._values(tally, power_w), quality)

    def _values(self, tally: Tally, power_w: float | None) -> dict[str, Value]:
        """Power that flows out of the house is negative, as everywhere; its energy has a counter of its own."""
        exports = self.device.type == "export"
        values: dict[str, Value] = {} if power_w is None else {"power_w": -power_w if exports and power_w else power_w}
        energy_wh = tally.pulses * 1000 * self.device.ct_ratio / self.device.imp_per_kwh
        return values | {
            "pulses": tally.pulses,
            "device_energy_export_wh" if exports else "device_energy_wh": energy_wh,
        }

    def trouble(self, tally: Tally, level: bool | None, now_ns: int) -> str:
        """Say what is wrong with it, or nothing. `level`: whether its line looks like a pulse just now."""
        if self.rules.both:
            self._active_since_ns = tally.seen_ns if tally.active else 0
        elif not level:
            self._active_since_ns = 0
        elif not self._active_since_ns or tally.seen_ns > self._active_since_ns:
            self._active_since_ns = now_ns
        if self._active_since_ns and now_ns - self._active_since_ns > _STUCK_NS:
            self._stuck_ns = now_ns
        if self._stuck_ns and now_ns - self._stuck_ns < _UNSTUCK_NS:
            other = "rising" if self.device.edge == "falling" else "falling"
            return (
                "the line stays at the level of a pulse for more than 10 s; look for a short circuit or a sensor that "
                f'is always lit, or set edge = "{other}" if the output is the other way round'
            )
        return self.device.beyond_s0
