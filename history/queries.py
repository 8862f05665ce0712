"""Asks `history.db`: what was measured, when, and how much energy that was; beside the writer, whom nobody disturbs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from msgspec import Struct

from history.buckets import BOOKING, BOOKINGS, ESTIMATED, GAUGE, HOUR_NS, REGISTER, SECOND_NS, TEXT, Bucket, buckets_of
from history.energy import Height, changes_of, height_of, rises
from history.periods import Period, edges
from history.snapshot import Channel, Snapshot
from history.tables import RAW, WIDTH_NS, Series

MOST_POINTS: Final = 400  # that a chart gets unless it asks for another step
_STEPS_S: Final = (60, 120, 300, 600, 900, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800, 2_592_000)

P = ParamSpec("P")
R = TypeVar("R")


class Columns(Struct, frozen=True, kw_only=True):
    """A series from `at_ns[i]` on for `step_s` each; a stretch without a reading is not in it, and never filled."""

    step_s: int  # 0: the readings themselves
    at_ns: list[int]
    n: list[int]
    mean: list[float | None]  # of a gauge
    min: list[float | None]
    max: list[float | None]
    last: list[float | str | None]
    increase: list[float | None]  # of a register, in its unit; there too where it rose between two readings
    counts: list[dict[str, int] | None]  # of a text: how often it said what
    flags: list[int]  # see history.buckets


class Latest(Struct, frozen=True):
    """The last reading of a series."""

    source: str
    device: str
    metric: str
    time_ns: int
    value: float | str
    age_s: float


class Extent(Struct, frozen=True):
    """Of a series, the hour of the first reading and the time of the last one."""

    source: str
    device: str
    metric: str
    first_ns: int
    last_ns: int


class Summary(Struct, frozen=True):
    """What a series comes down to in a stretch of time; no reading: n is 0, and the rest is None."""

    start_ns: int
    end_ns: int
    n: int
    mean: float | None
    least: float | None
    most: float | None
    change: float | None  # from the beginning to the end; of a total, such as a cost. None: nothing is known


class Energy(Struct, frozen=True, gc=False):
    """What a channel used, or a register rose, in a stretch of time; None: nothing is known of it."""

    start_ns: int
    end_ns: int
    amount: float | None
    estimated: bool  # some of it was booked over a gap, or there was no reading in it


class Bounds(Struct, frozen=True):
    """What there is: the hour of the first reading, the time of the last, and since when it is kept how fine."""

    first_ns: int
    last_ns: int
    raw_since_ns: int
    minutes_since_ns: int
    five_minutes_since_ns: int


def _asking(question: Callable[Concatenate[History, P], R]) -> Callable[Concatenate[History, P], R]:
    """Let one thread ask at a time, and all that a question needs be of one instant."""

    @wraps(question)
    def ask(self: History, /, *arguments: P.args, **named: P.kwargs) -> R:
        with self._lock:
            self._begin()
            try:
                return question(self, *arguments, **named)
            finally:
                self._snapshot.end()

    return ask


class History:
    """Answers questions, from any thread. A file that is not there yet has nothing to tell, and that is no error.

    Raises `sqlite3.Error` for a file that is damaged or may not be read; the writer mends it when it can.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._inode = 0

    @_asking
    def devices(self) -> list[Series]:
        """Name all series there are."""
        return sorted(self._snapshot.series.values(), key=lambda each: (each.source, each.device, each.metric))

    @_asking
    def bounds(self) -> Bounds | None:
        """Tell what there is; None if there is nothing."""
        begins = [
            begin for each in self._snapshot.series.values() if (begin := self._snapshot.begins(each)) is not None
        ]
        if not begins:
            return None
        since = [hour * HOUR_NS for hour in self._snapshot.state.since]
        return Bounds(min(begins), max(time_ns for time_ns, _ in self._snapshot.latest().values()), *since)

    @_asking
    def extents(self) -> list[Extent]:
        """Tell since when and until when there is each series."""
        latest = self._snapshot.latest()
        return [
            Extent(each.source, each.device, each.metric, begin, latest[number][0])
            for number, each in sorted(self._snapshot.series.items())
            if number in latest and (begin := self._snapshot.begins(each)) is not None
        ]

    @_asking
    def latest(self, now_ns: int) -> list[Latest]:
        """Return the last reading of every series; whoever shows it judges by its age."""
        return [
            Latest(each.source, each.device, each.metric, time_ns, value, (now_ns - time_ns) / SECOND_NS)
            for number, (time_ns, value) in sorted(self._snapshot.latest().items())
            for each in [self._snapshot.series[number]]
        ]

    @_asking
    def series(
        self, channel: Channel, from_ns: int, to_ns: int, step_s: int | None = None, *, most_points: int = MOST_POINTS
    ) -> Columns:
        """Return a series in steps of `step_s`; None: as fine as it may be, 0: every reading.

        Steps begin at multiples of `step_s` since 1970. Where it is no longer kept so fine the step is longer.
        """
        series = self._snapshot.find(channel)
        finest = self._snapshot.state.finest(from_ns // HOUR_NS, series.kind if series else 0)
        if step_s == 0 and finest != RAW:
            step_s = None
        if step_s is None:
            wanted_s = max((to_ns - from_ns) / SECOND_NS / max(1, most_points), _finest_s(finest))
            step_s = next((step for step in _STEPS_S if step >= wanted_s), _STEPS_S[-1])
        elif step_s:
            step_s = _whole_steps(step_s, finest)
        if series is None or to_ns <= from_ns:
            return _columns(step_s, [], [], GAUGE)
        if step_s == 0:
            points = self._snapshot.points(series, from_ns, to_ns)
            return _columns(0, buckets_of(points, 1, series.kind), [], series.kind)
        return self._stepped(series, from_ns, to_ns, step_s)

    @_asking
    def next_ns(self, channel: Channel, from_ns: int) -> int | None:
        """Return a time from `from_ns` on before which there is no reading, as late as is known at a glance."""
        series = self._snapshot.find(channel)
        following = self._snapshot.from_(series, from_ns) if series else None
        return max(from_ns, following.start_ns) if following else None

    @_asking
    def energy(
        self, channels: Iterable[Channel], from_ns: int, to_ns: int, by: Period, timezone: str
    ) -> dict[Channel, list[Energy]]:
        """Return what each channel used in each hour, day, … that has a part of [from_ns, to_ns)."""
        cuts = edges(from_ns, to_ns, by, timezone)
        return {channel: self._energy(channel, cuts) for channel in channels}

    @_asking
    def energy_steps(self, channel: Channel, from_ns: int, to_ns: int, step_s: int = 1800) -> list[Energy]:
        """Return what a channel used in each step of [from_ns, to_ns), counted from `from_ns` on."""
        cuts = [*range(from_ns, max(to_ns, from_ns + 1), step_s * SECOND_NS)]
        return self._energy(channel, [*cuts, cuts[-1] + step_s * SECOND_NS])

    @_asking
    def summaries(self, channel: Channel, from_ns: int, to_ns: int, by: Period, timezone: str) -> list[Summary]:
        """Return what a series of numbers comes down to in each hour, day, … that has a part of [from_ns, to_ns)."""
        cuts = edges(from_ns, to_ns, by, timezone)
        series = self._snapshot.find(channel)
        if series is None or series.kind == TEXT:
            return [Summary(start, end, 0, None, None, None, None) for start, end in pairwise(cuts)]
        stretches = self._snapshot.stretches(series, cuts)
        before = self._snapshot.before(series, cuts[0]) or self._snapshot.first(series)
        after = self._snapshot.from_(series, cuts[-1])
        changes = changes_of(before, stretches, after, cuts)
        return [
            Summary(start, end, 0, None, None, None, change)
            if bucket is None
            else Summary(start, end, bucket.n, _mean(bucket), bucket.least, bucket.most, change)
            for (start, end), bucket, change in zip(pairwise(cuts), stretches, changes, strict=True)
        ]

    def close(self) -> None:
        with self._lock:
            self._snapshot.close()

    def _begin(self) -> None:
        """Open the file, anew if it is another one now, and look at it as it is at this instant."""
        try:
            inode = self._path.stat().st_ino
        except OSError:
            inode = 0
        if inode != self._inode:
            self._snapshot.close()
            self._snapshot = Snapshot(self._path if inode else None)
            self._inode = inode if self._snapshot.made else 0
        try:
            self._snapshot.begin()
        except sqlite3.Error:
            self._inode = 0
            raise

    def _stepped(self, series: Series, from_ns: int, to_ns: int, step_s: int) -> Columns:
        step_ns = step_s * SECOND_NS
        cuts = [*range(from_ns // step_ns * step_ns, to_ns, step_ns)]
        cuts.append(cuts[-1] + step_ns)
        stretches = self._snapshot.stretches(series, cuts)
        increases: list[int | None] = [None] * len(stretches)
        if series.kind == REGISTER:
            increases = self._rises(series, [*map(height_of, stretches)], cuts)
        kept = [index for index, bucket in enumerate(stretches) if bucket or increases[index] is not None]
        buckets = [stretches[index] or _nothing(cuts[index]) for index in kept]
        return _columns(step_s, buckets, [increases[index] for index in kept], series.kind)

    def _energy(self, channel: Channel, cuts: Sequence[int]) -> list[Energy]:
        series = self._snapshot.find(channel)
        amounts: list[int | None] = [None] * (len(cuts) - 1)
        estimated = [True] * len(amounts)
        if series and series.kind == REGISTER:
            stretches = self._snapshot.heights(series, cuts)
            amounts = self._rises(series, stretches, cuts)
            estimated = [not height or bool(height[5] & ESTIMATED) for height in stretches]
        source, device, metric = channel
        booked_as = BOOKINGS.get(metric)
        bookings = self._snapshot.find((source, device, booked_as)) if booked_as else None
        if bookings and bookings.kind == BOOKING:
            for index, booked in enumerate(self._snapshot.stretches(bookings, cuts)):
                if booked and not isinstance(booked.total, dict):
                    amounts[index] = (amounts[index] or 0) + int(booked.total)
        return [
            Energy(start, end, None, False) if amount is None else Energy(start, end, amount / 1e6, guess)
            for start, end, amount, guess in zip(cuts, cuts[1:], amounts, estimated, strict=False)
        ]

    def _rises(self, series: Series, stretches: Sequence[Height | None], cuts: Sequence[int]) -> list[int | None]:
        before, after = self._snapshot.before(series, cuts[0]), self._snapshot.from_(series, cuts[-1])
        return rises(height_of(before), stretches, height_of(after), cuts)


def _mean(bucket: Bucket) -> float | None:
    """Return the mean of a gauge."""
    return bucket.total / bucket.n / 1e6 if bucket.n and not isinstance(bucket.total, dict) else None


def _finest_s(width: int) -> int:
    return max(60, WIDTH_NS[width] // SECOND_NS)


def _whole_steps(step_s: int, width: int) -> int:
    """Return the step, or the next longer one that what is kept can be joined to.

    >>> _whole_steps(10, RAW), _whole_steps(90, 1), _whole_steps(600, 4)
    (10, 120, 3600)
    """
    finest_s = 1 if width == RAW else _finest_s(width)
    return -(-step_s // finest_s) * finest_s


def _nothing(start_ns: int) -> Bucket:
    return Bucket(start_ns, 0, 0, 0.0, 0.0, start_ns, 0.0, start_ns, 0.0)


def _columns(step_s: int, buckets: Sequence[Bucket], increases: Sequence[int | None], kind: int) -> Columns:
    counted = kind in (GAUGE, BOOKING)
    amounts = [bucket.total / bucket.n / 1e6 if counted and bucket.n else None for bucket in buckets]  # type: ignore[operator]
    increases = increases or [None] * len(buckets)
    return Columns(
        step_s=step_s,
        at_ns=[bucket.last_ns if step_s == 0 else bucket.start_ns for bucket in buckets],
        n=[bucket.n for bucket in buckets],
        mean=amounts,
        min=[bucket.least if bucket.n and kind != TEXT else None for bucket in buckets],
        max=[bucket.most if bucket.n and kind != TEXT else None for bucket in buckets],
        last=[bucket.last if bucket.n else None for bucket in buckets],
        increase=[None if increase is None else increase / 1e6 for increase in increases],
        counts=[bucket.total if isinstance(bucket.total, dict) else None for bucket in buckets],
        flags=[bucket.flags for bucket in buckets],
    )
