"""Logs: one write per record, whole lines whoever is killed, nothing in them but text, and never a secret."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import logs

ROOT = Path(__file__).parents[1]
PIPE_BUF = 4096  # limits.h: a write to a pipe up to so many bytes is one piece


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What each write to stderr wrote."""
    handlers, level = logging.root.handlers, logging.root.level
    writes: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        patch.delenv("JOURNAL_STREAM", raising=False)
        logs.start()
        patch.setattr(os, "write", lambda descriptor, data: writes.append(data))
        yield writes
    assert logging.root.handlers is handlers
    logging.root.setLevel(level)


def record(message: object, *args: object, **more: object) -> logging.LogRecord:
    made = {"name": "meter", "levelno": 30, "levelname": "WARNING", "msg": message, "args": args, **more}
    return logging.makeLogRecord(made)


def line(message: object, *args: object, **more: object) -> str:
    return logs.format_line(record(message, *args, **more), journal=True).decode()


def test_one_record_is_one_write(written: list[bytes]) -> None:
    logging.getLogger("meter").warning("the %s is away\n%s", "bus", "x" * 9000)
    logging.getLogger("meter").debug("of no interest")
    [only] = written
    assert re.match(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING meter: the bus is away\\nx+", only)
    assert only.endswith("…\n".encode())
    assert len(only) <= PIPE_BUF


@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, 400), st.booleans())
def test_whatever_is_logged_is_one_line_of_text_that_a_pipe_takes_in_one_piece(
    name: str, message: str, times: int, journal: bool
) -> None:
    made = logging.makeLogRecord({"name": name, "levelno": 20, "levelname": "INFO", "msg": message * times})
    text = logs.format_line(made, journal=journal)
    assert len(text) <= PIPE_BUF
    assert text.endswith(b"\n")
    assert not [char for char in text[:-1].decode() if char < " " or "\x7f" <= char < "\xa0" or char in "\u2028\u2029"]


@pytest.mark.parametrize("char", ["ü", "€", "𝄞", "x"])
def test_a_long_line_is_cut_between_two_characters(char: str) -> None:
    for shift in range(4):
        text = line("%s", "a" * shift + char * 4000)
        body = text.removeprefix("<4>meter: ").removesuffix("…\n").removeprefix("a" * shift)
        assert {*body} == {char}
        assert 3980 < len(text.encode()) <= PIPE_BUF


def test_what_a_terminal_would_obey_is_shown_and_not_obeyed() -> None:
    assert line("\x1b[2Jred\r\nINFO forged\t\x00\x07\x9b\x7f") == (
        "<4>meter: \\x1b[2Jred\\r\\nINFO forged\\x09\\x00\\x07\\x9b\\x7f\n"
    )
    assert line("\ud800") == "<4>meter: \\ud800\n"


def test_a_traceback_is_in_the_line_of_its_record() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = line("it failed", exc_info=sys.exc_info())
    assert text.count("\n") == 1
    assert text.startswith("<4>meter: it failed | Traceback (most recent call last):\\n  File ")
    assert text.endswith("ValueError: two\\nlines\n")


def test_a_secret_is_hidden_wherever_it_stands() -> None:
    logs.hide("hunter2")
    logs.hide("hunter2-and-more")
    logs.hide("two\nlines")
    logs.hide("ab")  # to hide this would make every line unreadable, and it is no secret
    try:
        raise ValueError("refused: hunter2-and-more")
    except ValueError:
        text = line("%s of {'token': %r}, crab, two\nlines", "hunter2", "hunter2", exc_info=sys.exc_info())
    assert "hunter2" not in text
    assert "lines" not in text
    assert "-and-more" not in text, "the tail of a secret that has another one as its head"
    assert "crab" in text
    assert text.endswith("ValueError: refused: ***\n")


def test_a_record_that_does_not_fit_its_words_is_shown_as_it_is() -> None:
    assert line("%d of %s", "many") == (
        "<4>meter: '%d of %s' ('many',) cannot be put together: %d format: a real number is required, not str\n"
    )


@pytest.mark.parametrize(
    ("level", "priority"), [("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("INFO", 6), ("DEBUG", 7)]
)
def test_the_journal_gets_priorities_and_no_second_time_of_day(level: str, priority: int) -> None:
    made = record("x", levelno=logging.getLevelName(level), levelname=level)
    assert logs.format_line(made, journal=True) == b"<%d>meter: x\n" % priority


LOG_ONCE = "import logs, logging; logs.start(); logging.getLogger('meter').warning('hello')"


def child(code: str, *arguments: str, stderr: int, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("to_the_journal", [True, False])
def test_the_form_is_that_of_the_journal_only_where_the_journal_reads(tmp_path: Path, to_the_journal: bool) -> None:
    with (tmp_path / "log").open("wb") as file:
        status = os.fstat(file.fileno())
        inode = status.st_ino if to_the_journal else status.st_ino + 1
        process = child(LOG_ONCE, stderr=file.fileno(), JOURNAL_STREAM=f"{status.st_dev}:{inode}")
        process.communicate()
    assert (tmp_path / "log").read_bytes().startswith(b"<4>meter: hello" if to_the_journal else b"20")


@pytest.mark.parametrize("close", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_a_house_that_was_started_with_closed_streams_logs_into_none_of_its_files(tmp_path: Path, close: str) -> None:
    code = (
        "import logs, logging, os, sys; logs.start(); file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT);"
        "logging.getLogger('meter').warning('hello'); os.write(file, b'data'); os._exit(7)"
    )
    file = tmp_path / "file"
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" "$2" {close}', sys.executable, code, file], cwd=ROOT)
    assert done.returncode == 7
    assert file.read_bytes() == b"data"


def test_nobody_at_the_other_end_of_the_pipe_is_no_failure() -> None:
    code = f"{LOG_ONCE}; print('went on', flush=True)"
    reader, writer = os.pipe()
    os.close(reader)
    process = child(code, stderr=writer)
    os.close(writer)
    assert process.communicate(timeout=20)[0] == b"went on\n"


KILL_AND_REPLACE = """
import logging, logs, os, random, signal, sys

def live():
    pid = os.fork()
    if pid:
        return pid
    rng = random.Random(os.getpid())
    while True:
        chars = rng.choice((30, rng.randrange(4200)))
        log.warning("%d %s.", chars, "x" * chars)

logs.start()
log = logging.getLogger("meter")
rng = random.Random(sys.argv[1])
living = [live() for _ in range(8)]
for kill in range(200):
    place = rng.randrange(len(living))
    os.kill(living[place], signal.SIGKILL)
    os.waitpid(living[place], 0)
    living[place] = live()
for pid in living:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print("200 kills")
"""


def test_no_line_is_torn_when_two_hundred_processes_are_killed_while_they_log() -> None:
    reader, writer = os.pipe()
    process = child(KILL_AND_REPLACE, "seed", stderr=writer)
    os.close(writer)
    seen = cut = 0
    with os.fdopen(reader, "rb") as pipe:
        for text in pipe:
            whole = re.fullmatch(rb"\S{23}Z WARNING meter: (\d+) (x*)(\.|\xe2\x80\xa6)\n", text)
            assert whole, text
            assert whole[3] != b"." or len(whole[2]) == int(whole[1]), text
            seen += 1
            cut += whole[3] != b"."
    assert process.communicate() == (b"200 kills\n", None)
    assert seen > 200
    assert cut > 0
