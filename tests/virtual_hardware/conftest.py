"""The devices of the virtual machine, as a test moves them; on any other machine nothing in here is collected."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.virtual_hardware.devices import Adapter, I2c, SimulatedChip, Spi

INSIDE = os.environ.get("WATTHERD_VIRTUAL_HARDWARE") == "1"
collect_ignore_glob = [] if INSIDE else ["*.py"]


@pytest.fixture
def chip() -> Iterator[SimulatedChip]:
    simulated = SimulatedChip(f"chip-{time.monotonic_ns()}")
    try:
        yield simulated
    finally:
        simulated.remove()


@pytest.fixture
def spi() -> Spi:
    return Spi()


@pytest.fixture
def i2c() -> Iterator[I2c]:
    bus = I2c()
    bus.fail(0)
    bus.brown_out()
    try:
        yield bus
    finally:
        bus.fail(0)


@pytest.fixture
def adapter() -> Adapter:
    return Adapter()
