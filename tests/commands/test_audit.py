"""`audit`: before a house that runs, one that rests, and books of which every gap and every loss is known."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from commands._audit import Audit, Line, troubles_of
from commands.audit import command, verdict
from logbook.entries import Entry, Kind
from logbook.events import Event, Gap, What
from logbook.moment import Moment, boot_id
from reading import Reading
from tests.commands.bench import orchestrator
from tests.faults.house import House, csv_rows
from tests.peers.process import free_ports, wait_for
from writer.clock import wall_minus_monotonic_ns
from writer.ledger import Channel, Register
from writer.outbox import Intake, Outbox, Stamp, Watermark
from writer.register import Counter
from writer.rows import SYNCED

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
OFFSET = wall_minus_monotonic_ns()
COLLECTED_NS = time.monotonic_ns()
BOOT = boot_id()


def now_ns() -> int:
    """The same instant all through a test, and another one in the next: minutes may lie between the two."""
    return NOW_NS.get("test", COLLECTED_NS)


NOW_NS: dict[str, int] = {}


def since_collected(event: Event) -> Event:
    """An event that was made when the tests were collected, as long before now as it was before then."""
    later_ns = now_ns() - COLLECTED_NS
    moment = event.moment
    moved = Moment(moment.boot, moment.at_ns + later_ns, moment.utc_ns + later_ns)
    return structs.replace(event, moment=moved)


def at(minutes_ago: float, boot: str = BOOT) -> Moment:
    at_ns = now_ns() - round(minutes_ago * MINUTE)
    return Moment(boot, at_ns, at_ns + OFFSET)


def down(part: str, minutes_ago: float, note: str, boot: str = BOOT) -> Event:
    return Event(What.DOWN, part, at(minutes_ago, boot), note)


def up(part: str, minutes_ago: float, what: What = What.UP) -> Event:
    return Event(what, part, at(minutes_ago))


class Books:
    """A configuration, and an outbox with what a test says has happened."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "site.toml"
        self.config.write_text(
            f'[site]\ndata_dir = "{directory}"\ntimezone = "UTC"\n[outputs.csv]\n'
            '[sources.meter]\nkind = "esp32_http"\n[[sources.meter.devices]]\nname = "house"\n'
            '[sources.bus]\nkind = "pzem"\nport = "/dev/ttyUSB0"\n'
            '[[sources.bus.devices]]\nname = "pv"\nmodel = "017"\nunit = 1\nshunt_a = 50\nsilent_when_dark = true\n'
        )
        self.path = directory / "outbox.db"
        self.sequence = 0

    def write(
        self,
        *,
        gaps: Sequence[Gap] = (),
        events: Sequence[Event] = (),
        entries: Sequence[Entry] = (),
        seen: dict[str, Moment] | None = None,
        readings: int = 1,
        counted: bool = False,
    ) -> None:
        outbox = Outbox(self.path, reserve_bytes=0, quota_bytes=2**40)
        outbox.serve(["csv"])
        seen = {"meter/house": at(0.1), "bus/pv": at(0.1)} | (seen or {})
        counter = Counter(0, at(0.1)) if counted else None
        channels = {
            name: Channel(Register(counter=counter), Register(), seen=moment) for name, moment in seen.items() if moment
        }
        self.sequence += 1
        taken = Intake(
            readings={"meter": [Reading("house", now_ns() + number, {"power_w": 1.0}) for number in range(readings)]},
            watermarks={"meter": Watermark(1, self.sequence)},
            channels=channels,
            entries=[*entries],
            gaps=[*gaps],
            events=[*events],
            count=readings,
        )
        outbox.commit(taken, Stamp(BOOT, OFFSET, SYNCED), dict(outbox.progress))
        outbox.close()

    def audit(self, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, ["--config", str(self.config), *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        # But for the next command, which is there to be pasted.
        assert "--json" in words or all(len(line) <= 80 for line in done.stdout.splitlines()[:-1]), done.stdout
        return done.exit_code, " ".join(done.output.split())


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    NOW_NS["test"] = time.monotonic_ns()
    yield Books(tmp_path)
    NOW_NS.clear()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, "[outputs.csv]\n", ["house"])
    yield house
    house.kill()


def test_where_nothing_is_missing_a_cron_job_hears_nothing(books: Books) -> None:
    books.write()
    status, told = books.audit()
    assert status == 0
    assert told.startswith("✓ nothing is missing since ")
    assert "Next: ./orchestrator.py" in told
    assert books.audit("--quiet") == (0, "")
    books.write(gaps=[Gap("meter/house", at(60), at(20))])
    status, told = books.audit("--quiet")
    assert status == 3
    assert told.startswith("! 1 gap, 40 min in all")


@pytest.mark.parametrize(
    ("events", "cause", "note"),
    [
        ([], "device", "it sent nothing"),
        ([down("device meter/house", 59, "it does not answer; is it on?")], "device", "it does not answer; is it on?"),
        ([down("source meter", 58, "no /dev/x; plug it in"), up("source meter", 21)], "bus", "source meter: no /dev/x"),
        ([down("process source.meter", 60, "it hung"), up("process source.meter", 20)], "process", "source meter: it"),
        ([down("house", 59, "wattherd was stopped"), up("house", 21, What.BEGAN)], "process", "wattherd was stopped"),
        (
            [down("house", 60, "the power was cut", "an earlier boot"), up("house", 20, What.BEGAN)],
            "process",
            "was cut",
        ),
        # What is over soon, or another source's, is not why.
        ([down("source meter", 58, "no"), up("source meter", 50)], "device", "it sent nothing"),
        ([down("source bus", 60, "no"), up("source bus", 20)], "device", "it sent nothing"),
    ],
)
def test_a_gap_is_told_with_its_cause(books: Books, events: list[Event], cause: str, note: str) -> None:
    books.write(gaps=[Gap("meter/house", at(60), at(20))], events=[since_collected(event) for event in events])
    status, told = books.audit("--json")
    [gap] = json.loads(told)["gaps"]
    assert status == 3
    assert (gap["channel"], gap["seconds"], gap["cause"]) == ("meter/house", 2400.0, cause)
    assert note in gap["note"]
    assert f"{cause}: " in books.audit()[1]


def test_a_gap_over_a_boot_without_a_date_has_no_length_and_is_told_all_the_same(books: Books) -> None:
    before = Moment("an earlier boot", 5, 0)
    cut = Event(What.DOWN, "house", before, "the power was cut")
    books.write(gaps=[Gap("meter/house", before, at(20))], events=[cut, up("house", 21, What.BEGAN)])
    status, told = books.audit()
    assert status == 3
    assert "for an unknown time: from not dated yet until" in told
    assert "process: the power was cut" in told


def test_it_is_told_whether_the_energy_of_a_gap_is_known(books: Books) -> None:
    gap = Gap("meter/house", at(60), at(20))
    books.write(gaps=[gap])
    assert "energy: not known: the device tells its power only" in books.audit()[1]
    books.write(counted=True)
    assert "energy: known: its counter did not move" in books.audit()[1]
    books.write(counted=True, entries=[Entry("meter/house", "energy_wh", Kind.ESTIMATED, at(20), 0, 0, 512 * 10**9)])
    assert "energy: known: its counter went on by 512.000 kWh" in books.audit()[1]


def test_what_is_silent_now_and_what_never_spoke_are_gaps_and_the_night_of_a_panel_is_none(books: Books) -> None:
    books.write(seen={"bus/pv": at(600)})
    status, told = books.audit()
    assert status == 0, told
    assert "· bus/pv was silent for 10 h" in told
    assert "it sleeps while it is dark" in told
    books.write(seen={"bus/pv": at(600)}, events=[down("source bus", 590, "cannot open; plug it in")])
    assert books.audit()[0] == 3, "the night does not excuse a port that is gone"
    books.write(seen={"meter/house": at(7)})
    status, told = books.audit()
    assert "! meter/house was silent for 7 min" in told
    assert "and is silent now" in told
    assert "meter/house" not in books.audit("--gap", "20m")[1]
    books.config.write_text(books.config.read_text().replace('name = "house"', 'name = "garage"'))
    status, told = books.audit()
    assert "meter/garage is configured and was never heard of" in told


def test_a_clock_that_is_set_forward_leaves_a_gap_in_every_history(books: Books) -> None:
    step = Event(What.STEP, "clock", at(30), "the clock was set by +600.0 s", 600 * 10**9)
    books.write(events=[step, Event(What.STEP, "clock", at(20), "the clock was set by -600.0 s", -600 * 10**9)])
    status, told = books.audit()
    assert status == 3
    assert told.count("clock: ") == 1
    assert "every device has a gap of 10 min" in told


def test_what_was_before_is_left_out(books: Books) -> None:
    books.write(gaps=[Gap("meter/house", at(6000), at(5000))])
    assert books.audit("--since", "2d")[0] == 0
    assert books.audit("--since", "7d")[0] == 3


def test_readings_that_vanish_from_the_books_are_noticed(books: Books) -> None:
    books.write(readings=7)
    with closing(sqlite3.connect(books.path)) as outbox:
        outbox.execute("UPDATE row SET count = count - 3")
        outbox.commit()
    status, told = books.audit()
    assert status == 1
    assert "✗ 3 readings are unaccounted for" in told


def test_messages_that_never_came_are_lost_readings(books: Books) -> None:
    books.write(events=[Event(What.MISSING, "source meter", at(3), "messages number 4 to 5 of run 9 never came", 2)])
    status, told = books.audit()
    assert status == 1
    assert "2 messages were lost: messages number 4 to 5 of run 9 never came" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--since", "yesterday"), "'yesterday' is no time"),
        (("--since", "2999-01-01"), "in the future"),
        (("--gap", "1m"), "write 5m or more"),
        (("--gap", "long"), "write 5m or more"),
    ],
)
def test_what_cannot_be_asked_is_told_in_words(books: Books, words: tuple[str, str], expected: str) -> None:
    books.write()
    status, told = books.audit(*words)
    assert status == 2
    assert expected in told


