"""What is in the files is what was measured, to the byte, whoever is killed at whatever moment."""

from __future__ import annotations

import csv
import errno
import inspect
import io
import json
import logging
import math
import os
import random
import resource
import shutil
import signal
import tempfile
import textwrap
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings import Site
from reading import Clock, Quality, Record
from writer import Batch, Memo, OutputDown, OutputRefused, output_class
from writer.outputs import csv as module
from writer.outputs._csv_rows import Tidy, text_cell, value_cell
from writer.outputs.csv import Csv, Options

ANY_TEXT = st.text(st.characters() | st.sampled_from("\n\r\\\",='+-@\t\0 "), max_size=20)
NOON_S = 1_762_862_400  # 2025-11-11T12:00:00Z
DAY_S = 86_400


class KeptMemo(Memo):
    """A memo that the writer has committed at each `keep()`."""

    kept = 0

    def keep(self) -> None:
        self.kept += 1


def output(folder: Path, memo: Memo | None = None, *, timezone: str = "Europe/London", **options: Any) -> Csv:
    site = Site(data_dir=str(folder), timezone=timezone)
    return Csv(msgspec.convert(options, Options), site, KeptMemo() if memo is None else memo)


def record(at_s: float = NOON_S, **values: float | str) -> Record:
    return Record("kasa", "fridge", round(at_s * 1000) * 10**6, values or {"power_w": 86.5})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "csv").iterdir())}


# ---- what a row looks like


@given(ANY_TEXT, ANY_TEXT)
def test_no_text_is_a_formula_or_a_second_row(first: str, second: str) -> None:
    line = f"{text_cell(first)},{text_cell(second)}\n".encode("utf-8", "replace").decode()
    assert len(line.splitlines()) == 1
    (row,) = csv.reader(io.StringIO(line, newline=""))
    assert len(row) == 2
    for cell in row:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.floats() | st.integers())
def test_a_number_read_back_is_the_very_same(number: float) -> None:
    cell = value_cell(number)
    if isinstance(number, int):
        assert int(cell) == number
    elif math.isfinite(number):
        assert float(cell).hex() == number.hex()
    else:
        assert cell == ""


