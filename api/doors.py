"""Who may ask: by which name, in which way, from where, and with which key.

- The name in `Host` must be one of ours, or an address: a page from elsewhere whose name was made to point here (DNS
  rebinding) still sends its own name.
- Nothing but GET and HEAD is let in, so nothing can be changed.
- From this machine itself nobody needs a key; from anywhere else everybody does, but for the empty page and its files.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.answers import refusal
from config.interface import Api, hash_of_key, is_loopback
from config.words import printable

# They hold no data: a page that asks for the key must be there before it.
_OPEN: Final = frozenset({"/", "/docs", "/healthz", "/links", "/openapi.json", "/redoc"})
_OPEN_BELOW: Final = "/static/"
# Whoever adds one of these passes on the word of somebody else, who may be anywhere.
_FORWARDED: Final = frozenset(
    {"cf-connecting-ip", "fly-client-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-real-ip"}
)
_FORWARDED_BEGINS: Final = ("x-forwarded", "x-original-", "x-cluster-")


class Porch:
    """Turns away who comes by another name than ours, and who wants to do more than look."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._names = names_of(api)
        self._methods = ("GET", "HEAD", "OPTIONS") if api.cors_origins else ("GET", "HEAD")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None
        host = Headers(scope=scope).get("host", "")
        if scope["method"] not in self._methods:
            sentence = "this is asked with GET; nothing here can be changed over the network"
            answer = refusal(405, sentence, {"Allow": ", ".join(self._methods)})
        elif host and not is_ours(host, self._names):
            name = printable(host)[:80]
            answer = refusal(400, f"{name} is no name of this house; add it to [api] allowed_hosts, or use its address")
        await (answer or self._app)(scope, receive, send)


class Door:
    """Asks everybody who is not on this machine for the key."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._key_hash = api.key_hash
        self._always = api.always_ask_for_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        answer = None
        if not is_open(scope["path"]) and (self._always or not is_local(scope, headers)):
            if not self._key_hash:
                answer = refusal(403, "only this machine itself may ask; ./orchestrator.py key makes a key for others")
            elif not (given := key_in(headers)):
                sentence = "a key is needed; send it as X-API-Key, or as Authorization: Bearer"
                answer = refusal(403, sentence)
            elif not hmac.compare_digest(hash_of_key(given), self._key_hash):
                answer = refusal(403, "this is not the key; ./orchestrator.py key makes a new one where it is lost")
        await (answer or self._app)(scope, receive, send)


def names_of(api: Api) -> frozenset[str]:
    """Return by which names we are called, besides our addresses."""
    own = socket.gethostname().lower()
    names = {"localhost", api.host, own, f"{own.partition('.')[0]}.local", *api.allowed_hosts}
    return frozenset(name.lower().strip("[]") for name in names)


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether the value of a `Host` header is one of these names, or an address, which nobody can bend.

    >>> names = {"localhost", "pi.local"}
    >>> [is_ours(host, names) for host in ("PI.local:8000", "pi.local.", "[::1]:8000", "192.168.1.7", "evil.example")]
    [True, True, True, True, False]
    """
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name.rstrip(".") in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def is_local(scope: Scope, headers: Headers) -> bool:
    """Whether a request comes from this machine, and not from a proxy on it that speaks for somebody else."""
    client = scope.get("client")
    if not client or not is_loopback(client[0]):
        return False
    return not any(name in _FORWARDED or name.startswith(_FORWARDED_BEGINS) for name in headers.keys())  # noqa: SIM118


def key_in(headers: Headers) -> str:
    """Return the key that somebody sends, or nothing."""
    if key := headers.get("x-api-key", ""):
        return key
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""
