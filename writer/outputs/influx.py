"""InfluxDB 2 and 3, InfluxDB 1 and VictoriaMetrics: one point a record, over one connection that is kept.

In the configuration, with the defaults:

    [outputs.influx]
    url = "http://127.0.0.1:8086"
    api = "v2"                  # "v1" for InfluxDB 1.x; VictoriaMetrics takes both
    org = "home"                # of no meaning with v1
    bucket = "PowerLogger_raw"  # with v1 the name of the database
    token_env = ""              # the environment variable that holds the token, "INFLUX_TOKEN" say; "": no token
    username = ""               # with v1, where the server asks for it
    password_env = ""           # the environment variable that holds the password of `username`
    measurement = "electricity"
    pulse_measurement = "PowerPulse"  # where single pulses go: tag PulseType, field Pulse=1i
    timeout_s = 10.0            # for one request to be sent and answered

Tags are `site`, `source` and `device`; fields are the values, every number as a float. `quality` is a field of points
that were not measured, `clock` of those whose date the clock could not vouch for. A point that comes again replaces
itself, so nothing is counted twice.
"""

from __future__ import annotations

import base64
import email.utils
import gzip
import http.client
import io
import json
import os
import socket
import ssl
import time
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from msgspec import Meta, Struct

import logs
from config.settings import Name, OutputTable, Positive, Site
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outputs._line_protocol import LineProtocol

_MOST_ANSWER_BYTES: Final = 4096
_MOST_SHOWN_CHARS: Final = 300
_HEADERS: Final = {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Encoding": "gzip",
    "User-Agent": "wattherd",
}
_REFUSES_RECORDS: Final = frozenset({400, 413, 422})
_NotEmpty = Annotated[str, Meta(min_length=1)]
_Line = tuple[int, bytes]  # where the record is in the batch, and its line


class Options(OutputTable, frozen=True):
    """`[outputs.influx]`"""

    url: str = "http://127.0.0.1:8086"
    api: Literal["v2", "v1"] = "v2"
    org: _NotEmpty = "home"
    bucket: _NotEmpty = "PowerLogger_raw"
    token_env: str = ""
    username: str = ""
    password_env: str = ""
    measurement: Name = "electricity"
    pulse_measurement: Name = "PowerPulse"
    timeout_s: Positive = 10.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not self.url.isascii():
            shown = "what stands there" if "@" in self.url else repr(self.url)  # it may have a password in it
            raise ValueError(f"url must look like http://127.0.0.1:8086, not {shown}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(
                "url must be the plain address: secrets belong into the variables of token_env, password_env"
            )
        if any(char.isspace() for char in self.url):
            raise ValueError("url has a blank in it")
        _ = parts.port  # raises ValueError for one that is out of range


class _Answer(Struct, frozen=True):
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
        now_s = _unix_s(self.headers.get("date", ""))
        return max(0.0, until_s - (time.time() if now_s is None else now_s))

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


