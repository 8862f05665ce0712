"""The writer's work loop: looks at what the workers report, commits it, and only then takes it from the channels.

Dedupe happens twice. A message that a killed writer had committed and not yet taken is known by its number. A message
that a *device* sent again, because the worker was killed before it could answer, is known by the device's own number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import signal
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from channel import Receiver, Report, decode_report
from config.intervals import commit_interval_s, file_interval_s
from config.prices import Prices
from config.settings import ChannelTable, ClockRules, OutputTable, Site, TariffTable
from config.settings import Writer as WriterTable
from reading import Origin, Reading
from tap import Spout
from vitals import Board, Row
from writer import Memo, Output, output_class
from writer.clock import WallClock
from writer.delivery import Delivery, leave_all
from writer.derive import Derivation, terms_of
from writer.ledger_copy import LedgerCopy
from writer.lookout import Lookout
from writer.outbox import Intake, Stamp, Watermark
from writer.repeats import digest, with_message
from writer.rescue import is_damage
from writer.rows import CLOCKS, HELD, RESTAMPED, SYNCED, UNSYNCED
from writer.salvage import open_outbox

log = logging.getLogger("writer")

_TICK_S: Final = 0.5
_RETRY_COMMIT_S: Final = 1.0
_LEAVE_S: Final = 2.0  # for a commit that fails, and for the outputs, when the house stops
_CLOSE_S: Final = 1.0  # for the outputs to close what they have open


@dataclass(frozen=True, slots=True)
class WriterPlan:
    """What the writer needs to know."""

    data_dir: Path
    site: Site
    writer: WriterTable
    clock: ClockRules
    outputs: Mapping[str, OutputTable]
    channels: Mapping[str, ChannelTable] = field(default_factory=dict)  # by source/device
    tariffs: Mapping[str, TariffTable] = field(default_factory=dict)
    prices: Mapping[str, Prices] = field(default_factory=dict)


class Ingest:
    """One loop, one thread: receive, commit, consume, tell the outputs."""

    def __init__(
        self,
        plan: WriterPlan,
        receivers: Sequence[Receiver],
        vitals: Row,
        output_vitals: Mapping[str, Row],
        board: Board | None = None,
        *,
        spout: Spout | None = None,
    ) -> None:
        self._spout = spout or Spout()
        self._parent = os.getppid()
        self._stopping = self._leaving = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Before anything that takes long: to be stopped while the outbox is checked must not skip the draining.
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        self._plan = plan
        self._receivers = {receiver.fileno(): receiver for receiver in receivers}
        self._vitals = vitals
        self._output_vitals = output_vitals
        self._interval_s = commit_interval_s(plan.writer.commit_interval_s, plan.data_dir)
        self._clock = WallClock(plan.clock.require_sync, plan.clock.hold_at_most_s)
        plan.data_dir.mkdir(parents=True, exist_ok=True)
        self._ledger_copy = LedgerCopy(plan.data_dir / "ledger.copy")
        self._outbox, salvage = open_outbox(
            plan.data_dir / "outbox.db",
            self._ledger_copy,
            reserve_bytes=int(plan.writer.outbox_reserve_mb * 1e6),
            quota_bytes=int(plan.writer.outbox_quota_mb * 1e6),
        )
        vitals.add("salvages", int(salvage is not None))
        self._outbox.serve(plan.outputs)
        vitals["outbox_bytes"] = self._outbox.file_bytes
        self._held = self._outbox.held
        terms = terms_of(plan.channels, plan.tariffs, plan.prices, plan.site.timezone)
        self._derivation = Derivation(self._outbox, self._clock, terms)
        self._lookout = Lookout(board, vitals, output_vitals, self._clock)
        self._intake = Intake(events=[*self._lookout.begin(self._outbox.logbook, salvage)])
        self._urgent = False  # a report asked for an early commit
        self._commit_at_s: float | None = None  # monotonic; None while there is nothing to commit
        self._retry_at_s = 0.0  # after a commit that failed: not before
        self._malformed = 0  # commits in a row that failed because the outbox is damaged
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        for receiver in receivers:
            # A message that is looked at and not yet taken keeps a socket readable: only new ones may wake us.
            self._epoll.register(receiver, select.EPOLLIN | select.EPOLLET)
        self._deliveries = [self._delivery(name, options) for name, options in plan.outputs.items()]

    def run(self) -> None:
        """Work until SIGTERM, then take everything that the channels still have, and leave."""
        self._start_outputs()
        for receiver in self._receivers.values():
            self._look_at(receiver)
        while not self._stopping:
            self._turn()
        self._drain()

    def run_once(self, deliver_within_s: float) -> None:
        """Take what the channels have now, serve the outputs until they have it or the time is over, and leave."""
        self._start_outputs()
        self._drain(deliver_within_s)

    def _turn(self) -> None:
        self._vitals.beat()
        for descriptor, _ in self._epoll.poll(self._pause_s()):
            if descriptor == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            else:
                self._look_at(self._receivers[descriptor])
        self._clock.look()
        if self._held and self._stamp_state() != HELD:
            self._date_held()
        self._urgent |= self._derivation.do_errands(self._intake)
        self._intake.events += self._lookout.look()
        if self._commit_is_due():
            self._commit()
        self._publish()
        # Once may be a moment's weakness of the disk.
        if any(each > 1 for each in (self._malformed, *(delivery.malformed for delivery in self._deliveries))):
            log.error("the outbox is damaged: the writer starts again, which sets it aside and saves what can be read")
            raise SystemExit(1)

    def _pause_s(self) -> float:
        if self._commit_at_s is None:
            return 0.0 if self._looked_at_something else _TICK_S
        due_s = max(self._commit_at_s, self._retry_at_s)
        return min(_TICK_S, max(0.0, due_s - time.monotonic()))

    def _commit_is_due(self) -> bool:
        now_s = time.monotonic()
        news = self._looked_at_something or bool(self._intake) or any(delivery.changed for delivery in self._deliveries)
        if self._commit_at_s is None and news:
            self._commit_at_s = now_s + self._interval_s
        if self._commit_at_s is None or now_s < self._retry_at_s:
            return False
        return (
            now_s >= self._commit_at_s
            or self._urgent
            or any(receiver.pressed for receiver in self._receivers.values())
            or any(delivery.urgent for delivery in self._deliveries)
        )

    @property
    def _looked_at_something(self) -> bool:
        """Whether a channel has something to take; what its predecessor had committed already has to go too."""
        return any(receiver.peeked for receiver in self._receivers.values())

    # ---- receiving

    def _look_at(self, receiver: Receiver) -> None:
        """Peek at what arrived on one channel; it stays there until it is committed."""
        for message in receiver.peek():
            if message is None:
                self._bury(receiver.stream, "larger than any message of ours", b"")
                continue
            try:
                report = decode_report(message)
            except ValueError as error:  # msgspec's own errors, and text that is no UTF-8
                self._bury(receiver.stream, f"not a report: {error}", message)
                continue
            if report.stream != receiver.stream:
                self._bury(receiver.stream, f"names another stream: {report.stream[:64]!r}", message)
            else:
                self._accept(report)
        if receiver.ended:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(receiver)

    def _bury(self, origin: str, reason: str, body: bytes) -> None:
        log.error("a message of source %s cannot be taken: %s; it is kept as a dead letter", origin, reason)
        self._intake.dead_letters.append((f"source {origin}", reason, body))
        self._vitals.add("dead_letters")

    def _accept(self, report: Report) -> None:
        number = Watermark(report.incarnation, report.sequence)
        last = self._intake.watermarks.get(report.stream) or self._outbox.watermarks.get(report.stream) or Watermark()
        if number <= last:
            self._vitals.add("duplicates", len(report.readings))
            return
        self._intake.watermarks[report.stream] = number
        self._intake.events += self._lookout.missing(report.stream, last, number)
        self._urgent |= report.urgent
        readings = self._intake.readings.setdefault(report.stream, [])
        before = len(readings)
        for reading in report.readings:
            if reading.origin is None or self._is_new(report.stream, reading, reading.origin):
                readings += self._derivation.derived(report.stream, reading, self._intake)
        self._intake.count += len(readings) - before
        self._spout.let_out(report.stream, readings[before:], self._clock.offset_ns, CLOCKS.get(self._stamp_state()))

    def _is_new(self, source: str, reading: Reading, origin: Origin) -> bool:
        """Whether a device's own number is not among those that are committed or about to be."""
        if not origin.boot:
            return True
        key = f"{source}/{reading.device}"
        known = self._intake.boots.get(key) or self._outbox.boots.get(key) or {}
        boots = with_message(known, origin.boot, origin.sequence, digest(reading.values))
        if boots is None:
            self._vitals.add("duplicates")
            return False
        self._intake.boots[key] = boots
        return True

    # ---- committing

    def _commit(self) -> None:
        """Commit everything that was looked at, then take it from the channels; or change nothing and try again."""
        with contextlib.ExitStack() as held:
            for delivery in self._deliveries:
                held.enter_context(delivery.lock)
            stamp = Stamp(self._clock.boot, self._clock.offset_ns, self._stamp_state())
            snapshots = {delivery.output: delivery.snapshot() for delivery in self._deliveries}
            refused = [letter for _, _, letters in snapshots.values() for letter in letters]
            intake = dataclasses.replace(self._intake, dead_letters=self._intake.dead_letters + refused)
            try:
                self._outbox.commit(
                    intake,
                    stamp,
                    {output: progress for output, (progress, _, _) in snapshots.items()},
                    [hands for _, hands, _ in snapshots.values() if hands],
                )
            except sqlite3.Error as error:
                self._commit_failed(error)
                return
            for delivery in self._deliveries:
                delivery.committed(len(snapshots[delivery.output][2]))
        for receiver in self._receivers.values():
            receiver.consume()
        self._commit_succeeded(stamp)

    def _commit_failed(self, error: sqlite3.Error) -> None:
        self._retry_at_s = time.monotonic() + _RETRY_COMMIT_S
        self._vitals.add("commit_failures")
        self._malformed = self._malformed + 1 if is_damage(error) else 0
        note = f"the outbox cannot be committed ({error}); free some space or mend the disk of {self._outbox.path}"
        if note != self._vitals.note:
            log.error(note)
        self._vitals.note = note

    def _commit_succeeded(self, stamp: Stamp) -> None:
        if self._vitals.note:
            log.info("the outbox can be committed again")
            self._vitals.note = ""
        self._malformed = 0
        if stamp.clock == HELD:
            self._held += self._intake.count
        if stamp.clock == UNSYNCED:
            self._vitals.add("unsynced", self._intake.count)
        self._vitals.add("accepted", self._intake.count)
        self._vitals.add("gaps", len(self._intake.gaps))
        self._vitals.add("undated", self._intake.undated)
        self._vitals.add("commits")
        self._vitals["last_commit_ns"] = time.monotonic_ns()
        self._vitals["outbox_bytes"] = self._outbox.file_bytes
        self._ledger_copy.keep(self._outbox.channels)
        self._intake = Intake()
        self._commit_at_s = None
        self._urgent = False
        self._tell_outputs()
        for receiver in self._receivers.values():
            if receiver.one_at_a_time:
                self._look_at(receiver)

    def _stamp_state(self) -> int:
        if self._clock.trusted:
            return SYNCED
        return UNSYNCED if self._clock.hopeless else HELD

    def _date_held(self) -> None:
        state = RESTAMPED if self._clock.trusted else UNSYNCED
        try:
            dated = self._outbox.date_held(Stamp(self._clock.boot, self._clock.offset_ns, state))
        except sqlite3.Error as error:
            self._commit_failed(error)
            return
        self._held = 0
        if state == UNSYNCED:
            self._vitals.add("unsynced", dated)
        why = "the clock is set" if state == RESTAMPED else "the clock was not set in time: their date is a guess"
        log.info("%d readings that waited for the clock go out: %s", dated, why)
        self._tell_outputs()

    def _start_outputs(self) -> None:
        self._tell_outputs()  # first: each looks once how far behind it is
        for delivery in self._deliveries:
            delivery.start()

    def _tell_outputs(self) -> None:
        """Tell which rows there are; none gathers while the house stops, or where they could get too many."""
        hurry = self._leaving or self._outbox.bytes > self._plan.writer.outbox_quota_mb * 1e6 / 4
        for delivery in self._deliveries:
            delivery.rows_until(self._outbox.head, hurry=hurry)

    # ---- leaving

    def _stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)

    def _drain(self, deliver_within_s: float = _LEAVE_S) -> None:
        """Take what the channels still have. Without a parent nobody else will: then until every worker is gone."""
        orphaned = os.getppid() != self._parent
        self._intake.events += self._lookout.end(orphaned=orphaned)
        self._leaving = True
        self._tell_outputs()
        deadline_s = time.monotonic() + _LEAVE_S
        while True:
            self._vitals.beat()
            for receiver in self._receivers.values():
                self._look_at(receiver)
            if self._looked_at_something:
                self._commit()
                if not self._looked_at_something:
                    continue  # nobody fills the channels any more, so this ends; only a commit that fails may not
            elif not orphaned or all(receiver.ended for receiver in self._receivers.values()):
                break
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.01)
        deadline_s = time.monotonic() + deliver_within_s
        while not orphaned and time.monotonic() < deadline_s:
            if all(delivery.idle for delivery in self._deliveries):
                break
            if any(delivery.urgent for delivery in self._deliveries) and time.monotonic() >= self._retry_at_s:
                self._commit()
            self._vitals.beat()
            time.sleep(0.01)
        leave_all(self._deliveries, _CLOSE_S)
        if self._intake.events or any(delivery.changed for delivery in self._deliveries):
            self._commit()
        self._ledger_copy.keep(self._outbox.channels, now=True)
        self._publish()

    # ---- showing

    def books(self) -> dict[str, tuple[int, int, int]]:
        """Return of each output how many readings it was given, has, and refused; while nobody works on them."""
        return {
            name: (account.accepted, self._outbox.progress[name].delivered, self._outbox.progress[name].refused)
            for name, account in self._outbox.accounts.items()
        }

    def _publish(self) -> None:
        vitals = self._vitals
        vitals["held"] = self._held
        vitals["clock_synced"] = int(self._clock.trusted)
        vitals["clock_steps"] = self._clock.steps
        for delivery in self._deliveries:
            delivery.show(self._output_vitals[delivery.output], self._outbox.accounts[delivery.output])

    def _delivery(self, name: str, options: OutputTable) -> Delivery:
        kind = output_class(options.kind or name)
        gather_s = file_interval_s(self._plan.writer.file_interval_s, self._plan.data_dir) if kind.is_file else 0.0

        def make(memo: Memo) -> Output:
            return kind(options, self._plan.site, memo)

        return Delivery(
            name,
            make,
            self._outbox.path,
            self._outbox.progress[name],
            lambda: os.eventfd_write(self._wake, 1),
            newest_first=kind.newest_first,
            gather_s=gather_s,
        )
