"""`discover`: look round for meters and print a configuration for what is found; nothing is written anywhere."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from typing import Any, Final

import click

from commands import _discover_gpio, _discover_i2c, _discover_modbus
from commands._discovery import EXIT_FAILED, EXIT_PARTLY, Discovery
from commands._probe import quietly
from config.words import printable

_KINDS: Final = ("modbus", "i2c", "gpio")
_LAST_UNIT: Final = 247
_RANGE: Final = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?", re.ASCII)


class _Units(click.ParamType[range]):
    """1-16, or a single address."""

    name = "units"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        if found := _RANGE.fullmatch(str(value)):
            units = range(int(found[1]), int(found[2] or found[1]) + 1)
            if units and units[0] >= 1 and units[-1] <= _LAST_UNIT:
                return units
        return self.fail(f"{value!r} is no range of addresses: 1-{_LAST_UNIT}, say", param, ctx)


@click.command
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option(
    "--units", type=_Units(), default="1-16", show_default=True, metavar="FIRST-LAST", help="modbus: addresses to ask."
)
@click.option("--port", "ports", multiple=True, metavar="PORT", help="modbus: only this port; may be repeated.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.05, 2),
    default=0.3,
    show_default=True,
    metavar="S",
    help="modbus: how long a unit may take.",
)
@click.option(
    "--bus",
    "buses",
    multiple=True,
    type=click.IntRange(0, 255),
    metavar="N",
    help="i2c: only /dev/i2c-N; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@quietly
def command(
    kind: str | None, units: range, ports: tuple[str, ...], timeout_s: float, buses: tuple[int, ...], *, as_json: bool
) -> None:
    """Look for meters on serial ports, I2C buses and GPIO chips.

    Those are modbus, i2c and gpio; all three if none is named. It only reads. Stop the house first: it has its ports
    for itself. Status 1: nothing was found; 3: something is in the way of more.
    """
    looks = {
        "modbus": lambda: _discover_modbus.look(ports, units, timeout_s),
        "i2c": lambda: _discover_i2c.look(buses),
        "gpio": _discover_gpio.look,
    }
    found = {}
    for one in (kind,) if kind else _KINDS:
        found[one] = looks[one]()
        if not as_json:
            _show(one, found[one])
    if as_json:
        told = {one: {**asdict(discovery), "status": discovery.status} for one, discovery in found.items()}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    elif any(discovery.block for discovery in found.values()):
        click.echo("Next: copy the blocks into config/site.toml, name the devices, then: ./orchestrator.py check")
    sys.exit(_status([discovery.status for discovery in found.values()]))


def _status(statuses: list[int]) -> int:
    """Sum up: a machine need not have all kinds of things.

    >>> [_status(each) for each in ([0, 1, 1], [1, 1], [3, 1], [3, 0])]
    [0, 1, 3, 3]
    """
    if EXIT_PARTLY in statuses:
        return EXIT_PARTLY
    return 0 if 0 in statuses else EXIT_FAILED


def _show(kind: str, found: Discovery) -> None:
    click.echo(f"== {kind} ==")
    for line in found.lines:
        click.echo(printable(line))
    if not found.found:
        click.echo("Nothing was found.")
    for problem in found.problems:
        click.echo(f"! {printable(problem)}")
    if not found.found:
        for words in found.what_now:
            click.echo(f"  try: {words}")
    if found.block:
        click.echo(f"\n{found.block}", nl=False)
    click.echo()
