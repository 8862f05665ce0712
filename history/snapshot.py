"""The history at one instant: what is folded, and over it what still lies in the journal."""

from __future__ import annotations

import contextlib
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import sub
from pathlib import Path

from history.buckets import BOOKING, HOUR_NS, TEXT, Bucket, Point, buckets_of, joined
from history.codec import Group
from history.energy import Height, gathered, height_of
from history.fold import Hour, by_hour, folded, points_of
from history.tables import (
    DAYS,
    FIVE_MINUTES,
    HOURS,
    MINUTES,
    NEVER,
    RAW,
    SCHEMA,
    WIDTH_NS,
    Series,
    State,
    Tables,
    lasting,
)

Channel = tuple[str, str, str]  # source, device, metric
Piece = tuple[int, int, int]  # width, begin and end in ns; RAW: whatever chunks there are


class Snapshot:
    """Reads within one transaction, from `begin()` to `end()`; what it has read of the journal is kept for the next."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file; without one, or before the writer has made its tables, there is just nothing in it."""
        self.made = False
        if path:
            uri = f"{path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
            query = "SELECT 1 FROM sqlite_schema WHERE name = 'state'"
            try:
                self.made = bool(self._connection.execute(query).fetchone())
            finally:
                if not self.made:
                    self._connection.close()
        if not self.made:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._connection.executescript(SCHEMA)
        self._tables = Tables(self._connection)
        self.state = State()
        self.series: dict[int, Series] = {}
        self._by_name: dict[Channel, Series] = {}
        self._forget_journal()

    def _forget_journal(self) -> None:
        self._read = 0  # the last row of the journal
        self._groups: dict[tuple[int, ...], list[Group]] = {}  # by the series that they have
        self._tails: dict[int, tuple[int, dict[int, list[Point]]]] = {}  # by series: how many points, and they by hour
        self._hours: dict[tuple[int, int], tuple[int, Hour]] = {}  # by series and hour: how many points, and with them
        self._latest: dict[int, tuple[int, float | str]] = {}  # of what is folded

    @property
    def tables(self) -> Tables:
        return self._tables

    def begin(self) -> None:
        self._connection.execute("BEGIN")
        self._finer: dict[tuple[int, int, int], list[Bucket]] = {}  # of one question, by series, hour and width
        try:
            state = self._tables.state()
            if state.folds != self.state.folds:
                self._forget_journal()
            self.state = state
            for number, batch in self._tables.journal(self._read):
                for group in batch.groups:
                    self._groups.setdefault(tuple(group.series), []).append(group)
                self._read = number
            for each in self._tables.series(max(self.series, default=0)):
                self.series[each.id] = each
                self._by_name.setdefault((each.source, each.device, each.metric), each)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def find(self, channel: Channel) -> Series | None:
        return self._by_name.get(channel)

    def begins(self, series: Series) -> int | None:
        """Return when the first hour with a reading begins."""
        stored = self._tables.first_slot(HOURS, series.id)
        hours = [*self._tail(series)] if stored is None else [*self._tail(series), stored]
        return min(hours) * HOUR_NS if hours else None

    def first(self, series: Series) -> Bucket | None:
        """Return the first reading of all, or as little more as is still kept."""
        begin_ns = self.begins(series)
        return None if begin_ns is None else next(iter(self._fine(series, begin_ns // HOUR_NS, RAW)), None)

    def latest(self) -> dict[int, tuple[int, float | str]]:
        """Return time and value of the last reading of each series, by its number."""
        if not self._latest:
            for series in self.series:
                if stored := self._tables.before(HOURS, series, NEVER):
                    self._latest[series] = (stored.last_ns, stored.last)
        found = dict(self._latest)
        for members, groups in self._groups.items():
            newest = max(groups, key=lambda group: max(group.times_ns))
            for place, series in enumerate(members):
                point = max(points_of(newest, place))
                if series not in found or found[series][0] <= point[0]:
                    found[series] = point[:2]
        return found

    def points(self, series: Series, from_ns: int, to_ns: int) -> list[Point]:
        """Return every reading of [from_ns, to_ns) that is still there."""
        found: list[Point] = []
        for hour in self._present(series, from_ns // HOUR_NS, -(-to_ns // HOUR_NS)):
            changed = self._changed(series, hour)
            points = changed.points or [] if changed else self._tables.points(series.id, hour)
            found += points[bisect_left(points, (from_ns,)) : bisect_left(points, (to_ns,))]
        return found

    def stretches(self, series: Series, cuts: Sequence[int]) -> list[Bucket | None]:
        """Return what there is from each cut to the next, from as few rows as that takes."""
        found: list[Bucket | None] = []
        for ends, width in _runs(cuts, lasting(series.kind)):
            found += self._of_rows(series, width, ends) if width else self._of_pieces(series, ends)
        return found

    def heights(self, register: Series, cuts: Sequence[int]) -> list[Height | None]:
        """Return how high a register was from each cut to the next, which is read in a third of the time."""
        found: list[Height | None] = []
        for ends, width in _runs(cuts, lasting(register.kind)):
            if width:
                found += self._heights_of_rows(register, width, ends)
            else:
                found += map(height_of, self._of_pieces(register, ends))
        return found

    def _of_pieces(self, series: Series, cuts: Sequence[int]) -> list[Bucket | None]:
        """Join stretches that no rows of one width make up."""
        pieces = [piece for start, end in pairwise(cuts) for piece in pieces_of(start, end, lasting(series.kind))]
        parts: list[Bucket | None] = []
        for (width, _), group in groupby(pieces, key=lambda piece: (piece[0], piece[0] and piece[2] - piece[1])):
            run = list(group)
            # Those of one width need not lie side by side.
            breaks = [0, *(place for place in range(1, len(run)) if run[place - 1][2] != run[place][1]), len(run)]
            for first, end in pairwise(breaks):
                ends = [run[first][1], *(piece[2] for piece in run[first:end])]
                parts += self._of_rows(series, width, ends) if width else self._of_chunks(series, ends)
        return _regrouped(parts, pieces, cuts, series.kind)

    def before(self, series: Series, edge_ns: int) -> Bucket | None:
        """Return the last of what there is before an edge."""
        start_ns = edge_ns // HOUR_NS * HOUR_NS
        here = self.stretches(series, [start_ns, edge_ns])[0] if start_ns < edge_ns else None
        if here:
            return here
        hour = edge_ns // HOUR_NS
        stored = self._tables.before(HOURS, series.id, hour)
        changed = max((each for each in self._tail(series) if each < hour), default=None)
        if changed is None or (stored and stored.start_ns > changed * HOUR_NS):
            return stored
        return self._whole(series, changed)

    def from_(self, series: Series, edge_ns: int) -> Bucket | None:
        """Return the first of what there is from an edge on."""
        hour = -(-edge_ns // HOUR_NS)
        here = self.stretches(series, [edge_ns, hour * HOUR_NS])[0] if edge_ns < hour * HOUR_NS else None
        if here:
            return here
        stored = self._tables.from_(HOURS, series.id, hour)
        changed = min((each for each in self._tail(series) if each >= hour), default=None)
        if changed is None or (stored and stored.start_ns < changed * HOUR_NS):
            return stored
        return self._whole(series, changed)

    def _of_rows(self, series: Series, width: int, ends: Sequence[int]) -> list[Bucket | None]:
        """Join rows of one width, the same number of them from each end to the next."""
        found = self._stored_rows(series, width, ends)
        for place, changed in self._touched(series, ends):
            found[place] = changed
        return found

    def _heights_of_rows(self, register: Series, width: int, ends: Sequence[int]) -> list[Height | None]:
        stored = self._tables.heights(width, register.id, *_slots(width, ends))
        found: list[Height | None] = [*stored]
        if len(stored) < len(ends) - 1:
            found = [None] * (len(ends) - 1)
            for height in stored:
                found[height[-1]] = height
        for place, changed in self._touched(register, ends):
            found[place] = height_of(changed)
        return found

    def _touched(self, series: Series, ends: Sequence[int]) -> Iterator[tuple[int, Bucket | None]]:
        """Yield what the journal makes of those stretches of equal length that it changes."""
        changed = [hour * HOUR_NS for hour in self._tail(series)]
        length = ends[1] - ends[0]
        touched = {at for hour in changed for at in (hour, hour + HOUR_NS // 2)}  # no row is shorter
        for place in {(at - ends[0]) // length for at in touched if ends[0] <= at < ends[-1]}:
            start, end = ends[place], ends[place + 1]
            hours = sorted(hour for hour in changed if start - HOUR_NS < hour < end)
            yield place, self._with_changes(series, start, end, hours)

    def _stored_rows(self, series: Series, width: int, ends: Sequence[int]) -> list[Bucket | None]:
        first, step, end = _slots(width, ends)
        if series.kind in (BOOKING, TEXT):  # these cannot be added by SQLite, or not exactly
            return gathered(self._tables.rows(width, series.id, first, end), ends, series.kind)
        found: list[Bucket | None] = [None] * (len(ends) - 1)
        if step == 1:
            for bucket in self._tables.rows(width, series.id, first, end):
                found[bucket.start_ns // WIDTH_NS[width] - first] = bucket
            return found
        for place, bucket in self._tables.joined(width, series.id, first, step, end):
            found[place] = bucket
        return found

    def _with_changes(self, series: Series, start: int, end: int, changed: Sequence[int]) -> Bucket | None:
        """Join a stretch, some hours of which the journal changes."""
        parts: list[Bucket] = []
        before = [start, *(hour + HOUR_NS for hour in changed)]
        for since, hour in zip(before, [*changed, end], strict=True):
            for width, begin, until in pieces_of(since, hour, lasting(series.kind)):
                parts += [part for part in self._stored_rows(series, width, [begin, until]) if part]
            if hour < end and (news := self._changed(series, hour // HOUR_NS)):
                buckets = [news.whole] if start <= hour and hour + HOUR_NS <= end else news.halves or []
                parts += [bucket for bucket in buckets if start <= bucket.start_ns < end]
        return joined(parts, series.kind, start) if parts else None

    def _of_chunks(self, series: Series, ends: Sequence[int]) -> list[Bucket | None]:
        """Join what is finer than a row."""
        width = next(width for width in (FIVE_MINUTES, MINUTES, RAW) if not any(end % WIDTH_NS[width] for end in ends))
        there = self._present(series, ends[0] // HOUR_NS, -(-ends[-1] // HOUR_NS))
        return gathered([bucket for hour in there for bucket in self._fine(series, hour, width)], ends, series.kind)

    def _fine(self, series: Series, hour: int, width: int) -> list[Bucket]:
        """Return an hour in buckets of this width, or of the next coarser one that is still kept."""
        key = (series.id, hour, width)
        if (known := self._finer.get(key)) is not None:
            return known
        changed = self._changed(series, hour)
        found: list[Bucket] = []
        for each in range(max(width, self.state.finest(hour, series.kind)), HOURS + 1):
            found = (
                self._changed_buckets(series, changed, each) if changed else self._stored(series, hour, each)
            ) or []
            if found:
                break
        self._finer[key] = found
        return found

    @staticmethod
    def _changed_buckets(series: Series, changed: Hour, width: int) -> list[Bucket] | None:
        return buckets_of(changed.points or [], 1, series.kind) if width == RAW else changed.buckets(width)

    def _stored(self, series: Series, hour: int, width: int) -> list[Bucket]:
        if width == RAW:
            return buckets_of(self._tables.points(series.id, hour), 1, series.kind)
        if width <= FIVE_MINUTES:
            return self._tables.buckets(width, series, hour)
        slots = HOUR_NS // WIDTH_NS[width]
        return self._tables.rows(width, series.id, hour * slots, (hour + 1) * slots)

    def _tail(self, series: Series) -> dict[int, list[Point]]:
        """Return the points of a series that are not folded yet, by hour."""
        groups = [group for members, groups in self._groups.items() if series.id in members for group in groups]
        if not groups:
            return {}
        size = sum(len(group.times_ns) for group in groups)
        known = self._tails.get(series.id)
        if known is None or known[0] != size:
            hours: dict[int, list[Point]] = {}
            for group in groups:
                place = group.series.index(series.id)
                for hour, part in by_hour(group):
                    hours.setdefault(hour, []).extend(points_of(part, place))
            known = self._tails[series.id] = (size, hours)
        return known[1]

    def _changed(self, series: Series, hour: int) -> Hour | None:
        """Fold what the journal has of an hour, as the writer will."""
        points = self._tail(series).get(hour)
        if not points:
            return None
        key = (series.id, hour)
        if key not in self._hours or self._hours[key][0] != len(points):
            self._hours[key] = (len(points), folded(self._tables, self.state, series, hour, points))
        return self._hours[key][1]

    def _whole(self, series: Series, hour: int) -> Bucket | None:
        changed = self._changed(series, hour)
        return changed.whole if changed else None

    def _present(self, series: Series, first: int, end: int) -> list[int]:
        """Return the hours of [first, end) that have any reading."""
        changed = {hour for hour in self._tail(series) if first <= hour < end}
        return sorted({*changed, *self._tables.present(series.id, first, end)})


def _runs(cuts: Sequence[int], finest: int) -> Iterator[tuple[Sequence[int], int]]:
    """Divide cuts where the stretches get longer or shorter; with the coarsest rows that make up one, RAW if none do.

    >>> [(len(ends) - 1, width) for ends, width in _runs([HOUR_NS * hour for hour in (0, 24, 48, 71, 95, 119)], HOURS)]
    [(2, 5), (1, 4), (2, 4)]
    """
    first = 0
    for _, run in groupby(map(sub, cuts[1:], cuts)):
        end = first + len([*run])
        starts = cuts[first : first + 2]
        widths = (width for width in range(DAYS, finest - 1, -1) if not any(each % WIDTH_NS[width] for each in starts))
        yield cuts[first : end + 1], next(widths, RAW)
        first = end


def _slots(width: int, ends: Sequence[int]) -> tuple[int, int, int]:
    """Return the first slot, how many there are from each end to the next, and the one behind the last."""
    width_ns = WIDTH_NS[width]
    return ends[0] // width_ns, (ends[1] - ends[0]) // width_ns, ends[-1] // width_ns


def pieces_of(start: int, end: int, finest: int) -> list[Piece]:
    """Cut a stretch into whole days, whole hours and so on; what is left at both ends is for the chunks.

    >>> [(width, (end - start) // HOUR_NS) for width, start, end in pieces_of(23 * HOUR_NS, 50 * HOUR_NS, HOURS)]
    [(4, 1), (5, 24), (4, 2)]
    """
    if start >= end:
        return []
    for width in range(DAYS, finest - 1, -1):
        width_ns = WIDTH_NS[width]
        if end - start < width_ns:
            continue
        first, last = -(-start // width_ns) * width_ns, end // width_ns * width_ns
        if (first, last) == (start, end):
            return [(width, start, end)]
        if first < last:
            return [*pieces_of(start, first, finest), (width, first, last), *pieces_of(last, end, finest)]
    return [(RAW, start, end)]


def _regrouped(
    parts: Sequence[Bucket | None], pieces: Sequence[Piece], cuts: Sequence[int], kind: int
) -> list[Bucket | None]:
    """Join what lies from each cut to the next."""
    found: list[Bucket | None] = []
    place = 0
    for start, end in pairwise(cuts):
        following = place
        while following < len(pieces) and pieces[following][2] <= end:
            following += 1
        some = [part for part in parts[place:following] if part]
        found.append(joined(some, kind, start) if some else None)
        place = following
    return found
