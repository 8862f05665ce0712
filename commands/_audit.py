"""What an audit finds in the outbox: whether the accounts add up, and why a device was not heard of for so long."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from config.settings import DeviceTable, Settings
from logbook.causes import Inquiry, Silence, troubles_of
from logbook.events import Event, What
from logbook.evidence import Evidence, evidence_in, outbox, states
from logbook.moment import Moment, boot_id
from writer.clock import wall_minus_monotonic_ns
from writer.logbook import HOUR_NS, Balance, Logbook, Loss
from writer.outbox import Account, Progress, balance


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
class Accounts:
    """What the outbox says of its outputs, of the same instant as the evidence."""

    progress: dict[str, Progress]
    accounts: dict[str, Account]
    pending: dict[str, int]
    openings: dict[str, tuple[int, Balance]]
    losses: list[Loss]


def audited(settings: Settings, path: Path, since_utc_ns: int, gap_ns: int) -> Audit:
    """Look into the outbox, which may be in use, without changing it. Raises `sqlite3.Error`."""
    now_ns, offset_ns = time.monotonic_ns(), wall_minus_monotonic_ns()
    now = Moment(boot_id(), now_ns, now_ns + offset_ns)
    with looked_into(path, since_utc_ns) as (evidence, accounts):
        audit = Audit(since_utc_ns, now.utc_ns, began=evidence.began)
        audit.lines = [_line(accounts, output) for output in sorted(accounts.accounts)]
        dropped = {(line.output, reason) for line in audit.lines for reason, count in line.dropped.items() if count}
        first_hour = since_utc_ns // HOUR_NS
        audit.losses = [
            loss for loss in accounts.losses if loss[:2] in dropped and (loss.hour >= first_hour or not loss.hour)
        ]
        recent = [event for event in evidence.events if not 0 < event.moment.utc_ns < since_utc_ns]
        audit.steps = [event for event in recent if event.what is What.STEP and event.number > gap_ns]
        audit.missing = [event for event in recent if event.what in (What.MISSING, What.DROPPED)]
        inquiry = Inquiry(evidence, troubles_of(evidence.events), now)
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
def looked_into(path: Path, since_utc_ns: int) -> Iterator[tuple[Evidence, Accounts]]:
    with outbox(path) as connection:
        evidence = evidence_in(connection)
        state = dict(connection.execute("SELECT key, value FROM state"))
        progress = states(state, "output/", Progress)
        accounts = {name: one for name, one in states(state, "account/", Account).items() if name in progress}
        logbook, hour = Logbook(connection), since_utc_ns // HOUR_NS
        began = evidence.began
        openings = {name: found for name in accounts if began and (found := logbook.opening(name, hour))}
        yield (
            evidence,
            Accounts(
                progress,
                accounts,
                {name: _pending(connection, progress[name]) for name in accounts},
                openings,
                list(logbook.losses()) if began else [],
            ),
        )


def _pending(connection: sqlite3.Connection, progress: Progress) -> int:
    """Count, row by row, what an output still has to get."""
    query = "SELECT sum(count) FROM row WHERE id > ? AND id <= ?"
    spans = [(progress.front, 2**63 - 1), *progress.gaps]
    return sum(connection.execute(query, span).fetchone()[0] or 0 for span in spans)


def _line(accounts: Accounts, output: str) -> Line:
    """Return the account of an output since the hour that the moment lies in, or since the output is configured."""
    now = balance(accounts.progress[output], accounts.accounts[output])
    hour, then = accounts.openings.get(output, (0, Balance()))
    if any(early > late for early, late in zip(then, now, strict=True)):  # the account was lost and began anew
        hour, then = 0, Balance()
    return Line(
        output,
        hour * HOUR_NS,
        then.pending,
        now.accepted - then.accepted,
        now.delivered - then.delivered,
        accounts.pending[output],
        {reason: count - then.dropped[reason] for reason, count in now.dropped.items()},
    )


def _configured(settings: Settings) -> Iterator[tuple[str, bool]]:
    """Yield every channel that is configured, and whether it sleeps in the dark."""
    for name, source in settings.sources.items():
        if source.enabled:
            for device in getattr(source, "devices", ()):
                if isinstance(device, DeviceTable):
                    yield f"{name}/{device.name}", bool(getattr(device, "silent_when_dark", False))
            if isinstance(device := getattr(source, "device", None), str):
                yield f"{name}/{device}", False
