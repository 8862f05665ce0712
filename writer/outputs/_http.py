"""One kept connection to an HTTP server, where every request is answered within its time or fails."""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import socket
import ssl
import time
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

_MOST_ANSWER_BYTES: Final = 65536
_MOST_SHOWN_CHARS: Final = 300


class Answer(Struct, frozen=True):
    status: int
    text: str  # the beginning of what the server said
    headers: dict[str, str]  # names in lower case

    @property
    def retry_after_s(self) -> float | None:
        """`Retry-After`: seconds, or a date by the server's own clock, whatever ours says."""
        wish = self.headers.get("retry-after", "").strip()
        if wish.isascii() and wish.isdigit():
            return float(wish[:9])
        until_s = _unix_s(wish)
        if until_s is None:
            return None
        return max(0.0, until_s - self.at_s)

    @property
    def at_s(self) -> float:
        """When it was given, in seconds since 1970, by the server's own clock if it tells."""
        told_s = _unix_s(self.headers.get("date", ""))
        return time.time() if told_s is None else told_s

    @property
    def is_no_database(self) -> bool:
        """Whether this is a web page (a router's log-in, a proxy) or the complaint of a door that wants TLS."""
        return "html" in self.headers.get("content-type", "") or "HTTPS server" in self.text

    @property
    def says(self) -> str:
        """The server's own words, in one line."""
        try:
            told = json.loads(self.text)
            words = str(told.get("message") or told.get("error") or self.text)
        except (ValueError, AttributeError):
            words = self.text
        return " ".join(words.split())[:_MOST_SHOWN_CHARS]


class Unreachable(Exception):  # noqa: N818 - a state of the peer, as `OutputDown`
    """No answer that can be used: what the matter is, and what a person could mend, if anything."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


class Connection:
    """Sends requests to `url` over a connection that is kept, and made anew when the server has closed it."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._shown = url
        self._url = urlsplit(url)
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, within_s: float = 0.0
    ) -> Answer:
        """Return the answer to one request, whatever its status. Raise `Unreachable` where there is none in time.

        `target` begins with a slash and comes after the path of `url`. A request that was lost with a connection is
        sent a second time, so it must be one that may come twice.
        """
        target = self._url.path.rstrip("/") + target
        within_s = within_s or self._timeout_s
        try:
            try:
                reused = self._connection is not None
                return self._exchange(method, target, body, headers or {}, within_s)
            except ConnectionError:
                # A server may close a connection that was idle for long; that says nothing about the server.
                if not reused:
                    raise
                return self._exchange(method, target, body, headers or {}, within_s)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{self._shown}: {error.verify_message}",
                remedy="mend the certificate, or name its authority in the environment variable SSL_CERT_FILE",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise Unreachable(f"{self._shown}: {why}; is it running and in reach?") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, target: str, body: bytes, headers: dict[str, str], within_s: float) -> Answer:
        """Send one request over the kept connection or a new one, and return the answer."""
        deadline_s = time.monotonic() + within_s
        done = False
        try:
            connection = self._connection = self._connection or self._connect()
            connection.response_class = partial(_ResponseByDeadline, deadline_s=deadline_s)  # type: ignore[assignment]
            connection.sock.settimeout(_rest_s(deadline_s))
            try:
                connection.request(method, target, body or None, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it did not listen to the end; it may have said why
            with connection.getresponse() as response:
                text = response.read(_MOST_ANSWER_BYTES)
                whole = response.isclosed()
                answer = Answer(
                    status=response.status,
                    text=text.decode("utf-8", "replace"),
                    headers={name.lower(): value for name, value in response.getheaders()},
                )
            done = whole and connection.sock is not None
            return answer
        finally:
            if not done:
                self.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        host = self._url.hostname
        assert host is not None  # noqa: S101 - who made the url has looked
        connection = kind(host, self._url.port, timeout=self._timeout_s)
        try:
            connection.connect()
        except UnicodeError as error:
            raise OSError(f"{host!r} is not the name of a host") from error
        return connection


def _unix_s(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _rest_s(deadline_s: float) -> float:
    rest_s = deadline_s - time.monotonic()
    if rest_s <= 0:
        raise TimeoutError("timed out")
    return rest_s


class _ReaderByDeadline(io.RawIOBase):
    """Reads a socket up to a deadline. http.client limits each read only, so a server that drips would hold it."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._socket = connection
        self._raw = connection.makefile("rb", buffering=0)
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_rest_s(self._deadline_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _ResponseByDeadline(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline_s: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_ReaderByDeadline(sock, deadline_s))
