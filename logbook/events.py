"""What happened to the house, and when nothing was heard of a device."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from logbook.moment import Moment


class What(StrEnum):
    """What happened."""

    BEGAN = "began"  # the house, anew
    UP = "up"  # a part works again
    DOWN = "down"  # a part stopped working, and why
    SET = "set"  # the clock
    STEP = "step"  # the clock was set by `number` nanoseconds
    GUESSED = "guessed"  # the clock was not set in time, so what waited went out with a guess
    MISSING = "missing"  # `number` messages of a source never came: their numbers were left out
    DROPPED = "dropped"  # `number` readings that a source could not hand over
    DAMAGED = "damaged"  # the outbox was, and has been mended


class Event(Struct, frozen=True):
    """One thing that happened to a part of the house."""

    what: What
    part: str
    moment: Moment
    note: str = ""
    number: int = 0

    @property
    def presses(self) -> bool:
        """Whether it is worth a commit where nothing else is; otherwise it goes with the next one."""
        return self.what is not What.BEGAN and self.part != "house"


class Gap(Struct, frozen=True):
    """Nothing was heard of a channel for so long that somebody may ask why."""

    channel: str
    last: Moment  # the reading before
    next: Moment  # the reading after
