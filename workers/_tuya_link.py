"""The one connection to one Tuya device: reaches it, keeps it, asks it, and lets no other connection wait for it.

Nothing here blocks. `tend()` does what is due and says when to come again, `receive()` takes what has arrived.
"""

from __future__ import annotations

import enum
import errno
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from workers._tuya_session import VERSIONS, Broken, Driver, Fault, Heard, Session
from workers._tuya_words import trouble_of

PORT: Final = 6668
_MOST_HOSTS: Final = 4  # that claim to be one device
_MOST_BYTES: Final = 4096  # a turn
_MOST_MESSAGES: Final = 300  # between two questions
# What says most about a device that was tried in every version.
_BY_WEIGHT: Final = (Fault.FLOODS, Fault.KEY, Fault.SILENT, Fault.HANGS_UP, Fault.DAMAGED, Fault.VERSION)
_LOST_TO_REFRESH: Final = 2  # connections, before a device is no longer asked to measure anew
_DOUBTED_AFTER: Final = 2  # failures in a row, before another version is tried than the one that worked


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what."""

    interval_s: float = 10.0
    timeout_s: float = 5.0
    longest_pause_s: float = 60.0
    beat_s: float = 9.0  # devices hang up after some 30 s without a word
    measure_s: float = 0.5  # what a device takes to measure anew
    probe_s: float = 2.0  # for an answer, while versions are tried for the first time
    free_again_s: float = 0.5  # what a device takes to notice that a connection has ended
    found_within_s: float = 20.0  # devices tell where they are every 5 s or so
    mute_after_s: float = 300.0  # a device that is there and tells nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to reach, and how."""

    device_id: str
    key: str = field(repr=False)
    host: str = ""  # "": wherever it says to be
    version: str = "auto"
    cids: tuple[str, ...] = ()
    dps: Callable[[], Sequence[int]] = lambda: ()  # the data points that are wanted


class _Step(enum.Enum):
    WAITING = "waiting"
    CONNECTING = "connecting"
    AGREEING = "agreeing"
    READY = "ready"


