"""The house of the experiments: ten numbered senders, sinks that record, and an oracle that compares them."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from history.queries import History
from tests.faults.house import House, Oracle, Posted, csv_rows, graphite_points, influx_points
from tests.faults.lab.bench import Bench
from tests.peers.fakes import RecordingCarbon, RecordingInflux
from tests.peers.process import wait_for

SENDERS = 10
CLOCK_SLACK_S = 0.05
Number = tuple[str, int]  # a device, and the number of its reading


class Rig:
    """A running house with all its outputs but the broker."""

    def __init__(
        self, bench: Bench, house: House, carbon: RecordingCarbon, influx: RecordingInflux, pause_s: float
    ) -> None:
        self.bench = bench
        self.house = house
        self.carbon = carbon
        self.influx = influx
        self.oracle = Oracle(house, pause_s)

    def settle(self, within_s: float = 60.0) -> None:
        """Let the senders finish, and wait until every output has it all."""
        self.oracle.finish()
        sent = len(self.oracle.posted)
        for output in self.outputs:
            wait_for(
                lambda output=output: (
                    self.house.metric("wattherd_output_delivered_total", output=output) == sent
                    and self.house.metric("wattherd_output_pending", output=output) == 0
                ),
                f"output {output} to have {sent} readings, no less and no more; log: {self.house.log_path}",
                within_s,
            )

    @property
    def outputs(self) -> list[str]:
        return [name for name in ("csv", "graphite", "history", "influx") if f"[outputs.{name}]" in self.text]

    @property
    def text(self) -> str:
        return self.house.config.read_text()

    def judge(self) -> None:
        """Stop the house and compare what each output has with what the oracle knows."""
        bench, sent = self.bench, set(self.oracle.posted)
        bench.expect(self.house.stop() == 0, "the house did not stop well")
        found = self.found()
        for output, balance in self.house.balance().items():
            has = found[output]
            lost, doubled = len(sent - has.keys()), has.total() - len(has)
            bench.count(output, balance, sent=len(sent), lost=lost, doubled=doubled)
            bench.expect(balance.holds, f"{output}: {balance} does not balance")
            bench.expect(balance.accepted == len(sent), f"{output}: {len(sent)} sent, {balance.accepted} accepted")
            bench.expect(not lost, f"{output}: {lost} lost, such as {sorted(sent - has.keys())[:3]}")
            bench.expect(not doubled, f"{output}: {doubled} doubled")
            bench.expect(not has.keys() - sent, f"{output}: {len(has.keys() - sent)} that nobody sent")
        bench.expect(set(bench.sheet.outputs) == set(self.outputs), "an output has no account")
        bench.more("readings", len(sent))
        bench.more("attempts", self.oracle.attempts)

    def found(self) -> dict[str, Counter[Number]]:
        """How often each output has each reading; every time has to be true, and each register right."""
        self._judge_registers()
        influx = influx_points([line for request in self.influx.requests for line in request.lines])
        for number, lines in influx.items():
            for line in lines:
                self._judge_time(number, int(line.rsplit(b" ", 1)[1]) / 1e9, "influx")
        graphite = graphite_points(self.carbon.lines)
        found = {
            "influx": Counter({number: len(lines) for number, lines in influx.items()}),
            "graphite": Counter({number: len(lines) for number, lines in graphite.items()}),
            "csv": Counter((row[2], int(row[4])) for row in self._rows if row[3] == "pulses"),
        }
        if "history" in self.outputs:
            found["history"] = self._history()
        return found

    def _judge_registers(self) -> None:
        self._rows = csv_rows(self.house.data_dir / "csv") if "csv" in self.outputs else []
        # A pulse is a watt-hour, and the register begins with the first: whoever was killed, it is always right.
        registers = Counter((row[2], float(row[4]) + 1) for row in self._rows if row[3] == "energy_wh")
        if "csv" in self.outputs:
            wrong = registers.keys() ^ {(device, float(number)) for device, number in self.oracle.posted}
            self.bench.expect(not wrong, f"{len(wrong)} registers are wrong, such as {sorted(wrong)[:3]}")
        for row in self._rows:
            if row[3] == "pulses":
                time_s = datetime.datetime.fromisoformat(row[0]).timestamp()
                self._judge_time((row[2], int(row[4])), time_s, "csv")

    def _judge_time(self, number: Number, time_s: float, output: str) -> None:
        posted = self.oracle.posted.get(number)
        if posted and not posted.first_s - CLOCK_SLACK_S <= time_s <= posted.answered_s + CLOCK_SLACK_S:
            self.bench.expect(False, f"{output}: {number} has the time {time_s}, but was posted {posted}")

    def _history(self) -> Counter[Number]:
        """Every reading of the counters, as whoever asks the history gets it."""
        posted = self.oracle.posted.values()
        begin_ns, end_ns = (round(edge * 1e9) for edge in (posted_from(posted) - 60, time.time() + 60))
        found: Counter[Number] = Counter()
        with closing(History(self.house.data_dir / "history.db")) as history:
            for device, source in self.house.devices.items():
                columns = history.series((source, device, "pulses"), begin_ns, end_ns, 0)
                for at_ns, value in zip(columns.at_ns, columns.last, strict=True):
                    assert value is not None
                    found[device, int(value)] += 1
                    self._judge_time((device, int(value)), at_ns / 1e9, "history")
        return found


def posted_from(posted: Iterable[Posted]) -> float:
    return min((one.first_s for one in posted), default=time.time())


@contextmanager
def rig(
    bench: Bench,
    more: str = "",
    *,
    outputs: Sequence[str] = ("csv", "graphite", "history", "influx"),
    settings: str = "",
    starts: bool = True,
    pause_s: float = 0.01,
    directory: Path | None = None,
    **options: Any,
) -> Iterator[Rig]:
    """Run a house with its recording sinks until the end of the block.

    `more` is appended to its configuration, `settings` to the tables of the two sinks; `options` are those of a House.
    """
    with RecordingCarbon() as carbon, RecordingInflux() as influx:
        tables = {
            "csv": "[outputs.csv]",
            "graphite": f"[outputs.graphite]\nport = {carbon.port}\n{settings}",
            "history": "[outputs.history]",
            "influx": f'[outputs.influx]\nurl = "{influx.url}"\n{settings}',
        }
        text = "\n".join(tables[output] for output in outputs) + "\n"
        sources = {f"meter-{number}": [f"esp32-{number}"] for number in range(SENDERS)}
        house = House(directory or bench.directory / "house", text, sources, more, **options)
        made = Rig(bench, house, carbon, influx, pause_s)
        try:
            if starts:
                house.started()
            yield made
        finally:
            made.oracle.give_up()
            house.kill()
