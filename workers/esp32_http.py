"""ESP32 pulse readers that post JSON over HTTP; each is answered only when its reading is safe.

    [sources.meter]
    kind = "esp32_http"
    enabled = true
    host = "127.0.0.1"         # "0.0.0.0" lets other machines in: then token_env is needed too
    port = 5000
    token_env = ""             # names the environment variable with the token that senders must show

    [[sources.meter.devices]]
    name = "esp32-meter"
    pulses_per_kwh = 1000.0    # printed on the meter: imp/kWh
    max_power_w = 25000.0      # more than that is refused as a fault of the sender

Try it with `curl -d '{"device": "esp32-meter", "pulses_total": 91234}' http://127.0.0.1:5000/`.
`Authorization: Bearer <token>` or `X-API-Key: <token>` shows the token. A sender that gets no 200 sends the same
message again, with the same `boot` and `seq`: it is booked once. `workers/_esp32.py` tells what a message may hold.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import os
import time
from collections.abc import Mapping
from typing import Any

from msgspec import structs

import logs
from config.settings import Port, SourceTable
from reading import Origin, Reading
from workers import Source, SourceError
from workers._esp32 import Device, Message, decode
from workers._http import Answer, Limits, Reply, Request, Server, refusal, success
from workers._json import NotJson, Refused

_PATHS = ("/", "/data", "/api/v1/ingest/pulse")
_HINT = b"""This is where ESP32 meters post their readings. Try it from a terminal:

    curl -d '{"device": "esp32-meter", "pulses_total": 91234}' http://THIS-ADDRESS/
"""
_REMEMBERED = 4096  # acknowledged messages: enough for hours of retries of every device of a home


class Options(SourceTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "esp32_http"`."""

    host: str = "127.0.0.1"
    port: Port = 5000
    token_env: str = ""
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names:
            raise ValueError("no device is configured: add a [[sources.<name>.devices]] table with a name")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the device {twice[0]} is configured twice: give each device a name of its own")
        if not self.token_env and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} lets other machines in: set token_env to the name of an environment variable"
                " that holds a token"
            )


