"""The source `glow` at a real Mosquitto: what is a reading and what is said again, and whose meter it is."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import workers.glow
from reading import Origin, Reading
from tests.peers.mosquitto import Mosquitto, running_mosquitto
from tests.peers.mqtt_fake import CONNECT, SUBSCRIBE, WELCOME, fake_broker, suback
from tests.workers.broker_bench import count, kept_by_the_parent, opened, read_until
from workers import SourceError, source_class
from workers.glow import Device, Glow, Options

MAC, OTHER = "1234567890AB", "1234567890AC"
GRID = {"name": "grid", "meter": "electricity"}
GAS = {"name": "gas", "meter": "gas"}
TIME_S = 1_795_179_610  # 2026-11-20T13:00:10Z


def electricity(second: int = 10, kwh: float | None = 4595.563, kw: float | None = -0.350) -> bytes:
    energy = {
        "export": {"cumulative": 12.004, "units": "kWh"},
        "import": {"cumulative": kwh, "units": "kWh", "price": {"unitrate": 0.24860, "standingcharge": 0.53370}},
    }
    meter = {
        "timestamp": f"2026-11-20T13:00:{second:02}Z",
        "energy": energy,
        "power": {"value": kw, "units": "kW"},
    }
    return json.dumps({"electricitymeter": meter}).encode()


def gas(minute: int = 0, m3: float = 1603.22) -> bytes:
    register = {"cumulative": 17940.852, "units": "kWh", "cumulativevol": m3, "cumulativevolunits": "m3"}
    meter = {"timestamp": f"2026-11-20T12:{minute:02}:52Z", "energy": {"import": register}}
    return json.dumps({"gasmeter": meter}).encode()


def cloud(second: int = 10, watts: str = "FFFEA2") -> bytes:
    formatting = {"00": "00", "01": "000001", "02": "0003E8"}
    summations = {"00": "000000461F6B", "01": "000000002EE4"}
    meter = {"00": summations, "03": formatting, "04": {"00": watts}}
    fuel = {"00": {"00": "000000187689"}, "03": {**formatting, "00": "01"}}
    return json.dumps({"elecMtr": {"0702": meter}, "gasMtr": {"0702": fuel}, "gmtime": TIME_S - 10 + second}).encode()


def make(broker: Mosquitto | int, *devices: dict[str, Any], **more: Any) -> Glow:
    port = broker if isinstance(broker, int) else broker.port
    options = {"kind": "glow", "port": port, "keep_session": False, "devices": devices or (GRID, GAS), **more}
    return Glow("smart", msgspec.convert(options, Options))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Topics of one's own at the broker that the tests share."""
    return str(request.node.name)[:60].replace("[", "-")


