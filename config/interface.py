"""`[api]`: where the page and the interface are, who may ask them, and with which key."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta

from config.lines import Place
from config.table import Port, Table

_KEY_HASH: Final = re.compile("sha256:[0-9a-f]{64}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,255}")


class Appliance(Table, frozen=True, kw_only=True):
    """`[api] appliances`: the number and the name by which an app knows a channel."""

    id: Annotated[int, Meta(ge=1, le=1_000_000)]
    name: Annotated[str, Meta(min_length=1, max_length=80)]
    channel: str


class Api(Table, frozen=True, kw_only=True):
    """`[api]`"""

    enabled: bool = True
    host: Annotated[str, Meta(pattern=r"\A\S+\Z")] = "127.0.0.1"
    port: Port = 8000
    key_hash: str = ""
    always_ask_for_key: bool = False
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    access_log_days: Annotated[int, Meta(ge=0, le=3650)] = 7
    appliances: tuple[Appliance, ...] = ()

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        if self.key_hash and not _KEY_HASH.fullmatch(self.key_hash):
            yield ("key_hash",), "is not what ./orchestrator.py key writes; run it, it makes a new key"
        if self.enabled and not self.key_hash:
            if not is_loopback(self.host):
                yield ("host",), "others could read everything there without a key; ./orchestrator.py key makes one"
            if self.always_ask_for_key:
                yield ("always_ask_for_key",), "there is no key to ask for; ./orchestrator.py key makes one"
        for name in self.allowed_hosts:
            if not _HOST_NAME.fullmatch(name):
                yield ("allowed_hosts",), f'{name!r:.60} is no name of a host; write it without port, "pi.example.org"'
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                yield ("cors_origins",), f'{origin!r:.60} is no origin; write it without a path, "https://example.org"'
        for what in ("id", "channel"):
            all_of_them = [getattr(one, what) for one in self.appliances]
            for number, one in enumerate(all_of_them):
                if one in all_of_them[:number]:
                    yield ("appliances", number, what), f"{one!r:.60} is that of another appliance too"


def hash_of_key(key: str) -> str:
    """Return what of a key is kept. One round is enough: keys are 256 bits of chance, and no words of a person.

    >>> hash_of_key("")[:20]
    'sha256:e3b0c44298fc1'
    """
    return f"sha256:{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}"


def is_loopback(host: str) -> bool:
    """Whether only this machine itself reaches a host.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "raspberrypi", "::ffff:127.0.0.1")]
    [True, True, True, False, False, True]
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address).is_loopback
