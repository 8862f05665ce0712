"""MQTT, for Home Assistant and whoever listens: the latest value of each metric, and what it means.

In the configuration, with the defaults:

    [outputs.mqtt]
    host = "127.0.0.1"          # where the broker listens
    port = 1883                 # 8883 is usual with TLS
    tls = false
    ca_file = ""                # the PEM file of the broker's own authority; "": those that the system trusts
    username = ""
    password_env = ""           # the environment variable that holds the password of `username`
    client_id = ""              # unique at the broker; "": wattherd-output-<site>
    topic_prefix = "wattherd"   # values are at <prefix>/<site>/<source>/<device>/<metric>
    discovery_prefix = "homeassistant"  # "": Home Assistant is told nothing
    expire_after_s = 120        # a value that is older is not shown as the present one; 0: none ever expires
    history_topic = ""          # "wattherd/history": every record is at wattherd/history/<source>/<device> too
    currency = ""               # of cost and rates, "GBP" say; "": they have no unit
    timeout_s = 10.0            # for the broker to confirm what it was sent

A value is `{"value":86.5,"time":"2025-11-11T12:00:00.123456Z","quality":"measured","clock":"synced"}`, in the unit of
its name. A topic shows the present: of what comes only the newest value of each metric is published, never one that is
older than what was published before, and after an absence nothing that has expired. All that is passed over counts as
delivered; with a `history_topic` each record is published there as well. Counters do not expire and are retained by the
broker, because the last count of a meter stays true; all other values are gone when they are old. Simulated devices are
below `<prefix>/<site>/simulated`. `<prefix>/<site>/status` is `online`, or `offline` when wattherd is gone.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from config.settings import NAME_PATTERN, OutputTable, Port, Positive, Site
from mqtt_helper import BrokerDown, Connection, Will, unfit
from reading import COUNTERS, Quality, Record, Value
from writer import Batch, Memo, Output, OutputDown, OutputRefused
from writer.clock import wall_minus_monotonic_ns
from writer.outputs._home_assistant import SENSORS, Device, Discovery

log = logging.getLogger("writer.outputs.mqtt")

_LOOK_S: Final = 1.0  # between two looks at what arrived while there is nothing to write
_LAST_RETRY_S: Final = 60.0
_FAREWELL_S: Final = 1.0
_MOST_IN_FLIGHT: Final = 200  # records of the history; a deadline is for so many
_MOST_AHEAD_NS: Final = 60 * 10**9  # of the clock: what was published so far in the future was dated by a wrong one
_FORGOTTEN_NS: Final = 30 * 86_400 * 10**9  # a metric that did not come for so long is no longer announced
_SHORTEST_EXPIRY_S: Final = 30  # on an SD card a reading is ten seconds old before any output has it
_TOPIC: Final = r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*"
# Where Home Assistant says that it has started, whatever prefix its discovery has.
_BIRTH: Final = "homeassistant/status"

_encode: Final = msgspec.json.Encoder().encode
_is_name: Final = re.compile(NAME_PATTERN).match
_News = dict[Device, dict[str, tuple[int, Record]]]  # of each metric: where in the batch it is newest


class Options(OutputTable, frozen=True):
    """`[outputs.mqtt]`"""

    host: Annotated[str, Meta(pattern=r"^\S+\Z")] = "127.0.0.1"
    port: Port = 1883
    tls: bool = False
    ca_file: str = ""
    username: str = ""
    password_env: str = ""
    client_id: Annotated[str, Meta(pattern=r"^[!-~]*\Z", max_length=128)] = ""
    topic_prefix: Annotated[str, Meta(pattern=rf"^{_TOPIC}\Z", max_length=100)] = "wattherd"
    discovery_prefix: Annotated[str, Meta(pattern=rf"^({_TOPIC})?\Z", max_length=100)] = "homeassistant"
    expire_after_s: Annotated[int, Meta(ge=0, le=31_536_000)] = 120
    history_topic: Annotated[str, Meta(pattern=rf"^({_TOPIC})?\Z", max_length=100)] = ""
    currency: Annotated[str, Meta(pattern=r"^([A-Z]{3})?\Z")] = ""
    timeout_s: Positive = 10.0

    def __post_init__(self) -> None:
        if mistake := unfit(self):
            raise ValueError(mistake)
        if 0 < self.expire_after_s < _SHORTEST_EXPIRY_S:
            raise ValueError(
                f"expire_after_s is at least {_SHORTEST_EXPIRY_S}, or 0 for never: a reading takes so long"
            )


class Mqtt(Output):
    """Keeps a connection, also while there is nothing to write: else the broker would tell that wattherd is gone.

    The memo has the time of each metric that was published. So a successor shows nothing older, and announces a device
    with all that it has: an announcement that lacks a metric takes its sensor away.
    """

    Options = Options

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        super().__init__(options, site, memo)
        self._discovery = Discovery(site.name, options.topic_prefix, options.expire_after_s, options.currency)
        self._client_id = options.client_id or f"{options.topic_prefix}-output-{site.name}".replace("/", "-")
        self._births = {_BIRTH, f"{options.discovery_prefix}/status"} if options.discovery_prefix else set()
        # Guards all that follows: the keeper serves the connection between two batches.
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._seen: dict[Device, frozenset[str]] = {}  # since the start; the metrics that were announced last
        self._owing = False  # a batch was not delivered, and its next try brings the connection back
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    def write(self, batch: Batch) -> None:
        refused: dict[int, str] = {}
        news = _newest(batch, refused)
        try:
            self._owing = True
            with self._connected() as connection:
                published = self._publish_news(connection, news, refused)
                _flush(connection, self.options.timeout_s)
                if self.options.history_topic:
                    self._publish_history(connection, batch, refused)
                self._note(published)
            self._owing = False
        except BrokerDown as down:
            if down.lasting:
                raise OutputDown(down.what, remedy=down.what_now) from down
            raise OutputDown(str(down)) from down
        self._start_keeper()
        if refused:
            raise OutputRefused(next(iter(refused.values())), refused)

    def close(self) -> None:
        self._closing.set()
        if self._keeper is not None:
            self._keeper.join()
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(BrokerDown):
                    self._connection.publish(self._discovery.status_topic, b"offline", retain=True)
                    self._connection.flush(_FAREWELL_S)
            self._drop()

    def _publish_news(self, connection: Connection, news: _News, refused: dict[int, str]) -> dict[str, int]:
        """Publish what is newer than what is there and not too old; return the times to note."""
        now_ns = time.monotonic_ns() + wall_minus_monotonic_ns()
        published: dict[str, int] = {}
        for device, metrics in news.items():
            payloads: dict[str, bytes] = {}
            for metric, (index, record) in metrics.items():
                key = f"{device.path}/{metric}"
                if not self._is_news(key, metric, record.time_ns, now_ns):
                    continue
                try:
                    payloads[metric] = _state(record, metric)
                except (ValueError, OverflowError) as error:
                    refused[index] = f"{metric} of {record.device} cannot be told: {error}"
                    continue
                published[key] = record.time_ns
            if payloads:
                self._announce(connection, device, self._known(device) | payloads.keys())
            for metric, payload in payloads.items():
                topic = self._discovery.state_topic(device, metric)
                connection.publish(topic, payload, qos=1, retain=metric in COUNTERS)
        return published

    def _is_news(self, key: str, metric: str, time_ns: int, now_ns: int) -> bool:
        """Whether a value is newer than the one that is shown, and new enough to be shown as the present one."""
        shown_ns = self.memo.get(key)
        if shown_ns is not None and time_ns < shown_ns <= now_ns + _MOST_AHEAD_NS:
            return False
        expires_ns = self.options.expire_after_s * 10**9
        return metric in COUNTERS or not expires_ns or now_ns - time_ns <= expires_ns

    def _publish_history(self, connection: Connection, batch: Batch, refused: dict[int, str]) -> None:
        """Publish every record, oldest first, with its time."""
        for index, record in enumerate(batch):
            if index in refused:
                continue
            try:
                payload = _whole(record)
            except (ValueError, OverflowError) as error:
                refused[index] = f"a record of {record.device} cannot be told: {error}"
                continue
            connection.publish(f"{self.options.history_topic}/{record.source}/{record.device}", payload, qos=1)
            if index % _MOST_IN_FLIGHT == _MOST_IN_FLIGHT - 1:
                _flush(connection, self.options.timeout_s)
        _flush(connection, self.options.timeout_s)

    def _note(self, published: Mapping[str, int]) -> None:
        self.memo.update(published)
        if published:
            long_ago_ns = max(published.values()) - _FORGOTTEN_NS
            for key in [key for key, time_ns in self.memo.items() if time_ns < long_ago_ns]:
                del self.memo[key]

    def _known(self, device: Device) -> frozenset[str]:
        """Every metric that a device is known to have."""
        path = f"{device.path}/"
        metrics = {key.removeprefix(path) for key in self.memo if key.startswith(path)}
        return frozenset(metrics & SENSORS.keys())

    def _announce(self, connection: Connection, device: Device, metrics: frozenset[str]) -> None:
        """Tell Home Assistant what a device has, if it is not what was told last."""
        if self._seen.get(device) == metrics:
            return
        if self.options.discovery_prefix:
            topic = f"{self.options.discovery_prefix}/device/{self._discovery.device_id(device)}/config"
            connection.publish(topic, _encode(self._discovery.config(device, metrics)), qos=1, retain=True)
        self._seen[device] = metrics

    def _announce_all(self, connection: Connection) -> None:
        """Tell again of every device that reported since the start; of others nobody knows whether they still exist."""
        for device, metrics in list(self._seen.items()):
            self._seen[device] = frozenset()
            self._announce(connection, device, metrics)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The connection, made if there is none, and given up when anything goes wrong with it."""
        with self._lock:
            try:
                yield self._connection or self._connect()
            except BaseException:
                self._drop()
                raise

    def _connect(self) -> Connection:
        status = self._discovery.status_topic
        connection = self._connection = Connection(self.options, self._client_id, will=Will(status, b"offline"))
        connection.open([status, *sorted(self._births)])
        if connection.refused:
            log.warning("%s does not let us hear %s: let it", connection.where, ", ".join(connection.refused))
        connection.publish(status, b"online", qos=1, retain=True)
        self._announce_all(connection)
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _start_keeper(self) -> None:
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._keep, name="keeper of the MQTT connection", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Until the end: look at what arrived, and bring the connection back if nobody else does."""
        pause_s = _LOOK_S
        while not self._closing.wait(pause_s):
            if self._owing:
                continue
            try:
                with self._connected() as connection:
                    self._serve(connection)
                pause_s = _LOOK_S
            except BrokerDown:
                pause_s = min(2 * pause_s, _LAST_RETRY_S)  # the next batch says what is wrong

    def _serve(self, connection: Connection) -> None:
        """Answer what arrived: a start of Home Assistant, and somebody who says that we are gone."""
        messages = connection.run(0.0)
        connection.acknowledge(messages)
        for message in messages:
            if message.retained:
                continue  # it was there before us, and we have told everything since
            if message.topic in self._births and message.payload == b"online":
                self._announce_all(connection)
            elif message.topic == self._discovery.status_topic and message.payload == b"offline":
                # The will of an earlier connection of ours, which the broker gave up only now.
                connection.publish(message.topic, b"online", qos=1, retain=True)


def _newest(batch: Iterable[Record], refused: dict[int, str]) -> _News:
    """Find the newest value of each metric of each device; note why which record can be in no topic."""
    news: _News = {}
    for index, record in enumerate(batch):
        device = Device(record.source, record.device, record.quality is Quality.SIMULATED)
        newest = news.get(device)
        if newest is None:
            if not _is_name(record.source) or not _is_name(record.device):
                refused[index] = f"{record.source!r} and {record.device!r} make no topic"
                continue
            newest = news[device] = {}
        for metric, value in record.values.items():
            if metric in SENSORS and _can_be_shown(metric, value):
                known = newest.get(metric)
                if known is None or known[1].time_ns <= record.time_ns:
                    newest[metric] = (index, record)
    return news


def _can_be_shown(metric: str, value: Value) -> bool:
    """Whether a value is what its metric promises: text for the state, finite numbers for all others."""
    if metric == "state" or isinstance(value, str):
        return metric == "state" and isinstance(value, str) and value != ""
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _state(record: Record, metric: str) -> bytes:
    """Tell one value.

    >>> _state(Record("kasa", "fridge", 1_762_862_400_123_456_789, {"power_w": 86.5}), "power_w")
    b'{"value":86.5,"time":"2025-11-11T12:00:00.123456Z","quality":"measured","clock":"synced"}'
    """
    return _encode(
        {
            "value": record.values[metric],
            "time": _utc(record.time_ns),
            "quality": record.quality,
            "clock": record.clock,
        }
    )


def _whole(record: Record) -> bytes:
    """Tell a whole record.

    >>> _whole(Record("roof", "pv", 0, {"pulse": "generate"}))
    b'{"time":"1970-01-01T00:00:00.000000Z","values":{"pulse":"generate"},"quality":"measured","clock":"synced"}'
    """
    return _encode(
        {"time": _utc(record.time_ns), "values": record.values, "quality": record.quality, "clock": record.clock}
    )


def _utc(time_ns: int) -> str:
    seconds, rest_ns = divmod(time_ns, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"no calendar has the time {time_ns} ns") from error
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _flush(connection: Connection, timeout_s: float) -> None:
    if not connection.flush(timeout_s):
        what = f"{connection.where} did not confirm within {timeout_s:g} s what it was sent"
        raise BrokerDown(what, "see that it is not overloaded; the same comes again by itself")
