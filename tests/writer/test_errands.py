"""What a person asks of the ledger, and what comes of it in the books and for the history."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from logbook.entries import Kind
from logbook.moment import Moment
from reading import Quality, Reading
from writer.errands import Clerk, Errand, Now, Rename, Repair, Replace, Repurpose, SetReading, Undo, written
from writer.ledger import Booking, new_channel
from writer.outbox import Intake, Outbox, Stamp
from writer.register import UWH
from writer.rows import SYNCED

SECOND = 10**9
OFFSET = 1_800_000_000 * SECOND
KWH = 1000 * UWH
NAME = "meter/house"


class Desk:
    """An outbox with one channel that is read, and somebody who asks things."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outbox = Outbox(path, reserve_bytes=0, quota_bytes=10**9)
        self.numbers = itertools.count(1)
        self.trusted = True
        self.told: list[Reading] = []

    def reads(self, at_s: int, wh: float, name: str = NAME) -> dict[str, object]:
        intake = Intake()
        channel = intake.channels[name] = self.outbox.channels.get(name) or new_channel()
        device = name.partition("/")[2]
        reading = Reading(device, at_s * SECOND, {"device_energy_wh": wh})
        moment = Moment("boot", reading.at_ns, reading.at_ns + OFFSET)
        booked = Booking({}).book(name, channel, reading, moment, device_boot="", entries=intake.entries)
        intake.readings["meter"] = list(booked)
        self.commit(intake, at_s)
        return dict(intake.readings["meter"][-1].values)

    def asks(self, errand: Errand, at_s: int = 1000) -> str:
        intake = Intake()
        number = self.outbox.books.leave_errand(written(errand))
        now = Now("boot", at_s * SECOND, OFFSET, self.trusted)
        Clerk(self.outbox, intake, now).settle(number, written(errand))
        self.told = intake.readings.get("meter", [])
        self.commit(intake, at_s)
        answer = self.outbox.books.answer(number)
        assert answer
        return answer

    def commit(self, intake: Intake, at_s: int) -> None:
        self.outbox.commit(intake, Stamp("boot", OFFSET, SYNCED), dict(self.outbox.progress))

    def opened_again(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.path, reserve_bytes=0, quota_bytes=10**9)

    @property
    def register_wh(self) -> float:
        return self.outbox.channels[NAME].energy_wh.total_uwh / UWH

    @property
    def kinds(self) -> list[Kind]:
        return [entry.kind for _, entry in self.outbox.books.entries("ORDER BY id")]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "outbox.db")
    desk.reads(0, 5000)
    desk.reads(10, 5060)
    yield desk
    desk.outbox.close()


def test_a_repair_books_at_its_time_and_leaves_the_present_alone(desk: Desk) -> None:
    answer = desk.asks(Repair(NAME, "energy_wh", 2 * KWH, OFFSET + 5 * SECOND, "the fuse was off"))
    assert answer == "✓ meter/house, import: 2.000 kWh booked; the register is 2.060 kWh now."
    there, here = desk.told
    assert (there.at_ns, there.values, there.quality) == (
        5 * SECOND,
        {"energy_correction_wh": 2000.0},
        Quality.ESTIMATED,
    )
    assert here.values == {"energy_wh": 2060.0, "energy_correction_wh": -2000.0}
    assert 10 * SECOND < here.at_ns < 11 * SECOND
    assert desk.reads(20, 5070)["energy_wh"] == 2070.0
    assert desk.kinds == [Kind.START, Kind.REPAIR]


def test_what_is_taken_back_leaves_a_debt_because_no_register_falls(desk: Desk) -> None:
    answer = desk.asks(Repair(NAME, "energy_wh", -50 * UWH, OFFSET + 5 * SECOND, ""))
    assert answer.startswith("✓ meter/house, import: -0.050 kWh booked; the register is 0.010 kWh now. It was told")
    assert [one.values for one in desk.told] == [
        {"energy_correction_wh": -50.0},
        {"energy_wh": 60.0, "energy_debt_wh": 50.0},
    ]
    assert desk.reads(20, 5100) == {"device_energy_wh": 5100, "energy_wh": 60.0, "energy_debt_wh": 10.0}
    assert desk.reads(30, 5115) == {"device_energy_wh": 5115, "energy_wh": 65.0, "energy_debt_wh": 0.0}


