"""What a reading costs on its way, durable, to three outputs: CPU of worker and writer. `python -m bench.pipeline`

Readings of 20 plugs, four values each, go through the worker's checks and its channel, are booked, committed with
`synchronous = FULL`, and delivered to CSV, Graphite and InfluxDB, whose peers take everything at once in a process of
their own. Each batch is one message, one commit, and one delivery to each output, as in a house at rest. Beside it, in
turns: influxdb-client, which only prints the same readings as line protocol; its batching writer, which posts them; and
what the programs before wattherd did, which is a queue, a `Point` and a commit for each reading.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import multiprocessing
import os
import random
import resource
import select
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.figures import Figure, Finding, Skipped, medians, parser, publish
from bench.sinks import sink
from channel import Receiver, Sender, pair
from config.settings import ClockRules, OutputTable, PolledTable, Site
from config.settings import Writer as WriterTable
from reading import Reading
from tests.peers.process import free_ports, running
from vitals import Board
from workers import Source
from workers._runtime import Worker
from writer import output_class
from writer.ingest import Ingest, WriterPlan

DEVICES: Final = 20
BATCHES: Final = {1: 100, 20: 60, 200: 30}  # readings a batch, and how many batches make one measurement
MOST_OF_POINT: Final = 0.25
LEAST_NAIVE: Final = 30
LEAST_VMAGENT: Final = 0.5  # readings a second of one core
_SOURCE: Final = "kasa"
_POINT: Final = "Point.to_line_protocol"
_CLIENT: Final = "influxdb-client"
_NAIVE: Final = "a script, one by one"
_SERVERS: Final = ("vmagent", "victoria-metrics", "influxd")
_SERVER_LINES: Final = 200_000


def readings(count: int) -> list[Reading]:
    """What plugs say, one every half a second, up to now."""
    chance = random.Random(7)
    energy_wh = [chance.uniform(0, 90_000) for _ in range(DEVICES)]
    first_ns = time.monotonic_ns() - count * 500_000_000
    found = []
    for number in range(count):
        device = number % DEVICES
        watts = round(max(0.0, chance.gauss(400, 90)), 1)
        volts = round(230 + 4 * math.sin(number / 3000), 1)
        energy_wh[device] += watts / 360
        values = {
            "power_w": watts,
            "voltage_v": volts,
            "current_a": round(watts / volts, 3),
            "device_energy_wh": round(energy_wh[device], 3),
        }
        found.append(Reading(f"plug-{device}", first_ns + number * 500_000_000, values))
    return found


def deliver(writer: Ingest, wake: select.poll) -> None:
    """Turn the writer's loop until every output has all that was committed."""
    while any(delivery._progress.front < writer._outbox.head for delivery in writer._deliveries):
        wake.poll(1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(writer._wake)
        if any(delivery.urgent for delivery in writer._deliveries):
            writer._commit()


class House:
    """Worker and writer with their three outputs, in one process, so that all they use is counted."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        os.environ["BENCH_TOKEN"] = "token"
        influx = {"url": f"http://127.0.0.1:{ports['influx']}", "org": "home", "bucket": "raw"}
        tables: dict[str, dict[str, Any]] = {
            "csv": {},
            "graphite": {"port": ports["graphite"]},
            "influx": {**influx, "token_env": "BENCH_TOKEN"},
        }
        outputs: dict[str, OutputTable] = {
            kind: msgspec.convert({"kind": kind, **table}, output_class(kind).Options) for kind, table in tables.items()
        }
        board = Board()
        self._ends = pair()
        source = _Silent(_SOURCE, PolledTable(kind="simulated"))
        self._worker = Worker(source, Sender(self._ends[0], _SOURCE, 1), board.claim("worker", _SOURCE))
        rules = WriterTable(commit_interval_s=1e-6, outbox_reserve_mb=1)
        plan = WriterPlan(folder, Site(data_dir=str(folder)), rules, ClockRules(require_sync=False), outputs)
        rows = {name: board.claim("output", name) for name in outputs}
        self._writer = Ingest(plan, [Receiver(self._ends[1], _SOURCE)], board.claim("writer", "writer"), rows)
        for delivery in self._writer._deliveries:
            delivery.start()
        self._wake = select.poll()
        self._wake.register(self._writer._wake, select.POLLIN)

    def carry(self, batch: list[Reading]) -> None:
        """Take a batch all the way."""
        self._worker._report(batch)
        self._writer._turn()
        deliver(self._writer, self._wake)

    def close(self) -> None:
        self._writer._drain()
        for end in self._ends:
            end.close()
        states = {delivery.output: delivery.failures for delivery in self._writer._deliveries}
        if any(states.values()):
            raise RuntimeError(f"an output failed, so nothing was measured: {states}")


class _Silent(Source):
    Options = PolledTable

    def open(self) -> None: ...
    def read(self) -> list[Reading]:
        return []

    def close(self) -> None: ...


def carried_us(size: int, ports: dict[str, int]) -> float:
    """Return µs of CPU a reading, of worker and writer, in batches of `size`."""
    number = BATCHES[size]
    rows = readings((number + 2) * size)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with tempfile.TemporaryDirectory() as name:
        house = House(Path(name), ports)
        try:
            for batch in batches[:2]:
                house.carry(batch)
            begun_ns = time.process_time_ns()
            for batch in batches[2:]:
                house.carry(batch)
            return (time.process_time_ns() - begun_ns) / 1e3 / (number * size)
        finally:
            house.close()


@dataclass(frozen=True, slots=True)
class Plain:
    """A reading as a script has it."""

    device: str
    time_ns: int
    values: dict[str, Any]


def naive_us(ports: dict[str, int], count: int = 400) -> float:
    """Return the same of a script that takes each reading by itself."""
    from influxdb_client import Point  # type: ignore[attr-defined]

    queue: Any = multiprocessing.Queue()
    rows = [Plain(one.device, one.at_ns, dict(one.values)) for one in readings(count)]
    with (
        tempfile.TemporaryDirectory() as name,
        open(f"{name}/readings.csv", "w", newline="") as file,
        contextlib.closing(sqlite3.connect(f"{name}/readings.db", isolation_level=None)) as database,
        socket.create_connection(("127.0.0.1", ports["graphite"])) as carbon,
    ):
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE line (text TEXT)")
        writer = csv.writer(file)
        begun_ns = time.process_time_ns()
        for row in rows:
            queue.put(row)
            one = queue.get()
            line = _point(Point, one).to_line_protocol()
            database.execute("INSERT INTO line VALUES (?)", (line,))
            for metric, value in one.values.items():
                writer.writerow([one.time_ns, one.device, metric, value])
                carbon.sendall(f"home.{one.device}.{metric} {value} {one.time_ns // 10**9}\n".encode())
            file.flush()
        # To its credit, not a request each, which alone would be 200 µs: all the lines at once.
        lines = "\n".join(text for (text,) in database.execute("SELECT text FROM line"))
        _post(ports["influx"], lines.encode())
        taken_us = (time.process_time_ns() - begun_ns) / 1e3 / count
    queue.close()
    queue.join_thread()
    return taken_us


def point_us(count: int = 5000) -> float:
    """Return what influxdb-client takes to print a reading that is a `Point` already."""
    from influxdb_client import Point  # type: ignore[attr-defined]

    points = [_point(Point, Plain(one.device, one.at_ns, dict(one.values))) for one in readings(count)]
    begun_ns = time.process_time_ns()
    for point in points:
        point.to_line_protocol()
    return (time.process_time_ns() - begun_ns) / 1e3 / count


def client_us(port: int, count: int = 20_000) -> float:
    """Return what influxdb-client takes to make and post a reading."""
    from influxdb_client import InfluxDBClient, Point, WriteOptions  # type: ignore[attr-defined]

    rows = [Plain(one.device, one.at_ns, dict(one.values)) for one in readings(count)]
    begun_ns = time.process_time_ns()
    with (
        InfluxDBClient(f"http://127.0.0.1:{port}", token="t", org="home", enable_gzip=True) as client,
        client.write_api(write_options=WriteOptions(batch_size=5000, flush_interval=1000)) as api,
    ):
        for row in rows:
            api.write("raw", record=_point(Point, row))
    return (time.process_time_ns() - begun_ns) / 1e3 / count


def server_us(kind: str, sink_port: int) -> float | None:
    """Return what a server takes to accept the same readings as lines; None where it is not installed."""
    if not shutil.which(kind):
        return None
    lines = _lines(_SERVER_LINES)
    idle_us, busy_us = (_served_us(kind, sink_port, some) for some in (lines[:1], lines))
    return (busy_us - idle_us) / len(lines)


def _served_us(kind: str, sink_port: int, lines: Sequence[bytes]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    port, other = free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "influxd.conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{other}"\n[meta]\ndir = "{name}/meta"\n[data]\n'
            f'dir = "{name}/data"\nwal-dir = "{name}/wal"\n[monitor]\nstore-enabled = false\n[http]\n'
            f'bind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
        )
        commands = {
            "vmagent": [
                f"-remoteWrite.url=http://127.0.0.1:{sink_port}/write",
                f"-remoteWrite.tmpDataPath={name}/queue",
                f"-httpListenAddr=127.0.0.1:{port}",
            ],
            "victoria-metrics": [f"-storageDataPath={name}/data", f"-httpListenAddr=127.0.0.1:{port}"],
            "influxd": ["-config", f"{name}/influxd.conf"],
        }
        with running([kind, *commands[kind]], port, folder / "log"):
            if kind == "influxd":
                _post(port, b"", "/query?q=CREATE+DATABASE+home")
            for start in range(0, len(lines), 5000):
                _post(port, b"\n".join(lines[start : start + 5000]), "/write?db=home")
            time.sleep(1.5)  # what it has taken it may still have to sort and send
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6


def _lines(count: int) -> list[bytes]:
    offset_ns = time.time_ns() - time.monotonic_ns()
    return [
        f"electricity,device={one.device},source=kasa "
        f"{','.join(f'{metric}={value}' for metric, value in one.values.items())} {one.at_ns + offset_ns}".encode()
        for one in readings(count)
    ]


def _point(kind: Any, one: Plain) -> Any:
    point = kind("electricity").tag("source", _SOURCE).tag("device", one.device)
    for metric, value in one.values.items():
        point.field(metric, value)
    return point.time(one.time_ns)


def _post(port: int, body: bytes, target: str = "/api/v2/write") -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", target, body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{target} answers {answer.status}")


def measure(rounds: int = 5, *, servers: bool = True) -> list[Finding]:
    """Return µs of CPU a reading, and what that is of each peer's."""
    logging.disable(logging.WARNING)
    with sink("carbon") as carbon, sink("influx") as influx:
        ports = {"graphite": carbon, "influx": influx}
        costs: dict[str, Callable[[], float]] = {str(size): partial(carried_us, size, ports) for size in BATCHES}
        costs |= {_POINT: point_us, _CLIENT: partial(client_us, influx), _NAIVE: partial(naive_us, ports)}
        found = medians(costs, rounds)
        served = {kind: server_us(kind, influx) for kind in _SERVERS} if servers else {}
    figures: list[Finding] = []
    for size in BATCHES:
        what, ours = f"a reading in batches of {size}", found[str(size)]
        figures.append(Figure(what, ours, "µs", _POINT, found[_POINT], MOST_OF_POINT))
        figures.append(Figure(what, ours, "µs", _NAIVE, found[_NAIVE], 1 / LEAST_NAIVE))
    figures.append(Figure(what, ours, "µs", _CLIENT, found[_CLIENT], None))
    for kind, cost in served.items():
        if cost is None:
            figures.append(Skipped(f"{kind} taking it", f"{kind} is not installed; try: make peers"))
        else:
            budget = 1 / LEAST_VMAGENT if kind == "vmagent" else None
            figures.append(Figure(what, ours, "µs", f"{kind} taking it", cost, budget))
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--no-servers", action="store_true", help="leave out what others take to accept lines")
    told = arguments.parse_args()
    findings = measure(1 if told.quick else told.rounds, servers=not (told.quick or told.no_servers))
    publish("pipeline", findings, told.results)


if __name__ == "__main__":
    main()
