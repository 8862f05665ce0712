"""`verify`: whether everything works, both ways: what is written is read back, what is wished for is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final

import click

from commands._configuration import chosen, config_option, is_demo, named, read_or_exit
from commands._doctor import Finding, Mark, status_of
from commands._doctor.disk_cost import cost_of
from commands._doctor.files import check_csv, check_history
from commands._doctor.graphite import Places, check_graphite, check_retention
from commands._doctor.health import ClockFacts, check_clock, check_disk, check_pi
from commands._doctor.house import check_house
from commands._doctor.influx import check_influx
from commands._doctor.machine import (
    disk,
    model,
    real_time_clock,
    temperature_c,
    throttled,
    under_voltage_alarm,
    who,
)
from commands._doctor.mqtt import check_mqtt
from commands._doctor.packages import check_interpreter, check_packages, locks_of
from commands._doctor.rights import check_devices, check_realtime
from commands._doctor.settings import check_ranges, check_secrets
from commands._probe import quietly, running_house
from commands._screen import WIDTH, console, json_option, print_json, say, say_next
from config.settings import OutputTable, Settings
from config.words import printable
from writer.clock import has_time_service, kernel_says_synchronised
from writer.outputs.csv import Options as Csv
from writer.outputs.graphite import Options as Graphite
from writer.outputs.history import Options as History
from writer.outputs.influx import Options as Influx
from writer.outputs.mqtt import Options as Mqtt

_FAKE_CLOCK: Final = Path("/etc/fake-hwclock.data")
_INDENT: Final = " " * 4
_ORDER: Final = (Mark.WRONG, Mark.MIND)


@click.command
@config_option
@click.option("--no-canary", is_flag=True, help="Write nothing anywhere: no canary goes through an output.")
@click.option("--graphite-web", default="", metavar="URL", help="Where graphite-web answers, to read back from.")
@click.option("--graphite-conf", type=click.Path(path_type=Path), metavar="DIR", help="Where carbon's rules are.")
@click.option("--whisper", type=click.Path(path_type=Path), metavar="DIR", help="Where carbon's files are.")
@click.option(
    "--wait",
    "within_s",
    type=click.FloatRange(0.5, 600),
    default=20.0,
    show_default=True,
    metavar="S",
    help="How long a canary may take to come back.",
)
@json_option
@quietly
def command(
    path: Path | None,
    *,
    no_canary: bool,
    graphite_web: str,
    graphite_conf: Path | None,
    whisper: Path | None,
    within_s: float,
    as_json: bool,
) -> None:
    """Check everything, both ways, and say what mends it.

    A canary goes through each output and is read back: source wattherd, device canary, in no total and no chart. Then
    rights, clock, disk, supply, packages, and how long Graphite keeps what. It may run beside the house.

    Status 0: all is well; 1: something is wrong (✗); 3: something is to be looked at (!).

    Example: ./orchestrator.py verify --graphite-web http://nas:8080
    """
    settings = read_or_exit(chosen(path))
    os.environ.update(settings.secrets)
    words = named(path)
    places = Places(graphite_web.rstrip("/"), whisper, graphite_conf)
    found: list[Finding] = []
    with _progress(as_json=as_json) as tell:
        tell("this machine")
        found += _of_this_machine(settings, words, is_demo_house=is_demo(chosen(path)))
        for name, options in settings.outputs.items():
            if options.enabled:
                tell(f"output {name}")
                found += _of_output(name, options, settings, places, None if no_canary else within_s)
    status = status_of(found)
    if as_json:
        told = [{**one._asdict(), "mark": one.mark.name.lower()} for one in found]
        print_json({"status": status, "findings": told})
    else:
        _show(found)
    sys.exit(status)


def _of_this_machine(settings: Settings, words: str, *, is_demo_house: bool) -> Iterator[Finding]:
    pid = running_house(settings)
    whose = who(pid or None)
    yield from check_house(settings, pid, words)
    if is_demo_house:
        what = "this is the demo house: nothing is measured"
        yield Finding("house", "house.demo", Mark.NOTE, what, "for your own: ./orchestrator.py init")
    yield from check_secrets(settings)
    yield check_interpreter()
    yield from check_packages(locks_of(settings))
    if whose.uid == 0 and not whose.is_house:
        what = "root may do everything, so nothing is known of the user of the house"
        yield Finding("rights", "rights.root", Mark.NOTE, what, "run verify as that user")
    yield from check_devices(settings, whose)
    yield from check_realtime(settings, whose)
    yield from check_ranges(settings)
    clock = ClockFacts(kernel_says_synchronised(), has_time_service(), real_time_clock(), _FAKE_CLOCK.exists())
    yield from check_clock(settings, clock)
    yield from check_disk(settings, disk(settings.data_dir), cost_of(settings))
    yield from check_pi(model(), throttled(), under_voltage_alarm(), temperature_c())


def _of_output(
    name: str, options: OutputTable, settings: Settings, places: Places, within_s: float | None
) -> Iterable[Finding]:
    """`within_s`: None where no canary may go out."""
    part = f"output {name}"
    if within_s is None:
        return check_retention(part, options, settings, places) if isinstance(options, Graphite) else []
    match options:
        case Csv():
            found: Iterable[Finding] = check_csv(part, options, settings)
        case History():
            found = check_history(part, options, settings)
        case Graphite():
            found = check_graphite(part, options, settings, places, within_s)
        case Influx():
            found = check_influx(part, options, settings.site, within_s)
        case Mqtt():
            found = check_mqtt(part, options, settings.site, within_s)
        case _:
            what = f"nobody knows how to read back from a {options.kind or name}"
            found = [Finding(part, "canary.read", Mark.NOTE, what)]
    return found


@contextmanager
def _progress(*, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is looked at."""
    screen = console()
    if as_json or not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("looking") as status:
        yield lambda words: status.update(f"looking at {words} …")


def _show(found: list[Finding]) -> None:
    for part, findings in groupby(sorted(found, key=lambda one: _place(found, one.part)), lambda one: one.part):
        click.secho(part, bold=True)
        for one in findings:
            say(f"  {one.mark} {printable(one.what)}", indent=2)
            _say_what_now(printable(one.what_now))
    counts = {mark: sum(one.mark is mark for one in found) for mark in Mark}
    click.echo()
    click.echo(f"{counts[Mark.GOOD]} good, {counts[Mark.MIND]} to look at, {counts[Mark.WRONG]} wrong")
    worst = next((one for mark in _ORDER for one in found if one.mark is mark and one.what_now), None)
    if worst:
        click.echo(f"Next, {worst.part}: {printable(worst.what_now)}")
    else:
        say_next("./orchestrator.py status")


def _say_what_now(words: str) -> None:
    """Print the next step below what is wrong; a command that is to be pasted stays in one line."""
    before, run, command = words.partition("run: ")
    if len(words) <= WIDTH - len(_INDENT) or not run:
        if words:
            say(_INDENT + words, indent=0)
        return
    say(f"{_INDENT}{before}run:", indent=0)
    click.echo(f"{_INDENT}  {command}")


def _place(found: list[Finding], part: str) -> int:
    """Keep the parts in the order in which they were first looked at."""
    return next(number for number, one in enumerate(found) if one.part == part)
