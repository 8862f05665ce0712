"""A source at a real broker, as the runtime runs it; for the tests of the sources that listen to one."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import paho.mqtt.client as paho

from reading import Reading
from tests.peers.mosquitto import Mosquitto
from workers import Source

STATE = "wattherd/pulse/esp32-meter/state"  # where an ESP32 publishes

S = TypeVar("S", bound=Source)


@contextlib.contextmanager
def opened(source: S) -> Iterator[S]:
    try:
        source.open()
        yield source
    finally:
        source.close()


@contextlib.contextmanager
def kept_by_the_parent() -> Iterator[dict[str, int]]:
    """What a worker deposits; put it into `source.kept` of its successor."""
    kept: dict[str, int] = {}
    try:
        yield kept
    finally:
        for descriptor in kept.values():
            os.close(descriptor)


def read_until(
    source: Source, done: Callable[[list[Reading]], object], within_s: float = 20.0, *, pause_s: float = 0.0
) -> list[Reading]:
    """Read as the runtime does, until `done`."""
    readings: list[Reading] = []
    ends_s = time.monotonic() + within_s
    while not done(readings):
        assert time.monotonic() < ends_s, (readings, source.refused, source.troubles)
        readings += source.read()
        time.sleep(pause_s)
    return readings


def count(number: int) -> Callable[[list[Reading]], bool]:
    """Until there are so many readings."""
    return lambda readings: len(readings) >= number


def settled(source: Source, broker: Mosquitto, topic: str = STATE) -> list[Reading]:
    """Read until everything that the broker had for the source so far has been taken and acknowledged."""
    before = source.refused["too_large"]
    broker.publish(topic, b"x" * 17_000)
    readings = read_until(source, lambda _: source.refused["too_large"] > before)
    return readings + source.read()


def pulses(number: int, **more: Any) -> bytes:
    """What an ESP32 says."""
    return json.dumps({"device": "esp32-meter", "boot": "b00t", "seq": number, "pulses_total": number, **more}).encode()


class Esp32:
    """Publishes numbered messages with QoS 1, as fast as the broker says that it has them."""

    def __init__(self, broker: Mosquitto, **more: Any) -> None:
        self.published = 0
        self._more = more  # that each message says
        self._broker = broker
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._publish_all)
        self._thread.start()

    def finish(self) -> None:
        self._leaving.set()
        self._thread.join(40)
        assert not self._thread.is_alive()

    def _publish_all(self) -> None:
        with self._broker.client() as client:
            client.reconnect_delay_set(1, 1)
            while not self._leaving.wait(0.005):
                self._publish(client, pulses(self.published + 1, **self._more))
                self.published += 1

    def _publish(self, client: paho.Client, message: bytes) -> None:
        """Publish until the broker says that it has it: the same message again, as a device does."""
        while True:
            with contextlib.suppress(RuntimeError):  # there is no connection just now
                sent = client.publish(STATE, message, qos=1)
                sent.wait_for_publish(30)
                if sent.is_published():
                    return
            time.sleep(0.05)
