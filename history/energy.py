"""What a register rose in each of consecutive stretches of time; all of it, and nothing twice."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from history.buckets import REGISTER, Bucket, joined, micro

# What tells how far a register rose in a stretch: time and height of its first and of its last reading there, by how
# much it fell in between, and flags; behind them the number of the stretch. Thousands come straight from SQLite.
Height = tuple[int, float | str, int, float | str, int, int, int]


def height_of(bucket: Bucket | None, number: int = 0) -> Height | None:
    if bucket is None:
        return None
    return bucket.first_ns, bucket.first, bucket.last_ns, bucket.last, bucket.fallen, bucket.flags, number


def rises(
    before: Height | None, stretches: Sequence[Height | None], after: Height | None, edges: Sequence[int]
) -> list[int | None]:
    """Return the millionths that a register rose from each edge to the next; None where nothing is known.

    `before` and `after` are the nearest ones outside. What it rose from one reading to the next is spread evenly over
    the time between them, so the sum over a gap is true however it is cut. A fall is no negative consumption.
    """
    found: list[int | None] = [None] * len(stretches)
    place, since_ns, high = -1, 0, None  # of the one before
    for following, height in enumerate((before, *stretches, after), -1):
        if height is None:
            continue
        first_ns, first, last_ns, last, fallen, _, _ = height
        low = micro(first)
        rise = 0
        if high is not None:
            step = low - high if low > high else 0
            during_ns = first_ns - since_ns
            done = step * (edges[place + 1] - since_ns) // during_ns if during_ns else step
            if place >= 0:
                found[place] += done  # type: ignore[operator]
            for between in range(place + 1, following):
                share = step * (edges[between + 1] - since_ns) // during_ns if during_ns else step
                found[between] = share - done
                done = share
            rise = step - done
        place, since_ns, high = following, last_ns, micro(last)
        if 0 <= place < len(found):
            found[place] = rise + high - low + fallen
    return found


def changes_of(
    before: Bucket | None, stretches: Sequence[Bucket | None], after: Bucket | None, edges: Sequence[int]
) -> list[float | None]:
    """Return by how much a total, which may fall too, changed from each edge to the next; None: nothing is known.

    What it changed from one reading to the next is spread evenly over the time between them.
    """
    known = [bucket for bucket in (before, *stretches, after) if bucket and not isinstance(bucket.last, str)]
    times = [bucket.last_ns for bucket in known]
    totals = [float(bucket.last) for bucket in known]
    heights = [_height(times, totals, edge) for edge in edges]
    return [
        None if not known or end <= times[0] or start >= times[-1] else round(high - low, 6)
        for (start, end), (low, high) in zip(pairwise(edges), pairwise(heights), strict=True)
    ]


def _height(times: Sequence[int], totals: Sequence[float], at: int) -> float:
    """Return a total on the straight line between the readings around an instant; flat before and after them all.

    >>> [_height([10, 20], [1.0, 2.0], at) for at in (5, 10, 15, 25)]
    [1.0, 1.0, 1.5, 2.0]
    """
    place = bisect_right(times, at)
    if not times or place == 0:
        return totals[0] if totals else 0.0
    if place == len(times):
        return totals[-1]
    since_ns, until_ns = times[place - 1], times[place]
    return totals[place - 1] + (totals[place] - totals[place - 1]) * (at - since_ns) / (until_ns - since_ns)


def cut(bucket: Bucket, edges: Sequence[int]) -> list[Bucket]:
    """Cut a register's bucket at the edges that lie within it, as if it had risen evenly from its first reading on."""
    first, last = bucket.first_ns, bucket.last_ns
    inner = edges[bisect_right(edges, first) : bisect_right(edges, last)]
    if not inner:
        return [bucket]
    times = [first, *inner, last]
    low, rise = micro(bucket.first), bucket.rise
    heights = [bucket.first, *((low + rise * (time - first) // (last - first)) / 1e6 for time in inner)]
    parts = [
        Bucket(max(bucket.start_ns, start), 0, 0, bucket.least, bucket.most, start, height, end, following, 0, flags)
        for start, end, height, following in zip(times, times[1:], heights, [*heights[1:], bucket.last], strict=False)
        for flags in [bucket.flags]
    ]
    # The last part takes the fall, if there was one, so that what follows goes on from the last reading.
    parts[-1] = msgspec.structs.replace(parts[-1], fallen=bucket.fallen)
    parts[0] = msgspec.structs.replace(parts[0], n=bucket.n)
    return parts


def gathered(buckets: Sequence[Bucket], edges: Sequence[int], kind: int) -> list[Bucket | None]:
    """Join the buckets from each edge to the next."""
    if kind == REGISTER:
        buckets = [part for bucket in buckets for part in cut(bucket, edges)]
    groups: list[list[Bucket]] = [[] for _ in edges[1:]]
    for bucket in buckets:
        place = bisect_right(edges, bucket.start_ns) - 1
        if 0 <= place < len(groups):
            groups[place].append(bucket)
    return [joined(group, kind, edges[place]) if group else None for place, group in enumerate(groups)]
