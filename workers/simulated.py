"""A house that is not there: its loads, its sun and its meter, for a first look and for tests.

    [sources.demo]
    kind = "simulated"
    enabled = true
    interval_s = 2.0
    seed = 1                 # another number, another house
    speed = 1.0              # seconds of the house in one of ours: 60 shows a day in 24 minutes
    hour_at_boot = 7.0       # the time of day in the house when the machine was started

    [[sources.demo.devices]] # without any: one of each load
    name = "fridge"
    load = "fridge"          # base, fridge, kettle, cooker, washing, solar or house

Everything follows from the seed and the monotonic clock, so a worker that starts again finds the same house, its
counters where they would be. The house meter measures all other devices: negative power is export.
"""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from random import Random
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta

from config.settings import DeviceTable, PolledTable, Positive
from reading import Quality, Reading
from workers import Source

Load = Literal["base", "fridge", "kettle", "cooker", "washing", "solar", "house"]


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a simulated house."""

    load: Load


_ONE_OF_EACH: Final = (
    Device(name="base", load="base"),
    Device(name="fridge", load="fridge"),
    Device(name="kettle", load="kettle"),
    Device(name="cooker", load="cooker"),
    Device(name="washing-machine", load="washing"),
    Device(name="solar", load="solar"),
    Device(name="house-meter", load="house"),
)


class Options(PolledTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "simulated"`."""

    interval_s: Positive = 2.0
    seed: int = 1
    speed: Annotated[float, Meta(gt=0, le=100_000)] = 1.0
    hour_at_boot: Annotated[float, Meta(ge=0, lt=24)] = 7.0
    devices: tuple[Device, ...] = _ONE_OF_EACH

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names:
            raise ValueError("no device is configured: add a [[sources.<name>.devices]] table, or leave out `devices`")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the device {twice[0]} is configured twice: give each device a name of its own")
        if all(device.load == "house" for device in self.devices):
            raise ValueError('there is nothing for the house to measure: add a device with another load than "house"')


class Simulated(Source):
    """Asks the house what each device shows now."""

    Options = Options

    def open(self) -> None:
        self._house = House(self.options)

    def read(self) -> list[Reading]:
        return self._house.readings(time.monotonic_ns())

    def close(self) -> None:
        """There is nothing to let go of."""


class House:
    """The model: a pure function of its options and of the time since boot."""

    def __init__(self, options: Options) -> None:
        self._speed = options.speed
        self._start_ns = round(options.hour_at_boot * 3600 * _SECOND_NS)
        self._loads = {
            device: _Course(_fortnight(device, options.seed)) for device in options.devices if device.load != "house"
        }
        net = list(_sum((-1 if device.load == "solar" else 1, course) for device, course in self._loads.items()))
        self._imported = _Course((second, max(watts, 0)) for second, watts in net)
        self._exported = _Course((second, max(-watts, 0)) for second, watts in net)
        self._meters = [device.name for device in options.devices if device.load == "house"]

    def readings(self, at_ns: int) -> list[Reading]:
        """Return what every device shows at `at_ns` (CLOCK_MONOTONIC)."""
        house_ns = self._start_ns + int(at_ns * self._speed)
        imported, exported = self._imported.at(house_ns), self._exported.at(house_ns)
        net_w = imported.power_w - exported.power_w
        mains = _Mains(_voltage_v(at_ns, net_w), _frequency_hz(at_ns))
        readings = []
        reactive_var = 0.0
        for device, course in self._loads.items():
            now = course.at(house_ns)
            apparent_va = now.power_w / _POWER_FACTOR[device.load]
            reactive_var += math.sqrt(apparent_va**2 - now.power_w**2)
            values = mains.values(now.power_w, apparent_va) | {"device_energy_wh": self._energy_wh(now)}
            readings.append(Reading(device.name, at_ns, values, Quality.SIMULATED))
        for name in self._meters:
            values = mains.values(net_w, math.hypot(net_w, reactive_var)) | {
                "device_energy_wh": self._energy_wh(imported),
                "device_energy_export_wh": self._energy_wh(exported),
            }
            readings.append(Reading(name, at_ns, values, Quality.SIMULATED))
        return readings

    def _energy_wh(self, now: _Now) -> float:
        """Return a counter in watt-hours of our time, so that it agrees with power at whatever speed."""
        return round(now.energy_w_ns / (3600 * _SECOND_NS * self._speed), 3)