class Link:
    """One device, from one failure to the next."""

    def __init__(  # noqa: PLR0917, RUF100 - what it is made of
        self,
        plan: Plan,
        patience: Patience,
        driver: Driver,
        selector: selectors.BaseSelector,
        refused: Counter[str],
        heed: Callable[[Heard], None],
    ) -> None:
        self.plan = plan
        self.version = ""  # the one that worked last
        self.trouble = ""
        self.connections = 0
        self.answers = 0
        self.has_told = False  # anything, on this connection
        self._patience = patience
        self._driver = driver
        self._selector = selector
        self._refused = refused
        self._heed = heed
        self._hosts = [plan.host] if plan.host else []
        self._step = _Step.WAITING
        self._socket: socket.socket | None = None
        self._session: Session | None = None
        self._begun_s = 0.0
        self._due_s = 0.0  # when to connect, or when to give up
        self._round_s = 0.0  # when to ask again
        self._query_s: float | None = None  # when to ask for what is being measured
        self._beat_s = 0.0
        self._answer_by_s: float | None = None
        self._data_by_s = 0.0
        self._data_s: float | None = None  # when it told something last
        self._heard_since_round = 0
        self._failures = 0  # rounds of attempts in a row
        self._hint = ""  # the version that it claims
        self._doubted = False  # whether the version that worked is still right
        self._untried: list[str] = []  # versions of this round of attempts
        self._faults: list[Fault] = []  # of this round of attempts
        self._trying = ""
        self._patient_s = patience.timeout_s  # with this attempt
        self._refreshing = False
        self._lost_to_refresh = 0

    def begin(self, now_s: float, *, version: str = "", host: str = "", hint: str = "") -> None:
        """Start with what worked in earlier times, and with what others say about its version."""
        self.version = version if version in self._allowed else ""
        if host:
            self.suggest(host, version)
        self._hint = self.version or hint
        self._begun_s = self._due_s = now_s

    def suggest(self, host: str, version: str) -> None:
        """Take a claim that the device is at `host`: it is believed when its key has been proven there."""
        if self.plan.host:
            return
        self._hint = version
        if host in self._hosts:
            return
        if not self._hosts:
            self._due_s = 0.0
        # Behind the one that is in use: a false claim must not displace a true one, nor stop a device that has moved.
        self._hosts = [*self._hosts[:1], host, *self._hosts[1:]][:_MOST_HOSTS]

    @property
    def host(self) -> str:
        return self._hosts[0] if self._hosts else ""

    def tend(self, now_s: float) -> float:
        """Do what is due; return when something will be."""
        match self._step:
            case _Step.WAITING:
                return self._wait(now_s)
            case _Step.CONNECTING:
                if now_s >= self._due_s:
                    self._fail(Fault.ABSENT, now_s)
                return self._due_s
            case _Step.AGREEING:
                if now_s >= self._due_s:
                    self._fail(Fault.SILENT, now_s)
                return self._due_s
            case _Step.READY:
                return self._converse(now_s)

    def receive(self, now_s: float) -> None:
        """Take what has arrived, or that the connection is there, or gone."""
        if self._step is _Step.CONNECTING:
            self._greet(now_s)
            return
        if self._socket is None or self._session is None:
            return
        try:
            data = self._socket.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            if not data:
                raise Broken(Fault.HANGS_UP)
            heard, answer = self._session.feed(data)
            self._send(answer)
            self._take(heard, now_s)
        except Broken as broken:
            self._fail(broken.fault, now_s)
            return
        if self._step is _Step.AGREEING and self._session.is_ready:
            self._be_ready(now_s)

    def drop(self, now_s: float) -> None:
        """Let go of the connection and what is still in it, connect again and ask at once."""
        self._hang_up()
        self._data_s = None
        self._due_s = now_s + self._patience.free_again_s

    def close(self) -> None:
        self._hang_up()

    @property
    def _allowed(self) -> tuple[str, ...]:
        """The versions that it may speak. 3.1 proves no key: it is not for a mere claim, nor after something better."""
        if self.plan.version != "auto":
            return (self.plan.version,)
        return VERSIONS if self.plan.host and self.version in ("", "3.1") else VERSIONS[:-1]

    @property
    def _to_try(self) -> list[str]:
        if self.version and not self._doubted:
            return [self.version]
        first = [one for one in (self.version, self._hint) if one in self._allowed]
        return [*dict.fromkeys((*first, *self._allowed))]

    def _wait(self, now_s: float) -> float:
        if not self.host:
            found_by_s = self._begun_s + self._patience.found_within_s
            if now_s >= found_by_s:
                self.trouble = trouble_of(None, "", self._allowed, was_well=bool(self.version))
                return now_s + self._patience.found_within_s
            return found_by_s
        if now_s < self._due_s:
            return self._due_s
        self._connect(now_s)
        return self._due_s

    def _connect(self, now_s: float) -> None:
        if not self._untried:
            self._untried = self._to_try
            probing = len(self._untried) > 1 and not self._failures
            self._patient_s = min(self._patience.timeout_s, self._patience.probe_s if probing else 60.0)
        self._trying = self._untried.pop(0)
        self.connections += 1
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._step, self.has_told = _Step.CONNECTING, False
        self._due_s = now_s + self._patient_s
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex((self.host, PORT))
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code not in (0, errno.EINPROGRESS):
            self._fail(_fault_of(code), now_s)
            return
        self._selector.register(self._socket, selectors.EVENT_WRITE, self)

    def _greet(self, now_s: float) -> None:
        """The connection is there, or it is known why not."""
        if self._socket is None:
            return
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(_fault_of(code), now_s)
            return
        self._selector.modify(self._socket, selectors.EVENT_READ, self)
        self._session = Session(self._driver, self.plan.device_id, self.plan.key, self._trying, self.plan.cids)
        try:
            self._send(self._session.hello())
        except Broken as broken:
            self._fail(broken.fault, now_s)
            return
        self._step, self._due_s = _Step.AGREEING, now_s + self._patient_s
        if self._session.is_ready:
            self._be_ready(now_s)

    def _be_ready(self, now_s: float) -> None:
        self._step = _Step.READY
        told_s = self._data_s
        self._round_s = now_s if told_s is None else max(now_s, told_s + self._patience.interval_s)
        self._beat_s = now_s + self._patience.beat_s
        self._data_by_s = now_s + 2 * self._patient_s
        self._query_s = self._answer_by_s = None

    def _converse(self, now_s: float) -> float:
        """Ask what is to be asked, and see that answers come."""
        try:
            self._judge_silence(now_s)
            if now_s >= self._round_s:
                self._begin_round(now_s)
            if self._query_s is not None and now_s >= self._query_s:
                self._query(now_s)
            if now_s >= self._beat_s:
                self._beat_s = now_s + self._patience.beat_s
                self._say(self._session.beat() if self._session else b"", now_s)
        except Broken as broken:
            self._fail(broken.fault, now_s)
            return self._due_s
        dues = (self._round_s, self._query_s, self._beat_s, self._answer_by_s, self._data_by_s)
        return min(due for due in dues if due is not None)

    def _judge_silence(self, now_s: float) -> None:
        if self._answer_by_s is not None and now_s >= self._answer_by_s:
            raise Broken(Fault.SILENT)
        if now_s < self._data_by_s:
            return
        if self._session is None or not self._session.is_proven:
            raise Broken(Fault.SILENT)  # it says something, and nothing that proves anything
        self._data_by_s = now_s + self._patience.mute_after_s
        if now_s - (self._begun_s if self._data_s is None else self._data_s) >= self._patience.mute_after_s:
            self.trouble = trouble_of(Fault.MUTE, self.host, self._allowed, was_well=True)

    def _begin_round(self, now_s: float) -> None:
        """Have it measure anew, if it can; then it is asked for the numbers."""
        self._round_s += self._patience.interval_s * (1 + (now_s - self._round_s) // self._patience.interval_s)
        self._heard_since_round = 0
        hurts = self._lost_to_refresh >= _LOST_TO_REFRESH or (not self.version and self._failures % 2 == 1)
        if self._session is None or self._trying == "3.1" or hurts:
            self._query_s = now_s
            return
        self._refreshing = True
        self._query_s = now_s + min(self._patience.measure_s, self._patience.interval_s / 2)
        self._say(self._session.refresh([*self.plan.dps()]), now_s)

    def _query(self, now_s: float) -> None:
        self._query_s = None
        if self._session:
            self._say(self._session.query([*self.plan.dps()]), now_s)

    def _say(self, data: bytes, now_s: float) -> None:
        self._send(data)
        if self._answer_by_s is None:
            self._answer_by_s = now_s + self._patient_s

    def _send(self, data: bytes) -> None:
        """A question fits into any socket's buffer, unless nobody reads at the other end."""
        if not data or self._socket is None:
            return
        try:
            if self._socket.send(data) == len(data):
                return
        except BlockingIOError as error:
            raise Broken(Fault.SILENT) from error
        except OSError as error:
            raise Broken(Fault.HANGS_UP) from error
        raise Broken(Fault.SILENT)

    def _take(self, heard: Sequence[Heard], now_s: float) -> None:
        if not heard or self._session is None:
            return
        self._answer_by_s = None
        self._heard_since_round += len(heard)
        if self._heard_since_round > _MOST_MESSAGES:
            self._refused["too_many"] += 1
            raise Broken(Fault.FLOODS)
        if self._session.wants_again:
            self._query_s = now_s
        for message in heard:
            if message.malformed or message.is_stranger:
                self._refused["malformed" if message.malformed else "unknown_device"] += 1
                continue
            if not message.dps:
                continue
            self._note_success(now_s)
            self._heed(message)
            if self._query_s is not None:  # it has measured: no need to wait any longer
                self._query_s = now_s

    def _note_success(self, now_s: float) -> None:
        """It tells something: the version is right, and the key and the host with it."""
        self.answers += 1
        self.version, self._doubted = self._trying, False
        self.trouble = ""
        if self._refreshing:
            self._lost_to_refresh = 0
        self.has_told, self._refreshing = True, False
        self._data_s, self._data_by_s = now_s, now_s + self._patience.mute_after_s
        self._failures = 0
        self._faults, self._untried = [], []

    def _fail(self, fault: Fault, now_s: float) -> None:
        if fault is Fault.DAMAGED:
            self._refused["malformed"] += 1
        if self._refreshing and fault is Fault.HANGS_UP and self._trying == self.version:
            self._lost_to_refresh += 1
        had_told = self.has_told
        self._hang_up()
        self._faults.append(fault)
        is_there = fault not in (Fault.ABSENT, Fault.REFUSES)
        if self._untried and is_there:
            self._due_s = now_s + self._patience.free_again_s
            return
        pause_s = min(2.0 ** min(self._failures, 30), self._patience.longest_pause_s)
        if fault is Fault.FLOODS:
            pause_s = self._patience.longest_pause_s
        elif had_told:  # that a connection ends once is chance
            pause_s = 0.0
        if fault is Fault.FLOODS or not had_told:
            self._failures += 1
            shown = next((one for one in _BY_WEIGHT if one in self._faults), fault)
            self.trouble = trouble_of(shown, self.host, self._allowed, was_well=bool(self.version))
            self._hosts = [*self._hosts[1:], *self._hosts[:1]]
        self._faults, self._untried = [], []
        # New firmware may speak another version.
        self._doubted = is_there and self._failures >= _DOUBTED_AFTER
        self._due_s = now_s + max(pause_s, self._patience.free_again_s)

    def _hang_up(self) -> None:
        if self._socket is not None:
            try:
                self._selector.unregister(self._socket)
            except (KeyError, ValueError):  # it never came so far
                pass
            self._socket.close()
        self._socket = self._session = None
        self._step = _Step.WAITING
        self._refreshing = False


def _fault_of(code: int) -> Fault:
    if code == errno.ECONNREFUSED:
        return Fault.REFUSES
    return Fault.HANGS_UP if code == errno.ECONNRESET else Fault.ABSENT
