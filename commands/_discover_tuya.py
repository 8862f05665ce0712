"""Finds Tuya devices by what they broadcast in the home network, and knows them by the file of the wizard."""

from __future__ import annotations

import json
import re
import selectors
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from commands._discovery import Discovery
from commands._probe import install_command
from workers import SourceError
from workers._tuya_broadcast import Claim, Ears
from workers._tuya_keys import WIZARD, Known, flaw_of, place_of, read
from workers._tuya_products import from_mapping
from workers._tuya_session import VERSIONS, Driver

LISTEN_S: Final = 12.0  # devices tell where they are every 5 s or so
KEYS_FILE: Final = "devices.json"
_ASK_EVERY_S: Final = 3.0
_MOST_DEVICES: Final = 256


@dataclass(frozen=True, slots=True)
class _Seen:
    """A device: what it says of itself, and what the wizard wrote about it."""

    claim: Claim
    known: Known

    @property
    def is_meter(self) -> bool:
        """Whether it may measure: who has no mapping has to be tried."""
        return not self.known.mapping or bool(from_mapping(self.known.mapping))


def look(keys_file: str = KEYS_FILE, listen_s: float = LISTEN_S, address: str = "") -> Discovery:
    """Listen, and ask those that tell only who asks; no device is connected to. `address`: where to listen."""
    found = Discovery(
        what_now=[
            "see that the devices have power and are in the same network (no guest network, no other VLAN)",
            "close the phone app and look again: some are silent while it speaks to them",
            "let UDP 6666, 6667 and 7000 in, if this machine has a firewall",
        ]
    )
    driver = Driver()
    try:
        driver.open()
    except SourceError as missing:
        found.problems.append(f"{missing.what}; {install_command('tuya')}")
        found.what_now = []
        return found
    known = _wizards_file(keys_file, found)
    ears = Ears(driver, address)
    ears.open()
    try:
        claims = _heard(ears, listen_s)
    finally:
        ears.close()
    found.problems += [
        f"UDP {port} is in use by another program that does not share it; stop it (Home Assistant?) and look again"
        for port in ears.deaf
    ]
    seen = [_Seen(claim, known.get(claim.device_id, Known())) for claim in claims.values()]
    seen.sort(key=lambda one: [int(part) for part in one.claim.host.split(".")])
    found.lines += [_line_of(one, has_file=bool(known)) for one in seen]
    found.lines += _silent(known, claims)
    found.found = [_entry(one) for one in seen]
    found.block = _block([one for one in seen if one.is_meter], known, keys_file)
    return found


def _wizards_file(keys_file: str, found: Discovery) -> Mapping[str, Known]:
    try:
        return read(place_of(keys_file))
    except SourceError as error:
        found.problems.append(str(error))
        return {}


def _heard(ears: Ears, listen_s: float) -> dict[str, Claim]:
    """Return the last claim of each device."""
    claims: dict[str, Claim] = {}
    ends_s = time.monotonic() + listen_s
    ask_s = 0.0
    with selectors.DefaultSelector() as selector:
        for ear in ears.sockets:
            selector.register(ear, selectors.EVENT_READ, ear)
        while ears.sockets and (now_s := time.monotonic()) < ends_s:
            if now_s >= ask_s:
                ears.ask()
                ask_s = now_s + _ASK_EVERY_S
            for key, _ in selector.select(min(ends_s, ask_s) - now_s):
                for claim in ears.hear(key.data):
                    if claim.device_id in claims or len(claims) < _MOST_DEVICES:
                        claims[claim.device_id] = claim
    return claims


def _line_of(seen: _Seen, *, has_file: bool) -> str:
    claim, known = seen.claim, seen.known
    what = " ".join(word for word in (known.name, f"({known.product_name})" if known.product_name else "") if word)
    flaw = flaw_of(known.key)
    if not has_file:
        remark = ""
    elif flaw:
        remark = f", {flaw} in the file: run the wizard again ({WIZARD})"
    else:
        remark = "" if seen.is_meter else ", measures nothing"
    return f"{claim.host}: {what or 'unknown'}, id {claim.device_id}, version {claim.version or 'unknown'}{remark}"


def _silent(known: Mapping[str, Known], claims: Mapping[str, Claim]) -> list[str]:
    """Name those that the wizard knows and that were not heard."""
    return [
        f"not heard: {one.name or device_id}, id {device_id}" + (f", last seen at {one.last_ip}" if one.last_ip else "")
        for device_id, one in known.items()
        if device_id not in claims and not one.node_id
    ]


def _entry(seen: _Seen) -> dict[str, Any]:
    claim, known = seen.claim, seen.known
    return {
        "id": claim.device_id,
        "host": claim.host,
        "version": claim.version,
        "product_key": claim.product_key,
        "name": known.name,
        "product_name": known.product_name,
        "has_key": not flaw_of(known.key),
        "measures": seen.is_meter,
    }


def _block(seen: list[_Seen], known: Mapping[str, Known], keys_file: str) -> str:
    if not seen:
        return ""
    lines = ["[sources.tuya]", 'kind = "tuya"', f"keys_file = {json.dumps(keys_file)}"]
    taken: set[str] = set()
    for one in seen:
        claim = one.claim
        version = f'version = "{claim.version}"' if claim.version in VERSIONS else ""
        host = f'host = "{claim.host}"'
        if claim.version != "3.1":
            host += '  # or "": then it is found wherever it is'
        shared = [host, *([version] if version else [])]
        channels = _channels(one.known)
        children = {device_id: child for device_id, child in known.items() if child.parent == claim.device_id}
        if not children or from_mapping(one.known.mapping):
            for channel in channels:
                own = [f'channel = "{channel}"'] if channel else []
                lines += _table(_name(one.known.name, channel, taken), claim.device_id, [*shared, *own])
        for child in children.values():
            if child.node_id:
                own = [f"cid = {json.dumps(child.node_id)}"]
                lines += _table(_name(child.name, "", taken), claim.device_id, [*shared, *own])
    return "\n".join(lines) + "\n"


def _table(name: str, device_id: str, rest: list[str]) -> list[str]:
    return ["", "[[sources.tuya.devices]]", f'name = "{name}"', f'id = "{device_id}"', *rest]


def _channels(known: Known) -> list[str]:
    """Return the channels to configure: those of a meter that has several, else the whole device.

    >>> phases = {dp: {"code": f"phase_{one}"} for dp, one in (("6", "a"), ("7", "b"))}
    >>> _channels(Known(mapping=phases)), _channels(Known(mapping={"6": phases["6"]})), _channels(Known())
    (['a', 'b'], [''], [''])
    """
    channels = {channel for point in from_mapping(known.mapping).values() for channel in point.channels}
    return sorted(channels - {""}) if "b" in channels else [""]


def _name(words: str, channel: str, taken: set[str]) -> str:
    """Make a name of what the wizard calls it.

    >>> taken = set()
    >>> [_name("Küche: Kühlschrank", "", taken), _name("", "", taken), _name("茶", "a", taken), _name("?", "a", taken)]
    ['kuche-kuhlschrank', 'plug', 'plug-a', 'plug-a-2']
    """
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    name = "-".join(re.findall(r"[a-z0-9]+", plain))[:48].strip("-") or "plug"
    name = f"{name}-{channel}" if channel else name
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique
