"""Finds Kasa and Tapo plugs on the network of this machine."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from commands._discovery import Discovery
from commands._probe import install_command
from workers import SourceError
from workers._kasa_answers import Facts, Refused, shown_id
from workers._kasa_dialects import dialect
from workers._kasa_network import Announced, Fault, Network, PlugFault

_USERNAME: Final = "KASA_USERNAME"
_PASSWORD: Final = "KASA_PASSWORD"  # noqa: S105 - the name of a variable
_MOST_NAME: Final = 40


@dataclass(frozen=True, slots=True)
class _Met:
    """Somebody who answered, and what came of asking him."""

    announced: Announced
    facts: Facts | None = None
    fault: PlugFault | None = None

    @property
    def label(self) -> str:
        facts = self.facts
        model = (facts and facts.model) or self.announced.model or "something"
        mac = shown_id((facts and facts.mac) or self.announced.mac)
        alias = (facts and facts.alias) or self.announced.alias
        return f"{self.announced.address}: {model}" + (f' "{alias}"' if alias else "") + (f", MAC {mac}" if mac else "")


def look(target: str, timeout_s: float) -> Discovery:
    """Call everybody at the broadcast address `target`, and ask each who he is; nothing is switched or written.

    The account is that of `KASA_USERNAME` and `KASA_PASSWORD` in the environment, if they are there.
    """
    found = Discovery(
        what_now=[
            "see in the app that the plugs are there, and that this machine is in the same network as they",
            "name the broadcast address of their network: ./orchestrator.py discover kasa --target 192.168.1.255",
            "where calls do not come through (containers, subnets), write the addresses into the configuration",
        ]
    )
    username, password = os.environ.get(_USERNAME, ""), os.environ.get(_PASSWORD, "")
    network = Network(timeout_s, username, password)
    try:
        network.open()
    except SourceError as missing:
        found.problems.append(f"{missing.what}; {install_command('kasa')}")
        found.what_now = []
        return found
    met = asyncio.run(_meet_all(network, target, timeout_s))
    for one in met:
        found.lines += _lines_of(one)
        if one.fault:
            found.problems.append(f"{one.label}: {_advice(one.fault)}")
    good = [one for one in met if one.facts and one.facts.has_meter]
    found.found = [_entry(one, one.facts) for one in good if one.facts]
    if good:
        found.block = _block(good, with_account=any(_wants_account(one) for one in met))
    elif met:
        found.what_now = ["none of these has a meter that can be read; the account helps with new ones (see above)"]
    return found


async def _meet_all(network: Network, target: str, timeout_s: float) -> list[_Met]:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # strangers send the driver what they like
    announced = await network.call(target, timeout_s)
    met = await asyncio.gather(*(_meet(network, one) for one in announced))
    return sorted(met, key=lambda one: [int(part) for part in one.announced.address.split(".")])


async def _meet(network: Network, announced: Announced) -> _Met:
    if announced.connection is None:
        return _Met(announced, fault=network.unknown(announced.address))
    link = network.link(announced.address, announced.connection)
    try:
        return _Met(announced, facts=await dialect(link).meet(link))
    except PlugFault as fault:
        return _Met(announced, fault=fault)
    except Refused as refusal:
        return _Met(announced, fault=PlugFault(Fault.DAMAGED, refusal.what, "restart the plug"))
    finally:
        await link.close()


def _advice(fault: PlugFault) -> str:
    if fault.fault is Fault.LOCKED and not os.environ.get(_USERNAME):
        what_now = f"set {_USERNAME} and {_PASSWORD} in the environment, those of the app, and look again"
        return f"{fault.what}; {what_now}"
    return str(fault)


def _lines_of(one: _Met) -> list[str]:
    connection, facts = one.announced.connection, one.facts
    how = f" ({connection.encryption})" if connection else ""
    if facts is None:
        return [f"{one.label}{how}: cannot be read"]
    meter = "" if facts.has_meter else ": no meter"
    lines = [f"{one.label}, firmware {facts.firmware or 'unknown'}{how}{meter}"]
    return lines + [
        f'  outlet {number}: "{outlet.alias}"' + ("" if outlet.has_meter else ", no meter")
        for number, outlet in enumerate(facts.outlets, 1)
    ]


def _entry(one: _Met, facts: Facts) -> dict[str, Any]:
    return {
        "host": one.announced.address,
        "mac": shown_id(facts.mac),
        "model": facts.model,
        "alias": facts.alias,
        "firmware": facts.firmware,
        "outlets": [outlet.alias for outlet in facts.outlets if outlet.has_meter],
    }


def _wants_account(one: _Met) -> bool:
    return one.announced.connection is not None and one.announced.connection.encryption != "XOR"


def _block(met: Sequence[_Met], *, with_account: bool) -> str:
    lines = ["[sources.kasa]", 'kind = "kasa"']
    if with_account:
        lines += [
            f'username_env = "{_USERNAME}"  # put KASA_USERNAME=… and',
            f'password_env = "{_PASSWORD}"  # KASA_PASSWORD=… into .env',
        ]
    names: set[str] = set()
    for one in met:
        facts = one.facts
        if facts is None:
            continue
        where = [f'host = "{one.announced.address}"']
        if facts.mac:
            where.append(f'device_id = "{shown_id(facts.mac)}"')
        outlets = {number: outlet.alias for number, outlet in enumerate(facts.outlets, 1) if outlet.has_meter}
        for number, alias in (outlets or {0: facts.alias}).items():
            fallback = f"plug-{one.announced.address.rpartition('.')[2]}" + (f"-{number}" if number else "")
            lines += ["", "[[sources.kasa.devices]]", f'name = "{_name(alias, fallback, names)}"', *where]
            if number:
                lines.append(f'child = "{number}"')
    return "\n".join(lines) + "\n"


def _name(alias: str, fallback: str, taken: set[str]) -> str:
    """Make a name of what the app calls a plug, one that nobody has yet.

    >>> taken = set()
    >>> [_name(alias, "plug-20", taken) for alias in ("Fridge Plug", "fridge plug", "Küche (1)", "§§")]
    ['fridge-plug', 'fridge-plug-2', 'k-che-1', 'plug-20']
    """
    name = re.sub(r"[^a-z0-9]+", "-", alias.lower()).strip("-")[:_MOST_NAME].strip("-") or fallback
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique
