"""Reads the dates that devices write into their messages; whether to believe them is for the writer to decide."""

from __future__ import annotations

import re
from typing import Final

# RFC 3339, with a blank for the T as some firmware has it. A date without a zone could be any time of a day.
_DATE: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)
_SECOND_NS: Final = 10**9
_FIRST_S: Final = 1_577_836_800  # 2020: an earlier date is a clock that was never set
_LAST_S: Final = 2**33  # 2242; nanoseconds still fit 63 bits


def date_ns(text: object) -> int:
    """Return the UTC of a written date in nanoseconds since 1970, 0 if it is none that can be meant.

    >>> date_ns("2026-11-20T13:00:10Z"), date_ns("2026-11-20T14:00:10.5+01:00")
    (1795179610000000000, 1795179610500000000)
    >>> date_ns("2026-11-20T13:00:10"), date_ns("1970-01-01T00:00:00Z"), date_ns(None)
    (0, 0, 0)
    """
    found = _DATE.fullmatch(text) if isinstance(text, str) and len(text) <= 64 else None
    if found is None:
        return 0
    year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return 0
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second
    if found[8]:
        seconds -= int(found[8] + "1") * (int(found[9]) * 3600 + int(found[10]) * 60)
    fraction_ns = int((found[7] or "").ljust(9, "0"))
    return seconds * _SECOND_NS + fraction_ns if _FIRST_S <= seconds < _LAST_S else 0


def epoch_ns(value: object) -> int:
    """Return the UTC of seconds (or, beyond 1e11, milliseconds) since 1970 in nanoseconds, 0 if it is none.

    >>> epoch_ns(1795179610), epoch_ns(1795179610500), epoch_ns(12), epoch_ns(True), epoch_ns("soon")
    (1795179610000000000, 1795179610500000000, 0, 0, 0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        return 0
    seconds = value / 1000 if value > 1e11 else value
    return round(seconds * 1_000_000) * 1000 if _FIRST_S <= seconds < _LAST_S else 0


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date; its years begin in March, so that a leap day is the last of one.

    >>> _days(1970, 1, 1), _days(2000, 2, 29), _days(2000, 3, 1)
    (0, 11016, 11017)
    """
    year -= month <= 2
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
