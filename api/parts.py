"""How every source, every output, the writer and the clock are, for people: `/api/v1/health`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from api import documents
from api.health import MISSED_AFTER_S, Reason, reasons_not_ready, simulated, state_in_words
from api.snapshot import FrozenRow, Snapshot
from config.settings import Settings
from vitals import OUTPUT_STATES, PROCESS_STATES

_STATE_OF_SOURCE: Final = {"backoff": "restarting", "degraded": "failing"}
_STATES_OF_SOURCE: Final = ("reading", "starting", "trouble", "not open", "restarting", "failing", "stopped")
_DROPPED: Final = ("dropped_refused", "dropped_quota", "dropped_damage")


def health(settings: Settings, seen: Snapshot) -> documents.Health:
    """Tell how the house is at one instant: what is wrong first, then every part."""
    reasons = reasons_not_ready(settings, seen)
    writer = seen.find("writer", "writer")
    return documents.Health(
        ready=not reasons,
        simulated=simulated(seen),
        reasons=[*map(_reason, reasons)],
        sources=[_source(settings, seen, worker, reasons) for worker in seen.rows("worker")],
        outputs=[_output(settings, seen, output, reasons) for output in seen.rows("output")],
        writer=documents.WriterHealth(
            commits=writer["commits"] if writer else 0,
            held=writer["held"] if writer else 0,
            outbox_bytes=writer["outbox_bytes"] if writer else 0,
            last_commit_age_s=seen.age_s(writer["last_commit_ns"]) if writer else None,
        ),
        clock=documents.ClockHealth(
            synced=bool(writer and writer["clock_synced"]), steps=writer["clock_steps"] if writer else 0
        ),
    )


def gist(health: documents.Health) -> tuple[Any, ...]:
    """Return what of it is worth telling at once: everything but ages and counts."""
    return (
        health.ready,
        health.simulated,
        tuple(health.reasons),
        tuple((each.name, each.kind, each.state, each.mood, each.restarts, each.note) for each in health.sources),
        tuple((each.name, each.kind, each.state, each.mood, each.dropped, each.note) for each in health.outputs),
        health.clock,
    )


def _reason(reason: Reason) -> documents.Reason:
    """Part what is wrong from what to do now: a semicolon is between the two wherever we say both."""
    what, _, remedy = reason.what.partition("; ")
    return documents.Reason(reason.part, what, remedy or None)


def _source(settings: Settings, seen: Snapshot, worker: FrozenRow, reasons: list[Reason]) -> documents.SourceHealth:
    table = settings.sources.get(worker.name)
    process = seen.find("process", f"source.{worker.name}")
    troubles = [*_troubles(f"source {worker.name}", reasons)]
    state = state_in_words(PROCESS_STATES, process["state"]) if process else "unknown"
    state = _STATE_OF_SOURCE.get(state, state)
    if state == "running":
        state = ("trouble" if troubles else "reading") if worker["open"] else "not open"
    return documents.SourceHealth(
        name=worker.name,
        kind=table.kind if table else "",
        state=state if state in _STATES_OF_SOURCE else "unknown",  # type: ignore[arg-type]
        mood="good" if state == "reading" else "waiting" if state == "starting" else "bad",
        last_reading_age_s=seen.age_s(worker["last_reading_ns"]),
        readings=worker["readings"],
        restarts=max(0, process["starts"] - 1) if process else 0,
        note=troubles[0] if troubles else worker.note,
    )


def _output(settings: Settings, seen: Snapshot, output: FrozenRow, reasons: list[Reason]) -> documents.OutputHealth:
    table = settings.outputs.get(output.name)
    troubles = [*_troubles(f"output {output.name}", reasons)]
    state = state_in_words(OUTPUT_STATES, output["state"]) if seen.runs("output", output.name) else "no writer"
    oldest_pending_age_s = seen.age_utc_s(output["oldest_pending_utc_ns"]) if output["pending"] else None
    if state == "up" and (oldest_pending_age_s or 0.0) > MISSED_AFTER_S:
        state = "catching up"
    return documents.OutputHealth(
        name=output.name,
        kind=(table.kind or output.name) if table else "",
        state=state if not state.startswith("state ") else "unknown",  # type: ignore[arg-type]
        mood="good" if state == "up" else "waiting" if state in ("starting", "catching up") else "bad",
        accepted=output["accepted"],
        delivered=output["delivered"],
        pending=output["pending"],
        dropped=sum(output[field] for field in _DROPPED),
        oldest_pending_age_s=oldest_pending_age_s,
        note=troubles[0] if troubles else output.note,
    )


def _troubles(part: str, reasons: list[Reason]) -> Iterator[str]:
    return (reason.what for reason in reasons if reason.part == part)
