"""Hours, days, weeks, months and years as the people of the house count them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from history.buckets import HOUR_NS, SECOND_NS

Period = Literal["hour", "day", "week", "month", "year"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S: Final = 9_000_000_000  # in the year 2255; nanoseconds end soon after


def edges(from_ns: int, to_ns: int, by: Period, timezone: str) -> list[int]:
    """Return where each period begins that has a part of [from_ns, to_ns), and where the last one ends.

    A day on which the clocks are changed has 23 or 25 hours; an hour is always an hour.

    >>> day = edges(1_743_292_800 * SECOND_NS, 1_743_292_801 * SECOND_NS, "day", "Europe/London")
    >>> (day[1] - day[0]) // HOUR_NS
    23
    """
    zone = ZoneInfo(timezone)
    to_ns = max(to_ns, from_ns + 1)
    first = _local(from_ns, zone)
    if by == "hour":
        # Where the clocks differ from UTC by half an hour, so do the hours.
        offset_ns = round((first.utcoffset() or timedelta()).total_seconds()) * SECOND_NS % HOUR_NS
        start_ns = (from_ns + offset_ns) // HOUR_NS * HOUR_NS - offset_ns
        return [*range(start_ns, to_ns, HOUR_NS), start_ns - (start_ns - to_ns) // HOUR_NS * HOUR_NS]
    begin = _begin(first, by)
    found = [_ns(begin)]
    while found[-1] < to_ns:
        begin = _next(begin, by)
        found.append(_ns(begin))
    return found


def _begin(at: datetime, by: Period) -> datetime:
    day = at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if by == "week":
        return day - timedelta(days=day.weekday())
    if by == "month":
        return day.replace(day=1)
    return day.replace(month=1, day=1) if by == "year" else day


def _next(begin: datetime, by: Period) -> datetime:
    """Return the beginning of the next period. This is arithmetic with dates, so changed clocks do not matter."""
    if by == "year":
        return begin.replace(year=begin.year + 1)
    if by == "month":
        return (begin + timedelta(days=31)).replace(day=1)
    return begin + timedelta(days=7 if by == "week" else 1)


def _local(time_ns: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(seconds=min(max(time_ns // SECOND_NS, 0), _LAST_S))).astimezone(zone)


def _ns(local: datetime) -> int:
    return round(local.timestamp()) * SECOND_NS
