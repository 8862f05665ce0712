"""What the sources that listen at an MQTT broker share: their table, the connection, and when a message is given up."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

from msgspec import Meta, structs

from config.settings import Port, SourceTable
from mqtt_helper import MOST_TOPIC_BYTES, BrokerDown, Connection, Message, Will, unfit
from reading import Reading
from workers import SourceError
from workers._fence import Fence, Memory

MOST_PAYLOAD_BYTES: Final = 16 * 1024
_ROUND_S: Final = 1.0
_MOST_A_ROUND: Final = 64  # messages: with 200 readings each they still fit into the backlog of the channel
_MOST_STRANGERS: Final = 1000  # topics
_MOST_TOLD: Final = 20
_MOST_SHOWN: Final = 80  # characters of a topic, in words
_MEMORY: Final = "fence"  # the name of what is deposited
_FAREWELL_S: Final = 0.5

T = TypeVar("T")


class BrokerTable(SourceTable, frozen=True, kw_only=True):
    """What `[sources.<name>]` of a source at a broker has."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Port = 1883
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password_env: str = ""
    client_id: Annotated[str, Meta(max_length=128)] = ""
    keep_session: bool = True

    def __post_init__(self) -> None:
        if mistake := unfit(self):
            raise ValueError(mistake)
        if self.client_id and not self.client_id.isprintable():
            raise ValueError("client_id has characters that cannot be shown: use letters, digits and -")


class Arrived(NamedTuple):
    """One message, and what is known of its age."""

    topic: str
    payload: bytes
    retained: bool
    repeated: bool  # we, or a predecessor of this process, may have had it before
    fresh: bool  # it was published just now; otherwise it waited somewhere, nobody knows for how long
    at_ns: int  # CLOCK_MONOTONIC


class Routes(Generic[T]):
    """Who wants what: filters, and those who subscribed to them."""

    def __init__(self) -> None:
        self._exact: dict[str, list[T]] = {}
        self._patterns: dict[str, list[T]] = {}

    @property
    def filters(self) -> list[str]:
        return [*self._exact, *self._patterns]

    def add(self, topic_filter: str, taker: T) -> None:
        where = self._patterns if {*topic_filter} & {*"+#"} else self._exact
        takers = where.setdefault(topic_filter, [])
        if taker not in takers:
            takers.append(taker)

    def takers(self, topic: str) -> list[T]:
        found = [*self._exact.get(topic, [])]
        for pattern, takers in self._patterns.items():
            if matches(pattern, topic):
                found += [taker for taker in takers if taker not in found]
        return found

    def takers_of(self, topic_filter: str) -> list[T]:
        return self._exact.get(topic_filter, self._patterns.get(topic_filter, []))


class Listener:
    """One session at a broker. What `take()` returned is acknowledged by the next `take()`, and not before."""

    def __init__(
        self,
        source: str,
        table: BrokerTable,
        refused: Counter[str],
        *,
        keep_session: bool,
        stale_after_s: float = 0.0,
        status_topic: str = "",
    ) -> None:
        client_id = table.client_id or own_client_id(source, keep_session=keep_session)
        self.fence = Fence(f"wattherd/fence/{client_id}", stale_after_s)
        self._keep_session = keep_session
        self._session = f"{table.host}\n{table.port}\n{table.username}\n{client_id}"
        self._status_topic = status_topic
        self._refused = refused
        self._log = logging.getLogger(source)
        will = Will(status_topic, b"offline") if status_topic else None
        self._connection = Connection(table, client_id, keep_session=keep_session, will=will)
        self._fenced = bool(stale_after_s)
        self._memory: Memory | None = None
        self._arrived: deque[Message] = deque()
        self._waiting: list[Message] = []
        self._strangers: set[str] = set()
        self._filters: list[str] = []

    @property
    def refused_filters(self) -> list[str]:
        """What the broker does not let us hear."""
        return self._connection.refused

    @property
    def is_unfenced(self) -> bool:
        """Whether the broker keeps our markers to itself, so that nothing can be known of the age of messages."""
        return self.fence.topic in self._connection.refused or self.fence.is_open(time.monotonic_ns())

    def open(self, filters: list[str], kept: dict[str, int], deposit: Callable[[str, int], None]) -> None:
        """Connect and subscribe. Raise `SourceError`."""
        if self._keep_session and self._fenced:
            self._remember(kept, deposit)
        self._filters = filters
        before_ns = time.monotonic_ns()
        try:
            self._connection.open([*filters, self.fence.topic] if self._fenced else filters)
            if self._status_topic:
                self._connection.publish(self._status_topic, b"online", retain=True)
        except BrokerDown as down:
            raise self._lost(down) from down
        known_ns = self._memory.load() if self._memory else None
        self.fence.connected(before_ns, known_ns if self._connection.session_kept else before_ns)

    def take(self) -> list[Arrived]:
        """Acknowledge what the last call returned; return what came, as soon as something did. Raise `SourceError`."""
        try:
            self._acknowledge()
            if marker := self.fence.marker(time.monotonic_ns()):
                self._connection.publish(self.fence.topic, marker)
            if not self._arrived:
                self._arrived += self._connection.run(_ROUND_S)
        except BrokerDown as down:
            raise self._lost(down) from down
        return self._admitted()

    def stranger(self, topic: str) -> None:
        """Count a topic that nobody wants, once; have the broker send no more of it if we never asked for it."""
        if topic in self._strangers or len(self._strangers) >= _MOST_STRANGERS:
            return
        self._strangers.add(topic)
        self._refused["unknown_device"] += 1
        if not bad_topic(topic, wildcards=False) and not any(matches(each, topic) for each in self._filters):
            self._connection.unsubscribe([topic])  # an older configuration asked for it, and the broker remembers
        if len(self._strangers) <= _MOST_TOLD:
            more = "; further ones are only counted" if len(self._strangers) == _MOST_TOLD else ""
            words = "no device is configured for the topic %s: add one, or let nothing publish there%s"
            self._log.warning(words, shown(topic), more)

    def close(self) -> None:
        """Take leave. What is not acknowledged comes again."""
        if self._status_topic:
            try:
                self._connection.publish(self._status_topic, b"offline", retain=True)
                self._connection.flush(_FAREWELL_S)
            except BrokerDown:
                pass  # then the broker says it for us
        self._connection.close()
        self._arrived.clear()
        self._waiting = []

    def _admitted(self) -> list[Arrived]:
        admitted: list[Arrived] = []
        while self._arrived and len(admitted) < _MOST_A_ROUND:
            message = self._arrived.popleft()
            self._waiting.append(message)
            if message.topic == self.fence.topic:
                self.fence.pass_by(message.payload, repeated=message.repeated)
            elif len(message.payload) > MOST_PAYLOAD_BYTES:
                self._refused["too_large"] += 1
            else:
                now_ns = time.monotonic_ns()
                admitted.append(Arrived(*message[:4], self.fence.is_fresh(now_ns), now_ns))
        return admitted

    def _acknowledge(self) -> None:
        """Let the broker forget the messages of the last round: that there is a next one says that they are safe."""
        waiting, self._waiting = self._waiting, []
        self._connection.acknowledge(waiting)
        if self._memory and not self._arrived and self.fence.younger_than_ns is not None:
            self._memory.note(self.fence.younger_than_ns)

    def _lost(self, down: BrokerDown) -> SourceError:
        if self._memory:
            self._memory.forget()
        return SourceError(down.what, down.what_now)

    def _remember(self, kept: dict[str, int], deposit: Callable[[str, int], None]) -> None:
        if self._memory:
            return
        if _MEMORY in kept:
            self._memory = Memory(kept[_MEMORY], self._session)
        else:
            self._memory = Memory.new(self._session)
            kept[_MEMORY] = self._memory.descriptor
            deposit(_MEMORY, self._memory.descriptor)


