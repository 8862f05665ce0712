"""The parent's loop: obey signals, bury the dead, murder the hung, start what is due, sleep.

One thread, ever: a process forked while another thread holds a lock would inherit that lock for good. Signal handlers
do nothing but queue. No driver, no asyncio and no listening socket lives here, so that nothing a device or a network
does can reach the one process that must not die.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import gc
import logging
import os
import selectors
import signal
import socket
import termios
import time
from collections.abc import Callable
from typing import Final

import tap
from config.load import ConfigurationError
from supervise import deposits
from supervise.child import Child, Ends
from supervise.fork import Life, fork
from supervise.house import House, Role, Start
from supervise.instance import Incarnations, lock
from supervise.notify import Notifier, inherited_descriptors
from supervise.states import CONFIGURATION_EXITS
from vitals import Board

log = logging.getLogger("parent")

_TICK_S: Final = 0.5
_ABORT_TO_KILL_S: Final = 2.0  # what the hung get to print their stack
_PAUSED_AFTER_S: Final = 5.0  # a turn that took so long means that the parent itself was stopped
_LOCK_PATIENCE_S: Final = 5.0  # a writer that lost its parent empties the channels before it lets go
_WORKERS_SHARE: Final = 0.5  # of the time to stop; the writer comes after them and needs the rest
_READY_AT_LATEST_S: Final = 20.0


class Parent:
    """Runs a house until it is told to stop. `load` reads the configuration anew for a reload."""

    def __init__(self, house: House, load: Callable[[], House]) -> None:
        self._house = house
        self._load = load
        self._board = Board()
        self._children: dict[str, Child] = {}
        self._emptying: dict[str, Ends] = {}  # channels of sources that are gone, by stream
        self._tap = dict(zip((Role.WRITER, Role.API), tap.pair(), strict=True))
        self._selector = selectors.DefaultSelector()
        self._signals: list[signal.Signals] = []
        self._wakeup_in, self._wakeup_out = socket.socketpair()
        self._notifier = Notifier(os.environ)
        self._inherited = inherited_descriptors(os.environ)
        self._lock = -1
        self._stop_deadline_s: float | None = None
        self._turned_at_s = time.monotonic()
        self._patient_until_s = 0.0
        self._told_alive_s = 0.0
        self._ready = False
        self._started_at_s = time.monotonic()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status. Raises `AlreadyRunning` and `NoPlace`."""
        self._lock = lock(self._house.data_dir, _LOCK_PATIENCE_S)
        self._incarnations = Incarnations(self._house.data_dir)
        self._listen_to_signals()
        self._arrange(self._house)
        # What is loaded by now stays in pages shared with every child: the collector must not touch it again.
        gc.collect()
        gc.freeze()
        while self._children:
            self._obey()
            self._bury_the_dead()
            self._murder_the_hung()
            self._start_the_due()
            self._show()
            self._sleep()
        log.info("stopped")
        return 0

    # ---- signals

    def _listen_to_signals(self) -> None:
        for end in (self._wakeup_in, self._wakeup_out):
            end.setblocking(False)
        self._selector.register(self._wakeup_in, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakeup_out.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda which, _: self._signals.append(signal.Signals(which)))

    def _obey(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number is signal.SIGHUP:
                self._reload()
            else:
                self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        if self._stop_deadline_s is not None and number is signal.SIGINT:
            log.warning("asked a second time: stopping at once; what was accepted is safe")
            self._stop_deadline_s = time.monotonic()
        elif self._stop_deadline_s is None:
            log.info("stopping (%s): sources first, then the writer", number.name)
            self._notifier.stopping()
            self._stop_deadline_s = time.monotonic() + self._house.supervise.stop_within_s
        self._go_on_stopping()

    def _go_on_stopping(self) -> None:
        """Ask whoever's turn it is: the writer empties the channels, so it goes when no worker can fill them."""
        if self._stop_deadline_s is None:
            return
        now_s = time.monotonic()
        workers = self._of_role(Role.WORKER)
        rest_s = max(0.0, self._stop_deadline_s - now_s)
        for child in workers:
            self._end(child, now_s + rest_s * _WORKERS_SHARE, for_good=True)
        if not workers:
            for child in self._of_role(Role.WRITER, Role.API):
                self._end(child, self._stop_deadline_s, for_good=True)

    # ---- reload

    def _reload(self) -> None:
        """Take over a new configuration whole, or leave everything as it is."""
        if self._stop_deadline_s is not None:
            return
        try:
            house = self._load()
        except ConfigurationError as error:
            for problem in error.problems:
                log.error("reload: %s", problem)
            log.error("reload: nothing was changed")
            return
        if house.data_dir.resolve() != self._house.data_dir.resolve():
            log.error("reload: [site] data_dir can only change with a full restart; nothing was changed")
            return
        self._arrange(house)
        self._house = house
        gc.collect()
        gc.freeze()
        log.info("reloaded")

    def _arrange(self, house: House) -> None:
        """Make the children those of `house`: start what is new, end what is gone, restart what changed."""
        plans = {plan.name: plan for plan in house.plans}
        deadline_s = time.monotonic() + house.supervise.stop_within_s
        new_channels = False
        for name, child in self._children.items():
            if name not in plans:
                self._end(child, deadline_s, for_good=True)
        for name, plan in plans.items():
            child_or_none = self._children.get(name)
            if child_or_none is None:
                left = self._emptying.pop(plan.rows[0][1], None) if plan.role is Role.WORKER else None
                child = self._children[name] = Child(plan, self._board, house.supervise, left)
                self._adopt(child)
                new_channels |= plan.role is Role.WORKER
                continue
            child = child_or_none
            changed = child.plan.settings != plan.settings
            child.plan, child.wanted = plan, True
            if changed:
                child.due_s = 0.0
                child.forgive(house.supervise)
                self._end(child, deadline_s)
        if new_channels:
            for child in self._of_role(Role.WRITER):
                self._end(child, deadline_s)  # its successor is born with all the channels

    def _adopt(self, child: Child) -> None:
        """Give a new child's successor what systemd kept while there was no parent."""
        if child.deposits is None:
            return
        self._selector.register(child.deposits, selectors.EVENT_READ, child)
        for name in list(self._inherited):
            source, _, deposit = name.partition(".")
            if source == child.stream and deposit:
                child.deposits.kept[deposit] = self._inherited.pop(name)

    # ---- the children

    def _of_role(self, *roles: Role) -> list[Child]:
        return [child for child in self._children.values() if child.plan.role in roles]

    def _end(self, child: Child, deadline_s: float, *, for_good: bool = False) -> None:
        """Ask a child to end by `deadline_s`; when that has passed it is killed."""
        child.wanted = child.wanted and not for_good
        if child.life and child.stopping_at_s is None:
            child.life.send(signal.SIGTERM)
            child.stopping_at_s = deadline_s
        elif child.stopping_at_s is not None:
            child.stopping_at_s = min(child.stopping_at_s, deadline_s)

    def _start_the_due(self) -> None:
        now_s = time.monotonic()
        for child in self._children.values():
            if child.wanted and child.life is None and child.due_s <= now_s:
                self._start(child)

    def _start(self, child: Child) -> None:
        child.heart = child.claim_rows(self._board)
        plan = child.plan
        if child.deposits:
            self._take_deposits(child.deposits, child)  # a predecessor may have died right after it left something
        try:
            incarnation = next(self._incarnations)
        except OSError as error:
            self._cannot_start(child, error)
            return
        start = Start(
            board=self._board,
            incarnation=incarnation,
            channel=child.ends[0] if child.ends else None,
            deposits=child.deposit_end,
            kept=dict(child.deposits.kept) if child.deposits else {},
            receivers=self._receivers() if plan.role is Role.WRITER else {},
            tap=self._tap.get(plan.role),
            house_since_ns=round(self._started_at_s * 1e9),
        )
        keep = [end.fileno() for end in (start.channel, start.deposits, start.tap, *start.receivers.values()) if end]
        keep += start.kept.values()
        if plan.role is Role.WRITER:
            keep.append(self._lock)
        # A writer that lost its parent still empties the channels; all others are of no use without one.
        dies_with_parent = signal.SIGTERM if plan.role is Role.WRITER else signal.SIGKILL
        try:
            child.life = fork(plan.name, lambda: plan.main(start), keep, dies_with_parent)
        except OSError as error:
            self._cannot_start(child, error)
            return
        child.stopping_at_s = child.aborted_at_s = None
        child.vitals.add("starts")
        self._selector.register(child.life.pidfd, selectors.EVENT_READ, child)

    def _cannot_start(self, child: Child, error: OSError) -> None:
        child.due_s = time.monotonic() + 1.0
        log.error("%s cannot be started: %s; trying again", child.plan.name, error)

    def _receivers(self) -> dict[str, socket.socket]:
        receivers = {stream: ends[1] for stream, ends in self._emptying.items()}
        receivers |= {child.stream: child.ends[1] for child in self._children.values() if child.ends}
        return receivers

    def _bury_the_dead(self) -> None:
        for name, child in list(self._children.items()):
            if child.life is not None and child.life.ended:
                self._selector.unregister(child.life.pidfd)
                life, child.life = child.life, None
                self._note_end(child, life, life.bury())
            if child.life is None and not child.wanted:
                self._retire(name, child)
        self._close_emptied()
        self._go_on_stopping()

    def _note_end(self, child: Child, life: Life, status: int) -> None:
        now_s = time.monotonic()
        if child.stopping_at_s is not None and child.aborted_at_s is None:
            child.stopping_at_s = None
            child.due_s = 0.0
            if status != 0:
                log.warning("%s was to stop and ended %s", child.plan.name, _how(status))
            return
        child.stopping_at_s = child.aborted_at_s = None
        if self._stop_deadline_s is not None and status == 0:
            # Whoever told us to stop told the whole group. The writer is needed until the channels are empty.
            child.wanted = child.plan.role is Role.WRITER
            child.due_s = 0.0
            return
        child.vitals.add("failures")
        pause_s = child.restarts.pause_s(now_s, now_s - life.since_s, status)
        child.due_s = now_s + pause_s
        when = f"in {pause_s:.0f} s" if pause_s >= 1 else "at once"
        log.warning("%s ended %s; it starts again %s", child.plan.name, _how(status), when)

    def _retire(self, name: str, child: Child) -> None:
        """Forget a child that is not wanted any more, but for what its channel still holds."""
        del self._children[name]
        self._board.release("process", name)
        child.release_rows(self._board)
        if child.ends:
            self._emptying[child.stream] = child.ends
        if child.deposits and child.deposit_end:
            self._selector.unregister(child.deposits)
            for deposit in child.deposits.kept:
                self._notifier.forget(f"{child.stream}.{deposit}")
            child.deposits.close()
            child.deposit_end.close()

    def _close_emptied(self) -> None:
        for stream, ends in list(self._emptying.items()):
            if _bytes_waiting(ends[1]) == 0:
                for end in ends:
                    end.close()
                del self._emptying[stream]

    def _murder_the_hung(self) -> None:
        now_s = time.monotonic()
        if now_s - self._turned_at_s > _PAUSED_AFTER_S:
            log.warning("the parent itself stood still for %.0f s", now_s - self._turned_at_s)
            self._patient_until_s = now_s + self._house.supervise.hung_after_s
        self._turned_at_s = now_s
        for child in self._children.values():
            if child.life is None:
                continue
            if child.stopping_at_s is not None and child.aborted_at_s is None:
                if now_s >= child.stopping_at_s:
                    child.life.send(signal.SIGKILL)
            elif child.aborted_at_s is not None:
                if now_s >= child.aborted_at_s + _ABORT_TO_KILL_S:
                    child.life.send(signal.SIGKILL)
            elif child.silent_for_s > self._house.supervise.hung_after_s and now_s >= self._patient_until_s:
                log.error("%s has hung for %.0f s; replacing it", child.plan.name, child.silent_for_s)
                child.vitals.add("hangs")
                child.life.send(signal.SIGABRT)
                child.aborted_at_s = now_s

    # ---- showing and sleeping

    def _show(self) -> None:
        for child in self._children.values():
            child.show()
        now_s = time.monotonic()
        if not self._ready and (
            all(child.beats for child in self._children.values()) or now_s > self._started_at_s + _READY_AT_LATEST_S
        ):
            self._ready = True
            self._notifier.ready(f"{len(self._children)} processes run")
            log.info("the house runs: %s", ", ".join(self._children))
        every_s = self._notifier.watchdog_interval_s
        if every_s is not None and now_s - self._told_alive_s >= every_s:
            self._told_alive_s = now_s
            self._notifier.alive()

    def _sleep(self) -> None:
        now_s = time.monotonic()
        waiting = [child.due_s for child in self._children.values() if child.wanted and child.life is None]
        pause_s = min([_TICK_S, *(max(0.0, due_s - now_s) for due_s in waiting)])
        if self._notifier.watchdog_interval_s is not None:
            pause_s = min(pause_s, self._notifier.watchdog_interval_s)
        if self._signals or not self._children:
            pause_s = 0.0
        for key, _ in self._selector.select(pause_s):
            if key.fileobj is self._wakeup_in:
                with contextlib.suppress(BlockingIOError):
                    while self._wakeup_in.recv(4096):
                        pass
            elif isinstance(key.fileobj, deposits.Deposits):
                self._take_deposits(key.fileobj, key.data)

    def _take_deposits(self, deposited: deposits.Deposits, child: Child) -> None:
        for name in deposited.receive():
            # systemd keeps every descriptor that it is given under a name; only the newest is of use.
            self._notifier.forget(f"{child.stream}.{name}")
            self._notifier.keep(f"{child.stream}.{name}", deposited.kept[name])


def _bytes_waiting(end: socket.socket) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(end, termios.FIONREAD, waiting)
    return waiting[0]


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status in CONFIGURATION_EXITS:
        return f"with status {status}: it cannot work with this configuration"
    return f"with status {status}"
