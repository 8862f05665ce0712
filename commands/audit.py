"""`audit`: whether every reading has its place, and for which times there is none, and why."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.health import in_words
from commands._audit import Audit, audited
from commands._configuration import chosen, config_option, named, read_or_exit
from commands._ledger import local_time, outbox_path, utc_ns_or_exit
from commands._probe import leave
from commands._screen import json_option, say_next
from config.settings import Settings
from logbook.events import What
from logbook.moment import Moment
from writer.clock import wall_minus_monotonic_ns

_WIDTH: Final = 80
_SHORT: Final = 1  # readings are lost or unaccounted for
_GAPS: Final = 3  # all that was measured is accounted for, but there was not always something
_USAGE: Final = 2
_LEAST_GAP_NS: Final = 300 * 10**9  # shorter silences are not written down
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WHY_DROPPED: Final = {
    "refused": "the output said that it will never take them; they are kept as dead letters",
    "quota": "the output was away for so long that the outbox was full ([writer] outbox_quota_mb)",
    "damage": "the outbox was damaged; what could not be read lies beside it",
}


@click.command
@click.option("--since", default="24h", show_default=True, help="24h, 7d, 2026-11-01 or 2026-11-01T08:00.")
@click.option("--gap", default="5m", show_default=True, help="List silences that are longer.")
@json_option
@click.option("--quiet", is_flag=True, help="Print nothing when nothing is missing.")
@config_option
def command(since: str, gap: str, path: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Show what is missing, and every gap with its cause.

    Status 0: nothing is missing; 1: readings are lost or unaccounted for; 3: there are gaps, and nothing else.

    Example: ./orchestrator.py audit --since 7d --gap 10m
    """
    settings = read_or_exit(chosen(path))
    now_utc_ns = time.monotonic_ns() + wall_minus_monotonic_ns()
    long_ns = _length_ns(since)
    since_utc_ns = now_utc_ns - long_ns if long_ns else utc_ns_or_exit(settings, since)
    if since_utc_ns > now_utc_ns or since_utc_ns < 0:
        leave(f"--since {since} lies in the future, or before 1970; name a time that has passed", _USAGE)
    gap_ns = _length_ns(gap)
    if not gap_ns or gap_ns < _LEAST_GAP_NS:
        leave(
            f"--gap {gap!r} is too short or no length; write 5m or more, 20m or 2h: shorter ones are not kept", _USAGE
        )
    try:
        audit = audited(settings, outbox_path(settings), since_utc_ns, gap_ns)
    except sqlite3.Error as error:
        leave(f"the outbox in {settings.data_dir} cannot be read: {error}; start the house, which mends it", _SHORT)
    status = _SHORT if audit.is_short else _GAPS if audit.has_gaps else 0
    if as_json:
        click.echo(json.dumps(_told(audit, status), indent=2))
    elif status or not quiet:
        _show(settings, audit)
        # What was booked for a gap stands among the entries.
        say_next(f"./orchestrator.py ledger {'entries' if status == _GAPS else 'show'}{named(path)}")
    sys.exit(status)


