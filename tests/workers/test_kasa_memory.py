"""What stays known of Kasa plugs over restarts, and that the log has only what a person can act on."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest

from tests.workers.kasa_devices import Home, Klap, Legacy, at, memory_in, reading_from


def test_the_memory_is_for_its_owner_alone_and_holds_what_was_met(tmp_path: Path) -> None:
    with Home(Legacy(1)) as home:
        with reading_from(home, tmp_path, at(home.at(1))) as bench:
            bench.round()
            written = memory_in(tmp_path).stat().st_mtime_ns
            bench.round()
        assert stat.S_IMODE(memory_in(tmp_path).stat().st_mode) == 0o600
        assert memory_in(tmp_path).stat().st_mtime_ns == written
        assert {*json.loads(memory_in(tmp_path).read_text())["plugs"]} == {home.at(1)}
        assert [*memory_in(tmp_path).parent.iterdir()] == [memory_in(tmp_path)]


def test_a_mere_look_remembers_nothing(tmp_path: Path) -> None:
    with Home(Legacy(1), Legacy(2, mac="50:C7:BF:00:00:99")) as home:
        with reading_from(home, tmp_path, at(home.at(1)), remembers=False) as bench:
            assert bench.round()
        assert not memory_in(tmp_path).parent.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"plugs": {"a": 7}}', b"\xff" * 100, b"[]"])
def test_a_damaged_memory_is_told_and_written_anew(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory_in(tmp_path).parent.mkdir()
    memory_in(tmp_path).write_bytes(content)
    with Home(Legacy(1)) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        assert bench.round()
    assert "what was known of the plugs cannot be read" in caplog.text
    assert home.network in memory_in(tmp_path).read_text()


def test_a_memory_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory_in(tmp_path).parent.write_text("a file where the folder should be")
    with Home(Legacy(1)) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        for _ in range(3):
            assert bench.round()
    assert caplog.text.count("cannot be written") == 1


def test_the_driver_is_quiet_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plug = Klap(1)
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1)), with_account=True) as bench:
        bench.round()
        plug.garbage = b"{"
        plug.forget_sessions()
        for _ in range(3):
            bench.round(after_s=70)
    assert {record.name for record in caplog.records} <= {"plugs", "asyncio"}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
