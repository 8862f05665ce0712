"""TP-Link Kasa and Tapo plugs and strips with a meter, old and new protocols, all of a home in one process.

    [sources.plugs]
    kind = "kasa"
    enabled = true
    interval_s = 10.0
    timeout_s = 3.0                        # how long a plug may take to answer one question
    username_env = ""                      # "KASA_USERNAME": the variable with the e-mail of the TP-Link account
    password_env = ""                      # "KASA_PASSWORD"; old plugs need neither
    discovery_target = "255.255.255.255"   # where plugs are called, or the broadcast address of their network
    rediscover_every_s = 300.0             # how often a plug that is lost is looked for at other addresses
    auth_retry_s = 900.0                   # before a plug that refuses the account is asked again

    [[sources.plugs.devices]]
    name = "fridge"
    host = "192.168.1.20"                  # its address or its name in the network
    device_id = ""                         # its MAC or its own id; "": who is met first is remembered
    pin_ip = false                         # true: it is never looked for at another address
    child = ""                             # of a strip: the outlet by its number from 1, its name in the app, or its id

Every plug is asked at the same time and has a deadline of its own; one that is silent is asked ever more seldom, and
delays no other. Who answers is compared with who was met first, in every answer. `./orchestrator.py discover kasa`
shows which plugs there are. `docs/sources/kasa.md` tells about the account, strips and troubles.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

import logs
from config.settings import PolledTable, Positive
from reading import Reading
from workers import Source, SourceError
from workers._kasa_memory import Memory
from workers._kasa_network import Network
from workers._kasa_plug import Device, Plug

_LONGEST_ROUND_S: Final = 8.0  # the heart does not beat in a round
_CALL_S: Final = 2.0  # how long plugs have to answer a call to all
_LEAST_REST_S: Final = 0.5  # of a round, for something to be begun in it


class Options(PolledTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "kasa"`."""

    interval_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 10.0
    timeout_s: Annotated[float, Meta(ge=0.1, le=5)] = 3.0
    username_env: str = ""
    password_env: str = ""
    discovery_target: Annotated[str, Meta(pattern=r"\A[0-9.]{7,15}\Z")] = "255.255.255.255"
    rediscover_every_s: Positive = 300.0
    auth_retry_s: Positive = 900.0
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError("no device is configured: add a [[sources.<name>.devices]] table with name and host")
        if bool(self.username_env) != bool(self.password_env):
            raise ValueError("username_env and password_env belong together: set both, or none for old plugs alone")
        names = [device.name for device in self.devices]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the device {twice[0]} is configured twice: give each device a name of its own")
        for devices in by_host(self.devices):
            _check_host(devices)

    @property
    def budget_s(self) -> float:
        """How long a round may take."""
        return min(0.9 * self.interval_s, _LONGEST_ROUND_S)


