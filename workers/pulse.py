"""Meters with a pulse output (S0) or a blinking light, on the GPIO lines of a Raspberry Pi.

    [sources.pulse]
    kind = "pulse"
    enabled = true
    chip = "auto"              # the chip with the header pins; or its label, or a path such as "/dev/gpiochip0"
    backend = "auto"           # "gpiod"; "rpi_gpio" is chosen by itself only where there is no GPIO character device
    core = -1                  # a processor core for this source alone, from which the rest of the house stays away
    priority = 50              # real-time priority, 1 to 99; 0: none
    report_interval_s = 10.0   # how often power and energy are reported
    events = true              # report each pulse too, for the raw store

    [[sources.pulse.devices]]  # without any: these three
    name = "import"
    type = "import"            # "import", "export" or "generate"
    line = 20                  # BCM number or name of the line; "auto": 20 import, 26 export, 21 generate
    output = "s0"              # "led" for a sensor on the meter's light
    edge = "falling"           # the one that begins a pulse: an S0 output pulls its line low
    bias = "pull_up"           # "pull_down", or "none" with a resistor of your own
    active_low = false         # true: the kernel swaps the edges before `edge` is looked at
    imp_per_kwh = 1000.0       # printed on the meter
    ct_ratio = 1.0             # 20.0 for a meter behind 100:5 current transformers
    max_power_w = 25000.0      # the most that can flow
    min_pulse_ms = "auto"      # shorter ones are bounces: 10 for s0, 2 for led; 0: do not look
    min_interval_ms = "auto"   # nearer ones are bounces: half the interval at max_power_w
    timeout_s = 300.0          # without a pulse for so long power is zero

    [[sources.pulse.devices]]
    name = "export"
    type = "export"

    [[sources.pulse.devices]]
    name = "generate"
    type = "generate"

Energy is counted in whole pulses. The requested lines and the counts are deposited with the parent: while no worker
lives edges queue in the kernel, and what was lost all the same is known by the numbers of the edges, counted and told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import signal
import stat
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, structs

from config.settings import Positive, SourceTable
from reading import Origin, Reading
from workers import Source, SourceError
from workers._gpio import Busy, Edges, NoChip
from workers._gpio_chip import ChipEdges, gone
from workers._gpio_rpi import RpiEdges
from workers._pulse import Tally
from workers._pulse_channel import Channel, Device
from workers._pulse_memory import Memory, State
from workers._realtime import Realtime

_LINES: Final = "lines"  # the names of what is deposited
_COUNT: Final = "count"
_STOP: Final = frozenset({signal.SIGTERM})
_PARENT_LETS_GO_S: Final = 2.0
_SEED: Final = tuple(Device(name=name, type=name) for name in ("import", "export", "generate"))


class Options(SourceTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "pulse"`."""

    chip: str = "auto"
    backend: Literal["auto", "gpiod", "rpi_gpio"] = "auto"
    core: Annotated[int, Meta(ge=-1)] = -1
    priority: Annotated[int, Meta(ge=0, le=99)] = 50
    report_interval_s: Positive = 10.0
    events: bool = True
    devices: tuple[Device, ...] = _SEED

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names:
            raise ValueError("no channel is configured: add a [[sources.<name>.devices]] table, or leave out `devices`")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the device {twice[0]} is configured twice: give each device a name of its own")
        lines = [device.where for device in self.devices]
        for line in lines:
            if lines.count(line) > 1:
                both = " and ".join(device.name for device in self.devices if device.where == line)
                raise ValueError(f"{both} have the same line {line}: give each a `line` of its own")


