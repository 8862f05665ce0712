"""What the api costs: memory, and how fast it answers while ten pages are open. `python -m bench.api`

The house has 20 simulated devices and a week of their history. Ten readers of the live stream are connected while one
client asks each question again and again over one kept connection. The p99 is as a user feels it, so it depends on what
else the machine does; the CPU of a question, asked of the process itself, hardly does.
"""

from __future__ import annotations

import http.client
import socket
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import psutil

from bench.figures import Figure, parser, publish
from bench.memory import pss_mb
from history.buckets import SECOND_NS
from reading import Quality, Record
from tests.api.recorded import record
from tests.faults.house import House
from tests.peers.process import wait_for
from workers.simulated import House as Model
from workers.simulated import Options

READERS: Final = 10
MOST_MB: Final = 45.0  # of PSS, ten readers and a history included
MOST_P99_MS: Final = 250.0  # what feels like at once
MOST_CPU_MS: Final = 20.0  # a Pi is several times slower, and one question must not keep the others waiting
_ASKED_FOR_S: Final = 2.0
_DAYS: Final = 7
_EVERY_S: Final = 300
_DEVICES: Final = [
    {"name": f"{load}-{number}", "load": load}
    for load in ("base", "fridge", "kettle", "cooker", "washing")
    for number in range(4)
]
QUESTIONS: Final = {
    "the page": "/",
    "live": "/api/v1/live",
    "health": "/api/v1/health",
    "a day of one device": "/api/v1/series?source=house&device=fridge-1&metric=power_w",
    "a day of 20 devices": "/api/v1/series/stack",
    "7 days of 20 devices in kWh": "/api/v1/energy?by=day",
    "24 hours of 20 devices in kWh": "/api/v1/energy?by=hour",
    "gaps": "/api/v1/gaps",
    "/energy of an appliance": "/energy",
    "metrics": "/metrics",
}


class Answers(NamedTuple):
    """How a question was answered."""

    a_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def main() -> None:
    told = parser(__doc__).parse_args()
    publish("api", measure(asked_for_s=0.1 if told.quick else _ASKED_FOR_S), told.results)


def measure(asked_for_s: float = _ASKED_FOR_S) -> list[Figure]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, ExitStack() as stack:
        house = _house(Path(name))
        stack.callback(house.kill)
        house.start()
        wait_for(house.is_ready, "the house to be ready", within_s=120)
        pid = wait_for(lambda: house.pid("api"), "the api")
        alone_mb = pss_mb([pid])
        for _ in range(READERS):
            stack.enter_context(closing(_reader(house)))
        answers = {what: asked(house, pid, path, asked_for_s) for what, path in QUESTIONS.items()}
        busy_mb = pss_mb([pid])
        readers_cpu = _share_of_a_core(pid, 10.0)
    for what, one in answers.items():
        print(f"{what:<30}{one.a_second:>9.0f} a second{one.p50_ms:>9.2f} ms p50{one.p99_ms:>9.2f} ms p99")
    figures = [
        Figure("memory of the api, alone", alone_mb, "MB", f"{MOST_MB:g} MB", MOST_MB),
        Figure(f"with {READERS} readers and all questions", busy_mb, "MB", f"{MOST_MB:g} MB", MOST_MB),
        Figure(f"a core, for {READERS} readers alone", readers_cpu * 100, "%", "10 %", 10.0),
    ]
    for what, one in answers.items():
        most_ms = MOST_P99_MS * _share(what)
        figures.append(Figure(f"{what}: p99", one.p99_ms, "ms", f"{most_ms:g} ms", most_ms))
    for what, one in answers.items():
        most_ms = MOST_CPU_MS * _share(what)
        figures.append(Figure(f"{what}: CPU", one.cpu_ms, "ms", f"{most_ms:g} ms", most_ms))
    return figures


def _share(what: str) -> int:
    """What is asked of all devices lets others in after each of them, so it may take longer."""
    return len(_DEVICES) // 4 if "20 devices" in what else 1


def asked(house: House, pid: int, path: str, asked_for_s: float = _ASKED_FOR_S) -> Answers:
    """Ask one question again and again."""
    process = psutil.Process(pid)
    took_ms = []
    with closing(http.client.HTTPConnection("127.0.0.1", house.api_port, timeout=30)) as connection:
        _ask(connection, path)  # what is read for the first time is kept for the next
        cpu_s, begun_s = sum(process.cpu_times()[:2]), time.monotonic()
        while (passed_s := time.monotonic() - begun_s) < asked_for_s or len(took_ms) < 100:
            asked_s = time.monotonic()
            _ask(connection, path)
            took_ms.append((time.monotonic() - asked_s) * 1000)
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
    p99_ms = statistics.quantiles(took_ms, n=100)[98]
    return Answers(len(took_ms) / passed_s, statistics.median(took_ms), p99_ms, cpu_s * 1000 / len(took_ms))


def _ask(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, f"{path}: {answer.status}"


def _reader(house: House) -> socket.socket:
    """Read the live stream, as an open page does."""
    connection = socket.create_connection(("127.0.0.1", house.api_port), timeout=30)
    connection.sendall(b"GET /api/v1/live/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 200")

    def read() -> None:
        with suppress(OSError):
            while connection.recv(65_536):
                pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def _share_of_a_core(pid: int, during_s: float) -> float:
    process = psutil.Process(pid)
    cpu_s = sum(process.cpu_times()[:2])
    time.sleep(during_s)
    return (sum(process.cpu_times()[:2]) - cpu_s) / during_s


def _house(directory: Path) -> House:
    devices = "".join(
        f'[[sources.house.devices]]\nname = "{one["name"]}"\nload = "{one["load"]}"\n' for one in _DEVICES
    )
    house = House(directory, "", ["unused"])
    house.head += 'appliances = [{ id = 1, name = "Refrigerator", channel = "house/fridge-1" }]\n'
    house.configure(f'[sources.house]\nkind = "simulated"\ninterval_s = 1\n{devices}[outputs.csv]\n[outputs.history]\n')
    house.data_dir.mkdir()
    _remember(house.data_dir)
    return house


def _remember(folder: Path) -> None:
    """Write a week of the same house."""
    model = Model(msgspec.convert({"kind": "simulated", "devices": _DEVICES}, Options))
    now_ns, boot_ns = time.time_ns(), time.time_ns() - time.monotonic_ns()
    steps = _DAYS * 86_400 // _EVERY_S
    for day in range(_DAYS):
        records = []
        for step in range(day * steps // _DAYS, (day + 1) * steps // _DAYS):
            at_ns = now_ns - 60 * SECOND_NS - (steps - step) * _EVERY_S * SECOND_NS
            for reading in model.readings(at_ns - boot_ns):
                values = {**reading.values, "energy_wh": reading.values["device_energy_wh"]}
                records.append(Record("house", reading.device, at_ns, values, Quality.SIMULATED))
        record(folder, records, day - 1000)


if __name__ == "__main__":
    main()
