"""Times as the interface writes and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LATEST_NS: Final = 7_258_118_400 * 10**9  # the year 2200


def utc(time_ns: int) -> str:
    """Write a time in UTC, to the millisecond.

    >>> utc(1_764_322_200_123_999_999)
    '2025-11-28T09:30:00.123Z'
    """
    return _at(time_ns).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def local(time_ns: int, zone: ZoneInfo) -> str:
    """Write a time of the site with its offset.

    >>> local(1_764_322_200 * 10**9, ZoneInfo("Asia/Kolkata"))
    '2025-11-28T15:00:00+05:30'
    """
    return _at(time_ns).astimezone(zone).isoformat(timespec="seconds")


def naive(time_ns: int, zone: ZoneInfo, timespec: str = "seconds") -> str:
    """Write a time of the site without its offset, as some apps want it.

    >>> naive(1_764_322_200_123_456_000, ZoneInfo("Europe/Paris"), "microseconds")
    '2025-11-28T10:30:00.123456'
    """
    return _at(time_ns).astimezone(zone).replace(tzinfo=None).isoformat(timespec=timespec)


def read(text: str, now_ns: int, zone: ZoneInfo) -> int:
    """Read a time that somebody asks about, in nanoseconds. Raises `ValueError` with what is wrong and what is right.

    >>> zone = ZoneInfo("Europe/London")
    >>> [read(text, 10**18, zone) // 10**9 for text in ("now", "-24h", "1764322200", "2025-11-28T09:30:00Z")]
    [1000000000, 999913600, 1764322200, 1764322200]
    >>> read("2025-07-01", 0, zone) // 10**9  # midnight of the site
    1751324400
    """
    found = re.fullmatch(r"-([0-9]{1,6})([smhdw])", text)
    if text == "now":
        return now_ns
    if found:
        return max(0, now_ns - int(found[1]) * _UNITS_S[found[2]] * 10**9)
    if re.fullmatch(r"[0-9]{1,11}(\.[0-9]{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return _possible(int(seconds) * 10**9 + int(fraction.ljust(9, "0") or 0), text)
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo else at.replace(tzinfo=zone)
        since = at.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError):
        raise ValueError(f'{text!r:.60} is no time; write "2026-11-28T09:30:00Z", 1764322200 or "-24h"') from None
    return _possible((since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000, text)


def _possible(time_ns: int, text: str) -> int:
    if not 0 <= time_ns <= LATEST_NS:
        raise ValueError(f"{text!r:.60} is beyond all history; write a time from 1970 to 2200")
    return time_ns


def _at(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(max(time_ns, 0), LATEST_NS) // 1000)
