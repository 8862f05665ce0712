"""One plug or strip: who it has to be, where it is, when it is asked, and what is wrong with it, in words."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta

from config.settings import DeviceTable
from reading import Reading
from workers._kasa_answers import Facts, NoMeter, Outlet, Refused, checked, plain_id, shown_id, sum_of
from workers._kasa_dialects import Heard, dialect
from workers._kasa_memory import Memo
from workers._kasa_network import CALM, LADDER, MOVED, Announced, Connection, Fault, Link, Network, PlugFault
from workers._modbus import Breaker

_LONGEST_PAUSE_S: Final = 60.0
_CALL_S: Final = 1.5  # how long a plug may take to answer a call over UDP
_MOST_NAMED: Final = 8  # outlets in one sentence


class Device(DeviceTable, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a Kasa source."""

    host: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.-]{0,252}\Z")]
    device_id: str = ""
    pin_ip: bool = False
    child: Annotated[str, Meta(max_length=64)] = ""

    def __post_init__(self) -> None:
        if self.device_id and not plain_id(self.device_id):
            raise ValueError(
                f"device_id of {self.name} is no id: the MAC that is printed on the plug, 50:C7:BF:00:11:22 say, or"
                " the id that ./orchestrator.py discover kasa shows"
            )


class Plug:
    """One thing on the network: a plug, or a strip of which several outlets may be configured."""

    def __init__(
        self,
        devices: Sequence[Device],
        network: Network,
        *,
        source: str,
        calm_s: float,
        refused: Counter[str],
        twin: Callable[[Plug, frozenset[str]], str],
        now_s: Callable[[], float],
    ) -> None:
        self.devices = devices
        self.host = devices[0].host
        self.pin_ip = any(device.pin_ip for device in devices)
        self.ids: frozenset[str] = frozenset(plain for one in devices if (plain := plain_id(one.device_id)))
        self.address = self.host
        self.connection: Connection | None = None
        self.candidate: Announced | None = None  # where it may be now; believed when its id is right
        self.troubles: dict[str, str] = {}
        self.fault: Fault | None = None
        self.breaker = Breaker(_LONGEST_PAUSE_S)
        self.memo: Memo | None = None
        self._calm = Breaker(calm_s)
        self._network = network
        self._link: Link | None = None
        self._facts: Facts | None = None
        self._outlets: dict[str, str] = {}  # of the devices that are outlets
        self._misplaced: dict[str, str] = {}  # devices that are no outlet of it, and why
        self._rung = 0  # of the ladder
        self._look_again_s = 0.0  # whether somebody has renamed an outlet
        self._refused = refused
        self._twin = twin
        self._now_s = now_s
        self._was_met = False
        self._log = logging.getLogger(source)

    @property
    def is_lost(self) -> bool:
        """Whether it is worth looking for somewhere else: somebody whom we would know again."""
        gone = self.fault is Fault.STRANGER or (self.fault in MOVED and self.breaker.failures > 1)
        return gone and bool(self.ids) and not self.pin_ip

    def is_due(self, now_s: float) -> bool:
        return self.breaker.is_due(now_s) and self._calm.is_due(now_s)

    def remember(self, memo: Memo) -> None:
        """Take up what was known before the restart, unless the configuration speaks of another plug."""
        if self.ids and not self.ids & memo.ids:
            return
        self.ids, self.memo, self.connection = memo.ids, memo, memo.connection
        if not self.pin_ip:
            self.address = memo.address

    def offer(self, announced: Announced) -> bool:
        """Consider somebody who answered a call; return whether it is worth asking him who he is."""
        if announced.connection is None or not announced.ids & self.ids or self._is_bait(announced.connection):
            return False
        self.candidate = announced
        return True

    async def visit(self, within_s: float) -> list[Reading]:
        """Ask once, and note how it went. Never raise, never take longer."""
        try:
            async with asyncio.timeout(within_s):
                readings = await self._visit()
        except TimeoutError as error:
            await self._fail(self._network.fault_of(error, self._asked_at))
        except PlugFault as fault:
            await self._fail(fault)
        except Refused as refusal:
            self._refused[refusal.reason] += 1
            await self._fail(PlugFault(Fault.DAMAGED, f"{refusal.what} (at {self._asked_at})", "restart the plug"))
        except NoMeter:
            what_now = "take it out of the configuration: it can only switch"
            await self._fail(PlugFault(Fault.UNFIT, f"what is at {self._asked_at} has no meter", what_now))
        except Exception:  # noqa: BLE001 - ours to mend; until then it concerns this plug alone, and the others go on
            self._log.exception("%s: the answer of %s makes us stumble", self.devices[0].name, self._asked_at)
            what = f"wattherd stumbles over what comes from {self._asked_at}"
            await self._fail(PlugFault(Fault.UNFIT, what, "please report the lines of the log"))
        else:
            return readings
        return []

    async def close(self) -> None:
        link, self._link, self._facts = self._link, None, None
        if link is not None:
            await link.close()

    @property
    def is_known(self) -> bool:
        """Whether it can be asked at once, without a call that may take a while."""
        return self.connection is not None

    @property
    def _asked_at(self) -> str:
        return self.candidate.address if self.candidate else self.address

    async def _visit(self) -> list[Reading]:
        if self._facts is None or self._link is None or self._is_to_look_again():
            await self.close()
            self._link, self._facts = await self._meet()
        link, facts = self._link, self._facts
        if len(self._misplaced) == len(self.devices):
            await self.close()
            self._calm.fail(self._now_s(), calm=True)
            return []
        wanted = {*self._outlets.values()}
        outlets = [one.id for one in facts.outlets if one.id in wanted or self._is_whole(one)]
        heard = await dialect(link).ask(link, facts, outlets or [""])
        self._check(heard.ids, facts)
        self._succeed(link, facts)
        return self._readings(heard, outlets)

    def _is_to_look_again(self) -> bool:
        return bool(self._misplaced) and self._now_s() >= self._look_again_s

    def _is_whole(self, outlet: Outlet) -> bool:
        return outlet.has_meter and any(not device.child for device in self.devices)

    async def _meet(self) -> tuple[Link, Facts]:
        """Find out who is there and what he can."""
        connection = self.candidate.connection if self.candidate else self.connection
        if connection is None:
            for announced in await self._network.call(self.address, _CALL_S, alone=True):
                if announced.connection is None:
                    raise self._network.unknown(announced.address)
                if not self._is_bait(announced.connection):
                    connection = announced.connection
        if connection is None:
            return await self._climb()
        self._link = self._network.link(self._asked_at, connection)
        return self._link, self._fit(await dialect(self._link).meet(self._link))

    def _is_bait(self, connection: Connection) -> bool:
        """KLAP never tells the password; AES does, to whoever says that he is the plug. No firmware goes back to it."""
        return self.memo is not None and (self.memo.connection.encryption, connection.encryption) == ("KLAP", "AES")

    async def _climb(self) -> tuple[Link, Facts]:
        """Try what plugs speak, one after the other. A silent one costs a round; the next begins with the next rung."""
        fault = PlugFault(Fault.ABSENT, f"nobody takes a connection at {self.address}", "see that host is right")
        for _ in LADDER:
            self._link = self._network.link(self.address, LADDER[self._rung % len(LADDER)])
            try:
                facts = await dialect(self._link).meet(self._link)
            except (PlugFault, Refused) as refusal:
                await self._link.close()
                self._rung += 1
                if isinstance(refusal, PlugFault) and refusal.fault is Fault.SILENT:
                    raise
                if isinstance(refusal, PlugFault) and fault.fault is not Fault.LOCKED:
                    fault = refusal
            except asyncio.CancelledError:  # the round is over
                self._rung += 1
                raise
            else:
                return self._link, self._fit(facts)
        raise fault

    def _fit(self, facts: Facts) -> Facts:
        """See that it is the right one, and which of its outlets the configuration means."""
        self._check(facts.ids, facts)
        if not facts.has_meter:
            raise NoMeter
        self._outlets, self._misplaced = {}, {}
        for device in self.devices:
            if trouble := self._place_device(device, facts):
                self._misplaced[device.name] = trouble
        self.troubles = {**self._misplaced}
        self._look_again_s = self._now_s() + self._calm.longest_s
        return facts

    def _place_device(self, device: Device, facts: Facts) -> str:
        """Note which outlet a device is; return what is wrong with that."""
        if not device.child:
            return ""
        if not facts.outlets:
            return f"it is a {facts.model} at {self._asked_at}, which has no outlets to choose from; leave out child"
        found = outlets_meant(device.child, facts.outlets)
        listed = ", ".join(f'{number} "{one.alias}"' for number, one in enumerate(facts.outlets[:_MOST_NAMED], 1))
        if len(found) != 1:
            how_many = f"{len(found)} outlets" if found else "no outlet"
            return f'{facts.model} at {self._asked_at} has {how_many} "{device.child}"; set child to one of: {listed}'
        [outlet] = found
        if other := next((name for name, one in self._outlets.items() if one == outlet.id), ""):
            return f"it is the same outlet as {other}; set child to one of: {listed}"
        if not outlet.has_meter:
            return f'the outlet "{device.child}" has no meter; take it out of the configuration'
        self._outlets[device.name] = outlet.id
        return ""

    def _check(self, ids: frozenset[str], facts: Facts) -> None:
        """See who answers, every time: addresses change hands."""
        if self.ids and not self.ids & ids:
            him = f"a {facts.model} with MAC {shown_id(facts.mac)}" if facts.mac else f"a {facts.model}"
            known, new = shown_id(min(self.ids, key=len)), shown_id(min(ids, key=len))
            raise PlugFault(
                Fault.STRANGER,
                f"at {self._asked_at} is {him}, not the plug {known}",
                f'correct host; if you exchanged the plug, set device_id = "{new}"',
            )
        if other := self._twin(self, ids):
            what = f"at {self._asked_at} is the same plug as {other}"
            raise PlugFault(Fault.UNFIT, what, "take one of the two out of the configuration, or correct its host")

    def _succeed(self, link: Link, facts: Facts) -> None:
        self.breaker.succeed()
        self._calm.succeed()
        self.fault = None
        self._rung = 0
        if not self._was_met:
            self._was_met = True
            self._log.info(
                "%s: %s, firmware %s, MAC %s, at %s, speaks %s",
                ", ".join(device.name for device in self.devices),
                *(facts.model, facts.firmware or "unknown", shown_id(facts.mac), link.address),
                link.connection.encryption,
            )
        if self.memo and self.memo.address != link.address:
            self._log.info(
                "%s: found again at %s (it was at %s); to make that lasting, give it a fixed address in the router",
                ", ".join(device.name for device in self.devices),
                *(link.address, self.memo.address),
            )
        self.address, self.connection, self.candidate = link.address, link.connection, None
        self.ids = facts.ids
        self.memo = Memo(facts.ids, link.address, link.connection)

    async def _fail(self, fault: PlugFault) -> None:
        self.candidate = None
        is_chance = self._was_met and not self.breaker.failures and fault.fault is not Fault.STRANGER
        if fault.fault in CALM and not is_chance:
            self._calm.fail(self._now_s(), calm=True)
        self.breaker.fail(self._now_s())
        await self.close()
        if self.breaker.failures > 1:
            # It may speak something else since its last update, and be back where the configuration has it.
            self.connection = None
            if self.memo and not self.pin_ip:
                self.address = self.host if self.address == self.memo.address else self.memo.address
        if is_chance:
            return  # once happens on Wi-Fi, and some plugs forget the account for a moment
        self.fault = fault.fault
        self.troubles = {device.name: f"{fault.what}; {fault.what_now}" for device in self.devices}

    def _readings(self, heard: Heard, outlets: Sequence[str]) -> list[Reading]:
        for refusal in heard.refused.values():
            self._refused[refusal.reason] += 1
        readings = []
        for device in self.devices:
            if device.name in self._misplaced:
                continue
            mine = [self._outlets[device.name]] if device.child else [*(outlets or [""])]
            bad = next((heard.refused[one] for one in mine if one in heard.refused), None)
            if bad:
                self.troubles[device.name] = f"{bad.what}; compare with the app, and restart the plug"
                continue
            shown = [heard.shown[one] for one in mine]
            at_ns = max(at_ns for at_ns, _ in shown)
            values = shown[0][1] if len(mine) == 1 else sum_of(values for _, values in shown)
            readings.append(Reading(device.name, at_ns, checked(values)))
            self.troubles.pop(device.name, None)
        return readings


def outlets_meant(child: str, outlets: Sequence[Outlet]) -> list[Outlet]:
    """Return the outlets that are meant: by id, by what the app calls it, or by its number, counted from 1.

    >>> strip = [Outlet("8000", "Kettle"), Outlet("8001", "TV"), Outlet("8002", "TV")]
    >>> [[one.id for one in outlets_meant(child, strip)] for child in ("8001", "Kettle", "3", "TV", "9")]
    [['8001'], ['8000'], ['8002'], ['8001', '8002'], []]
    """
    for found in (
        [one for one in outlets if one.id == child],
        [one for one in outlets if one.alias == child],
        [one for number, one in enumerate(outlets, 1) if str(number) == child],
    ):
        if found:
            return found
    return []
