"""What is known of the house at one instant: from itself where it runs, else from what it left on the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psutil  # type: ignore[import-untyped]  # it comes without types

from commands._audit import looked_into
from commands._doctor.disk_cost import Cost, cost_of
from commands._doctor.house import api_of
from commands._doctor.machine import Disk, disk, up_s
from commands._history import local_date, midnight_ns
from commands._peer import PeerDown
from commands._probe import running_house
from config.settings import Settings
from history.queries import History
from logbook.events import What
from writer.clock import wall_minus_monotonic_ns
from writer.outbox import balance

NS: Final = 10**9
_REGISTERS: Final = ("energy_wh", "energy_export_wh")
_HOUSE_ONLY: Final = ("house",)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the house."""

    name: str
    pid: int
    memory_bytes: int  # its share of what all of them use (PSS), or what it has by itself where nobody may know
    cpu_s: float
    up_s: float


@dataclass(frozen=True, slots=True)
class Today:
    """What a channel used since local midnight."""

    channel: str
    energy_wh: float | None
    energy_export_wh: float | None
    estimated: bool


@dataclass(slots=True)
class Status:
    """All of it."""

    site: str
    process: int | None  # 0: it runs, and nobody knows its number
    ready: bool | None = None  # None: nobody tells
    simulated: bool = False
    silence: str = ""  # why the house itself tells nothing
    reasons: list[dict[str, str | None]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    clock: dict[str, Any] | None = None
    writer: dict[str, Any] | None = None
    power_w: float | None = None
    power_by_channel: dict[str, float] = field(default_factory=dict)
    today: list[Today] = field(default_factory=list)
    no_today: str = ""  # why nothing is known of it
    stopped_ago_s: float | None = None  # of a house that does not run
    outbox_bytes: int = 0
    cost: Cost | None = None
    disk: Disk | None = None

    @property
    def code(self) -> int:
        """Return the exit code: 0 all is well, 1 it does not run, 3 it runs and something is wrong."""
        if self.process is None:
            return 1
        return 0 if self.ready else 3


def status_of_house(settings: Settings, key: str) -> Status:
    """Look once; `key` is for an api that asks for one."""
    status = Status(settings.site.name, running_house(settings))
    if status.process is not None:
        status.processes = [*_processes(status.process)]
        _ask(settings, status, key)
    if status.ready is None:
        _look_into_files(settings, status)
    _look_at_today(settings, status)
    outbox = settings.data_dir / "outbox.db"
    parts = [outbox, outbox.with_name(outbox.name + "-wal")]
    status.outbox_bytes = sum(part.stat().st_size for part in parts if part.exists())
    status.cost, status.disk = cost_of(settings), disk(settings.data_dir)
    return status


def _ask(settings: Settings, status: Status, key: str) -> None:
    """Ask the house itself; say why it does not tell."""
    if not settings.api.enabled:
        status.silence = "it has no api to ask ([api] enabled = false), so this is what its files tell"
        return
    api = api_of(settings, key)
    try:
        answer = api.get("/api/v1/health")
        if answer.status == 403:
            status.silence = f"{api.url} wants a key: put it into the variable WATTHERD_API_KEY"
            return
        health = answer.told
        status.ready, status.simulated = bool(health["ready"]), bool(health["simulated"])
        status.reasons, status.sources, status.outputs = health["reasons"], health["sources"], health["outputs"]
        status.clock, status.writer = health["clock"], health["writer"]
        live = api.get("/api/v1/live").told
        status.power_w = live["house"]["power_w"]
        powers = {f"{one['source']}/{one['device']}": one["values"].get("power_w") for one in live["devices"]}
        status.power_by_channel = {name: power for name, power in powers.items() if power is not None}
    except (PeerDown, KeyError, TypeError, AttributeError) as error:
        status.silence = f"{api.url} does not answer ({error}); its log says why, and this is what its files tell"


def _look_into_files(settings: Settings, status: Status) -> None:
    """Read in the outbox how far everything got."""
    path = settings.data_dir / "outbox.db"
    if not path.exists():
        status.silence = status.silence or f"there is nothing in {settings.data_dir}: it never ran"
        return
    now_ns = time.monotonic_ns() + wall_minus_monotonic_ns()
    try:
        with looked_into(path, now_ns) as (evidence, accounts):
            seen: dict[str, int] = {}
            for name, channel in evidence.channels.items():
                source = name.partition("/")[0]
                seen[source] = max(seen.get(source, 0), channel.seen.utc_ns)
            status.sources = [
                {
                    "name": name,
                    "kind": options.kind,
                    "state": "not asked" if options.enabled else "switched off",
                    "mood": "waiting",
                    "last_reading_age_s": (now_ns - seen[name]) / NS if seen.get(name) else None,
                    "readings": None,
                    "restarts": None,
                    "note": "",
                }
                for name, options in settings.sources.items()
            ]
            for name in sorted(accounts.accounts):
                done = balance(accounts.progress[name], accounts.accounts[name])
                told = {"accepted": done.accepted, "delivered": done.delivered, "pending": accounts.pending[name]}
                told["dropped"] = sum(done.dropped.values())
                more = {"oldest_pending_age_s": None, "note": "", "mood": "waiting", "state": "at rest"}
                status.outputs.append({"name": name, "kind": _kind(settings, name), **told, **more})
            ends = [one for one in evidence.events if one.part in _HOUSE_ONLY and one.what is What.DOWN]
            if ends and ends[-1].moment.utc_ns:
                status.stopped_ago_s = (now_ns - ends[-1].moment.utc_ns) / NS
    except sqlite3.Error as error:
        status.silence = f"the outbox in {settings.data_dir} cannot be read: {error}"


def _kind(settings: Settings, output: str) -> str:
    options = settings.outputs.get(output)
    return (options.kind or output) if options else "no longer configured"


def _look_at_today(settings: Settings, status: Status) -> None:
    """Ask the history what every channel used since midnight."""
    path = settings.data_dir / "history.db"
    if not path.exists():
        keeps = any(_kind(settings, name) == "history" for name in settings.outputs)
        status.no_today = "the history begins with the first reading" if keeps else "energy by day: [outputs.history]"
        return
    now_ns = time.monotonic_ns() + wall_minus_monotonic_ns()
    start_ns = midnight_ns(settings, local_date(settings, now_ns))
    try:
        with closing(History(path)) as history:
            kept = {(each.source, each.device, each.metric) for each in history.devices()}
            wanted = sorted(one for one in kept if one[2] in _REGISTERS)
            told = history.energy(wanted, start_ns, now_ns, "day", settings.site.timezone)
    except sqlite3.Error as error:
        status.no_today = f"{path} cannot be read: {error}"
        return
    for source, device in sorted({one[:2] for one in wanted}):
        last = [days[-1] if (days := told.get((source, device, metric))) else None for metric in _REGISTERS]
        used, sold = (one.amount if one else None for one in last)
        estimated = any(one and one.amount and one.estimated for one in last)
        status.today.append(Today(f"{source}/{device}", used, sold, estimated))


def _processes(pid: int) -> Iterator[Process]:
    """Look at the parent and its children, as far as this user may."""
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for one in (parent, *parent.children()):
            with suppress(psutil.Error):
                yield _process(one, "parent" if one is parent else one.name())


def _process(one: Any, name: str) -> Process:
    try:
        memory = int(one.memory_full_info().pss)
    except psutil.AccessDenied:
        memory = int(one.memory_info().rss)
    used = one.cpu_times()
    # Both are of the same clock, so their difference is right however that is turned.
    age_s = up_s() - (one.create_time() - psutil.boot_time())
    return Process(name, one.pid, memory, used.user + used.system, max(0.0, age_s))
