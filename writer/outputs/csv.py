"""CSV: files of one day each that a spreadsheet can open, exact to the byte whoever is killed.

In the configuration, with the defaults:

    [outputs.csv]
    directory = "csv"           # below data_dir, unless it starts with a /
    profile = "tidy"            # or "machine" or "energy_monitor", see below
    keep_days = 0               # older files are deleted; 0: none ever is
    every_nth = 1               # write only every n-th reading of each device
    device_id = ""              # profile machine: "" is the name of the site
    machine_id = ""             # profile machine: "" is the name of the device
    line_voltage_v = 230.0      # profile machine: where no voltage was measured
    appliances = {}             # profile energy_monitor: the numbers of the devices, { fridge = 1, heater = 2 } say

A record goes to the file of its own day, however late it comes.

- `tidy`: `electricity-2025-11-11.csv`, one row a value, `time,source,device,metric,value,quality,clock`, days and times
  in UTC, to the microsecond; numbers as exact as they are.
- `machine`: `readings-2025-11-11.csv`, only records with a current, no header:
  `2025-11-11T12:00:00.123Z,pi-001,machine-A,1.2345,230.0,852.82,running` is time (UTC), device, machine, amps, volts,
  watts (empty where none were measured) and state.
- `energy_monitor`: `energy_monitor-2025-11-11.log`, only the power of the devices in `appliances`,
  `timestamp,watts,appliance_id`, days and times of the site's time zone. The time carries no zone, so the hour that
  comes twice when summer time ends is in the file twice, in the order in which it happened.

Text that a spreadsheet would take for a formula gets an apostrophe in front; line breaks in a text become blanks.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta

from config.settings import OutputTable, Positive, Site
from files import NEEDS_A_PERSON, sync_directory
from reading import Clock, Record
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outputs._csv_rows import Dated, EnergyMonitor, Machine, Profile, Tidy

log = logging.getLogger("writer.outputs.csv")

# One file is written a day, a few more while late data comes. A file whose size was forgotten is noted again before
# the next byte goes to it, so forgetting costs a commit and no exactness.
_MOST_NOTED: Final = 16
_TURN: Final = "turn of "  # what a key of the memo begins with that is no file


class Options(OutputTable, frozen=True):
    """`[outputs.csv]`"""

    directory: Annotated[str, Meta(min_length=1)] = "csv"
    profile: Literal["tidy", "machine", "energy_monitor"] = "tidy"
    keep_days: Annotated[int, Meta(ge=0)] = 0
    every_nth: Annotated[int, Meta(ge=1)] = 1
    device_id: str = ""
    machine_id: str = ""
    line_voltage_v: Positive = 230.0
    appliances: dict[str, int] = {}  # noqa: RUF012 - msgspec gives each table its own

    def __post_init__(self) -> None:
        try:
            Path(self.directory).expanduser()
        except RuntimeError as error:
            raise ValueError(f"directory {self.directory!r} names no directory: there is no such user") from error


class Csv(Output):
    """Appends to files whose good sizes are in the memo: what is beyond was not confirmed, is cut off and comes again.

    A batch reaches the files in three steps, and each may be the last one: note the size of every file that is not
    noted yet, append and wait for the disk, note the new sizes.
    """

    Options = Options
    newest_first = False
    is_file = True

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._directory = Path(site.data_dir).expanduser() / Path(options.directory).expanduser()
        self._profile = _profile(options, site)
        # Files that end where the memo says, unless somebody else wrote to them. What is beyond the noted size of any
        # other file is ours.
        self._settled: set[str] = set()
        self._swept: date | None = None

    def write(self, batch: Batch) -> None:
        turns = {key: turn for key, turn in self.memo.items() if key.startswith(_TURN)}
        texts, refused, newest = self._rows(batch, turns)
        if texts:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._settle(texts)
                sizes = self._append(texts)
            except OSError as error:
                raise self._down(error) from error
            self._note(sizes)
        self.memo.update(turns)
        if newest and self.options.keep_days:
            self._sweep(date.fromisoformat(newest))
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def close(self) -> None:
        """No file is open between two batches: its owner may move or delete it."""

    def _rows(self, batch: Batch, turns: dict[str, int]) -> tuple[dict[str, bytes], dict[int, str], str]:
        """Return what to append to which file, why which record has no row, and the newest day that is certain.

        `turns` counts the readings of each device up to the n-th one, and goes on where the last batch ended.
        """
        days: defaultdict[str, list[tuple[Record, Dated]]] = defaultdict(list)
        refused: dict[int, str] = {}
        newest = ""
        every = self.options.every_nth == 1
        for index, record in enumerate(batch):
            try:
                at = self._profile.date(record.time_ns)
            except ValueError as error:
                refused[index] = str(error)
                continue
            if every or (self._profile.rows(record, at) and self._is_its_turn(record, turns)):
                days[at[0]].append((record, at))
            if at[0] > newest and record.clock is not Clock.UNSYNCED:
                newest = at[0]
        profile = self._profile
        texts = {
            str(self._directory / f"{profile.before}{day}{profile.after}"): text
            for day, records in days.items()
            if (text := profile.text(records))
        }
        return texts, refused, newest

    def _is_its_turn(self, record: Record, turns: dict[str, int]) -> bool:
        """Whether a record is the n-th of its device, the first one included."""
        key = f"{_TURN}{record.source}/{record.device}"
        turn = turns.get(key, 0)
        turns[key] = (turn + 1) % self.options.every_nth
        return turn == 0

    def _settle(self, files: dict[str, bytes]) -> None:
        """Make each file end where the memo says, and have every size in the memo that this needs."""
        before = dict(self.memo)
        for file in files:
            size, noted = _size(file), self.memo.get(file)
            if noted is not None and size > noted and file not in self._settled:
                os.truncate(file, noted)
            elif size != noted:
                if noted is not None:
                    log.warning(
                        "%s has %d bytes and not %d: somebody changed it; going on at its end", file, size, noted
                    )
                self.memo[file] = size
        if self.memo != before:
            try:
                self.memo.keep()
            except BaseException:
                self.memo.clear()
                self.memo.update(before)
                raise

    def _append(self, files: dict[str, bytes]) -> dict[str, int]:
        """Append to each file and return the new sizes when all is on the disk; if that fails, append to none."""
        # Until the new sizes are noted, whatever is beyond the old ones is ours to cut off.
        self._settled.difference_update(files)
        try:
            return {file: _append(file, text, self._profile.header) for file, text in files.items()}
        except BaseException:
            for file in files:
                self._cut(file)
            raise

    def _cut(self, file: str) -> None:
        """Take back what was appended to `file`, as far as the disk lets us; else the next write does it."""
        try:
            if _size(file) > self.memo[file]:
                os.truncate(file, self.memo[file])
        except OSError:
            pass

    def _note(self, sizes: dict[str, int]) -> None:
        """Note the sizes of a batch that is on the disk; forget files that were not written for long."""
        for file, size in sizes.items():
            self.memo.pop(file, None)  # so that the memo is in the order of writing
            self.memo[file] = size
            self._settled.add(file)
        noted = [key for key in self.memo if not key.startswith(_TURN)]
        for oldest in noted[:-_MOST_NOTED]:
            del self.memo[oldest]
            self._settled.discard(oldest)

    def _sweep(self, today: date) -> None:
        """Once a day, delete files older than `keep_days`.

        The day is that of the records, which have proper dates when the clock of this machine has none yet.
        """
        if self._swept is not None and today <= self._swept:
            return
        self._swept = today
        oldest_kept = today - timedelta(days=min(self.options.keep_days, today.toordinal() - 1))
        name = re.compile(
            rf"{re.escape(self._profile.before)}(\d{{4}}-\d\d-\d\d){re.escape(self._profile.after)}", re.A
        )
        try:
            for path in self._directory.iterdir():
                if (match := name.fullmatch(path.name)) and _day(match[1]) < oldest_kept:
                    path.unlink()
                    self.memo.pop(str(path), None)
                    self._settled.discard(str(path))
                    log.info("deleted %s: keep_days = %d", path, self.options.keep_days)
        except FileNotFoundError:
            return  # nothing was written yet
        except OSError as error:
            log.warning("cannot delete old files in %s: %s; make it writable", self._directory, error.strerror)

    def _down(self, error: OSError) -> OutputDown:
        remedy = ""
        if error.errno in NEEDS_A_PERSON:
            remedy = f"make {self._directory} a directory that this user may write to, or mend directory"
        return OutputDown(f"{error.filename or self._directory}: {error.strerror or error}", remedy=remedy)


def _profile(options: Options, site: Site) -> Profile:
    if options.profile == "machine":
        return Machine(options.device_id or site.name, options.machine_id, options.line_voltage_v)
    if options.profile == "energy_monitor":
        return EnergyMonitor(options.appliances, ZoneInfo(site.timezone))
    return Tidy()


def _append(file: str, text: bytes, header: str) -> int:
    """Append `text` to `file`, a new one with its header, and return its size when all of it is on the disk."""
    is_new = not Path(file).exists()
    with open(file, "a+b", buffering=0) as descriptor:
        size = os.fstat(descriptor.fileno()).st_size
        if not size:
            text = header.encode() + text
        elif os.pread(descriptor.fileno(), 1, size - 1) != b"\n":
            text = b"\n" + text  # somebody else's last row has no end
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(descriptor.fileno(), rest) :]
        os.fsync(descriptor.fileno())
    if is_new:
        sync_directory(Path(file).parent)
    return size + len(text)


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except FileNotFoundError:
        return 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:  # the 31st of February is nobody's day, so it is not ours to delete
        return date.max
