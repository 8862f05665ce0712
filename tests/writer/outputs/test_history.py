"""The history counts every reading once, whoever is killed and in whatever order they come; and it stays in bounds."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import random
import resource
import signal
import sqlite3
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.buckets import GAUGE, HOUR_NS, SECOND_NS, TEXT
from history.queries import History as Ask
from history.tables import FIVE_MINUTES, HALF_HOURS, HOURS, MINUTES, RAW, State, chunk_id
from reading import Clock, Quality, Record
from tests.peers.process import wait_for
from tests.writer._helpers import forked
from tests.writer.outputs._history import (
    NOON_NS,
    POWER,
    REGISTER,
    batch,
    content,
    count,
    opened,
    output,
    quick,
    record,
    write_all,
)
from writer import Batch, OutputDown, OutputRefused, output_class
from writer.outputs import _history_scribe as scribe
from writer.outputs import history as module
from writer.outputs.history import History, Options

DAY_S = 86_400
LONG = Options().five_minute_days * DAY_S


@st.composite
def records(draw: st.DrawFn, longest_s: int = 3 * 3600, *, falling: bool = True) -> list[Record]:
    """Readings of two devices in order, at any two of which the clock or the quality may differ."""
    times = sorted(draw(st.sets(st.integers(0, longest_s * 10), min_size=1, max_size=40)))
    found, energy_wh = [], 0
    for tenth in times:
        energy_wh += draw(st.integers(0, 5000))
        values: dict[str, float | str] = {"power_w": draw(st.integers(-500, 3000)) / 10, "energy_wh": energy_wh / 1000}
        if falling:
            values["device_energy_wh"] = float(draw(st.integers(0, 1000)))
        if draw(st.booleans()):
            values["state"] = draw(st.sampled_from(["idle", "running"]))
        device = draw(st.sampled_from(["fridge", "heater"]))
        each = record(tenth / 10, device, draw(st.sampled_from(list(Quality))), **values)
        found.append(msgspec.structs.replace(each, clock=draw(st.sampled_from(list(Clock)))))
    return found


def in_rows(some: list[Record], chance: random.Random) -> list[Batch]:
    """Cut records into batches of one to three rows of the outbox."""
    found = []
    place = row = 0
    while place < len(some):
        size = chance.randint(1, 6)
        part = some[place : place + size]
        numbers = sorted(row + chance.randint(1, 3) for _ in part)
        row = numbers[-1]
        found.append(Batch(part, numbers))
        place += size
    return found


def settled(folder: Path, batches: Iterable[Batch], **options: float) -> dict:
    """Write batches and then one of a later day, with which all before it is folded; return what is there."""
    last = record(4 * DAY_S, "last", power_w=0.0)
    write_all(folder, [*batches, batch(last, row=10**6)], **options)
    return content(folder)


@contextlib.contextmanager
def folders(number: int) -> Iterable[list[Path]]:
    with tempfile.TemporaryDirectory(dir=quick()) as name:
        found = [Path(name) / str(each) for each in range(number)]
        for each in found:
            each.mkdir()
        yield found


# ---- order, duplicates, kills


@settings(max_examples=15)
@given(records(), st.randoms())
def test_in_whatever_order_readings_come_the_file_says_the_same_to_the_byte(
    some: list[Record], chance: random.Random
) -> None:
    with folders(2) as (straight, crooked):
        expected = settled(straight, [Batch(some, [1] * len(some))])
        shuffled = chance.sample(some, len(some)) + chance.sample(some, len(some) // 2)  # some of them twice
        assert settled(crooked, in_rows(shuffled, chance)) == expected


@settings(max_examples=10)
@given(records(longest_s=2 * DAY_S, falling=False), st.randoms(), st.sampled_from([20, 120, 400]))
def test_what_comes_when_the_readings_around_it_are_gone_still_changes_exactly_its_buckets(
    some: list[Record], chance: random.Random, days: int
) -> None:
    """After 20 days there are minutes, after 120 five minutes, after 400 half-hours and hours."""
    now = [batch(record(days * DAY_S + at, "now", power_w=1.0), row=100 + at) for at in range(0, 7201, 1200)]
    cut = chance.randrange(len(some))
    shuffled = chance.sample(some, len(some))
    early, late = shuffled[:cut], shuffled[cut:]
    with folders(2) as (straight, crooked):
        write_all(straight, [Batch(some, [1] * len(some)), *now, batch(record((days + 1) * DAY_S, "now", power_w=1.0))])
        late_batches = [batch(each, row=90_000 + row) for row, each in enumerate(late)]
        write_all(
            crooked,
            [
                *([Batch(early, [1] * len(early))] if early else []),
                *now,
                *late_batches,
                *late_batches,  # an outbox that was restored from a backup
                batch(record((days + 1) * DAY_S, "now", power_w=1.0)),
            ],
        )
        assert content(crooked) == content(straight)


def test_a_batch_that_comes_again_with_other_boundaries_counts_once(tmp_path: Path) -> None:
    """Even where no reading is left to compare it with, and with bookings, of which two may be alike."""
    times = (-400 * DAY_S, -400 * DAY_S, -10, -10)
    old = [record(at, energy_correction_wh=5.0, power_w=100.0) for at in times]
    now = [batch(record(at, power_w=1.0), row=1 + at) for at in range(0, 7201, 1200)]
    write_all(tmp_path, now)
    write_all(tmp_path, [Batch(old, [8000, 8000, 8001, 8002])])
    write_all(tmp_path, [Batch(old[:3], [8000, 8000, 8001]), Batch([old[3], record(7300, power_w=3.0)], [8002, 8003])])
    never = record(9000, power_w=float("nan"))  # was not taken the first time either, so it is no news
    again = [*old, never, record(7300, power_w=3.0), record(7310, power_w=3.0)]
    with opened(tmp_path) as history, pytest.raises(OutputRefused):
        history.write(Batch(again, [8000, 8000, 8001, 8002, 8002, 8003, 8004]))
    begin, end = NOON_NS - 2 * LONG * SECOND_NS, NOON_NS + DAY_S * SECOND_NS
    ask = Ask(tmp_path / "history.db")
    bookings = ask.series(("kasa", "fridge", "energy_correction_wh"), begin, end)
    power = ask.series(POWER, begin, end)
    ask.close()
    assert sum(bookings.n) == 4
    # Of the two readings at one instant, one; where the instants are gone, both.
    assert sum(power.n) == 2 + 1 + len(now) + 2


def test_an_outbox_that_begins_to_count_anew_is_heard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its first rows have the numbers of rows that are in here, and other readings."""
    write_all(tmp_path, [batch(record(at, power_w=1.0), row=1 + at) for at in range(0, 7201, 1200)])
    caplog.set_level(logging.WARNING)
    old = record(-400 * DAY_S, energy_correction_wh=5.0)
    write_all(tmp_path, [batch(record(7210, power_w=1.0), old, row=1), batch(record(7220, power_w=1.0), row=2)])
    ask = Ask(tmp_path / "history.db")
    found = ask.series(("kasa", "fridge", "energy_correction_wh"), old.time_ns, NOON_NS)
    ask.close()
    assert sum(found.n) == 1
    assert "anew" in caplog.text


