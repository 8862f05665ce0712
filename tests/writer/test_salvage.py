"""A damaged outbox is set aside and never stops the house; what can be read of it goes on."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.peers.process import slowness
from tests.writer._helpers import STAMP, Child, assert_conserved, in_a_child, intake, numbers, rows
from writer import rescue, salvage
from writer.ledger import new_channel
from writer.ledger_copy import LedgerCopy
from writer.outbox import Intake, Outbox, Progress, Reader, Watermark
from writer.outbox_file import PAGE_BYTES, parts
from writer.salvage import Salvage, open_outbox

COMMITS = 100


def opened(path: Path) -> tuple[Outbox, Salvage | None]:
    outbox, saved = open_outbox(path, LedgerCopy(path.with_name("ledger.copy")), reserve_bytes=0, quota_bytes=10**9)
    outbox.serve(["quick", "away"])
    return outbox, saved


def committed(count: int) -> Callable[[Path], None]:
    def work(path: Path) -> None:
        outbox, _ = opened(path)
        total = 0
        for number in range(count):
            size = 400 if number % 10 == 0 else number % 5 + 1
            quick = outbox.progress["quick"]
            if number == count // 2:
                quick = Progress(front=outbox.head, delivered=outbox.pending(quick))
                outbox._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # one half in the file, one in the log
            outbox.commit(intake(size, total, sequence=number + 1), STAMP, {"quick": quick, "away": Progress()})
            total += size

    return work


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an outbox as a killed writer leaves them, by the end of their name."""
    path = tmp_path_factory.mktemp("whole") / "outbox.db"
    in_a_child(lambda: committed(COMMITS)(path))
    return {part.name.removeprefix(path.name): part.read_bytes() for part in parts(path)}


def lay_out(directory: Path, files: dict[str, bytes]) -> Path:
    for left in directory.iterdir():
        left.unlink()
    for ending, content in files.items():
        (directory / f"outbox.db{ending}").write_bytes(content)
    return directory / "outbox.db"


def without_log(files: dict[str, bytes], directory: Path) -> dict[str, bytes]:
    """The same outbox, all in one file."""
    path = lay_out(directory, files)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {"": path.read_bytes()}


def assert_works(outbox: Outbox) -> None:
    """What a writer does with it: account for all, serve what is there, take in more."""
    assert_conserved(outbox)
    for name, progress in outbox.progress.items():
        with contextlib.closing(Reader(outbox.path)) as reader:
            records = damaged = 0
            front = progress.front
            while some := reader.rows(front, None, 5000):
                front = some[-1].id
                records += sum(len(row.records) for row in some)
                damaged += sum(row.count - len(row.records) for row in some)
        progress.delivered += records
        progress.damaged += damaged
        progress.front = front
        assert name in outbox.accounts
    number = Watermark(2, 1)
    taken = intake(5, 10**6)
    taken.watermarks["meter"] = number
    outbox.commit(taken, STAMP, dict(outbox.progress))
    assert_conserved(outbox)
    assert [numbers(row[4]) for row in rows(outbox.path)] == [[10**6 + n for n in range(5)]]
    assert outbox.watermarks["meter"] == number