def values(readings: list[Reading]) -> list[tuple[str, dict[str, Any]]]:
    return [(reading.device, dict(reading.values)) for reading in readings]


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.glow.__doc__ or "").splitlines() if line.startswith("    "))
    written = tomllib.loads(text)["sources"]["smart"]
    assert msgspec.convert(written, Options) == Options(kind="glow", devices=(Device(name="grid"),))
    assert {*written} == {*Options.__struct_fields__}
    assert {*written["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("glow") is Glow


BRIGHT = {"feed": "cloud", "username": "me@example.com", "password_env": "BRIGHT", "devices": [{**GRID, "mac": MAC}]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": []}, "no device is configured"),
        ({"devices": [GRID, {**GAS, "name": "grid"}]}, "grid is configured twice"),
        ({"devices": [GRID, {**GRID, "name": "two"}]}, "may be the same electricity meter"),
        ({"devices": [{**GRID, "mac": MAC}, {**GRID, "name": "two", "mac": MAC}]}, "may be the same"),
        ({"devices": [{**GRID, "mac": MAC.lower()}]}, "12 hexadecimal digits in capitals"),
        ({"devices": [{**GRID, "mac": "12:34:56:78:90:AB"}]}, "12 hexadecimal digits in capitals"),
        ({"devices": [{**GRID, "meter": "water"}]}, "meter"),
        ({"prefix": "glow/#"}, "prefix has a wildcard"),
        ({**BRIGHT, "port": 1883}, "port 1883 is not encrypted"),
        ({**BRIGHT, "username": ""}, "the user and the password of the Bright app"),
        ({**BRIGHT, "password_env": ""}, "the user and the password of the Bright app"),
        ({**BRIGHT, "devices": [GRID]}, "set the mac of grid"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "glow", "devices": [GRID], **change}, Options)


def test_each_feed_has_its_own_place_and_the_cloud_always_has_tls() -> None:
    local = msgspec.convert({"kind": "glow", "devices": [GRID]}, Options).broker()
    assert (local.host, local.port, local.tls, local.keep_session) == ("127.0.0.1", 1883, False, True)
    assert msgspec.convert({"kind": "glow", "devices": [GRID], "tls": True}, Options).broker().port == 8883
    for tls in ({}, {"tls": False}):
        there = msgspec.convert({"kind": "glow", **BRIGHT, **tls}, Options).broker()
        assert (there.host, there.port, there.tls) == ("glowmqtt.energyhive.com", 8883, True)
        assert not there.keep_session


# What is a reading


def test_electricity_gas_export_and_tariff_are_readings_at_the_time_of_the_meter(
    broker: Mosquitto, prefix: str
) -> None:
    with opened(make(broker, prefix=prefix)) as source:
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity())
        broker.publish(f"{prefix}/{MAC}/SENSOR/gasmeter", gas())
        readings = read_until(source, count(2))
    assert values(readings) == [
        (
            "grid",
            {
                "device_energy_wh": 4595563.0,
                "power_w": -350.0,
                "device_energy_export_wh": 12004.0,
                "unit_rate_per_kwh": 0.2486,
                "standing_charge_per_day": 0.5337,
            },
        ),
        ("gas", {"device_energy_wh": 17940852.0, "gas_m3": 1603.22}),
    ]
    assert readings[0].origin == Origin("meter", TIME_S, TIME_S * 10**9)
    assert (source.troubles, source.refused.total()) == ({}, 0)


def test_what_is_said_again_is_counted_and_no_reading(broker: Mosquitto, prefix: str) -> None:
    with opened(make(broker, prefix=prefix)) as source:
        for second, minute in ((10, 0), (10, 0), (20, 0), (20, 0), (30, 30)):
            broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(second, 4595.5 + second))
            broker.publish(f"{prefix}/{MAC}/SENSOR/gasmeter", gas(minute))
        readings = read_until(source, count(5))
    assert [reading.device for reading in readings].count("gas") == 2
    assert [
        reading.origin.sequence - TIME_S for reading in readings if reading.origin and reading.device == "grid"
    ] == [
        0,
        10,
        20,
    ]
    assert source.refused == {"repeated": 5}


def test_what_the_broker_kept_is_booked_at_the_time_of_the_meter(broker: Mosquitto, prefix: str) -> None:
    options: dict[str, Any] = {"prefix": prefix, "keep_session": True, "client_id": prefix}
    with opened(make(broker, **options)):
        pass
    for second in (10, 20, 30):
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(second))
    undated = electricity(kwh=4595.6).replace(b"2026-11-20T13:00:10Z", b"soon")
    broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", undated)
    with opened(make(broker, **options)) as source:
        readings = read_until(source, lambda _: source.refused["stale"])
    assert [reading.origin.time_ns // 10**9 - TIME_S for reading in readings if reading.origin] == [0, 10, 20]
    assert source.refused == {"stale": 1}


def test_a_message_that_was_not_acknowledged_comes_again_with_its_number(broker: Mosquitto, prefix: str) -> None:
    options: dict[str, Any] = {"prefix": prefix, "keep_session": True, "client_id": prefix}
    with kept_by_the_parent() as kept:
        first, second = make(broker, **options), make(broker, **options)
        first.kept = second.kept = kept
        with opened(first):
            broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity())
            [before] = read_until(first, count(1))
        with opened(second):
            [again] = read_until(second, count(1))
    assert (again.origin, again.values) == (before.origin, before.values), "so the writer books it once"


def test_a_retained_reading_is_stale_and_the_state_is_believed(broker: Mosquitto, prefix: str) -> None:
    broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(), retain=True)
    broker.publish(f"{prefix}/{MAC}/STATE", b'{"han": {"rssi": -75, "status": "scanning"}}', retain=True)
    with opened(make(broker, GRID, prefix=prefix)) as source:
        read_until(source, lambda _: source.refused["stale"] and source.troubles)
        assert source.troubles["grid"].startswith("the display does not hear its meter; move it nearer")
        broker.publish(f"{prefix}/{MAC}/STATE", b'{"han": {"rssi": -75, "status": "joined"}}')
        read_until(source, lambda _: not source.troubles)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (electricity(kw=-8388.608), "not_finite"),
        (electricity(kw=99.0), "out_of_range"),
        (b"{", "malformed"),
        (b"x" * 17_000, "too_large"),
    ],
)
def test_what_the_meter_does_not_know_is_refused_and_the_rest_stays(
    broker: Mosquitto, prefix: str, payload: bytes, reason: str
) -> None:
    with opened(make(broker, prefix=prefix)) as source:
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", payload)
        readings = read_until(source, lambda _: source.refused[reason])
        assert source.refused.total() == 1
        assert [reading.values.get("device_energy_wh") for reading in readings] in ([], [4595563.0])
        assert all("power_w" not in reading.values for reading in readings)
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(50))
        assert read_until(source, count(1))
        assert source.troubles == {}


