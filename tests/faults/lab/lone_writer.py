"""The writer process alone, between a report channel and its disk: the experiments with the disk stand on both sides.

`python -m tests.faults.lab.lone_writer DIRECTORY DESCRIPTOR` serves CSV and the history, and leaves at SIGTERM. Every
commit is marked in the file `commits` when the outbox has it: so a record of the disk tells what was promised when.
With "starts" in place of the descriptor, each line of its input lets one writer start, deliver what is left, and end.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from channel import Receiver
from config.settings import ClockRules, OutputTable, Site, Writer
from vitals import Board
from writer import delivery, ingest
from writer.ingest import Ingest, WriterPlan
from writer.outbox import Outbox
from writer.outputs import csv, history

STREAM = "meter"
OUTPUTS: dict[str, OutputTable] = {"csv": csv.Options(), "history": history.Options()}
MARK = struct.Struct("=q")


def plan(data_dir: Path, outputs: dict[str, OutputTable] = OUTPUTS, reserve_mb: float = 0.0) -> WriterPlan:
    return WriterPlan(
        data_dir,
        Site(data_dir=str(data_dir)),
        Writer(commit_interval_s=0.02, outbox_reserve_mb=reserve_mb),
        ClockRules(require_sync=False),
        outputs,
    )


def writer(data_dir: Path, receivers: Sequence[Receiver], **changes: float) -> Ingest:
    board = Board()
    rows = {name: board.claim("output", name) for name in OUTPUTS}
    return Ingest(plan(data_dir, **changes), receivers, board.claim("writer", "writer"), rows)  # type: ignore[arg-type]


def finish(data_dir: Path, within_s: float = 10.0, receivers: Sequence[Receiver] = ()) -> None:
    """Be the next writer: open what is there, take what the channels have, deliver all that is left, and leave."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        last = writer(data_dir, receivers)
        last.run_once(within_s)
        last._outbox.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    data_dir = Path(sys.argv[1])
    # A failure costs a moment only: what matters is that the next try succeeds.
    ingest._RETRY_COMMIT_S = delivery._FIRST_RETRY_S = 0.02  # type: ignore[misc]
    if sys.argv[2] == "starts":
        start_and_end(data_dir)
    else:
        serve(data_dir, int(sys.argv[2]))


def start_and_end(data_dir: Path) -> None:
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                finish(data_dir)
                status = 0
            except sqlite3.Error as error:
                print(f"cannot start: {error}", file=sys.stderr)
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def serve(data_dir: Path, descriptor: int) -> None:
    # What is rare in a real life is to happen here now and then: that the log goes into the database.
    connect = sqlite3.connect

    def connect_and_checkpoint(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        connection.execute("PRAGMA wal_autocheckpoint = 30")
        return connection

    sqlite3.connect = connect_and_checkpoint  # type: ignore[assignment]
    commit = Outbox.commit
    marks = os.open(data_dir / "commits", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)

    def commit_and_mark(self: Outbox, *arguments: object) -> None:
        commit(self, *arguments)  # type: ignore[arg-type]
        if STREAM in self.watermarks:
            os.pwrite(marks, MARK.pack(self.watermarks[STREAM].sequence), 0)

    Outbox.commit = commit_and_mark  # type: ignore[method-assign]
    writer(data_dir, [Receiver(socket.socket(fileno=descriptor), STREAM)]).run()


if __name__ == "__main__":
    main()
