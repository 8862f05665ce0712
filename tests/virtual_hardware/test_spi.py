"""Current clamps on an MCP3008 behind the kernel's own SPI driver."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from reading import Reading
from tests.peers.process import wait_for
from tests.virtual_hardware.devices import Spi
from workers import SourceError
from workers.mcp3008 import Mcp3008, Options

# One volt at the input is one ampere, so what is told is what lies at the input.
AS_VOLTS: dict[str, Any] = {"amplifier_gain": 1.0, "ct_range_amps": math.sqrt(2), "sample_rate_hz": 500.0, "phases": 1}
VREF_V = 3.3


@contextlib.contextmanager
def opened(*devices: dict[str, Any], **changes: Any) -> Iterator[Mcp3008]:
    listed = [{"name": f"d{number}", "channel": number, **device} for number, device in enumerate(devices)]
    table = {"kind": "mcp3008", "devices": listed, **changes}
    source = Mcp3008("clamps", msgspec.convert(table, Options))
    try:
        source.open()
        yield source
    finally:
        source.close()


def by_name(readings: list[Reading]) -> dict[str, dict[str, Any]]:
    return {reading.device: dict(reading.values) for reading in readings}


@pytest.mark.parametrize("chip_select", [0, 1])
def test_all_eight_channels_are_exact(spi: Spi, chip_select: int) -> None:
    codes = [1 + 146 * channel for channel in range(8)]
    for channel, code in enumerate(codes):
        spi.set(channel, code)
    with opened(*[AS_VOLTS] * 8, chip_select=chip_select) as source:
        told = by_name(source.read())
    # The seed's formula divides by 1023.
    expected = [code / 1023 * VREF_V for code in codes]
    assert [told[f"d{channel}"]["current_a"] for channel in range(8)] == pytest.approx(
        expected, abs=5e-5
    )  # told with four decimals


def test_a_differential_input_measures_against_its_neighbour(spi: Spi) -> None:
    spi.set(0, 700)
    spi.set(1, 200)
    with opened(AS_VOLTS | {"differential": True}) as source:
        told = by_name(source.read())
    assert told["d0"]["current_a"] == pytest.approx(500 / 1023 * VREF_V, abs=5e-5)


@pytest.mark.parametrize("amplitude", [60, 300, 480])
def test_the_true_rms_of_a_sine_of_the_mains_is_within_one_percent(spi: Spi, amplitude: int) -> None:
    spi.set(0, 512, amplitude, hz=50)
    with opened({"mode": "true_rms", "ical_a_per_v": 60.6, "phases": 1}) as source:
        # A busy host makes the machine pause amid a wave, and then no current is told at all.
        told = wait_for(lambda: by_name(source.read()), "a round without a pause", within_s=60)
    expected_a = amplitude / math.sqrt(2) / 1023 * VREF_V * 60.6
    assert told["d0"]["current_a"] == pytest.approx(expected_a, rel=0.01)


def test_a_chip_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(SourceError, match=r"/dev/spidev0\.7"), opened(AS_VOLTS, chip_select=7):
        pass
