"""The source `mqtt` at a real Mosquitto: what is booked, what is refused, what is told, and when it is acknowledged."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import workers._broker
import workers.mqtt
from reading import Origin
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.mqtt_fake import CONNECT, SUBSCRIBE, WELCOME, fake_broker, suback
from tests.peers.process import wait_for
from tests.workers.broker_bench import count, opened, pulses, read_until, settled
from workers import SourceError, source_class
from workers._broker import own_client_id
from workers._dialects import Device
from workers.mqtt import Mqtt, Options

ESP32 = {"name": "house", "dialect": "esp32", "topic": "esp32-meter"}
PLUG = {"name": "plug", "dialect": "tasmota", "topic": "plug1"}
STATE = "wattherd/pulse/esp32-meter/state"
SENSOR = "tele/plug1/SENSOR"


def watts(power_w: float) -> bytes:
    return json.dumps({"ENERGY": {"Total": 514.153, "Power": power_w}}).encode()


def table(broker: Mosquitto | int, *devices: dict[str, Any], **more: Any) -> Options:
    port = broker if isinstance(broker, int) else broker.port
    return msgspec.convert({"kind": "mqtt", "port": port, "devices": devices or (ESP32, PLUG), **more}, Options)


def make(broker: Mosquitto | int, *devices: dict[str, Any], **more: Any) -> Mqtt:
    """A source with a session that ends with it, unless the test says otherwise."""
    return Mqtt("broker", table(broker, *devices, **{"keep_session": False, **more}))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.mqtt.__doc__ or "").splitlines() if line.startswith("    "))
    written = tomllib.loads(text)["sources"]["broker"]
    options = msgspec.convert(written, Options)
    assert options == Options(kind="mqtt", devices=(Device(name="boiler", dialect="tasmota", topic="boiler"),))
    assert {*written} == {*Options.__struct_fields__}
    assert {*written["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("mqtt") is Mqtt


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": []}, "no device is configured"),
        ({"devices": [ESP32, {**PLUG, "name": "house"}]}, "house is configured twice"),
        ({"devices": [PLUG, {**PLUG, "name": "other"}]}, "plug and other are the same tasmota device"),
        ({"devices": [{**PLUG, "topic": "tele/+"}]}, "without \\+ and #"),
        ({"devices": [{**PLUG, "topic": ""}]}, "topic"),
        ({"devices": [{**PLUG, "dialect": "morse"}]}, "dialect"),
        ({"watch": ["tele/plug#"]}, "does not stand alone"),
        ({"watch": ["tele/#/x"]}, "not the last"),
        ({"watch": [""]}, "is empty"),
        ({"status_topic": "wattherd/+"}, "has a wildcard"),
        ({"status_topic": "a\nb"}, "cannot be shown"),
        ({"stale_after_s": 0}, "keep_session = false"),
        ({"stale_after_s": 1}, "at least 4"),
        ({"ca_file": "ca.pem"}, "set tls = true"),
        ({"password_env": "BROKER"}, "set username"),
        ({"host": "broker.example.com", "username": "me", "password_env": "BROKER"}, "in the clear: set tls = true"),
        ({"host": "8.8.8.8", "username": "me", "password_env": "BROKER"}, "in the clear"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "mqtt", "devices": [ESP32], **change}, Options)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "nas", "nas.local", "192.168.1.5", "100.100.2.3"])
def test_a_password_may_go_to_the_own_network_without_tls(host: str) -> None:
    msgspec.convert(
        {"kind": "mqtt", "devices": [ESP32], "host": host, "username": "me", "password_env": "BROKER"}, Options
    )


def test_two_meters_in_one_message_and_two_channels_of_one_plug_are_no_twins() -> None:
    sensor = {"dialect": "json", "topic": "gateway"}
    table(
        1,
        {**sensor, "name": "one", "values": [{"path": "a.kwh", "unit": "kWh"}]},
        {**sensor, "name": "two", "values": [{"path": "b.kwh", "unit": "kWh"}]},
        {**PLUG, "name": "left", "channel": 1},
        {**PLUG, "name": "right", "channel": 2},
    )


# What is booked


def test_each_device_gets_what_it_said_and_no_more(broker: Mosquitto) -> None:
    left, right = {**PLUG, "name": "left"}, {**PLUG, "name": "right", "channel": 2}
    with opened(make(broker, ESP32, left, right)) as source:
        before_ns = time.monotonic_ns()
        broker.publish(STATE, pulses(7, power_w=100.5))
        broker.publish(SENSOR, json.dumps({"ENERGY": {"Total": [2.813, 0.254], "Power": [52, 5]}}))
        readings = read_until(source, count(3))
        assert all(before_ns < reading.at_ns < time.monotonic_ns() for reading in readings)
        assert {reading.device: dict(reading.values) for reading in readings} == {
            "house": {"pulses": 7, "device_energy_wh": 7.0, "power_w": 100.5},
            "left": {"power_w": 52.0, "device_energy_wh": 2813.0},
            "right": {"power_w": 5.0, "device_energy_wh": 254.0},
        }
        assert readings[0].origin == Origin("b00t", 7)
        assert (source.troubles, source.refused.total()) == ({}, 0)


def test_a_retained_message_tells_who_is_there_and_books_nothing(broker: Mosquitto) -> None:
    broker.publish("tele/old/SENSOR", watts(77), retain=True)
    broker.publish("tele/old/LWT", b"Offline", retain=True)
    with opened(make(broker, {**PLUG, "topic": "old"})) as source:
        read_until(source, lambda _: source.troubles and source.refused["stale"])
        assert "it is offline" in source.troubles["plug"]
        broker.publish("tele/old/SENSOR", watts(78), retain=True)
        [reading] = read_until(source, count(1))
        assert reading.values["power_w"] == 78
        assert source.troubles == {}, "who speaks is there"


def test_a_device_that_goes_and_comes_back_is_told_both_times(broker: Mosquitto) -> None:
    with opened(make(broker)) as source:
        broker.publish("tele/plug1/LWT", b"Offline")
        read_until(source, lambda _: source.troubles)
        assert source.troubles.keys() == {"plug"}
        assert "; see that it has power" in source.troubles["plug"]
        broker.publish("tele/plug1/LWT", b"Online")
        read_until(source, lambda _: not source.troubles)
        assert source.refused.total() == 0


# What is refused


def test_an_unknown_topic_is_counted_once_and_told_once(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    with opened(make(broker, watch=["watched/#", "tele/plug1/#"])) as source:
        for _ in range(3):
            broker.publish("watched/stranger", watts(5))
        broker.publish(SENSOR, watts(5))
        [reading] = read_until(source, count(1))
        assert reading.device == "plug"
        assert source.refused["unknown_device"] == 1
    with opened(source):  # anew, in the same process
        broker.publish("watched/stranger", watts(5))
        broker.publish(SENSOR, watts(5))
        read_until(source, count(1))
    assert source.refused["unknown_device"] == 1
    assert caplog.text.count("no device is configured for the topic watched/stranger") == 1


def test_a_crowd_of_strangers_takes_no_memory_and_no_log(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers._broker, "_MOST_STRANGERS", 100)
    with opened(make(broker, watch=["crowd/#"])) as source, broker.client() as client:
        for number in range(120):
            last = client.publish(f"crowd/{number}", b"1", qos=1)
        read_until(source, lambda _: last.is_published())
        settled(source, broker)
        assert source.refused["unknown_device"] == 100
        assert len(source._listener._strangers) == 100
    assert caplog.text.count("no device is configured") == 20
    assert caplog.text.count("further ones are only counted") == 1


def test_a_device_that_left_the_configuration_is_heard_no_more(broker: Mosquitto) -> None:
    options: dict[str, Any] = {"keep_session": True, "client_id": "leaver"}
    with opened(make(broker, ESP32, PLUG, **options)):
        pass
    with opened(make(broker, ESP32, **options)) as source:
        broker.publish(SENSOR, watts(1))
        read_until(source, lambda _: source.refused["unknown_device"])
        broker.publish(SENSOR, watts(2))
        broker.publish(SENSOR, b"x" * 17_000)
        broker.publish(STATE, pulses(1))
        read_until(source, count(1))
        assert (source.refused["unknown_device"], source.refused["too_large"]) == (1, 0)


@pytest.mark.parametrize(
    ("payload", "reason", "words"),
    [
        (b"x" * (16 * 1024 + 1), "too_large", ""),
        (b"{", "malformed", "not JSON"),
        (b'{"ENERGY": {"Power": 1e9}}', "out_of_range", "plug"),
        (b'{"ENERGY": {"Power": NaN}}', "not_finite", "not finite"),
    ],
)
def test_what_cannot_be_is_refused_counted_and_told(broker: Mosquitto, payload: bytes, reason: str, words: str) -> None:
    with opened(make(broker)) as source:
        broker.publish(SENSOR, payload)
        read_until(source, lambda _: source.refused[reason])
        assert source.refused.total() == 1
        assert words in source.troubles.get("plug", "") or words == "plug"
        broker.publish(SENSOR, watts(5))
        broker.publish(STATE, pulses(1))
        assert [reading.device for reading in read_until(source, count(2))] == ["plug", "house"]


def test_refused_messages_do_not_stop_the_broker_from_sending_the_next(broker: Mosquitto) -> None:
    """It sends at most twenty that are not acknowledged."""
    with opened(make(broker, watch=["noise/#"])) as source, broker.client() as client:
        for number in range(100):
            client.publish(SENSOR, b"{", qos=1)
            client.publish(f"noise/{number}", b"", qos=1)
            client.publish(SENSOR, b"x" * 17_000, qos=1)
        client.publish(STATE, pulses(1), qos=1)
        read_until(source, count(1))
        assert source.refused == {"malformed": 100, "unknown_device": 100, "too_large": 100}


def test_a_message_that_breaks_a_decoder_does_not_come_for_ever(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(broker, keep_session=True, client_id="broken")
    [dialect] = source._routes.takers(SENSOR)
    monkeypatch.setattr(dialect, "take", lambda *_: 1 / 0)
    with opened(source):
        broker.publish(SENSOR, watts(1))
        with pytest.raises(ZeroDivisionError):
            read_until(source, count(1))
    monkeypatch.undo()
    with opened(source):
        broker.publish(STATE, pulses(1))
        assert [reading.device for reading in read_until(source, count(1))] == ["house"]
        assert source.refused == {"malformed": 1}


# What is wrong with the broker


def test_a_filter_that_is_refused_is_the_trouble_of_its_device_alone() -> None:
    def answer(kind: int, body: bytes) -> bytes:
        if kind == SUBSCRIBE:
            return suback(body, lambda topic: 0x80 if topic.startswith("tele/") else 1)
        return WELCOME if kind == CONNECT else b""

    with fake_broker(answer) as port, opened(make(port)) as source:
        assert source.troubles.keys() == {"plug"}
        assert "does not let us hear tele/plug1/" in source.troubles["plug"]
        assert "; allow the user to read it" in source.troubles["plug"]


def test_the_status_topic_says_online_and_offline(broker: Mosquitto) -> None:
    with broker.watch("house/status") as seen:
        with opened(make(broker, status_topic="house/status")):
            wait_for(lambda: seen, "the birth")
        wait_for(lambda: len(seen) == 2, "the farewell")
        assert [message.payload for message in seen] == [b"online", b"offline"]
        vanishing = make(broker, status_topic="house/status")
        with opened(vanishing):
            wait_for(lambda: len(seen) == 3, "the birth")
            client = vanishing._listener._connection._client
            assert client
            client.socket().close()  # type: ignore[union-attr]
            wait_for(lambda: len(seen) == 4, "the will")
    assert [message.payload for message in seen[2:]] == [b"online", b"offline"]
    with broker.watch("house/status") as kept:
        wait_for(lambda: kept, "what is retained")
        assert (kept[0].payload, kept[0].retain) == (b"offline", True)


def test_a_source_that_is_not_open_says_so(broker: Mosquitto) -> None:
    source = make(broker)
    source.close()
    with pytest.raises(SourceError, match="not open; open it first"):
        source.read()


def test_nobody_there_is_told_with_what_to_do() -> None:
    source = make(1)
    with pytest.raises(SourceError) as failure:
        source.open()
    source.close()
    assert failure.value.what == "nothing listens at 127.0.0.1 port 1"
    assert failure.value.what_now == "start the broker, or correct host and port"


def test_two_houses_at_one_broker_have_two_names_and_each_keeps_its_own() -> None:
    def name(source: str, **more: Any) -> str:
        client_id = own_client_id(source, **{"keep_session": True, **more})
        assert client_id.startswith(f"wattherd-{source}-")
        return client_id

    assert name("broker") == name("broker")
    assert name("broker") != name("other")
    assert name("broker", keep_session=False) != name("broker", keep_session=False), "a look must not throw out another"


@pytest.mark.parametrize("kind", ["mqtt", "glow"])
def test_every_example_of_the_page_is_a_configuration(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sources" / f"{kind}.md").read_text()
    examples = re.findall(r"^```toml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        [written] = tomllib.loads(example)["sources"].values()
        msgspec.convert(written, source_class(kind).Options)
