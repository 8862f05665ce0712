"""What the ESP32 reader sends: whatever happens on the way, every total arrives, once, at the time it was measured."""

from __future__ import annotations

import http.client
import itertools
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reading import Reading
from tests.deploy.micropython.interpreter import Interpreter, interpreter
from tests.peers.mosquitto import running_mosquitto
from tests.peers.process import free_ports
from workers import _dialects
from workers._esp32 import Device, decode
from workers.esp32_http import Esp32Http, Options
from workers.mqtt import Mqtt
from workers.mqtt import Options as MqttOptions

ROOT = Path(__file__).parents[2]
METER = {"esp32-meter": Device(name="esp32-meter")}


@pytest.fixture(scope="module")
def esp32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    with interpreter(tmp_path_factory.mktemp("esp32") / "log") as micropython:
        yield micropython


def readings_of(bodies: list[list[Any]]) -> list[Reading]:
    """Decode bodies as wattherd does, at the instants when they came; `at_ns` is in the time of the board."""
    return [
        message.reading
        for at_ms, body in bodies
        for message in decode(body.encode(), METER, round(at_ms) * 1_000_000, "meter")
    ]


def booked(bodies: list[list[Any]]) -> list[Reading]:
    """Post bodies one by one to a real receiver, and return what it lets through."""
    source = Esp32Http("meter", Options(kind="esp32_http", port=0, devices=(Device(name="esp32-meter"),)))
    source.round_s = 0.005
    readings: list[Reading] = []
    source.open()
    try:
        for _, body in bodies:
            with closing(http.client.HTTPConnection("127.0.0.1", source.address[1], timeout=10)) as connection:
                connection.request("POST", "/api/v1/ingest/pulse", body)
                before = time.monotonic()
                while not (came := source.read()) and not source.refused["repeated"]:
                    assert time.monotonic() < before + 10
                source.refused["repeated"] = 0
                source.read()
                assert connection.getresponse().status == 200
                readings += came
    finally:
        source.close()
    return readings


def numbers(readings: list[Reading]) -> list[int]:
    return [reading.origin.sequence for reading in readings if reading.origin]


def instants_s(readings: list[Reading]) -> list[float]:
    return [round(reading.at_ns / 1e9) for reading in readings]


# ---- HTTP


def test_each_message_has_what_wattherd_wants_and_shows_the_token(esp32: Interpreter) -> None:
    bodies, head = esp32.run("""
    import secrets
    secrets.TOKEN = "a-long-token"
    hardware.peer = HttpPeer()
    monitor = boot()
    pulses(1000, 2400, 60)
    run(monitor, 125000, 100)
    result = [hardware.peer.bodies, hardware.peer.heads[0]]
    """)
    readings = readings_of(bodies)
    assert [reading.values.get("pulses") for reading in readings] == [0, 13, 25, 38, 50]
    assert [reading.values.get("power_w") for reading in readings][2:] == [1500.0] * 3
    assert numbers(readings) == [1, 2, 3, 4, 5]
    assert instants_s(readings) == [0, 30, 60, 90, 120]
    assert [body[0] for _, body in bodies] == ["{"] * 5
    assert head.startswith("POST /api/v1/ingest/pulse HTTP/1.1\r\n")
    assert "\r\nAuthorization: Bearer a-long-token\r\n" in head
    assert "a-long-token" not in "\n".join(esp32.console)


