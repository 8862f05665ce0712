"""A display shows the present and nothing that is past, whatever happens to the broker; every record is delivered."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import os
import signal
import socket
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest

import mqtt_helper
from config.settings import Site
from reading import Clock, Quality, Record
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.process import free_ports, wait_for
from tests.writer._helpers import STAMP, Child, Loop, assert_conserved, intake
from tests.writer.outputs.test_home_assistant import check
from writer import Batch, Memo, OutputDown, OutputRefused, output_class
from writer.delivery import DOWN, Delivery
from writer.outbox import Outbox
from writer.outputs import mqtt as module
from writer.outputs.mqtt import Mqtt, Options

S = 10**9
_opened: list[Mqtt] = []


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.05)


@pytest.fixture(autouse=True)
def _close_outputs() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One for all tests that do it no harm; each has a site of its own there."""
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    return Site(name=request.node.originalname[-60:].strip("_"))


def output(broker: Mosquitto, site: Site, memo: Memo | None = None, **options: Any) -> Mqtt:
    table = msgspec.convert({"port": broker.port, **options}, Options)
    _opened.append(Mqtt(table, site, Memo() if memo is None else memo))
    return _opened[-1]


def closed(mqtt: Mqtt) -> None:
    _opened.remove(mqtt)
    mqtt.close()


def fridge(age_s: float = 0.0, quality: Quality = Quality.MEASURED, **values: float | str) -> Record:
    return Record("kasa", "fridge", time.time_ns() - int(age_s * S), values, quality)


def shown(messages: list[paho.MQTTMessage], end: str = "") -> dict[str, Any]:
    """The last value of each topic that ends so, by its last part."""
    return {
        message.topic.rpartition("/")[2]: json.loads(message.payload)["value"]
        for message in list(messages)
        if message.topic.endswith(end) and message.payload.startswith(b"{")
    }


def retained(broker: Mosquitto, topic: str) -> dict[str, bytes]:
    """What the broker keeps for whoever comes."""
    seen: list[paho.MQTTMessage] = []
    granted = threading.Event()
    with broker.client() as client:
        client.on_message = lambda _client, _data, message: seen.append(message)
        client.on_subscribe = lambda *_: granted.set()
        client.subscribe([(topic, 1), ("mark", 1)])
        assert granted.wait(20)
        broker.publish("mark", b"")  # what it keeps comes before
        wait_for(lambda: seen and seen[-1].topic == "mark", "the mark")
    return {message.topic: message.payload for message in seen if message.retain}


def all_of(broker: Mosquitto, site: Site, seen: list[paho.MQTTMessage]) -> list[paho.MQTTMessage]:
    """Wait until everything that was published so far is seen."""
    mark = f"wattherd/{site.name}/kasa/mark"
    broker.publish(mark, b"")
    wait_for(lambda: seen and seen[-1].topic == mark, "the mark")
    return seen[:-1]


def announced(messages: list[paho.MQTTMessage]) -> list[set[str]]:
    """The metrics of each announcement."""
    return [set(check(message.topic, message.payload)["components"]) for message in list(messages)]


# ---- what is configured


def test_the_example_of_the_docstring_lists_every_option_with_its_default() -> None:
    lines = (inspect.getdoc(module) or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    table = tomllib.loads(example)["outputs"]["mqtt"]
    assert msgspec.convert(table, Options) == Options()
    assert set(table) == set(Options.__struct_fields__) - {"kind", "enabled"}


def test_it_is_the_output_that_its_file_is_named_after() -> None:
    assert output_class("mqtt") is Mqtt


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"host": "a b"},
        {"topic_prefix": ""},
        {"topic_prefix": "a//b"},
        {"topic_prefix": "a/"},
        {"topic_prefix": "a/#"},
        {"discovery_prefix": "+"},
        {"discovery_prefix": "a\n"},
        {"history_topic": "/a"},
        {"currency": "£"},
        {"currency": "gbp"},
        {"expire_after_s": 5},
        {"expire_after_s": -1},
        {"ca_file": "ca.pem"},
        {"password_env": "MQTT_PASSWORD"},
        {"client_id": "a b"},
    ],
)
def test_an_option_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Options)


# ---- what is shown


