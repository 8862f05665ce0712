"""What a commit costs the disk: bytes that reach the device under a real house. `sudo python -m bench.disk`

A private ext4 on a loop device, so that nobody else writes to it; its own counter of sectors is read before and after.
The house is `orchestrator.py run` with 20 simulated readings of a few values every commit. Bytes follow the number of
commits and the pages that each touches, hardly what is in them, so the figures are told for one commit.
`commands/_doctor/disk_cost.py` reckons with them.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).parents[1]
HOUSES = {
    "a server alone": "",  # the outbox, and how far it has got
    "and csv": "[outputs.csv]\n",
    "and history": "[outputs.history]\n",
    "and both": "[outputs.csv]\n[outputs.history]\n",
}
WARM_S = 10.0


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


def measure(folder: Path, outputs: str, interval_s: float, seconds: float) -> tuple[float, float]:
    """Return commits, and bytes for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with private_disk(folder) as (place, counters), a_server() as sink:
        config = folder / "site.toml"
        config.write_text(
            f'[site]\ndata_dir = "{place}"\n[writer]\ncommit_interval_s = {interval_s}\n[api]\nport = {port}\n'
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interval-s", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=[*HOUSES], help="this house alone")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root, for a file system of its own; run: sudo .venv/bin/python -m bench.disk")
    print(f"{'house':<16}{'commits':>9}{'bytes each':>12}{'MB a day at 10 s':>18}")
    for name, outputs in HOUSES.items():
        if arguments.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory(prefix="wattherd-disk-") as folder:
            made, each = measure(Path(folder), outputs, arguments.interval_s, arguments.seconds)
            print(f"{name:<16}{made:>9.0f}{each:>12.0f}{each * 8640 / 1e6:>18.0f}")


if __name__ == "__main__":
    main()
