"""What may be asked of the history: parameters with their limits, and what is said of those that are beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from fastapi import Query

from api.answers import refuse
from api.snapshot import now
from api.times import read
from config.settings import NAME_PATTERN
from config.words import nearest
from history.buckets import SECOND_NS
from history.periods import Period

MOST_STEPS: Final = 10_000
MOST_PERIODS: Final = 1_000
_LENGTH_S: Final[dict[Period, int]] = {
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}
_USUAL: Final[dict[Period, str]] = {"hour": "-24h", "day": "-6d", "week": "-7w", "month": "-335d", "year": "-1461d"}

_NAME: Final = NAME_PATTERN.replace(r"\A", "^").replace(r"\Z", "$")
_WHEN: Final = 'a time: "2026-11-28T09:30:00Z", without an offset by the clock of the site, seconds since 1970, "-24h"'
# For those who read the description; what does not fit is refused by `read`, in better words.
_CLOCK: Final = r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?"
_FORMS: Final = (
    "now",
    "-[0-9]{1,6}[smhdw]",
    "[0-9]{1,10}([.][0-9]{1,9})?",
    f"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(T{_CLOCK})?",
)
TIME: Final[dict[str, Any]] = {"max_length": 40, "json_schema_extra": {"pattern": f"^({'|'.join(_FORMS)})$"}}
SourceName = Annotated[
    str, Query(pattern=_NAME, description="the source's name in the configuration", examples=["house"])
]
DeviceName = Annotated[
    str, Query(pattern=_NAME, description="the device's name in the configuration", examples=["fridge"])
]
Metric = Annotated[
    str, Query(pattern="^[a-z][a-z0-9_]{0,40}$", description="see /api/v1/devices", examples=["power_w"])
]
From = Annotated[str, Query(alias="from", description=f"{_WHEN}; the beginning", examples=["-24h"], **TIME)]
To = Annotated[str, Query(description=f"{_WHEN}; the end", examples=["now"], **TIME)]
Step = Annotated[
    str,
    Query(
        pattern=r"^(auto|[1-9][0-9]{0,8})$",
        description=f'seconds, or "auto" for about 400 steps; at most {MOST_STEPS:,} of them',
        examples=["auto"],
    ),
]
By = Annotated[Literal["hour", "day", "week", "month", "year"], Query(description="local periods of the site")]
RawStep = Annotated[
    str,
    Query(
        pattern=r"^(raw|auto|[1-9][0-9]{0,8})$",
        description='"raw": every reading, where it is still kept; else as for series',
        examples=["raw"],
    ),
]
OneMetric = Annotated[str | None, Query(pattern="^[a-z][a-z0-9_]{0,40}$", description="of one metric only")]
OneSource = Annotated[str | None, Query(pattern=_NAME, description="of one channel only: its source")]
OneDevice = Annotated[str | None, Query(pattern=_NAME, description="of one channel only: its device")]
PeriodsFrom = Annotated[
    str | None, Query(alias="from", description=f"{_WHEN}; the first period has it in it", examples=["-7d"], **TIME)
]


def span(from_: str, to: str, zone: ZoneInfo) -> tuple[int, int]:
    """Return from when to when is asked, in nanoseconds."""
    now_ns = now().utc_ns
    try:
        from_ns, to_ns = read(from_, now_ns, zone), read(to, now_ns, zone)
    except ValueError as error:
        refuse(422, str(error))
    if from_ns >= to_ns:
        refuse(422, f"from {from_} is not before to {to}; let it be earlier")
    return from_ns, to_ns


def step_s(step: str, from_ns: int, to_ns: int) -> int | None:
    """Return the step in seconds; None: as the history thinks best."""
    if step == "auto":
        return None
    steps = (to_ns - from_ns) // (int(step) * SECOND_NS)
    if steps > MOST_STEPS:
        refuse(
            422, f"step {step} would be {steps:,} steps, more than {MOST_STEPS:,}; make it longer, or the time shorter"
        )
    return int(step)


class Periods(NamedTuple):
    """Which local periods are asked for."""

    from_ns: int
    to_ns: int
    by: Period
    timezone: str


def periods(by: Period, from_: str | None, to: str, zone: ZoneInfo) -> Periods:
    """Return from when to when is asked, not too many periods."""
    from_ns, to_ns = span(_USUAL[by] if from_ is None else from_, to, zone)
    count = (to_ns - from_ns) // (_LENGTH_S[by] * SECOND_NS)
    if count > MOST_PERIODS:
        longer = get_args(Period)[min(get_args(Period).index(by) + 1, 4)]
        refuse(422, f"these are {count:,} periods, more than {MOST_PERIODS:,}; ask by={longer}, or for a shorter time")
    return Periods(from_ns, to_ns, by, zone.key)


def unknown(what: str, wanted: str, known: Sequence[str]) -> str:
    """Say that there is no such thing, and what comes near."""
    return f"there is no {what}{nearest(wanted, known, listed=True) if known else '; there is none yet'}"
