"""Series as CSV, asked of the history in pieces, so that a download of years holds neither memory nor the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from api.times import utc
from history.buckets import HOUR_NS, SECOND_NS
from history.queries import Columns, Extent, History
from history.snapshot import Channel

HEADER: Final = "time,source,device,metric,n,mean,min,max,last,increase\n"
_STEPS_AT_ONCE: Final = 500
_ROWS_AT_ONCE: Final = 500  # written without letting the loop go on
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would reckon with


async def csv_of(
    history: History, wanted: Sequence[Extent], from_ns: int, to_ns: int, step_s: int | None
) -> AsyncIterator[bytes]:
    """Yield a header and one row a step, series after series; 0: every reading; None: about 400 steps of each."""
    for piece in pieces(history, wanted, from_ns, to_ns, step_s):
        if piece:
            yield piece
        await asyncio.sleep(0)


def pieces(history: History, wanted: Sequence[Extent], from_ns: int, to_ns: int, step_s: int | None) -> Iterator[bytes]:
    """Yield the same, some 500 steps at once, and nothing for a time in which nothing was measured."""
    yield HEADER.encode()
    for each in wanted:
        start_ns, end_ns = max(from_ns, each.first_ns), min(to_ns, each.last_ns + 1)
        if step_s is None:
            step_s = history.series(channel_of(each), from_ns, to_ns).step_s
        piece_ns = max(HOUR_NS, _STEPS_AT_ONCE * step_s * SECOND_NS)
        done_ns = 0  # a step that lies across two pieces is whole in the first one
        while start_ns < end_ns:
            until_ns = min(end_ns, start_ns + piece_ns)
            found = history.series(channel_of(each), start_ns, until_ns, step_s)
            rows = [row for row in _rows(found) if row[0] >= done_ns]
            yield b""
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                yield _text(each, rows[start : start + _ROWS_AT_ONCE])
            if rows:
                done_ns = rows[-1][0] + max(1, found.step_s * SECOND_NS)
            else:  # perhaps it was silent for months
                until_ns = history.next_ns(channel_of(each), until_ns) or end_ns
            start_ns = until_ns


def channel_of(extent: Extent) -> Channel:
    return extent.source, extent.device, extent.metric


def _rows(found: Columns) -> Iterator[tuple[int, *tuple[float | str | None, ...]]]:
    return zip(found.at_ns, found.n, found.mean, found.min, found.max, found.last, found.increase, strict=True)


def _text(extent: Extent, rows: Sequence[tuple[int, *tuple[float | str | None, ...]]]) -> bytes:
    name = ",".join(channel_of(extent))
    return "".join(f"{utc(at_ns)},{name},{','.join(map(_told, values))}\n" for at_ns, *values in rows).encode()


def _told(value: float | str | None) -> str:
    """Write a value; a text as a spreadsheet takes it for one.

    >>> [_told(value) for value in (None, 1.5, 86.0, -3.25, "idle", "=1+1", 'a "b", c')]
    ['', '1.5', '86', '-3.25', 'idle', "'=1+1", '"a ""b"", c"']
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value).removesuffix(".0")
    text = f"'{value}" if value.startswith(_FORMULA) else value
    text = text.replace("\r", " ").replace("\n", " ")
    return '"' + text.replace('"', '""') + '"' if {*',"'} & {*text} else text