def test_after_hours_without_wifi_everything_arrives_in_order_at_its_own_time(esp32: Interpreter) -> None:
    bodies, total = esp32.run("""
    import config
    config.REPORT_S = 120
    hardware.peer = HttpPeer()
    monitor = boot()
    pulses(5000, 10000, 1800)
    run(monitor, 580000, 500)
    hardware.wifi_is_up = False
    run(monitor, 4 * 3600 * 1000 + 20000, 5000)
    hardware.wifi_is_up = True
    run(monitor, 15000, 10)                            # a board that steps slowly sends slowly
    run(monitor, 165000, 500)
    result = [hardware.peer.bodies, monitor._count.total]
    """)
    assert total == (600 + 4 * 3600 + 180) // 10
    readings = readings_of(bodies)
    assert numbers(readings) == list(range(1, len(readings) + 1))
    assert instants_s(readings) == [120 * (number - 1) for number in numbers(readings)]
    assert [reading.values["pulses"] for reading in readings] == [at_s // 10 for at_s in instants_s(readings)]
    assert max(body.count("seq") for _, body in bodies) == 20
    assert len(readings) == 1 + (600 + 4 * 3600 + 180) // 120


def test_an_outage_of_eight_days_costs_detail_and_no_pulse_and_no_memory(esp32: Interpreter) -> None:
    bodies, at_ms, total, used = esp32.run(
        """
    import config, gc
    config.REPORT_S = 600
    config.WATCHDOG_S = 0
    hardware.peer = HttpPeer()
    monitor = boot()
    hardware.wifi_is_up = False
    used = []
    steps = 0
    def is_over():
        global steps, result
        if steps < 8 * 144:
            if steps % 72 == 0:
                used.append(gc.mem_alloc())            # what is still in use after it was tidied
            for _ in range(12):
                steps += 1
                monitor._count.pulse(clock.now_ms)
                monitor.step()
                clock.advance(600000)
            gc.collect()
            return False
        back_ms = clock.now_ms
        hardware.wifi_is_up = True
        run(monitor, 60000, 200)
        result = [hardware.peer.bodies, back_ms, monitor._count.total, used]
        return True
    """
    )
    assert total == 8 * 144
    readings = readings_of(bodies)  # none of them is refused for its age
    assert readings[-1].values["pulses"] == total
    assert numbers(readings) == sorted({*numbers(readings)})
    assert 100 < len(readings) <= 190
    gaps_s = [(later.at_ns - earlier.at_ns) / 1e9 for earlier, later in itertools.pairwise(readings)]
    assert max(gaps_s) <= 3 * 6 * 86400 / 180  # what is left is spread over the whole outage
    assert (at_ms * 1_000_000 - readings[0].at_ns) / 1e9 > 5.5 * 86400
    assert max(used[4:]) - min(used[4:]) < 2000, used
    assert used[-1] - used[0] < 40_000, used


@pytest.mark.parametrize("fault", ["500", '"hangs"', '"breaks"', '"taken, but the answer is lost"', "503"])
def test_what_was_not_acknowledged_comes_again_with_its_number_and_is_booked_once(
    esp32: Interpreter, fault: str
) -> None:
    bodies, taken, total, kept = esp32.run(f"""
    faults = 0
    def answer(body):
        global faults
        faults += 1
        return {fault} if faults in (2, 4, 5, 6) else 200
    hardware.peer = HttpPeer(answer)
    monitor = boot()
    pulses(500, 1000, 600)
    run(monitor, 300500, 250)
    run(monitor, 25000, 250)
    result = [hardware.peer.bodies, hardware.peer.taken, monitor._reported[0], len(monitor._backlog)]
    """)
    assert kept == 0
    everything = booked(bodies)  # a receiver that took all that was ever sent, the repeats too
    assert numbers(everything) == list(range(1, 12))
    assert everything[-1].values["pulses"] == total
    assert len(readings_of(bodies)) > len(everything)
    assert {*numbers(readings_of([[400_000, body] for body in taken]))} == {*range(1, 12)}


def test_one_message_that_is_refused_holds_up_no_other_one(esp32: Interpreter) -> None:
    posted, kept = esp32.run("""
    import json
    def answer(body):
        return 422 if '"seq": 3,' in body else 200
    hardware.peer = HttpPeer(answer)
    hardware.wifi_is_up = False
    monitor = boot()
    run(monitor, 200000, 1000)
    hardware.wifi_is_up = True
    run(monitor, 60000, 250)
    result = [hardware.peer.taken, len(monitor._backlog)]
    """)
    assert kept == 0
    taken = numbers(readings_of([[260_000, body] for body in posted]))
    assert sorted(taken) == [1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("status", "word"), [(422, "as the test wants it"), (401, "401"), (404, "404")])
def test_a_receiver_that_refuses_everything_gets_everything_once_it_is_mended(
    esp32: Interpreter, status: int, word: str
) -> None:
    taken, attempts = esp32.run(f"""
    hardware.peer = HttpPeer(lambda body: {status} if clock.now_ms < 1200000 else 200)
    monitor = boot()
    run(monitor, 1200000, 1000)
    attempts = len(hardware.peer.bodies)
    run(monitor, 90000, 500)
    result = [hardware.peer.taken, attempts]
    """)
    readings = readings_of([[1_290_000, body] for body in taken])
    assert sorted(numbers(readings)) == list(range(1, 44))
    assert any(word in line for line in esp32.console)
    assert attempts < 120  # it does not storm at somebody who says no


def test_a_receiver_that_is_away_is_tried_ever_more_rarely_and_counting_goes_on(esp32: Interpreter) -> None:
    sockets, open_ones, total = esp32.run("""
    monitor = boot()                                   # nobody answers at all
    pulses(500, 10000, 360)
    run(monitor, 3600000, 2000)
    result = [len(hardware.sockets), sum(not each.is_closed for each in hardware.sockets), monitor._count.total]
    """)
    assert 40 < sockets < 60
    assert open_ones <= 1
    assert total == 360
    assert any("see that wattherd runs there" in line for line in esp32.console)


def test_what_waited_goes_out_as_soon_as_the_wifi_is_back(esp32: Interpreter) -> None:
    kept = esp32.run("""
    monitor = boot()                                   # the Pi is off: tried once a minute
    run(monitor, 1210000, 1000)
    hardware.wifi_is_up = False                        # the power fails, and comes back for all
    run(monitor, 2000, 100)
    hardware.wifi_is_up = True
    hardware.peer = HttpPeer(after_ms=100)
    run(monitor, 6000, 10)
    result = [len(monitor._backlog), len(hardware.peer.bodies)]
    """)
    assert kept == [0, 3]


def test_wifi_is_begun_anew_now_and_then_and_its_fault_is_told(esp32: Interpreter) -> None:
    attempts, name = esp32.run("""
    hardware.wifi_is_up = False
    monitor = boot()
    hardware.wifi_status = network.STAT_NO_AP_FOUND
    run(monitor, 300000, 500)
    hardware.wifi_status = network.STAT_WRONG_PASSWORD
    run(monitor, 300000, 500)
    result = [WLAN.attempts, network.name]
    """)
    assert 8 <= attempts <= 14
    assert name == "esp32-meter"
    said = "\n".join(esp32.console)
    assert 'there is no "my-wifi" on 2.4 GHz; correct WIFI_NAME' in said
    assert "the password is wrong; correct WIFI_PASSWORD" in said
    assert "my-password" not in said


# ---- MQTT


def unpacked(packets: list[list[Any]]) -> list[tuple[int, int, str, bytes]]:
    """Return (instant, first byte, topic, payload) of each PUBLISH."""
    published = []
    for at_ms, text in packets:
        packet = bytes.fromhex(text)
        if packet[0] >> 4 == 3:
            body = packet[3 if packet[1] & 0x80 else 2 :]
            end = 2 + int.from_bytes(body[:2], "big")
            published.append((at_ms, packet[0], body[2:end].decode(), body[end + 2 :]))
    return published


def test_over_mqtt_messages_have_qos_1_and_a_last_will_and_the_link_is_kept_alive(esp32: Interpreter) -> None:
    packets, sockets = esp32.run("""
    import config, secrets
    config.SEND, config.PORT = "mqtt", 1883
    secrets.MQTT_USER, secrets.MQTT_PASSWORD = "herd", "a-long-password"
    hardware.peer = MqttPeer()
    config.REPORT_S = 300
    monitor = boot()
    pulses(500, 1000, 1000)
    run(monitor, 700000, 500)
    result = [hardware.peer.packets, len(hardware.sockets)]
    """)
    hello = bytes.fromhex(packets[0][1])
    assert hello[0] == 0x10
    assert b"\x00\x04MQTT\x04" in hello
    flags = hello[hello.index(b"MQTT") + 5]
    assert flags == 0b11101110  # user, password, will retained, will QoS 1, will, clean session
    will = b"\x00\x21wattherd/pulse/esp32-meter/status\x00\x07offline"
    assert hello.endswith(will + b"\x00\x04herd\x00\x0fa-long-password")
    online, *states = unpacked(packets)
    assert online[1:] == (0x33, "wattherd/pulse/esp32-meter/status", b"online")
    assert [each[1:3] for each in states] == [(0x32, "wattherd/pulse/esp32-meter/state")] * 3
    readings = readings_of([[at_ms, payload.decode()] for at_ms, _, _, payload in states])
    assert instants_s(readings) == [0, 300, 600]
    assert readings[-1].values["pulses"] == 600
    assert sockets == 1
    quiet_ms = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(packets)]
    assert max(quiet_ms) < 45_000  # the broker waits for 90 s