def may_be_booked(reading: Reading, arrived: Arrived) -> bool:
    """Whether it is known when it was measured, and that it is booked once, however long its message waited.

    >>> from reading import Origin
    >>> late = Arrived("t", b"", retained=False, repeated=True, fresh=False, at_ns=0)
    >>> origins = (None, Origin("b", 1), Origin("b", 1, 10**18))
    >>> [may_be_booked(Reading("a", 0, {}, origin=origin), late) for origin in origins]
    [False, False, True]
    """
    origin = reading.origin
    numbered, dated = bool(origin and origin.boot), bool(origin and origin.time_ns)
    return (numbered or not arrived.repeated) and (dated or arrived.fresh)


def as_it_came(reading: Reading, arrived: Arrived) -> Reading:
    """Say of a reading whether it waited on the way, so that nobody takes it for new if its date is not believed."""
    if arrived.fresh or reading.origin is None:
        return reading
    return structs.replace(reading, origin=structs.replace(reading.origin, late=True))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic is one of those that a filter stands for (MQTT 3.1.1, 4.7).

    >>> [matches(each, "tele/plug/SENSOR") for each in ("tele/plug/SENSOR", "tele/+/SENSOR", "tele/#", "#", "tele/+")]
    [True, True, True, True, False]
    >>> matches("tele/plug/#", "tele/plug"), matches("#", "$SYS/uptime"), matches("+/uptime", "$SYS/uptime")
    (True, False, False)
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number == len(levels) or level not in ("+", levels[number]):
            return False
    return len(wanted) == len(levels)


def bad_topic(topic: str, *, wildcards: bool) -> str:
    """Say what is wrong with a topic or a filter, or nothing.

    >>> bad_topic("tele/plug", wildcards=False), bad_topic("tele/+/SENSOR", wildcards=True)
    ('', '')
    >>> bad_topic("tele/+", wildcards=False)
    'has a wildcard (+ or #), and must name one thing'
    >>> bad_topic("tele/a#", wildcards=True)
    'has a wildcard that does not stand alone between its slashes, or a # that is not the last'
    """
    if not topic or len(topic.encode("utf-8", "replace")) > MOST_TOPIC_BYTES:
        return f"is empty or longer than {MOST_TOPIC_BYTES} bytes"
    if not topic.isprintable():
        return "has characters that cannot be shown"
    if not wildcards:
        return "has a wildcard (+ or #), and must name one thing" if re.search("[+#]", topic) else ""
    levels = topic.split("/")
    if any(len(level) > 1 and re.search("[+#]", level) for level in levels) or "#" in levels[:-1]:
        return "has a wildcard that does not stand alone between its slashes, or a # that is not the last"
    return ""


def own_client_id(source: str, *, keep_session: bool) -> str:
    """Name this source at the broker: the same after a restart, another one on another machine.

    A session that is not kept needs no name that stays, and must not take the place of the house's own.
    """
    if not keep_session:
        return f"wattherd-{source}-{secrets.token_hex(4)}"
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
    try:
        machine = Path("/etc/machine-id").read_bytes()
    except OSError:
        machine = b""
    return f"wattherd-{source}-{host}-{hashlib.sha256(b'wattherd' + machine).hexdigest()[:6]}"


def shown(topic: str) -> str:
    return topic if len(topic) <= _MOST_SHOWN else f"{topic[:_MOST_SHOWN]}…"
