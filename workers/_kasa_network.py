"""The way to plugs: who is on the network, how each is spoken to, and what goes wrong, in words.

`Network.open()` is the only place that imports the driver. Its own `Device.update()` is not used: it asks for more than
the meter, it fails on clocks and time zones that we do not need, and when a part of an answer is missing it shows the
value of the update before.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from workers import SourceError
from workers._kasa_answers import plain_id, shown_text

_CLOSE_WITHIN_S: Final = 0.5
_NOBODY: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
_MOST_ANNOUNCED: Final = 512  # plugs of one network; whoever pretends to be more is not listened to
_UNKNOWN: Final = (
    "its firmware speaks something that python-kasa {version} does not know",
    "look for a newer wattherd, or switch on Third-Party Compatibility in the Tapo app (Me, Third-Party Services)",
)
_NO_ACCOUNT: Final = "name the variables with the TP-Link account in username_env and password_env"
_WRONG_ACCOUNT: Final = (
    "compare e-mail and password with those of the Tapo or Kasa app, upper and lower case count in both; switch on"
    " Third-Party Compatibility in the Tapo app (Me, Third-Party Services); if it helps nothing, its firmware may be"
    " newer than python-kasa {version}"
)


class Fault(enum.Enum):
    """What can go wrong with one plug."""

    SILENT = "silent"
    ABSENT = "absent"  # nobody is at its address, or somebody refuses
    DAMAGED = "damaged"
    LOCKED = "locked"  # the account does not fit
    UNKNOWN = "unknown"  # it speaks something that the driver does not know
    STRANGER = "stranger"  # another plug is at its address
    UNFIT = "unfit"  # it cannot give what the configuration wants of it


# What only a person can mend: asking often is of no use, and plugs lock out whoever tries passwords.
CALM: Final = frozenset({Fault.LOCKED, Fault.UNKNOWN, Fault.UNFIT})
# What a plug does that has moved to another address.
MOVED: Final = frozenset({Fault.SILENT, Fault.ABSENT, Fault.STRANGER})


class PlugFault(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """One plug cannot be read now: what, and what now."""

    def __init__(self, fault: Fault, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")
        self.fault = fault
        self.what = what
        self.what_now = what_now


class Connection(Struct, frozen=True):
    """How a plug is spoken to. There is no secret in it."""

    family: str  # IOT.… is the legacy dialect, SMART.… the other
    encryption: str  # XOR, KLAP or AES
    login_version: int | None = None
    https: bool = False
    http_port: int | None = None

    @property
    def is_legacy(self) -> bool:
        return self.family.startswith("IOT.")


class Announced(Struct, frozen=True):
    """What somebody on the network says of himself, unasked for a password. It is believed only to look there."""

    address: str
    connection: Connection | None  # None: nothing that the driver knows
    ids: frozenset[str] = frozenset()
    mac: str = ""
    model: str = ""
    alias: str = ""


Said = tuple[frozenset[str], str, str, str]  # ids, MAC, model, alias

# What plugs are known to speak, the likeliest first: for where no call over UDP comes through (subnets, containers).
LADDER: Final = (
    Connection("IOT.SMARTPLUGSWITCH", "XOR"),
    Connection("SMART.KASAPLUG", "KLAP", 2),
    Connection("IOT.SMARTPLUGSWITCH", "KLAP"),
)


class Link:
    """One connection to one plug. It is made with the first question, and anew after whatever went wrong."""

    def __init__(self, network: Network, address: str, connection: Connection) -> None:
        self.address = address
        self.connection = connection
        self.questions = 0
        self._network = network
        self._protocol: Any = None

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, within `timeout_s` a try. Raise `PlugFault`.

        Plugs close connections and forget sessions when they like, so what is broken at once is tried once more at
        once. Silence is not: it has cost its time.
        """
        for is_last in (False, True):
            try:
                return await self._ask_once(question)
            except PlugFault as fault:
                if is_last or fault.fault is not Fault.DAMAGED:
                    await self.close()
                    raise
        raise AssertionError

    async def close(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            await closed(protocol)

    async def _ask_once(self, question: Mapping[str, Any]) -> dict[str, Any]:
        network = self._network
        try:
            if self._protocol is None:
                self._protocol = network.protocol(self.address, self.connection)
            self.questions += 1
            async with asyncio.timeout(network.timeout_s):
                answer = await self._protocol.query({**question}, retry_count=0)
        except Exception as error:
            # Whatever the driver makes of a strange answer, it concerns this plug alone.
            raise network.fault_of(error, self.address) from error
        if not isinstance(answer, dict):
            raise PlugFault(Fault.DAMAGED, f"the answer from {self.address} is no table", "restart the plug")
        return answer


class Network:
    """Makes links, calls for plugs, and translates what the driver raises."""

    def __init__(self, timeout_s: float, username: str = "", password: str = "") -> None:
        self.timeout_s = timeout_s
        self._username = username
        self._password = password
        self._kasa: Any = None
        self._get_protocol: Callable[..., Any] = _not_open

    def open(self) -> None:
        """Import the driver. Raise `SourceError` if it is not there."""
        try:
            import kasa
            from kasa.device_factory import get_protocol
        except ModuleNotFoundError as error:
            raise SourceError(
                f"the package {error.name} is not installed",
                "run: .venv/bin/pip install --require-hashes -r requirements/kasa.txt",
            ) from error
        # It tells as errors what it mends itself, and shows what it asked; what a person can mend is in our words.
        logging.getLogger("kasa").setLevel(logging.CRITICAL)
        self._kasa, self._get_protocol = kasa, get_protocol

    def link(self, address: str, connection: Connection) -> Link:
        return Link(self, address, connection)

    def protocol(self, address: str, connection: Connection) -> Any:
        kasa = self._kasa
        parameters = kasa.DeviceConnectionParameters.from_values(
            connection.family,
            connection.encryption,
            login_version=connection.login_version,
            https=connection.https,
            http_port=connection.http_port,
        )
        config = kasa.DeviceConfig(
            host=address,
            timeout=self.timeout_s + 1.0,  # ours comes first: the driver's own starts tries that nobody asked for
            credentials=self._credentials(),
            connection_type=parameters,
        )
        protocol = self._get_protocol(config)
        if protocol is None:
            raise kasa.UnsupportedDeviceError(f"no protocol for {connection}")
        return protocol

    async def call(self, target: str, within_s: float, *, alone: bool = False) -> list[Announced]:
        """Return who answers a call over UDP: a whole network by its broadcast address, or one plug (`alone`)."""
        told: dict[str, Said] = {}

        def note(raw: Any) -> None:
            if len(told) < _MOST_ANNOUNCED:
                told[raw["meta"]["ip"]] = said_in(raw["discovery_response"])

        devices: dict[str, Any] = {}
        try:
            if alone:
                target = await _address_of(target)
            # Not within a deadline of ours: before the first call the driver reckons a key, for seconds on a small Pi.
            devices = await self._kasa.Discover.discover(
                target=target, discovery_timeout=within_s, on_discovered_raw=note
            )
        except (self._kasa.KasaException, TimeoutError, OSError):
            pass  # without a network there is nobody
        connections = {}
        for address, device in devices.items():
            connections[address] = _connection(device.config.connection_type)
            await closed(device.protocol)
        return [
            Announced(address, connections.get(address), *said)
            for address, said in told.items()
            if (said[0] or address in connections) and (not alone or address == target)
        ]

    def fault_of(self, error: Exception, address: str) -> PlugFault:
        """Say what an exception of the driver means."""
        if isinstance(error, TimeoutError):
            what_now = "see that it has power and its Wi-Fi, and that host is right"
            return PlugFault(Fault.SILENT, f"it does not answer at {address}", what_now)
        if isinstance(error, self._kasa.AuthenticationError):
            if not self._username:
                return PlugFault(Fault.LOCKED, f"it wants an account at {address}", _NO_ACCOUNT)
            what_now = _WRONG_ACCOUNT.format(version=self._kasa.__version__)
            return PlugFault(Fault.LOCKED, f"it does not take the account at {address}", what_now)
        if isinstance(error, self._kasa.UnsupportedDeviceError):
            return self.unknown(address)
        if _is_absent(error):
            what_now = "see that it has power and its Wi-Fi, and that host is right"
            return PlugFault(Fault.ABSENT, f"nobody takes a connection at {address}", what_now)
        return PlugFault(
            Fault.DAMAGED,
            f"what comes from {address} is no answer",
            "pull the plug out for ten seconds; see that no other program asks it all the time",
        )

    def unknown(self, address: str) -> PlugFault:
        what, what_now = _UNKNOWN
        version = self._kasa.__version__
        return PlugFault(Fault.UNKNOWN, f"{what.format(version=version)} (at {address})", what_now)

    def _credentials(self) -> Any:
        return self._kasa.Credentials(self._username, self._password) if self._username else None


async def closed(protocol: Any) -> None:
    """Close a connection of the driver, whatever state it is in."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_WITHIN_S):
            await protocol.close()


async def _address_of(host: str) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(host, 0, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    return str(found[0][4][0])


def said_in(response: object) -> Said:
    """Return ids, MAC, model and alias of an answer to a call, as far as it has them.

    >>> said_in({"result": {"device_id": "00" * 16, "mac": "50-C7-BF-00-11-22", "device_model": "P110(UK)"}})[1:]
    ('50C7BF001122', 'P110(UK)', '')
    >>> said_in({"system": {"get_sysinfo": {"deviceId": "80" * 20, "mac": "50:C7:BF:00:11:22", "alias": "Fridge",
    ...     "model": "HS110(UK)"}}})[1:]
    ('50C7BF001122', 'HS110(UK)', 'Fridge')
    >>> said_in([]), said_in({"system": 7})
    ((frozenset(), '', '', ''), (frozenset(), '', '', ''))
    """
    table: Any = response if isinstance(response, dict) else {}
    system = table.get("system")
    info = table.get("result") or (system.get("get_sysinfo") if isinstance(system, dict) else None)
    if not isinstance(info, dict):
        return frozenset(), "", "", ""
    mac = plain_id(info.get("mac", info.get("mic_mac")))
    ids = frozenset(one for one in (mac, plain_id(info.get("device_id", info.get("deviceId")))) if one)
    return ids, mac, shown_text(info.get("device_model", info.get("model"))), shown_text(info.get("alias"))


def _connection(parameters: Any) -> Connection:
    return Connection(
        parameters.device_family.value,
        parameters.encryption_type.value,
        parameters.login_version,
        parameters.https,
        parameters.http_port,
    )


def _is_absent(error: BaseException) -> bool:
    """Whether a chain of exceptions began with the kernel saying that there is nobody."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in _NOBODY or isinstance(cause, socket.gaierror)):
            return True
        cause = cause.__cause__
    return False


def _not_open(*_: Any) -> Any:
    raise RuntimeError("open() comes first")
