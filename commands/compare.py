"""`compare`: by how much channels that measure the same energy differ, and what to do about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands import _history
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, named, read_or_exit
from commands._probe import leave
from commands._screen import json_option, say_next
from config.intervals import file_interval_s
from config.settings import DeviceTable, ReconciliationTable, Settings
from config.words import nearest
from history.queries import History
from reconcile import (
    Day,
    Factor,
    Present,
    Total,
    days_of,
    is_outside,
    midnight_before,
    names,
    percent,
    present,
    suggested,
    total_of,
)

_WIDTH: Final = 80
_DAYS: Final = 14
_OUTSIDE: Final = 3
_EXAMPLE: Final = """\
no channels are said to measure the same energy; say so in the configuration, the one to trust first:

    [reconciliations.house]
    views = ["smart/grid", "circuit/oven + circuit/rest"]"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One reconciliation with all that is known of it."""

    name: str
    table: ReconciliationTable
    days: list[Day]
    total: Total | None
    now: Present
    factors: list[Factor]  # of each view but the first

    @property
    def views(self) -> list[str]:
        return names(self.table)

    @property
    def others(self) -> range:
        return range(1, len(self.views))

    def is_outside(self, view: int) -> bool:
        """Whether the newest complete day, or all of them together, differ by more than they may."""
        if self.total is None:
            return False
        newest = next(day for day in reversed(self.days) if day.complete)
        return any(
            is_outside(each.difference_wh(view) or 0.0, each.energies_wh[0] or 0.0, self.table.tolerance_percent)
            for each in (newest, self.total)
        )

    @property
    def status(self) -> int:
        if self.total is None:
            return _history.EXIT_NO_DATA
        return _OUTSIDE if any(map(self.is_outside, self.others)) else 0


@click.command(short_help="Compare channels that measure the same energy.")
@click.argument("name", required=False)
@click.option("--since", help=f"The first day, 2026-03-31 say. Default: {_DAYS} days ago.")
@json_option
@config_option
def command(name: str | None, since: str | None, path: Path | None, *, as_json: bool) -> None:
    """Compare the views of [reconciliations.NAME], or of all of them.

    The status is 0 where the newest complete day and all of them together are within the tolerance, 3 where they are
    not, 1 where there is no complete day.

    Example: ./orchestrator.py compare house --since 2026-11-01
    """
    settings = read_or_exit(chosen(path))
    tables = settings.reconciliations
    if not tables:
        leave(_EXAMPLE, EXIT_CONFIGURATION)
    if name is not None and name not in tables:
        leave(f"there is no [reconciliations.{name}]{nearest(name, tables, listed=True)}", EXIT_CONFIGURATION)
    now_ns = _history.utc_now_ns(settings)
    today_ns = midnight_before(now_ns, settings.site.timezone)
    first = _history.date_or_exit(since) if since else _history.local_date(settings, now_ns) - timedelta(days=_DAYS)
    from_ns = _history.midnight_ns(settings, first)
    with _history.opened(settings) as history:
        found = [
            _compared(history, one, tables[one], (from_ns, today_ns, now_ns), settings)
            for one in ([name] if name else tables)
        ]
    if as_json:
        click.echo(json.dumps({one.name: _told(settings, one) for one in found}, indent=2))
    else:
        for one in found:
            _show(settings, one)
        if any(one.status for one in found):
            # A gap is the usual reason why two meters do not agree.
            say_next(f"./orchestrator.py audit --since {first}{named(path)}")
    statuses = [one.status for one in found]
    sys.exit(_OUTSIDE if _OUTSIDE in statuses else max(statuses))


