"""What an audit finds in the outbox: whether the accounts add up, and why a device was not heard of for so long."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from config.settings import DeviceTable, Settings
from writer.books import Books
from writer.clock import boot_id, wall_minus_monotonic_ns
from writer.ledger import Channel, Entry, Gap
from writer.logbook import HOUR_NS, Balance, Event, Logbook, Loss, What
from writer.outbox import Account, Progress, balance
from writer.register import UWH, Kind, Moment, elapsed_ns

_CAUSES: Final = {"device": "device", "source": "bus", "output": "output"}  # all else: process
_SOON_NS: Final = 300 * 10**9  # a device that speaks again may tell its counter a little later
_BEYOND_NS: Final = 2**62
_ASLEEP: Final = "it sleeps while it is dark (silent_when_dark)"
_SILENT: Final = "it sent nothing, and nothing is known to have been wrong on our side"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """The account of one output since a moment: what waited then and came since is what it got, waits, or will miss."""

    output: str
    since_utc_ns: int  # 0: since it was configured
    waited: int
    accepted: int
    delivered: int
    pending: int  # counted, row by row
    dropped: dict[str, int]

    @property
    def unaccounted(self) -> int:
        return self.waited + self.accepted - self.delivered - self.pending - sum(self.dropped.values())


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


@dataclass(slots=True)
class Audit:
    """All that was found."""

    since_utc_ns: int
    now_utc_ns: int
    lines: list[Line] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    steps: list[Event] = field(default_factory=list)  # of the clock, where they leave a hole
    unheard: list[str] = field(default_factory=list)  # channels that are configured and never spoke
    missing: list[Event] = field(default_factory=list)  # what a source could not hand over, or its numbers miss
    began: bool = True  # there is a logbook

    @property
    def is_short(self) -> bool:
        """Whether readings are lost or unaccounted for."""
        return bool(self.missing) or any(line.unaccounted or any(line.dropped.values()) for line in self.lines)

    @property
    def gaps(self) -> list[Silence]:
        """The silences that nobody could expect."""
        return [silence for silence in self.silences if not silence.expected]

    @property
    def has_gaps(self) -> bool:
        return bool(self.gaps or self.steps or self.unheard)


@dataclass(slots=True)
class _Evidence:
    """What of the outbox an audit looks at, all of one instant."""

    progress: dict[str, Progress]
    accounts: dict[str, Account]
    pending: dict[str, int]
    channels: dict[str, Channel]
    openings: dict[str, tuple[int, Balance]]
    events: list[Event]
    silences: list[Gap]
    losses: list[Loss]
    entries: list[Entry]
    began: bool


def audited(settings: Settings, path: Path, since_utc_ns: int, gap_ns: int) -> Audit:
    """Look into the outbox, which may be in use, without changing it. Raises `sqlite3.Error`."""
    now_ns, offset_ns = time.monotonic_ns(), wall_minus_monotonic_ns()
    now = Moment(boot_id(), now_ns, now_ns + offset_ns)
    with _looked_into(path, since_utc_ns) as evidence:
        audit = Audit(since_utc_ns, now.utc_ns, began=evidence.began)
        audit.lines = [_line(evidence, output) for output in sorted(evidence.accounts)]
        dropped = {(line.output, reason) for line in audit.lines for reason, count in line.dropped.items() if count}
        first_hour = since_utc_ns // HOUR_NS
        audit.losses = [
            loss for loss in evidence.losses if loss[:2] in dropped and (loss.hour >= first_hour or not loss.hour)
        ]
        recent = [event for event in evidence.events if not 0 < event.moment.utc_ns < since_utc_ns]
        audit.steps = [event for event in recent if event.what is What.STEP and event.number > gap_ns]
        audit.missing = [event for event in recent if event.what in (What.MISSING, What.DROPPED)]
        inquiry = _Inquiry(evidence, troubles_of(evidence.events), now)
        sleepers = dict(_configured(settings))
        for gap in evidence.silences:
            if not 0 < gap.next.utc_ns < since_utc_ns:
                sleeps = sleepers.get(gap.channel, False)
                audit.silences.append(inquiry.silence(gap.channel, gap.last, gap.next, sleeps=sleeps))
        for name, sleeps in sleepers.items():
            channel = evidence.channels.get(name)
            if channel and channel.seen.boot:
                audit.silences.append(inquiry.silence(name, channel.seen, None, sleeps=sleeps))
            else:
                audit.unheard.append(name)
    audit.silences = [one for one in audit.silences if one.length_ns is None or one.length_ns > gap_ns]
    return audit


@contextlib.contextmanager
def _looked_into(path: Path, since_utc_ns: int) -> Iterator[_Evidence]:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)) as connection:
        connection.text_factory = lambda text: text.decode("utf-8", "replace")  # of a salvaged file, for instance
        connection.execute("BEGIN")  # all that follows is of one instant, whatever the house commits meanwhile
        state = dict(connection.execute("SELECT key, value FROM state"))
        progress = _states(state, "output/", Progress)
        accounts = {name: one for name, one in _states(state, "account/", Account).items() if name in progress}
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        began = "event" in tables  # else an older version wrote it, and this one has not been started since
        logbook, hour = Logbook(connection), since_utc_ns // HOUR_NS
        openings = {name: found for name in accounts if began and (found := logbook.opening(name, hour))}
        entries = Books(connection).entries() if "entry" in tables else []
        yield _Evidence(
            progress,
            accounts,
            {name: _pending(connection, progress[name]) for name in accounts},
            _states(state, "ledger/", Channel),
            openings,
            list(logbook.events()) if began else [],
            list(logbook.silences()) if began else [],
            list(logbook.losses()) if began else [],
            [entry for _, entry in entries],
            began,
        )


def _states(state: Mapping[str, bytes], prefix: str, kind: type[T]) -> dict[str, T]:
    found = {}
    for key, value in state.items():
        if key.startswith(prefix):
            with contextlib.suppress(ValueError):  # damaged: the house will settle it with its next start
                found[key.removeprefix(prefix)] = msgspec.msgpack.decode(value, type=kind)
    return found


def _pending(connection: sqlite3.Connection, progress: Progress) -> int:
    """Count, row by row, what an output still has to get."""
    query = "SELECT sum(count) FROM row WHERE id > ? AND id <= ?"
    spans = [(progress.front, 2**63 - 1), *progress.gaps]
    return sum(connection.execute(query, span).fetchone()[0] or 0 for span in spans)


def _line(evidence: _Evidence, output: str) -> Line:
    """Return the account of an output since the hour that the moment lies in, or since the output is configured."""
    now = balance(evidence.progress[output], evidence.accounts[output])
    hour, then = evidence.openings.get(output, (0, Balance()))
    if any(early > late for early, late in zip(then, now, strict=True)):  # the account was lost and began anew
        hour, then = 0, Balance()
    return Line(
        output,
        hour * HOUR_NS,
        then.pending,
        now.accepted - then.accepted,
        now.delivered - then.delivered,
        evidence.pending[output],
        {reason: count - then.dropped[reason] for reason, count in now.dropped.items()},
    )


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


@dataclass(frozen=True, slots=True)
class _Inquiry:
    """Finds why devices were silent."""

    evidence: _Evidence
    troubles: Sequence[Trouble]
    now: Moment

    def silence(self, name: str, first: Moment, last: Moment | None, *, sleeps: bool) -> Silence:
        end = last or self.now
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
        for trouble in self.troubles:
            if trouble.part in parts:
                key = (-parts.index(trouble.part), trouble.cause, _of_part(trouble))
                during[key] = during.get(key, 0) + _overlap_ns(trouble, first, end, self.now)
        length_ns = elapsed_ns(first, end)
        if during:
            (longest, (_, cause, note)) = max((ns, key) for key, ns in during.items())
            if longest and 2 * longest >= (length_ns or 0):
                return cause, note
        if length_ns is None:
            return "clock", "the computer started anew and its clock was not set, so nobody knows how long it was"
        return "device", _SILENT

    def _energy(self, name: str, last: Moment) -> str:
        channel = self.evidence.channels.get(name)
        for entry in self.evidence.entries:
            if entry.channel != name or entry.moment.boot != last.boot:
                continue
            if 0 <= entry.moment.at_ns - last.at_ns <= _SOON_NS:
                if entry.kind is Kind.ESTIMATED:
                    return f"known: its counter went on by {entry.booked_uwh / UWH / 1000:.3f} kWh, spread over the gap"
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
    begins, ends, length = (elapsed_ns(first, moment) for moment in (trouble.first, last, end))
    if begins is not None and ends is not None and length is not None:
        return max(0, min(ends, length) - max(begins, 0))
    # Some date is missing: it lasted from one boot into another, as the silence did.
    is_over_both = trouble.first.boot == first.boot and last.boot == end.boot and first.boot != end.boot
    return _BEYOND_NS if is_over_both else 0


def _configured(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Yield every channel that is configured, and whether it sleeps in the dark."""
    for name, source in settings.sources.items():
        if source.enabled:
            for device in getattr(source, "devices", ()):
                if isinstance(device, DeviceTable):
                    yield f"{name}/{device.name}", bool(getattr(device, "silent_when_dark", False))
            if isinstance(device := getattr(source, "device", None), str):
                yield f"{name}/{device}", False
