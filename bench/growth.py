"""How cost grows with a house: sources, devices, years of history. `python -m bench.growth`

Each cost is measured at several sizes, in turns, and the medians are laid on a line in a diagram whose axes are both
logarithmic. There the slope is the power of the growth: 1 is a straight line through nothing, 0 does not grow at all.
`growth.svg`, beside the JSON, draws it. The history has five-minute readings of four devices before its last week.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from bench import history
from bench.figures import LEAST_ROUNDS, Figure, medians, parser, publish
from bench.pipeline import _Silent, deliver
from bench.svg import Curve, picture
from channel import Receiver, Sender, pair
from config.settings import ClockRules, OutputTable, PolledTable, Site
from config.settings import Writer as WriterTable
from history.queries import History as Ask
from reading import Reading
from vitals import Board
from workers._runtime import Worker
from writer import output_class
from writer.ingest import Ingest, WriterPlan

SOURCES = (1, 2, 5, 10, 20, 50)
DEVICES = (10, 50, 200, 500, 1000, 2000)
DAYS = (1, 7, 30, 365, 1825)
MOST_POWER = 1.1
_TURNS = 8
_BATCH = 100


class House:
    """A writer that commits what so many sources report, each of so many devices, and delivers it to CSV."""

    def __init__(self, folder: Path, sources: int, devices: int) -> None:
        self.devices = devices
        options: dict[str, OutputTable] = {"csv": msgspec.convert({"kind": "csv"}, output_class("csv").Options)}
        board = Board()
        names = [f"source{number}" for number in range(sources)]
        self._ends = [pair() for _ in names]
        self._workers = [
            Worker(_Silent(name, PolledTable(kind="simulated")), Sender(ends[0], name, 1), board.claim("worker", name))
            for name, ends in zip(names, self._ends, strict=True)
        ]
        rules = WriterTable(commit_interval_s=1e-6, outbox_reserve_mb=0)
        plan = WriterPlan(folder, Site(data_dir=str(folder)), rules, ClockRules(require_sync=False), options)
        receivers = [Receiver(ends[1], name) for name, ends in zip(names, self._ends, strict=True)]
        rows = {"csv": board.claim("output", "csv")}
        self._writer = Ingest(plan, receivers, board.claim("writer", "writer"), rows)
        for delivery in self._writer._deliveries:
            delivery.start()
        self._wake = select.poll()
        self._wake.register(self._writer._wake, select.POLLIN)

    def turn(self, number: int) -> None:
        """Let every device of every source say something once, and carry it to the file."""
        at_ns = time.monotonic_ns()
        for begin in range(0, self.devices, _BATCH):
            for worker in self._workers:
                names = range(begin, min(begin + _BATCH, self.devices))
                worker._report(
                    [Reading(f"plug-{one}", at_ns, {"power_w": 400.0 + number, "voltage_v": 230.1}) for one in names]
                )
            self._writer._turn()
        deliver(self._writer, self._wake)

    def close(self) -> None:
        self._writer._drain()
        for ends in self._ends:
            for end in ends:
                end.close()


def turn_ms(sources: int, devices: int) -> float:
    """Return ms of CPU for one reading of every device."""
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), sources, devices)
        try:
            house.turn(0)
            begun_ns = time.process_time_ns()
            for number in range(1, 1 + _TURNS):
                house.turn(number)
            return (time.process_time_ns() - begun_ns) / 1e6 / _TURNS
        finally:
            house.close()


@contextlib.contextmanager
def remembered(folder: Path, lengths: tuple[int, ...]) -> Iterator[dict[int, Ask]]:
    """Make a history of each length."""
    with contextlib.ExitStack() as stack:
        found = {}
        for days in lengths:
            history.fill(folder / str(days), days, devices=4, old_interval_s=300)
            found[days] = stack.enter_context(contextlib.closing(Ask(folder / str(days) / "history.db")))
        yield found


def day_ms(ask: Ask) -> float:
    """Ask what a page asks: the last day, and the last values."""
    now_ns = history.END_NS + history.HOUR_NS
    power = ("kasa", "plug-0", "power_w")

    def questions() -> None:
        ask.series(power, now_ns - history.DAY_NS, now_ns)
        ask.latest(now_ns)

    return statistics.median(history.cpu_ms(questions) for _ in range(5))


class Growth(Struct, frozen=True):
    """A cost at several sizes."""

    what: str
    unit: str
    costs: dict[int, float]

    @property
    def power(self) -> float:
        """The slope on logarithmic axes."""
        sizes, costs = ([math.log(each) for each in side] for side in (self.costs, self.costs.values()))
        return statistics.linear_regression(sizes, costs).slope


def measure(rounds: int = LEAST_ROUNDS, *, small: bool = False) -> list[Growth]:
    logging.disable(logging.WARNING)
    sources, devices, lengths = ((1, 5), (10, 100), (1, 7)) if small else (SOURCES, DEVICES, DAYS)
    by_source = medians({str(many): partial(turn_ms, many, 20) for many in sources}, rounds)
    by_device = medians({str(many): partial(turn_ms, 1, many) for many in devices}, rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with remembered(folder, lengths) as asks:
            by_day = medians({str(days): partial(day_ms, ask) for days, ask in asks.items()}, rounds)
            sizes_mb = {str(days): (folder / str(days) / "history.db").stat().st_size / 1e6 for days in asks}
    return [
        Growth(what, unit, {int(size): cost for size, cost in costs.items()})
        for what, unit, costs in (
            ("a turn, by sources", "ms", by_source),
            ("a turn, by devices", "ms", by_device),
            ("asking a day, by days", "ms", by_day),
            ("history file, by days", "MB", sizes_mb),
        )
    ]


def figures(growths: list[Growth]) -> list[Figure]:
    return [
        Figure(f"{each.what}: power", max(each.power, 0.0), "", "a straight line", 1.0, MOST_POWER) for each in growths
    ]


def main() -> None:
    told = parser(__doc__).parse_args()
    growths = measure(1, small=True) if told.quick else measure()
    for each in growths:
        print(f"{each.what}: {', '.join(f'{size}: {cost:.2f} {each.unit}' for size, cost in each.costs.items())}")
    publish("growth", figures(growths), told.results)
    (told.results / "growth.svg").write_text(picture([Curve(each.what, each.unit, each.costs) for each in growths]))


if __name__ == "__main__":
    main()