class Influx(Output):
    """Posts line protocol. What is wrong with a single record is found by halving the batch."""

    Options = Options

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._protocol = LineProtocol(options.measurement, site.name, options.pulse_measurement)
        self._url: SplitResult = urlsplit(options.url)
        self._target = self._url.path.rstrip("/") + _write_path(options)
        self._headers: dict[str, str] | None = None
        self._connection: http.client.HTTPConnection | None = None

    def write(self, batch: Batch) -> None:
        lines = [(index, line) for index, record in enumerate(batch) if (line := self._protocol.line(record))]
        refused: dict[int, str] = {}
        if lines:
            self._deliver(lines, refused)
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _deliver(self, lines: list[_Line], refused: dict[int, str]) -> None:
        """Post `lines`; where the server refuses some, halve until they are single, and deliver all the others.

        It may have stored a part of what it refused ("partial write"): that part comes again and replaces itself.
        """
        answer = self._post(b"".join(line for _, line in lines))
        taken = 200 <= answer.status < 300
        if answer.is_no_database and (taken or answer.status in (400, 422)):
            raise OutputDown(
                f"{self.options.url} is no database, it answers {answer.status}: {answer.says}",
                remedy="set url to the address of the database, https:// if it uses TLS",
            )
        if taken:
            return
        if answer.status not in _REFUSES_RECORDS:
            raise self._down(answer)
        if len(lines) == 1:
            refused[lines[0][0]] = f"{answer.status}: {answer.says}"
            return
        half = len(lines) // 2
        self._deliver(lines[:half], refused)
        self._deliver(lines[half:], refused)

    def _post(self, body: bytes) -> _Answer:
        headers = self._headers
        if headers is None:
            headers = self._headers = {**_HEADERS, **login_of(self.options)}
        packed = gzip.compress(body, compresslevel=1, mtime=0)
        try:
            try:
                reused = self._connection is not None
                return self._exchange(packed, headers)
            except ConnectionError:
                # A server may close a connection that was idle for long; that says nothing about the server.
                if not reused:
                    raise
                return self._exchange(packed, headers)
        except ssl.SSLCertVerificationError as error:
            raise OutputDown(
                f"{self.options.url}: {error.verify_message}",
                remedy="mend the certificate, or name its authority in the environment variable SSL_CERT_FILE",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise OutputDown(f"{self.options.url}: {why}; is it running and in reach?") from error

    def _exchange(self, body: bytes, headers: dict[str, str]) -> _Answer:
        """Send one request over the kept connection or a new one, and return the answer."""
        deadline_s = time.monotonic() + self.options.timeout_s
        done = False
        try:
            connection = self._connection = self._connection or self._connect()
            connection.response_class = _response_by(deadline_s)
            connection.sock.settimeout(_rest_s(deadline_s))
            try:
                connection.request("POST", self._target, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it did not listen to the end; it may have said why
            with connection.getresponse() as response:
                text = response.read(_MOST_ANSWER_BYTES)
                whole = response.isclosed()
                answer = _Answer(
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
        assert host is not None  # noqa: S101 - Options has looked
        connection = kind(host, self._url.port, timeout=self.options.timeout_s)
        try:
            connection.connect()
        except UnicodeError as error:
            raise OSError(f"{host!r} is not the name of a host") from error
        return connection

    def _down(self, answer: _Answer) -> OutputDown:
        """Say what an answer means that has nothing to do with single records."""
        what = f"{self.options.url} answers {answer.status}: {answer.says}"
        if answer.status in (408, 425, 429) or answer.status >= 500:
            return OutputDown(what, retry_after_s=answer.retry_after_s)
        if 300 <= answer.status < 400:
            return OutputDown(what, remedy=f"set url to where it points: {answer.headers.get('location', 'not told')}")
        remedies = {
            401: _remedy_for_login(self.options),
            403: f"let that token or user write to {self.options.bucket!r}, or mend bucket",
            404: _remedy_for_place(self.options),
        }
        return OutputDown(
            what, remedy=remedies.get(answer.status, "mend url or api: what answers there takes no line protocol")
        )


def login_of(options: Options) -> dict[str, str]:
    """Return the header that proves who we are, none where the server asks for no proof. Raise `OutputDown`."""
    if options.token_env:
        return {"Authorization": f"Token {_secret('token_env', options.token_env)}"}
    if not options.username:
        return {}
    password = _secret("password_env", options.password_env) if options.password_env else ""
    login = base64.b64encode(f"{options.username}:{password}".encode()).decode()
    logs.hide(login)
    return {"Authorization": f"Basic {login}"}


def _remedy_for_login(options: Options) -> str:
    if options.token_env:
        return f"put a token that the server knows into the variable {options.token_env} (token_env)"
    if options.username:
        return "mend username, or put the right password into the variable that password_env names"
    return "put a token into an environment variable, and the name of that variable into token_env"


def _remedy_for_place(options: Options) -> str:
    if options.api == "v1":
        return f"create the database {options.bucket!r} or mend bucket; else mend url or api"
    return (
        f"create the bucket {options.bucket!r} in the org {options.org!r} or mend bucket and org; "
        'for an InfluxDB 1.x set api = "v1"; else mend url'
    )


def _write_path(options: Options) -> str:
    if options.api == "v1":
        return "/write?" + urlencode({"db": options.bucket, "precision": "n"}, quote_via=quote)
    query = {"org": options.org, "bucket": options.bucket, "precision": "ns"}
    return "/api/v2/write?" + urlencode(query, quote_via=quote)


def _secret(option: str, variable: str) -> str:
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise OutputDown(
            f"the environment variable {variable} is empty", remedy=f"set {variable}, or mend {option} = {variable!r}"
        )
    logs.hide(secret)
    if not (secret.isascii() and secret.isprintable()):
        raise OutputDown(f"what {variable} holds is no token", remedy=f"set {variable} anew: it has stray characters")
    return secret


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


def _response_by(deadline_s: float) -> type[http.client.HTTPResponse]:
    class ResponseByDeadline(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            self.fp.close()
            self.fp = io.BufferedReader(_ReaderByDeadline(sock, deadline_s))

    return ResponseByDeadline