def test_readings_of_an_outbox_that_counts_anew_are_kept_even_where_a_wrong_date_hides_that(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(at, power_w=1.0), row=1 + at) for at in range(0, 7201, 1200)])
    write_all(tmp_path, [batch(record(4000 * DAY_S, power_w=1.0), row=8000)])
    write_all(tmp_path, [batch(record(7210 + row, power_w=2.0), row=row) for row in (1, 1201)])
    ask = Ask(tmp_path / "history.db")
    assert ask.series(POWER, NOON_NS, NOON_NS + 3 * HOUR_NS, 0).last == [1.0] * 7 + [2.0] * 2
    ask.close()


def test_a_killed_writer_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """What is confirmed is there; what was in hand comes again, with other boundaries. Bookings show every doubling."""
    chance = random.Random(5)
    some = [
        record(at * 7 - 400 * DAY_S * (at % 2), power_w=float(at), energy_correction_wh=1.0) for at in range(1, 1200)
    ]
    write_all(tmp_path, [batch(record(at - 9000, power_w=1.0), row=1 + at) for at in range(0, 7201, 1200)])
    confirmed = tmp_path / "confirmed"
    confirmed.write_text("0")

    def deliver() -> None:
        done = int(confirmed.read_text())
        enough = done + 60
        with opened(tmp_path) as history:
            while done < min(enough, len(some)):
                size = chance.randint(1, 20)
                part = some[done : done + size]
                history.write(Batch(part, [10_000 + done + index for index in range(len(part))]))
                done += len(part)
                if done >= enough:
                    break  # killed after the history's commit and before the outbox knows of it
                confirmed.with_suffix(".new").write_text(str(done))
                confirmed.with_suffix(".new").rename(confirmed)
            signal.pause()

    kills = 0
    while int(confirmed.read_text()) < len(some):
        before = confirmed.read_text()
        with forked(deliver) as child:
            wait_for(lambda before=before: confirmed.read_text() != before, "a batch to be written")
            time.sleep(chance.uniform(0, 0.02))  # the instant of the kill, not a wait for anything
            child.kill()
            kills += child.wait() == -signal.SIGKILL
    assert kills >= len(some) // 80
    ask = Ask(tmp_path / "history.db")
    begin, end = NOON_NS - 800 * DAY_S * SECOND_NS, NOON_NS + DAY_S * SECOND_NS
    bookings = ask.series(("kasa", "fridge", "energy_correction_wh"), begin, end)
    power = ask.series(POWER, begin, end)
    ask.close()
    assert sum(bookings.n) == len(some)
    assert sum(power.n) == len(some) + 7