def _length_ns(text: str) -> int:
    """Read a length of time; 0 if it is none.

    >>> _length_ns("5m"), _length_ns("7d") // 10**9, _length_ns("2026-11-01")
    (300000000000, 604800, 0)
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhdw])", text)
    return int(found[1]) * _UNITS_S[found[2]] * 10**9 if found else 0


def _show(settings: Settings, audit: Audit) -> None:
    click.echo(verdict(audit, local_time(settings, audit.since_utc_ns)))
    if not audit.began:
        click.echo("There is no logbook before the next start of the house, so no gap is known.")
    if audit.lines:
        _show_lines(audit)
    else:
        click.echo("No output has been served yet, so there is no account.")
    for told in (*_short_told(settings, audit), *_gaps_told(settings, audit)):
        indent = " " * (len(told) - len(told.lstrip()))
        click.echo(textwrap.fill(told, _WIDTH, subsequent_indent=indent + "  ", break_on_hyphens=False))


def verdict(audit: Audit, since: str) -> str:
    """Say in one sentence what an audit has found."""
    unaccounted = sum(abs(line.unaccounted) for line in audit.lines)
    dropped = sum(sum(line.dropped.values()) for line in audit.lines)
    found = [f"{unaccounted:,} readings are unaccounted for"] if unaccounted else []
    if dropped:
        found.append(f"{dropped:,} readings will never reach an output")
    if audit.missing:
        found.append("some readings never reached the outbox")
    if gaps := len(audit.gaps) + len(audit.steps):
        lengths_ns = [one.length_ns or 0 for one in audit.gaps] + [step.number for step in audit.steps]
        longer = " and more" if any(one.length_ns is None for one in audit.gaps) else ""
        found.append(f"{gaps} gap{'s' if gaps > 1 else ''}, {in_words(sum(lengths_ns) / 1e9)}{longer} in all")
    if audit.unheard:
        found.append(f"{len(audit.unheard)} device{'s' if len(audit.unheard) > 1 else ''} never heard of")
    if not found:
        return f"✓ nothing is missing since {since}"
    return f"{'✗' if audit.is_short else '!'} {'; '.join(found)} (since {since})"


def _show_lines(audit: Audit) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("output", "waited", "accepted", "delivered", "pending", "dropped", "unaccounted"):
        table.add_column(title, overflow="fold", justify="left" if title == "output" else "right")
    for line in audit.lines:
        dropped = [f"{count:,} {reason}" for reason, count in line.dropped.items() if count]
        numbers = [f"{number:,}" for number in (line.waited, line.accepted, line.delivered, line.pending)]
        cells = [line.output, *numbers, ", ".join(dropped) or "0", f"{line.unaccounted:,}"]
        table.add_row(*(Text(cell) for cell in cells))
    Console(width=_WIDTH, highlight=False).print(table)
    click.echo("waited + accepted = delivered + pending + dropped, from the full hour on")


def _short_told(settings: Settings, audit: Audit) -> Iterator[str]:
    """Say what was measured and will not be anywhere."""
    for line in audit.lines:
        if line.unaccounted:
            what = f"✗ output {line.output}: {abs(line.unaccounted):,} readings are unaccounted for"
            yield f"{what}; start the house anew, which settles the account, and please report this as a bug"
    for loss in audit.losses:
        span = ""
        if loss.first_utc_ns:
            first, last = (local_time(settings, ns) for ns in (loss.first_utc_ns, loss.last_utc_ns))
            span = f", measured from {first} to {last}"
        why = _WHY_DROPPED.get(loss.reason, loss.reason)
        yield f"✗ output {loss.output} will never get {loss.readings:,} readings{span}: {why}"
    for event in audit.missing:
        count = f"{event.number:,} {'readings' if event.what is What.DROPPED else 'messages'}"
        yield f"✗ {event.part}, {local_time(settings, event.moment.utc_ns)}: {count} were lost: {event.note}"


def _gaps_told(settings: Settings, audit: Audit) -> Iterator[str]:
    """Say for which times nothing was measured, and why."""
    for silence in audit.silences:
        first = local_time(settings, silence.first.utc_ns)
        last = f"until {local_time(settings, silence.last.utc_ns)}" if silence.last else "and is silent now"
        length = "for an unknown time" if silence.length_ns is None else f"for {in_words(silence.length_ns / 1e9)}"
        yield f"{'·' if silence.expected else '!'} {silence.channel} was silent {length}: from {first} {last}"
        yield f"  {silence.cause}: {silence.note}"
        yield f"  energy: {silence.energy}"
    for event in audit.steps:
        last = local_time(settings, event.moment.utc_ns)
        yield f"! every device has a gap of {in_words(event.number / 1e9)} until {last}"
        yield f"  clock: {event.note}; nothing was lost, but no reading has a date in between"
    for name in audit.unheard:
        yield f"! {name} is configured and was never heard of; ./orchestrator.py test asks it now"


def _told(audit: Audit, status: int) -> dict[str, Any]:
    return {
        "status": status,
        "since_utc_ns": audit.since_utc_ns,
        "now_utc_ns": audit.now_utc_ns,
        "outputs": [{**asdict(line), "unaccounted": line.unaccounted} for line in audit.lines],
        "lost": [{key: value for key, value in loss._asdict().items() if key != "hour"} for loss in audit.losses],
        "missing": [
            {"part": one.part, "what": one.what, "number": one.number, "utc_ns": _utc_ns(one.moment), "note": one.note}
            for one in audit.missing
        ],
        "gaps": [
            {
                "channel": one.channel,
                "from_utc_ns": _utc_ns(one.first),
                "to_utc_ns": _utc_ns(one.last) if one.last else None,
                "seconds": None if one.length_ns is None else one.length_ns / 1e9,
                "over": one.last is not None,
                "cause": one.cause,
                "note": one.note,
                "energy": one.energy,
                "expected": one.expected,
            }
            for one in audit.silences
        ]
        + [
            {"channel": None, "to_utc_ns": _utc_ns(one.moment), "seconds": one.number / 1e9, "over": True}
            | {"cause": "clock", "note": one.note, "expected": False}
            for one in audit.steps
        ],
        "never_heard_of": audit.unheard,
    }


def _utc_ns(moment: Moment) -> int | None:
    return moment.utc_ns or None
