"""The simulated house: the same house again after every start, and counters that are the integral of power."""

from __future__ import annotations

import math
import time
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workers.simulated
from reading import METRICS, Quality, Reading
from workers import source_class
from workers.simulated import Device, House, Options, Simulated

SECOND_NS = 10**9
DAY_S = 86_400
FORTNIGHT_S = 14 * DAY_S


def options(**changes: Any) -> Options:
    return msgspec.convert({"kind": "simulated", **changes}, Options)


HOUSE = House(options())


def by_device(readings: list[Reading]) -> dict[str, dict[str, Any]]:
    return {reading.device: dict(reading.values) for reading in readings}


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.simulated.__doc__ or "").splitlines() if line.startswith("    "))
    table = tomllib.loads(text)["sources"]["demo"]
    assert msgspec.convert(table, Options) == options(devices=[{"name": "fridge", "load": "fridge"}])
    assert {*table} == {*Options.__struct_fields__}
    assert {*table["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("simulated") is Simulated


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": []}, "no device is configured"),
        ({"devices": [{"name": "a", "load": "base"}] * 2}, "configured twice"),
        ({"devices": [{"name": "a", "load": "house"}]}, "nothing for the house to measure"),
        ({"devices": [{"name": "a", "load": "sauna"}]}, "load"),
        ({"speed": 0}, "speed"),
        ({"speed": float("inf")}, "speed"),
        ({"hour_at_boot": 24}, "hour_at_boot"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        options(**change)


def test_a_round_shows_every_device_now_and_as_simulated() -> None:
    source = Simulated("demo", options())
    source.open()
    before = time.monotonic_ns()
    readings = source.read()
    source.close()
    assert {reading.device for reading in readings} == {
        *("base", "fridge", "kettle", "cooker", "washing-machine", "solar", "house-meter")
    }
    assert {reading.quality for reading in readings} == {Quality.SIMULATED}
    assert all(before <= reading.at_ns <= time.monotonic_ns() for reading in readings)


def test_a_source_that_starts_again_finds_the_same_house() -> None:
    at_ns = 123_456 * SECOND_NS
    assert House(options()).readings(at_ns) == HOUSE.readings(at_ns)


def test_another_seed_is_another_house() -> None:
    assert House(options(seed=2)).readings(at_ns := DAY_S * SECOND_NS) != HOUSE.readings(at_ns)


def test_two_fridges_are_not_the_same_fridge() -> None:
    house = House(options(devices=[{"name": name, "load": "fridge"} for name in ("kitchen", "cellar")]))
    days = [by_device(house.readings(hour * 3600 * SECOND_NS)) for hour in range(48)]
    assert any(day["kitchen"]["power_w"] != day["cellar"]["power_w"] for day in days)


@settings(deadline=None)
@given(st.integers(0, 3 * 365 * DAY_S * SECOND_NS))
def test_whatever_the_time_the_numbers_are_plausible(at_ns: int) -> None:
    shown = by_device(HOUSE.readings(at_ns))
    for values in shown.values():
        assert values.keys() <= METRICS
        assert all(type(value) is float and math.isfinite(value) for value in values.values())
        assert 207 <= values["voltage_v"] <= 253
        assert 49.5 <= values["frequency_hz"] <= 50.5
        assert -1 <= values.get("power_factor", 1) <= 1
        assert 0 <= values["current_a"] <= 60
    *loads, house = shown.values()
    assert all(values["power_w"] >= 0 for values in loads)
    consumed = sum(values["power_w"] for name, values in shown.items() if name not in ("solar", "house-meter"))
    assert house["power_w"] == consumed - shown["solar"]["power_w"]
    assert house["device_energy_wh"] >= 0
    assert house["device_energy_export_wh"] >= 0


@settings(deadline=None)
@given(st.integers(0, 1000 * DAY_S * SECOND_NS), st.integers(0, DAY_S * SECOND_NS))
def test_counters_never_fall(at_ns: int, later_ns: int) -> None:
    assert_risen(HOUSE, at_ns, at_ns + later_ns)


@pytest.mark.parametrize("speed", [1.0, 0.1, 7.3, 1000.0])
def test_counters_do_not_fall_where_the_fortnight_begins_again(speed: float) -> None:
    house = House(options(speed=speed, hour_at_boot=0))
    for rounds in (1, 2, 3, 1000):
        turn_ns = round(rounds * FORTNIGHT_S * SECOND_NS / speed)
        assert_risen(house, turn_ns - 1000, turn_ns)
        assert_risen(house, turn_ns, turn_ns + 1000)


def assert_risen(house: House, at_ns: int, later_ns: int) -> None:
    before, after = by_device(house.readings(at_ns)), by_device(house.readings(later_ns))
    for device, values in before.items():
        for counter in values.keys() & {"device_energy_wh", "device_energy_export_wh"}:
            assert after[device][counter] >= values[counter]


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_counters_are_the_integral_of_power(speed: float) -> None:
    house = House(options(speed=speed))
    step_s = 2 / speed
    rounds = [by_device(house.readings(round(n * step_s * SECOND_NS))) for n in range(6 * 3600 // 2)]
    for device, first in rounds[0].items():
        powers = [shown[device]["power_w"] for shown in rounds[:-1]]
        counted_wh = rounds[-1][device]["device_energy_wh"] - first["device_energy_wh"]
        assert counted_wh == pytest.approx(sum(max(power, 0) for power in powers) * step_s / 3600, rel=0.01)
        if "device_energy_export_wh" in first:
            exported_wh = rounds[-1][device]["device_energy_export_wh"] - first["device_energy_export_wh"]
            assert exported_wh == pytest.approx(sum(max(-power, 0) for power in powers) * step_s / 3600, rel=0.01)


def test_a_fortnight_is_one_of_a_plausible_home() -> None:
    begin, end = (by_device(HOUSE.readings(second * SECOND_NS)) for second in (0, FORTNIGHT_S))
    kwh_a_day = {
        device: (values["device_energy_wh"] - begin[device]["device_energy_wh"]) / 14_000
        for device, values in end.items()
    }
    exported = (
        end["house-meter"]["device_energy_export_wh"] - begin["house-meter"]["device_energy_export_wh"]
    ) / 14_000
    assert 0.5 < kwh_a_day["fridge"] < 1.2
    assert 0.3 < kwh_a_day["kettle"] < 1.5
    assert 0.5 < kwh_a_day["cooker"] < 3
    assert 5 < kwh_a_day["solar"] < 25
    consumed = sum(kwh for device, kwh in kwh_a_day.items() if device not in ("solar", "house-meter"))
    assert kwh_a_day["house-meter"] - exported == pytest.approx(consumed - kwh_a_day["solar"])
    assert exported > 1


def test_the_sun_is_down_at_midnight_and_up_at_noon() -> None:
    house = House(options(hour_at_boot=0))
    for day in range(14):
        midnight, noon = (by_device(house.readings((day * 24 + hour) * 3600 * SECOND_NS)) for hour in (0, 12))
        assert midnight["solar"]["power_w"] == 0 < noon["solar"]["power_w"]