_DAYS: Final = 14  # then the same days come again: a counter of years costs no more than one of minutes
_DAY_S: Final = 86_400
_SECOND_NS: Final = 10**9
_PERIOD_NS: Final = _DAYS * _DAY_S * _SECOND_NS

_Step = tuple[int, int]  # from this second on, so many watts


class _Now(NamedTuple):
    power_w: int
    energy_w_ns: int  # whole numbers, so that a counter is exactly the integral and never falls


class _Course:
    """Power in steps over a fortnight, for ever again.

    >>> course = _Course([(0, 100), (3600, 0)])
    >>> [(now.power_w, now.energy_w_ns / 3.6e12) for now in map(course.at, (0, 1800 * 10**9, 7200 * 10**9, _PERIOD_NS))]
    [(100, 0.0), (100, 50.0), (0, 100.0), (100, 100.0)]
    """

    def __init__(self, steps: Iterable[_Step]) -> None:
        self._seconds = array("q")
        self._watts = array("q")
        for second, watts in steps:
            self._seconds.append(second)
            self._watts.append(watts)
        ends = [*self._seconds[1:], _DAYS * _DAY_S]
        spent = (w * (end - begin) for w, begin, end in zip(self._watts, self._seconds, ends, strict=True))
        self._joules = array("q", accumulate(spent, initial=0))

    def at(self, time_ns: int) -> _Now:
        rounds, rest_ns = divmod(time_ns, _PERIOD_NS)
        step = bisect_right(self._seconds, rest_ns // _SECOND_NS) - 1
        watts = self._watts[step]
        joules = rounds * self._joules[-1] + self._joules[step]
        return _Now(watts, joules * _SECOND_NS + watts * (rest_ns - self._seconds[step] * _SECOND_NS))

    def steps(self) -> Iterator[_Step]:
        return zip(self._seconds, self._watts, strict=True)


def _sum(parts: Iterable[tuple[int, _Course]]) -> Iterator[_Step]:
    """Add courses, each with its sign, up to one."""
    changes: dict[int, int] = defaultdict(int)
    for sign, course in parts:
        before = 0
        for second, watts in course.steps():
            changes[second] += sign * (watts - before)
            before = watts
    total = 0
    for second in sorted(changes):
        total += changes[second]
        yield second, total


def _fortnight(device: Device, seed: int) -> Iterator[_Step]:
    for day in range(_DAYS):
        chance = Random(f"{seed} {device.name} {day}")  # noqa: S311 - a house, not a secret
        for second, watts in _A_DAY[device.load](day, chance):
            yield day * _DAY_S + second, watts


def _base(_: int, chance: Random) -> Iterator[_Step]:
    """Router, standby and chargers; lamps and a screen in the evening. A step every quarter of an hour."""
    for second in range(0, _DAY_S, 900):
        hour = second / 3600
        watts = 75 + chance.randrange(25)
        if 6.5 <= hour < 8.5:
            watts += 60 + chance.randrange(40)
        if 17.5 <= hour < 23:
            watts += 150 + chance.randrange(120)
        yield second, watts


def _fridge(_: int, chance: Random) -> Iterator[_Step]:
    """A compressor that runs for about a third of the time."""
    second = 0
    while second < _DAY_S:
        yield second, 2
        second += chance.randrange(1500, 2400)
        for duration_s, watts in ((15, 135), (chance.randrange(700, 1100), 88 + chance.randrange(8))):
            if second < _DAY_S:
                yield second, watts
            second += duration_s


def _kettle(day: int, chance: Random) -> Iterator[_Step]:
    """Three kilowatts for some minutes, at the hours of tea."""
    runs = [
        (_around(hour, 0.4, chance), [(chance.randrange(100, 260), chance.randrange(2880, 3020))])
        for hour in (6.8, 7.6, 10.5, 13.0, 16.0, 19.5, 21.5)
        if chance.random() < (0.9 if _weekend(day) else 0.7)
    ]
    return _runs(runs, idle_w=0)


def _cooker(day: int, chance: Random) -> Iterator[_Step]:
    """An oven heats up, then its thermostat switches; in the evening, at weekends also at noon."""
    runs = []
    for hour in (12.3, 18.3) if _weekend(day) else (18.3,):
        if chance.random() < 0.85:
            program = [(chance.randrange(480, 780), 2350)]
            for _ in range(chance.randrange(12, 25)):
                program += [(chance.randrange(60, 100), 60), (chance.randrange(40, 70), 2350)]
            runs.append((_around(hour, 0.5, chance), program))
    return _runs(runs, idle_w=3)


def _washing(_: int, chance: Random) -> Iterator[_Step]:
    """Every second or third day: it heats, turns to and fro, and spins."""
    runs = []
    if chance.random() < 0.4:
        program = [(240, 40), (chance.randrange(800, 1300), 2050)]
        for _ in range(60):
            program += [(12, 210), (18, 15)]
        runs.append((_around(10.5, 1.5, chance), [*program, (420, 380), (120, 60)]))
    return _runs(runs, idle_w=1)


def _solar(_: int, chance: Random) -> Iterator[_Step]:
    """Panels of 2.4 kW under a sun from half past five to half past eight, and under clouds. A step a minute."""
    rise_s, set_s = int(5.5 * 3600), int(20.5 * 3600)
    darkest = chance.uniform(0.1, 0.9)  # what the clouds of this day let through at worst
    clouds = [chance.uniform(darkest, 1) for _ in range(rise_s, set_s + 901, 900)]
    yield 0, 0
    for second in range(rise_s, set_s, 60):
        quarter, into_s = divmod(second - rise_s, 900)
        sun = clouds[quarter] + (clouds[quarter + 1] - clouds[quarter]) * into_s / 900
        height = math.sin(math.pi * (second - rise_s) / (set_s - rise_s))
        yield second, round(2400 * height**1.3 * sun)
    yield set_s, 0


def _runs(runs: Iterable[tuple[int, list[tuple[int, int]]]], idle_w: int) -> Iterator[_Step]:
    """Lay runs (their start, then seconds and watts of each part) into one day, none before the last one's end."""
    yield 0, idle_w
    end = 1
    for start, program in runs:
        second = max(start, end)
        for duration_s, watts in program:
            if second < _DAY_S:
                yield second, watts
            second += duration_s
        if second < _DAY_S:
            yield second, idle_w
        end = second + 1


def _around(hour: float, spread_h: float, chance: Random) -> int:
    return round(3600 * (hour + chance.uniform(-spread_h, spread_h)))


def _weekend(day: int) -> bool:
    return day % 7 >= 5


class _Mains(NamedTuple):
    voltage_v: float
    frequency_hz: float

    def values(self, power_w: int, apparent_va: float) -> dict[str, float]:
        """Return what a meter shows that lets so much through."""
        values = {
            "power_w": float(power_w),
            "voltage_v": round(self.voltage_v, 1),
            "current_a": round(apparent_va / self.voltage_v, 3),
            "frequency_hz": round(self.frequency_hz, 2),
        }
        if apparent_va:  # what draws nothing has no power factor
            values["power_factor"] = round(power_w / apparent_va, 3)
        return values


def _voltage_v(at_ns: int, net_w: int) -> float:
    """The mains: it wanders, and sinks under the load of the house (0.3 Ω)."""
    t = at_ns / _SECOND_NS
    return 233 + 2.5 * math.sin(t / 4111) + 0.8 * math.sin(t / 197) + 0.3 * math.sin(t / 11) - 0.3 * net_w / 233


def _frequency_hz(at_ns: int) -> float:
    t = at_ns / _SECOND_NS
    return 50 + 0.04 * math.sin(t / 61) + 0.02 * math.sin(t / 17)


_A_DAY: Final[dict[Load, Callable[[int, Random], Iterator[_Step]]]] = {
    "base": _base,
    "fridge": _fridge,
    "kettle": _kettle,
    "cooker": _cooker,
    "washing": _washing,
    "solar": _solar,
}
_POWER_FACTOR: Final[dict[Load, float]] = {
    "base": 0.92,
    "fridge": 0.85,
    "kettle": 1.0,
    "cooker": 0.99,
    "washing": 0.95,
    "solar": 1.0,
}