def random_damage(files: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    database, log = bytearray(files[""]), bytearray(files.get("-wal", b""))
    kind = chance.choice(["header", "first page", "bytes", "run", "zeroed", "cut", "log bytes", "log cut"])
    match kind:
        case "header":
            for _ in range(chance.randint(1, 4)):
                database[chance.randrange(100)] = chance.randrange(256)
        case "first page":
            for _ in range(chance.randint(1, 10)):
                database[chance.randrange(100, PAGE_BYTES)] = chance.randrange(256)
        case "bytes":
            for _ in range(chance.randint(1, 30)):
                database[chance.randrange(len(database))] = chance.randrange(256)
        case "run":
            start = chance.randrange(len(database))
            end = min(len(database), start + chance.randint(1, 2 * PAGE_BYTES))
            database[start:end] = chance.randbytes(end - start)
        case "zeroed":
            start = chance.randrange(len(database) // PAGE_BYTES) * PAGE_BYTES
            database[start : start + PAGE_BYTES] = bytes(PAGE_BYTES)
        case "cut":
            del database[chance.randrange(len(database)) :]
        case "log bytes":
            for _ in range(chance.randint(1, 10)):
                if log:
                    log[chance.randrange(len(log))] = chance.randrange(256)
        case "log cut":
            del log[chance.randrange(len(log) + 1) :]
    damaged = {"": bytes(database), "-wal": bytes(log)}
    if "-shm" in files and chance.random() < 0.5:  # there after a kill, stale or gone after a power cut
        damaged["-shm"] = files["-shm"]
    return damaged


@pytest.mark.parametrize("block", range(8))
def test_whatever_is_damaged_there_is_a_working_outbox_within_two_seconds(
    tmp_path: Path, whole: dict[str, bytes], block: int
) -> None:
    (tmp_path / "one").mkdir()
    files = whole if block % 2 else without_log(whole, tmp_path / "one")
    for seed in range(25 * block, 25 * block + 25):
        damaged = random_damage(files, random.Random(seed))
        path = lay_out(tmp_path / "one", damaged)
        began_s = time.monotonic()
        outbox, saved = opened(path)
        took_s = time.monotonic() - began_s
        assert took_s < 2 or took_s < 2 * slowness(), seed
        assert_works(outbox)
        if saved:
            assert saved.set_aside.exists() and saved.reason, seed
            assert saved.set_aside.read_bytes() == damaged[""], seed  # untouched: somebody may know more than we do
        assert not list(path.parent.glob("*.rescued*")), seed


def damaged_page(tmp_path: Path, whole: dict[str, bytes], table: str) -> tuple[Path, int]:
    """Lay out an outbox of which one page of a table is zeroed; return how many pages the table has, too."""
    files = without_log(whole, tmp_path)
    path = tmp_path / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    content = bytearray(files[""])
    if table == "row":  # an inner page: its entries are the leaves, of which the middle one is spoiled
        cells = int.from_bytes(content[(root - 1) * PAGE_BYTES + 3 :][:2], "big")
        assert content[(root - 1) * PAGE_BYTES] == 5 and cells >= 3
        cell = int.from_bytes(content[(root - 1) * PAGE_BYTES + 12 + 2 * (cells // 2) :][:2], "big")
        page = int.from_bytes(content[(root - 1) * PAGE_BYTES + cell :][:4], "big")
    else:
        page = root
    content[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] = bytes(PAGE_BYTES)
    return lay_out(tmp_path, {"": bytes(content)}), page


def test_the_rows_before_and_behind_a_damaged_page_are_saved(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path, _ = damaged_page(tmp_path, whole, "row")
    outbox, saved = opened(path)
    assert saved is not None
    stored = rows(path)
    ids = [row[0] for row in stored]
    assert ids[0] == 1 and ids[-1] == COMMITS and COMMITS / 2 < len(ids) < COMMITS
    assert saved.rows == len(ids)
    assert sum(after - before > 1 for before, after in pairwise(ids)) == 1  # one hole
    assert outbox.watermarks["meter"] == Watermark(1, COMMITS)
    account = outbox.accounts["away"]
    assert account.lost == account.accepted - sum(row[3] for row in stored) > 0
    assert_conserved(outbox)


def test_rows_far_behind_a_damaged_page_are_saved_too(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = lay_out(tmp_path, whole)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE row SET id = id + 10000000 WHERE id > 50")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path, _ = damaged_page(tmp_path, {"": path.read_bytes()}, "row")
    began_s = time.monotonic()
    _, saved = opened(path)
    assert time.monotonic() - began_s < 2
    ids = [row[0] for row in rows(path)]
    assert saved is not None and saved.rows == len(ids) > COMMITS / 2
    assert ids[0] == 1 and ids[-1] == 10_000_000 + COMMITS


def test_rows_are_delivered_though_the_state_is_lost(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path, _ = damaged_page(tmp_path, whole, "state")
    outbox, saved = opened(path)
    assert saved is not None and saved.rows == COMMITS
    outbox.commit(Intake(), STAMP, dict(outbox.progress))
    assert len(rows(path)) == COMMITS
    assert outbox.pending(outbox.progress["away"]) == sum(row[3] for row in rows(path))
    assert_works(outbox)


def test_a_whole_outbox_is_left_alone(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = lay_out(tmp_path, whole)
    outbox, saved = opened(path)
    assert saved is None
    assert len(rows(path)) == COMMITS
    assert outbox.watermarks["meter"] == Watermark(1, COMMITS)
    assert_works(outbox)


@pytest.mark.parametrize("content", [b"", b"no database at all", b"\0" * 100_000])
def test_a_file_that_is_no_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = lay_out(tmp_path, {"": content})
    outbox, saved = opened(path)
    assert (saved is not None) is bool(content)
    if saved:
        assert saved.rows == 0
        assert saved.set_aside.read_bytes() == content
    assert_works(outbox)


def test_the_tables_of_something_else_are_no_outbox(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE row (something TEXT)")
        connection.commit()
    outbox, saved = opened(path)
    assert saved is not None and "no such column" in saved.reason
    assert_works(outbox)


def test_a_start_that_was_cut_short_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE row (id INTEGER PRIMARY KEY, boot TEXT NOT NULL, offset_ns INTEGER NOT NULL,"
            " clock INTEGER NOT NULL, raw INTEGER NOT NULL, count INTEGER NOT NULL, body BLOB NOT NULL)"
        )
        connection.commit()
    outbox, saved = opened(path)
    assert saved is None
    assert_works(outbox)


def test_a_first_transaction_that_a_power_cut_left_half_done_is_rolled_back_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"

    def begin() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")  # so that some of it gets into the file before the commit
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE row (something BLOB)")
        connection.execute("INSERT INTO row VALUES (zeroblob(1000000))")
        os.kill(os.getpid(), signal.SIGKILL)

    assert Child(begin).wait() == -signal.SIGKILL
    assert path.stat().st_size
    assert path.with_name("outbox.db-journal").stat().st_size
    outbox, saved = opened(path)
    assert saved is None
    assert_works(outbox)


@pytest.mark.parametrize(
    "foreign",
    [
        "UPDATE row SET body = 'text' WHERE id = 5",
        "UPDATE row SET body = CAST(x'ff' AS TEXT) WHERE id = 5",
        "UPDATE row SET body = 17 WHERE id = 5",
        "UPDATE row SET clock = 9 WHERE id = 5",
        "UPDATE row SET offset_ns = 'soon' WHERE id = 5",
        "UPDATE row SET count = -7 WHERE id = 5",
        "UPDATE row SET count = 9000000000000000 WHERE id = 5",
        "UPDATE row SET id = -1 WHERE id = 5",
        "UPDATE state SET value = 'text' WHERE key = 'head'",
        "UPDATE state SET key = CAST(x'ff' AS TEXT) WHERE key = 'head'",
    ],
)
def test_values_that_no_row_of_ours_has_are_damage(tmp_path: Path, whole: dict[str, bytes], foreign: str) -> None:
    path = lay_out(tmp_path, whole)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(foreign)
        connection.commit()
    outbox, saved = opened(path)
    assert saved is not None
    assert saved.rows == COMMITS - (" id = 5" in foreign)
    assert_works(outbox)


def test_each_damaged_file_is_set_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    names = []
    for number in range(3):
        path.write_bytes(b"garbage %d" % number * 1000)
        _, saved = open_outbox(path, LedgerCopy(path.with_name("ledger.copy")), reserve_bytes=0, quota_bytes=10**9)
        assert saved is not None
        names.append(saved.set_aside)
        for part in parts(path):
            part.unlink(missing_ok=True)
    assert len(set(names)) == 3
    assert [name.read_bytes()[:9] for name in names] == [b"garbage 0", b"garbage 1", b"garbage 2"]


@pytest.mark.parametrize("loss", ["the state", "the file"])
def test_no_register_falls_though_the_writer_is_killed_before_its_first_commit(
    tmp_path: Path, whole: dict[str, bytes], loss: str
) -> None:
    """Whoever is silent when the damage is found is not in the next commit: its register has to be safe before."""
    channel = new_channel()
    channel.energy_wh.told_uwh = 5_000_000
    LedgerCopy(tmp_path / "ledger.copy").keep({"meter/silent": channel}, now=True)
    if loss == "the state":
        (tmp_path / "damaged").mkdir()
        page = damaged_page(tmp_path / "damaged", whole, "state")[0]
        page.rename(tmp_path / "outbox.db")
    path = tmp_path / "outbox.db"

    def start_and_commit() -> None:
        outbox, _ = opened(path)
        outbox.commit(Intake(), STAMP, dict(outbox.progress))

    in_a_child(lambda: opened(path))
    in_a_child(start_and_commit)
    outbox, saved = opened(path)
    assert saved is None
    assert outbox.channels["meter/silent"].energy_wh.told_uwh == 5_000_000


@pytest.mark.parametrize("step", ["_take_over", "rescue.finish", "Outbox"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_salvage_that_is_killed_is_finished_by_the_next_start(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    path, _ = damaged_page(tmp_path, whole, "row")
    damaged = path.read_bytes()
    module, _, name = f"salvage.{step}".rpartition(".")
    owner = salvage if module == "salvage" else rescue
    whole_step = getattr(owner, name)

    def die(*arguments: object, **named: object) -> object:
        if when == "after":
            whole_step(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def start() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, die)
            opened(path)

    assert Child(start).wait() == -signal.SIGKILL
    is_finished_by_the_next_start(path, damaged)


@pytest.mark.parametrize("number", range(5))
def test_a_salvage_killed_between_two_names_never_joins_a_log_to_a_file_that_is_not_its_own(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The file and its log get their new names one after the other, and SQLite would play any log into any file."""
    path, page = damaged_page(tmp_path, whole, "row")
    damaged = path.read_bytes()
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).write_bytes(whole[ending])  # of another time, as bad as a log can be
    rename = Path.rename
    done: list[Path] = []

    def rename_or_die(self: Path, target: Path) -> Path:
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(self)
        return rename(self, target)

    def start() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(salvage, "_damage", lambda _: f"page {page}")
            patch.setattr(Path, "rename", rename_or_die)
            opened(path)

    before = in_log(path)
    assert Child(start).wait() == -signal.SIGKILL
    monkeypatch.setattr(salvage, "_damage", lambda path: f"page {page}" if path.read_bytes() == damaged else "")
    outbox, saved = opened(path)
    assert saved is not None
    assert saved.rows == before
    assert [aside.read_bytes() for aside in tmp_path.glob("*.damaged-?")] == [damaged]
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3, "the log and its index stay with their file"
    assert_works(outbox)


def in_log(path: Path) -> int:
    """The rows that a salvage of the file with its log would save."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return len(list(salvage._readable_rows(connection)))


def is_finished_by_the_next_start(path: Path, damaged: bytes) -> None:
    outbox, _ = opened(path)
    assert COMMITS / 2 < len(rows(path)) < COMMITS
    assert outbox.watermarks["meter"] == Watermark(1, COMMITS)
    assert [aside.read_bytes() for aside in path.parent.glob("*.damaged-?")] == [damaged]
    assert not list(path.parent.glob("*.rescu*"))
    assert_works(outbox)


@contextlib.contextmanager
def limited(which: int, limit: int) -> Iterator[None]:
    """Let this process have no more of something, as a machine that has run out of it."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


@pytest.mark.parametrize("what", ["reading", "writing"])
def test_a_salvage_without_room_takes_nothing_for_lost_and_waits(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A disk that is full, or a machine without descriptors, says nothing of what could be read of the file."""
    path = lay_out(tmp_path, without_log(whole, tmp_path))
    before = path.read_bytes()
    monkeypatch.setattr(salvage, "_damage", lambda path: "so it seems" if path.read_bytes() == before else "")
    one, two = (os.dup(0) for _ in range(2))  # the numbers of the next two files that are opened
    os.close(one), os.close(two)
    limits = {"reading": (resource.RLIMIT_NOFILE, two), "writing": (resource.RLIMIT_FSIZE, 100_000)}
    with limited(*limits[what]), pytest.raises((sqlite3.OperationalError, OSError)):
        opened(path)
    assert not list(tmp_path.glob("*.damaged-*"))
    outbox, saved = opened(path)
    assert saved is not None and saved.rows == COMMITS
    assert_works(outbox)


def test_a_place_that_cannot_be_used_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        opened(path)
    assert path.is_dir()
    with pytest.raises(sqlite3.OperationalError):
        opened(tmp_path / "nowhere" / "outbox.db")


def test_a_locked_outbox_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outbox.db"
    in_a_child(lambda: committed(3)(path))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM dead_letter")
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **named: connect(*a, **{**named, "timeout": 0.05}))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            opened(path)
        other.execute("COMMIT")
    monkeypatch.undo()
    _, saved = opened(path)
    assert saved is None


def test_checking_leaves_the_log_of_a_stopped_writer_as_long_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"

    def start() -> None:
        open_outbox(path, LedgerCopy(path.with_name("ledger.copy")), reserve_bytes=1_000_000, quota_bytes=10**9)

    for _ in range(2):
        in_a_child(start)
        log = parts(path)[1]
        assert log.stat().st_blocks * 512 >= 1_000_000
        changed = log.stat().st_mtime_ns
    in_a_child(start)
    assert log.stat().st_mtime_ns == changed  # and reserving it once is enough: each time would wear the card
    with contextlib.closing(sqlite3.connect(path)) as visitor:  # the last one to close deletes the log
        visitor.execute("SELECT * FROM state").fetchall()
    assert not log.exists()
    in_a_child(start)
    assert log.stat().st_blocks * 512 >= 1_000_000