def test_what_write_returned_from_is_on_the_disk(tmp_path: Path) -> None:
    """A copy of the files as they lie there, as after a power cut, has it."""
    with opened(tmp_path) as history:
        for number in range(3):
            history.write(batch(record(number, power_w=float(number)), row=number + 1))
            copy = tmp_path / f"copy-{number}"
            copy.mkdir()
            for part in ("history.db", "history.db-wal"):
                (copy / part).write_bytes((tmp_path / part).read_bytes())
            ask = Ask(copy / "history.db")
            assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 0).last == [float(each) for each in range(number + 1)]
            ask.close()


def test_a_commit_touches_a_page_or_two(tmp_path: Path) -> None:
    """A card wears by the page: twenty devices cost no more than one."""
    with opened(tmp_path) as history:
        log_file = tmp_path / "history.db-wal"
        grown = []
        for number in range(100):
            before = log_file.stat().st_size if log_file.exists() else 0
            records = [record(number, f"plug-{device}", power_w=1.5, voltage_v=230.1) for device in range(20)]
            history.write(batch(*records, row=number + 1))
            grown.append((log_file.stat().st_size - before) // 4096)
    assert sum(grown[1:]) / 99 < 2


# ---- what is too old, and what is too much


def widths(folder: Path) -> dict[int, tuple[int, int]]:
    """How many hours before noon the oldest chunk of each width is, and how many there are."""
    with contextlib.closing(sqlite3.connect(folder / "history.db")) as connection:
        numbers = [number for (number,) in connection.execute("SELECT id FROM chunk")]
    found: dict[int, list[int]] = {}
    for number in numbers:
        found.setdefault(number >> 48, []).append(NOON_NS // HOUR_NS - (number >> 24 & 0xFFFFFF))
    return {width: (max(hours), len(hours)) for width, hours in found.items()}


def test_details_grow_old_and_hours_stay(tmp_path: Path) -> None:
    some = [record(-at, power_w=1.0, energy_wh=float(400 * DAY_S - at)) for at in range(400 * DAY_S, -3601, -6 * 3600)]
    write_all(tmp_path, [batch(*some[start : start + 500], row=1 + start) for start in range(0, len(some), 500)])
    write_all(tmp_path, [batch(record(7200 + at, power_w=1.0, energy_wh=4e7), row=10**5 + at) for at in range(12)])
    hours = {width: oldest for width, (oldest, _) in widths(tmp_path).items()}
    assert hours[RAW] <= 7 * 24
    assert hours[MINUTES] <= 90 * 24
    assert hours[FIVE_MINUTES] <= 365 * 24
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        kept = dict(connection.execute("SELECT width, count(*) FROM bucket WHERE series = 1 GROUP BY width"))
    assert kept[HOURS] == len(some), "the last hour is not over"
    assert HALF_HOURS not in kept, "half-hours are for registers"


def test_a_reading_dated_far_ahead_deletes_nothing(tmp_path: Path) -> None:
    some = [record(at, power_w=1.0) for at in range(0, 7200, 600)]
    wrong = [record(4000 * DAY_S, power_w=2.0), record(4000 * DAY_S + 1800, power_w=2.0)]
    unsynced = [
        msgspec.structs.replace(record(5000 * DAY_S + at, power_w=2.0), clock=Clock.UNSYNCED)
        for at in range(0, DAY_S, 600)
    ]
    write_all(tmp_path, [batch(*some, row=1), batch(*wrong, row=2), batch(*unsynced, row=3)])
    write_all(tmp_path, [batch(record(7200 + at, power_w=1.0), row=4 + at) for at in range(0, 3601, 600)])
    ask = Ask(tmp_path / "history.db")
    assert len(ask.series(POWER, NOON_NS, NOON_NS + DAY_S * SECOND_NS, 0).n) == len(some) + 7
    bounds = ask.bounds()
    ask.close()
    assert bounds
    assert bounds.raw_since_ns < NOON_NS


def test_a_house_that_was_off_for_months_is_believed_after_an_hour(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(at, power_w=1.0), row=1 + at) for at in range(0, 7200, 600)])
    back = [batch(record(100 * DAY_S + at, power_w=1.0), row=9000 + at) for at in range(0, 3001, 600)]
    write_all(tmp_path, back)
    assert widths(tmp_path)[RAW][0] >= 0, "not yet"
    write_all(
        tmp_path, [batch(record(100 * DAY_S + at, power_w=1.0), row=20_000 + at) for at in range(3600, 7201, 600)]
    )
    assert widths(tmp_path)[RAW][0] < 0


