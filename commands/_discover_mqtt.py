"""Listens at an MQTT broker to everything for a while, and names the meters that speak there."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import click
import msgspec

from commands._discovery import Discovery
from config.settings import NAME_PATTERN
from mqtt_helper import BrokerDown, Connection, is_near
from reading import Value as Measure
from workers._dialects import MOST_PAYLOAD_BYTES, Device, Value, dialect_of
from workers._json import Refused, parse

_MOST_TOPICS: Final = 5000
_MOST_UNKNOWN: Final = 20  # topics that are named and not understood
_MOST_SHOWN: Final = 60  # characters of a topic
_NUMBER: Final = re.compile(rb"\s*-?\d{1,18}(\.\d{1,18})?\s*")
_SHELLY_1: Final = re.compile(r"(shellies/[^/]+)/(?:relay|roller|light|emeter)/(\d{1,2})/(?:power|energy|total)")
_SHELLY_2: Final = re.compile(r"(.+)/status/(switch|cover|light|pm1|em1|em1data|em|emdata):(\d{1,2})")
_COMPONENT: Final = re.compile(r"(switch|cover|light|pm1|em1|em):(\d{1,2})")
_MEASURES: Final = ("apower", "aenergy", "act_power", "total_act_power", "total_act_energy", "total_act")
_UNITS: Final = ("W", "kW", "Wh", "kWh", "V", "A", "Hz", "VA", "var", "pulses/min", "pulses")
# Those that publish here what others measured, or settings.
_OURS: Final = re.compile(r"(wattherd/(?!pulse/)|homeassistant/|\$SYS/|.+/bridge/|.+/cmnd/|cmnd/)")


class Address(NamedTuple):
    """Where the broker is, as the table of a source says it."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str = ""
    password_env: str = ""
    tls: bool = False
    ca_file: str = ""


class Kind(NamedTuple):
    """What a topic shows: a device, by its dialect, its name in topics and its channel."""

    dialect: str
    topic: str
    channel: int = 1


@dataclass(slots=True)
class Candidate:
    """One device that may be there, and what it said."""

    kind: Kind
    messages: dict[str, bytes] = field(default_factory=dict)  # the last of each topic
    sensors: dict[str, str] = field(default_factory=dict)  # of esphome: the unit by the sensor, "" if nobody tells it
    values: dict[str, Measure] = field(default_factory=dict)


def look(address: Address, listen_s: float) -> Discovery:
    """Listen to everything; nothing is published, and the broker keeps nothing for us."""
    found = Discovery(
        what_now=[
            "see that the devices publish to this broker, and listen longer than the pause between two reports:"
            " Tasmota's is 5 minutes (--wait 310)",
            "listen yourself: mosquitto_sub -h HOST -t '#' -v",
        ]
    )
    try:
        heard = listen(address, ["#"], listen_s)
    except BrokerDown as down:
        found.problems.append(str(down))
        found.what_now = []
        return found
    if not heard:
        found.problems.append(
            f"nothing at all was said to us in {listen_s:g} s; see that this user may read everything (#), or listen"
            " longer"
        )
    candidates, unknown = recognised(heard)
    names: set[str] = set()
    blocks = []
    for candidate in candidates:
        name = _name(candidate, names)
        _ask(candidate, name)
        found.lines.append(f"{name}: {_line_of(candidate)}")
        if candidate.values:
            found.found.append({"name": name, **candidate.kind._asdict(), "values": candidate.values})
            blocks.append(_device_block(candidate, name))
    if any(re.search(r"/SENSOR/(electricity|gas)meter$", topic) for topic in unknown):
        found.lines.append("a Glow display: ./orchestrator.py discover glow")
    others = [topic for topic in unknown if not re.search(r"/(SENSOR/\w+meter|STATE)$", topic)]
    found.lines += [f"no dialect that is known: {_cut(topic)}" for topic in others[:_MOST_UNKNOWN]]
    if more := len(others) - _MOST_UNKNOWN:
        found.lines += [f"and {more} more topics"] if more > 0 else []
    if blocks:
        found.block = "\n".join([broker_block("broker", "mqtt", address), *blocks])
    return found


