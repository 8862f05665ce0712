"""`init`: look round, ask a little, and write the configuration of a first house and its file of secrets."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from commands import _discover_glow, _discover_mqtt
from commands._asking import Asking
from commands._configuration import EXIT_CONFIGURATION, SITE, complain, env_file, named, read
from commands._discover_mqtt import Address
from commands._discovery import Discovery
from commands._init_look import (
    WHAT,
    host_and_port,
    install,
    listens,
    local_timezone,
    looks,
    missing_drivers,
    spi_places,
)
from commands._init_outputs import asked_outputs
from commands._init_text import Block, Draft, listed, mistake_in, settled
from commands._probe import EXIT_FAILED, leave, quietly
from commands._screen import json_option, print_json, say, say_next
from config.edit import backed_up
from config.env import read_env, with_secrets
from config.load import ConfigurationError
from config.settings import Settings
from config.words import printable
from files import replaced

_DEV: Final = Path("/dev")
_CLAMP: Final = """\
[sources.clamps]
kind = "mcp3008"
bus = {bus}
chip_select = {chip_select}

[[sources.clamps.devices]]
name = "machine-A"
channel = 0
amplifier_gain = 100.0  # these two are printed on the clamp and its board
ct_range_amps = 50.0
phases = 3
"""
_ESP32: Final = """\
[sources.meter]
kind = "esp32_http"
host = "0.0.0.0"
token_env = "METER_TOKEN"  # the ESP32 must show it: docs/sources/esp32_http.md

