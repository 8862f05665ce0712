"""The vitals board: numbers and words that one process writes and all others read, whoever dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers.process import wait_for
from vitals import _SLOTS, FIELDS, REFUSALS, Board, Row

CHARACTERS = st.characters(exclude_characters="\ufffd")
LONGEST_NAME = "x" * 63  # that the configuration lets pass


def in_a_child(work: Callable[[], None]) -> int:
    """Start a process that shares the board, does `work` and ends with 0, or with 1 if that failed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def process(work: Callable[[], None]) -> Iterator[int]:
    """A child that does `work` again and again until the end of the block, when it is killed."""

    def for_ever() -> None:
        while True:
            work()

    pid = in_a_child(for_ever)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL, "the child failed by itself"


def test_the_parent_reads_what_a_child_wrote_also_after_its_death() -> None:
    board = Board()
    row = board.claim("worker", "meter")

    def work() -> None:
        mine = board.claim("worker", "meter")
        mine.beat()
        mine.add("readings", 41)
        mine.add("readings")
        mine.note = "the bus is away; plug it in"
        os.kill(os.getpid(), signal.SIGKILL)

    before_ns = time.monotonic_ns()
    assert ended(in_a_child(work)) == -signal.SIGKILL
    assert row["readings"] == 42
    assert row.note == "the bus is away; plug it in"
    assert before_ns < row["beat_ns"] < time.monotonic_ns()


def test_a_successor_goes_on_counting_where_the_killed_one_was() -> None:
    board = Board()
    row = board.claim("worker", "meter")
    for _ in range(3):
        seen = row["readings"]
        with process(lambda: board.claim("worker", "meter").add("readings")):
            wait_for(lambda seen=seen: row["readings"] > seen + 100, "the child to count")
        assert row["readings"] > seen + 100


@given(st.text(CHARACTERS, max_size=600), st.text(CHARACTERS, min_size=1, max_size=200))
def test_words_of_any_length_are_kept_as_far_as_they_fit(note: str, name: str) -> None:
    board = Board()
    row = board.claim("worker", name)
    row.note = note
    expected = note.replace("\0", " ").encode("utf-8", "replace").decode()
    assert expected.startswith(row.note)
    assert len(row.note.encode()) >= min(len(expected.encode()), 412)
    assert "\ufffd" not in row.note, "half a character"
    assert board.find("worker", name) is row, "a row is found again by the name it was claimed with"
    assert board.claim("worker", name) is row


def test_a_row_is_found_by_a_name_that_is_too_long_for_it() -> None:
    board = Board()
    row = board.claim("worker", "ü" * 100)
    assert row.name == "ü" * 39
    assert board.claim("worker", "ü" * 100) is row
    board.release("worker", "ü" * 100)
    assert not list(board.rows("worker"))


def test_words_that_are_read_in_the_midst_of_being_written_are_read_all_the_same() -> None:
    row = Board().claim("worker", "meter")
    row.note = "the fridge is silent"
    row._note[4:6] = b"\xbc\xc3"  # the end of one character and the beginning of another
    assert row.note == "the \ufffd\ufffdidge is silent"


@pytest.mark.parametrize("char", ["ü", "€", "𝄞"])
def test_a_long_note_is_cut_between_two_characters(char: str) -> None:
    row = Board().claim("worker", "meter")
    for shift in range(4):
        row.note = "a" * shift + char * 400
        assert {*row.note.removeprefix("a" * shift)} == {char}


def test_a_shorter_note_leaves_nothing_of_the_longer_one_before() -> None:
    row = Board().claim("worker", "meter")
    row.note = "a long sentence"
    row.note = "short"
    assert row.note == "short"
    row.note = ""
    assert row.note == ""


def test_the_longest_names_of_a_house_are_told_apart() -> None:
    board = Board()
    one, two = (board.claim("process", f"source.{LONGEST_NAME[:-1]}{last}") for last in "12")
    one["pid"], two["pid"] = 1, 2
    assert board.find("process", f"source.{LONGEST_NAME[:-1]}1")["pid"] == 1  # type: ignore[index]
    assert board.claim("process", one.name) is one
    board.release("process", one.name)
    assert [row.name for row in board.rows("process")] == [two.name]


def test_a_full_board_says_so_in_words() -> None:
    board = Board()
    with pytest.raises(MemoryError, match=r"no row left for worker \d+: \d+ are in use") as caught:
        for number in range(100_000):
            board.claim("worker", str(number))
    assert len(list(board.rows("worker"))) == int(str(caught.value).split()[-4])
    board.release("worker", "7")
    assert board.claim("output", "influx").name == "influx"


def test_a_row_that_is_given_to_another_starts_at_zero() -> None:
    board = Board()
    row = board.claim("worker", "meter")
    for field in FIELDS["worker"]:
        row[field] = 5
    row.note = "something"
    board.release("worker", "meter")
    assert board.find("worker", "meter") is None
    board.release("worker", "meter")  # of what is not there
    again = board.claim("output", "csv")
    assert again is row
    assert (again.name, again.role, again.note) == ("csv", "output", "")
    assert {field: again[field] for field in FIELDS["output"]} == dict.fromkeys(FIELDS["output"], 0)


def test_rows_of_one_role_are_not_those_of_another() -> None:
    board = Board()
    board.claim("worker", "meter")
    board.claim("process", "meter")
    board.claim("worker", "bus")
    assert [row.name for row in board.rows("worker")] == ["meter", "bus"]
    assert [row.name for row in board.rows("process")] == ["meter"]
    assert list(board.rows("of nothing")) == []
    with pytest.raises(KeyError):
        board.claim("worker", "meter")["no such number"]


def test_every_role_fits_into_a_row_and_into_the_board() -> None:
    for role, fields in FIELDS.items():
        assert len(fields) <= _SLOTS
        assert len({*fields}) == len(fields)
        row = Board().claim(role, "x")
        for value, field in enumerate(fields):
            row[field] = -(2**63) + value
        assert [row[field] + 2**63 for field in fields] == list(range(len(fields)))
    assert {f"refused_{reason}" for reason in REFUSALS} <= {*FIELDS["worker"]}


def test_reading_never_fails_while_others_write() -> None:
    board = Board()
    row = board.claim("worker", "meter")

    def read(row: Row) -> None:
        assert len(row.note) <= 416
        assert row["readings"] >= 0
        assert row.name == "meter"

    with process(lambda: _write(row)):
        wait_for(lambda: row["readings"] > 0, "the child to write")
        before = row["readings"]
        for _ in range(5000):
            read(row)
        assert row["readings"] > before


def _write(row: Row) -> None:
    row.note = "ü" * (row["readings"] % 250)
    row.add("readings")


def test_finding_never_fails_while_the_parent_gives_rows_away() -> None:
    board = Board()
    turns = board.claim("api", "api")

    def give_and_take() -> None:
        for role, name in (("worker", "ü" * 20), ("output", "csv"), ("process", "x" * 63)):
            board.claim(role, name)["beat_ns" if role == "worker" else "state"] = 1
            board.release(role, name)
        turns.add("requests")

    with process(give_and_take):
        wait_for(lambda: turns["requests"] > 0, "the child to begin")
        for _ in range(500):
            for role in FIELDS:
                for row in board.rows(role):
                    try:
                        assert row[FIELDS[role][0]] >= 0
                    except KeyError:  # given to another role since: the api knows that and leaves it out
                        pass
            assert board.find("worker", "nobody") is None
        assert turns["requests"] > 1
