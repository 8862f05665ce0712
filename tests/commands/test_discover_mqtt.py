"""Looking round at a broker: whoever speaks there is named, and what is printed is a configuration that works."""

from __future__ import annotations

import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands import _discover_glow, _discover_mqtt
from commands._discover_mqtt import Address, recognised
from commands._discovery import Discovery
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.mqtt_fake import CONNECT, SUBSCRIBE, WELCOME, fake_broker, suback
from tests.peers.process import free_ports
from tests.workers.broker_bench import count, opened, read_until
from workers import glow, mqtt

TASMOTA = b'{"Time":"2026-11-20T20:52:56","ENERGY":{"Total":514.153,"Power":56,"Voltage":234}}'
TWO = b'{"ENERGY":{"Total":[2.813,0.254],"Power":[52,5]}}'
SHELLY = b'{"id":0,"apower":10.7,"voltage":120.7,"aenergy":{"total":46791.262}}'
CHANGE = b'{"src":"s","method":"NotifyStatus","params":{"ts":1682952866.12,"switch:1":{"id":1,"apower":10.9}}}'
GLOW = b"""{"electricitymeter":{"timestamp":"2026-11-20T13:00:10Z","energy":{"import":{"cumulative":4595.563,
"units":"kWh","price":{"unitrate":0.2486,"standingcharge":0.5337}}},"power":{"value":-0.350,"units":"kW"}}}"""
GAS = b"""{"gasmeter":{"timestamp":"2026-11-20T12:58:52Z","energy":{"import":{"cumulative":17940.852,"units":"kWh",
"cumulativevol":1603.22,"cumulativevolunits":"m3"}}}}"""
EVERYBODY = {
    "wattherd/pulse/esp32-meter/state": b'{"device":"esp32-meter","boot":"a","seq":1,"pulses_total":91234}',
    "tele/plug1/SENSOR": TASMOTA,
    "cellar/tele/freezer/SENSOR": TWO,
    "shellies/shelly3em-1/emeter/0/power": b"56.2",
    "shellies/shelly3em-1/emeter/1/total": b"1234.5",
    "shellyplus1pm-a8/status/switch:0": SHELLY,
    "shellyplus2pm-b9/events/rpc": CHANGE,
    "zigbee2mqtt/kettle": b'{"state":"ON","power":86.1,"voltage":238,"energy":12.34,"linkquality":120}',
    "node/sensor/house_power/state": b"1492.3",
    "node/sensor/wifi/state": b"-61",
    "homeassistant/sensor/node/house_power/config": (
        b'{"~":"node/sensor/house_power","stat_t":"~/state","unit_of_meas":"W"}'
    ),
    "mystery/thing": b'{"watt": 5}',
    "wattherd/home/meter/other": b'{"power_w": 5}',
    "zigbee2mqtt/bridge/info": b'{"version": "2"}',
    "glow/1234567890AB/SENSOR/electricitymeter": GLOW,
    "sounds/doorbell": b"ding",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@contextmanager
def talking(broker: Mosquitto, messages: dict[str, bytes]) -> Iterator[None]:
    """Devices that speak again and again."""
    leaving = threading.Event()

    def talk() -> None:
        with broker.client() as client:
            while not leaving.wait(0.05):
                for topic, payload in messages.items():
                    client.publish(topic, payload, qos=1)

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join(20)


def until_found(look: Callable[[float], Discovery], number: int) -> Discovery:
    """Look longer until so much is found; a busy machine may need it."""
    for listen_s in (0.5, 2.0, 8.0):
        found = look(listen_s)
        if len(found.found) >= number:
            break
    return found


def options_of(found: Discovery, kind: type[mqtt.Options] | type[glow.Options]) -> Any:
    [table] = tomllib.loads(found.block)["sources"].values()
    return msgspec.convert(table, kind)


def test_everybody_who_measures_is_named_and_the_block_works(broker: Mosquitto) -> None:
    with talking(broker, EVERYBODY):
        found = until_found(lambda listen_s: _discover_mqtt.look(Address(port=broker.port), listen_s), 10)
        options = options_of(found, mqtt.Options)
        source = mqtt.Mqtt("broker", msgspec.structs.replace(options, keep_session=False))
        names = {device.name for device in options.devices}
        with opened(source):
            spoken = read_until(source, lambda readings: {reading.device for reading in readings} == names)
    assert found.problems == []
    assert [(device.name, device.dialect, device.topic, device.channel) for device in options.devices] == [
        ("freezer", "tasmota", "cellar/%prefix%/freezer", 1),
        ("freezer-2", "tasmota", "cellar/%prefix%/freezer", 2),
        ("node", "esphome", "node", 1),
        ("shelly3em-1", "shelly", "shelly3em-1", 1),
        ("shelly3em-1-2", "shelly", "shelly3em-1", 2),
        ("shellyplus1pm-a8", "shelly", "shellyplus1pm-a8", 1),
        ("shellyplus2pm-b9-2", "shelly", "shellyplus2pm-b9", 2),
        ("plug1", "tasmota", "plug1", 1),
        ("esp32-meter", "esp32", "esp32-meter", 1),
        ("kettle", "zigbee2mqtt", "zigbee2mqtt/kettle", 1),
    ]
    assert {reading.device for reading in spoken} == names
    assert "plug1: tasmota, topic plug1: power_w 56, device_energy_wh 514153, voltage_v 234" in found.lines
    assert "a Glow display: ./orchestrator.py discover glow" in found.lines
    assert [line for line in found.lines if "no dialect" in line] == ["no dialect that is known: mystery/thing"]
    assert found.status == 0


def test_sensors_whose_units_nobody_tells_are_told_and_left_to_the_person() -> None:
    candidates, unknown = recognised({"node/sensor/a/state": b"1", "node/sensor/b/state": b"2.5"})
    assert [(one.kind.topic, one.sensors) for one in candidates] == [("node", {"a": "", "b": ""})]
    assert unknown == []


def test_a_stranger_cannot_write_the_configuration() -> None:
    """Names in the block are made of letters and digits, and topics are quoted."""
    evil = 'plug"]\n[outputs.evil]\nx = "1'
    heard = {f"tele/{evil}/SENSOR": TASMOTA, "tele/§§§/SENSOR": TASMOTA, "tele/§§§ /SENSOR": TASMOTA}
    candidates, _ = recognised(heard)
    names: set[str] = set()
    blocks = [_discover_mqtt.broker_block("broker", "mqtt", Address())]
    for candidate in candidates:
        name = _discover_mqtt._name(candidate, names)
        _discover_mqtt._ask(candidate, name)
        blocks.append(_discover_mqtt._device_block(candidate, name))
    table = tomllib.loads("\n".join(blocks))
    assert {*table} == {"sources"}
    assert len({device["name"] for device in table["sources"]["broker"]["devices"]}) == 3


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"1e999", b"\xff\xfe", b"x" * 20_000, b'{"ENERGY": 5}', b"null"])
def test_nonsense_under_known_topics_is_no_device(payload: bytes) -> None:
    heard = {topic: payload for topic in EVERYBODY if not topic.startswith("wattherd/pulse/")}
    candidates, _ = recognised(heard)
    for number, candidate in enumerate(candidates):
        _discover_mqtt._ask(candidate, f"device-{number}")
        assert candidate.values == {}


