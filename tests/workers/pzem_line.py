"""A PZEM source on a line of our own, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from reading import Reading
from tests.workers.pzem_slave import Slave, Unit, plugged_in
from workers.pzem import Options, Pzem


def options(*devices: dict[str, Any], **changes: Any) -> Options:
    table = {"kind": "pzem", "port": "/dev/absent", "timeout_s": 0.15, "pause_ms": 5, "interval_s": 30}
    return msgspec.convert({**table, "devices": devices, **changes}, Options)


def dc_device(unit: int, **changes: Any) -> dict[str, Any]:
    return {"name": f"dc{unit}", "unit": unit, "model": "017", "shunt_a": 100, **changes}


def ac_device(unit: int, **changes: Any) -> dict[str, Any]:
    return {"name": f"ac{unit}", "unit": unit, "model": "016", **changes}


class Bench:
    """A source on a line, and a clock that stands still until a test moves it."""

    def __init__(self, slave: Slave, source: Pzem) -> None:
        self.slave, self.source, self.clock_s = slave, source, 1000.0
        source.now_s = lambda: self.clock_s

    def round(self, after_s: float = 2.0) -> dict[str, dict[str, Any]]:
        self.clock_s += after_s
        return by_device(self.source.read())

    def asks(self, unit: int, after_s: float = 2.0) -> int:
        """Do a round; return how many transactions it cost with a unit."""
        before = len(self.slave.asked(unit))
        self.round(after_s)
        return len(self.slave.asked(unit)) - before

    @property
    def troubles(self) -> dict[str, str]:
        return self.source.troubles


def by_device(readings: list[Reading]) -> dict[str, dict[str, Any]]:
    return {reading.device: dict(reading.values) for reading in readings}


@contextmanager
def line(link: Path, units: dict[int, Unit], *devices: dict[str, Any], **changes: Any) -> Iterator[Bench]:
    with plugged_in(link, units) as slave:
        source = Pzem("shunts", options(*devices, **{"port": str(link), **changes}))
        house = Bench(slave, source)
        try:
            source.open()
            yield house
        finally:
            source.close()
