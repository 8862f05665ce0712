"""Looks at the vitals board once a second and tells the logbook what has become of every part of the house."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.settings import NAME_PATTERN
from logbook.events import Event, What
from logbook.moment import Moment
from vitals import OUTPUT_STATES, Board, Row
from writer.clock import WallClock
from writer.logbook import HOUR_NS, Logbook
from writer.outbox import Watermark
from writer.salvage import Salvage

_EVERY_NS: Final = 10**9
_SAME_AGAIN_NS: Final = 300 * 10**9  # another sentence on the same trouble is not worth a line before that
_MOST_AN_HOUR: Final = 20  # of one part: what comes and goes all day must not push the rest out of the logbook
_BETWEEN_DEVICES: Final = " · "  # in a worker's note


@dataclass(slots=True)
class _Part:
    """What the logbook knows of one part."""

    note: str = ""  # why it is down; empty while it is well
    told_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_MOST_AN_HOUR))

    def may_tell(self, now_ns: int, *, again: bool) -> bool:
        if not self.told_ns:
            return True
        if again and now_ns - self.told_ns[-1] < _SAME_AGAIN_NS:
            return False
        return len(self.told_ns) < _MOST_AN_HOUR or now_ns - self.told_ns[0] > HOUR_NS


@dataclass(slots=True)
class _Life:
    """What was last seen of a process."""

    row: Row
    heart: Row | None  # the row that beats
    name: str
    since_ns: int
    failures: int = 0
    hangs: int = 0
    beat_ns: int = 0


class Lookout:
    """Compares the board with what the logbook has, and tells the difference."""

    def __init__(self, board: Board | None, writer: Row, outputs: Mapping[str, Row], clock: WallClock) -> None:
        self._writer = writer
        self._outputs = outputs
        self._clock = clock
        self._steps, self._offset_ns = clock.steps, clock.offset_ns
        self._trusted, self._hopeless = clock.trusted, clock.hopeless
        self._before_ns = writer["beat_ns"]  # of our predecessor under the same parent, if there was one
        self._workers = {row.name: row for row in board.rows("worker")} if board else {}
        self._dropped = {name: row["dropped"] for name, row in self._workers.items()}
        self._lives = [self._life(row) for row in board.rows("process") if row.name != "writer"] if board else []
        self._parts: dict[str, _Part] = {}
        self._looked_ns = 0

    def begin(self, logbook: Logbook, salvage: Salvage | None) -> Iterator[Event]:
        """Yield how the house, or only the writer, comes to be here, and how its predecessor ended."""
        now = self._moment(time.monotonic_ns())
        told = list(logbook.events())
        was_stopped = [event.what for event in told if event.part == "house"][-1:] == [What.DOWN]
        alive = logbook.alive
        if self._before_ns:
            if not was_stopped:
                before = self._moment(self._before_ns)
                yield Event(What.DOWN, "house", before, "the writer ended unasked and was started again")
            yield Event(What.UP, "house", now)
            self._remember(told)
        else:
            if alive and not was_stopped:
                other_boot = alive.boot != self._clock.boot
                how = "the power was cut, or the computer started anew" if other_boot else "wattherd was killed"
                yield Event(What.DOWN, "house", alive, how)
            yield Event(What.BEGAN, "house", now)
        if salvage:
            what = f"the outbox was damaged ({salvage.reason}); what could not be read is in {salvage.set_aside.name}"
            yield Event(What.DAMAGED, "outbox", now, what)

    def end(self, *, orphaned: bool) -> Iterator[Event]:
        """Yield that the writer was asked to stop; where somebody killed its parent, its successor will say so."""
        if not orphaned:
            yield Event(What.DOWN, "house", self._moment(time.monotonic_ns()), "wattherd was stopped")

    def look(self) -> Iterator[Event]:
        """Yield what has changed; not more than once a second."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < _EVERY_NS:
            return
        self._looked_ns = now_ns
        yield from self._look_at_clock(now_ns)
        for life in list(self._lives):
            yield from self._look_at_process(life, now_ns)
        for name, worker in list(self._workers.items()):
            if (worker.role, worker.name) == ("worker", name):
                yield from self._look_at_worker(name, worker, now_ns)
            else:
                del self._workers[name]
        for name, output in self._outputs.items():
            state = OUTPUT_STATES[output["state"]]
            if state in ("down", "stopped"):
                yield from self._tell(f"output {name}", output.note or f"it is {state}", output["failing_since_ns"])
            elif state == "up":
                yield from self._tell(f"output {name}", "", now_ns)

    def missing(self, stream: str, last: Watermark, number: Watermark) -> Iterator[Event]:
        """Yield what the number of a source's message, behind that of the last one, shows to be missing."""
        first = last.sequence + 1 if number.incarnation == last.incarnation else 1
        # Of a stream that nobody knows, or no longer knows, nothing can be said.
        if last.incarnation and number.sequence > first:
            what = f"messages number {first} to {number.sequence - 1} of run {number.incarnation} never came"
            moment = self._moment(time.monotonic_ns())
            yield Event(What.MISSING, f"source {stream}", moment, what, number.sequence - first)

    def _look_at_clock(self, now_ns: int) -> Iterator[Event]:
        clock = self._clock
        if clock.steps != self._steps:
            self._steps = clock.steps
            by_ns = clock.offset_ns - self._offset_ns
            yield Event(What.STEP, "clock", self._moment(now_ns), f"the clock was set by {by_ns / 1e9:+.1f} s", by_ns)
        if clock.trusted and not self._trusted:
            self._trusted = True
            yield Event(What.SET, "clock", self._moment(now_ns), "the clock was set; what had waited for it is dated")
        if clock.hopeless and not self._hopeless:
            self._hopeless = True
            yield Event(What.GUESSED, "clock", self._moment(now_ns), "the clock was not set in time: dates are a guess")
        self._offset_ns = clock.offset_ns

    def _look_at_process(self, life: _Life, now_ns: int) -> Iterator[Event]:
        row, part = life.row, f"process {life.name}"
        if (row.role, row.name) != ("process", life.name):
            self._lives.remove(life)
            yield from self._tell(part, "it is no longer in the configuration", life.beat_ns or now_ns)
            return
        since_ns, failures, hangs = row["since_ns"], row["failures"], row["hangs"]
        beat_ns = life.heart["beat_ns"] if life.heart else 0
        if (life.since_ns and since_ns != life.since_ns) or (not since_ns and failures > life.failures):
            why = "it hung and was replaced" if hangs > life.hangs else "it ended unasked and was started again"
            if failures == life.failures:
                why = "it was stopped, or started anew, as asked"
            yield from self._tell(part, why, life.beat_ns or now_ns)
        elif since_ns and beat_ns > since_ns:
            yield from self._tell(part, "", since_ns)
        life.since_ns, life.failures, life.hangs, life.beat_ns = since_ns, failures, hangs, beat_ns

    def _look_at_worker(self, name: str, worker: Row, now_ns: int) -> Iterator[Event]:
        if (dropped := worker["dropped"] - self._dropped[name]) > 0:
            self._dropped[name] += dropped
            why = "the writer did not take them in time, or one was too large"
            yield Event(What.DROPPED, f"source {name}", self._moment(now_ns), why, dropped)
        part, note = f"source {name}", worker.note
        known = self._parts.get(part)
        if not note:
            if worker["open"]:
                yield from self._tell(part, "", now_ns)
                yield from self._tell_devices(name, {}, now_ns)
        elif not worker["open"]:
            yield from self._tell(part, note, now_ns)
        elif worker["devices_troubled"] and not (known and known.note == note):
            # Open again with the old sentence only means that nobody knows yet whether reading works.
            yield from self._tell(part, "", now_ns)
            yield from self._tell_devices(name, troubles_in(note), now_ns, whole=worker["devices_troubled"])

    def _tell_devices(
        self, source: str, troubles: Mapping[str, str], now_ns: int, *, whole: int = 0
    ) -> Iterator[Event]:
        for device, trouble in troubles.items():
            yield from self._tell(f"device {source}/{device}", trouble, now_ns)
        if len(troubles) < whole:
            return  # the note had no room for all of them: who is not in it may be in trouble all the same
        for part in [part for part in self._parts if part.startswith(f"device {source}/")]:
            if part.partition("/")[2] not in troubles:
                yield from self._tell(part, "", now_ns)

    def _tell(self, part: str, note: str, at_ns: int) -> Iterator[Event]:
        """Tell that a part is down since then and why, or well, if that is news."""
        known = self._parts.get(part)
        if note == (known.note if known else ""):
            return
        if known is None:
            known = self._parts[part] = _Part()
        now_ns = time.monotonic_ns()
        if known.may_tell(now_ns, again=bool(note and known.note)):
            known.note = note
            known.told_ns.append(now_ns)
            yield Event(What.DOWN if note else What.UP, part, self._moment(at_ns), note)

    def _remember(self, told: Iterable[Event]) -> None:
        """Go on from what our predecessor told: a trouble that has passed since must not stay for ever."""
        for event in told:
            if event.what is What.BEGAN:
                self._parts.clear()
            elif event.what in (What.UP, What.DOWN) and event.part != "house":
                self._parts.setdefault(event.part, _Part()).note = event.note if event.what is What.DOWN else ""

    def _life(self, row: Row) -> _Life:
        name = row.name
        heart = self._workers.get(name.removeprefix("source."))
        since_ns = row["since_ns"]
        life = _Life(row, heart, name, since_ns, beat_ns=self._before_ns)
        if self._before_ns:
            if since_ns > self._before_ns:
                life.since_ns = -1  # it was started while there was no writer
            else:
                life.failures, life.hangs = row["failures"], row["hangs"]
        return life

    def _moment(self, at_ns: int) -> Moment:
        clock = self._clock
        return Moment(clock.boot, at_ns, at_ns + clock.offset_ns if clock.trusted else 0)


def troubles_in(note: str) -> dict[str, str]:
    """Take a worker's note on its devices apart.

    >>> troubles_in("pv: no answer; look at the cable · grid: 2 V · or less; is it on?")
    {'pv': 'no answer; look at the cable', 'grid': '2 V · or less; is it on?'}
    """
    troubles: dict[str, str] = {}
    device = ""
    for piece in note.split(_BETWEEN_DEVICES):
        head, colon, trouble = piece.partition(": ")
        if colon and re.fullmatch(NAME_PATTERN, head):
            device = head
            troubles[device] = trouble
        elif device:
            troubles[device] += _BETWEEN_DEVICES + piece
    return troubles
