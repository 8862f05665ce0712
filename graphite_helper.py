"""Graphite's plaintext protocol: what a path may look like, how a record becomes lines, and how they reach carbon.

Carbon never answers. A line that it dislikes vanishes without a word, so nothing leaves here that it would not take.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import socket
import struct
import termios
import time
from collections.abc import Iterable
from itertools import groupby
from math import isfinite
from typing import Final

from printed import fill, print_numbers
from reading import TEXTS, Quality, Record, Value

MOST_PATH_CHARS: Final = 199  # the path becomes folders and a file name under carbon's own directory
PREFIX_PATTERN: Final = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z"
_NOT_OF_A_SEGMENT: Final = re.compile(r"[^a-z0-9_-]")
_MOST_TEMPLATES: Final = 10_000


def clean_segment(text: str) -> str:
    """Make `text` one segment of a path: lower case, and `_` for whatever carbon would stumble over or split at.

    >>> clean_segment("Fridge.door/2")
    'fridge_door_2'
    >>> clean_segment("")
    '_'
    """
    return _NOT_OF_A_SEGMENT.sub("_", text.lower()) or "_"


def metric_path(prefix: str, source: str, device: str, metric: str) -> str:
    """Name a series: `<prefix>.<source>.<device>.<metric>`. Raise ValueError if that is too long for a file system.

    >>> metric_path("home.electricity", "kasa", "Fridge", "power_w")
    'home.electricity.kasa.fridge.power_w'
    """
    segments = [*prefix.split("."), source, device, metric]
    path = ".".join(clean_segment(segment) for segment in segments)
    if len(path) > MOST_PATH_CHARS:
        raise ValueError(f"the Graphite path {path[:60]}… has {len(path)} characters, at most {MOST_PATH_CHARS} fit")
    return path


class LineEncoder:
    """Turns records into lines `path value seconds`. The names of a device are worked out once, not for each record."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        # A path is all that Graphite knows of a point, so it is the place to say that nothing was measured.
        self._simulated = f"{prefix}.simulated"
        self._templates: dict[tuple[str, ...], bytes] = {}

    def lines_of(self, records: Iterable[Record]) -> bytes:
        """Return `lines` of each; all their numbers are printed at once, which is several times faster."""
        records = list(records)
        templates: list[bytes] = []
        numbers: list[Value] = []
        simulated = Quality.SIMULATED  # once: an enum is slow to look up
        for second, some in groupby(records, lambda record: record.time_ns // 1_000_000_000):
            of_second = []
            for record in some:
                values = record.values
                prefix = self._simulated if record.quality is simulated else self._prefix
                names = (prefix, record.source, record.device, *values)
                template = self._templates.get(names)
                if template is None:
                    template = self._remember_template(names, without_texts=True)
                if template and second >= 0:
                    of_second.append(template)
                    numbers += values.values()
                else:
                    of_second.append(self.lines(record).encode("ascii"))
            # No path and no number has an @, so it can stand for the time.
            templates.append(b"".join(of_second).replace(b"@", b"%d" % second))
        text = fill(templates, numbers)
        return "".join(map(self.lines, records)).encode("ascii") if text is None else text

    def lines(self, record: Record) -> str:
        """Return one line a number, ASCII; nothing for text, NaN and infinity, which carbon cannot keep.

        Seconds are whole, because whisper's finest step is one second. Raise ValueError for a record that Graphite can
        never hold: a negative time means "now" to carbon, and now it was not.

        >>> record = Record("kasa", "Fridge", 1_763_640_605_900_000_000, {"power_w": 86.5, "state": "on"})
        >>> LineEncoder("home").lines(record)
        'home.kasa.fridge.power_w 86.5 1763640605\\n'
        """
        if record.time_ns < 0:
            raise ValueError("Graphite knows no time before 1970")
        values = record.values
        numbers = print_numbers(values.values())
        if numbers is None:
            values = {metric: float(value) for metric, value in values.items() if _is_finite(value)}
            numbers = print_numbers(values.values())
        if numbers is None:
            return ""
        prefix = self._simulated if record.quality is Quality.SIMULATED else self._prefix
        names = (prefix, record.source, record.device, *values)
        template = self._templates.get(names) or self._remember_template(names)
        return (template % tuple(numbers)).replace(b"@", b"%d" % (record.time_ns // 1_000_000_000)).decode()

    def path(self, record: Record, metric: str) -> str:
        """Name the series of one metric. Raise ValueError if that is too long for a file system."""
        prefix = self._simulated if record.quality is Quality.SIMULATED else self._prefix
        return metric_path(prefix, record.source, record.device, metric)

    def _remember_template(self, names: tuple[str, ...], *, without_texts: bool = False) -> bytes:
        """Keep the template of records that have these names; `without_texts` an empty one if a value is a text."""
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        prefix, source, device, *metrics = names
        template = b""
        if not (without_texts and TEXTS.intersection(metrics)):
            paths = [metric_path(prefix, source, device, metric) for metric in metrics]
            template = "".join(f"{path} %b @\n" for path in paths).encode("ascii")
        self._templates[names] = template
        return template


def _is_finite(value: float | str) -> bool:
    try:
        return not isinstance(value, str) and isfinite(value)
    except OverflowError:  # an integer beyond every float: carbon would read it as infinity
        return False


def send(host: str, port: int, lines: str | bytes | Iterable[str], timeout_s: float) -> None:
    """Return when carbon has read every line; raise OSError when that is not known, at the latest after `timeout_s`.

    Carbon sends nothing back, but it closes the connection when it has read to the end. So we close our half and wait
    for its half: only then is the last line out of every buffer between us.
    """
    payload = _payload(lines)
    deadline_s = time.monotonic() + timeout_s
    with _connect(host, port, deadline_s) as connection:
        connection.settimeout(_rest_s(deadline_s))
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)
        while True:
            connection.settimeout(_rest_s(deadline_s))
            if not connection.recv(4096):
                break
        # A carbon that is being stopped closes too, perhaps before everything has arrived. Then something of ours is
        # not acknowledged: what it closes after reading to the end is acknowledged to the last byte.
        if _unacknowledged_bytes(connection):
            raise ConnectionAbortedError("it closed the connection before it had read everything")


def _payload(lines: str | bytes | Iterable[str]) -> bytes:
    if isinstance(lines, bytes):
        return lines
    return (lines if isinstance(lines, str) else "".join(lines)).encode("ascii")


def _connect(host: str, port: int, deadline_s: float) -> socket.socket:
    """Connect to the first address of `host` that answers."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is not the name of a host") from error
    failure: OSError = OSError(f"{host!r} has no address")
    for family, kind, protocol, _, address in addresses:
        with contextlib.ExitStack() as undo:
            try:
                connection = undo.enter_context(socket.socket(family, kind, protocol))
                connection.settimeout(_rest_s(deadline_s))
                connection.connect(address)
            except OSError as error:
                failure = error
            else:
                undo.pop_all()
                return connection
    raise failure


def _rest_s(deadline_s: float) -> float:
    rest_s = deadline_s - time.monotonic()
    if rest_s <= 0:
        raise TimeoutError("timed out")
    return rest_s


def _unacknowledged_bytes(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ by its other name, see tcp(7)
    return int(struct.unpack("i", answer)[0])
