"""What a stretch of time of one series comes down to: a bucket, made of points or of smaller buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import groupby, pairwise
from operator import le, or_
from typing import Any, Final

from msgspec import Struct

from reading import COUNTERS, Clock, Quality, Value

SECOND_NS: Final = 10**9
MINUTE_NS: Final = 60 * SECOND_NS
FIVE_MINUTES_NS: Final = 300 * SECOND_NS
HOUR_NS: Final = 3600 * SECOND_NS

# What a series is; how it is summed up follows from that.
GAUGE, REGISTER, BOOKING, TEXT = range(4)
KIND_NAMES: Final = ("gauge", "register", "booking", "text")

# What is to be told of a reading; a bucket has the flags of all its readings.
ESTIMATED, SIMULATED, RESTAMPED, UNSYNCED = 1, 2, 4, 8
_MEASURED: Final = Quality.MEASURED  # an enum is slow to look up
_SYNCED: Final = Clock.SYNCED
_FLAG_OF_QUALITY: Final = {Quality.MEASURED: 0, Quality.ESTIMATED: ESTIMATED, Quality.SIMULATED: SIMULATED}
_FLAG_OF_CLOCK: Final = {Clock.SYNCED: 0, Clock.RESTAMPED: RESTAMPED, Clock.UNSYNCED: UNSYNCED}

Point = tuple[int, float | str, int]  # UTC in ns, value, flags

_MOST_TOTAL: Final = 2**62  # the file holds twice that
_MOST_FALLEN: Final = 2**58  # so that some dozens of such hours can be added


class Bucket(Struct, frozen=True, gc=False):
    """What a stretch of one series comes down to. Amounts are whole millionths of the unit, so that they add up.

    There are thousands of them, and none can be part of a circle: the garbage collector need not look at them.
    """

    start_ns: int
    n: int  # readings
    total: int | float | dict[str, int]  # of a gauge or of bookings; of a text how often each came; 0 for a register
    least: float
    most: float
    first_ns: int  # a register's first reading; of all others it is the last one too
    first: float | str
    last_ns: int
    last: float | str
    fallen: int = 0  # by how much a register fell between first and last, which is no negative consumption
    flags: int = 0

    @property
    def rise(self) -> int:
        """How far a register rose from the first reading to the last, in millionths."""
        return micro(self.last) - micro(self.first) + self.fallen


# What a person booked or took back afterwards, by the register that it belongs to.
BOOKINGS: Final = {"energy_wh": "energy_correction_wh", "energy_export_wh": "energy_export_correction_wh"}


def kind_of(metric: str, value: Value) -> int:
    """Tell what a series is by its name, unless what it says is no number."""
    if isinstance(value, str):
        return TEXT
    if metric in COUNTERS:
        return REGISTER
    return BOOKING if metric in BOOKINGS.values() else GAUGE


def flags_of(quality: Quality, clock: Clock) -> int:
    if quality is _MEASURED and clock is _SYNCED:  # nearly always
        return 0
    return _FLAG_OF_QUALITY[quality] | _FLAG_OF_CLOCK[clock]


def micro(value: float | str) -> int:
    """Return whole millionths.

    >>> micro(91234.5), micro(0.1) + micro(0.2) == micro(0.3)
    (91234500000, True)
    """
    return round(value * 1e6) if isinstance(value, float) else int(value) * 1_000_000


def micros(values: Sequence[Any]) -> list[int]:
    """Return the whole millionths of each."""
    if {*map(type, values)} == {float}:
        return [round(value * 1e6) for value in values]
    return [*map(micro, values)]


def merged(points: Iterable[Point], more: Iterable[Point]) -> list[Point]:
    """Return all points in the order of time; of two at one instant the greater, whichever came first.

    >>> merged([(10, 1.0, 0)], [(20, 3.0, 0), (5, 0.5, 0), (10, 1.0, 0)])
    [(5, 0.5, 0), (10, 1.0, 0), (20, 3.0, 0)]
    """
    in_order = sorted([*points, *more])
    if len({point[0] for point in in_order}) == len(in_order):
        return in_order
    return [point for point, following in pairwise([*in_order, (-1, 0.0, 0)]) if point[0] != following[0]]


def buckets_of(points: Sequence[Point], width_ns: int, kind: int) -> list[Bucket]:
    """Sum up points, given in the order of time."""
    if not points:
        return []
    times, values, flags = zip(*points, strict=True)
    millionths = micros(values) if kind in (GAUGE, BOOKING) else []
    falls = _falls(values) if kind == REGISTER else []
    flag = flags[0] if len({*flags}) == 1 else None
    buckets = []
    start, size = 0, len(times)
    while start < size:
        start_ns = times[start] // width_ns * width_ns
        end = bisect_left(times, start_ns + width_ns, start)
        some = values[start:end]
        total: int | float | dict[str, int] = 0
        least = most = 0.0
        if kind == TEXT:
            total = dict(sorted(Counter(map(str, some)).items()))
        else:
            least, most = min(some), max(some)
            if kind != REGISTER:
                total = _held(sum(millionths[start:end]))
        head = start if kind == REGISTER else end - 1
        buckets.append(
            Bucket(
                start_ns,
                end - start,
                total,
                least,
                most,
                times[head],
                values[head],
                times[end - 1],
                values[end - 1],
                min(sum(falls[start + 1 : end]), _MOST_FALLEN) if falls else 0,
                reduce(or_, flags[start:end]) if flag is None else flag,
            )
        )
        start = end
    return buckets


def joined(buckets: Sequence[Bucket], kind: int, start_ns: int) -> Bucket:
    """Make one of consecutive buckets, given in the order of time."""
    if len(buckets) == 1:
        [only] = buckets
        return only if only.start_ns == start_ns else _moved(only, start_ns)
    last = buckets[-1]
    head = last
    fallen = 0
    if kind == REGISTER:
        head = buckets[0]
        fallen = sum([bucket.fallen for bucket in buckets])
        fallen += sum([fall_between(before, after) for before, after in pairwise(buckets)])
    return Bucket(
        start_ns,
        sum([bucket.n for bucket in buckets]),
        0 if kind == REGISTER else added([bucket.total for bucket in buckets]),
        min([bucket.least for bucket in buckets]),
        max([bucket.most for bucket in buckets]),
        head.first_ns,
        head.first,
        last.last_ns,
        last.last,
        min(fallen, _MOST_FALLEN),
        reduce(or_, [bucket.flags for bucket in buckets]),
    )


def coarser(buckets: Sequence[Bucket], width_ns: int, kind: int) -> list[Bucket]:
    """Join the buckets of each `width_ns`."""
    groups = groupby(buckets, key=lambda bucket: bucket.start_ns // width_ns * width_ns)
    return [joined([*group], kind, start_ns) for start_ns, group in groups]


def absorbed(buckets: Sequence[Bucket], points: Iterable[Point], width_ns: int, kind: int) -> list[Bucket]:
    """Add points to buckets whose own points are gone."""
    found = {bucket.start_ns: bucket for bucket in buckets}
    for point in sorted(points):
        [new] = buckets_of([point], width_ns, kind)
        old = found.get(new.start_ns)
        found[new.start_ns] = _both(old, new, kind) if old else new
    return [found[start_ns] for start_ns in sorted(found)]


def fall_between(before: Bucket, after: Bucket) -> int:
    """By how much a register fell between two buckets."""
    if before.last <= after.first:  # type: ignore[operator]
        return 0
    return max(0, micro(before.last) - micro(after.first))


def added(totals: Sequence[int | float | dict[str, int]]) -> int | float | dict[str, int]:
    if isinstance(totals[0], dict):
        counts: Counter[str] = Counter()
        for total in totals:
            if isinstance(total, Mapping):
                counts.update(total)
        return dict(sorted(counts.items()))
    return _held(sum(totals))  # type: ignore[arg-type]


def _both(old: Bucket, new: Bucket, kind: int) -> Bucket:
    """Add the bucket of one point to an older one.

    What a register did between its first and its last reading is summed up already: a point in between changes nothing.
    """
    if new.first_ns > old.last_ns:
        return joined([old, new], kind, old.start_ns)
    if new.last_ns < old.first_ns and kind == REGISTER:
        return joined([new, old], kind, old.start_ns)
    in_between = joined([old, new], kind, old.start_ns)
    return Bucket(
        old.start_ns,
        in_between.n,
        in_between.total,
        in_between.least,
        in_between.most,
        old.first_ns,
        old.first,
        old.last_ns,
        old.last,
        old.fallen,
        in_between.flags,
    )


def _moved(bucket: Bucket, start_ns: int) -> Bucket:
    return Bucket(start_ns, *[getattr(bucket, name) for name in Bucket.__struct_fields__[1:]])


def _falls(values: Sequence[Any]) -> list[int]:
    """By how many millionths each is lower than the one before it; nothing if none is, as a register promises."""
    if all(map(le, values, values[1:])):
        return []
    return [0, *(max(0, before - after) for before, after in pairwise(map(micro, values)))]


def _held(total: int | float) -> int | float:
    """Return what the file can hold; no house gets that far, but a broken sensor may."""
    return total if isinstance(total, float) or abs(total) <= _MOST_TOTAL else float(total)
