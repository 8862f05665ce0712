"""A house whose wall clock a test turns.

A preload shifts CLOCK_REALTIME alone, for all processes of the house at once; the monotonic clock goes on.
"""

from __future__ import annotations

import datetime
import mmap
import struct
import time
from pathlib import Path

from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for
from tests.shim.build import shim_library


class Clock:
    """The wall clock of a house, which a test turns."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(16))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)
        self.environment = {
            "LD_PRELOAD": str(shim_library(Path(__file__).with_name("clock_shim.c"))),
            "WATTHERD_CLOCK": str(path),
        }

    def turn(self, ahead_ns: int, *, is_set: bool) -> None:
        self.ahead_ns = ahead_ns
        struct.pack_into("qq", self._memory, 0, ahead_ns, is_set)


class TurnedHouse:
    """A house whose clock is turned; it notes the true time of each reading that it posts."""

    def __init__(self, directory: Path, clock_table: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(directory / "clock")
        self.house = House(directory, f"[outputs.csv]\n[clock]\n{clock_table}\n", ["house"])
        self.house.environment = self.clock.environment
        self.posted: dict[int, float] = {}

    def post(self, count: int = 3) -> None:
        for _ in range(count):
            number = len(self.posted) + 1
            self.posted[number] = time.time()
            assert (
                self.house.post({"device": "house", "boot": "b", "seq": number, "pulses_total": 7 * number})[0] == 200
            )
            time.sleep(0.02)

    def rows(self, metric: str = "pulses") -> dict[int, tuple[float, str]]:
        """By number: the time that it got, in seconds, and what is said of the clock."""
        return {
            round(float(row[4])) // 7: (datetime.datetime.fromisoformat(row[0]).timestamp(), row[-1])
            for row in csv_rows(self.house.data_dir / "csv")
            if row[3] == metric
        }

    def has(self, count: int) -> None:
        """Wait for so many; while a file is being written its last line may not be whole yet."""

        def pulses() -> int:
            files = (self.house.data_dir / "csv").glob("electricity-*.csv")
            lines = [line for file in files for line in file.read_text(encoding="ascii").splitlines(keepends=True)]
            return sum(line.endswith("\n") and ",pulses," in line for line in lines)

        wait_for(lambda: pulses() == count, f"{count} readings in the file", 60)
