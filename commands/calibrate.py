"""`calibrate`: measure a sensor without load and with a known one, and write what follows into the configuration."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
from msgspec import structs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from commands._calibration import Calibration, Meter, Refusal, expected_error, gain, meter_of, zero
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, read, read_or_exit
from commands._probe import (
    EXIT_FAILED,
    EXIT_PARTLY,
    Unreachable,
    collected_notes,
    leave,
    opened,
    quietly,
    running_house,
    source_or_exit,
)
from commands._sampling import Sampler
from config.edit import EditError, holder, restore, set_device_values
from config.load import ConfigurationError
from config.settings import SourceTable
from config.words import nearest
from workers._calibration import CalibratedDevice

_KNOWN: Final = re.compile(r"([-+]?\d+(?:[.,]\d+)?)\s*([AaWw]?)")
_RELOAD: Final = "sudo systemctl reload wattherd"


@dataclass(frozen=True, slots=True)
class Known:
    """What a reference says of the load."""

    value: float
    is_power: bool

    @property
    def words(self) -> str:
        return f"{self.value:g} {'W' if self.is_power else 'A'}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    zero: bool
    known: Known | None
    voltage_v: float | None
    asks: bool  # there is somebody to ask
    dry_run: bool
    wait_s: float


@click.command
@click.argument("source")
@click.argument("device", required=False)
@config_option
@click.option(
    "--samples", type=click.IntRange(5, 10_000), default=60, show_default=True, help="For each of the two steps."
)
@click.option("--zero", "only_zero", is_flag=True, help="Measure without load.")
@click.option("--known-current-a", type=float, metavar="A", help="Measure with a load that draws so many amperes.")
@click.option(
    "--known-power-w", type=float, metavar="W", help="The same in watts, of the one conductor that is measured."
)
@click.option(
    "--voltage-v", type=click.FloatRange(1, 1000), metavar="V", help="For watts, where the sensor has no voltage."
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Without questions: how long to wait for the known load after --zero.",
)
@click.option(
    "--non-interactive", is_flag=True, help="Ask nothing: the options say what to measure, and it is written."
)
@click.option("--dry-run", is_flag=True, help="Measure and show, write nothing.")
@quietly
def command(source: str, device: str | None, path: Path | None, samples: int, **asked: Any) -> None:
    """Measure a sensor's offset and gain, and write them down.

    DEVICE of SOURCE is measured without load, for offset and noise, and with a known one, for the gain. Shows before
    and after, and writes current_gain, current_offset_a and noise_floor_a into the configuration, with a backup.
    Status 1: nothing was written; 3: only the offset was good.

    Example: ./orchestrator.py calibrate clamps machine-A --known-power-w 2000
    """
    wish = _wish(**asked)
    file = chosen(path)
    settings = read_or_exit(file)
    options = source_or_exit(settings, source)
    target = _device(source, options, device)
    house = running_house(settings)
    if house is not None and options.kind == "ina219":  # no bus of its kind can be had for oneself
        leave(
            f"the house runs (process {house}) and measures on this bus too, so both would measure wrongly;"
            " stop it first: sudo systemctl stop wattherd, or Ctrl-C where it runs",
            EXIT_FAILED,
        )
    neutral = structs.replace(
        target, **{key: value for key, value in _NEUTRAL.items() if key in target.__struct_fields__}
    )
    meter = meter_of(options, neutral)
    old = Calibration(target.current_gain, target.current_offset_a, target.noise_floor_a)
    click.echo(f"{source}.{target.name}: full scale {meter.full_scale_a:.4g} A, {samples} samples a step.")
    with collected_notes() as notes:
        try:
            with opened(source, structs.replace(options, devices=(neutral,)), house) as probe:
                result = _measure(Sampler(probe, options, target.name, samples), meter, old, wish)
        except Unreachable as unreachable:
            leave(f"{unreachable}\nNothing was written.", EXIT_FAILED)
        finally:
            for note in notes.words:
                click.echo(f"! {note}", err=True)
    _show(old, result, meter)
    where = holder(settings.files, source, target.name)
    values = result.values
    if wish.dry_run:
        lines = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        click.echo(f"Nothing was written (--dry-run). For {where}: {lines}")
    else:
        if wish.asks and not _confirmed(f"Write this into {where}?"):
            leave("Nothing was written.", EXIT_FAILED)
        backup = _write(file, where, source, target.name, values)
        click.echo(f"Written into {where}; as it was: {backup.name}")
        click.echo(_next_step(house))
    sys.exit(EXIT_PARTLY if result.refused else 0)


# The thresholds of a clamp may be out of reach without its calibration, and have no part in it.
_NEUTRAL: Final = {
    **asdict(Calibration()),
    "idle_threshold_a": 0.0,
    "fault_threshold_a": "none",
}


@dataclass(slots=True)
class Result:
    """What was measured, and what follows."""

    new: Calibration
    at_rest: list[float]
    loaded: list[float]
    known_a: float = 0.0
    refused: str = ""  # why there is no gain

    @property
    def values(self) -> dict[str, float]:
        """What of it is to be written."""
        keys = {"current_offset_a", "noise_floor_a"} if self.at_rest else set()
        if self.loaded and not self.refused:
            keys.add("current_gain")
        return {key: value for key, value in asdict(self.new).items() if key in keys}


def _wish(
    *,
    only_zero: bool,
    known_current_a: float | None,
    known_power_w: float | None,
    voltage_v: float | None,
    wait_s: float,
    non_interactive: bool,
    dry_run: bool,
) -> Wish:
    known = _known(known_current_a, known_power_w)
    if non_interactive and not only_zero and known is None:
        raise click.UsageError(
            "say what to measure: --zero, --known-current-a, --known-power-w, or --zero and one of them"
        )
    return Wish(only_zero, known, voltage_v, not non_interactive, dry_run, wait_s)


def _known(current_a: float | None, power_w: float | None) -> Known | None:
    if current_a is not None and power_w is not None:
        raise click.UsageError("give --known-current-a or --known-power-w, not both")
    if current_a is not None:
        return Known(current_a, is_power=False)
    return None if power_w is None else Known(power_w, is_power=True)


def _device(source: str, options: SourceTable, name: str | None) -> CalibratedDevice:
    """Return the device that is meant; leave with status 2 where that is none, or none can be calibrated."""
    devices = [one for one in getattr(options, "devices", ()) if isinstance(one, CalibratedDevice)]
    if not devices:
        leave(
            f"{source} is of kind {options.kind}, which has no current to calibrate; mcp3008, ina219 and pzem have",
            EXIT_CONFIGURATION,
        )
    names = [one.name for one in devices]
    if name is None and len(devices) > 1:
        leave(
            f"which device? ./orchestrator.py calibrate {source} DEVICE, one of: {', '.join(names)}", EXIT_CONFIGURATION
        )
    if name is not None and name not in names:
        leave(f"{source} has no device {name!r}{nearest(name, names, listed=True)}", EXIT_CONFIGURATION)
    return devices[0] if name is None else devices[names.index(name)]


def _measure(sampler: Sampler, meter: Meter, old: Calibration, wish: Wish) -> Result:
    """Do the steps that are wished for: both where nothing is said. Leave where the first of them comes to nothing."""
    both = not wish.zero and wish.known is None
    result = Result(old, [], [])
    try:
        if both or wish.zero:
            if wish.asks:
                _ask_enter("Step 1: switch the load off, or take the clamp off the wire.")
            result.at_rest = sampler.currents("without load")
            result.new = zero(result.at_rest, meter, old)
        if both or wish.known is not None:
            try:
                _measure_load(sampler, meter, wish, result)
            except Refusal as refusal:
                if not result.at_rest:
                    raise
                result.refused = str(refusal)
    except Refusal as refusal:
        leave(f"{refusal}\nNothing was written.", EXIT_FAILED)
    return result


def _measure_load(sampler: Sampler, meter: Meter, wish: Wish, result: Result) -> None:
    known = wish.known
    if wish.asks:
        number = 2 if result.at_rest else 1
        _ask_enter(f"Step {number}: switch the known load on, and let it settle.")
    elif result.at_rest:
        sampler.wait_for_load(result.new, meter, wish.wait_s)
    while known is None:
        known = _parsed(click.prompt("What does the reference show? (5.02 A or 1150 W)"))
        if known is None:
            click.echo("A number with A or W, please.")
    rounds = sampler.rounds("with the known load")
    result.loaded = [one["current_a"] for one in rounds]
    voltage_v = wish.voltage_v or _mean(rounds, "voltage_v")
    if known.is_power and not voltage_v:
        if not wish.asks:
            raise Refusal(
                "watts say nothing without volts, which this sensor does not measure", "add --voltage-v 231.5"
            )
        voltage_v = click.prompt("What does the reference show as voltage? (231.5)", type=click.FloatRange(1, 1000))
    factor = abs(_mean(rounds, "power_factor") or 1.0)
    result.known_a = known.value / (voltage_v * factor) if known.is_power and voltage_v else known.value
    if known.is_power:
        click.echo(f"{known.words} at {voltage_v:.1f} V and a power factor of {factor:.2f} are {result.known_a:.4g} A.")
    if result.known_a <= 0 and not meter.signed:
        raise Refusal(f"{known.words} is no load", "give what the reference shows, above zero")
    result.new = gain(result.loaded, result.known_a, meter, result.new)


def _mean(rounds: list[dict[str, float]], metric: str) -> float | None:
    values = [one[metric] for one in rounds if metric in one]
    return sum(values) / len(values) if values else None


def _parsed(text: str) -> Known | None:
    """Understand what somebody types.

    >>> [_parsed(text) for text in ("5.02", "1150 W", "5,02 A", "much")] # doctest: +NORMALIZE_WHITESPACE
    [Known(value=5.02, is_power=False), Known(value=1150.0, is_power=True), Known(value=5.02, is_power=False), None]
    """
    found = _KNOWN.fullmatch(text.strip())
    return Known(float(found[1].replace(",", ".")), found[2].lower() == "w") if found else None


def _ask_enter(words: str) -> None:
    try:
        click.prompt(f"{words} Then press Enter", default="", show_default=False)
    except click.Abort:
        leave("\nNothing was written.", EXIT_FAILED)


def _show(old: Calibration, result: Result, meter: Meter) -> None:
    """Print before and after."""
    new = result.new
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    for key in ("current_offset_a", "noise_floor_a", "current_gain"):
        table.add_row(key, f"{getattr(old, key):g}", f"{getattr(new, key):g}")
    if result.at_rest:
        rows = [f"{one.mean_a(result.at_rest, meter):.4g} A" for one in (old, new)]
        table.add_row("without load it shows", *rows)
    if result.loaded and not result.refused:
        shown = [one.mean_a(result.loaded, meter) for one in (old, new)]
        table.add_row(f"with {result.known_a:.4g} A it shows", *(f"{one:.4g} A" for one in shown))
        before, after = shown[0] / result.known_a - 1, expected_error(result.loaded, meter, new)
        table.add_row("expected error", f"{before:+.2%}", f"±{after:.2%}")
    Console(width=80, highlight=False).print(table)
    if result.loaded and not result.refused:
        click.echo("To the expected error comes that of the reference itself.")
    if result.refused:
        click.echo(f"No gain: {result.refused}", err=True)


def _write(file: Path, where: Path, source: str, device: str, values: Mapping[str, float]) -> Path:
    """Write into the file that holds the device, see that the configuration still holds, and return the backup."""
    try:
        backup = set_device_values(where, source, device, values)
    except EditError as error:
        leave(f"{error}\nNothing was written.", EXIT_FAILED)
    try:
        read(file)
    except ConfigurationError as error:
        restore(where, backup)
        problems = "\n".join(error.problems)
        leave(f"{problems}\nWith this calibration {where} would not be valid, so it is as it was.", EXIT_FAILED)
    return backup


def _next_step(house: int | None) -> str:
    if house is None:
        return f"Next: ./orchestrator.py run, or where the house runs already: {_RELOAD}"
    kill = f"kill -HUP {house}, or " if house else ""
    return f"Next: {kill}{_RELOAD}: the house takes it over without a stop."


def _confirmed(words: str) -> bool:
    with suppress(click.Abort):
        return click.confirm(words)
    click.echo(err=True)
    return False
