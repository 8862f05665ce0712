"""`/metrics`: every number of the board as Prometheus reads it.

What never happened has no series: an age is absent until there is something to be old, never zero and never stale.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from api.snapshot import FrozenRow, Snapshot, is_up, look, process_of
from vitals import OUTPUT_STATES, PROCESS_STATES, REFUSALS, Board


class Kind(enum.Enum):
    """What a number of the board is."""

    COUNTER = enum.auto()
    GAUGE = enum.auto()
    STATE = enum.auto()  # a gauge that tells of the present: absent while the process that would tell does not run
    AGE = enum.auto()  # an instant of CLOCK_MONOTONIC, shown as the seconds since then
    TIME = enum.auto()  # UTC in nanoseconds, shown as seconds since 1970


class Series(NamedTuple):
    """One field of the board and the series that shows it. Fields with the same series differ in `reason`."""

    kind: Kind
    field: str
    name: str
    help: str
    reason: str = ""


COUNTER, GAUGE, STATE, AGE, TIME = Kind

_REFUSED = "Messages that the source did not let in, by reason"
_DROPPED = "Records that this output will never get, by reason"

SERIES: Final[dict[str, tuple[Series, ...]]] = {
    "process": (
        Series(COUNTER, "starts", "process_starts_total", "Times that the parent has started this process"),
        Series(COUNTER, "failures", "process_failures_total", "Times that this process ended unasked"),
        Series(COUNTER, "hangs", "process_hangs_total", "Times that this process was replaced because it hung"),
    ),
    "worker": (
        Series(STATE, "open", "source_open", "1 while the source has its hardware or its port open"),
        Series(COUNTER, "open_failures", "source_open_failures_total", "Times that opening the source failed"),
        Series(COUNTER, "read_failures", "source_read_failures_total", "Rounds that ended in an error"),
        Series(COUNTER, "rounds", "source_rounds_total", "Rounds of all devices of the source"),
        Series(AGE, "last_round_ns", "source_last_round_age_seconds", "Seconds since the last round"),
        Series(AGE, "last_reading_ns", "source_last_reading_age_seconds", "Seconds since the newest reading"),
        Series(COUNTER, "readings", "source_readings_total", "Readings that the source returned"),
        Series(COUNTER, "sent", "source_sent_total", "Readings that were handed over to the writer"),
        Series(STATE, "backlog", "source_backlog", "Readings that wait because the writer does not take them"),
        Series(COUNTER, "dropped", "source_dropped_total", "Readings lost because the backlog was full"),
        Series(COUNTER, "rejected", "source_rejected_total", "Readings stopped because a value made no sense"),
        Series(STATE, "devices_troubled", "source_devices_troubled", "Devices of the source that are in trouble"),
        Series(GAUGE, "simulated", "source_simulated", "1 if the numbers are made up: no electricity is involved"),
        Series(COUNTER, "lost_edges", "source_lost_edges_total", "Edges lost unread and counted all the same"),
        Series(STATE, "realtime_refused", "source_realtime_refused", "Real-time permissions that this source lacks"),
        *(Series(COUNTER, f"refused_{reason}", "source_refused_total", _REFUSED, reason) for reason in REFUSALS),
    ),
    "writer": (
        Series(COUNTER, "accepted", "writer_accepted_total", "Readings that are safe on the disk"),
        Series(
            COUNTER, "undated", "writer_undated_total", "Late readings left out, for nobody knows when they were taken"
        ),
        Series(COUNTER, "duplicates", "writer_duplicates_total", "Readings that came twice and were booked once"),
        Series(COUNTER, "dead_letters", "writer_dead_letters_total", "Messages that nobody can read, set aside"),
        Series(COUNTER, "commits", "writer_commits_total", "Commits to the disk"),
        Series(COUNTER, "commit_failures", "writer_commit_failures_total", "Commits to the disk that failed"),
        Series(AGE, "last_commit_ns", "writer_last_commit_age_seconds", "Seconds since the last commit"),
        Series(GAUGE, "held", "writer_held_records", "Records that wait for the clock to be set"),
        Series(COUNTER, "unsynced", "writer_unsynced_records_total", "Records dated by a clock that was never set"),
        Series(COUNTER, "gaps", "writer_gaps_total", "Times that a device was silent for more than five minutes"),
        Series(STATE, "clock_synced", "clock_synchronised", "1 while a time service keeps the clock right"),
        Series(COUNTER, "clock_steps", "clock_steps_total", "Times that the clock jumped"),
        Series(COUNTER, "salvages", "outbox_salvages_total", "Times that a damaged outbox was set aside"),
        Series(GAUGE, "outbox_bytes", "outbox_size_bytes", "Size of the outbox on the disk in bytes"),
    ),
    "output": (
        Series(COUNTER, "accepted", "output_accepted_total", "Records for this output: delivered + pending + dropped"),
        Series(COUNTER, "delivered", "output_delivered_total", "Records that this output has confirmed"),
        Series(GAUGE, "pending", "output_pending", "Records that wait for this output"),
        Series(COUNTER, "dropped_refused", "output_dropped_total", _DROPPED, "refused"),
        Series(COUNTER, "dropped_quota", "output_dropped_total", _DROPPED, "quota"),
        Series(COUNTER, "dropped_damage", "output_dropped_total", _DROPPED, "damage"),
        Series(COUNTER, "failures", "output_failures_total", "Attempts to deliver that failed"),
        Series(
            AGE, "failing_since_ns", "output_failing_seconds", "Seconds since it began to fail; absent while it works"
        ),
        Series(
            TIME,
            "newest_delivered_utc_ns",
            "output_newest_delivered_timestamp_seconds",
            "Time of the newest record that was delivered, in seconds since 1970",
        ),
    ),
    "api": (Series(COUNTER, "requests", "api_requests_total", "HTTP requests that the api has answered"),),
}

# What no series shows, and why.
LEFT_OUT: Final = {("process", "pid"): "a new one at every start: `status` shows it, a time series of it says nothing"}

_LABEL: Final = {"process": ("process",), "worker": ("source",), "writer": (), "output": ("output",), "api": ()}


def render(board: Board, site: str, *others: Collector) -> bytes:
    """Return the whole page in the text format 0.0.4, with what others tell beside the board."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (BoardCollector(board, site), *others):
        registry.register(collector)
    return generate_latest(registry)


