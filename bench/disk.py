"""What a house costs the disk: bytes and writes that reach the device. `sudo python -m bench.disk`

Each program has a private ext4 on a loop device, so that nobody else writes to it; its own counters are read before and
after. All run at the same time: ours with 20 devices of 4 values every 10 s, its outbox, history, CSV and log on that
disk; carbon, InfluxDB 1.x and collectd with as many values of their own.

With `--commits` it tells what one commit costs: bytes follow the number of commits and the pages that each touches,
hardly what is in them. `commands/_doctor/disk_cost.py` reckons with that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.disk_peers import PEERS, DiskPeer, Fed
from bench.figures import Figure, Finding, Skipped, parser, publish

ROOT = Path(__file__).parents[1]
HOUSES = {
    "a server alone": "",  # the outbox, and how far it has got
    "and csv": "[outputs.csv]\n",
    "and history": "[outputs.history]\n",
    "and both": "[outputs.csv]\n[outputs.history]\n",
}
WARM_S = 10.0
FILES_S = 60  # as it is on a card
WINDOWS_S = {10: 1 / 10, 60: 1 / 45}  # the most of what carbon writes
_LOADS = ("base", "fridge", "kettle", "cooker", "washing")
_DAY_S = 86_400


@contextlib.contextmanager
def private_disk(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Mount an ext4 of its own; return where, and the file with its counters."""
    image, place = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(1_000_000_000)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    device = loop.stdout.strip()
    try:
        subprocess.run(["mount", "-o", "noatime", device, place], check=True)
        try:
            yield place, Path("/sys/block") / Path(device).name / "stat"
        finally:
            subprocess.run(["umount", place], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def a_server() -> Iterator[int]:
    """Take lines as carbon does, and keep none; return the port."""

    class ReadsToTheEnd(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), ReadsToTheEnd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def written_bytes(counters: Path) -> int:
    return int(counters.read_text().split()[6]) * 512


def commits(port: int) -> float:
    """Return how many there were; wait for a house that is still starting."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            break
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
    return next(float(line.split()[-1]) for line in lines if line.startswith("wattherd_writer_commits_total"))


def commit_bytes(
    folder: Path, outputs: str, interval_s: float, file_interval_s: float, seconds: float
) -> tuple[float, float]:
    """Return commits, and bytes for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with private_disk(folder) as (place, counters), a_server() as sink:
        config = folder / "site.toml"
        config.write_text(
            f'[site]\ndata_dir = "{place}"\n[api]\nport = {port}\n'
            f"[writer]\ncommit_interval_s = {interval_s}\nfile_interval_s = {file_interval_s}\n"
            f"[outputs.graphite]\nport = {sink}\n"
            f'[sources.house]\nkind = "simulated"\ninterval_s = {interval_s}\n{outputs}'
        )
        house = subprocess.Popen(
            [sys.executable, "orchestrator.py", "run", "--config", config],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            commits(port)
            time.sleep(WARM_S)
            os.sync()
            commits_before, bytes_before = commits(port), written_bytes(counters)
            time.sleep(seconds)
            os.sync()
            made, written = commits(port) - commits_before, written_bytes(counters) - bytes_before
        finally:
            house.send_signal(signal.SIGTERM)
            house.wait(30)
    return made, written / made


@contextlib.contextmanager
def a_house(place: Path, window_s: int) -> Iterator[None]:
    """Run a house whose every byte is on that disk."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    devices = "".join(
        f'[[sources.house.devices]]\nname = "{load}-{number}"\nload = "{load}"\n'
        for load in _LOADS
        for number in range(4)
    )
    config = place / "site.toml"
    config.write_text(
        f'[site]\ndata_dir = "{place}/var"\n[api]\nport = {port}\n'
        f"[writer]\ncommit_interval_s = {window_s}\nfile_interval_s = {FILES_S}\n"
        f'[sources.house]\nkind = "simulated"\ninterval_s = 10\n{devices}[outputs.csv]\n[outputs.history]\n'
    )
    with (place / "log").open("wb") as log:
        house = subprocess.Popen(
            [sys.executable, "orchestrator.py", "run", "--config", config], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        commits(port)
        yield
    finally:
        house.send_signal(signal.SIGTERM)
        house.wait(60)


def counted(counters: Path) -> tuple[int, int]:
    """Return how many writes there were, and how many bytes they had."""
    fields = counters.read_text().split()
    return int(fields[4]), int(fields[6]) * 512


def measure(warm_s: float = 90.0, seconds: float = 300.0) -> list[Finding]:
    if os.geteuid() != 0:
        return [Skipped("bytes on the disk", "a file system of its own needs root; try: sudo")]
    found: list[Finding] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattherd-disk-")))
        counters: dict[str, Path] = {}

        def disk(name: str) -> Path:
            (folder / name).mkdir()
            place, counters[name] = stack.enter_context(private_disk(folder / name))
            return place

        fed: list[DiskPeer] = []
        for name, peer in PEERS.items():
            if program := peer.missing():
                found.append(Skipped(f"bytes on the disk, {name}", f"no {program}; try: apt install {peer.package}"))
            else:
                fed.append(stack.enter_context(peer.running(disk(name))))
        for window_s in WINDOWS_S:
            stack.enter_context(a_house(disk(f"{window_s} s"), window_s))
        with Fed(fed):
            time.sleep(warm_s)
            os.sync()
            before = {name: counted(each) for name, each in counters.items()}
            time.sleep(seconds)
            os.sync()
            after = {name: counted(each) for name, each in counters.items()}
    per_day = _DAY_S / seconds
    writes, megabytes = (
        {name: (after[name][field] - before[name][field]) * per_day / scale for name in counters}
        for field, scale in ((0, 1.0), (1, 1e6))
    )
    for name in counters:
        print(f"{name:<10}{megabytes[name]:>9.0f} MB a day{writes[name]:>11,.0f} writes a day")
    for window_s, most in WINDOWS_S.items():
        for name in (each for each in PEERS if each in megabytes):
            budget = most if name == "carbon" else None  # what else is there to compare with
            ours = f"{window_s} s"
            found.append(
                Figure(f"a day on the disk, {ours} window", megabytes[ours], "MB", name, megabytes[name], budget)
            )
            found.append(Figure(f"a day's writes, {ours} window", writes[ours], "", name, writes[name], None))
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--commits", action="store_true", help="what one commit costs instead")
    arguments.add_argument("--interval-s", type=float, default=1.0, help="between commits")
    arguments.add_argument("--file-interval-s", type=float, default=0.0, help="of --commits: of CSV and history")
    arguments.add_argument("--seconds", type=float, default=300.0, help="how long it counts")
    arguments.add_argument("--only", choices=[*HOUSES], help="of --commits: this house alone")
    told = arguments.parse_args()
    if not told.commits:
        findings = measure(5.0, 15.0) if told.quick else measure(seconds=told.seconds)
        publish("disk", findings, told.results)
        return
    if os.geteuid() != 0:
        sys.exit("needs root, for a file system of its own; run: sudo .venv/bin/python -m bench.disk --commits")
    print(f"{'house':<16}{'commits':>9}{'bytes each':>12}{'MB a day at 10 s':>18}")
    for name, outputs in HOUSES.items():
        if told.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="wattherd-disk-") as folder:
            made, each = commit_bytes(Path(folder), outputs, told.interval_s, told.file_interval_s, told.seconds)
            print(f"{name:<16}{made:>9.0f}{each:>12.0f}{each * 8640 / 1e6:>18.0f}")


if __name__ == "__main__":
    main()
