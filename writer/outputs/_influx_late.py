"""What came too late for the database's own rollups: noted with the cursor, and summed up when the backlog is through.

A note is a stretch of whole minutes. Each level sums up exactly those of its windows that the stretch touches.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from reading import Record
from writer import Memo, OutputDown
from writer.outputs._influx_rollups import LATE_S, RAW_KEEPS_S, Level, rolled_levels
from writer.outputs._influx_sums import NoRollupsError, Place, RollupError, Sums

log = logging.getLogger("writer.outputs.influx")

Stretch = tuple[int, int]  # minutes since 1970: from, up to and without

_NOTE: Final = "late "
_MOST_STRETCHES: Final = 64  # a note is in every commit; with more, those that are next to each other become one
_PIECE_MINUTES: Final = 60  # what is asked for at once: live readings wait until it is answered
_QUIET_S: Final = 15.0  # this long nothing late came: the backlog is through
_PATIENCE_S: Final = 900.0  # some devices are always late: their windows are not put off for ever
_AT_A_TIME_S: Final = 2.0  # then the live ones have their turn
_FIRST_RETRY_S: Final = 60.0
_LAST_RETRY_S: Final = 3600.0
_ASK_RETENTION_EVERY_S: Final = 3600.0
_MINUTE_NS: Final = 60 * 10**9


class LateRollups:
    """Belongs to one output and its thread."""

    def __init__(self, url: str, place: Place, memo: Memo, sums: Sums) -> None:
        self._url = url
        self._levels = rolled_levels(place)
        self._memo = memo
        self._sums = sums
        self._since_s: float | None = time.monotonic() if stretches(memo) else None
        self._newest_s = -_QUIET_S
        self._not_before_s = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._trouble = ""
        self._keeps_s = RAW_KEEPS_S
        self._asked_retention_s = -_ASK_RETENTION_EVERY_S

    def note(self, records: Sequence[Record], now_s: float) -> None:
        """Note which minutes `records` touch that are late by the server's clock, which its rollups run by."""
        if not self._levels:
            return
        before_ns = int((now_s - LATE_S) * 1e9)
        minutes = {record.time_ns // _MINUTE_NS for record in records if record.time_ns < before_ns}
        if not minutes:
            return
        joined = join([*stretches(self._memo), *((minute, minute + 1) for minute in minutes)])
        _keep(self._memo, joined)
        self._newest_s = time.monotonic()
        self._since_s = self._since_s or self._newest_s

    def work(self, now_s: float) -> None:
        """Sum up some of what is noted, if it is time to; never raises."""
        if self._since_s is None or not self._is_due():
            return
        deadline_s = time.monotonic() + _AT_A_TIME_S
        try:
            self._learn_retention()
            while noted := stretches(self._memo):
                self._sum_up(noted, now_s)
                if time.monotonic() > deadline_s:
                    return
        except NoRollupsError as error:
            self._say(
                f'late readings are summed up nowhere: {error}; ./orchestrator.py influx setup, or bucket_1m = ""'
            )
            _keep(self._memo, [])
        except (RollupError, OutputDown) as error:
            self._put_off(error)
            return
        else:
            log.info("%s: late readings are in the rollups now", self._url)
            self._trouble = ""
        self._since_s = None
        self._retry_s = _FIRST_RETRY_S

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        waited_s = now_s - (self._since_s or now_s)
        quiet = now_s - self._newest_s >= _QUIET_S or waited_s >= _PATIENCE_S
        return quiet and now_s >= self._not_before_s

    def _sum_up(self, noted: list[Stretch], now_s: float) -> None:
        """Have one piece of the oldest stretch summed up in every level, and take it off the notes."""
        (start, stop), *others = noted
        end = min(stop, (start // _PIECE_MINUTES + 1) * _PIECE_MINUTES)
        for level, bucket in self._levels:
            first_s, last_s = touched(level, start, end, now_s, self._keeps_s)
            if first_s < last_s:
                self._sums.sum_up(level, bucket, first_s, last_s)
        _keep(self._memo, [(end, stop), *others] if end < stop else others)

    def _learn_retention(self) -> None:
        if time.monotonic() - self._asked_retention_s >= _ASK_RETENTION_EVERY_S:
            keeps_s = self._sums.raw_keeps_s()
            self._keeps_s = RAW_KEEPS_S if keeps_s is None else keeps_s
            self._asked_retention_s = time.monotonic()

    def _put_off(self, error: Exception) -> None:
        remedy = ""
        if isinstance(error, RollupError) and error.denied:
            remedy = "; ./orchestrator.py influx setup makes a token that may"
        self._say(f"late readings are not in the rollups yet: {error}{remedy}")
        self._not_before_s = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s: %s", self._url, trouble)
        self._trouble = trouble


def stretches(memo: Memo) -> list[Stretch]:
    """Read what is noted, oldest first."""
    return sorted((int(key.removeprefix(_NOTE)), stop) for key, stop in memo.items() if key.startswith(_NOTE))


def _keep(memo: Memo, noted: Iterable[Stretch]) -> None:
    for key in [key for key in memo if key.startswith(_NOTE)]:
        del memo[key]
    memo.update({f"{_NOTE}{start}": stop for start, stop in noted})


def join(parts: Iterable[Stretch], most: int = _MOST_STRETCHES) -> list[Stretch]:
    """Join what touches; and where that leaves too many, what is nearest to each other.

    >>> join([(5, 6), (0, 2), (2, 3), (5, 7)])
    [(0, 3), (5, 7)]
    >>> join([(0, 1), (10, 11), (12, 13)], most=2)
    [(0, 1), (10, 13)]
    """
    joined: list[Stretch] = []
    for start, stop in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    if len(joined) <= most:
        return joined
    widest_first = sorted(range(1, len(joined)), key=lambda n: joined[n - 1][1] - joined[n][0])
    cuts = [0, *sorted(widest_first[: most - 1]), len(joined)]
    return [(joined[first][0], joined[after - 1][1]) for first, after in pairwise(cuts)]


def touched(level: Level, start: int, stop: int, now_s: float, keeps_s: int) -> Stretch:
    """Return the windows that minutes touch, in seconds: none that is not over, none whose readings are gone in part.

    >>> from writer.outputs._influx_rollups import LEVELS
    >>> touched(LEVELS[1], 12, 16, now_s=86_400, keeps_s=0)
    (600, 1200)
    >>> touched(LEVELS[2], 12, 130, now_s=7_300, keeps_s=7_200)
    (3600, 7200)
    """
    width_s = level.width_s
    first_s = start * 60 // width_s * width_s
    last_s = min(-(-stop * 60 // width_s) * width_s, int(now_s) // width_s * width_s)
    if keeps_s:
        first_s = max(first_s, -(-int(now_s - keeps_s) // width_s) * width_s)
    return first_s, last_s