# Whose meter it is


def test_registers_of_two_displays_never_become_one_series(broker: Mosquitto, prefix: str) -> None:
    with opened(make(broker, GRID, prefix=prefix)) as source:
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(10))
        assert len(read_until(source, count(1))) == 1
        broker.publish(f"{prefix}/{OTHER}/SENSOR/electricitymeter", electricity(10, kwh=7.0))
        read_until(source, lambda _: source.troubles)
        assert source.troubles["grid"] == f"two displays speak, {MAC} and {OTHER}; set mac to the one that is meant"
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(20))
        assert read_until(source, lambda _: source.refused["unknown_device"] == 2) == []


def test_each_display_has_its_own_series_where_the_configuration_names_them(broker: Mosquitto, prefix: str) -> None:
    flats = [{"name": "left", "mac": MAC}, {"name": "right", "mac": OTHER}]
    with opened(make(broker, *flats, prefix=prefix)) as source:
        broker.publish(f"{prefix}/{OTHER}/SENSOR/electricitymeter", electricity(kwh=2.0))
        broker.publish(f"{prefix}/{MAC}/SENSOR/electricitymeter", electricity(kwh=1.0))
        readings = read_until(source, count(2))
    assert [(reading.device, reading.values["device_energy_wh"]) for reading in readings] == [
        ("right", 2000.0),
        ("left", 1000.0),
    ]


# The cloud


@pytest.fixture(scope="module")
def hildebrand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """What wattherd sees of the cloud: TLS, a password, one topic, and nothing may be published there."""
    folder = tmp_path_factory.mktemp("hildebrand")
    (folder / "acl").write_text("user herd\ntopic readwrite SMART/HILD/#\n")
    with running_mosquitto(folder, tls=True, password=True, options=(f"acl_file {folder}/acl",)) as broker:
        yield broker


def bright(broker: Mosquitto, **more: Any) -> Glow:
    devices = [{**GRID, "mac": MAC}, {**GAS, "mac": MAC}]
    place = {"host": "localhost", "ca_file": str(broker.ca_file), "username": broker.username, "password_env": "BRIGHT"}
    return make(broker, *devices, **{"feed": "cloud", "keep_session": True, **place, **more})


def test_the_cloud_tells_of_both_meters_in_one_message(hildebrand: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIGHT", hildebrand.password)
    with opened(bright(hildebrand)) as source:
        for second, watts in ((10, "FFFEA2"), (10, "FFFEA2"), (20, "800000")):
            hildebrand.publish(f"SMART/HILD/{MAC}", cloud(second, watts))
        readings = read_until(source, count(3))
    registers = {"device_energy_wh": 4595563.0, "device_energy_export_wh": 12004.0}
    assert values(readings) == [
        ("grid", {**registers, "power_w": -350.0}),
        ("gas", {"gas_m3": pytest.approx(1603.209)}),
        ("grid", registers),
    ]
    assert source.refused == {"repeated": 3, "not_finite": 1}


def test_the_cloud_is_not_told_the_password_without_tls(
    broker: Mosquitto, hildebrand: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIGHT", "secret-of-bright")
    source = bright(hildebrand, port=broker.port)
    with pytest.raises(SourceError, match="does not speak TLS there"):
        source.open()
    source.close()
    assert "secret-of-bright" not in broker.log


def test_an_account_that_may_not_listen_is_told_whom_to_ask() -> None:
    """Hildebrand's cloud refuses the subscription itself."""

    def answer(kind: int, body: bytes) -> bytes:
        return suback(body, lambda _: 0x80) if kind == SUBSCRIBE else WELCOME if kind == CONNECT else b""

    with fake_broker(answer) as port:
        source = make(port, {**GRID, "mac": MAC})
        source._is_cloud = True  # the same, without the certificate
        source._routes = Glow("smart", msgspec.convert({"kind": "glow", **BRIGHT}, Options))._routes
        with pytest.raises(SourceError) as failure:
            source.open()
        source.close()
    assert failure.value.what == f"the cloud does not let this account hear SMART/HILD/{MAC}"
    assert failure.value.what_now.startswith("ask Hildebrand to enable the account for MQTT, and see that mac")


def test_a_broker_of_the_house_that_dies_is_an_error(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        source = make(broker)
        with opened(source):
            broker.stop(9)
            with pytest.raises(SourceError, match="closed the connection"):
                read_until(source, lambda _: False)
