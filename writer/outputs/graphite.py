"""Graphite: every number of every record becomes a line to carbon, which is known to have read it before we go on.

In the configuration, with the defaults:

    [outputs.graphite]
    host = "127.0.0.1"          # where carbon listens for plain text
    port = 2003
    prefix = "home.electricity" # series are named <prefix>.<source>.<device>.<metric>, all in lower case
    retentions = "10s:7d,1m:30d,10m:1y"  # as in carbon's storage-schemas.conf for these series (deploy/graphite/)
    timeout_s = 10.0            # for 256 KiB of lines to be sent and read; a busy carbon holds back

What is older than the finest of these archives is summed up to the step of the one that it falls into, because whisper
itself would keep only the last reading of each slot. Simulated records go below `<prefix>.simulated`. Text (`state`)
has no place in Graphite: a record that has nothing else counts as written. Carbon keeps what it read in memory for a
while before it is in a file; a carbon that is killed then loses that, and no sender can see it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

from msgspec import Meta

from config.settings import OutputTable, Port, Positive, Site
from graphite_helper import PREFIX_PATTERN, LineEncoder, send
from reading import Record
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outputs._graphite_archives import LateSlots, archives

# The deadline is for one connection. A day's backlog must not have to fit into it on a slow carbon.
_MOST_BYTES_A_CONNECTION: Final = 256 * 1024


class Options(OutputTable, frozen=True):
    """`[outputs.graphite]`"""

    host: Annotated[str, Meta(pattern=r"^\S+\Z")] = "127.0.0.1"
    port: Port = 2003
    # 36 characters leave room for the longest source, device and metric.
    prefix: Annotated[str, Meta(pattern=PREFIX_PATTERN, max_length=36)] = "home.electricity"
    retentions: str = "10s:7d,1m:30d,10m:1y"
    timeout_s: Positive = 10.0

    def __post_init__(self) -> None:
        archives(self.retentions)  # raises ValueError for what carbon would refuse


class Graphite(Output):
    """Sends lines to carbon. The same line sent twice lands in the same slot, so a batch may come again."""

    Options = Options

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._encoder = LineEncoder(options.prefix)
        self._late = LateSlots(options.retentions, self._encoder, memo)

    def write(self, batch: Batch) -> None:
        now_s = time.time()
        late_before_ns = self._late.before_ns(now_s)
        lines, late, refused = self._lines(batch, late_before_ns)
        summed_up, notes = self._late.lines(late, now_s)
        for portion in _portions(lines + "".join(summed_up).encode("ascii")):
            try:
                send(self.options.host, self.options.port, portion, self.options.timeout_s)
            except OSError as error:
                where = f"carbon at {self.options.host}:{self.options.port}"
                raise OutputDown(f"{where}: {error.strerror or error}; is it running and in reach?") from error
        self._late.keep(notes, late=bool(late))
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def _lines(self, batch: Batch, late_before_ns: int) -> tuple[bytes, list[Record], dict[int, str]]:
        """Return the lines of what is not late, what is late, and why which record Graphite can never hold."""
        late: list[Record] = []
        refused: dict[int, str] = {}
        if min([record.time_ns for record in batch]) >= late_before_ns:
            with contextlib.suppress(ValueError):
                return self._encoder.lines_of(batch), late, refused
        texts: list[str] = []
        for index, record in enumerate(batch):
            try:
                lines = self._encoder.lines(record)
            except ValueError as error:
                refused[index] = str(error)
                continue
            if record.time_ns < late_before_ns:
                late.append(record)
            else:
                texts.append(lines)
        return "".join(texts).encode("ascii"), late, refused

    def close(self) -> None:
        """Nothing is open between two batches."""


def _portions(lines: bytes) -> Iterator[bytes]:
    """Cut `lines` into portions, each for one connection; none is empty."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + _MOST_BYTES_A_CONNECTION) + 1  # no line is nearly so long
        yield lines[start:end]
        start = end