def _compared(
    history: History, name: str, table: ReconciliationTable, times_ns: tuple[int, int, int], settings: Settings
) -> Comparison:
    from_ns, today_ns, now_ns = times_ns
    days = days_of(history, table, from_ns, today_ns, settings.site.timezone)
    known = (number for number, day in enumerate(days) if any(energy is not None for energy in day.energies_wh))
    days = days[next(known, -1) :]  # not those before anything was measured
    factors = [suggested(days, view, table.tolerance_percent) for view in range(1, len(table.views))]
    lag_s = file_interval_s(settings.writer.file_interval_s, settings.data_dir)
    return Comparison(name, table, days, total_of(days), present(history, table, now_ns, lag_s), factors)


def _show(settings: Settings, found: Comparison) -> None:
    click.echo(f"{found.name}: {found.views[0]} is the one to trust, ±{found.table.tolerance_percent:g} % is allowed")
    console = Console(width=_WIDTH, highlight=False)
    for view in found.others:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(found.views[view]), title_justify="left")
        for title in ("day", "trusted kWh", "this kWh", "± kWh", "± %", ""):
            table.add_column(title, overflow="fold", justify="left" if title in ("day", "") else "right")
        for day in found.days:
            table.add_row(*map(Text, _row(settings, found, day, view)))
        if found.total:
            table.add_section()
            count = f"{found.total.days} complete day{'s' if found.total.days != 1 else ''}"
            table.add_row(*map(Text, (count, *_numbers(found, found.total, view))))
        console.print(table)
        for line in _sentences(settings, found, view):
            click.echo(line)
    reasons = dict.fromkeys(
        f"{_history.local_date(settings, day.start_ns)}: {reason}" for day in found.days for reason in day.missing
    )
    if reasons:
        click.echo("Days that do not count:")
        for reason in [*reasons][:_DAYS]:
            click.echo(f"  {reason}")
        if len(reasons) > _DAYS:
            click.echo(f"  and {len(reasons) - _DAYS} more reasons: --json has all of them")
    for words in found.now.missing:
        click.echo(f"Now: {words}")


def _row(settings: Settings, found: Comparison, day: Day, view: int) -> tuple[str, ...]:
    date = f"{_history.local_date(settings, day.start_ns)}"
    if not day.complete:
        known = [
            "" if energy is None else f"{energy / 1000:.3f}" for energy in (day.energies_wh[0], day.energies_wh[view])
        ]
        return (date, *known, "", "", "not complete")
    return (date, *_numbers(found, day, view))


def _numbers(found: Comparison, one: Day | Total, view: int) -> tuple[str, ...]:
    trusted_wh, energy_wh = one.energies_wh[0] or 0.0, one.energies_wh[view] or 0.0
    difference_wh = energy_wh - trusted_wh
    share = percent(difference_wh, trusted_wh)
    return (
        f"{trusted_wh / 1000:.3f}",
        f"{energy_wh / 1000:.3f}",
        f"{difference_wh / 1000:+.3f}",
        "" if share is None else f"{share:+.2f}",
        "outside" if is_outside(difference_wh, trusted_wh, found.table.tolerance_percent) else "",
    )


def _sentences(settings: Settings, found: Comparison, view: int) -> Iterator[str]:
    """Say what is unaccounted for, and what to do."""
    now_w = found.now.unaccounted_w(view)
    mean_w = found.total.unaccounted_w(view) if found.total else None
    parts = [f"{now_w:+,.0f} W now" if now_w is not None else "unknown now"]
    parts += [f"{mean_w:+,.1f} W on average"] if mean_w is not None else []
    yield f"Unaccounted: {', '.join(parts)}."
    if found.now.is_negative(view, found.table.tolerance_percent):
        yield f"⚠ {found.views[view]} shows more now than {found.views[0]} has."
    if found.total:
        yield from advice(settings, found, view)


