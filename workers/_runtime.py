"""The work loop of every worker process: opens the source, reads it, reports, shows its health, tries again.

The author of a source writes `open`, `read` and `close`; everything else that a source needs is here, once.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from channel import Sender
from config.settings import PolledTable, SourceTable
from reading import METRICS, Quality, Reading, Value
from vitals import REFUSALS, Row
from workers import Source, SourceError, source_class

_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_LONGEST_NAP_S: Final = 0.5  # between two heartbeats
_MOST_INTEGER: Final = 2**63  # what the wire, SQLite and the databases can hold
_MOST_TEXT: Final = 64  # characters of a value that is a word, such as a state
_OWN_TOTALS: Final = ("lost_edges",)  # of sources that have an attribute of that name
_LAST_WORDS_S: Final = 2.0  # for what the channel did not take before the house stops


@dataclass(slots=True)
class Pace:
    """When the next round of a polled source is due: on a grid, so that a slow round does not shift the ones after."""

    interval_s: float
    _due_s: float | None = None

    def pause_s(self, now_s: float) -> float:
        """Return how long to wait for the next round; rounds that were missed are skipped, not caught up.

        >>> pace = Pace(10.0)
        >>> [pace.pause_s(now) for now in (100.0, 103.0, 135.0)]
        [0.0, 7.0, 5.0]
        """
        if not self.interval_s:
            return 0.0
        if self._due_s is None:
            self._due_s = now_s
            return 0.0
        missed = math.floor((now_s - self._due_s) / self.interval_s)
        self._due_s += self.interval_s * (missed + 1)
        return self._due_s - now_s


@dataclass(slots=True)
class Retry:
    """Ever longer pauses between attempts to open a source."""

    _pause_s: float = _FIRST_RETRY_S

    def pause_s(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, _LAST_RETRY_S)
        return pause_s

    def forget(self) -> None:
        self._pause_s = _FIRST_RETRY_S


class Worker:
    """Runs one source until it is told to stop."""

    def __init__(self, source: Source, sender: Sender, vitals: Row) -> None:
        self._source = source
        self._sender = sender
        self._vitals = vitals
        self._log = logging.getLogger(source.name)
        self._interval_s = source.options.interval_s if isinstance(source.options, PolledTable) else 0.0
        self._stopping = False
        self._told_troubles: dict[str, str] = {}
        self._told_rejections: set[str] = set()
        self._failed = bool(vitals.note)  # our predecessor, perhaps
        self._counted = dict.fromkeys(
            ("sent", "dropped", *_OWN_TOTALS, *(f"refused_{reason}" for reason in REFUSALS)), 0
        )

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._stopping = True

    def run(self) -> None:
        """Open and read, for ever; a source that fails is closed and opened again, later each time."""
        retry = Retry()
        while not self._stopping:
            try:
                self._source.open()
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the house goes on
                self._note_failure("open_failures", error)
            else:
                self._vitals["open"] = 1
                self._work(retry)
            finally:
                self._vitals["open"] = 0
                self._close()
            self._nap(retry.pause_s())
        self._leave()

    def _work(self, retry: Retry) -> None:
        """Read until the source fails or the house stops."""
        pace = Pace(self._interval_s)
        while not self._stopping:
            self._nap(pace.pause_s(time.monotonic()))
            if self._stopping:
                return
            self._vitals.beat()
            try:
                readings = self._source.read()
            except Exception as error:  # noqa: BLE001 - as above
                self._note_failure("read_failures", error)
                return
            self._report(readings)
            self._tell_health()
            retry.forget()

    def _report(self, readings: list[Reading]) -> None:
        now_ns = time.monotonic_ns()
        self._vitals.add("rounds")
        self._vitals["last_round_ns"] = now_ns
        self._vitals.add("readings", len(readings))
        sound = [reading for reading in readings if self._is_sound(reading)]
        if sound:
            self._vitals["last_reading_ns"] = now_ns
            simulated = Quality.SIMULATED  # once: an enum is slow to look up
            self._vitals["simulated"] = int(any(reading.quality is simulated for reading in sound))
            self._sender.report(sound)
        elif self._sender.backlog:
            self._sender.flush()
        while self._source.acknowledges and self._sender.backlog and not self._stopping:
            # Somebody outside waits for an answer, and the answer would be a promise that we cannot keep yet.
            self._vitals.beat()
            self._show()
            self._sender.wait(_LONGEST_NAP_S)
            self._sender.flush()
        self._show()

    def _is_sound(self, reading: Reading) -> bool:
        """Let only finite values of known metrics pass; say so once for each device and metric."""
        for metric, value in reading.values.items():
            if metric in METRICS and type(value) is float and math.isfinite(value):
                continue  # as nearly always
            if why := _unsound(metric, value):
                self._reject(reading.device, str(metric)[:_MOST_TEXT], why)
                return False
        if not reading.values:
            self._reject(reading.device, "reading", "it has no value")
            return False
        return True

    def _reject(self, device: str, what: str, why: str) -> None:
        self._vitals.add("rejected")
        told = f"{device}.{what}"
        if told not in self._told_rejections:
            self._told_rejections.add(told)
            self._log.warning("%s of %s is rejected: %s", what, device, why)

    def _note_failure(self, counter: str, error: Exception) -> None:
        self._vitals.add(counter)
        self._failed = True
        note = str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}"
        told = self._vitals.note
        self._vitals.note = note
        if self._vitals.note == told:  # as far as the board has room for it
            return
        if isinstance(error, SourceError):
            self._log.warning("%s", note)
        else:
            self._log.error("the source failed: %s", note, exc_info=error)

    def _tell_health(self) -> None:
        """Log what changed since the last round, and show all that is wrong now."""
        troubles = dict(self._source.troubles)
        if self._failed:
            self._log.info("works again")
        elif troubles == self._told_troubles:
            return
        self._failed = False
        for device, trouble in troubles.items():
            if self._told_troubles.get(device) != trouble:
                self._log.warning("%s: %s", device, trouble)
        for device in self._told_troubles.keys() - troubles.keys():
            self._log.info("%s: works again", device)
        self._told_troubles = troubles
        self._vitals["devices_troubled"] = len(troubles)
        self._vitals.note = " · ".join(f"{device}: {trouble}" for device, trouble in troubles.items())

    def _close(self) -> None:
        try:
            self._source.close()
        except Exception:  # noqa: BLE001 - as above
            self._log.exception("the source failed to close")

    def _nap(self, pause_s: float) -> None:
        """Wait with a beating heart, sending what the channel would not take before."""
        until_s = time.monotonic() + pause_s
        while not self._stopping and (rest_s := until_s - time.monotonic()) > 0:
            self._vitals.beat()
            if self._sender.backlog:
                self._sender.flush()
                self._show()
            time.sleep(min(rest_s, _LONGEST_NAP_S))

    def _leave(self) -> None:
        """Send what waits while the writer is still there; say what it did not take."""
        until_s = time.monotonic() + _LAST_WORDS_S
        while not self._sender.flush() and (rest_s := until_s - time.monotonic()) > 0:
            self._vitals.beat()
            self._sender.wait(min(rest_s, _LONGEST_NAP_S))
        self._show()
        if lost := self._sender.backlog:
            self._vitals["backlog"] = 0
            self._vitals.add("dropped", lost)
            self._log.warning("%d readings are lost: the writer did not take them before the stop", lost)

    def _show(self) -> None:
        """Carry the totals of this process over to the board, which has those of its predecessors too."""
        now = {"sent": self._sender.sent, "dropped": self._sender.dropped}
        now |= {f"refused_{reason}": self._source.refused[reason] for reason in REFUSALS}
        now |= {field_name: getattr(self._source, field_name, 0) for field_name in _OWN_TOTALS}
        for field_name, total in now.items():
            self._vitals.add(field_name, total - self._counted[field_name])
        self._counted = now
        self._vitals["realtime_refused"] = getattr(self._source, "realtime_refused", 0)
        self._vitals["backlog"] = self._sender.backlog


def _unsound(metric: str, value: Value) -> str:
    """Say why a value cannot be let in, or nothing.

    >>> _unsound("power_w", float("nan"))
    'nan is not finite'
    >>> _unsound("watts", 1.0)
    'there is no such metric'
    >>> _unsound("state", True)
    'bool is no kind of value'
    """
    if metric not in METRICS:
        return "there is no such metric"
    if type(value) not in (float, int, str):  # True, None, a driver's own kind of number: no message could hold it
        return f"{type(value).__name__} is no kind of value"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value} is not finite"
    if isinstance(value, str):
        if len(value) > _MOST_TEXT:
            return "the text is too long"
        return "" if value.isprintable() else "the text has characters that cannot be shown"
    return "" if abs(value) < _MOST_INTEGER else "the number is too large"


def main(
    name: str,
    options: SourceTable,
    *,
    end: socket.socket,
    incarnation: int,
    vitals: Row,
    directory: Path,
    kept: Mapping[str, int],
    deposit: Callable[[str, int], None],
) -> None:
    """Be the worker process of source `name`."""
    source = source_class(options.kind)(name, options)
    source.directory = directory
    source.kept.update(kept)
    source.deposit = deposit
    worker = Worker(source, Sender(end, name, incarnation), vitals)
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run()
