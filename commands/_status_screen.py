"""Shows the status of the house in 80 columns, and tells it to programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from api.health import in_words
from commands._doctor.health import megabytes
from commands._screen import marked, table, wrapped
from commands._status import Status
from config.settings import Settings
from config.words import printable

_MARKS = {"good": "✓", "waiting": "·", "bad": "✗"}


def told(status: Status) -> dict[str, Any]:
    """Return it for a program."""
    cost, disk = status.cost, status.disk
    return {
        "status": status.code,
        "site": status.site,
        "running": status.process is not None,
        "process": status.process or None,
        "ready": status.ready,
        "simulated": status.simulated,
        "silence": status.silence or None,
        "reasons": status.reasons,
        "processes": [asdict(one) for one in status.processes],
        "sources": status.sources,
        "outputs": status.outputs,
        "clock": status.clock,
        "writer": status.writer,
        "power_w": status.power_w,
        "today": [asdict(one) for one in status.today],
        "stopped_ago_s": status.stopped_ago_s,
        "outbox_bytes": status.outbox_bytes,
        "commit_interval_s": cost.interval_s if cost else None,
        "commit_mb_a_day_reckoned": round(cost.mb_a_day, 1) if cost else None,
        "disk_free_bytes": disk.free_bytes if disk else None,
        "disk_mb_a_day_measured": _measured_mb_a_day(status),
    }


def shown(settings: Settings, status: Status) -> Iterator[RenderableType]:
    """Yield what a person sees, from the important on."""
    yield from _lines(_headline(status))
    if status.simulated:
        yield from _lines("! its numbers are simulated, some at least: no electricity is measured there")
    if status.silence:
        yield from _lines(f"· {status.silence}")
    for reason in status.reasons:
        yield from _lines(
            f"✗ {reason['part']}: {reason['what']}" + (f"; {reason['remedy']}" if reason["remedy"] else "")
        )
    if status.sources:
        yield _sources(status)
    if status.outputs:
        yield _outputs(status)
    if status.today:
        yield _today(status)
    elif status.no_today:
        yield from _lines(f"· {status.no_today}")
    if status.processes:
        yield _processes(status)
    yield from _small_print(settings, status)


def next_command(status: Status, words: str) -> str:
    if status.process is None:
        return f"./orchestrator.py run{words}"
    return f"./orchestrator.py {'audit' if status.ready else 'verify'}{words}"


def _headline(status: Status) -> str:
    if status.process is None:
        ago = f"; it stopped {in_words(status.stopped_ago_s)} ago" if status.stopped_ago_s is not None else ""
        return f"✗ {status.site} does not run{ago}"
    process = f" (process {status.process})" if status.process else ""
    if status.ready is None:
        return f"! {status.site} runs{process}"
    return f"✓ {status.site} runs{process}, and is well" if status.ready else f"✗ {status.site} runs{process}, not well"


def _sources(status: Status) -> Table:
    made = table("", "source", "kind", "state", "last reading", "readings", "restarts", right=("readings", "restarts"))
    for one in status.sources:
        age_s = one["last_reading_age_s"]
        made.add_row(
            marked(_MARKS[one["mood"]]),
            Text(one["name"]),
            Text(one["kind"]),
            Text(one["state"]),
            Text("never" if age_s is None else f"{in_words(age_s)} ago"),
            _count(one["readings"]),
            _count(one["restarts"]),
        )
    return made


def _outputs(status: Status) -> Table:
    made = table(
        "", "output", "state", "delivered", "pending", "dropped", "oldest", right=("delivered", "pending", "dropped")
    )
    for one in status.outputs:
        oldest_s = one["oldest_pending_age_s"]
        made.add_row(
            marked(_MARKS[one["mood"]]),
            Text(one["name"]),
            Text(one["state"]),
            _count(one["delivered"]),
            _count(one["pending"]),
            Text(f"{one['dropped']:,}", "red" if one["dropped"] else ""),
            Text("" if oldest_s is None else in_words(oldest_s)),
        )
    return made


def _today(status: Status) -> Table:
    made = table("", "channel", "now W", "today kWh", "sold kWh", "", right=("now W", "today kWh", "sold kWh"))
    for one in status.today:
        now = status.power_by_channel.get(one.channel)
        made.add_row(
            "",
            Text(one.channel),
            Text("" if now is None else f"{now:,.1f}"),
            Text(_kwh(one.energy_wh)),
            Text(_kwh(one.energy_export_wh)),
            Text("partly estimated" if one.estimated else ""),
        )
    if status.power_w is not None:
        made.add_section()
        made.add_row("", Text("the house"), Text(f"{status.power_w:,.1f}"), "", "", "")
    return made


def _processes(status: Status) -> Table:
    made = table("", "process", "pid", "memory", "CPU s", "runs since", right=("pid", "memory", "CPU s"))
    for one in status.processes:
        used = f"{one.cpu_s:,.1f}"
        made.add_row("", Text(one.name), str(one.pid), megabytes(one.memory_bytes), used, in_words(one.up_s))
    return made


def _small_print(settings: Settings, status: Status) -> Iterator[Text]:
    if status.clock is not None:
        steps = status.clock["steps"]
        jumped = f"; it was set anew {steps} time{'s' if steps > 1 else ''}" if steps else ""
        yield from _lines(f"clock: {'set' if status.clock['synced'] else 'not set yet, readings wait'}{jumped}")
    if status.writer is not None and status.writer["held"]:
        yield from _lines(f"clock: {status.writer['held']:,} readings wait for it")
    if status.cost:
        yield from _lines(f"disk: {status.cost.words}")
    measured = _measured_mb_a_day(status)
    if status.disk:
        written = f"; all programs write {megabytes(measured * 1e6)} a day to it (measured)" if measured else ""
        yield from _lines(f"disk: {megabytes(status.disk.free_bytes)} free for {settings.data_dir}{written}")
    quota = megabytes(settings.writer.outbox_quota_mb * 1e6)
    yield from _lines(f"outbox: {megabytes(status.outbox_bytes)}; what waits may take {quota}")


def _measured_mb_a_day(status: Status) -> float | None:
    disk = status.disk
    if disk is None or disk.written_bytes is None or disk.up_s < 60:
        return None
    return round(disk.written_bytes / disk.up_s * 86_400 / 1e6, 1)


def _kwh(energy_wh: float | None) -> str:
    return "" if energy_wh is None else f"{energy_wh / 1000:,.3f}"


def _count(number: int | None) -> Text:
    return Text("" if number is None else f"{number:,}")


def _lines(words: str) -> Iterator[Text]:
    return (marked(line) for line in wrapped(printable(words)))
