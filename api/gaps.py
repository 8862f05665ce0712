"""`/api/v1/gaps`: for which times nothing was measured, and why; asked of the outbox, read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from api import documents
from api.channels import Channels, parted
from api.snapshot import Now
from api.times import utc
from history.buckets import SECOND_NS
from logbook.causes import Inquiry, Silence, troubles_of
from logbook.events import What
from logbook.evidence import Evidence, evidence_in, outbox
from logbook.moment import Moment, boot_id

LEAST_GAP_NS: Final = 300 * SECOND_NS  # shorter silences are not written down
MOST_GAPS: Final = 1000
_CAUSES: Final = ("device", "bus", "clock", "process", "output")


async def gaps(path: Path, channels: Channels, since_ns: int, at: Now) -> documents.Gaps:
    """Return every gap that ended after `since_ns` or goes on, newest first. Raises `sqlite3.Error`.

    There may be thousands; so the loop gets to everybody else in between.
    """
    with outbox(path) as connection:
        evidence = evidence_in(connection)
    inquiry = Inquiry(evidence, troubles_of(evidence.events), Moment(boot_id(), at.monotonic_ns, at.utc_ns))
    found = [*_steps(evidence, since_ns)]
    for channel, first, last in _silences(evidence, channels, since_ns):
        found += _told(inquiry.silence(channel, first, last, sleeps=channels.sleeps(channel)))
        await asyncio.sleep(0)
    found.sort(key=lambda gap: (not gap.over, gap.to or gap.from_ or ""), reverse=True)
    return documents.Gaps(found[:MOST_GAPS])


def _silences(evidence: Evidence, channels: Channels, since_ns: int) -> Iterator[tuple[str, Moment, Moment | None]]:
    """Yield of whom, since when and until when, the newest first; None: still."""
    for name, known in evidence.channels.items():
        if channels.is_ours(name) and known.seen.boot:
            yield name, known.seen, None
    recent = [gap for gap in evidence.silences if not 0 < gap.next.utc_ns < since_ns and channels.is_ours(gap.channel)]
    for gap in reversed(recent[-MOST_GAPS:]):
        yield gap.channel, gap.last, gap.next


def _told(silence: Silence) -> Iterator[documents.Gap]:
    if silence.length_ns is not None and silence.length_ns <= LEAST_GAP_NS:
        return
    source, device = parted(silence.channel)
    yield documents.Gap(
        source,
        device,
        from_=utc(silence.first.utc_ns) if silence.first.utc_ns else None,
        to=utc(silence.last.utc_ns) if silence.last and silence.last.utc_ns else None,
        over=silence.last is not None,
        length_s=None if silence.length_ns is None else silence.length_ns / SECOND_NS,
        cause=silence.cause if silence.cause in _CAUSES else "unknown",  # type: ignore[arg-type]
        what=f"{silence.note}; energy: {silence.energy}",
        energy_known=silence.energy.startswith("known"),
        expected=silence.expected,
    )


def _steps(evidence: Evidence, since_ns: int) -> Iterator[documents.Gap]:
    """Yield the holes that a clock leaves which is set forward: nothing was lost, but no reading has such a date."""
    for event in evidence.events:
        if event.what is What.STEP and event.number > LEAST_GAP_NS and not 0 < event.moment.utc_ns < since_ns:
            yield documents.Gap(
                None,
                None,
                from_=utc(event.moment.utc_ns - event.number) if event.moment.utc_ns else None,
                to=utc(event.moment.utc_ns) if event.moment.utc_ns else None,
                over=True,
                length_s=event.number / SECOND_NS,
                cause="clock",
                what=f"{event.note}; nothing was lost, but no reading of any device has a date in between",
                energy_known=True,
                expected=False,
            )
