"""The real house as a test runs it: `orchestrator.py run` with its processes, and an oracle that posts from outside."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.peers.process import free_ports, wait_for
from writer.outbox import Account, Progress, balance

ROOT = Path(__file__).parents[2]


class House:
    """`orchestrator.py run` in a directory of its own, with ESP32 receivers and whatever outputs a test wants.

    `devices` all post to one receiver, the source "meter"; or they are told for each source, which then has its own.
    `supervise` and `writer` are further lines of these tables.
    """

    def __init__(
        self,
        directory: Path,
        outputs: str,
        devices: list[str] | Mapping[str, list[str]],
        more: str = "",
        commit_interval_s: float = 0.2,
        *,
        supervise: str = "",
        writer: str = "",
        data_dir: Path | None = None,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir or directory / "var"
        self.config = directory / "site.toml"
        self.log_path = directory / "log"
        self.sources = {"meter": devices} if isinstance(devices, list) else dict(devices)
        self.api_port, *ports = free_ports(1 + len(self.sources))
        self.ports = dict(zip(self.sources, ports, strict=True))
        self.head = f"""
[site]
name = "proof"
data_dir = "{self.data_dir}"
[supervise]
longest_pause_s = 0.05
{supervise}
[writer]
commit_interval_s = {commit_interval_s}
{writer}
[api]
port = {self.api_port}
"""
        self.configure(outputs, more)
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def configure(self, outputs: str, more: str = "") -> None:
        self.write(self.head + self.receivers(*self.sources) + outputs + more)

    def write(self, text: str) -> None:
        """Replace the whole configuration."""
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.rename(self.config)

    def receivers(self, *names: str) -> str:
        """The tables of these sources."""
        text = ""
        for name in names:
            text += f'[sources.{name}]\nkind = "esp32_http"\nport = {self.ports[name]}\n'
            for device in self.sources[name]:
                text += f'[[sources.{name}.devices]]\nname = "{device}"\nmax_power_w = 1e6\n'
        return text

    @property
    def devices(self) -> dict[str, str]:
        """The source of each device."""
        return {device: source for source, devices in self.sources.items() for device in devices}

    @property
    def post_port(self) -> int:
        """Where the only receiver listens."""
        [port] = self.ports.values()
        return port

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "orchestrator.py", "run", "--config", str(self.config)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "error", **self.environment},
            )

    def started(self) -> House:
        self.start()
        wait_for(self.is_ready, f"the house to be ready; its log: {self.log_path}", 60)
        return self

    def is_ready(self) -> bool:
        return self.get("/readyz") is not None

    def get(self, path: str) -> str | None:
        """What the api answers, None while it is away or says no."""
        address = f"http://127.0.0.1:{self.api_port}{path}"
        with suppress(OSError, http.client.HTTPException), urllib.request.urlopen(address, timeout=5) as answer:
            return str(answer.read().decode())
        return None

    def stop(self, within_s: float = 20.0) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def pid(self, name: str) -> int | None:
        """The process of the house that `ps` shows as `name`."""
        assert self.process is not None
        with suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for child in children:
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == name[:15]:
                        return int(child)
        return None

    def post(self, body: object, timeout_s: float = 10.0, source: str = "") -> tuple[int, bytes]:
        port = self.ports[source] if source else self.post_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        with closing(connection):
            connection.request("POST", "/", json.dumps(body) if not isinstance(body, bytes) else body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def metric(self, name: str, **labels: str) -> float | None:
        """One value of /metrics, None while the api is away or has no such series."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in (self.get("/metrics") or "").splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(label in line for label in wanted):
                return float(line.rsplit(" ", 1)[1])
        return None

    def balance(self) -> dict[str, Balance]:
        """What the outbox itself has on the disk, of each output; call it when the house stands still."""
        return accounts(self.data_dir)


@dataclass(frozen=True)
class Balance:
    accepted: int
    delivered: int
    pending: int
    dropped: dict[str, int]  # by reason

    @property
    def holds(self) -> bool:
        return self.accepted == self.delivered + self.pending + sum(self.dropped.values())