class Kasa(Source):
    """Asks all plugs at once."""

    Options = Options

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.plugs: list[Plug] = []
        self.now_s: Callable[[], float] = time.monotonic  # when who is due; a round itself is timed by the loop
        self._memory = Memory(name, None)
        self._network = Network(options.timeout_s)
        self._runner: asyncio.Runner | None = None
        self._next_call_s = 0.0
        self._log = logging.getLogger(name)

    def open(self) -> None:
        options = self.options
        self._network = Network(options.timeout_s, self._secret("username_env"), self._secret("password_env"))
        self._network.open()
        self._memory = Memory(self.name, self.directory)
        known = self._memory.load()
        self.plugs = []
        for devices in by_host(options.devices):
            plug = Plug(
                devices,
                self._network,
                source=self.name,
                calm_s=options.auth_retry_s,
                refused=self.refused,
                twin=self._twin,
                now_s=self.now_s,
            )
            if memo := known.get(plug.host):
                plug.remember(memo)
            self.plugs.append(plug)
        self._next_call_s = 0.0
        self._runner = asyncio.Runner()
        # Anybody on the network may send the driver what it stumbles over while it waits for answers to a call.
        self._runner.get_loop().set_exception_handler(self._note_stray)

    def read(self) -> list[Reading]:
        if self._runner is None:
            raise SourceError("the source is not open", "that is a fault of wattherd; please report it")
        readings = self._runner.run(self._round())
        self.troubles = {device: trouble for plug in self.plugs for device, trouble in plug.troubles.items()}
        self._memory.save({plug.host: plug.memo for plug in self.plugs if plug.memo})
        return readings

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.run(_closed(self.plugs))
            runner.close()

    async def _round(self) -> list[Reading]:
        """Ask all whom we know how to ask; then, in what is left of the round, look for the others."""
        ends_s = time.monotonic() + self.options.budget_s
        due = [plug for plug in self.plugs if plug.is_due(self.now_s())]
        strangers = [plug for plug in due if not plug.is_known]
        readings = await _visited([plug for plug in due if plug.is_known], ends_s)
        # Calling takes time, and the first call reckons a key for seconds on a small machine.
        readings += await _visited(strangers, ends_s)
        if any(plug.is_lost for plug in self.plugs) and self.now_s() >= self._next_call_s:
            readings += await self._look_for_lost(ends_s)
        return readings

    async def _look_for_lost(self, ends_s: float) -> list[Reading]:
        if (rest_s := ends_s - time.monotonic() - _LEAST_REST_S) < _LEAST_REST_S:
            return []  # the next round may have more time
        self._next_call_s = self.now_s() + self.options.rediscover_every_s
        found = await self._network.call(self.options.discovery_target, min(_CALL_S, rest_s))
        moved = [plug for plug in self.plugs if plug.is_lost and any(plug.offer(one) for one in found)]
        return await _visited(moved, ends_s)

    def _twin(self, plug: Plug, ids: frozenset[str]) -> str:
        """Name another device that is the same plug: it would be in every sum twice."""
        for other in self.plugs:
            if other is plug:
                break
            if other.ids & ids:
                return other.devices[0].name
        return ""

    def _secret(self, option: str) -> str:
        variable = getattr(self.options, option)
        if not variable:
            return ""
        secret = os.environ.get(variable, "")
        if not secret:
            raise SourceError(
                f"the environment variable {variable} is not set",
                f"put it into .env, or correct {option} of [sources.{self.name}]",
            )
        logs.hide(secret)
        return secret

    def _note_stray(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.refused["malformed"] += 1
        self._log.debug("a stray message: %s", context.get("exception") or context.get("message"))


def by_host(devices: Iterable[Device]) -> list[list[Device]]:
    """Put the outlets of one strip together, in the order of the configuration."""
    hosts: dict[str, list[Device]] = {}
    for device in devices:
        hosts.setdefault(device.host.lower(), []).append(device)
    return [*hosts.values()]


def _check_host(devices: Sequence[Device]) -> None:
    """Refuse what would count a watt twice: a plug and itself, a strip and its outlets."""
    if len(devices) == 1:
        return
    first = devices[0]
    for device in devices:
        if not device.child:
            other = next(one for one in devices if one is not device)
            raise ValueError(
                f"{device.name} is all of {device.host} and {other.name} is there too, so its watts would count twice:"
                " give each device of a strip a child, or leave one device without child"
            )
        if device.device_id != first.device_id or device.pin_ip != first.pin_ip:
            raise ValueError(
                f"{first.name} and {device.name} are outlets of one strip, {device.host}:"
                " give both the same device_id and pin_ip"
            )
    children = [device.child for device in devices]
    if twice := next((child for child in children if children.count(child) > 1), ""):
        raise ValueError(f'two devices are the outlet "{twice}" of {first.host}: give each a child of its own')


async def _visited(plugs: Sequence[Plug], ends_s: float) -> list[Reading]:
    rest_s = ends_s - time.monotonic()
    if not plugs or rest_s < _LEAST_REST_S:
        return []
    found = await asyncio.gather(*(plug.visit(rest_s) for plug in plugs))
    return [reading for readings in found for reading in readings]


async def _closed(plugs: Sequence[Plug]) -> None:
    await asyncio.gather(*(plug.close() for plug in plugs))