def test_books_from_before_there_was_a_logbook_can_be_audited(books: Books) -> None:
    books.write()
    with closing(sqlite3.connect(books.path)) as outbox:
        for table in ("event", "silence", "loss", "opening"):
            outbox.execute(f"DROP TABLE {table}")
        outbox.commit()
    status, told = books.audit()
    assert status == 0
    assert "There is no logbook before" in told


counts = st.integers(0, 10**6)


@given(counts, counts, counts, counts, counts)
def test_the_verdict_counts_what_does_not_balance(waited: int, new: int, got: int, pending: int, lost: int) -> None:
    line = Line("csv", 0, waited, new, got, pending, {"quota": lost})
    audit = Audit(0, 1, lines=[line])
    off = abs(waited + new - got - pending - lost)
    assert (f"{off:,} readings are unaccounted for" in verdict(audit, "then")) is (off > 0)
    assert audit.is_short is (off > 0 or lost > 0)


def test_the_troubles_of_a_house_end_with_it() -> None:
    events = [down("source meter", 50, "no"), down("house", 40, "killed"), up("house", 10, What.BEGAN)]
    assert [(one.part, one.first, one.last) for one in troubles_of(events)] == [
        ("house", at(40), at(10)),
        ("source meter", at(50), at(40)),
    ]


