"""What the registers of the INA family mean, and which settings go into them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers._ina import MODELS, ModelName, measured, settings, swapped


@pytest.mark.parametrize(
    ("registers", "amps", "volts", "at_end"),
    [
        ((0x0C80, 0x5DC2, 0x0C80), 0.32, 12.0, False),
        ((0xFBE6, 0x2712, 0xFBE6), -0.105, 5.0, False),
        ((0x7D00, 0xBB82, 0x7D00), 3.2, 24.0, True),
    ],
)
def test_the_dumps_of_an_ina219(registers: tuple[int, int, int], amps: float, volts: float, at_end: bool) -> None:
    model = MODELS["ina219"]
    chosen = settings(model, shunt_ohm=0.1, max_current_a=3.2, averaging=1)
    assert chosen.calibration == 4096
    one = measured(model, chosen, shunt=registers[0], bus=registers[1], current=registers[2])
    assert (one.current_a, one.voltage_v, one.at_end, one.agrees) == (
        pytest.approx(amps),
        pytest.approx(volts),
        at_end,
        True,
    )


def test_words_of_the_bus_have_the_low_byte_first() -> None:
    pairs = [(0x0C80, 0x800C), (0x5DC2, 0xC25D), (0xFBE6, 0xE6FB), (0x7D00, 0x007D), (0xBB82, 0x82BB)]
    assert [swapped(on_the_bus) for _, on_the_bus in pairs] == [register for register, _ in pairs]


@given(
    st.sampled_from([*MODELS]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.floats(0.001, 10),
    st.floats(0.01, 100),
    st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]),
)
def test_whatever_registers_say_is_finite_and_beyond_the_range_is_seen(
    name: ModelName, shunt: int, bus: int, current: int, shunt_ohm: float, most_a: float, averaging: int
) -> None:
    model = MODELS[name]
    chosen = settings(model, shunt_ohm=shunt_ohm, max_current_a=most_a, averaging=averaging)
    assert 0 <= chosen.config <= 0x7FFF
    assert chosen.calibration & 1 == 0
    assert 0 <= chosen.calibration <= 0xFFFE
    one = measured(model, chosen, shunt=shunt, bus=bus, current=current, shunt_ohm=shunt_ohm)
    assert math.isfinite(one.current_a)
    assert math.isfinite(one.voltage_v)
    range_a = chosen.shunt_end * model.shunt_step_v / (model.own_shunt_ohm or shunt_ohm)
    assert one.at_end == (abs(one.current_a) >= range_a * (1 - 1e-9))


@pytest.mark.parametrize(
    ("most_a", "config"), [(0.4, 0x219B), (0.8, 0x299B), (0.81, 0x319B), (1.6, 0x319B), (3.2, 0x399B)]
)
def test_the_range_is_the_narrowest_that_has_the_largest_current(most_a: float, config: int) -> None:
    chosen = settings(MODELS["ina219"], shunt_ohm=0.1, max_current_a=most_a, averaging=1)
    assert hex(chosen.config) == hex(config)
    assert chosen.shunt_end * 10e-6 / 0.1 >= most_a * 0.9999