def test_over_mqtt_what_the_broker_has_not_acknowledged_comes_again(esp32: Interpreter) -> None:
    packets, kept = esp32.run("""
    import config
    config.SEND, config.PORT = "mqtt", 1883
    heard = 0
    def acknowledges(payload):
        global heard
        heard += payload != b"online"
        return heard not in (2, 3)
    hardware.peer = MqttPeer(acknowledges=acknowledges)
    monitor = boot()
    pulses(500, 1000, 1000)
    run(monitor, 175000, 250)
    result = [hardware.peer.packets, len(monitor._backlog)]
    """)
    assert kept == 0
    bodies = [[at_ms, payload.decode()] for at_ms, _, topic, payload in unpacked(packets) if topic.endswith("state")]
    assert numbers(booked(bodies)) == [1, 2, 3, 4, 5, 6]
    assert len(numbers(readings_of(bodies))) > 6


@pytest.mark.parametrize(
    ("peer", "said", "kept"),
    [
        ("MqttPeer(code=4)", "correct MQTT_USER and MQTT_PASSWORD in secrets.py", 2),
        ("MqttPeer(code=5)", "allow it in the configuration of the broker", 2),
        ("MqttPeer(code=9)", "it refuses the connection (9)", 2),
        ("MqttPeer(pongs=False)", "the broker has fallen silent", 0),
        ("MqttPeer(acknowledges=lambda payload: False)", "no answer in 20 s; see that a broker runs there", 2),
        ("MqttPeer(acknowledges=lambda payload: payload == b'online')", "no answer in 20 s", 2),
        ("NoBroker()", "what answers there is no MQTT broker; correct SERVER and PORT in config.py", 2),
        ("None", "no answer in 20 s", 2),
    ],
)
def test_a_broker_that_does_not_want_it_is_told_and_nothing_is_forgotten(
    esp32: Interpreter, peer: str, said: str, kept: int
) -> None:
    assert kept == esp32.run(f"""
    import config
    config.SEND, config.PORT = "mqtt", 1883
    config.REPORT_S = 100
    class NoBroker(MqttPeer):
        def hear(self, socket):
            self._say(socket, b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n")
    hardware.peer = {peer}
    monitor = boot()
    run(monitor, 160000, 500)
    result = len(monitor._backlog)
    """)
    assert any(said in line for line in esp32.console), esp32.console


