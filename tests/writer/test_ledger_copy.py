"""The registers survive what the outbox does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from logbook.moment import Moment
from reading import Reading
from writer.ledger import Booking, Channel, new_channel
from writer.ledger_copy import LedgerCopy


def channel(*wh: float) -> Channel:
    made = new_channel()
    for number, each in enumerate(wh):
        reading = Reading("m", number * 10**10, {"device_energy_wh": each})
        [*Booking({}).book("m/m", made, reading, Moment("b", reading.at_ns), device_boot="", entries=[])]
    return made


@pytest.fixture
def copy(tmp_path: Path) -> LedgerCopy:
    return LedgerCopy(tmp_path / "ledger.copy")


def test_registers_that_damage_took_go_on_from_their_copy(copy: LedgerCopy) -> None:
    kept = {"m/a": channel(0, 50), "m/b": channel(0, 20)}
    copy.keep(kept, now=True)
    assert copy.higher_than({"m/b": channel(0, 30)}) == {"m/a": kept["m/a"]}, "what is higher than its copy is newer"
    assert copy.higher_than({"m/a": channel(0, 50), "m/b": channel(0, 10)}) == {"m/b": kept["m/b"]}


def test_it_is_written_once_an_hour(copy: LedgerCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy.keep({"m/a": channel(0)})
    assert not [*tmp_path.iterdir()]
    monkeypatch.setattr("writer.ledger_copy.time.monotonic", lambda: 10.0**9)
    copy.keep({"m/a": channel(0)})
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.copy"]


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x81\xa1a\x01"])
def test_a_damaged_copy_is_told_and_restores_nothing(
    copy: LedgerCopy, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ledger.copy").write_bytes(content)
    assert copy.higher_than({}) == {}
    assert "cannot be read" in caplog.text


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    LedgerCopy(tmp_path / "file" / "ledger.copy").keep({"m/a": channel(0)}, now=True)
    assert "cannot be written" in caplog.text


def test_without_a_copy_there_is_nothing_to_restore(copy: LedgerCopy) -> None:
    assert copy.higher_than({}) == {}
