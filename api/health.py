"""Is the house ready? If not: which part, and what is wrong with it, in words for whoever has to mend it.

Only the board is asked: the parent, the workers and the writer tell the truth about themselves there, and a process
that cannot tell any more gives itself away by a heartbeat that stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from api.snapshot import FrozenRow, Snapshot, is_up
from config.settings import PolledTable, Settings
from vitals import OUTPUT_STATES, PROCESS_STATES

# A gap of more than five minutes is what a user calls missing data.
MISSED_AFTER_S: Final = 300.0
UNCOMMITTED_AFTER_S: Final = 60.0


class Reason(NamedTuple):
    """One thing that is wrong."""

    part: str  # "source meter", "output influx", "writer", "clock", "api"
    what: str


def reasons_not_ready(settings: Settings, seen: Snapshot) -> list[Reason]:
    """Everything that keeps the house from being ready, the root of each trouble only; none if it is."""
    return [
        *_missing(settings, seen),
        *_processes(settings, seen),
        *_sources(settings, seen),
        *_writer(settings, seen),
        *_outputs(seen),
    ]


def simulated(seen: Snapshot) -> bool:
    """Does any source make its numbers up?"""
    return any(worker["simulated"] for worker in seen.rows("worker"))


def in_words(seconds: float) -> str:
    """A length of time as one would say it.

    >>> [in_words(s) for s in (4.2, 119, 120, 7199, 7200, 200_000)]
    ['4 s', '119 s', '2 min', '119 min', '2 h', '2 days']
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    for unit, length_s, many in (("min", 60, 120), ("h", 3600, 48)):
        if seconds < many * length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{seconds // 86_400:.0f} days"


def state_in_words(states: tuple[str, ...], number: int) -> str:
    """The name of a state; one that this version does not know is shown as its number."""
    return states[number] if 0 <= number < len(states) else f"state {number}"


def _missing(settings: Settings, seen: Snapshot) -> Iterator[Reason]:
    """What is configured and has no row: the parent is still starting, or forgot it."""
    if not seen.find("process", "writer"):
        yield Reason("writer", "has not been started yet")
    for name, source in settings.sources.items():
        if source.enabled and not seen.find("process", f"source.{name}"):
            yield Reason(f"source {name}", "has not been started yet")
    for name, output in settings.outputs.items():
        if output.enabled and not seen.find("output", name):
            yield Reason(f"output {name}", "has not been started yet")


def _processes(settings: Settings, seen: Snapshot) -> Iterator[Reason]:
    for process in seen.rows("process"):
        part, silent_s = _part(process.name), _silent_s(seen, process)
        if what := _ill(process):
            yield Reason(part, f"{what}: {process.note}" if process.note else what)
        if is_up(process) and silent_s > settings.supervise.hung_after_s:
            yield Reason(part, f"has shown no sign of life for {in_words(silent_s)}; it will be replaced")


def _part(process: str) -> str:
    """The part of the house that a process is.

    >>> _part("source.meter"), _part("writer")
    ('source meter', 'writer')
    """
    return process.replace("source.", "source ", 1)


def _ill(process: FrozenRow) -> str:
    """What the state of a process means for the house; empty if it is well."""
    times = _count(process["failures"], "failure")
    state = state_in_words(PROCESS_STATES, process["state"])
    if state == "degraded" and is_up(process):
        return f"runs again after {times}, but has ended too often of late; the log says why"
    words = {
        "running": "",
        "starting": "is starting",
        "backoff": f"is down after {times} and will be started again; the log says why",
        "degraded": f"is down after {times}, too many of late, and is started only now and then; the log says why",
        "stopped": "is stopped",
    }
    return words.get(state, f"is in a state that this version of wattherd does not know ({state})")


def _silent_s(seen: Snapshot, process: FrozenRow) -> float:
    """Seconds since the last heartbeat, or since the start of a process that has not had the time for one yet."""
    name = process.name
    is_source = name.startswith("source.")
    row = seen.find("worker", name.removeprefix("source.")) if is_source else seen.find(name, name)
    return seen.age_s(max(row["beat_ns"], process["since_ns"])) or 0.0 if row else 0.0


def _sources(settings: Settings, seen: Snapshot) -> Iterator[Reason]:
    for worker in seen.rows("worker"):
        part = f"source {worker.name}"
        if not seen.runs("worker", worker.name):
            continue  # everything below follows from that
        if not worker["open"]:
            yield Reason(part, worker.note or "is not open yet")
            continue
        if worker["devices_troubled"]:
            yield Reason(part, worker.note or f"{_count(worker['devices_troubled'], 'device')} in trouble")
        # A new process has as much time for its first reading as there may be between two of them.
        process = seen.find("process", f"source.{worker.name}")
        began_ns = process["since_ns"] if process else 0
        age_s = seen.age_s(max(worker["last_reading_ns"], began_ns))
        if age_s is not None and age_s > missed_after_s(settings, worker.name):
            yield Reason(part, f"no reading for {in_words(age_s)}; is the device switched on and in reach?")


def missed_after_s(settings: Settings, name: str) -> float:
    """Return how many seconds without a reading of a source are too many."""
    source = settings.sources.get(name)
    return max(MISSED_AFTER_S, 3 * source.interval_s if isinstance(source, PolledTable) else 0)


def _writer(settings: Settings, seen: Snapshot) -> Iterator[Reason]:
    process, writer = seen.find("process", "writer"), seen.find("writer", "writer")
    if not writer or not process or not seen.runs("writer", "writer"):
        return
    if writer["held"] and not writer["clock_synced"]:
        yield Reason(
            "clock",
            f"is not set: {_count(writer['held'], 'record')} waiting for it; is there a network, and does a time "
            "service run (timedatectl)?",
        )
    failures = f" ({_count(writer['commit_failures'], 'failure')} so far)" if writer["commit_failures"] else ""
    if writer.note:
        yield Reason("writer", f"{writer.note}{failures}")
        return
    # Nobody commits where nobody measures: only readings that are newer than the last commit show that it is stuck.
    newest_ns = max((worker["last_reading_ns"] for worker in seen.rows("worker")), default=0)
    uncommitted_s = (newest_ns - max(writer["last_commit_ns"], process["since_ns"])) / 1e9
    if uncommitted_s > max(UNCOMMITTED_AFTER_S, 3 * _commit_interval_s(settings)):
        yield Reason(
            "writer",
            f"has put nothing on the disk for {in_words(uncommitted_s)}{failures}; is the disk full or broken?",
        )


def _commit_interval_s(settings: Settings) -> float:
    return 0.0 if settings.writer.commit_interval_s == "auto" else settings.writer.commit_interval_s


def _outputs(seen: Snapshot) -> Iterator[Reason]:
    for output in seen.rows("output"):
        part = f"output {output.name}"
        state = state_in_words(OUTPUT_STATES, output["state"])
        if state not in ("starting", "up") and seen.runs("output", output.name):
            yield Reason(part, f"{state}: {output.note}" if output.note else f"is {state}")
        age_s = seen.age_utc_s(output["oldest_pending_utc_ns"])
        if output["pending"] and age_s is not None and age_s > MISSED_AFTER_S:
            yield Reason(
                part, f"{_count(output['pending'], 'record')} waiting for it, the oldest for {in_words(age_s)}"
            )


def _count(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> _count(1, "record"), _count(1234, "record")
    ('1 record', '1,234 records')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