@pytest.fixture
def large(tmp_path: Path) -> Callable[[int, int], None]:
    """Write hours of noise, which is the least that can be packed."""
    chance = random.Random(3)

    def write(first: int, end: int, **options: float) -> None:
        with opened(tmp_path, **options) as history:
            for hour in range(first, end):
                some = [
                    record(hour * 3600 + at, f"plug-{device}", power_w=chance.random(), voltage_v=chance.random())
                    for at in range(0, 3600, 20)
                    for device in range(4)
                ]
                history.write(batch(*some, row=hour + 1))

    return write  # type: ignore[return-value]


def used_mb(folder: Path) -> float:
    return (folder / "history.db").stat().st_size / 1e6


def test_a_full_history_gives_up_its_oldest_readings_first_and_its_hours_never(
    tmp_path: Path, large: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(scribe, "_SPARE_PAGES", 10)
    monkeypatch.setattr(scribe, "_DAY_HOURS", 4)  # of a width that are kept in any case
    unlimited = 30
    large(0, unlimited)
    before = widths(tmp_path)
    full_mb = used_mb(tmp_path)
    monkeypatch.setattr(Options, "__post_init__", lambda self: None)
    options = msgspec.structs.replace(Options(), most_mb=full_mb * 0.8)
    history = History(options, output(tmp_path).site, output(tmp_path).memo)
    for number in range(40):
        history.write(batch(record(unlimited * 3600 + number, power_w=1.0), row=10**6 + number))
    history.close()
    after = widths(tmp_path)
    assert used_mb(tmp_path) < full_mb * 0.85, "the file itself is smaller"
    assert after[RAW][0] < before[RAW][0]
    assert after[MINUTES] >= before[MINUTES], "not one minute is gone while there are readings to give up"
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        assert (
            connection.execute("SELECT count(*) FROM bucket WHERE width = ?", (HOURS,)).fetchone()[0] >= 8 * unlimited
        )
    assert caplog.text.count("raise most_mb") == 1


def test_a_full_history_gives_up_minutes_when_there_are_no_readings_left(
    tmp_path: Path, large: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "_DAY_HOURS", 4)
    large(0, 15)
    options = msgspec.structs.replace(Options(), most_mb=0.1)
    history = History(options, output(tmp_path).site, output(tmp_path).memo)
    for number in range(60):
        history.write(batch(record(15 * 3600 + number, power_w=1.0), row=10**6 + number))
    history.close()
    left = {width: oldest + 15 for width, (oldest, _) in widths(tmp_path).items()}
    assert left == {RAW: 5, MINUTES: 5, FIVE_MINUTES: 5}, "the last hour is not over, four stay in any case"


# ---- faults


def test_a_full_disk_is_told_and_forgotten_when_there_is_room_again(tmp_path: Path, large: Callable) -> None:
    large(0, 2)
    with opened(tmp_path) as history:
        history.write(batch(record(7200, power_w=1.0), row=100))
        assert history._scribe
        connection = history._scribe._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        some = [record(7200 + at, "new", power_w=random.random()) for at in range(5000)]
        with pytest.raises(OutputDown, match="full") as down:
            history.write(batch(*some, row=101))
        assert down.value.remedy == "", "it is tried again soon"
        history.write(batch(*some, row=101))
    ask = Ask(tmp_path / "history.db")
    assert sum(ask.series(("kasa", "new", "power_w"), NOON_NS, NOON_NS + DAY_S * SECOND_NS).n) == 5000
    ask.close()


def test_a_place_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    with opened(tmp_path) as history:
        with pytest.raises(OutputDown) as down:
            history.write(batch(record(0, power_w=1.0), row=1))
        assert "make" in down.value.remedy
        (tmp_path / "history.db").rmdir()
        history.write(batch(record(0, power_w=1.0), row=1))
    with opened(tmp_path / "history.db" / "no") as history, pytest.raises(OutputDown) as down:
        history.write(batch(record(0, power_w=1.0), row=1))
    assert "make" in down.value.remedy


def test_a_file_that_cannot_be_opened_for_the_moment_needs_nobody(tmp_path: Path) -> None:
    """A full disk and a process without descriptors cannot open a file either, and both pass by themselves."""
    with opened(tmp_path) as history:
        os.close(free := os.dup(0))  # the number of the next file that is opened
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            with pytest.raises(OutputDown) as down:
                history.write(batch(record(0, power_w=1.0), row=1))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert down.value.remedy == "", "it is tried again soon"
        history.write(batch(record(0, power_w=1.0), row=1))


def spoil(path: Path, share: float) -> None:
    """Overwrite some pages in the middle of the file, as a dying card does; leave a log, as a power cut does."""
    chance = random.Random(1)
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(size // 4096 // 2, size // 4096, max(1, round(1 / share))):
            file.seek(page * 4096)
            file.write(chance.randbytes(4096))


def left_open(folder: Path, batches: list[Batch]) -> None:
    """Write and be killed, so that the log of the file stays behind."""

    def write() -> None:
        history = output(folder)
        for each in batches:
            history.write(each)
        (folder / "written").touch()
        signal.pause()

    with forked(write):
        wait_for((folder / "written").exists, "the batches to be written")


def test_a_damaged_history_is_set_aside_and_what_can_be_read_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    some = [record(at, power_w=random.random(), energy_wh=at / 100) for at in range(0, 30 * 3600, 20)]
    write_all(tmp_path, [batch(*some[start : start + 180], row=1 + start) for start in range(0, len(some), 180)])
    left_open(tmp_path, [batch(record(31 * 3600, power_w=1.0, energy_wh=1200.0), row=10**6)])
    spoil(tmp_path / "history.db", 0.2)
    write_all(tmp_path, [batch(record(31 * 3600 + 5, power_w=1.0, energy_wh=1201.0), row=10**6 + 1)])
    write_all(tmp_path, [batch(record(33 * 3600, power_w=1.0, energy_wh=1202.0), row=10**6 + 2)])
    assert "set aside as history.db.damaged-1" in caplog.text
    assert (tmp_path / "history.db.damaged-1").exists()
    ask = Ask(tmp_path / "history.db")
    [whole] = ask.energy([REGISTER], NOON_NS, NOON_NS + 34 * HOUR_NS, "year", "UTC")[REGISTER]
    hours = ask.series(POWER, NOON_NS, NOON_NS + 34 * HOUR_NS, 3600)
    ask.close()
    assert whole.amount is not None
    assert 1000 < whole.amount <= 1202, "what is left of the register still tells the energy between"
    assert all(n <= 180 for n in hours.n), "no reading is counted twice"
    assert sum(hours.n) > 180


def test_a_name_that_is_no_text_any_more_is_damage(tmp_path: Path) -> None:
    """Python has an error of its own for it, without the number by which SQLite tells damage."""
    write_all(tmp_path, [batch(record(at, power_w=1.0, energy_wh=at / 100), row=1 + at) for at in range(5)])
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        connection.execute("UPDATE series SET metric = CAST(x'ff' AS TEXT) WHERE metric = 'power_w'")
        connection.commit()
    with opened(tmp_path) as history:
        with pytest.raises(OutputDown, match="a new one is begun"):
            history.write(batch(record(10, power_w=1.0), row=100))
        history.write(batch(record(10, power_w=1.0), row=100))
    ask = Ask(tmp_path / "history.db")
    assert sum(ask.series(REGISTER, NOON_NS, NOON_NS + HOUR_NS).n) == 5
    assert sum(ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS).n) == 1
    ask.close()
    assert (tmp_path / "history.db.damaged-1").exists()


def test_late_readings_of_a_damaged_hour_are_added_to_what_is_known_of_it(tmp_path: Path) -> None:
    some = [record(at, power_w=100.0, energy_wh=at / 10) for at in range(0, 3600, 60)]
    write_all(tmp_path, [batch(*some, row=1), batch(record(7200, power_w=1.0, energy_wh=720.0), row=2)])
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        hour = NOON_NS // HOUR_NS
        connection.execute(
            "DELETE FROM chunk WHERE id BETWEEN ? AND ?", (chunk_id(RAW, hour, 0), chunk_id(RAW, hour, 99))
        )
        begin, end = chunk_id(MINUTES, hour, 0), chunk_id(FIVE_MINUTES, hour, 99)
        connection.execute("UPDATE chunk SET body = x'1234' WHERE id BETWEEN ? AND ?", (begin, end))
        connection.commit()
    write_all(
        tmp_path, [batch(record(30, power_w=160.0, energy_wh=3.0), row=3), batch(record(10_800, power_w=1.0), row=4)]
    )
    ask = Ask(tmp_path / "history.db")
    found = ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 3600)
    energy = ask.energy_steps(REGISTER, NOON_NS, NOON_NS + HOUR_NS, 3600)
    ask.close()
    assert (found.n, found.mean, found.max) == ([61], [pytest.approx((60 * 100 + 160) / 61)], [160.0])
    assert [each.amount for each in energy] == [360.0]


