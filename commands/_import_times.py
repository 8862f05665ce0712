"""Dates as older loggers wrote them: with their zone, or in the time of the site without a word of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

_SLASHES: Final = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})[ T](\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)")
_SINCE_S: Final = 946_684_800  # 2000: no logger of these is older, and a Pi without a clock says 1970
_PATIENCE_S: Final = 5  # rows of several devices may be a little out of order
ORDERS: Final = ("dmy", "mdy")


class Unclear(Exception):  # noqa: N818 - an answer, not a fault
    """Only a person can tell what is meant."""


class Dates:
    """Reads the dates of one file, in the order in which it was written.

    That is how the hour that comes twice, when the clocks go back, is told apart: time only goes on.

    >>> dates = Dates("Europe/London", "", 2_000_000_000)
    >>> [dates.ns(f"2025-10-26 01:{minute:02}:00") // 60_000_000_000 - 29_357_280 for minute in (0, 59, 0, 59)]
    [0, 59, 60, 119]
    """

    def __init__(self, timezone: str, order: str, until_s: float) -> None:
        self._zone = ZoneInfo(timezone)
        self._timezone = timezone
        self._order = order
        self._until_s = until_s
        self._last_s = 0.0

    def ns(self, text: str) -> int:
        """Return UTC in ns. Raise ValueError, which says what is wrong, or `Unclear`."""
        moment = self._read(text)
        if moment.tzinfo is None:
            moment = self._placed(moment, text)
        since_1970 = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        time_us = (since_1970.days * 86_400 + since_1970.seconds) * 1_000_000 + since_1970.microseconds
        self.check(time_us * 1000, text)
        self._last_s = time_us / 1e6
        return time_us * 1000

    def check(self, time_ns: int, text: str) -> None:
        """Raise ValueError for a time that no logger can have meant."""
        if time_ns < _SINCE_S * 10**9:
            raise ValueError(f"{text!r:.40} is before 2000: the clock was not set")
        if time_ns > self._until_s * 1e9:
            raise ValueError(f"{text!r:.40} lies in the future")

    def _read(self, text: str) -> datetime:
        if found := _SLASHES.fullmatch(text):
            first, second, year, clock = found.groups()
            if not self._order:
                raise Unclear(f"is {text!r} the day or the month first? Say --dates dmy or --dates mdy")
            day, month = (first, second) if self._order == "dmy" else (second, first)
            text = (
                f"{year}-{month:0>2}-{day:0>2} {clock:0>8}"
                if clock.count(":") > 1
                else (f"{year}-{month:0>2}-{day:0>2} {clock:0>5}")
            )
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r:.40} is no date") from None

    def _placed(self, local: datetime, text: str) -> datetime:
        first, second = (local.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        earlier, later = first.utcoffset(), second.utcoffset()
        if earlier is None or later is None or earlier == later:
            return first
        if earlier < later:
            raise ValueError(f"{text!r:.40} does not exist in {self._timezone}: clocks were put forward over it")
        return first if first.timestamp() >= self._last_s - _PATIENCE_S else second