def accounts(data_dir: Path) -> dict[str, Balance]:
    """What an outbox has on the disk of each output, with what is pending counted row by row."""
    found = {}
    with closing(sqlite3.connect(data_dir / "outbox.db")) as outbox:
        state = dict(outbox.execute("SELECT key, value FROM state"))
        for key in state:
            if key.startswith("output/"):
                name = key.removeprefix("output/")
                progress = msgspec.msgpack.decode(state[key], type=Progress)
                account = msgspec.msgpack.decode(state[f"account/{name}"], type=Account)
                rows = outbox.execute("SELECT id, count FROM row").fetchall()
                pending = sum(count for row, count in rows if progress.owes(row))
                dropped = balance(progress, account).dropped
                found[name] = Balance(account.accepted, progress.delivered, pending, dropped)
    return found


@dataclass
class Posted:
    """When one reading was first tried and when its answer came, in UTC seconds."""

    first_s: float
    answered_s: float = 0.0


@dataclass
class Oracle:
    """Posts numbered readings as ESP32s do: one at a time a device, again and again until it has an answer of 200.

    It knows from outside what was accepted. Number n of a device has `pulses_total` n: each reading is one of a kind.
    """

    house: House
    pause_s: float = 0.01
    patience_s: float = 60.0  # at the end, for each device to get rid of its reading
    posted: dict[tuple[str, int], Posted] = field(default_factory=dict)
    attempts: int = 0

    def __post_init__(self) -> None:
        self._leaving = threading.Event()
        self._given_up = threading.Event()
        self._threads = [threading.Thread(target=self._post_all, args=(device,)) for device in self.house.devices]

    def start(self) -> Oracle:
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Stop each device after the reading that it is trying to get rid of."""
        self._leaving.set()
        for thread in self._threads:
            thread.join(self.patience_s)
            assert not thread.is_alive(), "a device did not get rid of its reading"

    @property
    def newest(self) -> tuple[str, int]:
        """The reading that was tried last."""
        posted = dict(self.posted)
        return max(posted, key=lambda number: posted[number].first_s)

    def give_up(self) -> None:
        """Have each device stop, even with a reading in hand."""
        self._leaving.set()
        self._given_up.set()

    def _post_all(self, device: str) -> None:
        number = 0
        source = self.house.devices[device]
        while not self._leaving.is_set():
            number += 1
            posted = self.posted[device, number] = Posted(time.time())
            message = {"device": device, "boot": "b00t", "seq": number, "pulses_total": number, "power_w": number % 997}
            while not self._given_up.is_set():
                self.attempts += 1
                with suppress(OSError, http.client.HTTPException):
                    status, _ = self.house.post(message, timeout_s=5, source=source)
                    if status == 200:
                        posted.answered_s = time.time()
                        break
                time.sleep(0.02)
            time.sleep(self.pause_s * random.uniform(0.5, 1.5))


def csv_rows(directory: Path) -> list[list[str]]:
    """Every row of every daily file, without the headers; each file must be whole."""
    rows = []
    for file in sorted(directory.glob("electricity-*.csv")):
        text = file.read_text(encoding="ascii")
        assert text.endswith("\n")
        lines = [line.split(",") for line in text.splitlines()]
        assert lines[0][0] == "time"
        assert all(len(line) == len(lines[0]) for line in lines)
        assert ["time"] not in [line[:1] for line in lines[1:]]
        rows += lines[1:]
    return rows


LINE = re.compile(rb"^electricity,device=(?P<device>[^,]+),.* (?P<fields>[^ ]+) (?P<time_ns>\d+)$")


def influx_points(lines: list[bytes]) -> dict[tuple[str, int], set[bytes]]:
    """The distinct lines that a recording InfluxDB got of each numbered reading."""
    found: dict[tuple[str, int], set[bytes]] = {}
    for line in lines:
        match = LINE.match(line)
        assert match, line
        pulses = re.search(rb"(?:^|,)pulses=([\d.]+)", match["fields"])
        assert pulses, line
        found.setdefault((match["device"].decode(), int(float(pulses[1]))), set()).add(line)
    return found


def graphite_points(lines: list[str]) -> dict[tuple[str, int], set[str]]:
    """The distinct lines that a recording carbon got of each numbered reading."""
    found: dict[tuple[str, int], set[str]] = {}
    for line in lines:
        path, value, _ = line.split(" ")
        device, metric = path.split(".")[-2:]
        if metric == "pulses":
            found.setdefault((device, int(float(value))), set()).add(line)
    return found