# ---- what the page tells to configure


def test_the_configurations_of_the_page_are_right_and_fit_the_settings(esp32: Interpreter) -> None:
    page = (ROOT / "deploy" / "esp32" / "README.md").read_text()
    [http_table, mqtt_table] = [
        tomllib.loads(block)["sources"] for block in re.findall(r"```toml\n(.*?)```", page, re.S)
    ]
    posting = msgspec.convert(http_table["meter"], Options)
    publishing = msgspec.convert(mqtt_table["broker"], MqttOptions)
    device, imp_per_kwh, port = esp32.run("import config\nresult = [config.DEVICE, config.IMP_PER_KWH, config.PORT]")
    assert (posting.devices[0].name, posting.devices[0].pulses_per_kwh, posting.port) == (device, imp_per_kwh, port)
    assert (publishing.devices[0].topic, publishing.devices[0].pulses_per_kwh) == (device, imp_per_kwh)


def test_every_setting_of_the_files_is_told_on_the_page_or_beside_itself() -> None:
    folder = ROOT / "deploy" / "esp32"
    page = (folder / "README.md").read_text()
    for name in [file.name for file in folder.glob("*.py")]:
        assert f"`{name}`" in page
    for file in ("config.py", "secrets.py.example"):
        for line in (folder / file).read_text().splitlines():
            if setting := re.match(r"([A-Z_]+) = ", line):
                assert "#" in line or setting[1].split("_")[-1] in ("NAME", "PASSWORD"), line


