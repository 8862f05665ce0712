"""Finds PZEM meters on the serial ports of this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from commands._discovery import Discovery, numbered
from commands._probe import install_command
from workers import SourceError
from workers._modbus import Bus, Line, PortLost
from workers._pzem_port import Unusable
from workers._pzem_service import Found, scan

_PORTS: Final = ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA0", "serial0")  # the names that stay come first


def look(ports: Sequence[str], units: Sequence[int], timeout_s: float) -> Discovery:
    """Ask every address of every port; nothing is written into any unit."""
    found = Discovery(
        what_now=[
            "plug in the RS-485 adapter: ls /dev/serial/by-id shows it then",
            "on the pins of a Pi: sudo raspi-config, Interface Options, Serial Port: no login shell, hardware on",
            "this user must be in the group dialout: sudo usermod -aG dialout $USER, then log in again",
        ]
    )
    candidates = list(ports) or candidates_in(Path("/dev"))
    blocks: list[str] = []
    for port in candidates:
        bus = Bus(Line(timeout_s=timeout_s))
        try:
            bus.open(port)
            answers = _scan(bus, units)
        except (Unusable, PortLost) as refusal:
            found.problems.append(str(refusal))
            continue
        except SourceError as missing:
            found.problems.append(f"{missing.what}; {install_command('pzem')}")
            found.what_now = []
            break
        finally:
            bus.close()
        good = [answer for answer in answers if answer.models]
        found.lines.append(f"{port}: {len(good) or 'no'} PZEM at the addresses {units[0]} to {units[-1]}")
        found.lines += [f"  {_line_of(answer)}" for answer in answers]
        found.problems += [f"{port}, unit {one.unit}: {one.problem}" for one in answers if not one.models]
        if good:
            found.found.append({"port": port, "units": [_entry(answer) for answer in good]})
            blocks.append(_block(numbered("shunts", len(blocks)), port, good))
    if found.lines and not found.found:
        found.what_now = [
            "check the 5 V supply (and 7 V on the measured side of a 017), A and B swapped, the common ground",
            "look at all addresses: ./orchestrator.py discover modbus --units 1-247",
            "connect one unit alone, and give it more time: --timeout 1",
        ]
    found.block = "\n".join(blocks)
    return found


def candidates_in(folder: Path) -> list[str]:
    """Return the ports that are there, each once, by the name that stays if it has one."""
    ports: dict[Path, str] = {}
    for pattern in _PORTS:
        for path in sorted(folder.glob(pattern)):
            ports.setdefault(path.resolve(), str(path))
    return [*ports.values()]


def _scan(bus: Bus, units: Sequence[int]) -> list[Found]:
    terminal = sys.stderr.isatty()
    if not terminal:
        click.echo(f"Asking {len(units)} addresses on {bus.path}.", err=True)
    with click.progressbar(
        scan(bus, units), length=len(units), label=f"Asking {bus.path}", file=sys.stderr, hidden=not terminal
    ) as asked:
        return [answer for answer in asked if answer]


def _line_of(found: Found) -> str:
    if not found.models:
        return f"unit {found.unit}: something answers badly ({found.problem}); two units with one address?"
    shunt = ""
    if found.shunt_code is not None:
        shunt = f", set to a shunt of {found.shunt_a} A" if found.shunt_a else ", set to an unknown shunt"
    values = found.shown.values if found.shown else {}
    shown = f": {values['voltage_v']:.2f} V, {values['current_a']:.3f} A, {values['power_w']:.1f} W" if values else ""
    return f"unit {found.unit}: {' or '.join(found.models)}{shunt}{shown}"


def _entry(found: Found) -> dict[str, Any]:
    values = dict(found.shown.values) if found.shown else {}
    return {"unit": found.unit, "models": [*found.models], "shunt_a": found.shunt_a, "values": values}


def _block(name: str, port: str, units: Sequence[Found]) -> str:
    lines = [f"[sources.{name}]", 'kind = "pzem"', f"port = {json.dumps(port)}"]
    for found in units:
        model = found.models[-1]
        others = ", ".join(f'"{one}"' for one in found.models[:-1])
        lines += [
            "",
            f"[[sources.{name}.devices]]",
            f'name = "unit-{found.unit}"',
            f"unit = {found.unit}",
            f'model = "{model}"' + (f"  # or {others}: its label says which" if others else ""),
        ]
        if found.shunt_code is not None:
            lines.append(f"shunt_a = {found.shunt_a or 100}  # compare with what is printed on the shunt itself")
    return "\n".join(lines) + "\n"
