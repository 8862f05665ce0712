"""How old a message is, and how often it came: what waited is never booked as new, what came twice never twice."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reading import Reading
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.process import wait_for
from tests.workers.broker_bench import STATE, Esp32, count, kept_by_the_parent, opened, pulses, read_until, settled
from workers import SourceError
from workers._fence import Fence
from workers.mqtt import Mqtt, Options

SENSOR = "tele/plug1/SENSOR"
TS = 1_795_180_560


def watts(power_w: float) -> bytes:
    return json.dumps({"ENERGY": {"Power": power_w}}).encode()


def make(broker: Mosquitto, client_id: str, kept: dict[str, int] | None = None, **more: Any) -> Mqtt:
    """A worker's source; `kept` is what its parent has of its predecessor."""
    devices = [
        {"name": "house", "dialect": "esp32", "topic": "esp32-meter"},
        {"name": "plug", "dialect": "tasmota", "topic": "plug1"},
    ]
    options = {"kind": "mqtt", "port": broker.port, "devices": devices, "client_id": client_id, **more}
    source = Mqtt("broker", msgspec.convert(options, Options))
    source.kept = {} if kept is None else kept
    return source


def powers(readings: list[Reading]) -> list[float]:
    return [float(reading.values["power_w"]) for reading in readings if reading.device == "plug"]


def counted(readings: list[Reading]) -> list[int]:
    return [int(reading.values["pulses"]) for reading in readings if reading.device == "house"]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A session of one's own at the broker that the tests share."""
    return str(request.node.name)[:100]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


def test_a_message_is_acknowledged_by_the_next_round_and_not_before(broker: Mosquitto, name: str) -> None:
    with kept_by_the_parent() as kept:
        with opened(make(broker, name, kept)) as source:
            settled(source, broker)
            broker.publish(STATE, pulses(1))
            [first] = read_until(source, count(1))
        with opened(make(broker, name, kept)) as source:
            [again] = read_until(source, count(1))
            assert again.origin == first.origin, "the writer knows it by its number"
            source.read()
        with opened(make(broker, name, kept)) as source:
            assert settled(source, broker) == []
        assert source.refused == {"too_large": 1}


def test_what_the_broker_kept_is_booked_if_the_device_dated_it_and_else_refused(broker: Mosquitto, name: str) -> None:
    with opened(make(broker, name)) as source:
        settled(source, broker)
    for number in range(1, 61):  # three times what the broker sends at once
        broker.publish(STATE, pulses(number, ts=TS + number))
        broker.publish(SENSOR, watts(number))
    with opened(make(broker, name)) as source:
        readings = read_until(source, lambda _: source._listener.fence._closed)
        broker.publish(SENSOR, watts(61))
        readings += read_until(source, count(1))
    assert counted(readings) == [*range(1, 61)]
    assert [reading.origin.time_ns for reading in readings if reading.origin] == [
        (TS + number) * 10**9 for number in range(1, 61)
    ]
    assert powers(readings) == [61]
    assert source.refused == {"stale": 60}


def test_a_number_alone_does_not_make_an_old_message_new(broker: Mosquitto, name: str) -> None:
    with opened(make(broker, name)) as source:
        settled(source, broker)
    broker.publish(STATE, pulses(1))
    with opened(make(broker, name)) as source:
        read_until(source, lambda _: source._listener.fence._closed)
        assert source.refused == {"stale": 1}
        broker.publish(STATE, pulses(2))
        assert counted(read_until(source, count(1))) == [2]


def test_who_comes_back_at_once_misses_nothing(broker: Mosquitto, name: str) -> None:
    """The successor of a worker that was killed knows from its predecessor how old the broker's messages can be."""
    with kept_by_the_parent() as kept:
        with opened(make(broker, name, kept)) as source:
            settled(source, broker)
        for number in range(1, 31):
            broker.publish(SENSOR, watts(number))
        with opened(make(broker, name, kept)) as source:
            assert powers(read_until(source, count(30))) == [*range(1, 31)]
            assert source.refused.total() == 0


def test_what_a_predecessor_knew_of_another_session_is_worth_nothing(broker: Mosquitto, name: str) -> None:
    with kept_by_the_parent() as kept:
        for client_id in (f"{name}-a", f"{name}-b"):
            with opened(make(broker, client_id)) as source:
                settled(source, broker)
        with opened(make(broker, f"{name}-a", kept)) as source:
            read_until(source, lambda _: source._listener.fence._closed)
            settled(source, broker)
        broker.publish(SENSOR, watts(1))
        with opened(make(broker, f"{name}-b", kept)) as source:
            read_until(source, lambda _: source.refused["stale"])


