"""Sinks for a million readings: they count what they get of each number, and keep nothing else."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from tests.peers.fakes import RecordingCarbon, RecordingInflux, Request, Says

_INFLUX = re.compile(rb"device=([^, ]+).*[ ,]pulses=([\d.]+)")
_CARBON = re.compile(r"\.([^.]+)\.pulses ([\d.]+) ")


class Tally:
    """How often each numbered reading of each device came."""

    def __init__(self) -> None:
        self._times: dict[str, bytearray] = defaultdict(bytearray)
        self._guard = threading.Lock()

    def note(self, device: str, number: int) -> None:
        with self._guard:
            times = self._times[device]
            if len(times) <= number:
                times.extend(bytes(number + 1 - len(times) + 4096))
            times[number] = min(255, times[number] + 1)

    def has(self, device: str, number: int) -> bool:
        times = self._times.get(device, b"")
        return number < len(times) and times[number] > 0

    def different(self, device: str) -> int:
        """How many different readings of a device there are."""
        times = self._times.get(device, bytearray())
        return len(times) - times.count(0)


class CountingInflux(RecordingInflux):
    """An InfluxDB that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.requests = _Forgetful()

    def _store(self, request: Request) -> Says:
        for line in request.lines:
            if match := _INFLUX.search(line):
                self.tally.note(match[1].decode(), int(float(match[2])))
        return Says()


class CountingCarbon(RecordingCarbon):
    """A carbon that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.lines = _Counted(self.tally)


class _Forgetful(list[Any]):
    def append(self, what: Any) -> None:
        pass


class _Counted(list[str]):
    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def __iadd__(self, lines: Iterable[str]) -> _Counted:  # type: ignore[override,misc]
        for line in lines:
            if match := _CARBON.search(line):
                self._tally.note(match[1], int(float(match[2])))
        return self

    def __iter__(self) -> Iterator[str]:
        raise TypeError("nothing is kept")