class Pulse(Source):
    """Takes edges from the kernel, notes what they mean where it survives, and reports it."""

    Options = Options

    wait_s = 0.8
    gather_s = 0.2  # what a fast meter does in this time becomes one message

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.lost_edges = 0  # that the kernel or a killed predecessor had and nobody read; only ever rises
        self._log = logging.getLogger(name)
        self._realtime = Realtime(options.priority, options.core)
        self._channels = [Channel(device) for device in options.devices]
        self._lines = [device.wanted for device in options.devices]
        self._consumer = f"wattherd {name}"[:31]
        self._memory: Memory | None = None
        self._state = State("", [], {}, [])
        self._handed_over = False  # all that `_state.unreported` has was returned
        self._edges: Edges | None = None
        self._by_offset: dict[int, tuple[Channel, Tally]] = {}
        self._due_ns = 0
        self._signals = -1, -1  # a pipe that becomes readable when this process is told to stop
        self._leaving = False

    @property
    def realtime_refused(self) -> int:
        """How much of the wish for real time was not granted."""
        return self._realtime.refused

    def open(self) -> None:
        self._realtime.enter(self._log)
        self._listen_to_signals()
        self._remember()
        kept = self.kept.get(_LINES, -1)
        if kept >= 0 and self._state.request == self._request and not stat.S_ISCHR(os.fstat(kept).st_mode):
            chip = ChipEdges(self.options.chip, self._lines, self._consumer)
            chip.adopt(kept, self._state.offsets)
            self._edges = chip
        else:
            if kept >= 0:
                self._discard()
            self._request_anew()
        places = zip(self._state.offsets, self._channels, strict=True)
        self._by_offset = {offset: (channel, self._state.tallies[channel.name]) for offset, channel in places}

    def read(self) -> list[Reading]:
        if self._edges is None:
            raise SourceError("the lines are not open", "open them first")
        if self._handed_over:
            self._state.unreported.clear()
            self._handed_over = False
        try:
            self._gather(self._edges)
        except SourceError:
            self._discard()
            raise
        now_ns = time.monotonic_ns()
        self._look_for_troubles(self._edges, now_ns)
        reports = self._reports(now_ns)
        self._handed_over = True
        return [*self._state.unreported, *reports]

    def close(self) -> None:
        edges, self._edges = self._edges, None
        self._stop_listening()
        if edges:
            edges.close()

    # ---- what outlives this process

    @property
    def _request(self) -> str:
        """What the lines are requested for, to compare it with what kept ones were requested for."""
        return msgspec.json.encode([self.options.chip, [one.name for one in self._channels], self._lines]).decode()

    def _remember(self) -> None:
        """Go on with the counts of predecessors, or begin."""
        if self._memory is None:
            kept = self.kept.get(_COUNT, -1)
            self._memory = Memory(kept) if kept >= 0 else Memory.new()
            self._state = self._memory.load() or self._state
        known = self._state.tallies
        self._state.tallies = {}
        for channel in self._channels:
            fresh = Tally(secrets.token_hex(4), channel.device.wh_per_pulse)
            tally = known.get(channel.name, fresh)
            if tally.wh_per_pulse != fresh.wh_per_pulse:
                self._log.info("%s: a pulse is worth something else now; its count starts again", channel.name)
                tally = structs.replace(tally, boot=fresh.boot, wh_per_pulse=fresh.wh_per_pulse, pulses=0)
            self._state.tallies[channel.name] = tally
        self._memory.note(self._state)
        if _COUNT not in self.kept:
            self._keep(_COUNT, self._memory.descriptor)

    def _request_anew(self) -> None:
        now_ns = time.monotonic_ns()
        edges = self._opened()
        levels = edges.levels() or [False] * len(self._channels)
        for channel, level in zip(self._channels, levels, strict=True):
            self._state.tallies[channel.name].start_again(now_ns, active=level)
        self._state.request, self._state.offsets = self._request, edges.offsets
        if self._memory:
            self._memory.note(self._state)  # before anybody can keep lines whose numbers it does not know
        if isinstance(edges, ChipEdges):
            self._keep(_LINES, edges.descriptor)

    def _keep(self, name: str, descriptor: int) -> None:
        self.kept[name] = descriptor
        self.deposit(name, descriptor)

    def _discard(self) -> None:
        """Let go of the lines, and have the parent let go of them: there is no taking back, only putting another."""
        kept = self.kept.pop(_LINES, -1)
        if kept >= 0:
            os.close(kept)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.deposit(_LINES, nothing)
        finally:
            os.close(nothing)

    # ---- the backend

    def _opened(self) -> Edges:
        """Request the lines from whichever backend there is."""
        if self.options.backend == "rpi_gpio":
            return self._opened_rpi()
        chip = ChipEdges(self.options.chip, self._lines, self._consumer)
        try:
            self._open_patiently(chip)
        except NoChip as no_chip:
            if self.options.backend == "gpiod":
                raise
            try:
                return self._opened_rpi()
            except SourceError:
                raise no_chip from None
        self._edges = chip
        return chip

    def _opened_rpi(self) -> Edges:
        rpi = RpiEdges(self._lines)
        self._edges = rpi  # before it is open: whatever happens, it will be closed
        rpi.open()
        return rpi

    def _open_patiently(self, chip: ChipEdges) -> None:
        """Wait for the parent, where it is the parent that still has the lines of a request that is of no use."""
        until_s = time.monotonic() + _PARENT_LETS_GO_S
        while True:
            try:
                return chip.open()
            except Busy as busy:
                if busy.consumers != {self._consumer} or time.monotonic() > until_s:
                    raise
            self._discard()
            time.sleep(0.05)

    # ---- edges

    def _gather(self, edges: Edges) -> None:
        """Wait for an edge, and then a little longer for those that follow."""
        if not self._wait(edges, self._patience_s()):
            self._realtime.rest(time.monotonic())
            return
        until_s = time.monotonic() + self.gather_s
        self._take(edges)
        while (rest_s := until_s - time.monotonic()) > 0 and self._wait(edges, rest_s):
            self._take(edges)

    def _patience_s(self) -> float:
        return min(self.wait_s, max(0.0, (self._due_ns - time.monotonic_ns()) / 1e9))

    def _wait(self, edges: Edges, timeout_s: float) -> bool:
        """Wait for edges; return whether there are any. The request to stop ends the waiting."""
        poll = select.poll()
        poll.register(edges.descriptor, select.POLLIN)
        if self._signals[0] >= 0:
            poll.register(self._signals[0], select.POLLIN)
        with self._hearing_signals():
            came = dict(poll.poll(timeout_s * 1000))
        what = came.get(edges.descriptor, 0)
        if what and not what & select.POLLIN:
            raise gone()
        return bool(what)

    def _take(self, edges: Edges) -> None:
        """Book what the kernel has, and note it before anything else is done with it."""
        lost: dict[str, tuple[int, int]] = {}
        for edge in edges.take():
            if edge.offset not in self._by_offset:
                continue
            channel, tally = self._by_offset[edge.offset]
            found = tally.take(edge, channel.rules)
            self.refused["bounce"] += found.bounces
            if found.lost_edges:
                before = lost.get(channel.name, (0, 0))
                lost[channel.name] = before[0] + found.lost_edges, before[1] + found.hidden
                channel.lost += found.lost_edges
            if found.pulse_ns and self.options.events:
                number = Origin(tally.boot, tally.pulses)
                self._state.unreported.append(
                    Reading(channel.name, found.pulse_ns, {"pulse": channel.device.type}, origin=number)
                )
        if self._memory:
            self._memory.note(self._state)
        for name, (count, pulses) in lost.items():
            self.lost_edges += count
            self._log.warning(
                "%s: %d edges were lost before they were read; %d pulses are counted for them", name, count, pulses
            )

    # ---- reports

    def _reports(self, now_ns: int) -> list[Reading]:
        due = now_ns >= self._due_ns
        if due:
            interval_ns = round(self.options.report_interval_s * 1e9)
            late_ns = (now_ns - self._due_ns) % interval_ns if self._due_ns else 0
            self._due_ns = now_ns - late_ns + interval_ns
        reports = [
            channel.report(self._state.tallies[channel.name], now_ns, due=due or self._leaving)
            for channel in self._channels
        ]
        return [report for report in reports if report]

    def _look_for_troubles(self, edges: Edges, now_ns: int) -> None:
        one_edged = any(not channel.rules.both for channel in self._channels)
        levels = edges.levels() if one_edged else []
        for place, channel in enumerate(self._channels):
            level = levels[place] if levels else None
            if trouble := channel.trouble(self._state.tallies[channel.name], level, now_ns):
                self.troubles[channel.name] = trouble
            else:
                self.troubles.pop(channel.name, None)

    # ---- the end

    def _listen_to_signals(self) -> None:
        """Have the request to stop end the waiting, and come at no other time.

        It is followed by a last report: counts that nobody reported would be lost with the parent.
        """
        if self._signals[0] < 0 and threading.current_thread() is threading.main_thread():
            self._signals = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        if self._signals[0] < 0:
            yield
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        with contextlib.suppress(BlockingIOError):  # it may have come when the waiting was over
            self._leaving |= signal.SIGTERM in os.read(self._signals[0], 4096)

    def _stop_listening(self) -> None:
        ends, self._signals = self._signals, (-1, -1)
        if ends[0] >= 0:
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)
            for end in ends:
                with contextlib.suppress(OSError):
                    os.close(end)