def test_a_message_that_comes_twice_without_a_number_is_booked_once(broker: Mosquitto, name: str) -> None:
    with kept_by_the_parent() as kept:
        with opened(make(broker, name, kept)) as source:
            settled(source, broker)
            broker.publish(SENSOR, watts(1))
            assert powers(read_until(source, count(1))) == [1]
        broker.publish(SENSOR, watts(2))
        with opened(make(broker, name, kept)) as source:
            assert powers(read_until(source, count(1))) == [2]
            assert source.refused == {"stale": 1}


def test_what_piled_up_while_the_worker_was_held_up_is_not_new(broker: Mosquitto, name: str) -> None:
    """The writer is away, say, so nobody reads, and the messages wait in the kernel and at the broker."""
    with opened(make(broker, name, stale_after_s=4)) as source:
        settled(source, broker)
        for number in range(30):
            broker.publish(SENSOR, watts(number))
        fence = source._listener.fence
        fence._limit_ns = 10**9  # so that the test need not take four seconds
        wait_for(lambda: not fence.is_fresh(time.monotonic_ns()), "the last proof to grow old")
        read_until(source, lambda _: fence.is_fresh(time.monotonic_ns()))
        broker.publish(SENSOR, watts(31))
        assert powers(read_until(source, count(1))) == [31]
        assert source.refused["stale"] == 30


def test_a_broker_that_hangs_for_a_while_does_not_make_old_messages_new(broker: Mosquitto, name: str) -> None:
    with opened(make(broker, name)) as source, broker.client() as client:
        settled(source, broker)
        fence = source._listener.fence
        fence._limit_ns = 5 * 10**8
        broker.pause()
        try:
            sent = client.publish(SENSOR, watts(1), qos=1)
            began_s = time.monotonic()
            assert source.read() == []
            assert time.monotonic() - began_s < 5, "the others of a house must not notice"
            wait_for(lambda: not fence.is_fresh(time.monotonic_ns()), "the last proof to grow old")
        finally:
            broker.go_on()
        sent.wait_for_publish(10)
        readings = read_until(source, lambda _: fence.is_fresh(time.monotonic_ns()))
        client.publish(SENSOR, watts(2), qos=1)
        readings += read_until(source, count(1))
        # It was published before the broker answered again, and a source cannot know when.
        assert powers(readings) in ([2], [1, 2])


