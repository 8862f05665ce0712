"""The house of the experiments: ten numbered senders, sinks that record, and an oracle that compares them."""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from history.queries import History
from tests.faults.house import House, Oracle, Posted, csv_rows, graphite_points, influx_points
from tests.faults.lab.bench import Bench
from tests.faults.lab.proxy import Proxy
from tests.peers.fakes import RecordingCarbon, RecordingInflux
from tests.peers.mosquitto import running_mosquitto
from tests.peers.process import wait_for

SENDERS = 10
CLOCK_SLACK_S = 0.05
Number = tuple[str, int]  # a device, and the number of its reading


@dataclass
class Sinks:
    """Where a house sends its readings, each with all that it ever got; a broker tells only what is published there."""

    carbon: RecordingCarbon
    influx: RecordingInflux
    messages: list[paho.MQTTMessage] = field(default_factory=list)
    proxies: dict[str, Proxy] = field(default_factory=dict)  # that stand before them, by output

    def lines(self, output: str, after: int = 0) -> tuple[dict[Number, set[Any]], int]:
        """The distinct things that an output got of each reading, behind the `after` first; and how many by now."""
        if output == "graphite":
            lines = self.carbon.lines[after:]
            return graphite_points(lines), after + len(lines)  # type: ignore[return-value]
        if output == "influx":
            requests = self.influx.requests[after:]
            found = influx_points([line for request in requests for line in request.lines])
            return found, after + len(requests)  # type: ignore[return-value]
        found = {}
        messages = self.messages[after:]
        for message in messages:
            told = json.loads(message.payload)
            if "pulses" in told["values"]:
                number = message.topic.rsplit("/", 1)[1], int(told["values"]["pulses"])
                found.setdefault(number, set()).add(message.payload)
        return found, after + len(messages)  # type: ignore[return-value]


class Rig:
    """A running house with its sinks, and the oracle that posts to it."""

    def __init__(self, bench: Bench, house: House, sinks: Sinks, pause_s: float) -> None:
        self.bench = bench
        self.house = house
        self.sinks = sinks
        self.oracle = Oracle(house, pause_s)
        self._seen: dict[str, tuple[set[Number], int]] = {}

    def has(self, output: str, number: Number) -> bool:
        """Whether a sink has got a reading by now."""
        seen, after = self._seen.get(output, (set(), 0))
        more, after = self.sinks.lines(output, after)
        self._seen[output] = seen | more.keys(), after
        return number in self._seen[output][0]

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
        return [name for name in ("csv", "graphite", "history", "influx", "mqtt") if f"[outputs.{name}]" in self.text]

    @property
    def text(self) -> str:
        return self.house.config.read_text()

    def judge(self) -> None:
        """Stop the house and compare what each output has with what the oracle knows."""
        bench, sent = self.bench, set(self.oracle.posted)
        bench.expect(self.house.stop() == 0, "the house did not stop well")
        found = self.found()
        for output in self.outputs:
            balance, has = self.house.balance()[output], found[output]
            lost, doubled = len(sent - has.keys()), has.total() - len(has)
            bench.count(output, balance, sent=len(sent), lost=lost, doubled=doubled)
            bench.expect(balance.holds, f"{output}: {balance} does not balance")
            bench.expect(balance.accepted == len(sent), f"{output}: {len(sent)} sent, {balance.accepted} accepted")
            bench.expect(not lost, f"{output}: {lost} lost, such as {sorted(sent - has.keys())[:3]}")
            bench.expect(not doubled, f"{output}: {doubled} doubled")
            bench.expect(not has.keys() - sent, f"{output}: {len(has.keys() - sent)} that nobody sent")
        bench.more("readings", len(sent))
        bench.more("attempts", self.oracle.attempts)

    def found(self) -> dict[str, Counter[Number]]:
        """How often each output has each reading; every time has to be true, and each register right."""
        self._judge_registers()
        found: dict[str, Counter[Number]] = {
            "csv": Counter((row[2], int(row[4])) for row in self._rows if row[3] == "pulses")
        }
        for output in ("graphite", "influx", "mqtt"):
            lines, _ = self.sinks.lines(output)
            found[output] = Counter({number: len(distinct) for number, distinct in lines.items()})
            if output == "influx":
                for number, distinct in lines.items():
                    for line in distinct:
                        self._judge_time(number, int(line.rsplit(b" ", 1)[1]) / 1e9, "influx")
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
    proxied: bool = False,
    starts: bool = True,
    pause_s: float = 0.01,
    directory: Path | None = None,
    **options: Any,
) -> Iterator[Rig]:
    """Run a house with its recording sinks until the end of the block.

    `more` is appended to its configuration, `settings` to the tables of the sinks, before which there is a proxy each
    if they are `proxied`; `options` are those of a House.
    """
    directory = directory or bench.directory / "house"
    with ExitStack() as stack:
        sinks = Sinks(stack.enter_context(RecordingCarbon()), stack.enter_context(RecordingInflux()))
        ports = {"graphite": sinks.carbon.port, "influx": int(sinks.influx.url.rpartition(":")[2])}
        if "mqtt" in outputs:
            (bench.directory / "broker").mkdir()
            broker = stack.enter_context(running_mosquitto(bench.directory / "broker"))
            sinks.messages = stack.enter_context(broker.watch("all/#"))
            ports["mqtt"] = broker.port
        if proxied:
            sinks.proxies = {
                output: stack.enter_context(Proxy(port, answers=output != "graphite")) for output, port in ports.items()
            }
            ports = {output: proxy.port for output, proxy in sinks.proxies.items()}
        tables = {
            "csv": "[outputs.csv]",
            "graphite": f"[outputs.graphite]\nport = {ports['graphite']}\n{settings}",
            "history": "[outputs.history]",
            "influx": f'[outputs.influx]\nurl = "http://127.0.0.1:{ports["influx"]}"\n{settings}',
            "mqtt": f'[outputs.mqtt]\nport = {ports.get("mqtt")}\nhistory_topic = "all"\n{settings}',
        }
        text = "\n".join(tables[output] for output in outputs) + "\n"
        sources = {f"meter-{number}": [f"esp32-{number}"] for number in range(SENDERS)}
        house = House(directory, text, sources, more, **options)
        made = Rig(bench, house, sinks, pause_s)
        try:
            if starts:
                house.started()
            yield made
        finally:
            made.oracle.give_up()
            house.kill()
