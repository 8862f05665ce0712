"""Other programs that keep readings, each on a disk of its own, fed with 20 devices of 4 values every 10 s."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from tests.peers.carbon import running_carbon
from tests.peers.influxd import Influxd, running_influxd
from tests.peers.process import wait_for

DEVICES = 20
EVERY_S = 10
METRICS = ("power_w", "voltage_v", "current_a", "energy_wh")
_SCHEMAS = "[all]\npattern = .*\nretentions = 10s:7d,1m:30d,10m:1y\n"
Row = tuple[str, str, float]  # device, metric, value


class DiskPeer(ABC):
    """A program that is fed."""

    program: ClassVar[str]
    package: ClassVar[str]

    @classmethod
    def missing(cls) -> str:
        """Return the program, if it is not installed."""
        return "" if shutil.which(cls.program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") else cls.program

    @classmethod
    @contextlib.contextmanager
    @abstractmethod
    def running(cls, place: Path) -> Iterator[Self]:
        """Run it with all that it keeps in `place`."""
        raise NotImplementedError

    @abstractmethod
    def feed(self, at_s: int, rows: Sequence[Row]) -> None:
        """Give it what two devices say in one second."""


class Carbon(DiskPeer):
    """As the script of a plug sends to it: a line a value, at once."""

    program, package = "carbon-cache", "graphite-carbon"

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))

    @classmethod
    @contextlib.contextmanager
    def running(cls, place: Path) -> Iterator[Self]:
        with running_carbon(place, schemas=_SCHEMAS, autoflush=False) as carbon:
            yield cls(carbon.port)

    def feed(self, at_s: int, rows: Sequence[Row]) -> None:
        lines = [f"home.electricity.kasa.{device}.{metric} {value} {at_s}\n" for device, metric, value in rows]
        self._connection.sendall("".join(lines).encode())


class InfluxDB(DiskPeer):
    """As Telegraf sends to it: every ten seconds what there is."""

    program, package = "influxd", "influxdb"

    def __init__(self, influxd: Influxd) -> None:
        self._influxd = influxd
        self._lines: list[str] = []
        influxd.create("home")

    @classmethod
    @contextlib.contextmanager
    def running(cls, place: Path) -> Iterator[Self]:
        with running_influxd(place) as influxd:
            yield cls(influxd)

    def feed(self, at_s: int, rows: Sequence[Row]) -> None:
        self._lines += [f"electricity,device={one},source=kasa {metric}={value} {at_s}" for one, metric, value in rows]
        if at_s % EVERY_S == 0:
            body = "\n".join(self._lines).encode()
            self._lines = []
            urllib.request.urlopen(f"{self._influxd.url}/write?db=home&precision=s", body, timeout=30).close()


class Collectd(DiskPeer):
    """With its CSV plugin."""

    program, package = "collectd", "collectd-core"

    def __init__(self, path: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        self._answers = self._connection.makefile("rb")

    @classmethod
    @contextlib.contextmanager
    def running(cls, place: Path) -> Iterator[Self]:
        path = place / "socket"
        (place / "collectd.conf").write_text(
            f'Hostname "home"\nFQDNLookup false\nBaseDir "{place}"\nPIDFile "{place}/pid"\nInterval {EVERY_S}\n'
            f'TypesDB "/usr/share/collectd/types.db"\nLoadPlugin csv\nLoadPlugin unixsock\n<Plugin csv>\n'
            f'DataDir "{place}/csv"\n</Plugin>\n<Plugin unixsock>\nSocketFile "{path}"\n</Plugin>\n'
        )
        program = shutil.which(cls.program, path="/usr/sbin:/usr/bin") or cls.program
        with (place / "log").open("wb") as log:
            process = subprocess.Popen([program, "-f", "-C", place / "collectd.conf"], stdout=log, stderr=log)
        try:
            wait_for(path.exists, "the socket of collectd")
            yield cls(path)
        finally:
            process.terminate()
            process.wait(30)

    def feed(self, at_s: int, rows: Sequence[Row]) -> None:
        for device, metric, value in rows:
            line = f'PUTVAL "home/{device}/gauge-{metric}" interval={EVERY_S} {at_s}:{value}\n'
            self._connection.sendall(line.encode())
            if not (answer := self._answers.readline()).startswith(b"0"):
                raise RuntimeError(f"collectd says: {answer!r}")


PEERS: dict[str, type[DiskPeer]] = {"carbon": Carbon, "InfluxDB": InfluxDB, "collectd": Collectd}


class Fed:
    """Feeds peers in a thread of its own, until the end of the block; what failed there is raised then."""

    def __init__(self, peers: Sequence[DiskPeer]) -> None:
        self._peers = peers
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._error and error is None:
            raise self._error

    def _run(self) -> None:
        chance = random.Random(7)
        energy_wh = 0.0
        share = DEVICES // EVERY_S
        try:
            while not self._over.wait(1.0 - time.time() % 1.0):
                at_s = int(time.time())
                energy_wh += 1.2
                rows = []
                for device in range(at_s % EVERY_S * share, (at_s % EVERY_S + 1) * share):
                    watts = round(max(0.0, chance.gauss(400, 90)), 1)
                    for metric, value in zip(METRICS, (watts, 230.1, round(watts / 230.1, 3), energy_wh), strict=True):
                        rows.append((f"plug-{device}", metric, round(value, 3)))
                for peer in self._peers:
                    peer.feed(at_s, rows)
        except BaseException as error:  # noqa: BLE001 - raised where the block ends
            self._error = error
