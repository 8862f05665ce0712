"""What the history costs: bytes and time to write it, time to ask it. `python -m bench.history`

The house has 20 devices of 4 values every 10 s. A year of it is written through the real output, for one device with a
reading a minute and 10 s in the last week; the others are copies of its rows, so that the file is as large as theirs.
Bytes are those that SQLite hands to the kernel; what the file system adds is not in them. Trust the ratios.
"""

from __future__ import annotations

import contextlib
import math
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.figures import Figure, medians, parser, publish
from config.settings import Site
from history.buckets import HOUR_NS, SECOND_NS
from history.queries import History as Ask
from history.tables import chunk_id
from reading import Record
from writer import Batch, Memo
from writer.outputs import _history_scribe as scribe
from writer.outputs.history import History, Options

DEVICES = 20
VALUES = 4
INTERVAL_S = 10
END_NS = 1_762_862_400 * SECOND_NS  # 2025-11-11T12:00:00Z
DAY_NS = 24 * HOUR_NS
YEAR_DAYS = 365
MOST_MS = 5.0  # of CPU, for any question


class House:
    """Plugs as python-kasa reads them: volts and watts with a digit or three, and a register that rises."""

    def __init__(self, devices: int) -> None:
        self._chance = random.Random(7)
        self._energy_wh = [self._chance.uniform(0, 90_000) for _ in range(devices)]

    def read(self, time_ns: int, interval_s: float) -> list[Record]:
        return [self._record(device, time_ns, interval_s) for device in range(len(self._energy_wh))]

    def _record(self, device: int, time_ns: int, interval_s: float) -> Record:
        volts = round(230 + 4 * math.sin(time_ns / 3e12) + self._chance.gauss(0, 0.4), 1)
        busy = (time_ns // (600 * SECOND_NS) + device) % 3 == 0
        watts = round(max(0.0, self._chance.gauss(1400 if busy else 45, 12)), 1)
        self._energy_wh[device] += watts * interval_s / 3600
        values = {
            "power_w": watts,
            "voltage_v": volts,
            "current_a": round(watts / volts, 3),
            "energy_wh": round(self._energy_wh[device], 3),
        }
        return Record("kasa", f"plug-{device}", time_ns + self._chance.randrange(20_000_000), values)


@contextlib.contextmanager
def output(folder: Path) -> Iterator[History]:
    history = History(Options(), Site(data_dir=str(folder)), Memo())
    try:
        yield history
    finally:
        history.close()


def written_bytes() -> int:
    [line] = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")]
    return int(line.split()[1])


def cost_of_writing(folder: Path, commit_s: int, hours: float, most_journal_rows: int) -> tuple[float, float, float]:
    """Return MB a day, CPU seconds a day, and µs of CPU a reading, scaled from `hours`."""
    house = House(DEVICES)
    usual, scribe.MOST_JOURNAL_ROWS = scribe.MOST_JOURNAL_ROWS, most_journal_rows
    commits = round(hours * 3600 / commit_s)
    folder.mkdir()
    try:
        with output(folder) as history:
            batches = []
            for number in range(commits):
                at_ns = END_NS + number * commit_s * SECOND_NS
                share = DEVICES * commit_s // INTERVAL_S
                records = house.read(at_ns, INTERVAL_S)
                first = number * share % DEVICES
                records = (records + records)[first : first + share]
                batches.append(Batch(records, [number + 1] * len(records)))
            history.write(batches[0])
            before, begun_s = written_bytes(), time.process_time()
            for batch in batches[1:]:
                history.write(batch)
            cpu_s = time.process_time() - begun_s
        written = written_bytes() - before
    finally:
        scribe.MOST_JOURNAL_ROWS = usual
    scale = 24 / hours
    return written / 1e6 * scale, cpu_s * scale, cpu_s / sum(map(len, batches)) * 1e6


def fill(folder: Path, days: int = YEAR_DAYS, devices: int = DEVICES, old_interval_s: int = 60) -> None:
    """Write a year of one device, every 10 s in the last week, and copy its rows for the others."""
    house = House(1)
    row = 0
    with output(folder) as history:
        for from_days, to_days, interval_s in ((days, 7, old_interval_s), (min(days, 7), 0, INTERVAL_S)):
            begin, end = END_NS - from_days * DAY_NS, END_NS - to_days * DAY_NS
            times = range(begin, end, interval_s * SECOND_NS)
            for start in range(0, len(times), 2500):
                row += 1
                records = [house.read(at_ns, interval_s)[0] for at_ns in times[start : start + 2500]]
                history.write(Batch(records, [row] * len(records)))
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as connection:
        one = chunk_id(0, 0, VALUES)
        columns = "n, total, least, most, first_ns, first, last_ns, last, fallen, flags, entry"
        for device in range(1, devices):
            shift = device * VALUES
            connection.execute(
                f"INSERT INTO series SELECT id + {shift}, source, 'plug-{device}', metric, kind FROM series"
                f" WHERE id <= {VALUES}"
            )
            connection.execute(f"INSERT INTO chunk SELECT id + {shift}, body FROM chunk WHERE id & 0xFFFFFF <= {one}")
            connection.execute(
                f"INSERT INTO bucket SELECT width, series + {shift}, slot, {columns} FROM bucket"
                f" WHERE series <= {VALUES}"
            )
        connection.commit()
    with output(folder) as history:  # what is not folded yet, as in any hour of its life
        house = House(devices)
        for number in range(300):
            row += 1
            records = house.read(END_NS + number * INTERVAL_S * SECOND_NS, INTERVAL_S)
            history.write(Batch(records, [row] * len(records)))


def cpu_ms(ask: Callable[[], object]) -> float:
    """Ask once; tell what it cost."""
    begun_ns = time.process_time_ns()
    ask()
    return (time.process_time_ns() - begun_ns) / 1e6


def questions(ask: Ask) -> dict[str, Callable[[], object]]:
    now = END_NS + HOUR_NS
    register, power, volts = (("kasa", "plug-7", metric) for metric in ("energy_wh", "power_w", "voltage_v"))
    zone = "Europe/London"
    return {
        "latest of 20 devices": lambda: ask.latest(now),
        "series, 1 h": lambda: ask.series(power, now - HOUR_NS, now),
        "series, the last 24 h": lambda: ask.series(power, now - DAY_NS, now),
        "series, 7 days": lambda: ask.series(power, now - 7 * DAY_NS, now),
        "series, 30 days": lambda: ask.series(volts, now - 30 * DAY_NS, now),
        "series, 365 days": lambda: ask.series(volts, now - 365 * DAY_NS, now),
        "register, 7 days": lambda: ask.series(register, now - 7 * DAY_NS, now),
        "register, 365 days": lambda: ask.series(register, now - 365 * DAY_NS, now),
        "energy by hour, a day": lambda: ask.energy([register], now - DAY_NS, now, "hour", zone),
        "energy by day, 30 days": lambda: ask.energy([register], now - 30 * DAY_NS, now, "day", zone),
        "energy by month, a year": lambda: ask.energy([register], now - 365 * DAY_NS, now, "month", zone),
        "energy by day, a year": lambda: ask.energy([register], now - 365 * DAY_NS, now, "day", zone),
        "energy by day, a year, India": lambda: ask.energy([register], now - 365 * DAY_NS, now, "day", "Asia/Kolkata"),
        "energy by day, a year, Nepal": lambda: ask.energy(
            [register], now - 365 * DAY_NS, now, "day", "Asia/Kathmandu"
        ),
        "energy by half-hour, a day": lambda: ask.energy_steps(register, now - DAY_NS, now),
        "energy by half-hour, 7 days": lambda: ask.energy_steps(register, now - 7 * DAY_NS, now),
        "energy by half-hour, 31 days": lambda: ask.energy_steps(register, now - 31 * DAY_NS, now),
        "devices": lambda: ask.devices(),
        "bounds": lambda: ask.bounds(),
    }


def asked(folder: Path, days: int = YEAR_DAYS) -> list[Figure]:
    """Ask a year of it."""
    fill(folder, days)
    size_mb = (folder / "history.db").stat().st_size / 1e6
    print(f"{days} days of it are {size_mb:.0f} MB")
    cold = Ask(folder / "history.db")
    print(f"the first question, which opens it and reads the journal: {cpu_ms(lambda: cold.latest(END_NS)):.1f} ms")
    cold.close()
    ask = Ask(folder / "history.db")
    try:
        asking = {what: partial(cpu_ms, question) for what, question in questions(ask).items()}
        costs = medians(asking, rounds=15)
    finally:
        ask.close()
    return [Figure(what, cost_ms, "ms", "limit", MOST_MS) for what, cost_ms in costs.items()]


def written(folder: Path) -> None:
    """Print what it costs to write in small batches, by how often they come."""
    house = f"writing {DEVICES} devices × {VALUES} values / {INTERVAL_S} s"
    print(f"{house:<62}{'MB/day':>9}{'CPU s/day':>12}{'µs/reading':>12}")
    for what, commit_s, hours, rows in (
        ("journal, folded, commit every 10 s", 10, 3.0, scribe.MOST_JOURNAL_ROWS),
        ("journal, folded, commit every 1 s", 1, 0.5, scribe.MOST_JOURNAL_ROWS),
        ("journal, folded, commit every 60 s", 60, 6.0, scribe.MOST_JOURNAL_ROWS),
        ("no journal, commit every 10 s", 10, 0.25, 1),
    ):
        megabytes, cpu_s, cost_us = cost_of_writing(folder / what.replace(" ", ""), commit_s, hours, rows)
        print(f"  {what:<60}{megabytes:>9.1f}{cpu_s:>12.1f}{cost_us:>12.1f}")


def measure(days: int = YEAR_DAYS) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        return asked(Path(name), days)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--no-writes", action="store_true", help="ask only")
    told = arguments.parse_args()
    if not (told.quick or told.no_writes):
        with tempfile.TemporaryDirectory() as name:
            written(Path(name))
    publish("history", measure(days=30 if told.quick else YEAR_DAYS), told.results)


if __name__ == "__main__":
    main()
