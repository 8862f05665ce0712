"""Tuya plugs, clamps and rail meters in the home network, without the cloud.

    [sources.tuya]
    kind = "tuya"
    enabled = true
    interval_s = 10.0          # how often each device is asked; what it sends in between is taken too
    keys_file = "devices.json" # of tinytuya's wizard, mode 600; a relative path counts from where wattherd lies
    timeout_s = 5.0            # how long a device may take to answer
    stale_after_s = 60.0       # what is older is not told, nor believed to be the direction of a current
    frozen_after_s = 900.0     # who tells the very same under load for so long is not believed; 0: always
    longest_pause_s = 60.0     # a device that fails is tried after 1, 2, 4 … and at last so many seconds

    [[sources.tuya.devices]]
    name = "kettle"
    id = "bf0123456789abcdefghij" # of the device; of its gateway, for one that hangs on a gateway
    host = ""                  # its IP address; "": where its broadcasts say, once its key is proven there
    key_env = ""               # names the environment variable with its key; "": the key is in keys_file
    version = "auto"           # of the protocol, "3.1" to "3.5"; auto: tried out once and remembered
    product = "auto"           # a table of workers/_tuya_products.toml; auto: by keys_file, or by what it tells
    channel = ""               # "a", "b" or "c": one clamp or one phase of a meter that has several
    cid = ""                   # of a device that hangs on a gateway: node_id in keys_file
    power_divisor = 1.0        # 10 for a rail meter that tells ten times too much power

Each device has one connection, which stays; none waits for another. `docs/sources/tuya.md` tells how to get the keys,
and about rail meters. `./orchestrator.py discover tuya` shows who is there.
"""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from msgspec import Meta

import logs
from config.settings import Positive, SourceTable
from reading import Reading
from workers import Source, SourceError
from workers._tuya_broadcast import Ears
from workers._tuya_device import Device, Meter, is_address
from workers._tuya_keys import WIZARD, Known, flaw_of, place_of, read, state_of
from workers._tuya_link import Link, Patience, Plan
from workers._tuya_memory import Finding, Memory
from workers._tuya_products import from_mapping
from workers._tuya_session import Driver, Heard

_ASK_EVERY_S: Final = 10.0  # where those are that nobody has found


