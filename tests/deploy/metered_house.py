"""A house of ten days whose energy is known to the microwatt-hour, read as real meters are: not always, not evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reading import Record

DAY_S = 86_400
PRICE_PER_WH = 0.0002703
Load = Callable[[int], int]  # watts from a second on until the next minute


def _fridge(at_s: int) -> int:
    return 90 if at_s // 1200 % 3 == 0 else 3


def _cooker(at_s: int) -> int:
    return 2400 if at_s % DAY_S // 1800 in (36, 15) else 0


def _microwave(at_s: int) -> int:
    return 1100 if at_s % 7200 < 300 else 2


def _sun(at_s: int) -> int:
    return 3000 if 10 <= at_s % DAY_S // 3600 < 14 else 0


def _use(at_s: int) -> int:
    return 150 + _fridge(at_s) + _cooker(at_s) + _microwave(at_s)


PARTS: dict[str, Load] = {"kasa/fridge": _fridge, "circuit/cooker": _cooker, "circuit/microwave": _microwave}
HOUSE = "meter/esp32-meter"
GAS = "glow/gas"


@dataclass
class MeteredHouse:
    """Everything from `from_s` to `until_s`, and what is true about it."""

    from_s: int
    until_s: int
    registers: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)  # channel, metric: by second

    def __post_init__(self) -> None:
        self.from_s -= self.from_s % 60
        for channel, load in PARTS.items():
            self._count(channel, "energy_wh", load)
        self._count(HOUSE, "energy_wh", lambda at_s: max(_use(at_s) - _sun(at_s), 0))
        self._count(HOUSE, "energy_export_wh", lambda at_s: max(_sun(at_s) - _use(at_s), 0))
        self._count(HOUSE, "cost", lambda at_s: max(_use(at_s) - _sun(at_s), 0), PRICE_PER_WH)
        self._count(GAS, "gas_m3", lambda at_s: 1 if at_s % DAY_S // 3600 in (6, 7, 18) else 0, 0.8)
        self._count(GAS, "energy_wh", lambda at_s: 1 if at_s % DAY_S // 3600 in (6, 7, 18) else 0, 8900.0)

    def _count(self, channel: str, metric: str, load: Load, each: float = 1.0) -> None:
        """Keep the register at each half minute; it begins as one that has run for years."""
        total, known = 0, {}
        for at_s in range(self.from_s, self.until_s + 1, 30):
            known[at_s] = 1_000_000.0 * each + total / 120 * each
            total += load(at_s - at_s % 60)
        self.registers[channel, metric] = known

    def between(self, channel: str, metric: str, from_s: int, until_s: int) -> float:
        """What a register rose by, seen at half minutes."""
        known = self.registers[channel, metric]
        return known[min(until_s, self.until_s) // 30 * 30] - known[max(from_s, self.from_s) // 30 * 30]

    def power_w(self, channel: str, at_s: int) -> float:
        at_s -= at_s % 60
        return float(PARTS[channel](at_s) if channel in PARTS else _use(at_s) - _sun(at_s))

    def records(self, *, silent: range = range(0)) -> Iterator[Record]:
        """Read every half minute of the last two days and every minute before that; gas by the half hour."""
        for at_s in range(self.from_s, self.until_s + 1, 30):
            if (at_s % 60 and at_s < self.until_s - 2 * DAY_S) or at_s in silent:
                continue
            for channel in (HOUSE, *PARTS, GAS):
                values = {metric: known[at_s] for (of, metric), known in self.registers.items() if of == channel}
                if channel == GAS and at_s % 1800:
                    continue
                if channel != GAS:
                    values["power_w"] = self.power_w(channel, at_s)
                if channel == HOUSE:
                    values |= {"voltage_v": 231.0 + at_s % 7, "frequency_hz": 50.0}
                source, device = channel.split("/")
                yield Record(source, device, at_s * 10**9, values)
