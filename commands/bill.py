"""`bill`: what a channel cost in any stretch of days, by its tariff."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands import _history
from commands._bill import Bill, Share, bills, cuts_of, together
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, named, read_or_exit
from commands._probe import leave
from commands._screen import say_next
from config.settings import ChannelTable, Settings
from config.words import nearest
from history.periods import Period
from history.queries import History
from tariff import Tariff, rounded
from writer.register import UWH

_WIDTH: Final = 80
_UNTITLED: Final = "the usual rate"


@click.command(short_help="What a channel cost, by its tariff.")
@click.argument("channel", required=False)
@click.option("--from", "first", help="The first day, 2026-03-01 say. Default: the first of this month.")
@click.option("--to", "last", help="The last day, which is in it. Default: today.")
@click.option("--by", type=click.Choice(["day", "week", "month", "year"]), help="One line for each.")
@click.option("--tariff", "tariff_name", help="Reckon with this tariff instead of the one of the channel.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs: money to the last digit.")
@config_option
def command(
    channel: str | None,
    path: Path | None,
    *,
    first: str | None,
    last: str | None,
    by: Period | None,
    tariff_name: str | None,
    as_json: bool,
) -> None:
    """Work out the bill of CHANNEL anew from the history: any days, any tariff.

    Without CHANNEL it is the one that has a tariff. The status is 1 if nothing is known of these days.

    Example: ./orchestrator.py bill meter/grid --from 2026-10-01 --by month
    """
    settings = read_or_exit(chosen(path))
    now_ns = _history.utc_now_ns(settings)
    from_day, to_day = _days(_history.local_date(settings, now_ns), first, last)
    with _history.opened(settings) as history:
        name = _history.channel_or_exit(history, channel, "energy_wh") if channel else _priced_or_exit(settings)
        title = _tariff_or_exit(settings, name, tariff_name)
        tariff = Tariff.of(settings.tariffs[title], settings.site.timezone, settings.prices)
        from_ns = _history.midnight_ns(settings, from_day)
        to_ns = _history.midnight_ns(settings, to_day + timedelta(days=1))
        made = bills(history, name, tariff, cuts_of(from_ns, to_ns, by, settings.site.timezone), now_ns)
        if not any(bill.bought or bill.sold for bill in made) and _is_unknown(made, now_ns):
            leave(f"nothing is known of {name} from {from_day} to {to_day}{_newest(settings, history)}", 1)
    if as_json:
        told = {"channel": name, "tariff": title, "currency": tariff.currency, "from": f"{from_day}", "to": f"{to_day}"}
        rows = [_told(settings, bill) for bill in made]
        click.echo(json.dumps({**told, "bills": rows, "total": _told(settings, together(made))}, indent=2))
        return
    until = " so far" if to_ns > now_ns else ""
    click.echo(f"{name}, {from_day} to {to_day}{until}, by [tariffs.{title}], in {tariff.currency}, VAT included")
    console = Console(width=_WIDTH, highlight=False)
    if by:
        console.print(_by_period(settings, made, by))
    console.print(_by_band(whole := together(made)))
    for words in _remarks(whole):
        click.echo(words)
    following = "audit" if by else f"bill {name} --from {from_day} --to {to_day} --by day"
    say_next(f"./orchestrator.py {following}{named(path)}")


def _days(today: date, first: str | None, last: str | None) -> tuple[date, date]:
    to_day = _history.date_or_exit(last) if last else today
    from_day = _history.date_or_exit(first) if first else min(today, to_day).replace(day=1)
    if from_day > to_day:
        leave(f"{from_day} is after {to_day}; --from is the first day, --to the last one", EXIT_CONFIGURATION)
    return from_day, to_day


def _priced_or_exit(settings: Settings) -> str:
    """Return the channel that has a tariff; leave with status 2 unless it is one."""
    priced = [name for name, table in settings.channels.items() if table.tariff]
    if len(priced) != 1:
        what = f"several channels have a tariff: {', '.join(priced)}" if priced else "no channel has a tariff"
        command_line = f"./orchestrator.py bill CHANNEL{'' if priced else ' --tariff NAME'}"
        leave(f"{what}; name one: {command_line}", EXIT_CONFIGURATION)
    return priced[0]


def _tariff_or_exit(settings: Settings, channel: str, wanted: str | None) -> str:
    name = wanted or settings.channels.get(channel, ChannelTable()).tariff
    if not settings.tariffs:
        leave("the configuration has no tariff; docs/tariffs.md shows how to write one", EXIT_CONFIGURATION)
    if not name:
        listed = ", ".join(settings.tariffs)
        leave(f"{channel} has no tariff; add --tariff with one of these: {listed}", EXIT_CONFIGURATION)
    if name not in settings.tariffs:
        leave(f"there is no [tariffs.{name}]{nearest(name, settings.tariffs, listed=True)}", EXIT_CONFIGURATION)
    return name


def _is_unknown(made: list[Bill], now_ns: int) -> bool:
    return made[0].start_ns >= now_ns or any(bill.unknown_half_hours for bill in made)


def _newest(settings: Settings, history: History) -> str:
    bounds = history.bounds()
    if bounds is None:
        return "; the history is empty"
    first, last = (_history.local_date(settings, each) for each in (bounds.first_ns, bounds.last_ns))
    return f"; the history goes from {first} to {last}"


def _by_period(settings: Settings, made: list[Bill], by: Period) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    sells = any(bill.sold for bill in made)
    titles = ["", "kWh", "cost", "standing", *(["sold kWh", "earned"] if sells else []), "total", ""]
    for title in titles:
        table.add_column(title, overflow="fold", justify="right" if title else "left")
    for bill in made:
        sold = [_kwh(bill.sold_uwh), _money(bill.earned)] if sells else []
        marks = "~" * bool(bill.estimated_uwh) + "±" * bool(bill.corrected_uwh) + "?" * bool(bill.unknown_half_hours)
        cells = [_label(settings, bill, by), _kwh(bill.bought_uwh), _money(bill.cost), _money(bill.standing), *sold]
        table.add_row(*map(Text, [*cells, _money(bill.total), marks]))
    return table


def _label(settings: Settings, bill: Bill, by: Period) -> str:
    day = _history.local_date(settings, bill.start_ns)
    return {"month": f"{day:%Y-%m}", "year": f"{day:%Y}", "week": f"week of {day}"}.get(by, f"{day}")


def _by_band(bill: Bill) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("", "kWh", "money"):
        table.add_column(title, overflow="fold", justify="right" if title else "left")
    for band, share in sorted(bill.bought.items()):
        table.add_row(*map(Text, (f"bought, {band or _UNTITLED}", _kwh(share.uwh), _money(share.money))))
    for band, share in sorted(bill.sold.items()):
        title = f"sold, {band}" if band else "sold"
        table.add_row(*map(Text, (title, _kwh(share.uwh), _money(share.money.copy_negate()))))
    table.add_row("standing charge", "", _money(bill.standing))
    table.add_section()
    table.add_row("total", "", _money(bill.total))
    return table


def _remarks(bill: Bill) -> list[str]:
    found = []
    if bill.unpriced_uwh:
        found.append(f"No total: {_kwh(bill.unpriced_uwh)} kWh have no price; docs/tariffs.md says when that is so.")
    if bill.estimated_uwh:
        found.append(
            f"~ {_kwh(bill.estimated_uwh)} kWh are estimated: spread over a time in which nothing was measured."
        )
    if bill.corrected_uwh:
        found.append(f"± {_kwh(bill.corrected_uwh)} kWh of it were booked by hand: ./orchestrator.py ledger entries")
    if bill.unknown_half_hours:
        found.append(
            f"? Nothing is known of {bill.unknown_half_hours / 2:g} hours; what flowed in them is not in here."
        )
    return found


def _told(settings: Settings, bill: Bill) -> dict[str, object]:
    last_ns = bill.end_ns - 1
    return {
        "from": f"{_history.local_date(settings, bill.start_ns)}",
        "to": f"{_history.local_date(settings, last_ns)}",
        "start_utc_ns": bill.start_ns,
        "end_utc_ns": bill.end_ns,
        "bought_wh": bill.bought_uwh / UWH,
        "sold_wh": bill.sold_uwh / UWH,
        "bought": _told_shares(bill.bought),
        "sold": _told_shares(bill.sold),
        "cost": f"{bill.cost:f}",
        "standing_charge": f"{bill.standing:f}",
        "earned": f"{bill.earned:f}",
        "total": None if bill.total is None else f"{bill.total:f}",
        "unpriced_wh": bill.unpriced_uwh / UWH,
        "estimated_wh": bill.estimated_uwh / UWH,
        "corrected_wh": bill.corrected_uwh / UWH,
        "unknown_hours": bill.unknown_half_hours / 2,
    }


def _told_shares(shares: dict[str, Share]) -> list[dict[str, object]]:
    return [
        {"band": band, "energy_wh": one.uwh / UWH, "money": f"{one.money:f}"} for band, one in sorted(shares.items())
    ]


def _kwh(uwh: int) -> str:
    """Return energy as a person reads it.

    >>> _kwh(12_345_678_900)
    '12.346'
    """
    return f"{uwh / UWH / 1000:,.3f}"


def _money(money: Decimal | None) -> str:
    return "not known" if money is None else f"{rounded(money):,}"
