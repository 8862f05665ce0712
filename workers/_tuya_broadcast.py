"""Hears where Tuya devices say that they are: they broadcast it over UDP every few seconds, and it proves nothing."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from typing import Any, Final

from workers._tuya_session import UNDECODABLE, Driver

PORTS: Final = (6666, 6667, 7000)  # 3.1 in the clear; 3.3 and 3.4; 3.5 when it is asked to
_ASK_PORT: Final = 7000
_MOST_BYTES: Final = 2048
_MOST_DATAGRAMS: Final = 64  # a turn
_ID: Final = re.compile(r"[A-Za-z0-9]{8,64}", re.ASCII)
_VERSION: Final = re.compile(r"3\.[0-9]", re.ASCII)
_PRODUCT_KEY: Final = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
_ANY_ADDRESS: Final = "192.0.2.1"  # nothing is sent there: it only shows which of our addresses faces the network


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody at `host` says to be."""

    device_id: str
    host: str
    version: str = ""
    product_key: str = ""


class Ears:
    """The sockets that hear broadcasts, on every address unless told otherwise."""

    def __init__(self, driver: Driver, address: str = "") -> None:
        self._driver = driver
        self._address = address
        self.sockets: list[socket.socket] = []
        self.deaf: list[int] = []  # ports that another program has for itself

    def open(self) -> None:
        for port in PORTS:
            ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_BROADCAST):
                    ear.setsockopt(socket.SOL_SOCKET, option, 1)
                ear.bind((self._address, port))
            except OSError:
                ear.close()
                self.deaf.append(port)
            else:
                self.sockets.append(ear)

    def close(self) -> None:
        for ear in self.sockets:
            ear.close()
        self.sockets = []

    def hear(self, ear: socket.socket) -> list[Claim]:
        """Take the claims that have arrived."""
        claims = []
        for _ in range(_MOST_DATAGRAMS):
            try:
                datagram, sender = ear.recvfrom(_MOST_BYTES)
            except OSError:
                break
            if claim := claimed(self._driver, datagram, sender[0]):
                claims.append(claim)
        return claims

    def ask(self, to: str = "255.255.255.255") -> None:
        """Ask those that say where they are only to who asks (some of 3.5). What cannot be sent is not missed."""
        if not self.sockets:
            return
        library = self._driver.library
        question = json.dumps({"from": "app", "ip": _own_address()}, separators=(",", ":")).encode()
        message = library.TuyaMessage(0, library.REQ_DEVINFO, None, question, 0, True, library.PREFIX_6699_VALUE, True)
        try:
            self.sockets[-1].sendto(library.pack_message(message, hmac_key=library.udpkey), (to, _ASK_PORT))
        except OSError:
            pass


def claimed(driver: Driver, datagram: bytes, sender: str) -> Claim | None:
    """Decode a broadcast; None if it is none. Where it came from counts, not what it says about that."""
    try:
        fields: Any = json.loads(driver.library.decrypt_udp(datagram))
    except (*UNDECODABLE, driver.library.DecodeError):
        return None
    if not isinstance(fields, dict):
        return None
    device_id = _word(fields, "gwId", _ID)
    if not device_id:
        return None
    return Claim(device_id, sender, _word(fields, "version", _VERSION), _word(fields, "productKey", _PRODUCT_KEY))


def _word(fields: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ANY_ADDRESS, _ASK_PORT))
            address: str = probe.getsockname()[0]
        except OSError:
            return "0.0.0.0"  # noqa: S104, RUF100 - nobody listens there
        return address
