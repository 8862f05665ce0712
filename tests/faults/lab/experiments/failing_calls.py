"""Every call to the disk fails, once and for a while, or is the last before a SIGKILL: commits, deliveries, starts."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from tests.faults.lab.bench import Bench
from tests.faults.lab.disk import KILL, SHORT_WRITE, Kind, LoneWriter, delivered, judge, lone_writer, name_of
from tests.faults.lab.lone_writer import MARK
from tests.peers.process import wait_for

PROMISE = "whichever call to the disk fails or is the last, each output ends with all that was accepted, once"
_GROWING = frozenset({Kind.CREATE, Kind.WRITE, Kind.TRUNCATE, Kind.SYNC, Kind.RENAME, Kind.MKDIR})
_ERRORS = {
    errno.EIO: frozenset(Kind),
    errno.ENOSPC: _GROWING,
    errno.EINTR: frozenset(Kind) - {Kind.MKDIR, Kind.RENAME, Kind.UNLINK},
    SHORT_WRITE: frozenset({Kind.WRITE}),
    KILL: frozenset(Kind),
}
_FOR_A_WHILE = 5  # calls that fail, one after the other


def run(bench: Bench) -> None:
    at_work(bench)
    for damaged in (False, True):
        at_the_start(bench, damaged=damaged)


def at_work(bench: Bench) -> None:
    deaths: Counter[str] = Counter()
    with lone_writer(bench.directory / "work") as writer:
        writer.send()
        settle(writer)
        for error, kinds in _ERRORS.items():
            for times in (1, _FOR_A_WHILE) if error != KILL else (1,):
                number = bench.chance.randrange(bench.stride)
                failed = 1
                while failed:
                    number += bench.stride
                    writer.orders.fail(number, error, times, kinds)
                    writer.send()
                    survived = settle(writer)
                    failed = writer.orders.failed
                    bench.more("kills at a call" if error == KILL else "calls that failed", failed)
                    if not survived:
                        # A disk that cannot read for a while looks like damage, which a new start is to look into.
                        expected = error == KILL or (error == errno.EIO and times > 1)
                        deaths[f"{name_of(error)} at {writer.orders.last}"] += not expected
                        writer.orders.fail(0, 0)
                        writer.start()
                        settle(writer)
                bench.figure(f"calls of a commit and its deliveries: {name_of(error)}", number - bench.stride)
        writer.orders.fail(0, 0)
        bench.expect(writer.stop() == 0, "the writer did not stop well")
        judge(bench, writer.data_dir, writer.sent)
    bench.expect(not +deaths, f"the writer died of {dict(+deaths)}")


def at_the_start(bench: Bench, *, damaged: bool) -> None:
    """The same while a writer opens what a killed one left, or takes over what is readable of damaged files."""
    what = "a start after damage" if damaged else "a start"
    with lone_writer(bench.directory / what.replace(" ", "-")) as writer:
        for _ in range(6):
            writer.send()
            time.sleep(0.02)
        wait_for(lambda: min(map(len, delivered(writer.data_dir).values())) > 5, "some readings in both outputs")
        writer.kill()
        before = writer.data_dir.with_name("before")
        shutil.copytree(writer.data_dir, before)
        committed = MARK.unpack((before / "commits").read_bytes())[0] * 3
        if damaged:
            _spoil(before / "outbox.db", "entry")
            _spoil(before / "history.db", "series")
        for error, kinds in _ERRORS.items():
            number = bench.chance.randrange(bench.stride)
            failed = 1
            while failed:
                number += bench.stride
                shutil.rmtree(writer.data_dir)
                shutil.copytree(before, writer.data_dir)
                writer.orders.fail(number, error, 1, kinds)
                writer.starts_and_ends()
                failed = writer.orders.failed
                bench.more("kills at a call" if error == KILL else "calls that failed", failed)
                where = f"{what}, {name_of(error)} at {writer.orders.last}"
                writer.orders.fail(0, 0)
                status = writer.starts_and_ends()
                bench.expect(status == 0, f"{where}: the next start failed")
                if status == 0:
                    judge(bench, writer.data_dir, writer.sent, at_least=committed, where=where)
            bench.figure(f"calls of {what}: {name_of(error)}", number - bench.stride)


def settle(writer: LoneWriter) -> bool:
    """Wait until all that was sent is in both outputs and nothing moves any more; False if the writer died."""
    deadline_s = time.monotonic() + 60
    while not writer.has_died and time.monotonic() < deadline_s:
        calls = writer.orders.calls
        time.sleep(0.03)
        if writer.orders.calls == calls and writer.in_csv() >= writer.sent:
            found = delivered(writer.data_dir)
            if all(len(has) >= writer.sent for has in found.values()):
                return True
    assert writer.has_died, f"{writer.sent} readings are not delivered; log: {writer.log}"
    return False


def _spoil(path: Path, table: str) -> None:
    """Put a row into a table that it cannot have: nothing else is lost, but the file is not sound."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        (columns,) = file.execute("SELECT count(*) FROM pragma_table_info(?)", (table,)).fetchone()
        (sql,) = file.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        file.execute("PRAGMA writable_schema = ON")
        change = "UPDATE sqlite_schema SET sql = ? WHERE name = ?"
        file.execute(change, (sql.replace("NOT NULL", ""), table))
        file.execute("PRAGMA writable_schema = RESET")
        file.execute(f"INSERT INTO {table} VALUES ({', '.join(['NULL'] * columns)})")
        file.execute("PRAGMA writable_schema = ON")
        file.execute(change, (sql, table))
        file.execute("PRAGMA writable_schema = RESET")
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
    path.with_name(path.name + "-wal").touch()  # as a killed writer leaves it
