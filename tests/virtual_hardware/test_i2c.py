"""INA219 behind the kernel's own I2C driver: the order of bytes, what a bus can do wrong, and how it recovers."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import smbus2

from tests.peers.process import wait_for
from tests.virtual_hardware.devices import I2c
from workers import SourceError
from workers.ina219 import Ina219, Options

BATTERY, LAMP = 0x40, 0x41


@contextlib.contextmanager
def opened(*addresses: int) -> Iterator[Ina219]:
    devices = [{"name": f"d{address:x}", "address": address} for address in addresses]
    source = Ina219("rails", msgspec.convert({"kind": "ina219", "devices": devices}, Options))
    try:
        source.open()
        yield source
    finally:
        source.close()


def told(source: Ina219) -> dict[str, dict[str, Any]]:
    return {reading.device: dict(reading.values) for reading in source.read()}


def test_the_chip_sends_the_high_byte_first(i2c: I2c) -> None:
    i2c.measure(BATTERY, 0.0, 12.0)
    with smbus2.SMBus(1) as bus:
        assert bus.read_word_data(BATTERY, 0) == 0x9F39
        assert bus.read_i2c_block_data(BATTERY, 0, 2) == [0x39, 0x9F]


def test_volts_and_amperes_are_right_in_both_directions(i2c: I2c) -> None:
    i2c.measure(BATTERY, -0.125, 12.8)
    i2c.measure(LAMP, 0.0314, 5.0)
    with opened(BATTERY, LAMP) as source:
        values = told(source)
    assert values["d40"] == {"voltage_v": 12.8, "current_a": -1.25, "power_w": pytest.approx(-16.0, abs=1e-6)}
    assert values["d41"]["current_a"] == pytest.approx(0.314, abs=1e-3)


def test_an_address_where_nothing_is_concerns_it_alone(i2c: I2c) -> None:
    i2c.measure(BATTERY, 0.1, 12.0)
    with opened(BATTERY, 0x44) as source:
        assert {*told(source)} == {"d40"}
        assert "nothing answers at 0x44" in source.troubles["d44"]


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EIO])
def test_a_stuck_bus_is_told_and_the_source_recovers(i2c: I2c, number: int) -> None:
    i2c.measure(BATTERY, 0.1, 12.0)
    with opened(BATTERY) as source:
        assert told(source)["d40"]["current_a"] == 1.0
        i2c.fail(number)
        with pytest.raises(SourceError, match=r"/dev/i2c-1"):
            source.read()
    i2c.fail(0)
    with opened(BATTERY) as source:
        assert told(source)["d40"]["current_a"] == 1.0


def test_a_chip_that_lost_its_settings_for_a_moment_is_set_up_again(i2c: I2c) -> None:
    i2c.measure(BATTERY, 0.1, 12.0)
    with opened(BATTERY) as source:
        assert told(source)["d40"]["current_a"] == 1.0
        i2c.brown_out()
        wait_for(lambda: told(source).get("d40", {}).get("current_a") == 1.0, "the same current again")