def test_a_broker_that_kept_nothing_has_nothing_old(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        with opened(make(broker, "forgotten")) as source:
            settled(source, broker)
        broker.stop(9)
        (tmp_path / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        with opened(make(broker, "forgotten")) as source:
            broker.publish(SENSOR, watts(1))
            assert powers(read_until(source, count(1))) == [1]


def test_a_full_queue_that_swallows_the_first_markers_does_not_shut_everybody_out(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path, options=("max_queued_messages 50",)) as broker:
        with opened(make(broker, "full", stale_after_s=4)) as source:
            settled(source, broker)
        with broker.client() as client:
            for number in range(200):
                client.publish(SENSOR, watts(number), qos=1)
            client.publish("x", b"", qos=1).wait_for_publish(10)
        with opened(make(broker, "full", stale_after_s=4)) as source:
            read_until(source, lambda _: source._listener.fence._closed)
            broker.publish(SENSOR, watts(201))
            assert powers(read_until(source, count(1))) == [201]


def test_a_broker_that_swallows_the_markers_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite tele/#\ntopic readwrite wattherd/pulse/#\n")
    with running_mosquitto(tmp_path, options=(f"acl_file {tmp_path}/acl",)) as broker:
        with opened(make(broker, "mute")):
            pass
        broker.publish(SENSOR, watts(1))
        with opened(make(broker, "mute")) as source:
            source._listener.fence._connected_ns -= 60 * 10**9
            read_until(source, lambda _: source.troubles)
            assert source.troubles.keys() == {"plug"}
            assert "does not pass on what we publish to wattherd/fence/mute" in source.troubles["plug"]
            assert "; allow this user to write and read wattherd/fence/#" in source.troubles["plug"]
            assert source.refused == {"stale": 1}
        with opened(make(broker, "mute", keep_session=False, stale_after_s=0)) as source:
            broker.publish(SENSOR, watts(2))
            assert powers(read_until(source, count(1))) == [2], "so it works all the same"


def test_a_broker_that_dies_is_an_error_and_what_it_saved_comes_when_it_is_back(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker, kept_by_the_parent() as kept:
        source = make(broker, "survivor", kept)
        with opened(source):
            settled(source, broker)
            wait_for((tmp_path / "mosquitto.db").exists, "Mosquitto to save the session")
            broker.stop(9)
            with pytest.raises(SourceError, match="closed the connection; it is tried again by itself"):
                read_until(source, lambda _: False)
        for _ in range(2):
            with pytest.raises(SourceError, match="nothing listens"):
                source.open()
            source.close()
        broker.start()
        broker.publish(STATE, pulses(1, ts=TS))
        with opened(source):
            assert counted(read_until(source, count(1))) == [1]


def test_a_broker_that_crashed_and_sends_anew_what_was_acknowledged_is_not_believed(tmp_path: Path) -> None:
    """It comes back with what it saved last, and does not say that it has sent that before."""
    with running_mosquitto(tmp_path) as broker, kept_by_the_parent() as kept:
        saved = tmp_path / "mosquitto.db"
        source = make(broker, "crashed", kept)
        with opened(source):
            read_until(source, lambda _: source._listener.fence._closed)
            settled(source, broker)
        for number in range(1, 6):
            broker.publish(SENSOR, watts(number))
        wait_for(lambda: saved.exists() and saved.read_bytes().count(SENSOR.encode()) >= 6, "Mosquitto to save them")
        before_the_crash = saved.read_bytes()
        with opened(source):
            assert powers(read_until(source, count(5))) == [1, 2, 3, 4, 5]
            settled(source, broker)
            broker.stop(signal.SIGKILL)
            with pytest.raises(SourceError):
                read_until(source, lambda _: False)
        saved.write_bytes(before_the_crash)
        broker.start()
        with opened(source):
            assert powers(read_until(source, lambda _: source._listener.fence._closed)) == []
        assert source.refused["stale"] == 5


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_broker_that_is_started_again_in_mid_stream_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: int
) -> None:
    """With TLS and a password. What it was killed with, unsaved, only the counters know."""
    monkeypatch.setenv("BROKER_PASSWORD", Mosquitto.password)
    seen: dict[int, int] = {}
    with running_mosquitto(tmp_path, tls=True, password=True) as broker:
        key = {"username": broker.username, "password_env": "BROKER_PASSWORD", "tls": True, "host": "localhost"}
        source = make(broker, "stream", **key, ca_file=str(broker.ca_file))
        with opened(source):
            read_until(source, lambda _: source._listener.fence._closed)
            esp32 = Esp32(broker, ts=TS)

            def read(done: Callable[[], object]) -> None:
                ends_s = time.monotonic() + 40
                while not done():
                    assert time.monotonic() < ends_s
                    for reading in source.read():
                        assert reading.origin
                        assert reading.values["pulses"] == reading.origin.sequence
                        seen[reading.origin.sequence] = seen.get(reading.origin.sequence, 0) + 1

            read(lambda: esp32.published > 50)
            wait_for((tmp_path / "mosquitto.db").exists, "Mosquitto to save the session")
            broker.stop(signal_number)
            with pytest.raises(SourceError, match="closed the connection"):
                read(lambda: False)
        down = esp32.published
        broker.start()
        with opened(source):
            read(lambda: esp32.published > down + 50)
            esp32.finish()
            read(lambda: max(seen, default=0) >= esp32.published)
            read(lambda: not source._listener._waiting)
    lost = {*range(1, esp32.published + 1)} - {*seen}
    assert not lost or (signal_number == signal.SIGKILL and max(lost) <= down + 1)
    assert source.refused.total() == 0
    print(
        f"{esp32.published} messages, {sum(seen.values()) - len(seen)} came twice with their number, lost {len(lost)}"
    )


def test_a_marker_of_another_process_or_one_sent_again_proves_nothing() -> None:
    fence, other = Fence("topic", 10), Fence("topic", 10)
    fence.connected(0, None)
    other.connected(0, None)
    for marker in (other.marker(1), b"", b"x", b"x 1", fence.marker(1)[:-1] + "²".encode(), fence.marker(2)):
        fence.pass_by(marker, repeated=False)
        assert not fence.is_fresh(2), marker
    marker = f"{fence._token} 1".encode()
    fence.pass_by(marker, repeated=True)
    assert not fence.is_fresh(2)
    fence.pass_by(f"{fence._token} {10**18}".encode(), repeated=False)
    assert not fence.is_fresh(10**18), "no marker is from the future"
    fence.pass_by(marker, repeated=False)
    assert fence.is_fresh(2)
    assert not fence.is_fresh(10**10 + 2)


def test_markers_are_spaced_and_every_one_is_a_proof() -> None:
    fence = Fence("topic", 8)
    fence.connected(0, None)
    seconds = [second for second in range(1, 13) if fence.marker(second * 10**9)]
    assert seconds == [1, 3, 5, 7, 9, 11]
