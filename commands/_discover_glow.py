"""Listens for Glow displays of Hildebrand: at a broker of the house, or in the cloud by the display's number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from commands._discover_mqtt import Address, broker_block, listen
from commands._discovery import Discovery
from mqtt_helper import BrokerDown
from workers._glow import Announced, decode_cloud, decode_local, joined
from workers._json import Refused
from workers.glow import CLOUD_HOST, CLOUD_PORT

CLOUD: Final = Address(CLOUD_HOST, CLOUD_PORT, tls=True)
_LOCAL: Final = ("+/+/SENSOR/electricitymeter", "+/+/SENSOR/gasmeter", "+/+/STATE")
_NAMES: Final = {"electricity": "grid", "gas": "gas"}
_UNITS: Final = {
    "device_energy_wh": ("import", 1000, "kWh"),
    "device_energy_export_wh": ("export", 1000, "kWh"),
    "power_w": ("power", 1, "W"),
    "gas_m3": ("gas", 1, "m³"),
    "unit_rate_per_kwh": ("it announces", 1, "per kWh"),
    "standing_charge_per_day": ("and", 1, "per day"),
}


def look(address: Address, listen_s: float, mac: str = "") -> Discovery:
    """Listen to a broker of the house; with the `mac` of a display to the cloud, which is `CLOUD` with a user."""
    found = Discovery(
        what_now=[
            'local: switch on "Local MQTT" on the page of the display (it shows its address), with this broker',
            "electricity comes every ten seconds, gas twice an hour: listen longer with --wait 60",
            "cloud: ask Hildebrand to enable the account of the Bright app for MQTT, and name the display's MAC",
        ]
    )
    filters = [f"SMART/HILD/{mac}"] if mac else _LOCAL
    if mac:
        address = address._replace(tls=True)  # the password of the Bright app never leaves without
    try:
        heard = listen(address, filters, listen_s)
    except BrokerDown as down:
        found.problems.append(str(down))
        found.what_now = []
        return found
    meters: dict[tuple[str, str], tuple[str, Announced]] = {}
    for topic, payload in sorted(heard.items()):
        for prefix, announced in _meters(topic, payload, found):
            meters[announced.mac, announced.meter] = (prefix, announced)
    prefixes = sorted({prefix for prefix, _ in meters.values()})
    blocks = []
    for number, prefix in enumerate(prefixes):
        name = f"smart-{number + 1}" if number else "smart"
        blocks.append(_block(name, prefix, [one for place, one in meters.values() if place == prefix], address, mac))
    for (display, meter), (_, announced) in meters.items():
        found.lines.append(f"{meter} meter of display {display}: {_shown(announced)}")
        found.found.append({"mac": display, "meter": meter, "values": dict(announced.values)})
    found.block = "\n".join(blocks)
    return found


def _meters(topic: str, payload: bytes, found: Discovery) -> Iterator[tuple[str, Announced]]:
    """Decode one message: where it was said, and what of which meter."""
    try:
        if topic.endswith("/STATE"):
            if joined(topic, payload) is False:
                what_now = "move it nearer to the meter, or ask for it to be paired again in the Bright app"
                found.problems.append(f"the display {topic.split('/')[-2]} does not hear its meter; {what_now}")
            return
        announced: list[Announced | None] = [*decode_cloud(topic, payload)] or [decode_local(topic, payload)]
    except Refused as refused:
        found.problems.append(f"{topic}: {refused.what}")
        return
    for one in announced:
        if one and one.values:
            yield "" if topic.startswith("SMART/") else topic.partition("/")[0], one


def _shown(announced: Announced) -> str:
    shown = []
    for metric, value in announced.values.items():
        words, size, unit = _UNITS[metric]
        shown.append(f"{words} {float(value) / size:g} {unit}")
    return ", ".join(shown)


def _block(name: str, prefix: str, meters: list[Announced], address: Address, mac: str) -> str:
    lines = [broker_block(name, "glow", address).rstrip()]
    if mac:
        lines.append('feed = "cloud"')
    elif prefix != "glow":
        lines.append(f"prefix = {json.dumps(prefix, ensure_ascii=False)}")
    names: dict[str, Any] = {}
    for announced in meters:
        number = names[announced.meter] = names.get(announced.meter, 0) + 1
        named = _NAMES[announced.meter] + (f"-{number}" if number > 1 else "")
        lines += [
            "",
            f"[[sources.{name}.devices]]",
            f'name = "{named}"',
            f'meter = "{announced.meter}"',
            f'mac = "{announced.mac}"',
        ]
    return "\n".join(lines) + "\n"