@pytest.mark.parametrize("table", ["journal", "state"])
def test_a_spoilt_row_that_sqlite_cannot_know_of_stops_nothing(tmp_path: Path, table: str) -> None:
    write_all(tmp_path, [batch(record(at, power_w=1.0), row=1 + at) for at in (*range(0, 7201, 1200), 7210)])
    with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        assert connection.execute(f"UPDATE {table} SET body = x'c1c1'").rowcount > 0
        connection.commit()
    write_all(tmp_path, [batch(record(at, power_w=2.0), row=1 + at) for at in (7300, 11_000)])
    ask = Ask(tmp_path / "history.db")
    found = ask.series(POWER, NOON_NS, NOON_NS + 4 * HOUR_NS, 3600)
    ask.close()
    assert sum(found.n) == 10 - 2 * (table == "journal"), "of the hour that is not over"


@pytest.mark.parametrize("junk", [b"this is no database at all" * 1000, b""], ids=["text", "empty"])
def test_what_is_no_history_at_all_gives_way_to_one(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "history.db").write_bytes(junk)
    with opened(tmp_path) as history:
        with contextlib.suppress(OutputDown):
            history.write(batch(record(0, power_w=1.0), row=1))
        history.write(batch(record(0, power_w=1.0), row=1))
    assert count(tmp_path, "journal") + count(tmp_path, "bucket") > 0
    if junk:
        assert (tmp_path / "history.db.damaged-1").read_bytes() == junk


