"""`pzem`: find the units of an RS-485 line, test them, give them addresses and shunts, set their energy to zero."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, read_or_exit
from workers import SourceError
from workers._modbus import Bus, BusFault, Line, PortLost
from workers._pzem_port import Unusable, is_candidate
from workers._pzem_registers import ANY_UNIT, MODELS, SHUNT_CODE, Shown
from workers._pzem_service import Found, ServiceError, answers, identify, move, reset_energy, scan, set_shunt
from workers._pzem_unit import Device
from workers.pzem import Options

EXIT_FAILED: Final = 1
EXIT_PARTLY: Final = 3
_LAST_UNIT: Final = 247

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Target:
    """Which line is meant, and what the configuration says of it."""

    candidates: tuple[str, ...]
    line: Line
    devices: tuple[Device, ...] = ()

    def named(self, unit: int) -> str:
        name = next((device.name for device in self.devices if device.unit == unit), "")
        return f"unit {unit} ({name})" if name else f"unit {unit}"


def _line_options(function: F) -> F:
    """Add the options that say which line is meant."""
    for option in (
        config_option,
        click.option("--source", "source_name", metavar="NAME", help="Take the port from [sources.NAME]."),
        click.option("--port", metavar="PORT", help="A path, or usb:VID:PID; by default what the configuration says."),
        click.option("--local-echo", is_flag=True, help="The adapter sends back what it is sent."),
        click.option(
            "--timeout", "timeout_s", type=click.FloatRange(0.05, 2), metavar="S", help="How long a unit may take."
        ),
    ):
        function = option(function)
    return function


_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_unit = click.IntRange(1, _LAST_UNIT)


class _Address(click.ParamType[int]):
    """1 to 247, or `any`: the one unit on the line, whatever its address is."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "any":
            return ANY_UNIT
        return _unit.convert(value, param, ctx)


@click.group
def command() -> None:
    """Find, test and set up PZEM meters; stop the house first.

    Example: ./orchestrator.py pzem scan --port /dev/ttyUSB0
    """


@command.command("scan")
@_line_options
@click.option("--first", type=_unit, default=1, show_default=True, help="The first address to ask.")
@click.option("--last", type=_unit, default=_LAST_UNIT, show_default=True, help="The last one.")
def scan_command(first: int, last: int, **line: Any) -> None:
    """Ask every address who is there. It writes nothing; all addresses take about a minute.

    Example: ./orchestrator.py pzem scan --port /dev/ttyUSB0 --last 32
    """
    if first > last:
        _leave(f"--first {first} is behind --last {last}", EXIT_CONFIGURATION)
    target = _target(**line)
    found: list[Found] = []
    with _opened(target) as bus:
        click.echo(f"{bus.path}: asking the addresses {first} to {last}, {target.line.baud_rate} baud")
        with click.progressbar(scan(bus, range(first, last + 1)), length=last - first + 1, file=sys.stderr) as asked:
            for answer in asked:
                if answer:
                    found.append(answer)
    for unit in found:
        click.echo(_line_of(unit))
    good = [unit for unit in found if unit.models]
    if not found:
        click.echo("Nobody answers. Look at: the 5 V supply (and 7 V on the measured side of a 017), A and B swapped,")
        click.echo("the common ground. Then try one unit alone on the wires, and --timeout 1.")
        sys.exit(EXIT_FAILED)
    click.echo(f"{_units(len(good))} found.")
    if len(good) < len(found):
        click.echo("Next: what answers badly is often two units with one address: take one of them off the wires.")
        sys.exit(EXIT_PARTLY if good else EXIT_FAILED)
    click.echo("Next: a [[sources.….devices]] table for each, with name, unit and model: docs/sources/pzem.md")


@command.command("test", short_help="Read units once and print what they show.")
@_line_options
@click.option("--unit", "units", type=_unit, multiple=True, help="Only this one; may be given more than once.")
def test_command(units: tuple[int, ...], **line: Any) -> None:
    """Read units once and print what they show: those of the configuration, or those named by --unit.

    Example: ./orchestrator.py pzem test --unit 1 --unit 2
    """
    target = _target(**line)
    wanted = units or tuple(device.unit for device in target.devices)
    if not wanted:
        _leave("which unit? Name it with --unit, or find it with: ./orchestrator.py pzem scan", EXIT_CONFIGURATION)
    good = 0
    with _opened(target) as bus:
        for unit in wanted:
            problem = _test(bus, target, unit)
            good += not problem
            if problem:
                click.echo(f"✗ {target.named(unit)}: {problem}")
    click.echo(f"{good} of {_units(len(wanted))} good.")
    if good < len(wanted):
        click.echo(
            "Next: docs/sources/pzem.md has the troubles by symptom; ./orchestrator.py pzem scan shows who is there"
        )
        sys.exit(EXIT_PARTLY if good else EXIT_FAILED)
    click.echo("Next: ./orchestrator.py run" if target.devices else "Next: write them into config/site.toml")


