"""Tuya devices that say where they are: heard in every version, and believed only once their key is proven there."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.peers.process import wait_for
from tests.workers.tuya_devices import Device, a_broadcast, a_plug, an_address, frame_55aa, plugged_in
from tests.workers.tuya_house import house, keys_file, meter
from workers._tuya_broadcast import PORTS, Claim, Ears, claimed
from workers._tuya_session import Driver

PLUG = {"current_a": 0.412, "power_w": 86.1, "voltage_v": 238.4}
FIELDS = {"ip": "192.168.1.9", "gwId": "bf0123456789", "productKey": "keyjup78v54myhan"}


@pytest.fixture(scope="module")
def driver() -> Driver:
    driver = Driver()
    driver.open()
    return driver


def shout(device: Device, ears_on: str, *, sender: str = "", port: int = 6667) -> None:
    """Let a device say where it is, to the ears of one source."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        mouth.bind((sender or device.host, 0))
        mouth.sendto(device.broadcast(), (ears_on, port))


@pytest.mark.parametrize(("version", "port"), [("3.3", 6667), ("3.4", 6667), ("3.5", 7000)])
def test_a_device_without_an_address_is_found(tmp_path: Path, version: str, port: int) -> None:
    device, ears_on = Device(version), an_address()
    table = meter(device, host="", version="auto")
    with house(tmp_path, [device], table, attributes={"ears_on": ears_on}) as home:
        assert "it has not said where it is; see that it has power" in home.until_trouble("has not said")
        shout(device, ears_on, port=port)
        home.until("plug", **PLUG)
        assert not home.source.troubles
        assert device.connections == 1, "the version that it says is tried first"


def test_the_address_that_the_wizard_saw_is_tried(tmp_path: Path) -> None:
    device = Device("3.4")
    file = keys_file(tmp_path, device, last_ip=device.host)
    table = meter(device, host="")
    with house(tmp_path, [device], table, keys_file=file, attributes={"ears_on": an_address()}) as home:
        home.until("plug", **PLUG)


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_a_false_claim_is_not_believed(tmp_path: Path, version: str) -> None:
    """Somebody says to be our plug, and has another key, or speaks the version that needs none."""
    real, ears_on = Device("3.4"), an_address()
    liar = Device(version, a_plug(9999.0), key="the-liars-key-16", ends_strangers=True)
    table, file = meter(real, host="", version="auto"), keys_file(tmp_path, real)
    with house(tmp_path, [real, liar], table, keys_file=file, attributes={"ears_on": ears_on}) as home:
        shout(liar, ears_on)
        wait_for(lambda: home.round() is not None and liar.connections, "the liar to be asked")
        shout(real, ears_on)
        home.until("plug", **PLUG)
        before = liar.connections
        for _ in range(3):
            shout(liar, ears_on)
            home.hears()
        assert liar.connections == before, "who has proven itself is not left for a claim"
        assert all(reading.values.get("power_w") in (None, 86.1) for reading in home.readings)
        assert home.source.links[real.device_id].host == real.host


def test_a_device_that_moves_is_found_again(tmp_path: Path) -> None:
    before, ears_on = Device("3.3"), an_address()
    after = Device("3.3", a_plug(50.0))
    table = meter(before, host="")
    with house(tmp_path, [before, after], table, attributes={"ears_on": ears_on}, timeout_s=0.5) as home:
        shout(before, ears_on)
        home.until("plug", **PLUG)
        before.unplug()
        shout(after, ears_on)
        home.until("plug", **{**PLUG, "power_w": 50.0})


def test_nobody_asks_an_address_that_only_a_message_names(driver: Driver) -> None:
    datagram = a_broadcast({**FIELDS, "version": "3.3"})
    claim = claimed(driver, datagram, "192.168.1.77")
    assert claim == Claim("bf0123456789", "192.168.1.77", "3.3", "keyjup78v54myhan")


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"from": "app", "ip": "192.168.1.9"},
        {**FIELDS, "gwId": "evil\nname"},
        {**FIELDS, "gwId": "x" * 65},
        {**FIELDS, "gwId": 7},
    ],
)
def test_a_claim_that_names_no_device_is_none(driver: Driver, fields: object) -> None:
    datagram = frame_55aa(0, 0, bytes(4) + json.dumps(fields).encode())
    assert claimed(driver, datagram, "192.168.1.9") is None


def test_odd_words_in_a_claim_are_left_out(driver: Driver) -> None:
    datagram = a_broadcast({**FIELDS, "version": "3.3\n", "productKey": "a b"})
    assert claimed(driver, datagram, "192.168.1.9") == Claim("bf0123456789", "192.168.1.9")


def test_a_port_that_another_program_has_is_named(
    tmp_path: Path, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    device, ears_on = Device("3.3"), an_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((ears_on, PORTS[1]))
        ears = Ears(driver, ears_on)
        ears.open()
        assert (ears.deaf, len(ears.sockets)) == ([PORTS[1]], 2)
        ears.close()
        with house(tmp_path, [device], meter(device, host=""), attributes={"ears_on": ears_on}):
            assert "UDP 6667 is in use by another program" in caplog.text


def test_the_question_for_where_devices_are_is_one_that_a_device_understands(driver: Driver) -> None:
    host, asked = an_address(), an_address()
    ears = Ears(driver, host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind((asked, 7000))
        device.settimeout(10)
        ears.open()
        try:
            ears.ask(to=asked)
            datagram, sender = device.recvfrom(2048)
        finally:
            ears.close()
    assert sender == (host, 7000)
    assert json.loads(driver.library.decrypt_udp(datagram))["from"] == "app"


def test_without_ears_nothing_is_asked(driver: Driver) -> None:
    Ears(driver).ask()


def test_a_crowd_of_claims_does_not_push_out_the_one_that_works(tmp_path: Path) -> None:
    device, ears_on = Device("3.4"), an_address()
    with house(tmp_path, [device], meter(device, host=""), attributes={"ears_on": ears_on}) as home:
        shout(device, ears_on)
        home.hears()
        for _ in range(20):
            shout(device, ears_on, sender=an_address())
        device.drop()
        home.hears()
        link = home.source.links[device.device_id]
        assert link.host == device.host
        assert not home.source.troubles


def test_plugged_in_devices_are_closed() -> None:
    device = Device()
    with plugged_in(device):
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((device.host, 6668), timeout=1)
