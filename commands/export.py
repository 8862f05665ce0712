"""`export`: what the history knows, as CSV, for a range of days or month by month."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from commands import _history
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, read_or_exit
from commands._export import DAY, STEPS_S, Stretch, last_month, month_of, months_between, rows, wanted_of, write
from commands._probe import leave, quietly
from commands._progress import shown_progress
from commands._screen import json_option, say_next
from config.settings import Settings
from config.words import nearest
from history.queries import History

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_STDOUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Made:
    """One file."""

    stretch: Stretch
    file: Path | None
    rows: int
    skipped: bool = False

    def told(self) -> dict[str, Any]:
        return {
            "from": f"{self.stretch.first}",
            "to": f"{self.stretch.last}",
            "file": str(self.file) if self.file else None,
            "rows": self.rows,
            "bytes": self.file.stat().st_size if self.file else None,
            "was_there": self.skipped,
        }


@click.command
@config_option
@click.option("--from", "first", help="The first day, 2026-03-01; by default that of this month.")
@click.option("--to", "last", help="The last day; by default today.")
@click.option("--month", help="A whole month into a file of its own: 2026-03, last, or all that are over.")
@click.option("--channel", "channels", multiple=True, help="source/device; may come several times. By default all.")
@click.option("--metric", "metrics", multiple=True, help="power_w, say; may come several times. By default all.")
@click.option("--step", type=click.Choice([*STEPS_S, DAY]), default="1h", show_default=True, help="One row for each.")
@click.option("--out", help="A file (.csv or .csv.gz), a directory, or - for stdout. By default data_dir/export.")
@click.option("--again", is_flag=True, help="Write months anew that are there already.")
@json_option
@quietly
def command(
    *,
    path: Path | None,
    first: str | None,
    last: str | None,
    month: str | None,
    channels: tuple[str, ...],
    metrics: tuple[str, ...],
    step: str,
    out: str | None,
    again: bool,
    as_json: bool,
) -> None:
    """Write the history as CSV, a range or month by month.

    The columns are time, source, device, metric, n, mean, min, max, last and increase. Times are UTC, each the
    beginning of its step; `increase` is what a register rose in it. Days and months are those of the site. Months
    that were written already are left alone, so what was interrupted goes on where it was.

    Example: ./orchestrator.py export --month last --step day
    """
    settings = read_or_exit(chosen(path))
    if month and (first or last):
        leave("--month is a range already; leave out --from and --to", EXIT_CONFIGURATION)
    with _history.opened(settings) as history:
        stretches = _stretches(settings, history, month, first, last)
        wanted = wanted_of(history, channels, metrics)
        _known_or_exit(history, channels, metrics)
        made = []
        for stretch in stretches:
            file = _file(settings, stretch, out, of_month=month is not None)
            if month and file and file.exists() and not again:
                made.append(Made(stretch, file, 0, skipped=True))
                continue
            try:
                with shown_progress(f"{stretch.first} to {stretch.last}", len(wanted), bytes_=False) as moved:
                    count = write(rows(settings, history, wanted, stretch, step), file, moved)
            except OSError as error:
                leave(f"\u2717 {error.filename or file}: {error.strerror}; name another place: --out", 1)
            made.append(Made(stretch, file, count))
    _tell(made, as_json=as_json)
    newest = next((each.file for each in reversed(made) if each.file and (each.rows or each.skipped)), None)
    if newest and not as_json:
        say_next(f"{'zcat' if newest.suffix == '.gz' else 'cat'} {newest} | head -5")
    if not any(each.rows or each.skipped for each in made):
        sys.exit(_history.EXIT_NO_DATA)


def _stretches(
    settings: Settings, history: History, month: str | None, first: str | None, last: str | None
) -> Sequence[Stretch]:
    today = _history.local_date(settings, _history.utc_now_ns(settings))
    if month is None:
        to_day = _history.date_or_exit(last) if last else today
        from_day = _history.date_or_exit(first) if first else min(today, to_day).replace(day=1)
        if from_day > to_day:
            leave(f"{from_day} is after {to_day}; --from is the first day, --to the last one", EXIT_CONFIGURATION)
        return [Stretch(from_day, to_day)]
    if month == "last":
        return [last_month(today)]
    if month == "all":
        bounds = history.bounds()
        if bounds is None:
            leave("the history is empty", _history.EXIT_NO_DATA)
        begin, end = (_history.local_date(settings, each) for each in (bounds.first_ns, bounds.last_ns))
        over = [each for each in months_between(begin, end) if each.last < today]
        if not over:
            leave("no month is over yet; --from and --to export any days", _history.EXIT_NO_DATA)
        return over
    if not _MONTH.fullmatch(month):
        leave(f"{month!r} is no month; write it as 2026-03, or last, or all", EXIT_CONFIGURATION)
    found = month_of(_history.date_or_exit(f"{month}-01"))
    if found.last >= today:
        leave(f"{month} is not over; --from and --to export any days", EXIT_CONFIGURATION)
    return [found]


def _known_or_exit(history: History, channels: Sequence[str], metrics: Sequence[str]) -> None:
    there = history.extents()
    for wanted, names in (
        (channels, {f"{each.source}/{each.device}" for each in there}),
        (metrics, {each.metric for each in there}),
    ):
        for name in wanted:
            if name not in names:
                near = nearest(name, sorted(names), listed=True) if names else "; it is empty yet"
                leave(f"the history has no {name!r}{near}", EXIT_CONFIGURATION)


def _file(settings: Settings, stretch: Stretch, out: str | None, *, of_month: bool) -> Path | None:
    if out == _STDOUT:
        return None
    days = f"{stretch.first:%Y-%m}" if of_month else f"{stretch.first}-to-{stretch.last}"
    name = f"wattherd-{settings.site.name}-{days}.csv.gz"
    if out is None:
        return settings.data_dir / "export" / name
    place = Path(out).expanduser()
    if place.suffix in (".csv", ".gz") and not place.is_dir():
        if of_month:
            leave("--month names the files itself; --out is then a directory, or - for stdout", EXIT_CONFIGURATION)
        return place
    return place / name


def _tell(made: Sequence[Made], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([each.told() for each in made], indent=2), err=any(each.file is None for each in made))
        return
    for each in made:
        if each.skipped:
            click.echo(f"\u00b7 {each.file} was there already; --again writes it anew")
        elif each.file:
            size = each.file.stat().st_size / 1e6
            mark = "\u2713" if each.rows else "!"
            click.echo(
                f"{mark} {each.file}: {each.rows} rows, {size:.1f} MB, {each.stretch.first} to {each.stretch.last}"
            )