def _test(bus: Bus, target: _Target, unit: int) -> str:
    """Print what one unit shows; return what is wrong with it."""
    found = identify(bus, unit)
    if found is None:
        return "does not answer; check its 5 V supply, 7 V on the measured side of a DC unit, A and B, its address"
    if not found.models:
        return found.problem
    click.echo(("✓ " if target.devices else "") + _line_of(found))
    device = next((device for device in target.devices if device.unit == unit), None)
    if device is None:
        return ""
    if device.model not in found.models and MODELS[device.model].is_dc != MODELS[found.models[0]].is_dc:
        return f"the configuration says {device.model}, it is a {_models(found)}; correct its model"
    if device.shunt_a and found.shunt_a != device.shunt_a:
        return (
            f"the configuration says {device.shunt_a} A, it is set to {_shunt(found)}; read what the shunt itself says,"
            f" then correct shunt_a or run: ./orchestrator.py pzem set-shunt {unit} {device.shunt_a}"
        )
    return ""


@command.command("set-address")
@_line_options
@click.argument("old", type=_Address(), metavar="OLD")
@click.argument("new", type=_unit, metavar="NEW")
@_yes
def set_address_command(old: int, new: int, yes: bool, **line: Any) -> None:
    """Give the unit at address OLD the address NEW. OLD may be `any` if there is only one unit on the wires.

    Every new unit has address 1: connect them one at a time.

    Example: ./orchestrator.py pzem set-address 1 7
    """
    if old == new:
        _leave(f"unit {old} has that address already, as far as you say", EXIT_CONFIGURATION)
    target = _target(**line)
    with _opened(target) as bus:
        found = _identified(bus, old)
        click.echo(_line_of(found, "any" if old == ANY_UNIT else ""))
        if answers(bus, new):
            if old == ANY_UNIT and _is_at(bus, new, found):
                click.echo(f"It has the address {new} already; nothing was written.")
                return
            _leave(f"address {new} is not free: somebody answers there. Choose another one.", EXIT_FAILED)
        who = "the only unit on the wires" if old == ANY_UNIT else target.named(old)
        _confirm(f"This gives {who} the address {new}.", str(new), yes=yes)
        move(bus, old, new)
    click.echo(f"Done: it answers at {new} now.")
    click.echo(f"Next: write {new} on the unit, and unit = {new} into its [[sources.….devices]] table")


@command.command("set-shunt", short_help="Tell a 017 which shunt is fitted.")
@_line_options
@click.argument("unit", type=_unit)
@click.argument("amperes", type=click.Choice([str(amperes) for amperes in sorted(SHUNT_CODE)]))
@_yes
def set_shunt_command(unit: int, amperes: str, yes: bool, **line: Any) -> None:
    """Tell a 017 which shunt is fitted: AMPERES is what stands on the shunt itself (at 75 mV).

    Example: ./orchestrator.py pzem set-shunt 1 100
    """
    target = _target(**line)
    with _opened(target) as bus:
        found = _identified(bus, unit)
        click.echo(_line_of(found))
        if found.shunt_code is None:
            _leave(f"unit {unit} is a {_models(found)} and has no shunt to set.", EXIT_FAILED)
        if found.shunt_a == int(amperes):
            click.echo(f"It is set to {amperes} A already; nothing was written.")
            return
        _confirm(f"This sets {target.named(unit)} from {_shunt(found)} to {amperes} A.", amperes, yes=yes)
        set_shunt(bus, unit, int(amperes))
    click.echo(f"Done: read back, {amperes} A.")
    click.echo(f"Next: shunt_a = {amperes} in its [[sources.….devices]] table, then compare with a clamp meter")


@command.command("reset-energy")
@_line_options
@click.argument("unit", type=_unit)
@_yes
def reset_energy_command(unit: int, yes: bool, **line: Any) -> None:
    """Set the energy counter of a unit itself to zero. What wattherd has booked stays booked.

    Example: ./orchestrator.py pzem reset-energy 1
    """
    target = _target(**line)
    with _opened(target) as bus:
        found = _identified(bus, unit)
        click.echo(_line_of(found))
        shown = found.shown.values["device_energy_wh"] if found.shown else 0
        _confirm(f"This forgets the {shown:.0f} Wh that {target.named(unit)} has counted.", "RESET", yes=yes)
        after = reset_energy(bus, unit)
    click.echo(f"Done: it shows {after.values['device_energy_wh']:.0f} Wh now.")
    click.echo("Next: ./orchestrator.py run; the step back is booked as a reset, not as energy")


