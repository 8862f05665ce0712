"""One output's thread: takes committed rows to it, in its own time, from its own place.

A dead output delays nobody: the thread waits, tries again, and the rows stay in the outbox. After an absence the newest
rows go first and what piled up follows beside them, oldest first, as a gap that is worked off.

A file on the same disk gathers: it is written now and then, much at once, because each time costs the card the same.
What waits for that is as safe in the outbox.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

from reading import Record
from vitals import Row as VitalsRow
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.outbox import Account, Progress, Reader, balance
from writer.rescue import is_damage
from writer.rows import Row

log = logging.getLogger("writer.delivery")

MOST_READINGS_A_BATCH: Final = 5000
_FAR_BEHIND: Final = 2 * MOST_READINGS_A_BATCH  # readings: from here on the newest go first
_MOST_GAPS: Final = 8
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 8.0  # a peer that is back has the newest reading within ten seconds
_RETRY_WHEN_STOPPED_S: Final = 300.0  # it waits for a person, who may mend it without telling us
_LONGEST_RETRY_AFTER_S: Final = 3600.0
_LONGEST_KEEP_S: Final = 30.0

STARTING, UP, DOWN, STOPPED = range(4)  # as vitals.OUTPUT_STATES

Span = tuple[int, int | None]  # rows (after, upto]; None: up to whatever comes


class Delivery(threading.Thread):
    """Serves one output. `lock` guards what the ingest loop reads and commits: progress, hands and refusals."""

    def __init__(
        self,
        name: str,
        make: Callable[[Memo], Output],
        outbox: Path,
        progress: Progress,
        wake: Callable[[], None],
        *,
        newest_first: bool = True,
        gather_s: float = 0.0,
    ) -> None:
        super().__init__(name=f"output {name}", daemon=True)
        self.output = name
        self.lock = threading.Lock()
        self.state = STARTING
        self.note = ""
        self.failures = 0
        self.failing_since_ns = 0
        self.newest_delivered_utc_ns = 0
        self.oldest_pending_utc_ns = 0
        self.changed = False  # there is progress that is not committed
        self.urgent = False  # and somebody waits for the commit
        self.malformed = 0  # looks into the outbox in a row that failed because it is damaged
        self._make = make
        self._outbox = outbox
        self._progress = progress
        self._hands: tuple[int, int] | None = None  # rows (after, upto] that are being delivered
        self._refused: list[tuple[str, str, bytes]] = []
        self._wake_ingest = wake
        self._newest_first = newest_first
        self._gather_s = gather_s  # from one visit that left nothing over to the next
        self._visit_at_s = 0.0  # monotonic: what comes before then is gathered
        self._hurry = False
        self._head = progress.front
        self._news = threading.Condition()
        self._leaving = False
        self._kept = threading.Event()
        self._retry_s = _FIRST_RETRY_S
        self._returning = True  # from an absence: look how far behind
        self._memo = _DurableMemo(self, progress.memo)
        self._reader: Reader | None = None  # opened by the thread

    # ---- what the ingest loop calls

    def snapshot(self) -> tuple[Progress, tuple[int, int] | None, list[tuple[str, str, bytes]]]:
        """Return a copy of the progress, the rows in hand, and the refused records. Call it with `lock` held."""
        progress = msgspec.structs.replace(self._progress, gaps=list(self._progress.gaps))
        return progress, self._hands, self._refused

    def committed(self, refused: int) -> None:
        """The last snapshot is on the disk, `refused` of its refused records too. Call it with `lock` held."""
        del self._refused[:refused]
        self.changed = self.urgent = False
        self._kept.set()

    def rows_until(self, head: int, *, hurry: bool = False) -> None:
        """There are rows up to `head` now. With `hurry` none of them is to wait until more have gathered."""
        with self._news:
            self._head = head
            self._hurry = hurry
            self._news.notify()

    def leave(self) -> None:
        """Stop after the batch in hand."""
        with self._news:
            self._leaving = True
            self._news.notify()

    @property
    def idle(self) -> bool:
        """Nothing is left to deliver, or nothing can be delivered just now."""
        with self.lock:
            return self.state in (DOWN, STOPPED) or (self._progress.front >= self._head and not self._progress.gaps)

    def show(self, row: VitalsRow, account: Account) -> None:
        """Put on the vitals board how this output is."""
        with self.lock:
            progress, _, _ = self.snapshot()
        books = balance(progress, account)
        for shown in ("accepted", "delivered", "pending"):
            row[shown] = getattr(books, shown)
        for reason, count in books.dropped.items():
            row[f"dropped_{reason}"] = count
        for shown in ("state", "failures", "newest_delivered_utc_ns", "oldest_pending_utc_ns", "failing_since_ns"):
            row[shown] = getattr(self, shown)
        if row.note != self.note:
            row.note = self.note

    # ---- the thread

    def run(self) -> None:
        output: Output | None = None
        try:
            while not self._leaving:
                try:
                    taken = self._take()
                    if taken is None:
                        self._wait_for_news()
                        continue
                    rows, span = taken
                    output = output or self._make(self._memo)
                    refused = _deliver(output, rows)
                except OutputDown as down:
                    self._wait_for_better_times(down)
                except Exception as error:  # the one place: a broken output must not end its thread
                    log.exception("output %s failed; this is a bug", self.output)
                    _close(output)
                    output = None
                    self._memo = _DurableMemo(self, self._progress.memo)  # its successor knows what was confirmed
                    self._wait_for_better_times(OutputDown(f"{type(error).__name__}: {error}"))
                else:
                    self._book(rows, span, refused, 0.0 if output.has_more_to_do else self._gather_s)
        finally:
            _close(output)
            if self._reader:
                self._reader.close()

    def _take(self) -> tuple[list[Row], Span] | None:
        """Take the next rows in hand, if there are any."""
        with self.lock:
            try:
                self._reader = self._reader or Reader(self._outbox)
                taken = self._next(self._reader)
                self.malformed = 0
                return taken
            except sqlite3.Error as error:
                self.malformed = self.malformed + 1 if is_damage(error) else 0
                raise OutputDown(f"the outbox cannot be read: {error}") from error

    def _next(self, reader: Reader) -> tuple[list[Row], Span] | None:
        """Find the next rows: from the front, else from the oldest gap."""
        if self._gathers_for_s > 0:
            self.oldest_pending_utc_ns = 0  # the output is not behind with what gathers
            return None
        if self._returning:
            self._leave_a_gap(reader)
            self._returning = False
        spans: list[Span] = [(self._progress.front, None), *self._progress.gaps]
        for after, upto in spans:
            if upto is None and after >= self._head:
                continue
            rows = reader.rows(after, upto, MOST_READINGS_A_BATCH)
            if rows:
                self._hands = (after, rows[-1].id)
                if rows[0].records:
                    self.oldest_pending_utc_ns = rows[0].records[0].time_ns
                return rows, (after, upto)
            if not reader.count(after, upto):  # nothing waits for the clock there: the quota took it all
                self._skip(after, upto)
        self.oldest_pending_utc_ns = 0
        return None

    def _skip(self, after: int, upto: int | None) -> None:
        if upto is None:
            self._progress.front = self._head
        else:
            self._progress.gaps.remove((after, upto))
        self.changed = True

    def _leave_a_gap(self, reader: Reader) -> None:
        """Far behind, let the newest row go first and what piled up follow."""
        progress = self._progress
        newest = self._head - 1
        gaps, after = progress.gaps, progress.front
        if gaps and gaps[-1][1] == after:  # nothing got through in between: it is one absence
            gaps, after = gaps[:-1], gaps[-1][0]
        if (
            self._newest_first
            and newest > progress.front
            and len(gaps) < _MOST_GAPS
            and reader.count(progress.front) > _FAR_BEHIND
        ):
            progress.gaps = [*gaps, (after, newest)]
            progress.front = newest
            self.changed = True

    def _book(self, rows: list[Row], span: Span, refused: dict[int, str], gather_s: float) -> None:
        """Note that `rows` are done: place, counts and memo in one breath, because they are committed as one."""
        records = [record for row in rows for record in row.records]
        after, upto = span
        done = rows[-1].id
        with self.lock:
            progress = self._progress
            if upto is None:
                progress.front = done
            else:
                place = progress.gaps.index((after, upto))
                progress.gaps[place : place + 1] = [(done, upto)] if done < upto else []
            progress.delivered += len(records) - len(refused)
            progress.refused += len(refused)
            progress.damaged += sum(row.count for row in rows) - len(records)
            progress.memo = dict(self._memo)
            self._refused += [(f"output {self.output}", why, _dead_letter(records[at])) for at, why in refused.items()]
            self._hands = None
            self.changed = True
            if progress.front >= self._head and not progress.gaps:
                self._visit_at_s = time.monotonic() + gather_s
            if records:
                self.newest_delivered_utc_ns = max(self.newest_delivered_utc_ns, records[-1].time_ns)
        if refused:
            log.warning("output %s refused %d readings: %s", self.output, len(refused), next(iter(refused.values())))
        self._note_recovery()
        self._wake_ingest()

    @property
    def _gathers_for_s(self) -> float:
        """How much longer rows are to gather; a backlog never is."""
        return 0.0 if self._hurry else self._visit_at_s - time.monotonic()

    def _wait_for_news(self) -> None:
        with self._news:
            if self._leaving:
                return
            if (rest_s := self._gathers_for_s) > 0:
                self._news.wait(rest_s)
            elif self._progress.front >= self._head:
                self._news.wait(1.0)
            else:
                self._news.wait(0.1)  # the next row waits for the clock

    def _wait_for_better_times(self, down: OutputDown) -> None:
        state = STOPPED if down.remedy else DOWN
        note = f"{down}; {down.remedy}" if down.remedy else str(down)
        if state != self.state or (state == STOPPED and note != self.note):
            log.warning("output %s is %s: %s", self.output, "stopped" if down.remedy else "down", note)
        self.failures += 1
        self.failing_since_ns = self.failing_since_ns or time.monotonic_ns()
        self.state, self.note = state, note
        if down.remedy:
            pause_s = _RETRY_WHEN_STOPPED_S
        elif down.retry_after_s is not None:
            pause_s = min(max(down.retry_after_s, _FIRST_RETRY_S), _LONGEST_RETRY_AFTER_S)
        else:
            pause_s = self._retry_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that outputs do not retry in step
            self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)
        with self.lock:
            self._hands = None
        self._returning = True
        self._wake_ingest()
        self._pause(pause_s)

    def _pause(self, pause_s: float) -> None:
        deadline = time.monotonic() + pause_s
        with self._news:
            while not self._leaving and (rest := deadline - time.monotonic()) > 0:
                self._news.wait(rest)

    def _note_recovery(self) -> None:
        if self.failing_since_ns:
            away_s = (time.monotonic_ns() - self.failing_since_ns) / 1e9
            log.info("output %s is up again after %.0f s", self.output, away_s)
        self.state, self.note, self.failing_since_ns = UP, "", 0
        self._retry_s = _FIRST_RETRY_S

    def keep_memo(self) -> None:
        """Have the memo committed now, with all that is booked so far, and wait until it is."""
        with self.lock:
            self._kept.clear()
            self._progress.memo = dict(self._memo)
            self.changed = self.urgent = True
        self._wake_ingest()
        if not self._kept.wait(_LONGEST_KEEP_S):
            raise OutputDown("the outbox cannot be committed just now")


def leave_all(deliveries: Collection[Delivery], within_s: float) -> None:
    """Stop all of them, and wait a while until they have closed what they had open."""
    deadline_s = time.monotonic() + within_s
    for delivery in deliveries:
        delivery.leave()
    for delivery in deliveries:
        if delivery.is_alive():
            delivery.join(max(0.0, deadline_s - time.monotonic()))


class _DurableMemo(Memo):
    def __init__(self, delivery: Delivery, noted: dict[str, int]) -> None:
        super().__init__(noted)
        self._delivery = delivery

    def keep(self) -> None:
        self._delivery.keep_memo()


def _deliver(output: Output, rows: list[Row]) -> dict[int, str]:
    """Write the records of `rows`; return why which of them were refused."""
    records = [record for row in rows for record in row.records]
    if not records:
        return {}
    try:
        output.write(Batch(records, [row.id for row in rows for _ in row.records]))
    except OutputRefused as answer:
        if not answer.indices <= set(range(len(records))):
            raise IndexError(f"refused {sorted(answer.indices)} of a batch of {len(records)}") from answer
        return {index: str(answer) for index in sorted(answer.indices)}
    return {}


def _close(output: Output | None) -> None:
    if output is not None:
        try:
            output.close()
        except Exception:
            log.exception("an output failed to close; this is a bug")


def _dead_letter(record: Record) -> bytes:
    return msgspec.json.encode(record)
