"""`discover`: look round for meters and print a configuration for what is found; nothing is written anywhere."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import click

from commands import (
    _discover_glow,
    _discover_gpio,
    _discover_i2c,
    _discover_kasa,
    _discover_modbus,
    _discover_mqtt,
    _discover_tuya,
)
from commands._configuration import chosen
from commands._discover_mqtt import Address
from commands._discovery import EXIT_FAILED, EXIT_PARTLY, Discovery
from commands._probe import leave, quietly
from commands._screen import json_option
from config.env import read_env
from config.words import printable

_EVERYBODY: Final = "255.255.255.255"
_KASA_S: Final = 3.0
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


_wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    metavar="S",
    help="How long to listen.",
)
Look = Callable[[], Discovery]


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
@quietly
def command(context: click.Context, *, as_json: bool) -> None:
    """Look for meters on the wires and in the network.

    Without a kind: modbus, i2c and gpio on the wires, kasa and tuya in the network. It only reads. Stop the house
    first: it has its ports for itself. Status 1: nothing was found; 3: something is in the way of more.

    Example: ./orchestrator.py discover modbus --units 1-32
    """
    if context.invoked_subcommand is None:
        _load_secrets()
        _look(
            {
                "modbus": lambda: _discover_modbus.look((), range(1, 17), 0.3),
                "i2c": lambda: _discover_i2c.look(()),
                "gpio": _discover_gpio.look,
                "kasa": lambda: _discover_kasa.look(_EVERYBODY, _KASA_S),
                "tuya": _discover_tuya.look,
            },
            as_json=as_json,
        )


@command.command(short_help="PZEM meters on serial ports.")
@click.option(
    "--units", type=_Units(), default="1-16", show_default=True, metavar="FIRST-LAST", help="The addresses to ask."
)
@click.option("--port", "ports", multiple=True, metavar="PORT", help="Only this port; may be repeated.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.05, 2),
    default=0.3,
    show_default=True,
    metavar="S",
    help="How long a unit may take.",
)
@json_option
@quietly
def modbus(units: range, ports: tuple[str, ...], timeout_s: float, *, as_json: bool) -> None:
    """Look for PZEM meters on serial ports.

    Example: ./orchestrator.py discover modbus --units 1-32
    """
    _look({"modbus": lambda: _discover_modbus.look(ports, units, timeout_s)}, as_json=as_json)


@command.command(short_help="INA219 and its kin on I2C.")
@click.option(
    "--bus", "buses", multiple=True, type=click.IntRange(0, 255), metavar="N", help="Only /dev/i2c-N; may be repeated."
)
@json_option
@quietly
def i2c(buses: tuple[int, ...], *, as_json: bool) -> None:
    """Look for INA219, INA226, INA260 and INA3221 on I2C buses.

    Example: ./orchestrator.py discover i2c --bus 1
    """
    _look({"i2c": lambda: _discover_i2c.look(buses)}, as_json=as_json)


@command.command(short_help="Pins for pulses.")
@json_option
@quietly
def gpio(*, as_json: bool) -> None:
    """Show the GPIO chips and who uses their lines.

    Example: ./orchestrator.py discover gpio --json
    """
    _look({"gpio": _discover_gpio.look}, as_json=as_json)


@command.command(short_help="Kasa and Tapo plugs.")
@click.option("--target", default=_EVERYBODY, show_default=True, metavar="ADDRESS", help="Whom to call.")
@json_option
@quietly
def kasa(target: str, *, as_json: bool) -> None:
    """Call the Kasa and Tapo plugs of the network.

    The account of newer ones is taken from KASA_USERNAME and KASA_PASSWORD, in the environment or in .env.

    Example: ./orchestrator.py discover kasa --target 192.168.1.255
    """
    _load_secrets()
    _look({"kasa": lambda: _discover_kasa.look(target, _KASA_S)}, as_json=as_json)


@command.command(short_help="Tuya plugs and meters.")
@click.option(
    "--keys", "keys_file", default=_discover_tuya.KEYS_FILE, show_default=True, help="What the tinytuya wizard wrote."
)
@json_option
@quietly
def tuya(keys_file: str, *, as_json: bool) -> None:
    """Listen to the Tuya devices of the network.

    Example: ./orchestrator.py discover tuya --keys devices.json
    """
    _look({"tuya": lambda: _discover_tuya.look(keys_file)}, as_json=as_json)


def _broker_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--host", default="127.0.0.1", show_default=True, help="Where the broker is."),
        click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True),
        click.option("--username", default=""),
        click.option("--password-env", default="", help="Names the environment variable with the password."),
        click.option("--tls", is_flag=True, help="By TLS; then the port is mostly 8883."),
        click.option("--ca-file", default="", help="PEM file of who signed the broker's certificate."),
        _wait_option,
        json_option,
    ):
        command = option(command)
    return command


@command.command(short_help="Whoever speaks on an MQTT broker.")
@_broker_options
@quietly
def mqtt(wait_s: float, *, as_json: bool, **address: Any) -> None:
    """Listen to everything on a broker, and recognise who speaks there.

    Example: ./orchestrator.py discover mqtt --host nas --wait 60
    """
    _load_secrets()
    _look({"mqtt": lambda: _discover_mqtt.look(Address(**address), wait_s)}, as_json=as_json)


@command.command(short_help="Glow displays of smart meters.")
@_broker_options
@click.option("--mac", default="", help="In Hildebrand's cloud instead: the display with this MAC.")
@quietly
def glow(wait_s: float, mac: str, *, as_json: bool, **address: Any) -> None:
    """Listen for Glow displays on a broker of the house, or with --mac in Hildebrand's cloud.

    Example: ./orchestrator.py discover glow --host nas --wait 60
    """
    _load_secrets()
    where = Address(**address)
    if mac:
        where = _discover_glow.CLOUD._replace(username=where.username, password_env=where.password_env)
    _look({"glow": lambda: _discover_glow.look(where, wait_s, mac)}, as_json=as_json)


def _load_secrets() -> None:
    """Put what `.env` holds into the environment, where that does not have it."""
    problems: list[str] = []
    for name, value in read_env(chosen(None), problems).items():
        os.environ.setdefault(name, value)
    if problems:
        leave("\n".join(problems), 2)


def _look(looks: Mapping[str, Look], *, as_json: bool) -> None:
    found = {}
    for kind, look in looks.items():
        found[kind] = look()
        if not as_json:
            _show(kind, found[kind])
    if as_json:
        told = {kind: {**asdict(discovery), "status": discovery.status} for kind, discovery in found.items()}
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