class Options(SourceTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "tuya"`.

    It is asked, and yet no `PolledTable`: between two questions devices send by themselves and want a sign of life, so
    `read()` is called all the time, as that of a source that listens, and asks when it is time to.
    """

    interval_s: Annotated[float, Meta(ge=0.05, le=60)] = 10.0
    keys_file: str = "devices.json"
    timeout_s: Annotated[float, Meta(ge=0.05, le=30)] = 5.0
    stale_after_s: Positive = 60.0
    frozen_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 900.0
    longest_pause_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError(
                "no device is configured: ./orchestrator.py discover tuya prints a block for those it hears"
            )
        names: set[str] = set()
        places: dict[tuple[str, str, str], str] = {}
        shared: dict[tuple[str, str], tuple[Device, str]] = {}
        for device in self.devices:
            if device.name in names:
                raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
            place = (device.id, device.cid, device.channel)
            if place in places:
                raise ValueError(
                    f"{places[place]} and {device.name} are the same device: give them different channels or cids"
                )
            for what, default in (("host", ""), ("key_env", ""), ("version", "auto")):
                said = getattr(device, what)
                if said == default:
                    continue
                twin, before = shared.setdefault((device.id, what), (device, said))
                if before != said:
                    raise ValueError(f"{twin.name} and {device.name} share a connection: give them the same {what}")
            names.add(device.name)
            places[place] = device.name


class Tuya(Source):
    """Keeps one connection to each device, and waits for all of them at once."""

    Options = Options

    round_s = 1.0
    ears_on = ""  # the address where broadcasts are heard: every one
    patience = Patience()

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.links: dict[str, Link] = {}
        self._meters: list[Meter] = []
        self._keys: dict[str, str] = {}  # by id
        self._flaws: dict[str, str] = {}  # devices without a key, by name
        self._variables: dict[str, str] = {device.id: device.key_env for device in options.devices if device.key_env}
        self._file = place_of(options.keys_file)
        self._file_state: tuple[int, ...] = ()
        self._file_problem = ""
        self._selector: selectors.BaseSelector | None = None
        self._ears: Ears | None = None
        self._ask_s = 0.0
        self._findings: dict[str, Finding] = {}
        self._memory: Memory | None = None
        self._awake_s = 0.0

    def open(self) -> None:
        driver = Driver()
        driver.open()
        known = self._known()
        self._selector = selector = selectors.DefaultSelector()
        self._remember()
        self._awake_s = now_s = time.monotonic()
        able = [device for device in self.options.devices if device.name not in self._flaws]
        self._meters = [self._meter(device, known) for device in able]
        for device_id in dict.fromkeys(device.id for device in able):
            self.links[device_id] = link = self._link(device_id, driver, selector)
            wizard = known.get(device_id, Known())
            found = self._findings.get(device_id, Finding("", wizard.last_ip if is_address(wizard.last_ip) else ""))
            link.begin(now_s, version=found.version, host=found.host, hint=wizard.version)
        if any(not link.plan.host for link in self.links.values()):
            self._ears = Ears(driver, self.ears_on)
            self._ears.open()
            for ear in self._ears.sockets:
                selector.register(ear, selectors.EVENT_READ, self._ears)
            if self._ears.deaf:
                logging.getLogger(self.name).warning(
                    "UDP %s is in use by another program, so devices are not found there; set their host",
                    " and ".join(map(str, self._ears.deaf)),
                )

    def read(self) -> list[Reading]:
        if self._selector is None:
            raise SourceError("the source is not open", "open it first")
        self._watch_keys()
        now_s = time.monotonic()
        self._wake(now_s)
        ends_s = now_s + self.round_s
        while True:
            due_s = min((link.tend(now_s) for link in self.links.values()), default=ends_s)
            for key, _ in self._selector.select(max(0.0, min(due_s, ends_s) - now_s)):
                if isinstance(key.data, Link):
                    key.data.receive(time.monotonic())
                elif self._ears is not None:
                    self._listen(self._ears, key.fileobj)
            self._awake_s = now_s = time.monotonic()
            if now_s >= ends_s:
                break
        self._ask(now_s)
        self._note_findings()
        self.troubles = self._all_troubles()
        now_ns = time.monotonic_ns()
        return [reading for meter in self._meters if (reading := meter.reading(now_ns))]

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.links, self._meters, self._keys, self._flaws = {}, [], {}, {}
        if self._ears is not None:
            self._ears.close()
        if self._selector is not None:
            self._selector.close()
        if self._memory is not None and self._memory.descriptor not in self.kept.values():
            os.close(self._memory.descriptor)
        self._selector = self._ears = self._memory = None

    def _known(self) -> dict[str, Known]:
        """Return what keys_file tells of the devices. Where a key is missing, that device alone is in trouble."""
        known: dict[str, Known] = {}
        unreadable = self._file_problem = ""
        self._file_state = state_of(self._file)
        try:
            known = read(self._file)
        except SourceError as error:
            if not self._variables:
                raise
            unreadable = str(error)
        for device in self.options.devices:
            variable = self._variables.get(device.id)
            # Taken literally: spaces and odd signs belong to it.
            if variable:
                logs.hide(key := os.environ.get(variable, ""))
            else:
                key = known.get(device.id, Known()).key
            if not (flaw := flaw_of(key)):
                self._keys[device.id] = key
            elif variable:
                self._flaws[device.name] = f"{flaw} in {variable}; put the 16 characters of its key into that variable"
            else:
                what_now = f"let the wizard fetch the keys again ({WIZARD}), or correct id = {device.id!r}"
                self._flaws[device.name] = unreadable or f"{flaw} in {self._file}; {what_now}"
        if not self._keys:
            what, _, what_now = self._flaws[self.options.devices[0].name].partition("; ")
            raise SourceError(what, what_now)
        return known

    def _watch_keys(self) -> None:
        """Read the file again when the wizard has written it: a device that is paired again has a new key."""
        state = state_of(self._file)
        if state == self._file_state:
            return
        self._file_state, self._file_problem = state, ""
        try:
            known = read(self._file)
        except SourceError as error:
            self._file_problem = str(error)
            return
        for device in self.options.devices:
            key = known.get(device.id, Known()).key
            if device.id not in self._variables and not flaw_of(key) and key != self._keys.get(device.id):
                raise SourceError(f"{self._file} has new keys", "there is nothing to do, they are taken now")

    def _meter(self, device: Device, known: Mapping[str, Known]) -> Meter:
        if device.cid:
            mapping = next((one.mapping for one in known.values() if one.node_id == device.cid), {})
        else:
            mapping = known[device.id].mapping if device.id in known else {}
        return Meter(
            device,
            from_mapping(mapping),
            self.refused,
            stale_after_s=self.options.stale_after_s,
            frozen_after_s=self.options.frozen_after_s,
        )

    def _link(self, device_id: str, driver: Driver, selector: selectors.BaseSelector) -> Link:
        meters = [meter for meter in self._meters if meter.device.id == device_id]
        by_cid: dict[str, list[Meter]] = {}
        for meter in meters:
            by_cid.setdefault(meter.device.cid, []).append(meter)

        def heed(heard: Heard) -> None:
            at_ns = time.monotonic_ns()
            for meter in by_cid.get(heard.cid, ()):
                meter.take(heard, at_ns)

        plan = Plan(
            device_id,
            self._keys[device_id],
            host=next((meter.device.host for meter in meters if meter.device.host), ""),
            version=next((meter.device.version for meter in meters if meter.device.version != "auto"), "auto"),
            cids=tuple(by_cid),
            dps=lambda: sorted({dp for meter in meters for dp in meter.wanted}),
        )
        patience = replace(
            self.patience,
            interval_s=self.options.interval_s,
            timeout_s=self.options.timeout_s,
            longest_pause_s=self.options.longest_pause_s,
        )
        return Link(plan, patience, driver, selector, self.refused, heed)

    def _remember(self) -> None:
        """Take over what a predecessor found out, and keep what we do for a successor."""
        kept = self.kept.get(Memory.LABEL)
        self._memory = Memory.new() if kept is None else Memory(kept)
        if kept is None:
            self.deposit(Memory.LABEL, self._memory.descriptor)
        self._findings |= self._memory.load()

    def _note_findings(self) -> None:
        """Note what has proven to be right, when it differs from what was noted."""
        found = {device_id: Finding(link.version, link.host) for device_id, link in self.links.items() if link.has_told}
        if self._memory is not None and any(self._findings.get(one) != finding for one, finding in found.items()):
            self._findings |= found
            self._memory.note(self._findings)

    def _wake(self, now_s: float) -> None:
        """Whoever was stopped for long finds old news in every socket: nobody can tell from when."""
        if now_s - self._awake_s <= self.options.stale_after_s:
            return
        for link in self.links.values():
            link.drop(now_s)
            self.refused["stale"] += 1
        for meter in self._meters:
            meter.forget()

    def _listen(self, ears: Ears, ear: Any) -> None:
        for claim in ears.hear(ear):
            if link := self.links.get(claim.device_id):
                link.suggest(claim.host, claim.version)

    def _ask(self, now_s: float) -> None:
        if self._ears is None or now_s < self._ask_s:
            return
        self._ask_s = now_s + _ASK_EVERY_S
        if any(not link.plan.host and not link.has_told for link in self.links.values()):
            self._ears.ask()

    def _all_troubles(self) -> dict[str, str]:
        troubles = dict(self._flaws)
        for meter in self._meters:
            trouble = self.links[meter.device.id].trouble
            if trouble and self._file_problem and meter.device.id not in self._variables:
                trouble = self._file_problem  # it may hold the key that is missing
            if trouble := trouble or meter.trouble:
                troubles[meter.device.name] = trouble
        return troubles
