"""The power is cut at every point of a recorded life of the outbox, the history and the files, in over 1,000 ways."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.faults.lab.bench import Bench, Sheet
from tests.faults.lab.disk import Change, Kind, delivered, judge, lone_writer, recorded
from tests.faults.lab.lone_writer import MARK, finish
from tests.faults.lab.platter import Cut, Platter
from tests.peers.process import wait_for
from tests.writer._helpers import forked

PROMISE = "after a power cut every file opens, and nothing that was committed is lost or doubled"
_MESSAGES = 60
_A_MESSAGE = 3  # readings
_STATES = 1200


def run(bench: Bench) -> None:
    quick = Path("/dev/shm") if Path("/dev/shm").is_dir() else bench.directory
    with tempfile.TemporaryDirectory(prefix="wattherd-cut-", dir=quick) as name:
        directory = Path(name)
        sent = live(bench, directory)
        changes = recorded(directory / "record")
        marks = committed(changes)
        changes = [change for change in changes if not change.path.endswith("/commits")]
        bench.figure("changes and syncs on record", len(changes))
        bench.figure("commits on record", len({*marks}) - 1)
        states = bench.times(_STATES, least=20)
        for number in range(states):
            # Everywhere, and in every way; within a stretch it is chance that says where.
            cut = [*Cut][number % len(Cut)]
            at = (number * len(changes) + bench.chance.randrange(len(changes))) // states + 1
            last = changes[at - 1]
            platter = Platter(directory, names_need_their_directory=cut is Cut.ONLY_SYNCED_NAMES)
            platter.play(changes[:at])
            shutil.rmtree(directory / "var")
            (directory / "var").mkdir()
            platter.cut(cut, bench.chance, directory)
            what = f"{last.kind.name.lower()} {Path(last.path).name}"
            check(bench, directory / "var", sent, marks[at], f"cut behind change {at} ({what}): {cut.value}")
        bench.figure("power cuts", states)


def live(bench: Bench, directory: Path) -> int:
    """Let a writer live, be killed, live again and end, all of it on record; return how many readings it was sent."""
    with lone_writer(directory, record=directory / "record") as writer:
        for number in range(_MESSAGES):
            writer.send(_A_MESSAGE)
            if number in (0, _MESSAGES // 3, _MESSAGES // 2):
                writer.wait_for_delivery()
            time.sleep(bench.chance.uniform(0, 0.06))
            if number in (_MESSAGES // 3, _MESSAGES // 2):
                writer.kill()
                writer.start()
        wait_for(
            lambda: min(map(len, delivered(writer.data_dir).values())) == writer.sent, "everything to be delivered"
        )
        bench.expect(writer.stop() == 0, "the writer did not stop well")
        return writer.sent


def committed(changes: Sequence[Change]) -> list[int]:
    """How many readings were committed behind each of the changes that are no mark."""
    found = [0]
    readings = 0
    for change in changes:
        if not change.path.endswith("/commits"):
            found.append(readings)
        elif change.kind is Kind.WRITE:
            readings = MARK.unpack(change.data)[0] * _A_MESSAGE
            found[-1] = readings
    return found


def check(bench: Bench, where: Path, sent: int, least: int, what: str) -> None:
    """Let the next writer begin there, deliver what is left, and compare; in a process of its own."""
    found = Sheet(bench.sheet.experiment, "", 0, 0)
    answer = where.with_name("answer.json")

    def begin() -> None:
        logging.disable()
        bench.sheet = found
        finish(where)
        judge(bench, where, sent, at_least=least, where=what)
        bench.expect(not list(where.glob("*.damaged-*")), f"{what}: a file was taken for damaged")
        answer.write_bytes(msgspec.json.encode(found))

    with forked(begin) as child:
        status = child.wait(60)
    bench.expect(status == 0, f"{what}: nobody can begin there (status {status})")
    if status == 0:
        bench.add(msgspec.json.decode(answer.read_bytes(), type=Sheet))