@given(
    source=ANY_TEXT,
    device=ANY_TEXT,
    values=st.dictionaries(ANY_TEXT, st.floats() | st.integers() | ANY_TEXT, max_size=4),
    time_ns=st.integers(-(2**62), 2**63),
    quality=st.sampled_from(Quality),
)
def test_a_tidy_file_has_one_row_a_value(
    source: str, device: str, values: dict, time_ns: int, quality: Quality
) -> None:
    tidy = Tidy()
    text = tidy.header + tidy.rows(Record(source, device, time_ns, values, quality), tidy.date(time_ns))
    rows = list(csv.DictReader(io.StringIO(text.encode("utf-8", "replace").decode(), newline="")))
    written = {key: value for key, value in values.items() if value_cell(value)}
    assert len(rows) == len(written)
    for row, value in zip(rows, written.values(), strict=True):
        assert None not in row
        at = datetime.fromisoformat(row["time"])
        assert at.tzinfo is not None
        assert (at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(time_ns / 1e9, abs=1e-3)
        assert (row["quality"], row["clock"]) == (quality.value, "synced")
        if not isinstance(value, str):
            assert float(row["value"]) == float(value)


def test_a_tidy_row_is_as_the_docstring_says(tmp_path: Path) -> None:
    at_ns = NOON_S * 10**9 + 123_456_789
    output(tmp_path).write(Batch([Record("kasa", "fridge", at_ns, {"power_w": -0.1, "state": "=1", "pulses": 3})]))
    assert files(tmp_path) == {
        "electricity-2025-11-11.csv": b"time,source,device,metric,value,quality,clock\n"
        b"2025-11-11T12:00:00.123456Z,kasa,fridge,power_w,-0.1,measured,synced\n"
        b"2025-11-11T12:00:00.123456Z,kasa,fridge,state,'=1,measured,synced\n"
        b"2025-11-11T12:00:00.123456Z,kasa,fridge,pulses,3,measured,synced\n"
    }


def test_the_machine_profile_writes_the_row_that_its_tools_read(tmp_path: Path) -> None:
    machine = output(tmp_path, profile="machine", device_id="pi-001", machine_id="machine-A")
    machine.write(
        Batch(
            [
                record(NOON_S + 0.123, current_a=1.2345, voltage_v=230.0, power_w=852.82, state="running"),
                record(NOON_S, power_w=5.0),
                record(NOON_S + 1, current_a=2, power_w=math.nan),
            ]
        )
    )
    assert files(tmp_path) == {
        "readings-2025-11-11.csv": b"2025-11-11T12:00:00.123Z,pi-001,machine-A,1.2345,230.0,852.82,running\n"
        b"2025-11-11T12:00:01.000Z,pi-001,machine-A,2.0000,230.0,,\n"
    }


def test_the_machine_profile_falls_back_to_the_names_of_site_and_device(tmp_path: Path) -> None:
    output(tmp_path, profile="machine", line_voltage_v=120).write(Batch([record(current_a=1)]))
    assert files(tmp_path) == {"readings-2025-11-11.csv": b"2025-11-11T12:00:00.000Z,home,fridge,1.0000,120.0,,\n"}


def test_the_energy_monitor_profile_writes_the_numbered_appliances_in_local_time(tmp_path: Path) -> None:
    at_s = datetime(2024, 12, 4, 10, tzinfo=UTC).timestamp() + 5 * 3600
    monitor = output(tmp_path, profile="energy_monitor", appliances={"fridge": 1}, timezone="America/New_York")
    others = [Record("kasa", "lamp", round(at_s) * 10**9, {"power_w": 5.0}), record(at_s, voltage_v=230.0)]
    monitor.write(Batch([record(at_s, power_w=125.5), *others, record(at_s + 60, power_w=130)]))
    assert files(tmp_path) == {
        "energy_monitor-2024-12-04.log": b"timestamp,watts,appliance_id\n"
        b"2024-12-04 10:00:00,125.5,1\n2024-12-04 10:01:00,130.0,1\n"
    }


def test_the_hour_that_comes_twice_is_in_the_energy_monitor_file_twice(tmp_path: Path) -> None:
    half_past_s = int(datetime(2025, 10, 26, 0, 30, tzinfo=UTC).timestamp())
    monitor = output(tmp_path, profile="energy_monitor", appliances={"fridge": 1})
    monitor.write(Batch([record(half_past_s, power_w=1.0), record(half_past_s + 3600, power_w=2.0)]))
    (text,) = files(tmp_path).values()
    assert text.splitlines()[1:] == [b"2025-10-26 01:30:00,1.0,1", b"2025-10-26 01:30:00,2.0,1"]


def test_the_example_of_the_docstring_lists_every_option_with_its_default() -> None:
    lines = (inspect.getdoc(module) or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    table = tomllib.loads(example)["outputs"]["csv"]
    assert msgspec.convert(table, Options) == Options()
    assert set(table) == set(Options.__struct_fields__) - {"kind", "enabled"}


def test_it_is_the_output_that_its_file_is_named_after() -> None:
    assert output_class("csv") is Csv
    assert not Csv.newest_first


# ---- days


def test_late_data_goes_to_its_own_day(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S)]))
    tidy.write(Batch([record(NOON_S - DAY_S), record(NOON_S + 1)]))
    assert {name: text.count(b"\n") for name, text in files(tmp_path).items()} == {
        "electricity-2025-11-10.csv": 2,
        "electricity-2025-11-11.csv": 3,
    }


