"""`import`: what older loggers have measured, into the history, each reading once."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, named, read_or_exit
from commands._history import utc_now_ns
from commands._import_formats import PULSE, Format, Refused, Told, format_of
from commands._import_hand import Ahead, NotTaken, ahead, hand, options_of, staging
from commands._import_stage import EXPORT, IMPORT, Kept, Stage
from commands._import_times import ORDERS, Dates, Unclear
from commands._ledger import local_time, opened
from commands._probe import EXIT_FAILED, EXIT_PARTLY, leave, quietly
from commands._progress import shown_progress
from commands._screen import console, json_option, print_json, say, say_next, table
from config.settings import NAME_PATTERN, ChannelTable, Settings
from writer.register import Rules

_LEFT_OUT: Final = "-"
_ROWS_A_STEP: Final = 1000


@dataclass(slots=True)
class File:
    """One file, and what became of it."""

    path: Path
    format: Format
    told: Told = field(default_factory=Told)


@dataclass(slots=True)
class Names:
    """Which of the files' devices goes to which channel."""

    given: dict[str, str]
    met: dict[str, str] = field(default_factory=dict)  # the name in a file, and its channel; "": nobody has said
    pulsing: set[str] = field(default_factory=set)  # those that told pulses

    def channel(self, device: str, *, ours: bool) -> str:
        """Return the channel of a device; wattherd's own files name it themselves."""
        if (found := self.met.get(device)) is None:
            named = self.given.get(device) or self.given.get(device.rpartition("/")[2])
            fits = ours and all(re.fullmatch(NAME_PATTERN, part) for part in device.split("/"))
            found = self.met[device] = named or (device if fits else "")
        return found


@click.command(short_help="Take in what an older logger has measured.")
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME=SOURCE/DEVICE",
    help="Which channel a device of the files is; NAME=- leaves it out. May come several times.",
)
@click.option("--timezone", help="Of times without one; by default that of the site.")
@click.option("--dates", "order", type=click.Choice(ORDERS), help="Of 03/04/2025: day or month first.")
@click.option("--pulses-per-kwh", type=click.FloatRange(0, 1e6, min_open=True), help="Of pulses: printed on the meter.")
@click.option("--skip-broken", is_flag=True, help="Take the rest in where some lines cannot be read.")
@click.option("--write", is_flag=True, help="Take it in. Without it nothing changes: it tells what would be.")
@config_option
@json_option
@quietly
def command(
    *,
    files: tuple[Path, ...],
    devices: tuple[str, ...],
    timezone: str | None,
    order: str | None,
    pulses_per_kwh: float | None,
    skip_broken: bool,
    write: bool,
    path: Path | None,
    as_json: bool,
) -> None:
    """Take each FILE of an older logger into the history, where page, bills and exports show them.

    It knows the CSV of the current logger, log and table of the energy monitor, the queue of PowerLogger, and CSV of
    wattherd itself. Without --write it only tells what there is. What was taken in already is left out, and so is a
    time in which the house itself has measured the channel. The ledger's registers stay as they are.

    Example: ./orchestrator.py import energy_monitor.log --device 1=loads/fridge
    """
    settings = read_or_exit(chosen(path))
    options = options_of(settings)
    if options is None:
        leave("this house keeps no history; add a line to its configuration: [outputs.history]", EXIT_CONFIGURATION)
    wanted = [_file_or_exit(file) for file in files]
    names = Names(_given_or_exit(devices))
    with _in_words(settings), _staged(settings) as stage:
        clock = functools.partial(Dates, timezone or settings.site.timezone, order or "", _end_s(settings))
        _read(wanted, names, stage, clock)
        unnamed = sorted(name for name, channel in names.met.items() if not channel)
        kept = [] if unnamed else _finished(settings, stage, names, pulses_per_kwh)
        outlook = ahead(settings, stage.path) if kept else Ahead(0, 0, 0)
        broken = sum(each.told.broken for each in wanted)
        told = _told(wanted, names, kept, outlook, stage.repeated)
        if not as_json:
            _show(settings, wanted, kept, outlook, stage.repeated)
        if unnamed:
            _ask_for(unnamed, told, as_json=as_json)
        if write and broken and not skip_broken:
            words = f"✗ {_counted(broken, 'line')} cannot be read, so nothing was taken in; mend it, or --skip-broken"
            _end(told | {"status": EXIT_FAILED, "refused": words}, words, as_json=as_json)
        if write and kept:
            done = hand(settings, options, stage.path)
            told["taken"] = {"new": done.taken, "repeated": done.repeated, "overlapping": done.overlapping}
            if not as_json:
                say(f"✓ {_counted(done.taken, 'value')} went into the history.")
    status = EXIT_FAILED if not kept else EXIT_PARTLY if broken else 0
    next_step = _next(settings, kept, path, write=write)
    told |= {"status": status, "next": next_step}
    if as_json:
        print_json(told)
    elif next_step:
        say_next(next_step)
    else:
        click.echo("✗ there is not one reading in it", err=True)
    sys.exit(status)


