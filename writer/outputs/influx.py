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
    bucket_1m = "PowerLogger_1m"      # what is summed up anew after late readings, if it is there: `influx setup`
    bucket_5m = "PowerLogger_5m"      # makes it. With v1 the names of retention policies; "": there is none
    bucket_1h = "PowerLogger_1h"
    timeout_s = 10.0            # for one request to be sent and answered

Tags are `site`, `source` and `device`; fields are the values, every number as a float. `quality` is a field of points
that were not measured, `clock` of those whose date the clock could not vouch for. A point that comes again replaces
itself, so nothing is counted twice. Lines are packed, unless they stay on this machine.
"""

from __future__ import annotations

import base64
import gzip
import ipaddress
import os
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Meta

import logs
from config.settings import Name, OutputTable, Positive, Site
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outputs._http import Answer, Connection, Unreachable
from writer.outputs._influx_late import LateRollups
from writer.outputs._influx_sums import Sums
from writer.outputs._line_protocol import LineProtocol

_REFUSES_RECORDS: Final = frozenset({400, 413, 422})
_SUMS_WITHIN_S: Final = 60.0  # an hour of readings, on a small and busy server
_NotEmpty = Annotated[str, Meta(min_length=1)]


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
    bucket_1m: str = "PowerLogger_1m"
    bucket_5m: str = "PowerLogger_5m"
    bucket_1h: str = "PowerLogger_1h"
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


class Influx(Output):
    """Posts line protocol. What is wrong with a single record is found by halving the batch."""

    Options = Options

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._protocol = LineProtocol(options.measurement, site.name, options.pulse_measurement)
        self._target = _write_path(options)
        self._is_near = is_this_machine(urlsplit(options.url).hostname or "")
        self._headers: dict[str, str] | None = None
        self._connection = Connection(options.url, options.timeout_s)
        self._server_s = 0.0  # what time it was there when it answered last
        self._late = LateRollups(options.url, options, memo, Sums(options, self._ask_for_sums))

    def write(self, batch: Batch) -> None:
        refused: dict[int, str] = {}
        if lines := self._protocol.lines(batch):
            self._deliver(batch, lines, 0, refused)
            self._late.note(batch, self._server_s)
            self._late.work(self._server_s)
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def close(self) -> None:
        self._connection.close()

    def _deliver(self, records: Batch, lines: bytes, place: int, refused: dict[int, str]) -> None:
        """Post the `lines` of `records`, the first of which is at `place` of the whole batch.

        Where the server refuses some, halve until they are single, and deliver all the others. It may have stored a
        part of what it refused ("partial write"): that part comes again and replaces itself.
        """
        answer = self._post(lines)
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
        if len(records) == 1:
            refused[place] = f"{answer.status}: {answer.says}"
            return
        half = len(records) // 2
        for some, first in ((records[:half], place), (records[half:], place + half)):
            if some_lines := self._protocol.lines(some):
                self._deliver(some, some_lines, first, refused)

    def _post(self, body: bytes) -> Answer:
        headers = {"Content-Type": "text/plain; charset=utf-8", **self._login()}
        if not self._is_near:  # to this very machine nothing is saved, and both ends would work for it
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=1, mtime=0)
        answer = self._ask("POST", self._target, body, headers)
        self._server_s = answer.at_s
        return answer

    def _ask_for_sums(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        return self._ask(
            method, target, body, {**headers, **self._login()}, max(self.options.timeout_s, _SUMS_WITHIN_S)
        )

    def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str], within_s: float = 0.0) -> Answer:
        try:
            return self._connection.ask(method, target, body, headers, within_s)
        except Unreachable as error:
            raise OutputDown(str(error), remedy=error.remedy) from error

    def _login(self) -> dict[str, str]:
        """Return the headers that say who we are; worked out once."""
        if self._headers is None:
            self._headers = {"User-Agent": "wattherd", **login_of(self.options)}
        return self._headers

    def _down(self, answer: Answer) -> OutputDown:
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


def is_this_machine(host: str) -> bool:
    """Whether what is sent to `host` reaches no network.

    >>> [is_this_machine(host) for host in ("localhost", "127.0.0.1", "::1", "influx.local", "192.168.0.7")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
