"""`ledger`: look at the registers of energy, and mend them where a person knows better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands._configuration import chosen, config_option, named, read_or_exit
from commands._learn_states import learn_states
from commands._ledger import carry_out, channel_or_exit, local_time, opened, utc_ns_or_exit
from commands._probe import leave
from commands._screen import json_option, say_next
from logbook.entries import Entry, Kind
from writer.errands import Repair, SetReading, Undo
from writer.ledger import REGISTERS, Channel, Register
from writer.register import UWH

_WIDTH: Final = 80
_USAGE: Final = 2
_NEXT: Final = "./orchestrator.py ledger entries"


@click.group
def command() -> None:
    """Show and mend the registers of energy.

    Example: ./orchestrator.py ledger show
    """


command.add_command(learn_states)


@command.command(short_help="Show every register, or those of one channel.")
@click.argument("channel", required=False)
@config_option
@json_option
def show(channel: str | None, path: Path | None, *, as_json: bool) -> None:
    """Show every register, or those of one CHANNEL, named source/device.

    Example: ./orchestrator.py ledger show meter/esp32-meter
    """
    settings = read_or_exit(chosen(path))
    with opened(settings) as outbox:
        names = [channel_or_exit(outbox, channel)] if channel else sorted(outbox.channels)
        channels = {name: outbox.channels[name] for name in names if _has_register(outbox.channels[name])}
    if as_json:
        click.echo(json.dumps({name: _told(one) for name, one in channels.items()}, indent=2))
        return
    if not channels:
        click.echo("Nothing is booked yet: no device has told its energy or its power.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("channel", "import kWh", "export kWh", "from", "last reading"):
        table.add_column(title, overflow="fold", justify="right" if "kWh" in title else "left")
    for name, one in channels.items():
        seen = local_time(settings, one.seen.utc_ns)
        row = (name, _kwh(one.energy_wh), _kwh(one.energy_export_wh), "counter" if one.counted else "power", seen)
        table.add_row(*(Text(cell) for cell in row))
    Console(width=_WIDTH, highlight=False).print(table)
    for name, one in channels.items():
        for line in _remarks(one):
            click.echo(f"{name}: {line}")
    say_next(f"{_NEXT}{named(path)}")


@command.command(short_help="List resets, glitches, estimates, repairs.")
@click.argument("channel", required=False)
@click.option("--all", "whole", is_flag=True, help="Not only the newest 40.")
@config_option
@json_option
def entries(channel: str | None, path: Path | None, *, whole: bool, as_json: bool) -> None:
    """List what happened to the registers: resets, glitches, estimates, repairs.

    Example: ./orchestrator.py ledger entries meter/esp32-meter --all
    """
    settings = read_or_exit(chosen(path))
    with opened(settings) as outbox:
        if channel:
            found = outbox.books.entries("WHERE channel = ? ORDER BY id", channel_or_exit(outbox, channel))
        else:
            found = outbox.books.entries("ORDER BY id")
    shown = found if whole or as_json else found[-40:]
    if as_json:
        click.echo(json.dumps([_entry_told(number, entry) for number, entry in shown], indent=2))
        return
    if not shown:
        click.echo("Nothing has happened to the registers.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("no.", "when", "channel", "booked kWh", "what"):
        right = title in ("no.", "booked kWh")
        table.add_column(title, overflow="fold", justify="right" if right else "left", no_wrap=title in ("no.", "when"))
    for number, entry in shown:
        table.add_row(
            str(number),
            Text(local_time(settings, entry.moment.utc_ns)),
            Text(entry.channel + (" (export)" if entry.metric != REGISTERS[0] else "")),
            f"{entry.booked_uwh / UWH / 1000:.3f}" if entry.booked_uwh else "",
            Text(_what(entry)),
        )
    Console(width=_WIDTH, highlight=False).print(table)
    if len(shown) < len(found):
        click.echo(f"{len(found) - len(shown)} older ones: --all")
    click.echo(f"Next, where one of them is wrong: ./orchestrator.py ledger undo NO.{named(path)}")


@command.command(short_help="Book energy that was missed.")
@click.argument("channel", required=False)
@click.option("--add-kwh", type=float, help="How much was missed; negative: how much was never there.")
@click.option("--at", "when", help="When it flowed, in the time of the site: 2026-03-31T18:30. Default: now.")
@click.option("--entry", type=int, help="Book what this entry held back (a jump) at its time.")
@click.option("--export", "exported", is_flag=True, help="On the register of export.")
@click.option("--note", default="", help="Why.")
@config_option
@json_option
def repair(
    channel: str | None,
    add_kwh: float | None,
    when: str | None,
    entry: int | None,
    path: Path | None,
    *,
    exported: bool,
    note: str,
    as_json: bool,
) -> None:
    """Book energy on CHANNEL that was missed, at the time that it belongs to; `ledger undo` takes it back.

    Example: ./orchestrator.py ledger repair grid --add-kwh 1.5 --at 2026-03-31
    """
    settings = read_or_exit(chosen(path))
    with opened(settings) as outbox:
        if entry is not None:
            found = outbox.books.entry(entry)
            if found is None:
                leave(f"the ledger has no entry {entry}; ./orchestrator.py ledger entries lists them", _USAGE)
            held_uwh = found.after_uwh - found.before_uwh - found.booked_uwh
            if found.kind is not Kind.JUMP or held_uwh <= 0:
                leave(f"entry {entry} ({found.kind}) held nothing back; name CHANNEL and --add-kwh instead", _USAGE)
            note = note or f"books what entry {entry} held back"
            errand = Repair(found.channel, found.metric, held_uwh, found.moment.utc_ns, note)
        elif channel and add_kwh is not None and abs(add_kwh) < 1e9:
            at_ns = (
                utc_ns_or_exit(settings, when)
                if when
                else outbox.channels[channel_or_exit(outbox, channel)].seen.utc_ns
            )
            metric = REGISTERS[1] if exported else REGISTERS[0]
            errand = Repair(channel_or_exit(outbox, channel), metric, round(add_kwh * 1000 * UWH), at_ns, note)
        else:
            leave("say what to book: CHANNEL --add-kwh 1.5 --at 2026-03-31T18:30, or --entry NO.", _USAGE)
    carry_out(settings, errand, as_json=as_json, next_step=f"{_NEXT}{named(path)}")


@command.command(short_help="Take back what an entry booked.")
@click.argument("entry", type=int)
@config_option
@json_option
def undo(entry: int, path: Path | None, *, as_json: bool) -> None:
    """Take back what ENTRY booked, a repair or anything else.

    Example: ./orchestrator.py ledger undo 17
    """
    carry_out(read_or_exit(chosen(path)), Undo(entry), as_json=as_json, next_step=f"{_NEXT}{named(path)}")


@command.command("set-reading", short_help="Say what the face of the meter shows.")
@click.argument("channel")
@click.argument("kwh", type=click.FloatRange(0, 1e9))
@config_option
@json_option
def set_reading(channel: str, kwh: float, path: Path | None, *, as_json: bool) -> None:
    """Say what the face of the meter of CHANNEL shows now, in KWH.

    From then on `meter_reading_wh` shows the same as the meter; the next time this tells what was missed.

    Example: ./orchestrator.py ledger set-reading meter/grid 12345.6
    """
    settings = read_or_exit(chosen(path))
    with opened(settings) as outbox:
        name = channel_or_exit(outbox, channel)
    carry_out(settings, SetReading(name, round(kwh * 1000 * UWH)), as_json=as_json, next_step=f"{_NEXT}{named(path)}")


def _what(entry: Entry) -> str:
    """Say what happened, with what the counter of the device showed before and after.

    >>> from logbook.moment import Moment
    >>> _what(Entry("meter/house", "energy_wh", Kind.RESET, Moment(), 215_700 * 10**9, 4 * 10**9, 4 * 10**9))
    'reset: 215700.000 → 4.000 kWh'
    """
    counter = f"{entry.before_uwh / UWH / 1000:.3f} → {entry.after_uwh / UWH / 1000:.3f} kWh"
    if entry.kind is Kind.START:
        counter = f"{entry.after_uwh / UWH / 1000:.3f} kWh"
    told = entry.note or (counter if entry.before_uwh or entry.after_uwh else "")
    return entry.kind.replace("_", " ") + (f": {told}" if told else "")


def _has_register(channel: Channel) -> bool:
    return channel.counted or channel.power is not None


def _kwh(register: Register) -> str:
    return f"{register.total_uwh / UWH / 1000:,.3f}" if register.total_uwh or register.counter else ""


def _remarks(channel: Channel) -> list[str]:
    remarks = []
    for metric in REGISTERS:
        register = channel.register(metric)
        if register.counter and register.counter.suspects:
            shown = register.counter.suspects[-1].value_uwh / UWH / 1000
            remarks.append(f"its counter shows {shown:.3f} kWh, which does not fit; more readings will tell what it is")
        if register.debt_uwh > 0:
            remarks.append(f"{register.debt_uwh / UWH / 1000:.3f} kWh were told too much and are not told again")
    if channel.energy_wh.reading_uwh is not None:
        remarks.append(f"the face of the meter should show {channel.energy_wh.reading_uwh / UWH / 1000:,.3f} kWh")
    return remarks


def _told(channel: Channel) -> dict[str, object]:
    face_uwh = channel.energy_wh.reading_uwh
    return {
        "energy_wh": channel.energy_wh.total_uwh / UWH,
        "energy_export_wh": channel.energy_export_wh.total_uwh / UWH,
        "energy_debt_wh": channel.energy_wh.debt_uwh / UWH,
        "meter_reading_wh": None if face_uwh is None else face_uwh / UWH,
        "from": "counter" if channel.counted else "power",
        "last_reading_utc_ns": channel.seen.utc_ns or None,
    }


def _entry_told(number: int, entry: Entry) -> dict[str, object]:
    return {
        "entry": number,
        "utc_ns": entry.moment.utc_ns or None,
        "channel": entry.channel,
        "metric": entry.metric,
        "kind": str(entry.kind),
        "booked_wh": entry.booked_uwh / UWH,
        "counter_before_wh": entry.before_uwh / UWH,
        "counter_after_wh": entry.after_uwh / UWH,
        "note": entry.note,
        "undoes": entry.undoes or None,
    }