def test_an_entry_is_taken_back_once(desk: Desk) -> None:
    desk.reads(3600, 6060)
    number = next(number for number, entry in desk.outbox.books.entries() if entry.kind is Kind.ESTIMATED)
    assert desk.asks(Undo(number), 4000).startswith("✓ meter/house, import: -1.000 kWh booked")
    assert desk.register_wh == 60
    assert "taken back already, by entry" in desk.asks(Undo(number), 4000)
    taken_back = desk.outbox.books.undone_by(number)
    assert desk.asks(Undo(taken_back), 4000).startswith("✓ meter/house, import: 1.000 kWh booked")
    assert desk.register_wh == 1060


def test_the_face_of_the_meter_goes_along_and_the_next_look_tells_what_was_missed(desk: Desk) -> None:
    assert "shows 12345.600 kWh from now on" in desk.asks(SetReading(NAME, round(12_345.6 * KWH)))
    assert desk.reads(20, 5160)["meter_reading_wh"] == 12_345_700.0
    desk.opened_again()
    assert "exactly" in desk.asks(SetReading(NAME, round(12_345.7 * KWH)))
    answer = desk.asks(SetReading(NAME, round(12_346.2 * KWH)))
    assert "by our count it should show 12345.700 kWh: we missed 0.500 kWh" in answer
    assert desk.reads(30, 5170)["meter_reading_wh"] == 12_346_210.0
    assert desk.register_wh == 170


def test_another_device_goes_on_where_the_register_is(desk: Desk) -> None:
    assert desk.asks(Replace(NAME, "old one burnt")).startswith("✓")
    desk.opened_again()
    assert desk.reads(20, 17)["energy_wh"] == 60.0
    assert desk.reads(30, 18)["energy_wh"] == 61.0


def test_a_new_purpose_needs_a_new_name(desk: Desk) -> None:
    assert "name of its own" in desk.asks(Repurpose(NAME, NAME, ""))
    assert desk.asks(Repurpose(NAME, "meter/shed", "")).startswith("✓ meter/house ends at 0.060 kWh")
    assert desk.kinds[-1] is Kind.END


def test_a_rename_waits_for_the_new_name_and_is_remembered(desk: Desk) -> None:
    assert desk.asks(Rename(NAME, "meter/home")).startswith("✓ meter/home goes on at 0.060 kWh")
    desk.opened_again()
    assert desk.outbox.heirs == {"meter/home": NAME}
    assert NAME in desk.outbox.channels


@pytest.mark.parametrize(
    ("errand", "words"),
    [
        (Repair("meter/none", "energy_wh", 1, OFFSET, ""), "no channel meter/none"),
        (Repair(NAME, "energy_wh", 1, OFFSET + 10**6 * SECOND, ""), "lies in the future"),
        (Repair(NAME, "energy_wh", -KWH, OFFSET, ""), "cannot be taken from it"),
        (Undo(99), "no entry 99"),
        (Undo(1), "booked nothing"),
        (Rename(NAME, NAME), "has a register of its own already"),
        (Repurpose("meter/none", "meter/new", ""), "no channel meter/none"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words_and_changes_nothing(desk: Desk, errand: Errand, words: str) -> None:
    before = desk.register_wh
    answer = desk.asks(errand)
    assert answer.startswith("✗")
    assert words in answer
    assert desk.register_wh == before
    assert desk.told == []


def test_before_the_clock_is_set_nothing_is_dated(desk: Desk) -> None:
    desk.trusted = False
    assert "the clock is not set yet" in desk.asks(Repair(NAME, "energy_wh", KWH, OFFSET, ""))


def test_text_that_is_no_errand_is_answered_too(desk: Desk) -> None:
    intake = Intake()
    Clerk(desk.outbox, intake, Now("boot", 0, OFFSET, True)).settle(7, '{"type":"burn"}')
    assert intake.answers[7].startswith("✗ this is no errand")
