"""Asks a server over HTTP as a command does: once, within a time limit, and never by way of somebody else."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_MOST_BYTES: Final = 16_000_000
_MOST_SHOWN: Final = 160


class PeerDown(Exception):  # noqa: N818 - a state of the peer
    """It cannot be reached."""


class Answer(NamedTuple):
    """What it said."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    text: str

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def says(self) -> str:
        """Its own words, in one line."""
        told = self.told
        words = (told.get("message") or told.get("error") if isinstance(told, dict) else "") or self.text
        return " ".join(str(words).split())[:_MOST_SHOWN]

    @property
    def told(self) -> Any:
        """What it said as JSON, None if that is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


class _Stay(urllib.request.HTTPRedirectHandler):
    """A token goes to the address that the owner wrote, and never to where a server points."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Peer:
    """One server. `login` are the headers that prove who we are."""

    def __init__(self, url: str, login: Mapping[str, str], timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._login = dict(login)
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())

    def get(self, path: str, **query: str) -> Answer:
        """Raise `PeerDown`."""
        return self._ask("GET", path, query, None, {})

    def post(self, path: str, body: bytes, kind: str, **query: str) -> Answer:
        """Raise `PeerDown`."""
        return self._ask("POST", path, query, body, {"Content-Type": kind})

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        target = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(target, body, {**self._login, **headers}, method=method)  # noqa: S310 - http(s)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return _answer(answer.status, answer.headers, answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read(_MOST_BYTES))
        except urllib.error.URLError as error:
            why = error.reason.strerror if isinstance(error.reason, OSError) else str(error.reason)
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                why = error.reason.verify_message
            raise PeerDown(why or str(error.reason)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PeerDown(str(error) or type(error).__name__) from error


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body.decode("utf-8", "replace"))
