"""A writer whose disk is under control: every change of it is on record, and any call can be made to fail."""

from __future__ import annotations

import enum
import errno
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channel import Sender, pair
from history.queries import History
from reading import Reading
from tests.faults.house import accounts, csv_rows
from tests.faults.lab.bench import Bench
from tests.faults.lab.lone_writer import STREAM
from tests.peers.process import wait_for
from tests.shim.build import shim_library

ROOT = Path(__file__).parents[3]
DEVICE = "plug"
SHORT_WRITE = -1  # in place of an errno: half of the bytes are written
KILL = -2  # the process is killed just before the call
_SHIM = Path(__file__).parents[1] / "disk_shim.c"
_HEAD = struct.Struct("=IIqq")


class Kind(enum.IntEnum):
    """Calls, as the shim numbers them."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    RENAME = 5
    UNLINK = 6
    MKDIR = 7
    READ = 8
    OPEN = 9


CHANGES = frozenset(Kind) - {Kind.READ, Kind.OPEN}


class Orders:
    """What the shim is told, in memory that it shares."""

    _ORDERS = struct.Struct("=6q104s")

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(self._ORDERS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self._ORDERS.size)

    def fail(self, number: int, code: int, times: int = 1, kinds: frozenset[Kind] = frozenset(Kind)) -> None:
        """Count from 1 on again, and let the call of that number fail, or so many from there on; 0: none."""
        bits = sum(1 << kind for kind in kinds)
        self._ORDERS.pack_into(self._memory, 0, 0, number, times, code, 0, bits, b"")

    @property
    def calls(self) -> int:
        return int(self._ORDERS.unpack_from(self._memory)[0])

    @property
    def failed(self) -> int:
        return int(self._ORDERS.unpack_from(self._memory)[4])

    @property
    def last(self) -> str:
        """The last call that failed."""
        return str(self._ORDERS.unpack_from(self._memory)[6].rstrip(b"\0").decode(errors="replace"))


@dataclass(frozen=True)
class Change:
    """One change of the disk, or a sync."""

    kind: Kind
    path: str
    offset: int  # of a write; the new size of a truncated file
    data: bytes  # of a write; the new name of a renamed file


def recorded(path: Path) -> list[Change]:
    """Everything on a record, in order."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        kind, path_bytes, offset, data_bytes = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        name = content[at : at + path_bytes].decode()
        data = content[at + path_bytes : at + path_bytes + data_bytes]
        at += path_bytes + data_bytes
        found.append(Change(Kind(kind), name, offset, data))
    return found


class LoneWriter:
    """The writer process alone, and the worker's side of its channel. Reading number n has `pulses` n."""

    def __init__(self, data_dir: Path, orders: Path, record: Path | None = None) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self.orders = Orders(orders)
        self.sent = 0
        self._environment = {
            **os.environ,
            "LD_PRELOAD": str(shim_library(_SHIM)),
            "WATTHERD_DISK_UNDER": str(data_dir),
            "WATTHERD_DISK": str(orders),
            **({"WATTHERD_DISK_LOG": str(record)} if record else {}),
        }
        self._ends = pair()
        self._sender = Sender(self._ends[0], STREAM, incarnation=1)
        self.log = data_dir.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None
        self._starter: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        descriptor = self._ends[1].fileno()
        self.process = self._run(str(descriptor), pass_fds=[descriptor])

    def starts_and_ends(self) -> int:
        """Have a writer start, deliver what is left, and end; return its status."""
        if self._starter is None:
            self._starter = self._run("starts", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._starter.stdin and self._starter.stdout
        self._starter.stdin.write(b"start\n")
        self._starter.stdin.flush()
        return int(self._starter.stdout.readline())

    def _run(self, what: str, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.faults.lab.lone_writer", str(self.data_dir), what]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=log, **{"stdout": log, **options})

    def send(self, count: int = 3) -> None:
        """Report `count` readings in one message; each is a tenth of a milliwatt-hour, which any meter may count."""
        self._sender.report(
            [
                Reading(DEVICE, time.monotonic_ns(), {"pulses": number, "device_energy_wh": number / 10_000})
                for number in range(self.sent + 1, self.sent + count + 1)
            ]
        )
        self.sent += count

    @property
    def has_died(self) -> bool:
        assert self.process
        return self.process.poll() is not None

    def in_csv(self) -> int:
        """The readings that the file has by now."""
        text = b"".join(file.read_bytes() for file in (self.data_dir / "csv").glob("*.csv"))
        return text.count(b",pulses,")

    def wait_for_delivery(self, within_s: float = 20.0) -> None:
        wait_for(lambda: self.has_died or self.in_csv() >= self.sent, f"{self.sent} readings in the file", within_s)
        assert not self.has_died, f"the writer ended; its log: {self.log}"

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        for process in (self.process, self._starter):
            if process:
                process.kill()
                process.wait()

    def close(self) -> None:
        self.kill()
        for end in self._ends:
            end.close()


@contextmanager
def lone_writer(directory: Path, *, record: Path | None = None) -> Iterator[LoneWriter]:
    made = LoneWriter(directory / "var", directory / "orders", record)
    made.start()
    try:
        yield made
    finally:
        made.close()


def delivered(data_dir: Path, *, tolerant: bool = False) -> dict[str, Counter[int]]:
    """How often each output has each reading. A file must be whole, unless one is `tolerant` of what is no row."""
    if tolerant:
        lines = b"".join(file.read_bytes() for file in (data_dir / "csv").glob("*.csv")).splitlines()
        found = {
            "csv": Counter(int(line.split(b",")[4]) for line in lines if line.count(b",") == 6 and b",pulses," in line)
        }
    else:
        found = {"csv": Counter(int(row[4]) for row in csv_rows(data_dir / "csv") if row[3] == "pulses")}
    with closing(History(data_dir / "history.db")) as history:
        columns = history.series((STREAM, DEVICE, "pulses"), 0, time.time_ns() + 10**12, 0)
        found["history"] = Counter(int(value) for value in columns.last if value is not None)
    return found


def judge(bench: Bench, data_dir: Path, sent: int, *, at_least: int = -1, where: str = "at the end") -> None:
    """Compare what a stopped writer left with what it was sent, of which readings behind `at_least` may be missing."""
    least = sent if at_least < 0 else at_least
    found = delivered(data_dir)
    for output, account in accounts(data_dir).items():
        has = found[output]
        lost, doubled = {*range(1, least + 1)} - has.keys(), has.total() - len(has)
        known = sent if at_least < 0 else account.accepted
        bench.count(output, account, sent=known, lost=len(lost), doubled=doubled)
        bench.expect(account.holds, f"{where}: {output}: {account} does not balance")
        bench.expect(not lost, f"{where}: {output}: {len(lost)} lost, such as {sorted(lost)[:3]}")
        bench.expect(not doubled, f"{where}: {output}: {doubled} doubled")
        bench.expect(has.keys() <= {*range(1, sent + 1)}, f"{where}: {output} has what nobody sent")


def name_of(code: int) -> str:
    return {SHORT_WRITE: "a short write", KILL: "SIGKILL"}.get(code) or errno.errorcode[code]