@contextlib.contextmanager
def _in_words(settings: Settings) -> Iterator[None]:
    try:
        yield
    except NotTaken as error:
        leave(f"! {error}", EXIT_PARTLY)
    except OSError as error:
        leave(f"✗ {error.filename or settings.data_dir}: {error.strerror or error}", EXIT_FAILED)
    except sqlite3.Error as error:
        leave(f"✗ {settings.data_dir}: {error}; nothing is taken in twice, so ask again", EXIT_FAILED)


def _file_or_exit(path: Path) -> File:
    try:
        return File(path, format_of(path))
    except Refused as error:
        leave(f"✗ {path}: {error}", EXIT_CONFIGURATION)
    except OSError as error:
        leave(f"✗ {path}: {error.strerror or error}", EXIT_CONFIGURATION)


def _given_or_exit(devices: Sequence[str]) -> dict[str, str]:
    given = {}
    for each in devices:
        name, is_there, channel = each.rpartition("=")
        channel = channel.replace(".", "/", 1) if "/" not in channel else channel
        parts = channel.split("/")
        fits = len(parts) == 2 and all(re.fullmatch(NAME_PATTERN, part) for part in parts)
        if not is_there or not name or not (fits or channel == _LEFT_OUT):
            leave(f"--device {each!r}: write NAME=source/device, or NAME=- to leave it out", EXIT_CONFIGURATION)
        given[name] = channel
    return given


@contextlib.contextmanager
def _staged(settings: Settings) -> Iterator[Stage]:
    path = staging(settings)
    path.unlink(missing_ok=True)
    stage = Stage(path)
    try:
        yield stage
    finally:
        stage.close()
        path.unlink(missing_ok=True)


def _end_s(settings: Settings) -> float:
    """Return up to when a time can be right; the clocks of two machines differ a little."""
    return utc_now_ns(settings) / 1e9 + 60


def _read(wanted: Sequence[File], names: Names, stage: Stage, clock: Callable[[], Dates]) -> None:
    for file in wanted:
        try:
            dates = clock()
        except (ValueError, OSError):
            leave("there is no such --timezone; write it as Europe/London", EXIT_CONFIGURATION)
        with shown_progress(file.path.name, file.path.stat().st_size) as moved:
            try:
                for number, row in enumerate(file.format.rows(file.path, dates, file.told), 1):
                    channel = names.channel(row.device, ours=file.format.ours)
                    if PULSE in row.values:
                        names.pulsing.add(row.device)
                    if channel and channel != _LEFT_OUT:
                        stage.add(channel, row)
                    if not number % _ROWS_A_STEP:
                        moved(_ROWS_A_STEP * 30)
            except Unclear as error:
                leave(f"✗ {file.path}: {error}", EXIT_CONFIGURATION)


def _finished(settings: Settings, stage: Stage, names: Names, pulses_per_kwh: float | None) -> list[Kept]:
    rules, wh_per_pulse, exports = {}, {}, set()
    for name, channel in names.met.items():
        limits = settings.channels.get(channel, ChannelTable())
        rules[channel] = Rules(limits.rated_power_w, round(limits.max_gap_s * 1e9))
        if name in names.pulsing and channel != _LEFT_OUT:
            each = pulses_per_kwh or _printed(settings, channel)
            if not each:
                leave(f"how many pulses of {name} are a kWh? It is printed on the meter: --pulses-per-kwh 1000", 2)
            wh_per_pulse[channel] = 1000 / each
            if name.casefold() == "export":
                exports.add(channel)
    kept = stage.finish(rules, wh_per_pulse, frozenset(exports))
    if (settings.data_dir / "outbox.db").exists():
        with opened(settings) as outbox:
            for channel, known in outbox.channels.items():
                for metric in (IMPORT, EXPORT):
                    stage.floor(channel, metric, known.register(metric).total_uwh)
    return kept