class Esp32Http(Source):
    """Takes what arrives in a round, and answers it when the next round begins."""

    Options = Options
    acknowledges = True

    limits = Limits()
    round_s = 1.0

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.address = ("", 0)  # where it listens, once it is open
        self._devices: Mapping[str, Device] = {device.name: device for device in options.devices}
        self._token = b""
        self._server: Server | None = None
        self._readings: list[Reading] = []
        self._waiting: list[tuple[Reply, Answer]] = []
        # The numbered messages of this round, and those acknowledged before, each with a digest of its values.
        self._taken: dict[_Number, int] = {}
        self._acknowledged: dict[_Number, int] = {}

    def open(self) -> None:
        self._token = self._read_token()
        self._server = Server(self._admit, self._receive, self.refused, self.limits)
        try:
            self.address = self._server.open(self.options.host, self.options.port)
        except OSError as error:
            raise self._cannot_listen(error) from error

    def read(self) -> list[Reading]:
        if self._server is None:
            raise SourceError("the receiver is not open", "open it first")
        self._acknowledge()
        self._server.run(0 if self._waiting else self.round_s)
        readings, self._readings = self._readings, []
        return readings

    def close(self) -> None:
        server, self._server = self._server, None
        if server:
            server.close()
        # Nobody knows whether the readings of this round are safe: their senders shall send them again.
        self._readings, self._waiting, self._taken = [], [], {}

    def _acknowledge(self) -> None:
        """Answer the requests of the last round: that this round was asked for says that their readings are safe."""
        waiting, self._waiting = self._waiting, []
        self._acknowledged |= self._taken
        self._taken = {}
        while len(self._acknowledged) > _REMEMBERED:
            del self._acknowledged[next(iter(self._acknowledged))]
        for reply, answer in waiting:
            reply(answer)

    def _admit(self, request: Request) -> Answer | None:
        if request.path not in _PATHS:
            return refusal(404, "malformed", "there is nothing here", f"post to {_PATHS[-1]}")
        if request.path == "/" and request.method in ("GET", "HEAD"):
            return Answer(200, _HINT, (("Content-Type", "text/plain; charset=utf-8"),))
        if request.method != "POST":
            allow = "GET, HEAD, POST" if request.path == "/" else "POST"
            return refusal(405, "malformed", "readings are posted", "use the method POST", ("Allow", allow))
        if b"origin" in request.headers:
            # A page in somebody's browser can post to 127.0.0.1 too. Browsers say so; no meter does.
            return refusal(403, "unauthorised", "web pages may not post readings", "post from the meter itself")
        if self._token and not self._shows_token(request.headers):
            what_now = "send Authorization: Bearer <token>, the same token as in the environment of the receiver"
            challenge = ("WWW-Authenticate", "Bearer")
            return refusal(401, "unauthorised", "the token is missing or wrong", what_now, challenge)
        return None

    def _receive(self, body: bytes, reply: Reply) -> Answer | None:
        try:
            messages = decode(body, self._devices, time.monotonic_ns(), self.name)
        except NotJson as refused:
            return refusal(400, refused.reason, refused.what, refused.what_now)
        except Refused as refused:
            status = 413 if refused.reason == "too_large" else 422
            return refusal(status, refused.reason, refused.what, refused.what_now)

        fresh = [reading for message in messages if (reading := self._take(message))]
        if not fresh and not any(_number(reading) in self._taken for reading, _ in messages):
            return success(status="repeated", accepted=0)
        self._readings += fresh
        self._waiting.append((reply, success(status="ok" if fresh else "repeated", accepted=len(fresh))))
        if self._server:
            self._server.stop()
        return None

    def _take(self, message: Message) -> Reading | None:
        """Return what is new in a message, None if it was here before."""
        reading, trouble = message
        number, digest = _number(reading), hash(frozenset(reading.values.items()))
        known = self._taken.get(number, self._acknowledged.get(number)) if number else None
        if known == digest:
            self.refused["repeated"] += 1
            return None
        if known is not None:
            # Something new under an old number: the number means nothing then, and the counters still do.
            reading = structs.replace(reading, origin=_only_date(reading))
            trouble = trouble or (
                "it numbers two messages the same; "
                "let it send another `boot` whenever it starts, and a `seq` that rises"
            )
        elif number:
            self._taken[number] = digest
        self._note(reading.device, trouble)
        return reading

    def _note(self, device: str, trouble: str) -> None:
        if trouble:
            self.troubles[device] = trouble
        else:
            self.troubles.pop(device, None)

    def _shows_token(self, headers: Mapping[bytes, bytes]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        shown = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        return hmac.compare_digest(shown, self._token)

    def _read_token(self) -> bytes:
        variable = self.options.token_env
        if not variable:
            return b""
        token = os.environ.get(variable, "").strip()
        if not token:
            raise SourceError(
                f"the environment variable {variable} is not set",
                f"put the token of the senders into it, or correct token_env of [sources.{self.name}]",
            )
        logs.hide(token)
        return token.encode()

    def _cannot_listen(self, error: OSError) -> SourceError:
        host, port, table = self.options.host, self.options.port, f"[sources.{self.name}]"
        match error.errno:
            case errno.EADDRINUSE:
                what, what_now = "is in use", f"stop the other program or set another port for {table}"
            case errno.EACCES | errno.EPERM:
                what, what_now = "may not be used by this user", f"set a port above 1023 for {table}"
            case errno.EADDRNOTAVAIL:
                what = "is no address of this machine"
                what_now = f'set host = "127.0.0.1", or "0.0.0.0" for every address, for {table}'
            case _:
                what = f"cannot be listened on ({error.strerror or error})"
                what_now = f"correct host and port of {table}"
        return SourceError(f"port {port} on {host} {what}", what_now)


_Number = tuple[str, str, int]  # device, boot, sequence


def _number(reading: Reading) -> _Number | None:
    """Return what the device calls this message, if it calls it anything."""
    origin = reading.origin
    return (reading.device, origin.boot, origin.sequence) if origin and origin.boot else None


def _only_date(reading: Reading) -> Origin | None:
    return Origin("", 0, reading.origin.time_ns) if reading.origin and reading.origin.time_ns else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