[[sources.meter.devices]]
name = "esp32-meter"
pulses_per_kwh = 1000  # printed on the meter as imp/kWh
"""


@dataclass(slots=True)
class _Session:
    """What came together so far."""

    asking: Asking
    draft: Draft
    secrets: dict[str, str] = field(default_factory=dict)
    found: dict[str, Discovery] = field(default_factory=dict)
    listen_s: float = 15.0
    as_json: bool = False

    def tell(self, words: str) -> None:
        """Print a line, where a program reads what is printed on the other stream."""
        if self.as_json:
            click.echo(words, err=True)
        else:
            say(words)

    def keep(self, name: str, value: str) -> None:
        """Remember a secret, also for what is looked at from now on."""
        self.secrets[name] = value
        if value:
            os.environ[name] = value


@click.command
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; by default config/site.toml.",
)
@click.option("--yes", is_flag=True, help="Ask nothing: take every default. So it is without a terminal, too.")
@click.option("--replace", is_flag=True, help="Replace a configuration that is there; a copy is kept.")
@click.option("--no-network", is_flag=True, help="Look at the wires alone, not for plugs and brokers.")
@click.option(
    "--wait",
    "listen_s",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    metavar="S",
    help="How long to listen to a broker.",
)
@json_option
@quietly
def command(path: Path | None, *, yes: bool, replace: bool, no_network: bool, listen_s: float, as_json: bool) -> None:
    """Look round, ask a little, write config/site.toml and .env.

    It looks for buses, plugs, brokers and databases, and changes nothing before the last answer. What it finds and
    cannot use yet stands in the configuration as a comment with the reason. Status 1: nothing was written.

    Example: ./orchestrator.py init --yes
    """
    target = path or SITE
    asking = Asking(quiet=yes or as_json)
    if target.exists() and not replace and not asking.yes(f"{_short(target)} is there; replace it?", default=False):
        leave(f"{_short(target)} is there already and was not changed; a new one: init --replace (a copy is kept)", 1)
    session = _Session(asking, Draft("home", local_timezone()), listen_s=listen_s, as_json=as_json)
    _load_secrets(target)
    session.tell("Looking round. Nothing is changed before the last question; Ctrl-C ends it.")
    _site(session)
    _look(session, network=not no_network)
    _sources(session, network=not no_network)
    session.draft.outputs += asked_outputs(asking, session.keep, network=not no_network)
    try:
        text, settings = settled(session.draft, read, target.parent)
    except ConfigurationError as error:
        complain(error)
        sys.exit(EXIT_CONFIGURATION)
    if not asking.yes(f"Write {_short(target)} and {_short(env_file(target))}?", default=True):
        leave("nothing was written", EXIT_FAILED)
    copies = _write(target, text, {name: session.secrets.get(name, "") for name in _names(settings, session)})
    _report(session, target, settings, copies)


def _load_secrets(target: Path) -> None:
    problems: list[str] = []
    for name, value in read_env(target, problems).items():
        os.environ.setdefault(name, value)
    if problems:
        leave("\n".join(problems), EXIT_CONFIGURATION)


def _site(session: _Session) -> None:
    asking, draft = session.asking, session.draft
    draft.name = _asked(asking, "What is this place called, in one word?", "home", "name")
    draft.timezone = _asked(asking, "Its time zone?", draft.timezone, "timezone")


def _asked(asking: Asking, question: str, default: str, key: str) -> str:
    """Ask for a value of `[site]` until it is one."""
    while True:
        answer = asking.text(question, default)
        problem = mistake_in(f"[site]\n{key} = {json.dumps(answer)}", read)
        if not problem or asking.quiet:
            return answer
        click.echo(problem)


def _look(session: _Session, *, network: bool) -> None:
    """Look at everything that may be there; `session.found` has it then."""
    asking = session.asking
    if network:
        network = asking.yes("Look for plugs in the home network, too? It takes 15 s and changes none.", default=True)
    wanted = looks(_DEV, network=network)
    if missing := missing_drivers(wanted):
        question = f"To look, the packages for {listed(missing)} are needed (locked, with hashes). Install them?"
        if asking.yes(question, default=True):
            session.tell(f"Installing the packages for {listed(missing)}; that may take some minutes on a small Pi.")
            if problem := install(missing):
                session.tell(f"! that failed: {printable(problem)}")
    for kind, look in wanted.items():
        session.tell(f"Looking for {WHAT[kind]} …")
        found = session.found[kind] = look()
        for line in found.lines:
            session.tell(f"  {printable(line)}")
        for problem in found.problems:
            session.tell(f"! {printable(problem)}")


def _sources(session: _Session, *, network: bool) -> None:
    asking, sources, found = session.asking, session.draft.sources, session.found
    for kind, question, remark in (
        ("modbus", "Read these PZEM meters?", "PZEM meters. Compare shunt_a with what is printed on the shunt."),
        ("i2c", "Read these current sensors?", "Shunts on I2C, for direct current. Compare shunt_ohm with the board."),
        ("kasa", "Read these Kasa and Tapo plugs?", "Plugs, by their own id: a new address does not matter."),
        ("tuya", "Read these Tuya devices?", "Tuya plugs. Their keys come from: python -m tinytuya wizard"),
    ):
        if kind in found and found[kind].block:
            if kind == "kasa":
                _kasa_account(session, found[kind])
            if asking.yes(question, default=True):
                sources.append(Block(found[kind].block, remark))
    if "gpio" in found and found["gpio"].block:
        wired = asking.yes("Is a meter's pulse output, or a sensor on its light, wired to GPIO pins?", default=False)
        why = "" if wired else "nobody can see whether a meter is wired to these pins"
        remark = "Pulse outputs (S0) and meter lights. Lines are BCM numbers; imp_per_kwh is printed on the meter."
        sources.append(Block(found["gpio"].block, remark, why))
    for bus, chip_select in spi_places(_DEV)[:1]:
        wired = asking.yes("Are current clamps on an MCP3008 wired to SPI?", default=False)
        why = "" if wired else f"/dev/spidev{bus}.{chip_select} is there, but nobody can see whether clamps are"
        sources.append(Block(_CLAMP.format(bus=bus, chip_select=chip_select), "Current clamps on an MCP3008.", why))
    if asking.yes("Will an ESP32 on a meter post its pulses to this machine?", default=False):
        session.keep("METER_TOKEN", secrets.token_hex(16))
        sources.append(Block(_ESP32, "Pulse readers. The token is in .env; deploy/esp32/ has a firmware."))
    if network:
        _broker(session)


def _kasa_account(session: _Session, found: Discovery) -> None:
    """Newer plugs answer with the account of the app alone; looked at again once it is known."""
    if "KASA_USERNAME" not in found.block or os.environ.get("KASA_PASSWORD"):
        return
    if not (name := session.asking.text("Newer plugs want the account of the TP-Link app. Its e-mail, or empty?")):
        return
    session.keep("KASA_USERNAME", name)
    session.keep("KASA_PASSWORD", session.asking.secret("Its password"))
    again = session.found["kasa"] = looks(_DEV, network=True)["kasa"]()
    found.block = again.block or found.block
    for line in (*again.lines, *(f"! {problem}" for problem in again.problems)):
        session.tell(f"  {printable(line)}")


def _broker(session: _Session) -> None:
    """Listen at a broker, if there is one."""
    asking = session.asking
    here = "127.0.0.1" if listens("127.0.0.1", 1883) else ""
    host = asking.text("Where is the MQTT broker of the house? Empty if there is none", here)
    if not host:
        return
    username = asking.text("Its user, empty if it wants none")
    if username:
        session.keep("MQTT_PASSWORD", asking.secret("Its password"))
    host, port = host_and_port(host, 1883)
    address = Address(host=host, port=port, username=username, password_env="MQTT_PASSWORD" if username else "")
    session.tell(f"Listening to the broker at {printable(host)} for meters, {session.listen_s:g} s twice …")
    for kind, look, remark in (
        ("mqtt", _discover_mqtt.look, "Meters that speak at the broker."),
        ("glow", _discover_glow.look, "The display of the smart meter."),
    ):
        found = session.found[kind] = look(address, session.listen_s)
        for line in (*found.lines, *(f"! {problem}" for problem in found.problems)):
            session.tell(f"  {printable(line)}")
        if found.block and asking.yes("Read these?", default=True):
            session.draft.sources.append(Block(found.block, remark))
    wished = asking.yes("Show the house in Home Assistant, by this broker?", default=False)
    if wished:
        lines = ["[outputs.mqtt]", f"host = {json.dumps(host)}"]
        lines += [f"port = {port}"] if port != 1883 else []
        if username:
            lines += [f"username = {json.dumps(username)}", 'password_env = "MQTT_PASSWORD"']
        session.draft.outputs.append(Block("\n".join(lines), "Home Assistant finds the devices by itself."))


def _names(settings: Settings, session: _Session) -> list[str]:
    """Name the variables that `.env` is to have: those of the configuration that came from nowhere else."""
    return sorted({*session.secrets} | {*settings.secrets} - {*os.environ})


def _write(target: Path, text: str, secrets: dict[str, str]) -> list[Path]:
    """Write both files, each in one step; return the copies of what was there."""
    copies = []
    env = env_file(target)
    before = env.read_text(encoding="utf-8") if env.exists() else ""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # both, or none
    try:
        if target.exists():
            copies.append(backed_up(target, "before-init"))
        wanted = with_secrets(before, secrets)
        if wanted != before:
            replaced(env, wanted.encode())
            _give(env)
        replaced(target, text.encode())
        target.chmod(0o644)  # it holds no secret, and a service may run as somebody else
        _give(target)
    except OSError as error:
        leave(f"{error.filename or target} cannot be written ({error.strerror}); nothing else was changed", 1)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    return copies


def _give(file: Path) -> None:
    """Let root, who is here by sudo, take nothing away from whom the folder belongs to."""
    if os.geteuid() == 0:
        owner = file.parent.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


def _report(session: _Session, target: Path, settings: Settings, copies: list[Path]) -> None:
    left_out = [block for block in (*session.draft.sources, *session.draft.outputs) if block.why_out]
    words = named(target if target != SITE else None)
    drivers = missing_drivers(session.found)
    following = f"./orchestrator.py test{words}" if settings.sources else f"./orchestrator.py check{words}"
    if drivers and settings.sources:
        following = f"make install && {following}"
    if session.as_json:
        print_json(
            {
                "written": [str(target), str(env_file(target))],
                "copies": [str(copy) for copy in copies],
                "sources": sorted(settings.sources),
                "outputs": sorted(settings.outputs),
                "left_out": [{"table": block.toml.partition("\n")[0], "why": block.why_out} for block in left_out],
                "found": {kind: found.found for kind, found in session.found.items()},
                "problems": {kind: found.problems for kind, found in session.found.items() if found.problems},
                "next": following,
            }
        )
        return
    say(f"✓ {_short(target)}: {listed(sorted(settings.sources)) or 'no source yet'}, to {listed([*settings.outputs])}")
    say(f"✓ {_short(env_file(target))}: for secrets, for its owner alone")
    for copy in copies:
        say(f"  what was there before: {_short(copy)}")
    for block in left_out:
        say(f"· {block.toml.partition(chr(10))[0]} stands there as a comment: {block.why_out}")
    say_next(following)


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
