"""When something was: by a clock that nobody can set, and by the one on the wall as far as that was known."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple


class Moment(NamedTuple):
    """When something was measured: in which run of the monotonic clock, where there, and in UTC (0: nobody knows)."""

    boot: str = ""
    at_ns: int = 0
    utc_ns: int = 0


NEVER: Final = Moment()


def elapsed_ns(first: Moment, then: Moment) -> int | None:
    """Return how long after `first` it was `then`; None where two boots lie between and a date is missing.

    >>> elapsed_ns(Moment("a", 5), Moment("a", 7)), elapsed_ns(Moment("a", 5), Moment("b", 7))
    (2, None)
    >>> elapsed_ns(Moment("a", 5, 1000), Moment("b", 7, 3000))
    2000
    """
    if first.boot == then.boot:
        return then.at_ns - first.at_ns
    return then.utc_ns - first.utc_ns if first.utc_ns and then.utc_ns else None


def boot_id() -> str:
    """What tells one run of the monotonic clock from the next."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
