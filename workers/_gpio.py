"""What both GPIO backends share: a line as it is wanted, an edge as it came, and the promise of a backend."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from workers import SourceError

RISING: Final = 1  # linux/gpio.h: GPIO_V2_LINE_EVENT_RISING_EDGE
FALLING: Final = 2  # linux/gpio.h: GPIO_V2_LINE_EVENT_FALLING_EDGE


class Line(Struct, frozen=True):
    """One line as it is wanted."""

    line: int | str  # offset on its chip, which is the BCM number on every Pi, or the name of the line
    edge: Literal["rising", "falling"]  # the one that begins a pulse, after `active_low`
    both: bool  # whether the other edge is wanted too
    bias: Literal["pull_up", "pull_down", "none"]
    active_low: bool

    @property
    def lead(self) -> int:
        """The edge that begins a pulse."""
        return RISING if self.edge == "rising" else FALLING


class Edge(NamedTuple):
    """One edge as the kernel saw it."""

    at_ns: int  # CLOCK_MONOTONIC
    kind: int  # RISING or FALLING, after `active_low`
    offset: int
    number: int  # rises by one an edge of this line, modulo 2**32; a gap tells of edges that were lost


class NoChip(SourceError):  # noqa: N818 - what is the case, not that it is an error
    """There is no GPIO character device that could be used at all."""


class Busy(SourceError):  # noqa: N818 - as above
    """Somebody else has a line, or nobody knows who."""

    def __init__(self, what: str, what_now: str, consumers: frozenset[str]) -> None:
        super().__init__(what, what_now)
        self.consumers = consumers  # what those who have a line call themselves


class Edges(Protocol):
    """A backend: edges of the wanted lines, from the moment of `open()` on."""

    descriptor: int  # readable when there are edges
    offsets: list[int]  # of the lines, in their order

    def open(self) -> None:
        """Request the lines. Raises `SourceError`."""

    def take(self) -> list[Edge]:
        """Return what came, without waiting. Raises `SourceError` when nothing will come any more."""

    def levels(self) -> list[bool]:
        """Return whether each line is at the level that its pulses have; nothing if nobody knows."""

    def close(self) -> None:
        """Let go of what must not outlive this process."""
