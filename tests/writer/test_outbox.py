"""The outbox: a commit is all or nothing, every reading is accounted for, and a full disk passes."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from reading import COUNTERS, Clock
from tests.writer._helpers import (
    BOOT,
    STAMP,
    assert_conserved,
    dead_letters,
    forked,
    in_a_child,
    intake,
    killed_somewhere,
    numbers,
    rows,
    state,
)
from writer.ledger import Channel, Register
from writer.ledger_copy import LedgerCopy
from writer.outbox import (
    MOST_DEAD_LETTERS,
    SCHEMA,
    Intake,
    Outbox,
    Progress,
    Reader,
    Stamp,
    Watermark,
)
from writer.outbox_file import PAGE_BYTES
from writer.rows import HELD, MOST_READINGS_A_ROW, RESTAMPED, SYNCED, UNSYNCED, unpack
from writer.salvage import open_outbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def made(path: Path, *outputs: str, quota_bytes: int = 10**9) -> Outbox:
    outbox = Outbox(path, reserve_bytes=0, quota_bytes=quota_bytes)
    outbox.serve(outputs)
    return outbox


def put(outbox: Outbox, taken: Intake, stamp: Stamp = STAMP, **progress: Progress) -> None:
    outbox.commit(taken, stamp, {**outbox.progress, **progress})


def read(path: Path, after: int = 0, upto: int | None = None, most: int = 10**6) -> list[tuple[int, list[int]]]:
    with contextlib.closing(Reader(path)) as reader:
        return [
            (row.id, [int(record.values["energy_wh"]) for record in row.records])
            for row in reader.rows(after, upto, most)
        ]


# ---- all or nothing


def in_commit(number: int) -> int:
    """How many readings the commit of a number has."""
    return number % 5 + (MOST_READINGS_A_ROW if number % 7 == 0 else 0)


def up_to_commit(number: int) -> int:
    return sum(in_commit(each) for each in range(1, number + 1))


# What a few dozen commits fill, so also on a slow machine the quota takes something before the end.
SMALL_QUOTA_BYTES = 50_000


def commit_for_ever(path: Path, begun: mmap.mmap) -> None:
    """Deliver everything to `quick`, every other row to `gappy`, nothing to `away`, whose rows the quota takes."""
    outbox = made(path, "quick", "gappy", "away", quota_bytes=SMALL_QUOTA_BYTES)
    number = outbox.watermarks.get("meter", Watermark()).sequence
    begun[0] = 1
    while True:
        number += 1
        quick, gappy = outbox.progress["quick"], outbox.progress["gappy"]
        owed = outbox.pending(quick)
        quick = msgspec.structs.replace(quick, front=outbox.head, delivered=quick.delivered + owed)
        if number % 3 == 0:
            owed = outbox.pending(gappy)
            gappy = msgspec.structs.replace(gappy, front=outbox.head, gaps=[], delivered=gappy.delivered + owed)
        elif outbox.head - 1 > gappy.front:
            gap = (gappy.front, outbox.head - 1)
            gappy = msgspec.structs.replace(gappy, front=outbox.head - 1, gaps=[*gappy.gaps, gap])
        taken = intake(in_commit(number), up_to_commit(number - 1), sequence=number)
        taken.dead_letters.append(("source meter", "test", str(number).encode()))
        put(outbox, taken, quick=quick, gappy=gappy)


def test_a_commit_is_all_or_nothing_whenever_it_is_killed(path: Path) -> None:
    chance = random.Random(1)
    begun = mmap.mmap(-1, 1)
    last, quota = 0, 0
    for kill in itertools.count():
        if kill >= 60 and last >= 10 and quota:  # a slow machine is killed more often before it did anything
            break
        begun[0] = 0
        killed_somewhere(
            lambda: commit_for_ever(path, begun), chance, 0.03, lambda kill=kill: kill % 6 == 0 or begun[0] == 1
        )
        if not path.exists():
            continue
        outbox = Outbox(path, reserve_bytes=0, quota_bytes=SMALL_QUOTA_BYTES)
        number = outbox.watermarks.get("meter", Watermark()).sequence
        assert number >= last
        for account in outbox.accounts.values():
            assert account.accepted == up_to_commit(number)
        assert_conserved(outbox)
        stored = rows(path)
        for _, _, _, count, body in stored:
            assert len(numbers(body)) == count
        assert [row[0] for row in stored] == sorted({row[0] for row in stored})
        assert max((row[0] for row in stored), default=0) <= outbox.head
        if stored and in_commit(number):
            assert numbers(stored[-1][4])[-1] == up_to_commit(number) - 1  # the watermark's own readings are there
        assert [int(body) for _, _, body in dead_letters(path)] == list(
            range(max(1, number - MOST_DEAD_LETTERS + 1), number + 1)
        )
        last = number
        if "away" in outbox.accounts:  # killed after its first commit
            quota = outbox.accounts["away"].quota


def test_an_outbox_opened_again_knows_all_it_knew(path: Path) -> None:
    outbox = made(path, "a")
    taken = intake(3, sequence=9)
    taken.boots["meter/d"] = {}
    put(outbox, taken, a=Progress(front=0, memo={"file": 7}))
    again = made(path, "a")
    for name in ("head", "bytes", "watermarks", "boots", "progress", "accounts"):
        assert getattr(again, name) == getattr(outbox, name), name


# ---- a full disk


@pytest.mark.parametrize(("readings", "letter_bytes"), [(20_000, 6), (1, 500_000)])
def test_a_commit_that_does_not_fit_changes_nothing_and_succeeds_when_there_is_room(
    path: Path, readings: int, letter_bytes: int
) -> None:
    outbox = made(path, "a")
    put(outbox, intake(5, sequence=1))
    before = (outbox.head, outbox.bytes, dict(outbox.watermarks), repr(outbox.accounts), repr(outbox.progress))
    stored, noted = rows(path), state(path)
    pages = outbox._number("PRAGMA page_count")
    outbox._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    large = intake(readings, 5, sequence=2)
    large.dead_letters.append(("source meter", "test", b"x" * letter_bytes))  # what is written last
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            put(outbox, large, a=Progress(front=1, delivered=5))
        assert (
            outbox.head,
            outbox.bytes,
            dict(outbox.watermarks),
            repr(outbox.accounts),
            repr(outbox.progress),
        ) == before
        assert (rows(path), state(path), dead_letters(path)) == (stored, noted, [])
    outbox._connection.execute("PRAGMA max_page_count = 1000000")
    put(outbox, large, a=Progress(front=1, delivered=5))
    assert outbox.watermarks["meter"] == Watermark(1, 2)
    assert [number for row in rows(path) for number in numbers(row[4])] == list(range(5, readings + 5))
    assert len(dead_letters(path)) == 1
    assert_conserved(outbox)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    place = tmp_path / "small"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", bytes(place), b"tmpfs", 0, b"size=12m"):
        pytest.skip(f"cannot mount a small file system: {os.strerror(ctypes.get_errno())}")
    yield place
    libc.umount2(bytes(place), 2)


def fill_up(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"\0" * 4096) == 4096:
            pass


@pytest.mark.parametrize("starts", [1, 3])
def test_on_a_full_disk_commits_go_on_for_a_while_in_what_was_reserved_also_after_a_restart(
    small_disk: Path, starts: int
) -> None:
    path = small_disk / "outbox.db"

    def start() -> Outbox:
        outbox, salvage = open_outbox(
            path, LedgerCopy(path.with_name("ledger.copy")), reserve_bytes=3_000_000, quota_bytes=10**9
        )
        assert salvage is None
        outbox.serve(["a"])
        return outbox

    for _ in range(starts - 1):
        in_a_child(start)
    if starts > 1:
        fill_up(small_disk)  # and then comes one more start

    def work() -> None:
        outbox = start()
        if starts == 1:
            fill_up(small_disk)
        for number in range(200):
            put(outbox, intake(20, 20 * number, sequence=number + 1))
        failed = False
        while not failed:
            number += 1
            try:
                put(outbox, intake(500, sequence=number + 1))
            except sqlite3.OperationalError:
                failed = True
        assert_conserved(outbox)
        (small_disk / "filler").unlink()
        put(outbox, intake(500, sequence=number + 1))  # the same one again
        assert outbox.watermarks["meter"].sequence == number + 1
        assert_conserved(outbox)

    in_a_child(work)


def test_the_log_stays_within_what_was_reserved_for_it(tmp_path: Path) -> None:
    """A reserve that is smaller than what SQLite lets the log grow to would be of no use when the disk is full."""
    outbox = Outbox(tmp_path / "outbox.db", reserve_bytes=1_500_000, quota_bytes=10**9)
    outbox.serve(["a"])
    log = tmp_path / "outbox.db-wal"
    reserved = log.stat().st_size
    for number in range(400):
        put(outbox, intake(20, 20 * number, sequence=number + 1))
        outbox.commit(Intake(), STAMP, {"a": Progress(front=outbox.head, delivered=20 * (number + 1))})
    assert log.stat().st_size == reserved
    outbox.close()


def test_a_commit_writes_little_more_than_is_in_it(path: Path) -> None:
    outbox = Outbox(path, reserve_bytes=1_000_000, quota_bytes=10**9)
    outbox.serve(["a", "b"])

    def commit(number: int) -> int:
        """Commit a reading of each of twenty devices, when what came before has been delivered; return its bytes."""
        taken = intake(20, 20 * number, sequence=number)
        taken.channels = {
            f"meter/{device}": Channel(Register(number * 10**12 + device, number * 10**12), Register())
            for device in range(20)
        }
        put(outbox, taken, a=Progress(front=outbox.head), b=Progress(front=outbox.head))
        (body,) = (body for *_, body in rows(path))
        return len(body) + sum(map(len, state(path).values()))

    for number in range(1, 50):
        content_bytes = commit(number)
    outbox._connection.execute("PRAGMA wal_checkpoint(RESTART)")
    for number in range(50, 100):
        commit(number)
    _, pages, _ = outbox._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert pages * PAGE_BYTES / 50 < content_bytes + 8 * PAGE_BYTES
    outbox.close()


def test_an_outbox_with_the_large_pages_of_an_older_version_goes_on(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as older:
        older.execute("PRAGMA page_size = 4096")
        older.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA}")
    outbox, salvage = open_outbox(
        path, LedgerCopy(path.with_name("ledger.copy")), reserve_bytes=1_000_000, quota_bytes=10**9
    )
    assert salvage is None
    outbox.serve(["a"])
    put(outbox, intake(20, sequence=1))
    assert outbox._number("PRAGMA page_size") == 4096
    outbox.close()
    assert read(path) == [(1, list(range(20)))]


def test_no_room_to_reserve_is_no_reason_not_to_start(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb") as filler:
        filler.write(b"\0" * 10_000_000)
    outbox = Outbox(small_disk / "outbox.db", reserve_bytes=8_000_000, quota_bytes=10**9)
    outbox.serve(["a"])
    put(outbox, intake(3, sequence=1))
    assert [row[3] for row in rows(small_disk / "outbox.db")] == [3]


# ---- the quota


def test_raw_values_go_before_counters_and_the_oldest_first(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(10):
        put(outbox, intake(20, 20 * number, sequence=number + 1))
    outbox._quota_bytes = outbox.bytes * 6 // 10
    put(outbox, intake(20, 200, sequence=11))
    stored = rows(path)
    raw = [row[2] for row in stored]
    assert raw == sorted(raw) and 0 < sum(raw) < 11  # first those with nothing but counters, then the newest, whole
    for _, _, is_raw, count, body in stored:
        if is_raw:
            assert count == 20
            continue
        assert count == 1
        for record in unpack(1, body, 0, SYNCED):
            assert set(record.values) <= COUNTERS
    assert [numbers(row[4])[-1] for row in stored] == [20 * number + 19 for number in range(11)]  # each row's last
    dropped = 220 - sum(row[3] for row in stored)
    assert outbox.accounts["a"].quota == dropped > 0
    assert outbox.bytes == sum(len(row[4]) for row in stored) <= outbox._quota_bytes
    assert_conserved(outbox)


def test_when_only_counters_are_left_the_oldest_rows_go_whole(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(50):
        put(outbox, intake(20, 20 * number, sequence=number + 1))
    outbox._quota_bytes = 600
    put(outbox, intake(1, 1000, sequence=51))
    stored = rows(path)
    assert 0 < len(stored) < 51 and not any(row[2] for row in stored)
    assert [row[0] for row in stored] == list(range(51 - len(stored) + 1, 52))
    assert outbox.accounts["a"].quota == 1001 - sum(row[3] for row in stored)
    assert_conserved(outbox)


def test_rows_in_hand_are_not_touched_by_the_quota(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(10):
        put(outbox, intake(20, 20 * number, sequence=number + 1))
    outbox._quota_bytes = 1
    outbox.commit(intake(1, 200, sequence=11), STAMP, dict(outbox.progress), busy=[(2, 4), (6, 7)])
    assert [(row[0], row[2], row[3]) for row in rows(path)] == [(3, 1, 20), (4, 1, 20), (7, 1, 20)]
    assert outbox.accounts["a"].quota == 201 - 60
    assert_conserved(outbox)


def test_each_drop_is_counted_for_those_who_did_not_have_it(path: Path) -> None:
    outbox = made(path, "all", "some", "none")
    for number in range(6):
        put(outbox, intake(10, 10 * number, sequence=number + 1))
    done = {
        "all": Progress(front=6, delivered=60),
        "some": Progress(front=5, gaps=[(1, 3)], delivered=30),  # has rows 1, 4 and 5
        "none": Progress(),
    }
    outbox._quota_bytes = 1
    put(outbox, Intake(), **done)
    assert rows(path) == []
    assert {name: account.quota for name, account in outbox.accounts.items()} == {"all": 0, "some": 30, "none": 60}
    assert_conserved(outbox)


def test_a_row_that_cannot_be_read_can_still_make_room(path: Path) -> None:
    outbox = made(path, "a")
    put(outbox, intake(20, sequence=1))
    outbox._connection.execute("UPDATE row SET body = ?", (b"\xff" * 500,))
    outbox._connection.execute("INSERT INTO row VALUES (2, '', 0, 1, 1, 4, ?)", (b"\x91\x92\xa2\xff\xff\x90",))
    outbox.accounts["a"].accepted += 4
    outbox._quota_bytes = 100
    outbox.bytes = 600
    put(outbox, Intake())
    assert outbox.accounts["a"].quota == 24
    assert_conserved(outbox)


# ---- which outputs there are


def test_a_new_output_starts_at_the_head_and_one_that_is_gone_frees_its_rows(path: Path) -> None:
    outbox = made(path, "old")
    put(outbox, intake(5, sequence=1))
    outbox = made(path, "old", "new")
    assert outbox.progress["new"].front == 1
    put(outbox, intake(3, 5, sequence=2))
    assert {name: account.accepted for name, account in outbox.accounts.items()} == {"old": 8, "new": 3}
    assert_conserved(outbox)
    outbox = made(path, "new")
    assert set(outbox.progress) == set(outbox.accounts) == {"new"}
    put(outbox, intake(1, 8, sequence=3))
    assert [row[0] for row in rows(path)] == [2, 3]
    assert not {"output/old", "account/old"} & state(path).keys()
    outbox = made(path, "new", "old")  # one that comes back is a new one
    assert outbox.progress["old"].front == 3
    assert_conserved(outbox)


def test_without_any_output_nothing_piles_up(path: Path) -> None:
    outbox = made(path)
    for number in range(3):
        put(outbox, intake(5, sequence=number + 1))
    assert rows(path) == []
    assert outbox.watermarks["meter"] == Watermark(1, 3)
    assert outbox.bytes == 0


def test_numbers_of_rows_are_never_used_twice(path: Path) -> None:
    outbox = made(path, "a")
    put(outbox, intake(5, sequence=1))
    put(outbox, Intake(), a=Progress(front=1, delivered=5))
    assert rows(path) == []
    outbox = made(path, "a")
    put(outbox, intake(5, sequence=2))
    assert [row[0] for row in rows(path)] == [2]


def test_a_row_never_gets_a_number_that_an_output_has_behind_it(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(5):
        put(outbox, intake(5, sequence=number + 1))
    put(outbox, Intake(), a=Progress(front=5, delivered=25))
    outbox._connection.execute("DELETE FROM state WHERE key = 'head'")  # what damage may do
    outbox = made(path, "a")
    put(outbox, intake(3, 25, sequence=6))
    assert read(path, after=outbox.progress["a"].front) == [(6, [25, 26, 27])]


@pytest.mark.parametrize("forgotten", ["key LIKE 'output/%'", "1"])
def test_an_output_whose_place_was_lost_gets_what_is_left_rather_than_nothing(path: Path, forgotten: str) -> None:
    outbox = made(path, "a")
    for number in range(3):
        put(outbox, intake(5, 5 * number, sequence=number + 1))
    outbox._connection.execute(f"DELETE FROM state WHERE {forgotten}")
    outbox = made(path, "a")
    assert_conserved(outbox)
    put(outbox, intake(1, 15, sequence=4))
    assert [number for _, row in read(path, outbox.progress["a"].front) for number in row] == list(range(16))
    assert_conserved(outbox)


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"\xa2\xff\xff", b"\x96\x00\x90\x00\x00\x00\x81\xa1\xff\x01", b"\x81\xa1\xff\x92\x01\xc4\x01\x01"],
)
@pytest.mark.parametrize("key", ["head", "output/a", "account/a", "stream/meter", "boots/meter/d"])
def test_state_that_cannot_be_read_is_forgotten_and_no_more(path: Path, key: str, value: bytes) -> None:
    outbox = made(path, "a")
    put(outbox, intake(5, sequence=1))
    outbox._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))
    outbox = made(path, "a")
    put(outbox, intake(5, 5, sequence=2))
    assert [number for _, row in read(path) for number in row] == list(range(10))
    assert_conserved(outbox)


def test_readings_missing_after_damage_are_counted_as_lost(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(3):
        put(outbox, intake(5, sequence=number + 1))
    outbox._connection.execute("DELETE FROM row WHERE id = 2")
    outbox = made(path, "a")
    assert outbox.accounts["a"].lost == 5
    assert_conserved(outbox)


# ---- rows


@pytest.mark.parametrize("count", [1, MOST_READINGS_A_ROW, MOST_READINGS_A_ROW + 1, 2 * MOST_READINGS_A_ROW + 7])
def test_a_commit_of_many_readings_is_cut_into_rows(path: Path, count: int) -> None:
    outbox = made(path, "a")
    taken = intake(count, sequence=1)
    taken.readings["other"] = intake(10, count).readings["meter"]
    taken.count += 10
    put(outbox, taken)
    stored = rows(path)
    assert [row[3] for row in stored[:-1]] == [MOST_READINGS_A_ROW] * (len(stored) - 1)
    assert 0 < stored[-1][3] <= MOST_READINGS_A_ROW
    with contextlib.closing(Reader(path)) as reader:
        records = [record for row in reader.rows(0, None, 10**6) for record in row.records]
    assert [int(record.values["energy_wh"]) for record in records] == list(range(count + 10))
    assert [record.source for record in records] == ["meter"] * count + ["other"] * 10


def test_a_reader_takes_whole_rows_up_to_its_limit_and_at_least_one(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(5):
        put(outbox, intake(10, 10 * number, sequence=number + 1))
    assert [row for row, _ in read(path, most=25)] == [1, 2]
    assert [row for row, _ in read(path, most=1)] == [1]
    assert [row for row, _ in read(path, after=3)] == [4, 5]
    assert [row for row, _ in read(path, after=1, upto=3)] == [2, 3]


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\x91\x92\xa1s\x91", msgspec.msgpack.encode({"a": 1}), b"\x91\x92\xa2\xff\xff\x90"]
)
def test_a_row_whose_body_cannot_be_read_has_its_count_and_no_records(path: Path, body: bytes) -> None:
    outbox = made(path, "a")
    for number in range(3):
        put(outbox, intake(4, 4 * number, sequence=number + 1))
    outbox._connection.execute("UPDATE row SET body = ? WHERE id = 2", (body,))
    with contextlib.closing(Reader(path)) as reader:
        assert [(row.id, row.count, len(row.records)) for row in reader.rows(0, None, 100)] == [
            (1, 4, 4),
            (2, 4, 0),
            (3, 4, 4),
        ]


# ---- the clock


def records(path: Path) -> list[tuple[int, Clock]]:
    with contextlib.closing(Reader(path)) as reader:
        return [(record.time_ns, record.clock) for row in reader.rows(0, None, 10**6) for record in row.records]


def test_held_rows_are_not_readable_until_they_are_dated(path: Path) -> None:
    outbox = made(path, "a")
    put(outbox, intake(1, 1, sequence=1))
    put(outbox, intake(2, 2, sequence=2), Stamp(BOOT, 111, HELD))
    put(outbox, intake(1, 4, sequence=3), Stamp(BOOT, 222, SYNCED))
    assert read(path) == [(1, [1])]
    assert read(path, after=1) == []  # and nothing overtakes them
    assert outbox.held == 2
    assert outbox.date_held(Stamp(BOOT, 10**18, RESTAMPED)) == 2
    assert outbox.held == 0
    assert records(path) == [
        (STAMP.offset_ns + 1_000_000, Clock.SYNCED),
        (10**18 + 2_000_000, Clock.RESTAMPED),
        (10**18 + 3_000_000, Clock.RESTAMPED),
        (222 + 4_000_000, Clock.SYNCED),
    ]


@pytest.mark.parametrize(("clock", "expected"), [(RESTAMPED, Clock.RESTAMPED), (UNSYNCED, Clock.UNSYNCED)])
def test_held_rows_of_an_earlier_boot_keep_their_guess_and_are_unsynced(
    path: Path, clock: int, expected: Clock
) -> None:
    outbox = made(path, "a")
    put(outbox, intake(1, 1, sequence=1), Stamp("earlier", 5_000, HELD))
    put(outbox, intake(1, 2, sequence=2), Stamp(BOOT, 6_000, HELD))
    outbox = made(path, "a")
    assert outbox.held == 2
    assert outbox.date_held(Stamp(BOOT, 10**18, clock)) == 2
    assert records(path) == [(5_000 + 1_000_000, Clock.UNSYNCED), (10**18 + 2_000_000, expected)]


def test_held_rows_count_as_pending_and_can_make_room(path: Path) -> None:
    outbox = made(path, "a")
    for number in range(4):
        put(outbox, intake(20, 20 * number, sequence=number + 1), Stamp(BOOT, 0, HELD))
    assert outbox.pending(outbox.progress["a"]) == 80
    outbox._quota_bytes = 1
    put(outbox, Intake())
    assert outbox.held == 0
    assert outbox.accounts["a"].quota == 80
    assert_conserved(outbox)


# ---- dead letters, other processes


def test_dead_letters_are_kept_up_to_a_number_and_the_newest_survive(path: Path) -> None:
    outbox = made(path, "a")
    for start in range(0, 3000, 250):
        letters = [("source meter", "reason", str(number).encode()) for number in range(start, start + 250)]
        put(outbox, Intake(dead_letters=letters))
    put(outbox, Intake(dead_letters=[("o", "r", str(number).encode()) for number in range(3000, 4500)]))
    assert [int(body) for _, _, body in dead_letters(path)] == list(range(3500, 4500))


def test_a_reader_sees_commits_of_another_process_without_being_told(path: Path) -> None:
    outbox = made(path, "a")
    put(outbox, intake(1, sequence=1))
    with contextlib.closing(Reader(path)) as reader:
        assert [row.id for row in reader.rows(0, None, 10)] == [1]

        def work() -> None:
            put(made(path, "a"), intake(1, 1, sequence=2))

        with forked(work) as child:
            assert child.wait() == 0
        assert [row.id for row in reader.rows(0, None, 10)] == [1, 2]
        assert (reader.count(0), reader.count(1), reader.count(0, 1), reader.count(2)) == (2, 1, 1, 0)