class BoardCollector(Collector):
    """Reads the board whenever somebody asks: there is no second copy of any number."""

    def __init__(self, board: Board, site: str) -> None:
        self._board = board
        self._site = site

    def collect(self) -> Iterator[Metric]:
        seen = look(self._board)
        yield InfoMetricFamily("wattherd", "Version and site", {"version": VERSION, "site": self._site})
        yield from _processes(seen)
        yield _heartbeats(seen)
        for role, series in SERIES.items():
            yield from _families(seen, role, series)
        yield _states("output", OUTPUT_STATES, [row for row in seen.rows("output") if seen.runs("output", row.name)])
        yield _lag(seen)


def _families(seen: Snapshot, role: str, all_series: Iterable[Series]) -> Iterable[Metric]:
    """Every series of a role that stands for one field."""
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for series in all_series:
        labels = (*_LABEL[role], "reason") if series.reason else _LABEL[role]
        family = CounterMetricFamily if series.kind is COUNTER else GaugeMetricFamily
        metric = families.setdefault(series.name, family(f"wattherd_{series.name}", series.help, labels=labels))
        for row in seen.rows(role):
            if series.kind is STATE and not seen.runs(role, row.name):
                continue
            if (value := _value(seen, series.kind, row[series.field])) is not None:
                metric.add_metric([row.name, series.reason][: len(labels)] if labels else [], value)
    return families.values()


def _value(seen: Snapshot, kind: Kind, number: int) -> float | None:
    match kind:
        case Kind.AGE:
            return seen.age_s(number)
        case Kind.TIME:
            return number / 1e9 if number else None
        case _:
            return number


def _processes(seen: Snapshot) -> Iterator[Metric]:
    label = ["process"]
    up = GaugeMetricFamily("wattherd_process_up", "1 while this process runs", labels=label)
    uptime = GaugeMetricFamily(
        "wattherd_process_uptime_seconds", "Seconds that this process has run; absent while it does not", labels=label
    )
    for process in seen.rows("process"):
        runs = is_up(process)
        up.add_metric([process.name], runs)
        # The parent alone writes these rows: what it noted about a process that has died since says nothing any more.
        if runs and (age_s := seen.age_s(process["since_ns"])) is not None:
            uptime.add_metric([process.name], age_s)
    yield from (up, uptime)
    yield _states("process", PROCESS_STATES, seen.rows("process"))


def _states(role: str, states: tuple[str, ...], rows: Iterable[FrozenRow]) -> Metric:
    """One series a state, 1 for the one that holds. A state that this version does not know is none of them."""
    metric = GaugeMetricFamily(
        f"wattherd_{role}_state", f"1 for the state of this {role}, 0 for others", labels=[role, "state"]
    )
    for row in rows:
        for number, state in enumerate(states):
            metric.add_metric([row.name, state], row["state"] == number)
    return metric


def _heartbeats(seen: Snapshot) -> Metric:
    metric = GaugeMetricFamily(
        "wattherd_heartbeat_age_seconds",
        "Seconds since the work loop of this process last showed a sign of life; absent until its first one",
        labels=["process"],
    )
    for role in ("worker", "writer", "api"):
        for row in seen.rows(role):
            if (age_s := seen.age_s(row["beat_ns"])) is not None:
                metric.add_metric([process_of(role, row.name)], age_s)
    return metric


def _lag(seen: Snapshot) -> Metric:
    metric = GaugeMetricFamily(
        "wattherd_output_lag_seconds",
        "Age in seconds of the oldest record that waits for this output; absent while none waits",
        labels=["output"],
    )
    for output in seen.rows("output"):
        age_s = seen.age_utc_s(output["oldest_pending_utc_ns"])
        if output["pending"] and age_s is not None:
            metric.add_metric([output.name], age_s)
    return metric


def _version() -> str:
    """The version as `pyproject.toml` has it, the one place where it is written."""
    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
    except (OSError, ValueError, KeyError):
        return "unknown"  # somebody copied the code without it: no reason to show no number at all


VERSION: Final = _version()