def test_a_broker_on_which_nobody_speaks_says_what_to_try(broker: Mosquitto) -> None:
    found = _discover_mqtt.look(Address(port=broker.port), 0.2)
    assert (found.status, found.block) == (1, "")
    assert "nothing at all was said to us" in found.problems[0]
    assert any("--wait 310" in words for words in found.what_now)


def test_a_broker_that_is_not_there_or_refuses_is_told() -> None:
    def answer(kind: int, body: bytes) -> bytes:
        return suback(body, lambda _: 0x80) if kind == SUBSCRIBE else WELCOME if kind == CONNECT else b""

    [port] = free_ports(1)
    for look in (_discover_mqtt.look, _discover_glow.look):
        assert "; start the broker" in look(Address(port=port), 0.1).problems[0]
        with fake_broker(answer) as refusing:
            assert "does not let us hear" in look(Address(port=refusing), 0.1).problems[0]


def test_no_password_crosses_the_internet_in_the_clear(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIGHT", "secret-of-bright")
    far = Address("broker.example.com", username="me", password_env="BRIGHT")
    assert "in the clear; use TLS" in _discover_mqtt.look(far, 0.1).problems[0]
    found = _discover_glow.look(Address(port=broker.port, username="me", password_env="BRIGHT"), 0.1, "1234567890AB")
    assert "does not speak TLS" in found.problems[0]


def test_looking_leaves_the_session_and_the_messages_of_the_house_alone(broker: Mosquitto) -> None:
    plug = {"name": "plug", "dialect": "tasmota", "topic": "plug9"}
    source = mqtt.Mqtt(
        "broker", msgspec.convert({"kind": "mqtt", "port": broker.port, "devices": [plug]}, mqtt.Options)
    )
    with opened(source):
        _discover_mqtt.look(Address(port=broker.port), 0.2)
        broker.publish("tele/plug9/SENSOR", TASMOTA)
        assert len(read_until(source, count(1))) == 1


def test_a_display_is_named_with_what_it_announces_and_the_block_works(broker: Mosquitto) -> None:
    said = {
        "glow/1234567890AB/SENSOR/electricitymeter": GLOW,
        "glow/1234567890AB/SENSOR/gasmeter": GAS,
        "glow/1234567890AB/STATE": b'{"han": {"status": "joined"}}',
    }
    with talking(broker, said):
        found = until_found(lambda listen_s: _discover_glow.look(Address(port=broker.port), listen_s), 2)
        options = options_of(found, glow.Options)
        source = glow.Glow("smart", msgspec.structs.replace(options, keep_session=False))
        with opened(source):
            readings = read_until(source, count(2))
    assert {reading.device for reading in readings} == {"grid", "gas"}
    assert {device.mac for device in options.devices} == {"1234567890AB"}
    assert found.lines == [
        "electricity meter of display 1234567890AB: import 4595.56 kWh, power -350 W, it announces 0.2486 per kWh,"
        " and 0.5337 per day",
        "gas meter of display 1234567890AB: import 17940.9 kWh, gas 1603.22 m³",
    ]
    assert found.status == 0


def test_a_display_that_hears_no_meter_is_told(broker: Mosquitto) -> None:
    with talking(broker, {"glow/1234567890AB/STATE": b'{"han": {"status": "scanning"}}'}):
        deadline_s = time.monotonic() + 10
        while not (found := _discover_glow.look(Address(port=broker.port), 0.5)).problems:
            assert time.monotonic() < deadline_s
    assert found.problems[0].startswith("the display 1234567890AB does not hear its meter; move it nearer")
    assert found.status == 1


def test_the_cloud_is_asked_for_one_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = json.dumps(
        {"elecMtr": {"0702": {"00": {"00": "000000461F6B"}, "03": {"00": "00", "01": "000001", "02": "0003E8"}}}}
    ).encode()
    with running_mosquitto(tmp_path, tls=True, password=True) as cloud:
        monkeypatch.setenv("BRIGHT", cloud.password)
        address = Address("localhost", cloud.port, cloud.username, "BRIGHT", tls=True, ca_file=str(cloud.ca_file))
        with talking(cloud, {"SMART/HILD/1234567890AB": payload, "SMART/HILD/1234567890AC": payload}):
            found = until_found(lambda listen_s: _discover_glow.look(address, listen_s, "1234567890AB"), 1)
    assert found.lines == ["electricity meter of display 1234567890AB: import 4595.56 kWh"]
    options = options_of(found, glow.Options)
    assert (options.feed, options.username, options.password_env) == ("cloud", cloud.username, "BRIGHT")