@pytest.mark.long
def test_a_house_is_audited_while_it_runs_is_killed_and_rests(house: House) -> None:
    house.started()
    for number in range(1, 6):
        house.post({"device": "house", "boot": "b", "seq": number, "pulses_total": number})
    wait_for(lambda: len(csv_rows(house.data_dir / "csv")) >= 5, "the readings")
    [line] = json.loads(orchestrator("audit", "--json", "--config", house.config).stdout)["outputs"]
    assert line["accepted"] == line["delivered"] + line["pending"]
    assert line["accepted"] >= 5

    worker = house.pid("meter") or house.pid("source.meter")
    assert worker
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: events(house, "process source.meter") == ["down", "up"], "the worker's end in the logbook")
    writer = house.pid("writer")
    assert writer
    os.kill(writer, signal.SIGKILL)
    wait_for(lambda: house.is_ready() and house.pid("writer") not in (None, writer), "another writer")
    house.post({"device": "house", "boot": "b", "seq": 6, "pulses_total": 6})
    wait_for(lambda: events(house, "house") == ["began", "down", "up"], "the writer's end in the logbook")
    assert house.stop() == 0
    house.started()
    house.post({"device": "house", "boot": "b", "seq": 7, "pulses_total": 7})
    wait_for(lambda: events(house, "house")[-2:] == ["down", "began"], "the stop and the start in the logbook")
    assert house.stop() == 0
    done = orchestrator("audit", "--config", house.config)
    assert done.returncode == 0, done.stdout


def events(house: House, part: str) -> list[str]:
    with closing(sqlite3.connect(house.data_dir / "outbox.db")) as outbox:
        return [what for (what,) in outbox.execute("SELECT what FROM event WHERE part = ? ORDER BY id", (part,))]


def test_an_output_that_was_away_for_too_long_is_told_with_what_it_will_never_get(tmp_path: Path) -> None:
    [port] = free_ports(1)
    house = House(tmp_path, f'[outputs.graphite]\nhost = "127.0.0.1"\nport = {port}\n', ["house"])
    house.start()
    try:
        wait_for(lambda: house.metric("wattherd_process_up", process="writer"), "the writer")
        body = {"device": "house", "boot": "b", "pulses_total": 1, "power_w": 5}
        wait_for(lambda: house.post({**body, "seq": 1})[0] == 200, "the first reading")
        wait_for(lambda: "down" in events(house, "output graphite"), "the output's trouble in the logbook")
        assert house.stop() == 0
    finally:
        house.kill()
    outbox = Outbox(house.data_dir / "outbox.db", reserve_bytes=0, quota_bytes=1)
    progress = dict(outbox.progress)
    outbox.commit(Intake(watermarks={"meter": Watermark(10**9, 1)}), Stamp(BOOT, OFFSET, SYNCED), progress)
    outbox.close()
    done = orchestrator("audit", "--json", "--config", house.config)
    assert done.returncode == 1, done.stdout
    told = json.loads(done.stdout)
    [line] = told["outputs"]
    [loss] = told["lost"]
    assert line["accepted"] == line["dropped"]["quota"] == loss["readings"] > 0
    assert loss["reason"] == "quota"
    assert abs(loss["first_utc_ns"] / 1e9 - time.time()) < 120