def advice(settings: Settings, found: Comparison, view: int) -> Iterator[str]:
    """Say what may be wrong and what mends it."""
    factor, channels = found.factors[view - 1], found.table.channels[view]
    more = found.total is not None and found.total.difference_wh(view) > 0
    if factor.factor is None:
        yield f"No factor: {factor.why_not}."
        if not found.is_outside(view):
            return
        if more:
            yield "It measures more than there is: does it count something twice, or what others feed in?"
        elif len(channels) > 1:
            yield "It lacks something that is on at some times only: which circuit is missing from the sum?"
        else:
            yield "Is a circuit not behind this meter, or does it miss pulses? ledger entries shows what it did."
        return
    spread = f"{factor.least:.4f} to {factor.most:.4f} on {factor.days} days"
    if not found.is_outside(view):
        yield f"Within the tolerance; nothing to do. (Times {factor.factor:.4f} it would be equal: {spread}.)"
        return
    yield f"Times {factor.factor:.4f} it would be equal: {spread}."
    if len(channels) > 1:
        what = "counts something twice" if more else "lacks a circuit that is always on"
        yield f"A sum that is wrong by the same part every day {what}, or all of it is calibrated wrongly alike."
        return
    yield _setting(settings, channels[0], factor.factor)


def _setting(settings: Settings, channel: str, factor: float) -> str:
    """Say which setting of a channel makes it right.

    With more impulses to the kWh, the same impulses are less energy.
    """
    source, _, name = channel.partition("/")
    devices: tuple[DeviceTable, ...] = getattr(settings.sources[source], "devices", ())
    device = next((one for one in devices if one.name == name), None)
    impulses: float | None = getattr(device, "imp_per_kwh", None)
    gain: float | None = getattr(device, "current_gain", None)
    if impulses is not None:
        return (
            f"Look at what is printed on the meter: imp_per_kwh = {impulses / factor:g} of {channel} would be right"
            f" (it is {impulses:g})."
        )
    if gain is not None:
        return (
            f"Set current_gain = {gain * factor:.6g} of {channel} (it is {gain:g}), or calibrate it with a known"
            f" load: ./orchestrator.py calibrate {source} {name}"
        )
    return (
        f"{channel} counts by itself: set its impulses per kWh or its calibration in the device, to {factor:.4f} times"
        " the energy that it tells now."
    )


def _told(settings: Settings, found: Comparison) -> dict[str, object]:
    return {
        "views": found.views,
        "tolerance_percent": found.table.tolerance_percent,
        "status": {0: "within", _OUTSIDE: "outside"}.get(found.status, "no data"),
        "days": [_told_day(settings, found, day) for day in found.days],
        "complete_days": found.total.days if found.total else 0,
        "energies_wh": found.total.energies_wh if found.total else None,
        "comparisons": [_told_view(settings, found, view) for view in found.others],
        "powers_w": found.now.powers_w,
        "missing_now": found.now.missing,
    }


def _told_day(settings: Settings, found: Comparison, day: Day) -> dict[str, object]:
    return {
        "date": f"{_history.local_date(settings, day.start_ns)}",
        "hours": (day.end_ns - day.start_ns) / 3600 / _history.NS,
        "energies_wh": day.energies_wh,
        "differences_wh": [day.difference_wh(view) for view in found.others],
        "complete": day.complete,
        "missing": day.missing,
        "estimated_half_hours": day.estimated_half_hours,
    }


def _told_view(settings: Settings, found: Comparison, view: int) -> dict[str, object]:
    factor, total = found.factors[view - 1], found.total
    return {
        "view": found.views[view],
        "outside": found.is_outside(view),
        "difference_wh": total.difference_wh(view) if total else None,
        "difference_percent": percent(total.difference_wh(view), total.energies_wh[0]) if total else None,
        "unaccounted_w": found.now.unaccounted_w(view),
        "unaccounted_mean_w": total.unaccounted_w(view) if total else None,
        "negative_now": found.now.is_negative(view, found.table.tolerance_percent),
        "suggested_factor": factor.factor,
        "factor_days": factor.days,
        "no_factor_because": factor.why_not or None,
        "advice": [*advice(settings, found, view)] if total else [],
    }
