"""The canary: one record that is known for what it is, sent through an output and looked for on the other side.

It goes by hand, through the code of the output and with its options, and not through the outbox: the house that may be
running neither hears of it nor counts it. Its source is `wattherd`, its device `canary`, and it has no metric that any
total, bill or chart of a house adds up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final, TypeVar

from commands._doctor import Finding, Mark
from reading import Record
from writer import Batch, Output, OutputDown, OutputRefused
from writer.clock import wall_minus_monotonic_ns

SOURCE: Final = "wattherd"
DEVICE: Final = "canary"
METRIC: Final = "value"
_NS: Final = 10**9

T = TypeVar("T")


def canary() -> Record:
    """Make one: now, to the second, with a number that no other one has."""
    time_s = (time.monotonic_ns() + wall_minus_monotonic_ns()) // _NS
    return Record(SOURCE, DEVICE, time_s * _NS, {METRIC: float(100_000 + secrets.randbelow(900_000))})


def sent(part: str, output: Output, record: Record) -> list[Finding]:
    """Send it; return what went wrong, nothing if it was taken."""
    try:
        output.write(Batch([record], [1]))
    except OutputDown as down:
        what, _, now = str(down).rpartition("; ")
        return [Finding(part, "canary.sent", Mark.WRONG, what or str(down), getattr(down, "remedy", "") or now)]
    except OutputRefused as refused:
        return [Finding(part, "canary.sent", Mark.WRONG, f"the canary was refused: {refused}")]
    finally:
        output.close()
    return []


def came_back(part: str, where: str) -> Finding:
    return Finding(part, "canary.read", Mark.GOOD, f"a canary was written, and read back from {where}")


def unread(part: str, why: str, what_now: str = "") -> Finding:
    """Say that it was taken and nobody could see it."""
    return Finding(part, "canary.read", Mark.MIND, f"a canary was taken, and cannot be read back: {why}", what_now)


def until(look: Callable[[], T | None], within_s: float) -> T | None:
    """Return the first answer that is something; None if there is none in time."""
    ends_s = time.monotonic() + within_s
    while (answer := look()) is None and time.monotonic() < ends_s:
        time.sleep(0.2)
    return answer