def test_old_files_are_deleted_and_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    others = ["notes.csv", "electricity-2020-02-31.csv", "electricity-2020-01-01.csv.bak", "readings-2020-01-01.csv"]
    for name in [*others, "electricity-2020-01-01.csv"]:
        (folder / name).write_bytes(b"x\n")
    tidy = output(tmp_path, keep_days=7)
    tidy.write(Batch([record(NOON_S - 8 * DAY_S), record(NOON_S - 7 * DAY_S), record(NOON_S)]))
    kept = {"electricity-2025-11-04.csv", "electricity-2025-11-11.csv"}
    assert set(files(tmp_path)) == {*others, *kept}
    assert {Path(file).name for file in tidy.memo} == kept


def test_a_date_that_the_clock_could_not_vouch_for_deletes_nothing(tmp_path: Path) -> None:
    tidy = output(tmp_path, keep_days=1)
    tidy.write(Batch([record(NOON_S)]))
    tidy.write(Batch([msgspec.structs.replace(record(NOON_S + 4000 * DAY_S), clock=Clock.UNSYNCED)]))
    assert len(files(tmp_path)) == 2


def test_nothing_is_deleted_by_default(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S - 4000 * DAY_S), record(NOON_S)]))
    assert len(files(tmp_path)) == 2


def test_the_memo_stays_small_and_no_byte_goes_unnoted(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    for round_ in range(2):
        for day in range(40):
            tidy.write(Batch([record(NOON_S + day * DAY_S + round_)]))
            assert len(tidy.memo) <= 16
    assert {text.count(b"\n") for text in files(tmp_path).values()} == {3}
    assert tidy.memo.kept == 80  # each time a file was forgotten it was noted again, before its next row


def test_a_year_that_no_calendar_has_is_refused_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="calendar") as refused:
        output(tmp_path).write(Batch([record(), Record("kasa", "fridge", 10**21, {"power_w": 1.0})]))
    assert refused.value.indices == {1}
    assert len(files(tmp_path)["electricity-2025-11-11.csv"].splitlines()) == 2


# ---- other people's hands


def test_a_file_that_somebody_shortened_is_continued_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memo = KeptMemo()
    tidy = output(tmp_path, memo)
    tidy.write(Batch([record(NOON_S + n) for n in range(5)]))
    path = tmp_path / "csv" / "electricity-2025-11-11.csv"
    path.write_bytes(b"mine")
    for writer in (tidy, output(tmp_path, memo)):
        writer.write(Batch([record(NOON_S + 9)]))
    with caplog.at_level(logging.WARNING):
        text = path.read_bytes()
    assert text.count(b"12:00:09") == 2
    assert text.startswith(b"mine\n2025-")
    assert "somebody changed it" in caplog.text
    assert memo.kept == 2


def test_a_row_that_somebody_added_while_we_run_is_left_alone(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S)]))
    path = tmp_path / "csv" / "electricity-2025-11-11.csv"
    with path.open("ab") as file:
        file.write(b"a note")
    tidy.write(Batch([record(NOON_S + 1)]))
    assert path.read_bytes().splitlines()[2] == b"a note"
    assert path.read_bytes().count(b"\n") == 4


def test_a_file_that_somebody_deleted_begins_anew_with_its_header(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S)]))
    (tmp_path / "csv" / "electricity-2025-11-11.csv").unlink()
    tidy.write(Batch([record(NOON_S + 1)]))
    (text,) = files(tmp_path).values()
    assert text.startswith(b"time,") and text.count(b"\n") == 2


# ---- disks


