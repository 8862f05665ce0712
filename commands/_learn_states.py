"""`ledger learn-states`: thresholds from what a device has done so far, shown before anything is written."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Final

import click
import tomlkit

from commands import _history
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, is_demo, read, read_or_exit
from commands._probe import leave
from commands._screen import json_option, print_json
from commands._states import LEAST_W, Proposal, Sample, TooLittle, bin_of, proposed, samples_of, shares, spells_s
from config.edit import EditError, Setting, channel_holder, restore, set_channel_values
from config.load import ConfigurationError
from config.settings import ChannelTable
from history.queries import History
from writer.states import StateRules

_FAILED: Final = 1
_PER_DECADE: Final = 8
_BAR: Final = 46
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_MOST_STATES: Final = 6
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@click.command("learn-states", short_help="Find the states of a device in its powers.")
@click.argument("channel")
@click.option("--days", type=click.FloatRange(0.1, 3660), default=7.0, show_default=True, help="Learn from so many.")
@click.option("--states", default="idle,running", show_default=True, help="Their names, from low power to high.")
@click.option("--write", is_flag=True, help="Write them into the configuration, after a question.")
@click.option("--yes", is_flag=True, help="With --write: without the question.")
@config_option
@json_option
def learn_states(
    channel: str, path: Path | None, *, days: float, states: str, write: bool, yes: bool, as_json: bool
) -> None:
    """Propose thresholds between the states of CHANNEL: where its power hardly ever is.

    Nothing is written without --write and a yes, nor with --json. The status is 1 if its powers tell no such states.

    Example: ./orchestrator.py ledger learn-states plugs/washer --write
    """
    file = chosen(path)
    settings = read_or_exit(file)
    names = _names_or_exit(states)
    if write and is_demo(file):
        leave(
            "the demo house is not yours to change; make a configuration first: ./orchestrator.py init",
            EXIT_CONFIGURATION,
        )
    now_ns = _history.utc_now_ns(settings)
    with _history.opened(settings) as history:
        name = _history.channel_or_exit(history, channel, "power_w")
        samples = _samples(history, name, now_ns - round(days * 86_400 * 1e9), now_ns)
    if not samples:
        leave(f"{name} has told no power in the last {days:g} days; --days looks further back", _FAILED)
    try:
        found = proposed(samples, len(names))
    except TooLittle as error:
        if not as_json:
            _draw(samples, [], [])
        leave(f"{name}: {error}.\nNothing was written.", _FAILED)
    values = _values(found, names)
    source, _, device = name.partition("/")
    if as_json:
        print_json({"channel": name, **values})
        return
    _draw(samples, found.thresholds_w, names)
    _tell(samples, found, names)
    click.echo(f"\n[channels.{source}.{device}]")
    for key, value in values.items():
        click.echo(f"{key} = {tomlkit.item(value).as_string()}")
    if not write:
        click.echo(f"\nNothing was written. Next: ./orchestrator.py ledger learn-states {channel} --write")
        return
    where = channel_holder(settings.files, source, device)
    before = settings.channels.get(name, ChannelTable()).states
    instead = f" instead of {', '.join(before)}" if before else ""
    if not (yes or _confirmed(f"\nWrite this into {where}{instead}?")):
        leave("Nothing was written.", _FAILED)
    backup = _write(file, where, (source, device), values)
    click.echo(f"✓ {where} has them; what it was is in {backup.name}.")
    click.echo("Next: reload the house (systemctl reload wattherd, or kill -HUP): it tells `state` from then on.")


def _names_or_exit(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not 2 <= len(names) <= _MOST_STATES or len({*names}) < len(names):
        leave(f"--states takes 2 to {_MOST_STATES} different names, like idle,running", EXIT_CONFIGURATION)
    if wrong := [name for name in names if not _NAME.fullmatch(name)]:
        leave(f"{wrong[0]!r} is no name of a state; use letters, digits, - and _", EXIT_CONFIGURATION)
    return names


def _samples(history: History, name: str, from_ns: int, to_ns: int) -> list[Sample]:
    """Ask for every reading, or for what is left of them."""
    source, _, device = name.partition("/")
    columns = history.series((source, device, "power_w"), from_ns, to_ns, 0)
    if columns.step_s:
        columns = history.series((source, device, "power_w"), from_ns, to_ns, 60)
    return samples_of(columns)


def _draw(samples: Sequence[Sample], thresholds_w: Sequence[float], names: Sequence[str]) -> None:
    """Print how often which power was there. By the square root, so that what is rare can be seen too."""
    found = shares(samples, _PER_DECADE)
    most = math.sqrt(max(found.values()))
    edges_w = {place: 10 ** (place / _PER_DECADE) for place in range(min(found), max(found) + 2)}
    left = [*zip(thresholds_w, names, names[1:], strict=False)]
    for place in range(min(found), max(found) + 1):
        while left and left[0][0] < edges_w[place]:
            threshold_w, below, above = left.pop(0)
            click.echo(f"{f' {below} ↑  {threshold_w:g} W  ↓ {above} ':─^80}")
        low_w = 0.0 if place == bin_of(LEAST_W, _PER_DECADE) else edges_w[place]
        share = found.get(place, 0.0)
        told = f"{100 * share:6.2f} %" if share else ""
        words = f"{_watts(low_w):>6} – {_watts(edges_w[place + 1]):>6} W │{_bar(math.sqrt(share) / most)}"
        click.echo(f"{words:<68} {told}".rstrip())


def _bar(part: float) -> str:
    """Draw a bar; what is there at all can be seen.

    >>> _bar(0.5) == "█" * 23, _bar(1e-9), _bar(0.0)
    (True, '▏', '')
    """
    eighths = max(math.ceil(part * _BAR * 8), 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _watts(power_w: float) -> str:
    """Write a power short.

    >>> _watts(0.0), _watts(1.3335), _watts(13.335), _watts(1333.5)
    ('0', '1.3', '13', '1334')
    """
    return f"{power_w:.1f}" if 0 < power_w < 10 else f"{power_w:.0f}"


def _tell(samples: Sequence[Sample], found: Proposal, names: Sequence[str]) -> None:
    """Say what the house would have told with these thresholds."""
    rules = StateRules(tuple(names), tuple(found.thresholds_w), found.hysteresis_w, round(found.dwell_s * 1e9))
    spells = spells_s(samples, rules)
    click.echo(f"\nOf {sum(lasted_s for _, lasted_s in spells) / 3600:.1f} hours that would have been:")
    by_level = groupby(sorted(spells), key=lambda spell: spell[0])
    for level, those in by_level:
        lengths_s = [lasted_s for _, lasted_s in those]
        times = f"{len(lengths_s)} time{'s' if len(lengths_s) != 1 else ''}"
        click.echo(f"  {names[level]:<12} {sum(lengths_s) / 3600:8.1f} h, {times}")


def _values(found: Proposal, names: Sequence[str]) -> dict[str, Setting]:
    return {
        "states": [*names],
        "thresholds_w": found.thresholds_w,
        "hysteresis_w": found.hysteresis_w,
        "dwell_s": found.dwell_s,
    }


def _confirmed(words: str) -> bool:
    with suppress(click.Abort):
        return sys.stdin.isatty() and click.confirm(words)
    click.echo(err=True)
    return False


def _write(file: Path, where: Path, channel: tuple[str, str], values: dict[str, Setting]) -> Path:
    """Write, see that the configuration still holds, and return the backup."""
    try:
        backup = set_channel_values(where, *channel, values)
    except EditError as error:
        leave(f"{error}\nNothing was written.", _FAILED)
    try:
        read(file)
    except ConfigurationError as error:
        restore(where, backup)
        problems = "\n".join(error.problems)
        leave(f"{problems}\nWith these states {where} would not be valid, so it is as it was.", _FAILED)
    return backup