def test_of_a_batch_the_newest_value_of_each_metric_is_shown_once(broker: Mosquitto, site: Site) -> None:
    records = [fridge(10 - n / 10, power_w=float(n), energy_wh=1000 + n) for n in range(100)]
    records.insert(50, fridge(0.5, voltage_v=230.1))
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        output(broker, site).write(Batch(records))
        assert len(all_of(broker, site, seen)) == 3
        assert shown(seen) == {"power_w": 99.0, "energy_wh": 1099, "voltage_v": 230.1}
        assert {message.qos for message in seen[:3]} == {1}
        [of_power] = [json.loads(message.payload) for message in seen if message.topic.endswith("power_w")]
    assert of_power == {
        "value": 99.0,
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(records[-1].time_ns // S))}"
        f".{records[-1].time_ns % S // 1000:06d}Z",
        "quality": "measured",
        "clock": "synced",
    }


def test_the_broker_keeps_counters_for_whoever_comes_and_nothing_that_gets_old(broker: Mosquitto, site: Site) -> None:
    record = fridge(power_w=1.0, state="on", energy_wh=5, device_energy_export_wh=6, pulses=7, gas_m3=8.5, cost=1)
    output(broker, site).write(Batch([record]))
    kept = {topic.rpartition("/")[2] for topic in retained(broker, f"wattherd/{site.name}/kasa/#")}
    assert kept == {"energy_wh", "device_energy_export_wh", "pulses", "gas_m3"}


def test_what_has_expired_is_not_shown_as_the_present_but_a_count_is(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        mqtt = output(broker, site, expire_after_s=60)
        mqtt.write(Batch([fridge(7200, power_w=2000.0, energy_wh=1.0), fridge(3600, power_w=1000.0, energy_wh=2.0)]))
        assert len(all_of(broker, site, seen)) == 1
        assert shown(seen) == {"energy_wh": 2.0}


def test_nothing_expires_where_nobody_wants_it(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        output(broker, site, expire_after_s=0).write(Batch([fridge(7200, power_w=2000.0)]))
        wait_for(lambda: shown(seen) == {"power_w": 2000.0}, "the value")


def test_a_backlog_that_comes_after_the_newest_changes_no_display(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        mqtt = output(broker, site)
        mqtt.write(Batch([fridge(0, power_w=100.0, energy_wh=500.0)]))
        mqtt.write(Batch([fridge(50 - n, power_w=float(n), energy_wh=float(n)) for n in range(40)]))
        assert len(all_of(broker, site, seen)) == 2
        assert shown(seen) == {"power_w": 100.0, "energy_wh": 500.0}


def test_a_successor_knows_what_was_shown_and_what_a_device_has(broker: Mosquitto, site: Site) -> None:
    memo = Memo()
    mqtt = output(broker, site, memo)
    mqtt.write(Batch([fridge(0, power_w=100.0, energy_wh=500.0)]))
    closed(mqtt)
    topic = f"homeassistant/device/wattherd_{site.name.replace('_', '__')}_kasa_fridge/config"
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen, broker.watch(topic) as told:
        wait_for(lambda: told, "the announcement that the broker has kept")
        output(broker, site, Memo(memo)).write(Batch([fridge(10, energy_wh=400.0), fridge(0, voltage_v=230.0)]))
        all_of(broker, site, seen)
        assert shown(seen) == {"energy_wh": 500.0, "voltage_v": 230.0}
        assert announced(told) == [{"power_w", "energy_wh"}, {"power_w", "energy_wh", "voltage_v"}]


def test_a_date_that_was_wrong_once_silences_no_counter(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        mqtt = output(broker, site)
        mqtt.write(Batch([fridge(-86_400 * 365, energy_wh=500.0, power_w=5.0)]))
        mqtt.write(Batch([fridge(0, energy_wh=501.0, power_w=6.0)]))
        wait_for(lambda: shown(seen) == {"energy_wh": 501.0, "power_w": 6.0}, "the values of today")


def test_a_batch_that_comes_again_shows_the_same(broker: Mosquitto, site: Site) -> None:
    batch = Batch([fridge(1, power_w=1.0), fridge(0, power_w=2.0)])
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        mqtt = output(broker, site)
        mqtt.write(batch)
        mqtt.write(batch)
        values = [json.loads(message.payload)["value"] for message in all_of(broker, site, seen)]
        assert values == [2.0, 2.0]


def test_a_metric_that_did_not_come_for_a_month_is_forgotten(broker: Mosquitto, site: Site) -> None:
    memo = Memo()
    mqtt = output(broker, site, memo)
    mqtt.write(Batch([fridge(86_400 * 40, gas_m3=1.0)]))
    assert list(memo) == ["kasa/fridge/gas_m3"]
    mqtt.write(Batch([fridge(0, power_w=1.0)]))
    assert list(memo) == ["kasa/fridge/power_w"]


def test_what_no_display_can_show_counts_as_delivered(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        mqtt = output(broker, site)
        mqtt.write(Batch([fridge(pulse="import"), fridge(power_w="much"), fridge(power_w=float("nan"), state="")]))
        assert all_of(broker, site, seen) == []


def test_what_can_be_in_no_topic_is_refused_and_the_rest_is_there(broker: Mosquitto, site: Site) -> None:
    batch = Batch(
        [
            Record("kasa", "a/b", time.time_ns(), {"power_w": 1.0}),
            fridge(power_w=2.0),
            Record("#", "c", time.time_ns(), {"power_w": 3.0}),
            Record("kasa", "late", 10**22, {"energy_wh": 4.0}),
            Record("kasa", "huge", time.time_ns(), {"state": "\ud800"}),
        ]
    )
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        with pytest.raises(OutputRefused, match="make no topic") as refused:
            output(broker, site).write(batch)
        assert refused.value.indices == {0, 2, 3, 4}
        assert len(all_of(broker, site, seen)) == 1
        assert shown(seen) == {"power_w": 2.0}


def test_a_simulated_device_is_another_one(broker: Mosquitto, site: Site) -> None:
    batch = Batch([fridge(energy_wh=10.0), fridge(0, Quality.SIMULATED, energy_wh=99.0)])
    with broker.watch(f"wattherd/{site.name}/#") as seen, broker.watch("homeassistant/device/+/config") as told:
        output(broker, site).write(batch)
        wait_for(lambda: len(shown(seen, "energy_wh")) and len(seen) >= 3, "both")
        values = {message.topic: json.loads(message.payload) for message in seen if message.payload.startswith(b"{")}
        wait_for(lambda: [m for m in told if site.name.replace("_", "__") in m.topic][1:], "both announcements")
        names = {
            check(message.topic, message.payload)["device"]["name"]
            for message in told
            if site.name.replace("_", "__") in message.topic
        }
    assert values[f"wattherd/{site.name}/kasa/fridge/energy_wh"]["value"] == 10.0
    assert values[f"wattherd/{site.name}/simulated/kasa/fridge/energy_wh"]["quality"] == "simulated"
    assert names == {"fridge", "fridge (simulated)"}


def test_a_date_that_is_a_guess_is_told_as_one(broker: Mosquitto, site: Site) -> None:
    record = Record("kasa", "fridge", time.time_ns(), {"power_w": 1.0}, clock=Clock.UNSYNCED)
    with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
        output(broker, site).write(Batch([record]))
        wait_for(lambda: seen, "the value")
        assert json.loads(seen[0].payload)["clock"] == "unsynced"


def test_with_a_history_topic_every_record_is_there_in_order_with_its_time(broker: Mosquitto, site: Site) -> None:
    records = [Record("kasa", "fridge", n * S, {"power_w": float(n)}) for n in range(450)]
    records.append(Record("roof", "pv", 5_000 * S, {"pulse": "generate"}, Quality.ESTIMATED))
    with broker.watch(f"{site.name}/history/#") as seen:
        output(broker, site, history_topic=f"{site.name}/history").write(Batch(records))
        wait_for(lambda: len(seen) == len(records), "all records")
        of_fridge = [json.loads(message.payload) for message in seen if message.topic.endswith("/kasa/fridge")]
        [of_pv] = [json.loads(message.payload) for message in seen if message.topic.endswith("/roof/pv")]
    assert [each["values"]["power_w"] for each in of_fridge] == [float(n) for n in range(450)]
    assert of_fridge[7]["time"] == "1970-01-01T00:00:07.000000Z"
    assert of_pv == {
        "time": "1970-01-01T01:23:20.000000Z",
        "values": {"pulse": "generate"},
        "quality": "estimated",
        "clock": "synced",
    }


# ---- what Home Assistant is told


def test_a_device_is_announced_once_and_again_when_it_has_more(broker: Mosquitto, site: Site) -> None:
    topic = f"homeassistant/device/wattherd_{site.name.replace('_', '__')}_kasa_fridge/config"
    with broker.watch(topic) as told:
        mqtt = output(broker, site)
        for n in range(3):
            mqtt.write(Batch([fridge(power_w=float(n))]))
        mqtt.write(Batch([fridge(energy_wh=1.0)]))
        wait_for(lambda: len(told) >= 2, "the announcements")
        assert announced(told) == [{"power_w"}, {"power_w", "energy_wh"}]
    assert set(retained(broker, topic)) == {topic}


def test_with_no_discovery_prefix_nobody_is_told_anything(broker: Mosquitto, site: Site) -> None:
    with broker.watch("homeassistant/#") as told, broker.watch(f"wattherd/{site.name}/#") as seen:
        output(broker, site, discovery_prefix="").write(Batch([fridge(power_w=1.0)]))
        wait_for(lambda: "power_w" in shown(seen), "the value")
        assert [message for message in told if site.name.replace("_", "__") in message.topic] == []


@pytest.mark.parametrize("birth", ["homeassistant/status", "elsewhere/status"])
def test_when_home_assistant_starts_it_is_told_again(broker: Mosquitto, site: Site, birth: str) -> None:
    with broker.watch("elsewhere/device/+/config") as told:
        mqtt = output(broker, site, discovery_prefix="elsewhere")
        mqtt.write(Batch([fridge(power_w=1.0, energy_wh=2.0)]))

        def of_ours() -> list[paho.MQTTMessage]:
            return [message for message in told if f"{site.name.replace('_', '__')}_kasa" in message.topic]

        wait_for(of_ours, "the announcement")
        count = len(of_ours())
        broker.publish(birth, b"online")
        wait_for(lambda: len(of_ours()) > count, "the announcement after the birth")
        first, last = of_ours()[0], of_ours()[-1]
        assert check(first.topic, first.payload, "elsewhere") == check(last.topic, last.payload, "elsewhere")
        assert set(json.loads(last.payload)["components"]) == {"power_w", "energy_wh"}


def test_a_broker_that_forgot_everything_is_told_again_while_nothing_is_measured(tmp_path: Path, site: Site) -> None:
    topic = f"homeassistant/device/wattherd_{site.name.replace('_', '__')}_kasa_fridge/config"
    with running_mosquitto(tmp_path) as broker:
        output(broker, site).write(Batch([fridge(power_w=1.0, energy_wh=2.0)]))
        broker.stop(signal.SIGKILL)
        for kept in tmp_path.glob("*.db*"):
            kept.unlink()
        broker.start()
        assert retained(broker, topic) == {}
        with broker.watch(topic) as told, broker.watch(f"wattherd/{site.name}/status") as status:
            wait_for(lambda: told and status, "the announcement")
            assert announced(told) == [{"power_w", "energy_wh"}]
            assert status[-1].payload == b"online"


# ---- whether it is there


def test_the_status_says_whether_wattherd_is_there(broker: Mosquitto, site: Site) -> None:
    with broker.watch(f"wattherd/{site.name}/status") as status:
        mqtt = output(broker, site)
        mqtt.write(Batch([fridge(power_w=1.0)]))
        wait_for(lambda: [message.payload for message in status] == [b"online"], "online")
        closed(mqtt)
        wait_for(lambda: [message.payload for message in status] == [b"online", b"offline"], "offline")
    assert set(retained(broker, f"wattherd/{site.name}/status").values()) == {b"offline"}


def test_the_broker_says_so_when_wattherd_is_killed(broker: Mosquitto, site: Site) -> None:
    def write_and_wait() -> None:
        Mqtt(msgspec.convert({"port": broker.port}, Options), site, Memo()).write(Batch([fridge(power_w=1.0)]))
        signal.pause()

    with broker.watch(f"wattherd/{site.name}/status") as status:
        child = Child(write_and_wait)
        try:
            wait_for(lambda: [message.payload for message in status] == [b"online"], "online")
        finally:
            child.kill()
            child.wait()
        wait_for(lambda: [message.payload for message in status] == [b"online", b"offline"], "offline")


def test_who_says_wrongly_that_we_are_gone_is_corrected(broker: Mosquitto, site: Site) -> None:
    """The will of a connection that the network swallowed comes when its successor is online already."""
    topic = f"wattherd/{site.name}/status"
    with broker.watch(topic) as status:
        output(broker, site).write(Batch([fridge(power_w=1.0)]))
        wait_for(lambda: status, "online")
        broker.publish(topic, b"offline", retain=True)
        wait_for(
            lambda: [message.payload for message in status] == [b"online", b"offline", b"online"], "the correction"
        )
    assert set(retained(broker, topic).values()) == {b"online"}


def test_a_connection_with_nothing_to_write_is_kept(
    broker: Mosquitto, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_helper, "_KEEPALIVE_S", 1)
    output(broker, site).write(Batch([fridge(power_w=1.0)]))
    client = f"wattherd-output-{site.name}"
    wait_for(lambda: broker.log.count(f"Received PINGREQ from {client}") >= 2, "signs of life")
    assert f"Client {client} has exceeded timeout" not in broker.log
    assert set(retained(broker, f"wattherd/{site.name}/status").values()) == {b"online"}


def test_nothing_is_left_when_it_is_closed(broker: Mosquitto, site: Site) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    mqtt = output(broker, site)
    mqtt.write(Batch([fridge(power_w=1.0)]))
    assert threading.active_count() == threads + 1
    closed(mqtt)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


# ---- whatever the broker does


def test_nobody_listening_is_down_and_the_batch_arrives_when_it_comes_again(tmp_path: Path, site: Site) -> None:
    with running_mosquitto(tmp_path) as broker:
        broker.stop()
        mqtt = output(broker, site)
        batch = Batch([fridge(power_w=1.0)])
        with pytest.raises(OutputDown, match=f"nothing listens at 127.0.0.1 port {broker.port}") as down:
            mqtt.write(batch)
        assert not down.value.remedy
        broker.start()
        with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
            mqtt.write(batch)
            wait_for(lambda: shown(seen) == {"power_w": 1.0}, "the value")


def test_a_broker_that_hangs_is_down_in_time_and_gets_the_same_when_it_is_back(tmp_path: Path, site: Site) -> None:
    with running_mosquitto(tmp_path) as broker:
        memo = Memo()
        mqtt = output(broker, site, memo, timeout_s=0.3)
        mqtt.write(Batch([fridge(power_w=1.0)]))
        noted = dict(memo)
        broker.pause()
        start_s = time.monotonic()
        with pytest.raises(OutputDown, match=r"did not confirm within 0\.3 s"):
            mqtt.write(Batch([fridge(power_w=2.0)]))
        assert time.monotonic() - start_s < 5
        assert memo == noted
        broker.go_on()
        mqtt.options = msgspec.structs.replace(mqtt.options, timeout_s=10.0)
        with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
            mqtt.write(Batch([fridge(power_w=3.0)]))
            wait_for(lambda: shown(seen).get("power_w") == 3.0, "the value")


def test_no_record_of_the_history_counts_before_the_broker_has_confirmed_it(tmp_path: Path, site: Site) -> None:
    with running_mosquitto(tmp_path) as broker:
        mqtt = output(broker, site, history_topic="history", timeout_s=0.3)
        mqtt.write(Batch([fridge(pulse="import")]))
        broker.pause()
        with pytest.raises(OutputDown, match="did not confirm"):
            mqtt.write(Batch([fridge(pulse="export")]))
        broker.go_on()
        mqtt.options = msgspec.structs.replace(mqtt.options, timeout_s=10.0)
        with broker.watch("history/#") as seen:
            mqtt.write(Batch([fridge(pulse="export")]))
            wait_for(lambda: any(b"export" in message.payload for message in seen), "the record")


def test_what_listens_there_and_is_no_broker_is_down(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.suppress(OSError):

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        mqtt = Mqtt(msgspec.convert({"port": server.getsockname()[1]}, Options), site, Memo())
        with pytest.raises(OutputDown, match=r"hung up|closed"):
            mqtt.write(Batch([fridge(power_w=1.0)]))
        mqtt.close()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_wrong_password_waits_for_a_person_and_the_right_one_delivers(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_mosquitto(tmp_path, password=True) as broker:
        login = {"username": broker.username, "password_env": "HERD_PASSWORD"}
        monkeypatch.delenv("HERD_PASSWORD", raising=False)
        with pytest.raises(OutputDown, match="HERD_PASSWORD is not set") as down:
            output(broker, site, **login).write(Batch([fridge(power_w=1.0)]))
        assert "put the broker's password into it" in down.value.remedy
        monkeypatch.setenv("HERD_PASSWORD", "guessed-wrongly")
        with pytest.raises(OutputDown, match="refuses this user or password") as down:
            output(broker, site, **login).write(Batch([fridge(power_w=1.0)]))
        assert down.value.remedy
        assert "guessed-wrongly" not in f"{down.value} {down.value.remedy}"
        monkeypatch.setenv("HERD_PASSWORD", broker.password)
        with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
            output(broker, site, **login).write(Batch([fridge(power_w=1.0)]))
            wait_for(lambda: shown(seen) == {"power_w": 1.0}, "the value")


def test_over_tls_the_broker_has_to_show_a_certificate_of_its_authority(tmp_path: Path, site: Site) -> None:
    with running_mosquitto(tmp_path, tls=True) as broker:
        with pytest.raises(OutputDown, match="certificate"):
            output(broker, site, tls=True).write(Batch([fridge(power_w=1.0)]))
        with pytest.raises(OutputDown):
            output(broker, site).write(Batch([fridge(power_w=1.0)]))
        with broker.watch(f"wattherd/{site.name}/kasa/#") as seen:
            output(broker, site, tls=True, ca_file=str(broker.ca_file)).write(Batch([fridge(power_w=1.0)]))
            wait_for(lambda: shown(seen) == {"power_w": 1.0}, "the value")


def test_a_broker_killed_amid_the_deliveries_costs_no_record(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the outbox on, with every record in the history: at the end each is there, and the account is right."""
    monkeypatch.setattr("writer.delivery._FIRST_RETRY_S", 0.05)
    monkeypatch.setattr("writer.delivery._LAST_RETRY_S", 0.2)
    with running_mosquitto(tmp_path) as broker:
        options = msgspec.convert({"port": broker.port, "history_topic": "history"}, Options)
        outbox = Outbox(tmp_path / "outbox.db", reserve_bytes=0, quota_bytes=10**9)
        outbox.serve(["mqtt"])
        loop = Loop(outbox)
        delivery = Delivery(
            "mqtt",
            lambda memo: Mqtt(options, site, memo),
            tmp_path / "outbox.db",
            outbox.progress["mqtt"],
            lambda: None,
        )
        loop.deliveries = [delivery]

        sequence = itertools.count(1)

        def measure(first: int, many: int) -> None:
            loop.commit(intake(many, first, sequence=next(sequence)), STAMP)

        def told(messages: list[paho.MQTTMessage]) -> set[int]:
            return {json.loads(message.payload)["values"]["energy_wh"] for message in list(messages)}

        measure(0, 1)
        delivery.start()
        try:
            loop.until(lambda: outbox.progress["mqtt"].delivered == 1, "the first")
            with broker.watch("history/#") as seen:
                measure(1, 300)
                wait_for(lambda: seen, "the deliveries to be under way")
                broker.stop(signal.SIGKILL)
                measure(301, 300)
                loop.until(lambda: delivery.failures, "the output to be down")
                assert delivery.state == DOWN
                before = told(seen)
            assert before < set(range(301)), "it was killed too late to be amid anything"
            broker.start()
            with broker.watch("history/#") as seen:
                loop.until(lambda: outbox.progress["mqtt"].delivered == 601, "all to be delivered")
                measure(601, 1)
                loop.until(lambda: 601 in told(seen), "the mark")
                assert before | told(seen) >= set(range(1, 602))
        finally:
            delivery.leave()
            delivery.join()
        loop.turn()
        assert_conserved(outbox)
        assert outbox.progress["mqtt"].memo["meter/d/energy_wh"] == STAMP.offset_ns + 601 * 1_000_000
        outbox.close()


def test_a_host_that_nobody_knows_is_down(site: Site) -> None:
    table = msgspec.convert({"host": "nobody.invalid", "port": free_ports(1)[0]}, Options)
    _opened.append(Mqtt(table, site, Memo()))
    with pytest.raises(OutputDown, match=r"nobody\.invalid"):
        _opened[-1].write(Batch([fridge(power_w=1.0)]))
