"""Who asked for what: in the seed's format, for some days, without keys and without what somebody smuggles in."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api import access_log, snapshot
from api.access_log import AccessLog, target_of, without_keys
from config.interface import Api, hash_of_key
from tests.api.server import Server, served

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - INFO - (GET|HEAD|POST) /\S*\n")
DAY_NS = 86_400 * 10**9
LONDON = ZoneInfo("Europe/London")


class Today:
    def __init__(self) -> None:
        self.utc_ns = 1_733_308_201 * 10**9  # 2024-12-04 10:30:01

    def __call__(self) -> snapshot.Now:
        return snapshot.Now(0, self.utc_ns)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Today:
    found = Today()
    monkeypatch.setattr(access_log, "now", found)
    return found


def test_a_line_is_as_the_seed_has_it_in_the_time_of_the_site(tmp_path: Path, today: Today) -> None:
    log = AccessLog(tmp_path / "logs", ZoneInfo("Europe/Paris"), 7)
    log.note("GET", "/energy?applianceId=1")
    log.flush()
    assert log.path.read_text() == "2024-12-04 11:30:01 - INFO - GET /energy?applianceId=1\n"


def test_nothing_is_written_before_it_is_time(tmp_path: Path, today: Today) -> None:
    log = AccessLog(tmp_path, LONDON, 7)
    log.note("GET", "/energy")
    assert not log.path.exists()
    assert log.files() == [log.path], "whoever asks for it gets all of it"


def test_each_day_has_a_file_and_old_ones_go(tmp_path: Path, today: Today) -> None:
    log = AccessLog(tmp_path, LONDON, 3)
    for _ in range(5):
        log.note("GET", "/energy")
        log.flush()
        today.utc_ns += DAY_NS
    assert [path.name for path in log.files()] == [
        "api_access.log.2024-12-06.1",
        "api_access.log.2024-12-07.1",
        "api_access.log",
    ]
    assert log.path.read_text().startswith("2024-12-08")


def test_all_files_together_stay_small_whoever_asks_how_much(
    tmp_path: Path, today: Today, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_MOST_FILE_BYTES", 2_000)
    monkeypatch.setattr(access_log, "_MOST_BYTES", 10_000)
    log = AccessLog(tmp_path, LONDON, 7)
    for number in range(300):
        for _ in range(3):
            log.note("GET", f"/{number:05}")
        log.flush()
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    told = "".join(path.read_text() for path in log.files())
    assert told.endswith("/00299\n")
    numbers = [int(line.rpartition("/")[2]) for line in told.splitlines()]
    assert numbers == sorted(numbers), "oldest first"


def test_a_flood_between_two_writes_is_bounded(tmp_path: Path, today: Today) -> None:
    log = AccessLog(tmp_path, LONDON, 7)
    for _ in range(20_000):
        log.note("GET", "/" + "x" * 10_000)
    log.flush()
    assert log.path.stat().st_size < 3_000_000


def test_what_machines_ask_all_the_time_is_left_out_and_so_is_all_where_none_is_kept(tmp_path: Path) -> None:
    log = AccessLog(tmp_path, LONDON, 7)
    for path in ("/metrics", "/healthz", "/readyz", "/metrics?x=1"):
        log.note("GET", path)
    assert log.files() == []
    none = AccessLog(tmp_path, LONDON, 0)
    none.note("GET", "/energy")
    assert none.files() == []


def test_a_log_that_cannot_be_written_stops_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").write_text("a file where the directory should be")
    log = AccessLog(tmp_path / "logs", LONDON, 7)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.note("GET", "/energy")
            log.flush()
    assert len(caplog.records) == 1
    (tmp_path / "logs").unlink()
    log.note("GET", "/energy")
    log.flush()
    assert log.path.exists()


def test_a_file_of_something_else_is_put_beside_and_not_deleted(tmp_path: Path, today: Today) -> None:
    (tmp_path / "api_access.log").write_bytes(b"\xff\xfe somebody's notes")
    (tmp_path / "api_access.log.notes").write_text("mine")
    log = AccessLog(tmp_path, LONDON, 7)
    log.note("GET", "/energy")
    log.flush()
    assert [path.name for path in log.files()] == ["api_access.log.2024-12-04.1", "api_access.log"]
    assert (tmp_path / "api_access.log.notes").read_text() == "mine"


KEY = "correct-horse"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/energy?applianceId=1", "/energy?applianceId=1"),
        (f"/energy?key={KEY}", "/energy?key=***"),
        ("/energy?X-API-Key=other&applianceId=2", "/energy?X-API-Key=***&applianceId=2"),
        ("/energy?a%70i_token=x", "/energy?a%70i_token=***"),
        (f"/energy?applianceId={KEY}", "/energy?applianceId=***"),
        (f"/energy?{KEY}", "/energy?***"),
        (f"/energy?applianceId={KEY.replace('-', '%2D')}", "/energy?applianceId=***"),
        ("/energy?&&=", "/energy?&&="),
    ],
)
def test_no_key_is_in_a_line(target: str, shown: str) -> None:
    assert without_keys(target, hash_of_key(KEY)) == shown


@given(raw=st.binary(max_size=300), query=st.binary(max_size=300))
def test_a_target_is_one_word_of_plain_characters_whatever_it_is_made_of(raw: bytes, query: bytes) -> None:
    assert re.fullmatch(r"[\x21-\x7e]*", without_keys(target_of({"raw_path": raw, "query_string": query})))


def ask_raw(server: Server, request: bytes) -> bytes:
    with server.connect() as connection:
        connection.sendall(request)
        return connection.recv(65_536)


def test_nobody_writes_lines_of_his_own_and_the_file_is_whole_when_the_process_leaves(house, tmp_path: Path) -> None:
    house.settings = replace(house.settings, api=Api(port=0, key_hash=hash_of_key(KEY)))
    with served(house) as server:
        server.wait_until_it_serves()
        server.ask("/energy?applianceId=1", X_API_Key=KEY)
        server.ask("/appliances", "HEAD")
        server.ask("/energy", "POST")
        server.ask(f"/energy?key={KEY}")
        server.ask("/nothing%0a2024-12-04%20-%20INFO%20-%20GET%20/forged")
        server.ask("/api/v1/live", Host="evil.example")
        server.ask("/api/v1/live", X_Forwarded_For="192.0.2.7", Authorization="Bearer wrong-one")
        for smuggled in (
            b"GET /a\nforged HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /a\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET /ü HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        ):
            assert ask_raw(server, smuggled).startswith(b"HTTP/1.1 400")
        told = server.ask("/logs/download/api")
        assert told.headers["content-disposition"] == 'attachment; filename="api_access.log"'
        assert told.headers["content-type"].startswith("text/csv")
        assert b"GET /energy?applianceId=1\n" in told.body
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.end(within_s=3) == 0
    lines = (tmp_path / "logs/api_access.log").read_text().splitlines(keepends=True)
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line.split(" - ")[2] for line in lines] == [
        "GET /energy?applianceId=1\n",
        "HEAD /appliances\n",
        "POST /energy\n",
        "GET /energy?key=***\n",
        "GET /nothing%0a2024-12-04%20-%20INFO%20-%20GET%20/forged\n",
        "GET /api/v1/live\n",
        "GET /api/v1/live\n",
        "GET /logs/download/api\n",
    ]
    assert KEY not in "".join(lines)


def test_the_log_of_a_house_that_nobody_asked_is_told_to_be_missing(house) -> None:
    house.settings = replace(house.settings, api=Api(port=0, access_log_days=0))
    with served(house) as server:
        server.wait_until_it_serves()
        answer = server.ask("/logs/download/api")
        assert (answer.status, answer.json["error"]) == (
            404,
            "there is no access log yet, or [api] access_log_days is 0",
        )
