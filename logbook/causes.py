"""Why nothing was heard of a device: put together from what happened to every part of the house meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from logbook.entries import Entry, Kind
from logbook.events import Event, What
from logbook.evidence import Evidence
from logbook.moment import Moment, elapsed_ns

_CAUSES: Final = {"device": "device", "source": "bus", "output": "output"}  # all else: process
_SOON_NS: Final = 300 * 10**9  # a device that speaks again may tell its counter a little later
_BEYOND_NS: Final = 2**62
_ASLEEP: Final = "it sleeps while it is dark (silent_when_dark)"
_SILENT: Final = "it sent nothing, and nothing is known to have been wrong on our side"
_UWH: Final = 1_000_000  # micro-watt-hours of a watt-hour


@dataclass(frozen=True, slots=True)
class Trouble:
    """One part of the house did not work from one moment to another."""

    cause: str  # device, bus, clock, process, output
    part: str
    first: Moment
    last: Moment | None  # None: it still does not
    note: str


@dataclass(frozen=True, slots=True)
class Silence:
    """A device was not heard of, and why."""

    channel: str
    first: Moment  # the reading before
    last: Moment | None  # the reading after; None: it is silent now
    length_ns: int | None  # None: nobody knows, the clock was not set
    cause: str
    note: str
    energy: str  # what is known of the energy that flowed meanwhile
    expected: bool = False


def troubles_of(events: Iterable[Event]) -> list[Trouble]:
    """Put together from when to when each part did not work."""
    found: list[Trouble] = []
    down: dict[str, Event] = {}

    def close(part: str, last: Moment | None) -> None:
        if event := down.pop(part, None):
            cause = _CAUSES.get(part.split(" ", maxsplit=1)[0], "process")
            found.append(Trouble(cause, part, event.moment, last, event.note))

    for event in events:
        if event.what is What.BEGAN:
            ended = down["house"].moment if "house" in down else event.moment
            close("house", event.moment)
            for part in list(down):
                close(part, ended)  # what troubled the house before this one, nobody knows any more
        elif event.what is What.UP:
            close(event.part, event.moment)
        elif event.what is What.DOWN:
            close(event.part, event.moment)
            down[event.part] = event
    for part in list(down):
        close(part, None)
    return found


class Inquiry:
    """Finds why devices were silent."""

    def __init__(self, evidence: Evidence, troubles: Iterable[Trouble], now: Moment) -> None:
        self._channels = evidence.channels
        self._now = now
        self._troubles: defaultdict[str, list[Trouble]] = defaultdict(list)  # by part
        for trouble in troubles:
            self._troubles[trouble.part].append(trouble)
        self._entries: defaultdict[str, list[Entry]] = defaultdict(list)  # by channel
        for entry in evidence.entries:
            self._entries[entry.channel].append(entry)

    def silence(self, name: str, first: Moment, last: Moment | None, *, sleeps: bool) -> Silence:
        end = last or self._now
        length_ns = elapsed_ns(first, end)
        cause, note = self._cause(name, first, end)
        expected = sleeps and note == _SILENT
        energy = self._energy(name, last) if last else "not known before it speaks again"
        return Silence(name, first, last, length_ns, cause, _ASLEEP if expected else note, energy, expected)

    def _cause(self, name: str, first: Moment, end: Moment) -> tuple[str, str]:
        """Return what was wrong for at least half of the time, and the sentence that was told of it."""
        source = name.split("/", maxsplit=1)[0]
        parts = ("house", f"process source.{source}", f"source {source}", f"device {name}")
        during: dict[tuple[int, str, str], int] = {}
        for rank, part in enumerate(parts):
            for trouble in self._troubles[part]:
                if overlap_ns := _overlap_ns(trouble, first, end, self._now):
                    key = (-rank, trouble.cause, _of_part(trouble))
                    during[key] = during.get(key, 0) + overlap_ns
        length_ns = elapsed_ns(first, end)
        if during:
            (longest, (_, cause, note)) = max((ns, key) for key, ns in during.items())
            if 2 * longest >= (length_ns or 0):
                return cause, note
        if length_ns is None:
            return "clock", "the computer started anew and its clock was not set, so nobody knows how long it was"
        return "device", _SILENT

    def _energy(self, name: str, last: Moment) -> str:
        channel = self._channels.get(name)
        for entry in self._entries[name]:
            if entry.moment.boot != last.boot:
                continue
            if 0 <= entry.moment.at_ns - last.at_ns <= _SOON_NS:
                if entry.kind is Kind.ESTIMATED:
                    return (
                        f"known: its counter went on by {entry.booked_uwh / _UWH / 1000:.3f} kWh, spread over the gap"
                    )
                return f"its counter showed something strange ({entry.kind.replace('_', ' ')}); see ledger entries"
        if channel and channel.counted:
            return "known: its counter did not move"
        return "not known: the device tells its power only, or no energy at all"


def _of_part(trouble: Trouble) -> str:
    if trouble.part.startswith("process "):
        return f"the process of {trouble.part.removeprefix('process ').replace('.', ' ')}: {trouble.note}"
    if trouble.part.startswith("source "):
        return f"{trouble.part}: {trouble.note}"
    return trouble.note


def _overlap_ns(trouble: Trouble, first: Moment, end: Moment, now: Moment) -> int:
    """Return how much of the time from `first` to `end` there was trouble."""
    last = trouble.last or now
    if last.boot == first.boot and last.at_ns <= first.at_ns:
        return 0  # this and the next line are for speed: there may be thousands of each
    if trouble.first.boot == end.boot and trouble.first.at_ns >= end.at_ns:
        return 0
    begins, ends, length = (elapsed_ns(first, moment) for moment in (trouble.first, last, end))
    if begins is not None and ends is not None and length is not None:
        return max(0, min(ends, length) - max(begins, 0))
    # Some date is missing: it lasted from one boot into another, as the silence did.
    is_over_both = trouble.first.boot == first.boot and last.boot == end.boot and first.boot != end.boot
    return _BEYOND_NS if is_over_both else 0