# ---- over real connections


def test_a_real_receiver_that_comes_late_gets_everything_once(
    esp32: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METER_TOKEN", "a-long-token")
    [port] = free_ports(1)
    options = Options(
        kind="esp32_http", port=port, token_env="METER_TOKEN", devices=(Device(name="esp32-meter", max_power_w=1e9),)
    )
    source = Esp32Http("meter", options)
    source.round_s = 0.005
    readings: list[Reading] = []
    esp32.begin(
        f"""
    import config, secrets
    config.SERVER, config.PORT, config.MAX_POWER_W = "127.0.0.1", {port}, 3600000
    secrets.TOKEN = "a-long-token"
    monitor = boot()
    config.REPORT_S = 0.1
    started_ms = clock.now_ms
    steps = 0
    def is_over():
        global steps, result
        steps += 1
        if steps % 5 == 0 and steps < 600:
            blink()
        if steps == 600:
            config.REPORT_S = 1000                     # one more report, and then no other
            monitor._due_ms = 0
        monitor.step()
        clock.run_waiting()
        result = [monitor._count.total, monitor._pulses.bounces, monitor._backlog._number]
        return steps > 700 and not len(monitor._backlog)
    """,
        live=True,
    )
    opens_s = time.monotonic() + 0.6
    is_open = False

    def meanwhile() -> None:
        nonlocal is_open
        if not is_open and time.monotonic() > opens_s:
            source.open()
            is_open = True
        if is_open:
            readings.extend(source.read())

    try:
        total, bounces, made = esp32.end(meanwhile)
    finally:
        source.close()
    assert total + bounces == 119
    assert sorted(numbers(readings)) == list(range(1, made + 1))
    assert max(reading.values["pulses"] for reading in readings) == total
    in_order = sorted(readings, key=lambda reading: numbers([reading]))
    assert [reading.values["pulses"] for reading in in_order] == sorted(
        reading.values["pulses"] for reading in readings
    )


def test_a_real_broker_and_the_real_source_get_everything_and_hear_that_it_is_gone(
    esp32: Interpreter, tmp_path: Path
) -> None:
    device = _dialects.Device(name="house", dialect="esp32", topic="esp32-meter", max_power_w=10_000_000)
    readings: list[Reading] = []
    with running_mosquitto(tmp_path, password=True) as broker:
        options = MqttOptions(
            kind="mqtt",
            port=broker.port,
            username=broker.username,
            password_env="BROKER_PASSWORD",
            keep_session=False,
            stale_after_s=0,
            devices=(device,),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BROKER_PASSWORD", broker.password)
            source = Mqtt("broker", options)
            source.open()
        try:
            esp32.begin(
                f"""
            import config, secrets
            config.SEND, config.SERVER, config.PORT = "mqtt", "127.0.0.1", {broker.port}
            secrets.MQTT_USER, secrets.MQTT_PASSWORD = "{broker.username}", "{broker.password}"
            monitor = boot()
            config.REPORT_S = 0.1
            steps = 0
            def is_over():
                global steps, result
                steps += 1
                if steps == 300:
                    config.REPORT_S = 1000
                    monitor._due_ms = 0
                if steps < 300 and steps % 20 == 0:
                    monitor._count.pulse(clock.now_ms)
                monitor.step()
                result = [monitor._count.total, monitor._backlog._number]
                return steps > 400 and not len(monitor._backlog)
            """,
                live=True,
            )
            total, made = esp32.end(lambda: readings.extend(source.read()))
            deadline_s = time.monotonic() + 20
            while not (source.troubles and {*numbers(readings)} == {*range(1, made + 1)}):
                assert time.monotonic() < deadline_s, (source.troubles, source.refused, numbers(readings), made)
                readings.extend(source.read())
            assert "offline" in source.troubles["house"]
        finally:
            source.close()
    assert total == 14
    assert max(reading.values["pulses"] for reading in readings) == 14
    assert {*numbers(readings)} == {*range(1, made + 1)}