def _target(
    path: Path | None, source_name: str | None, port: str | None, local_echo: bool, timeout_s: float | None
) -> _Target:
    """Find the line that is meant: what --port says, or the PZEM source of the configuration."""
    sources: dict[str, Options] = {}
    if path or source_name or not port:
        settings = read_or_exit(chosen(path))
        sources = {name: table for name, table in settings.sources.items() if isinstance(table, Options)}
    names = ", ".join(sources)
    if source_name is not None and source_name not in sources:
        _leave(f"there is no PZEM source {source_name!r}; there is: {names or 'none'}", EXIT_CONFIGURATION)
    if source_name is None and len(sources) > 1:
        _leave(f"which line? Name it with --source, one of: {names}", EXIT_CONFIGURATION)
    options = sources[source_name] if source_name else next(iter(sources.values()), None)
    if options is None:
        if not port:
            _leave(
                "the configuration has no source of kind pzem; name the port: --port /dev/serial/by-id/…",
                EXIT_CONFIGURATION,
            )
        target = _Target((port,), Line())
    else:
        target = _Target((port,) if port else options.candidates, options.line, options.devices)
    for candidate in target.candidates:
        if not is_candidate(candidate):
            _leave(f"{candidate!r} is no port: a path that starts with a /, or usb:VID:PID", EXIT_CONFIGURATION)
    line = replace(target.line, local_echo=local_echo or target.line.local_echo)
    return replace(target, line=replace(line, timeout_s=timeout_s) if timeout_s else line)


@contextmanager
def _opened(target: _Target) -> Iterator[Bus]:
    """Open the first candidate that can be had; whatever goes wrong from then on ends in words and a status."""
    bus = Bus(target.line)
    try:
        refusals = []
        for candidate in target.candidates:
            try:
                bus.open(candidate)
                break
            except Unusable as refusal:
                refusals.append(str(refusal))
        else:
            _leave("\n".join(refusals), EXIT_FAILED)
        yield bus
    except (ServiceError, BusFault, PortLost, SourceError) as error:
        _leave(str(error), EXIT_FAILED)
    finally:
        bus.close()


def _identified(bus: Bus, unit: int) -> Found:
    found = identify(bus, unit)
    if found is None:
        who = "no unit" if unit == ANY_UNIT else f"unit {unit}"
        raise ServiceError(f"{who} answers", "look who is there: ./orchestrator.py pzem scan")
    if not found.models:
        raise ServiceError(found.problem, "nothing was written")
    return found


def _is_at(bus: Bus, unit: int, only: Found) -> bool:
    """Tell whether the only unit on the wires is the one that answers at this address."""
    there = identify(bus, unit)
    return there is not None and (there.models, there.shunt_code) == (only.models, only.shunt_code)


def _confirm(what: str, word: str, *, yes: bool) -> None:
    click.echo(what)
    if yes:
        return
    try:
        typed = click.prompt(f"Type {word} to do it", default="", show_default=False)
    except click.Abort:
        typed = ""
    if typed.strip() != word:
        _leave("Nothing was written.", EXIT_FAILED)


def _leave(words: str, status: int) -> NoReturn:
    click.echo(words, err=True)
    sys.exit(status)


def _line_of(found: Found, name: str = "") -> str:
    address = f"{name or found.unit:>3}"
    if not found.models:
        return f"{address}  something answers badly: {found.problem}"
    shunt = f"  shunt {_shunt(found)}" if found.shunt_code is not None else ""
    return f"{address}  {_models(found)}  {_numbers(found.shown)}{shunt}"


def _models(found: Found) -> str:
    *others, last = found.models
    return f"{', '.join(others)} or {last}" if others else last


def _shunt(found: Found) -> str:
    return f"{found.shunt_a} A" if found.shunt_a else f"an unknown shunt (code {found.shunt_code})"


def _numbers(shown: Shown | None) -> str:
    if shown is None:
        return ""
    values = shown.values
    text = (
        f"{values['voltage_v']:.2f} V  {values['current_a']:.3f} A  {values['power_w']:.1f} W"
        f"  {values['device_energy_wh']:.0f} Wh"
    )
    if "frequency_hz" in values:
        text += f"  {values['frequency_hz']:.1f} Hz  pf {values['power_factor']:.2f}"
    return text + "".join(f"  ({alarm})" for alarm in shown.alarms)


def _units(count: int) -> str:
    return f"{count} unit{'' if count == 1 else 's'}"