def test_a_disk_that_is_full_in_the_middle_of_a_row_leaves_no_half_row(tmp_path: Path) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S - DAY_S), record(NOON_S)]))
    before, memo = files(tmp_path), dict(tidy.memo)
    batch = Batch([record(NOON_S - DAY_S), *[record(NOON_S + n) for n in range(100)]])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel writes what fits and refuses the rest
    try:
        with pytest.raises(OutputDown, match="File too large") as down:
            tidy.write(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not down.value.remedy
    assert (files(tmp_path), dict(tidy.memo)) == (before, memo)
    tidy.write(batch)
    assert [text.count(b"\n") for text in files(tmp_path).values()] == [3, 102]


def test_what_could_not_be_taken_back_is_taken_back_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy = output(tmp_path)
    tidy.write(Batch([record(NOON_S)]))
    with monkeypatch.context() as broken:
        broken.setattr(module.os, "fsync", _fail(errno.EIO))
        broken.setattr(module.os, "truncate", _fail(errno.EIO))
        with pytest.raises(OutputDown, match="Input/output error"):
            tidy.write(Batch([record(NOON_S + 1)]))
    tidy.write(Batch([record(NOON_S + 1)]))
    (text,) = files(tmp_path).values()
    assert text.count(b"\n") == 3


def test_a_memo_that_cannot_be_kept_lets_no_byte_out(tmp_path: Path) -> None:
    class FullOutbox(Memo):
        def keep(self) -> None:
            raise OutputDown("the outbox cannot be committed")

    tidy = output(tmp_path, FullOutbox())
    for _ in range(2):
        with pytest.raises(OutputDown, match="outbox"):
            tidy.write(Batch([record()]))
    assert not files(tmp_path)
    assert not tidy.memo


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_directory_that_cannot_be_written_to_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(module.os, "fsync", _fail(code))
    with pytest.raises(OutputDown, match=os.strerror(code)) as down:
        output(tmp_path).write(Batch([record()]))
    assert str(tmp_path / "csv") in down.value.remedy


def test_a_file_where_the_directory_should_be_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("")
    with pytest.raises(OutputDown, match="File exists") as down:
        output(tmp_path).write(Batch([record()]))
    assert "make" in down.value.remedy


def _fail(code: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# ---- kills


class Killed(BaseException):
    """Nobody catches this and goes on."""


class House:
    """A writer that can be killed at every step: what is committed and what is in the files outlives it.

    After so many steps (a byte range written, a sync, a cut, a commit) the process is gone: the files are put back to
    what they were at that moment, because a killed process cleans nothing up.
    """

    def __init__(self, folder: Path, records_: list[Record]) -> None:
        self.folder = folder
        self.records = records_
        self.committed: tuple[int, dict[str, int]] = (0, {})
        self.steps_left = -1
        self.fails_instead = False
        self._wreck: dict[str, bytes] = {}
        self._start()

    def _start(self) -> None:
        self.place, memo = self.committed
        house = self

        class HouseMemo(Memo):
            def keep(self) -> None:
                house.step()
                house.commit()
                house.step()

        self.output = output(self.folder, HouseMemo(memo))

    def commit(self) -> None:
        self.committed = (self.place, dict(self.output.memo))

    def step(self) -> None:
        self.steps_left -= 1
        if self.steps_left == 0 and self.fails_instead:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.steps_left == 0:
            self._wreck = files(self.folder)
            raise Killed

    def deliver(self, count: int, *, dies_after: int, fails_instead: bool) -> None:
        """Deliver the next records, or die or fail on the way."""
        self.steps_left, self.fails_instead = dies_after, fails_instead
        try:
            self.output.write(Batch(self.records[self.place : self.place + count]))
            self.place = min(self.place + count, len(self.records))
        except OutputDown:
            assert fails_instead
        except Killed:
            for path in (self.folder / "csv").iterdir():
                path.unlink()
            for name, text in self._wreck.items():
                (self.folder / "csv" / name).write_bytes(text)
            self._start()
        self.steps_left = -1


class SteppingOs:
    """The `os` of the module under test, which tells the house of every step. A write may be cut short."""

    def __init__(self, house: House) -> None:
        self._house = house

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, text: memoryview) -> int:
        self._house.step()
        written = os.write(descriptor, text[: max(1, len(text) // 2)])
        self._house.step()
        return written

    def fsync(self, descriptor: int) -> None:
        self._house.step()
        os.fsync(descriptor)

    def truncate(self, file: str, size: int) -> None:
        self._house.step()
        os.truncate(file, size)
        self._house.step()


STEP = st.tuples(st.integers(1, 6), st.integers(0, 40), st.booleans(), st.booleans())


@settings(max_examples=150)
@given(days=st.lists(st.integers(0, 3), min_size=1, max_size=30), script=st.lists(STEP, max_size=30))
def test_a_killed_writer_doubles_no_row_and_loses_none(days: list[int], script: list[tuple]) -> None:
    stream = [record(NOON_S + day * DAY_S + n, power_w=float(n), state="on") for n, day in enumerate(days)]
    folder = Path(tempfile.mkdtemp())
    try:
        house = House(folder, stream)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "os", SteppingOs(house))
            for count, dies_after, fails_instead, commits in script:
                house.deliver(count, dies_after=dies_after, fails_instead=fails_instead)
                if commits:
                    house.commit()
            while house.place < len(stream):
                house.deliver(7, dies_after=-1, fails_instead=False)
        result = files(folder)
        shutil.rmtree(folder / "csv")
        output(folder).write(Batch(stream))
        assert result == files(folder)
    finally:
        shutil.rmtree(folder)


def test_every_nth_reading_of_each_device_is_written_also_after_a_kill(tmp_path: Path) -> None:
    stream = [record(NOON_S + n, power_w=float(n)) for n in range(23)]
    memo = KeptMemo()
    output(tmp_path, memo, every_nth=5).write(Batch(stream[:7]))
    committed = dict(memo)
    output(tmp_path, memo, every_nth=5).write(Batch(stream[7:12]))  # killed before this was committed
    memo = KeptMemo(committed)
    last = output(tmp_path, memo, every_nth=5)
    last.write(Batch(stream[7:12]))
    last.write(Batch(stream[12:]))
    (text,) = files(tmp_path).values()
    assert [row.split(",")[4] for row in text.decode().splitlines()[1:]] == ["0.0", "5.0", "10.0", "15.0", "20.0"]


def test_the_turns_of_many_devices_do_not_push_the_sizes_of_files_out_of_the_memo(tmp_path: Path) -> None:
    memo = KeptMemo()
    tidy = output(tmp_path, memo, every_nth=2)
    tidy.write(Batch([Record("kasa", f"plug-{n}", NOON_S * 10**9, {"power_w": 1.0}) for n in range(100)]))
    assert sum(key.endswith(".csv") for key in memo) == 1


class JsonMemo(Memo):
    """Commits place and memo in one atomic step to a file, as the outbox does in a transaction."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.place, noted = json.loads(file.read_text()) if file.exists() else (0, {})
        super().__init__(noted)

    def keep(self) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps([self.place, self]))
        new.replace(self.file)


def test_real_kills_leave_every_file_exact_to_the_byte(tmp_path: Path) -> None:
    stream = [record(NOON_S + n * 3600, power_w=n / 7) for n in range(8000)]

    def work() -> None:
        memo = JsonMemo(tmp_path / "memo.json")
        tidy = output(tmp_path, memo)
        batches = 0
        while memo.place < len(stream):
            tidy.write(Batch(stream[memo.place : memo.place + 20]))
            memo.place += 20
            batches += 1
            if batches % 5 == 0:
                memo.keep()
        memo.keep()

    chance = random.Random(7)
    kills = 0
    while True:
        child = os.fork()
        if not child:
            try:
                work()
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.001, 0.015) if kills < 20 else 0)
        if kills < 20:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        else:
            break

    result = files(tmp_path)
    shutil.rmtree(tmp_path / "csv")
    output(tmp_path).write(Batch(stream))
    assert result == files(tmp_path)
    assert kills > 3
