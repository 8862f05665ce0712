"""What a backlog costs: CPU of the writer for a day of readings to each output. `python -m bench.drain [--month]`

The house has 20 devices of 4 values every 10 s: 172,800 readings a day, committed as the writer does, ten seconds a
row. Then a writer starts with one output, whose peer takes everything at once, and leaves when it has delivered all;
its CPU is counted from its start to its end, commits included. Beside it influxdb-client writes the same points. And
while a house delivers the same backlog, a meter posts: how old is its reading when the peer has it?
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import resource
import shutil
import socket
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from bench.figures import LEAST_ROUNDS, Figure, medians, parser, publish
from bench.sinks import sink
from config.settings import ClockRules, OutputTable, Site
from config.settings import Writer as WriterTable
from reading import Reading, Record
from tests.faults.house import House
from tests.peers.process import wait_for
from vitals import Board
from writer import output_class
from writer.ingest import Ingest, WriterPlan
from writer.outbox import Intake, Outbox, Stamp
from writer.rows import SYNCED

DEVICES = 20
EVERY_S = 10
DAY_S = 86_400
OUTPUTS = ("csv", "history", "graphite", "influx")
CLIENT = "influxdb-client"
_DELIVER_S = 3600.0
_POSTS = 5


def readings(days: float) -> Iterator[list[Reading]]:
    """Yield what all devices say every ten seconds, up to now."""
    chance = random.Random(7)
    energy = [chance.uniform(0, 90_000) for _ in range(DEVICES)]
    # As far back as the monotonic clock of a young machine goes, and further: below zero it goes on as well.
    first_s = time.monotonic() - days * DAY_S
    for number in range(round(days * DAY_S / EVERY_S)):
        at_s = first_s + number * EVERY_S
        rows = []
        for device in range(DEVICES):
            watts = round(max(0.0, chance.gauss(400, 90)), 1)
            volts = round(230 + 4 * math.sin(at_s / 3000), 1)
            energy[device] += watts * EVERY_S / 3600
            values = {
                "power_w": watts,
                "voltage_v": volts,
                "current_a": round(watts / volts, 3),
                "energy_wh": round(energy[device], 3),
            }
            rows.append(Reading(f"plug-{device}", int(at_s * 1e9) + device * 10**7, values))
        yield rows


def fill(folder: Path, days: float) -> int:
    """Make an outbox that owes `days` to every output; return how many readings that is."""
    folder.mkdir(parents=True)
    outbox = Outbox(folder / "outbox.db", reserve_bytes=0, quota_bytes=10**11)
    outbox.serve(OUTPUTS)
    stamp = Stamp(
        Path("/proc/sys/kernel/random/boot_id").read_text().strip(), time.time_ns() - time.monotonic_ns(), SYNCED
    )
    count = 0
    pending: list[Reading] = []
    for rows in readings(days):
        pending += rows
        count += len(rows)
        if len(pending) >= 2000:
            outbox.commit(Intake(readings={"kasa": pending}, count=len(pending)), stamp, outbox.progress, [])
            pending = []
    if pending:
        outbox.commit(Intake(readings={"kasa": pending}, count=len(pending)), stamp, outbox.progress, [])
    outbox.close()
    return count


def drained_cpu_s(filled: Path, output: str, port: int) -> float:
    """Return the CPU seconds that a writer takes to deliver what a copy of `filled` owes to one output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "var"
        shutil.copytree(filled, folder)
        return _in_a_child(lambda: _drain(folder, output, port))


def _drain(folder: Path, output: str, port: int) -> None:
    os.environ["BENCH_TOKEN"] = "token"
    tables = {
        "csv": {},
        "history": {},
        "graphite": {"port": port},
        "influx": {"url": f"http://127.0.0.1:{port}", "org": "home", "bucket": "raw", "token_env": "BENCH_TOKEN"},
    }
    options: OutputTable = msgspec.convert({"kind": output, **tables[output]}, output_class(output).Options)
    site = Site(data_dir=str(folder))
    rules = WriterTable(commit_interval_s=1.0, outbox_reserve_mb=0, outbox_quota_mb=100_000)
    plan = WriterPlan(folder, site, rules, ClockRules(require_sync=False), {output: options})
    board = Board()
    row = board.claim("output", output)
    Ingest(plan, [], board.claim("writer", "writer"), {output: row}).run_once(_DELIVER_S)
    if row["pending"] or row["delivered"] == 0:
        raise RuntimeError(f"{output} has {row['delivered']} readings, {row['pending']} are missing: {row.note}")


