"""A small real house for the tests of the parent: `python -m tests.supervise.scenario DATA_DIR`.

What runs is read from DATA_DIR/house.json, {name: setting}; a setting says how that process behaves. Every process
writes what it does into DATA_DIR/events, a line each, and the api writes the vitals board into DATA_DIR/board.json.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import logs
from config.load import ConfigurationError
from config.settings import Supervise
from supervise.house import House, Plan, Role, Start
from supervise.instance import AlreadyRunning
from supervise.parent import Parent

ROLES = {"writer": Role.WRITER, "api": Role.API}


def note(data_dir: Path, *words: object) -> None:
    descriptor = os.open(data_dir / "events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(str(word) for word in words) + "\n").encode())
    os.close(descriptor)


def be(name: str, setting: str, data_dir: Path, start: Start) -> None:
    """Beat until SIGTERM, or misbehave as `setting` says."""
    role = ROLES.get(name, Role.WORKER).value
    vitals = start.board.claim(role, name)
    stopping = threading.Event()
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    note(data_dir, name, "started", os.getpid(), start.incarnation, descriptors)
    for label, descriptor in start.kept.items():
        note(data_dir, name, "kept", label, os.read(descriptor, 100).decode())
    if setting == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    if setting.startswith("deposits") and not start.kept:
        reading, writing = os.pipe()
        os.write(writing, b"left behind")
        import socket

        socket.send_fds(start.deposits, [b"pipe"], [reading])
        if setting == "deposits-and-dies":
            os.kill(os.getpid(), signal.SIGKILL)
    if setting.startswith("exits"):
        vitals.beat()
        time.sleep(0.05)
        sys.exit(int(setting.split()[1]))
    if setting == "slow-to-leave":
        signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.0), stopping.set()))
    while not stopping.is_set():
        if setting != "hangs" or start.incarnation % 2 == 0:
            vitals.beat()
        if name == "api":
            rows = {row.name: {"state": row["state"], "pid": row["pid"]} for row in start.board.rows("process")}
            (data_dir / "board.new").write_text(json.dumps(rows))
            (data_dir / "board.new").rename(data_dir / "board.json")
        time.sleep(0.02)
    note(data_dir, name, "stopped", os.getpid())


def house(data_dir: Path) -> House:
    try:
        settings = json.loads((data_dir / "house.json").read_text())
    except ValueError as error:
        raise ConfigurationError([f"house.json: {error}"]) from error
    supervise = Supervise(**settings.pop("supervise", {}))
    plans = []
    for name, setting in settings.items():
        role = ROLES.get(name, Role.WORKER)
        main = functools.partial(be, name, setting, data_dir)
        plans.append(Plan(name, role, [(role.value, name)], setting, main))
    return House(data_dir, supervise, plans)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    logs.start()
    try:
        sys.exit(Parent(house(where), lambda: house(where)).run())
    except AlreadyRunning as running:
        print(running, file=sys.stderr)
        sys.exit(1)