def listen(address: Address, filters: Sequence[str], listen_s: float) -> dict[str, bytes]:
    """Return the last message of each topic. Raise `BrokerDown`."""
    if address.password_env and not address.tls and not is_near(address.host):
        what = f"the password would cross the internet to {address.host} in the clear"
        raise BrokerDown(what, "use TLS, and the port for it (8883 is usual)")
    heard: dict[str, bytes] = {}
    connection = Connection(address, f"wattherd-discover-{secrets.token_hex(4)}")
    try:
        connection.open(filters)
        if connection.refused:
            what_now = "allow the user to read it, in the broker's access list"
            raise BrokerDown(f"{connection.where} does not let us hear {', '.join(connection.refused)}", what_now)
        if not sys.stderr.isatty():
            click.echo(f"Listening to {connection.where} for {listen_s:g} s.", err=True)
        ends_s = time.monotonic() + listen_s
        with click.progressbar(
            length=round(listen_s), label="Listening", file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            while (rest_s := ends_s - time.monotonic()) > 0:
                arrived = connection.run(min(rest_s, 0.5))
                connection.acknowledge(arrived)
                bar.update(round(listen_s - rest_s) - bar.pos)
                for message in arrived:
                    known = message.topic in heard or len(heard) < _MOST_TOPICS
                    if known and message.topic and len(message.payload) <= MOST_PAYLOAD_BYTES:
                        heard[message.topic] = message.payload
    finally:
        connection.close()
    return heard


def recognised(heard: dict[str, bytes]) -> tuple[list[Candidate], list[str]]:
    """Tell the devices that speak, and the topics that belong to none."""
    units = _announced_units(heard)
    candidates: dict[Kind, Candidate] = {}
    unknown = []
    for topic, payload in sorted(heard.items()):
        kinds = [*_kinds(topic, payload)]
        for kind in kinds:
            candidate = candidates.setdefault(kind, Candidate(kind))
            candidate.messages[topic] = payload
            if kind.dialect == "esphome":
                candidate.sensors[topic.split("/")[-2]] = units.get(topic, "")
        if not kinds and not _OURS.match(topic) and (_NUMBER.fullmatch(payload) or _object(payload)):
            unknown.append(topic)
    return [*candidates.values()], unknown


def broker_block(source: str, kind: str, address: Address) -> str:
    """Return the head of a source's table: what differs from the defaults."""
    lines = [f"[sources.{source}]", f'kind = "{kind}"']
    for name, value in address._asdict().items():
        if value != Address._field_defaults[name]:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _kinds(topic: str, payload: bytes) -> Iterator[Kind]:
    """Say what a message shows, by its topic and what it holds.

    >>> [*_kinds("tele/plug1/SENSOR", b'{"ENERGY": {"Power": [52, 5]}}')]  # doctest: +NORMALIZE_WHITESPACE
    [Kind(dialect='tasmota', topic='plug1', channel=1), Kind(dialect='tasmota', topic='plug1', channel=2)]
    >>> [*_kinds("shelly-1/status/switch:0", b'{"id": 0, "apower": 10.7}')]
    [Kind(dialect='shelly', topic='shelly-1', channel=1)]
    >>> [*_kinds("zigbee2mqtt/kettle", b'{"power": 86.1, "linkquality": 120}')]
    [Kind(dialect='zigbee2mqtt', topic='zigbee2mqtt/kettle', channel=1)]
    """
    levels = topic.split("/")
    content = _object(payload)
    if levels[:2] == ["wattherd", "pulse"] and levels[-1] == "state" and len(levels) == 4:
        yield Kind("esp32", levels[2])
    elif levels[-1] == "SENSOR" and "tele" in levels[:-1] and {"ENERGY", "COUNTER"} & {*content}:
        base = "/".join(
            levels[1:-1] if levels[0] == "tele" else ["%prefix%" if one == "tele" else one for one in levels[:-1]]
        )
        energy = content.get("ENERGY")
        lists = [len(value) for value in energy.values() if isinstance(value, list)] if isinstance(energy, dict) else []
        yield from (Kind("tasmota", base, channel) for channel in range(1, min(max(lists, default=1), 8) + 1))
    elif first := _SHELLY_1.fullmatch(topic):
        yield Kind("shelly", first[1].removeprefix("shellies/"), int(first[2]) + 1)
    elif second := _SHELLY_2.fullmatch(topic):
        if {*_MEASURES} & {*content}:
            yield Kind("shelly", second[1], 0 if second[2] in ("em", "emdata") else int(second[3]) + 1)
    elif topic.endswith("/events/rpc"):
        yield from _in_notification(topic.removesuffix("/events/rpc"), content.get("params"))
    elif levels[-1] == "state" and len(levels) > 3 and levels[-3] == "sensor" and _NUMBER.fullmatch(payload):
        yield Kind("esphome", "/".join(levels[:-3]))
    elif "linkquality" in content and {"power", "energy", "power_l1", "energy_l1"} & {*content}:
        channels = [n for n in range(1, 9) if f"power_l{n}" in content or f"energy_l{n}" in content]
        yield from (Kind("zigbee2mqtt", topic, channel) for channel in channels or [1])


def _in_notification(base: str, params: object) -> Iterator[Kind]:
    for name, status in params.items() if isinstance(params, dict) else ():
        component = _COMPONENT.fullmatch(name)
        if component and isinstance(status, dict) and {*_MEASURES} & {*status}:
            yield Kind("shelly", base, 0 if component[1] == "em" else int(component[2]) + 1)


def _announced_units(heard: dict[str, bytes]) -> dict[str, str]:
    """Return the unit by topic, as those tell it who announce themselves to Home Assistant."""
    units = {}
    for topic, payload in heard.items():
        content = _object(payload) if topic.startswith("homeassistant/") else {}
        base = content.get("~", "")
        state = content.get("stat_t", content.get("state_topic"))
        unit = content.get("unit_of_meas", content.get("unit_of_measurement"))
        if isinstance(state, str) and isinstance(base, str) and isinstance(unit, str):
            units[state.replace("~", base)] = unit
    return units


def _ask(candidate: Candidate, name: str) -> None:
    """Let the dialect itself decode what was heard."""
    with suppress(msgspec.ValidationError, ValueError):
        dialect = dialect_of(_device(candidate, name))
        for topic, payload in candidate.messages.items():
            with suppress(Refused):
                for reading in dialect.take(topic, payload, retained=False, at_ns=time.monotonic_ns()).readings:
                    candidate.values |= reading.values


def _device(candidate: Candidate, name: str) -> Device:
    values = tuple(
        Value(path=sensor, unit=unit) for sensor, unit in _one_a_meaning(candidate.sensors) if unit in _UNITS
    )
    dialect: Any = candidate.kind.dialect
    return Device(name=name, dialect=dialect, topic=candidate.kind.topic, channel=candidate.kind.channel, values=values)


def _one_a_meaning(sensors: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Keep the first sensor of each unit: a device has one power, and which one that is a person has to know."""
    units: set[str] = set()
    for sensor, unit in sensors.items():
        if unit not in units:
            units.add(unit)
            yield sensor, unit


def _name(candidate: Candidate, names: set[str]) -> str:
    """Make a name of a topic, and of the channel where there are several."""
    last = candidate.kind.topic.replace("%prefix%/", "").replace("/%prefix%", "").split("/")[-1]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", last).strip("-_")[:48] or "meter"
    name = plain if candidate.kind.channel == 1 else f"{plain}-{candidate.kind.channel or 'all'}"
    number = 2
    while name in names:
        name, number = f"{plain}-{candidate.kind.channel}-{number}", number + 1
    names.add(name)
    return name if re.fullmatch(NAME_PATTERN, name) else f"m-{len(names)}"


def _line_of(candidate: Candidate) -> str:
    kind = candidate.kind
    channel = f" channel {kind.channel}" if kind.channel != 1 else ""
    shown = ", ".join(f"{metric} {value:g}" for metric, value in candidate.values.items() if not isinstance(value, str))
    if not candidate.values and kind.dialect == "esphome":
        sensors = ", ".join([*candidate.sensors][:8])
        shown = f"nobody tells the units of its sensors {sensors}: write its values by hand"
    return f"{kind.dialect}, topic {_cut(kind.topic)}{channel}: {shown or 'it says nothing of power or energy'}"


def _device_block(candidate: Candidate, name: str) -> str:
    kind = candidate.kind
    lines = [
        "[[sources.broker.devices]]",
        f'name = "{name}"',
        f'dialect = "{kind.dialect}"',
        f"topic = {json.dumps(kind.topic, ensure_ascii=False)}",
    ]
    if kind.channel != 1:
        lines.append(f"channel = {kind.channel}")
    if "pulses" in candidate.values:
        lines.append("pulses_per_kwh = 1000.0  # compare with what is printed on the meter")
    device = _device(candidate, name)
    if device.values:
        lines.append("values = [")
        lines += [f"    {{ path = {json.dumps(one.path)}, unit = {json.dumps(one.unit)} }}," for one in device.values]
        lines.append("]")
    return "\n".join(lines) + "\n"


def _object(payload: bytes) -> dict[str, Any]:
    try:
        content = parse(payload, "")
    except Refused:
        return {}
    return content if isinstance(content, dict) else {}


def _cut(topic: str) -> str:
    return topic if len(topic) <= _MOST_SHOWN else f"{topic[:_MOST_SHOWN]}…"