def month_cpu_s(folder: Path, days: float, ports: dict[str, int]) -> dict[str, float]:
    """Return what thirty times as much takes, once, to each output."""
    filled = folder / "month"
    fill(filled, days)
    return {output: drained_cpu_s(filled, output, ports.get(output, 0)) for output in OUTPUTS}


def client_cpu_s(records: list[Record], port: int) -> float:
    return _in_a_child(lambda: _client(records, port))


def _client(records: list[Record], port: int) -> None:
    from influxdb_client import InfluxDBClient, Point, WriteOptions

    with (
        InfluxDBClient(f"http://127.0.0.1:{port}", token="t", org="home", enable_gzip=True) as client,
        client.write_api(write_options=WriteOptions(batch_size=5000, flush_interval=1000)) as api,
    ):
        for record in records:
            point = Point("electricity").tag("source", record.source).tag("device", record.device)
            for metric, value in record.values.items():
                point.field(metric, value)
            api.write("raw", record=point.time(record.time_ns))


def _in_a_child(work: object) -> float:
    """Run `work` in a forked process and return its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if not child:
        status = 1
        try:
            logging.disable(logging.CRITICAL)
            work()  # type: ignore[operator]
            status = 0
        except BaseException:  # noqa: BLE001 - told, and the status says it too
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError("a part of the measurement failed; what it said stands above")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def live_s(filled: Path) -> float:
    """Start a house that owes all of it to Graphite, post a reading each second, and tell how late the latest came."""
    arrived_s: dict[str, float] = {}
    backlog_s = [0.0]
    listener = socket.create_server(("127.0.0.1", 0))

    def take(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                if b".live." in line and b"power_w" in line:
                    arrived_s.setdefault(line.split()[1].decode(), time.monotonic())
                elif b".plug-" in line:
                    backlog_s[0] = time.monotonic()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=take, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        port = listener.getsockname()[1]
        house = House(Path(name), f"[outputs.graphite]\nport = {port}\n", {"kasa": ["live"]}, commit_interval_s=1.0)
        shutil.copytree(filled, house.data_dir)
        posted_s = {}
        try:
            house.start()
            wait_for(lambda: backlog_s[0], "the backlog to begin", within_s=60)
            for watts in range(1, 1 + _POSTS):
                posted_s[f"{watts}.0"] = time.monotonic()
                body = msgspec.json.encode({"device": "live", "power_w": float(watts), "pulses_total": watts})
                request = urllib.request.Request(f"http://127.0.0.1:{house.post_port}/", body)
                urllib.request.urlopen(request, timeout=30).close()
                time.sleep(1.0)
            wait_for(lambda: {*posted_s} <= {*arrived_s}, "the posted readings", within_s=60)
        finally:
            house.kill()
            listener.close()
    return max(arrived_s[watts] - posted_s[watts] for watts in posted_s if posted_s[watts] < backlog_s[0])


def measure(days: float = 1.0, rounds: int = LEAST_ROUNDS, *, month: bool = False) -> list[Figure]:
    """Return CPU seconds for each output, and what influxdb-client takes of them."""
    with tempfile.TemporaryDirectory() as name, sink("carbon") as carbon, sink("influx") as influx:
        filled = Path(name) / "filled"
        fill(filled, days)
        records = [
            Record("kasa", one.device, one.at_ns + 10**18, one.values) for rows in readings(days) for one in rows
        ]
        ports = {"graphite": carbon, "influx": influx}
        costs: dict[str, Callable[[], float]] = {
            output: partial(drained_cpu_s, filled, output, ports.get(output, 0)) for output in OUTPUTS
        }
        costs[CLIENT] = lambda: client_cpu_s(records, influx)
        found = medians(costs, rounds)
        late_s = live_s(filled)
        month = month_cpu_s(Path(name), days * 30, ports) if month else {}
    what = f"{days:g} day{'s' if days != 1 else ''} of backlog"
    figures = [Figure(f"{what} to {output}", found[output], "s", "1 s of CPU a day", days) for output in OUTPUTS]
    figures += [
        Figure(f"{days * 30:g} days to {output}", cost_s, "s", "1 s of CPU a day", days * 30)
        for output, cost_s in month.items()
    ]
    figures.append(Figure("a new reading meanwhile", late_s, "s", "10 s", 10.0))
    figures.append(Figure(f"{what} to influx", found["influx"], "s", CLIENT, found[CLIENT], 1 / 15))
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--days", type=float, default=1.0)
    arguments.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    arguments.add_argument("--month", action="store_true", help="thirty times as much, too, once to each output")
    told = arguments.parse_args()
    findings = measure(0.1, 1) if told.quick else measure(told.days, told.rounds, month=told.month)
    publish("drain", findings, told.results)


if __name__ == "__main__":
    main()