def test_a_rescue_that_was_killed_before_its_last_step_is_finished(tmp_path: Path) -> None:
    write_all(tmp_path, [batch(record(0, power_w=1.0), row=1)])
    (tmp_path / "history.db").rename(tmp_path / "history.db.rescued")
    write_all(tmp_path, [batch(record(1, power_w=1.0), row=2)])
    ask = Ask(tmp_path / "history.db")
    assert sum(ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS).n) == 2
    ask.close()


def test_a_history_that_is_deleted_while_it_is_written_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        history.write(batch(record(0, power_w=1.0), row=1))
        for part in tmp_path.glob("history.db*"):
            part.unlink()
        history.write(batch(record(1, power_w=2.0), row=2))
        ask = Ask(tmp_path / "history.db")
        assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 0).last == [2.0]
        ask.close()


def test_a_reading_that_no_house_can_have_is_refused_and_all_others_are_kept(tmp_path: Path) -> None:
    some = [
        record(0, power_w=1.0),
        record(1, power_w=float("nan")),
        Record("kasa", "fridge", -1, {"power_w": 1.0}),
        record(2, energy_wh=1e300),
        record(3, power_w=2),
    ]
    with opened(tmp_path) as history, pytest.raises(OutputRefused) as refused:
        history.write(batch(*some, row=1))
    assert refused.value.indices == {1, 2, 3}
    ask = Ask(tmp_path / "history.db")
    assert ask.series(POWER, NOON_NS, NOON_NS + HOUR_NS, 0).last == [1.0, 2.0]
    ask.close()


