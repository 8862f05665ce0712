"""The second backend, `import RPi.GPIO`, on the package that stands in for it on every newer system: rpi-lgpio."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from tests.peers.process import wait_for
from tests.virtual_hardware.devices import PACKAGES, SimulatedChip
from workers.pulse import Options, Pulse

LINE = 20


@pytest.fixture
def rpi_lgpio(chip: SimulatedChip, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PACKAGES))
    monkeypatch.setenv("RPI_LGPIO_CHIP", chip.number.removeprefix("gpiochip"))
    monkeypatch.setenv("RPI_LGPIO_REVISION", "c03111")  # a Raspberry Pi 4
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("RPi", "lgpio")]:
        del sys.modules[name]


@contextlib.contextmanager
def opened() -> Iterator[Pulse]:
    device = {"name": "import", "line": LINE, "output": "led", "max_power_w": 400_000, "min_pulse_ms": 0}
    table = {"kind": "pulse", "backend": "rpi_gpio", "priority": 0, "events": False, "report_interval_s": 0.1}
    source = Pulse("pulse", msgspec.convert({**table, "devices": [device]}, Options))
    source.open()
    try:
        yield source
    finally:
        source.close()
        for descriptor in source.kept.values():
            os.close(descriptor)


@pytest.mark.usefixtures("rpi_lgpio")
def test_pulses_are_counted_through_callbacks(chip: SimulatedChip) -> None:
    seen: list[int] = []
    with opened() as source:
        chip.set(LINE, high=True)
        time.sleep(0.1)
        chip.pulse(LINE, 50, low_s=0.01, high_s=0.02)

        def count() -> int:
            seen.extend(int(one.values["pulses"]) for one in source.read() if "pulses" in one.values)
            return seen[-1] if seen else 0

        wait_for(lambda: count() >= 50, "50 pulses", within_s=60)
        time.sleep(0.15)
        assert count() == 50
    import RPi.GPIO

    assert "lgpio" in sys.modules, f"{RPi.GPIO.__file__} is not rpi-lgpio"