def _printed(settings: Settings, channel: str) -> float:
    """Return what the configuration says of a meter's pulses, or 0."""
    source, device = channel.split("/", 1)
    for each in getattr(settings.sources.get(source), "devices", ()):
        if each.name == device:
            return float(getattr(each, "imp_per_kwh", 0) or getattr(each, "pulses_per_kwh", 0))
    return 0.0


def _counted(number: int, noun: str) -> str:
    """Say how many there are.

    >>> _counted(1, "line"), _counted(0, "value")
    ('1 line', '0 values')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _next(settings: Settings, kept: Sequence[Kept], path: Path | None, *, write: bool) -> str | None:
    if not kept:
        return None
    if not write:
        return f"./orchestrator.py {shlex.join(sys.argv[1:])} --write"
    ends_ns = min(one.first_ns for one in kept), max(one.last_ns for one in kept)
    first, last = (local_time(settings, at_ns)[:10] for at_ns in ends_ns)
    return f"./orchestrator.py export --from {first} --to {last}{named(path)}"


def _ask_for(unnamed: Sequence[str], told: dict[str, Any], *, as_json: bool) -> None:
    """Leave, because nobody has said which channels these are."""
    count = f"{len(unnamed)} device{'s have' if len(unnamed) > 1 else ' has'} no channel yet"
    words = f"✗ {count}: {', '.join(unnamed)}. Name each as in the configuration; NAME=- leaves one out."
    more = " ".join(f"--device {shlex.quote(f'{name}=SOURCE/DEVICE')}" for name in unnamed)
    next_step = f"./orchestrator.py {shlex.join(sys.argv[1:])} {more}"
    if not as_json:
        say(words)
        say_next(next_step)
    else:
        print_json(told | {"status": EXIT_CONFIGURATION, "unnamed": [*unnamed], "next": next_step})
    sys.exit(EXIT_CONFIGURATION)


def _end(told: dict[str, Any], words: str, *, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        click.echo(words, err=True)
    sys.exit(told["status"])


def _told(wanted: Sequence[File], names: Names, kept: Sequence[Kept], outlook: Ahead, repeated: int) -> dict[str, Any]:
    return {
        "files": [
            {
                "file": str(each.path),
                "format": each.format.name,
                "rows": each.told.rows,
                "left_out": each.told.left_out,
                "broken": each.told.broken,
                "samples": each.told.samples,
            }
            for each in wanted
        ],
        "devices": names.met,
        "channels": [
            {
                "channel": each.channel,
                "first_utc_ns": each.first_ns,
                "last_utc_ns": each.last_ns,
                "rows": each.rows,
                "energy_wh": each.energy_wh,
                "energy_export_wh": each.export_wh,
            }
            for each in kept
        ],
        "twice_in_the_files": repeated,
        "values": {"new": outlook.new, "repeated": outlook.repeated, "overlapping": outlook.overlapping},
    }


def _show(settings: Settings, wanted: Sequence[File], kept: Sequence[Kept], outlook: Ahead, repeated: int) -> None:
    for each in wanted:
        say(f"{each.path}: {each.format.name}, {each.told.rows} rows")
        if each.told.left_out:
            say(f"  {each.told.left_out} rows say what others say, or nothing, and are left out")
        if each.told.broken:
            say(f"  ✗ {_counted(each.told.broken, 'line')} cannot be read:")
            for sample in each.told.samples:
                say(f"    {sample}")
    if kept:
        shown = table("channel", "from", "to", "rows", "kWh", right=("rows", "kWh"))
        for one in kept:
            first, last = (local_time(settings, at_ns) for at_ns in (one.first_ns, one.last_ns))
            shown.add_row(one.channel, first, last, f"{one.rows}", _kwh(one))
        console().print(shown)
        if repeated:
            say(f"{repeated} values have the very time of another one and are left out.")
        say(f"New to the history: {_counted(outlook.new, 'value')}.")
        if outlook.repeated:
            say(f"{outlook.repeated} were taken in before and are left out.")
        if outlook.overlapping:
            say(f"! {outlook.overlapping} are of a time in which the house itself has measured, and are left out.")


def _kwh(one: Kept) -> str:
    told = "" if one.energy_wh is None else f"{one.energy_wh / 1000:.3f}"
    return told + (f" -{one.export_wh / 1000:.3f}" if one.export_wh else "")