def test_a_metric_that_is_a_number_now_and_a_text_then_is_two_series(tmp_path: Path) -> None:
    with opened(tmp_path) as history:
        history.write(batch(record(0, state=1.0), record(1, state="on"), record(2, state=3), record(3, state="off")))
    ask = Ask(tmp_path / "history.db")
    assert sorted((each.kind, each.metric) for each in ask.devices()) == [(GAUGE, "state"), (TEXT, "state")]
    assert {each.value for each in ask.latest(NOON_NS)} == {3.0, "off"}
    ask.close()


def test_a_backlog_is_folded_once_an_hour_and_newer_readings_beside_it_do_not_disturb(tmp_path: Path) -> None:
    """A page that is written twice wears a card twice."""
    row = 0
    written: list[str] = []
    with opened(tmp_path) as history:
        for start in range(0, 12 * 3600, 2500):  # forty minutes
            backlog = [record(start + at, power_w=at / 10, energy_wh=start + at) for at in range(0, 2500, 10)]
            live = record(DAY_S + start / 50, power_w=1.0, energy_wh=1e6 + start)
            for each in (backlog, [live]):
                row += 1
                history.write(batch(*each, row=row))
                if row == 1:
                    assert history._scribe
                    history._scribe._connection.set_trace_callback(written.append)
    chunks = [line for line in written if line.startswith("INSERT OR REPLACE INTO chunk")]
    assert len(chunks) <= 1.2 * count(tmp_path, "chunk")
    ask = Ask(tmp_path / "history.db")
    assert sum(ask.series(POWER, NOON_NS, NOON_NS + 2 * DAY_S * SECOND_NS).n) == 18 * 251
    ask.close()


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), max_size=200))
def test_the_numbers_of_rows_take_little_room_and_none_is_forgotten(runs: list[tuple[int, int]]) -> None:
    spans: list[tuple[int, int]] = []
    for first, length in runs:
        spans = scribe._united(spans, [(first, first + length)])
    assert len(spans) <= 64
    assert all(any(low <= first and first + length <= high for low, high in spans) for first, length in runs)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(State(rows=spans)), type=State).rows == spans


# ---- options


def test_the_example_in_the_docstring_has_every_option_with_its_default() -> None:
    text = inspect.getdoc(module) or ""
    [table] = tomllib.loads(textwrap.dedent("\n".join(example_lines(text))))["outputs"].values()
    assert msgspec.to_builtins(Options()) == {**table, "kind": "", "enabled": True}
    assert output_class("history") is History


def example_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("    ")]


def test_details_cannot_be_kept_longer_than_what_is_made_of_them() -> None:
    with pytest.raises(msgspec.ValidationError, match="must not get smaller"):
        msgspec.convert({"raw_days": 100, "minute_days": 90}, Options)
