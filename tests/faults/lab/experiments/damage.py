"""Files of the house are damaged, swapped, cut off, deleted or locked away; then the next writer begins."""

from __future__ import annotations

import logging
import os
import pwd
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from channel import Receiver, Sender, pair
from history.queries import History
from reading import Reading
from tests.faults.house import accounts
from tests.faults.lab.bench import Bench
from tests.faults.lab.disk import DEVICE, delivered, lone_writer
from tests.faults.lab.lone_writer import STREAM, finish
from tests.peers.process import wait_for
from tests.writer._helpers import forked

PROMISE = "whatever is damaged, the next start serves within 2 s; what is gone is counted, what comes is there once"
_PAGE = 4096
_SERVES_AFTER_S = 2.0
_NEW = 5  # readings that come when the damage is done
_DATABASES = ("outbox.db", "outbox.db-wal", "history.db", "history.db-wal")


def run(bench: Bench) -> None:
    with lone_writer(bench.directory) as writer:
        for number in range(120):
            writer.send(bench.chance.choice((1, 2, 3, 50)))
            time.sleep(0.005)
            if number % 40 == 0:
                writer.wait_for_delivery()
            if number == 60:
                writer.stop()  # it leaves a copy of the ledger
                writer.start()
        wait_for(lambda: min(map(len, delivered(writer.data_dir).values())) > writer.sent // 2, "most to be delivered")
        sent, data_dir = writer.sent, writer.data_dir
        committed = lambda: {account.accepted for account in accounts(data_dir).values()} == {sent}  # noqa: E731
        wait_for(committed, "everything to be committed: what still waits in a channel goes with its parent")
        writer.kill()
    whole = data_dir.with_name("whole")
    data_dir.rename(whole)
    served_s = []
    kinds: Counter[str] = Counter()
    for number in range(bench.times(200, least=len(_MUTATIONS))):
        mutate = _MUTATIONS[number % len(_MUTATIONS)]
        kinds[mutate.__name__.strip("_").replace("_", " ")] += 1
        shutil.copytree(whole, data_dir)
        what = f"mutation {number}: {mutate(data_dir, bench.chance)}"
        if mutate in _LOCKED:
            locked_away(bench, data_dir, sent, what)
            unlock(data_dir)
        served_s.append(serve(bench, data_dir, sent, what, may_lose=mutate not in _LOCKED))
        shutil.rmtree(data_dir)
    for kind, count in kinds.items():
        bench.figure(kind, count)
    bench.figure("served after, median (s)", sorted(served_s)[len(served_s) // 2])
    bench.figure("served after, at the latest (s)", max(served_s))
    bench.expect_within(max(served_s), _SERVES_AFTER_S, "to serve again")


# ---- mutations; each says what it did


def _flipped_bits(data_dir: Path, chance: random.Random) -> str:
    path = data_dir / chance.choice(_DATABASES)
    content = bytearray(path.read_bytes())
    count = chance.choice((1, 1, 8, 100))
    for _ in range(count if content else 0):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return f"{count} bits of {path.name} flipped"


def _zeroed_pages(data_dir: Path, chance: random.Random) -> str:
    path = data_dir / chance.choice(_DATABASES)
    content = bytearray(path.read_bytes())
    page = chance.randrange(max(1, len(content) // _PAGE))
    content[page * _PAGE : (page + 1) * _PAGE] = bytes(len(content[page * _PAGE : (page + 1) * _PAGE]))
    path.write_bytes(content)
    return f"page {page} of {path.name} zeroed"


def _cut_off(data_dir: Path, chance: random.Random) -> str:
    path = data_dir / chance.choice((*_DATABASES, "ledger.copy", "incarnation"))
    path.touch()
    size = chance.randrange(path.stat().st_size + 1)
    os.truncate(path, size)
    return f"{path.name} cut off at {size}"


def _swapped_files(data_dir: Path, chance: random.Random) -> str:
    one, other = (data_dir / name for name in chance.sample(_DATABASES, 2))
    between = data_dir / "between"
    one.rename(between)
    other.rename(one)
    between.rename(other)
    return f"{one.name} and {other.name} swapped"


def _a_missing_file(data_dir: Path, chance: random.Random) -> str:
    path = data_dir / chance.choice((*_DATABASES, "outbox.db-shm", "history.db-shm"))
    path.unlink(missing_ok=True)
    return f"{path.name} is missing"


def _an_older_file(data_dir: Path, chance: random.Random) -> str:
    """What a backup that copied files one by one puts back: a database without what was in its log."""
    name = chance.choice(("outbox.db", "history.db"))
    for ending in ("-wal", "-shm"):
        (data_dir / f"{name}{ending}").unlink(missing_ok=True)
    return f"{name} without its log"


def _a_spoilt_csv(data_dir: Path, chance: random.Random) -> str:
    path = next(iter((data_dir / "csv").glob("*.csv")))
    kind = chance.choice(("deleted", "longer", "cut in the middle of a line"))
    if kind == "deleted":
        path.unlink()
    elif kind == "longer":
        with path.open("ab") as file:
            file.write(b"somebody's own line\n")
    else:
        os.truncate(path, path.stat().st_size - 5)
    return f"{path.name} {kind}"


def _a_locked_file(data_dir: Path, chance: random.Random) -> str:
    path = data_dir / chance.choice(("outbox.db", "outbox.db-wal", "history.db", "csv"))
    path.chmod(0)
    return f"nobody may use {path.name}"


def _a_locked_directory(data_dir: Path, chance: random.Random) -> str:
    data_dir.chmod(chance.choice((0, 0o500)))
    return "nobody may write into the directory"


_LOCKED: tuple[Callable[[Path, random.Random], str], ...] = (_a_locked_file, _a_locked_directory)
_MUTATIONS = (
    _flipped_bits,
    _zeroed_pages,
    _cut_off,
    _swapped_files,
    _a_missing_file,
    _an_older_file,
    _a_spoilt_csv,
    *_LOCKED,
)


# ---- what has to be true all the same


def serve(bench: Bench, data_dir: Path, sent: int, what: str, *, may_lose: bool) -> float:
    """Let the next writer begin there, with new readings waiting; return how long it took until all was delivered."""
    highest = max(registers(data_dir), default=0.0)
    took = data_dir.with_name("took")

    def begin() -> None:
        logging.disable()
        worker_end, writer_end = pair()
        sender = Sender(worker_end, STREAM, incarnation=2)
        began_s = time.monotonic()
        for number in range(sent + 1, sent + _NEW + 1):
            values = {"pulses": number, "device_energy_wh": number / 10_000}
            sender.report([Reading(DEVICE, time.monotonic_ns(), values)])
        receivers = [Receiver(writer_end, STREAM)]
        while True:
            finish(data_dir, 20.0, receivers)
            took.write_text(str(time.monotonic() - began_s))
            # One that finds the damage only when it writes mends it, and leaves the readings to the next try.
            if not any(account.pending for account in accounts(data_dir).values()):
                return
            receivers = []

    with forked(begin) as child:
        status = child.wait(60)
    if status:
        bench.expect(False, f"{what}: nobody can begin there (status {status})")
        return 0.0
    books = accounts(data_dir)
    for output, has in delivered(data_dir, tolerant=True).items():
        new = [has[number] for number in range(sent + 1, sent + _NEW + 1)]
        there = new == [1] * _NEW or (output == "history" and new == [0] * _NEW and added(data_dir, sent + _NEW))
        bench.expect(there, f"{what}: {output} has the new readings {new} times")
        old = Counter({number: count for number, count in has.items() if number <= sent})
        lost, doubled = sent - len(old), old.total() - len(old)
        bench.expect(books[output].holds, f"{what}: {output}: {books[output]} does not balance")
        bench.count(output, books[output], sent=sent + _NEW, lost=lost, doubled=doubled)
        bench.expect(may_lose or not lost, f"{what}: {output} lost {lost}")
        bench.expect(may_lose or not doubled, f"{what}: {output} doubled {doubled}")
    fell = [register for register in registers(data_dir, behind=sent) if register < highest]
    bench.expect(not fell, f"{what}: the register fell from {highest} to {fell[:1]}")
    return float(took.read_text())


def added(data_dir: Path, last: int) -> bool:
    """Whether the hour, of which damage took the single readings, has the last one in its sum, and none twice."""
    with closing(History(data_dir / "history.db")) as history:
        hour = history.series((STREAM, DEVICE, "pulses"), 0, time.time_ns() + 3600 * 10**9, 3600)
        return hour.last[-1] == last and sum(hour.n) <= last


def registers(data_dir: Path, behind: int = 0) -> list[float]:
    """Every register of energy in the files, of the readings with a number above `behind`."""
    values: dict[str, dict[str, float]] = {}
    for path in (data_dir / "csv").glob("*.csv"):
        for line in path.read_text(errors="replace").splitlines():
            time_, *_, metric, value, _, _ = line.split(",") if line.count(",") == 6 else ["", "", "", "", "", ""]
            if metric in ("pulses", "energy_wh"):
                values.setdefault(time_, {})[metric] = float(value)
    return [one["energy_wh"] for one in values.values() if "energy_wh" in one and one.get("pulses", 0) > behind]


def locked_away(bench: Bench, data_dir: Path, sent: int, what: str) -> None:
    """Whoever may not use a file says so, and takes nothing for damaged."""
    nobody = pwd.getpwnam("nobody")
    if os.geteuid() == 0:
        for path in [data_dir, *data_dir.rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    def begin() -> None:
        logging.disable()
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        try:
            finish(data_dir, 1.0)
        except (OSError, sqlite3.OperationalError):
            os._exit(3)

    with forked(begin) as child:
        status = child.wait(60)
    bench.expect(status in (0, 3), f"{what}: it ended with {status}")
    bench.expect(not list(data_dir.glob("*.damaged-*")), f"{what}: a file was taken for damaged")


def unlock(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    for path in data_dir.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(path, os.geteuid(), os.getegid())
