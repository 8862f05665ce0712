"""The simulated Tuya devices themselves: the library's own client, with its own sockets, understands them."""

from __future__ import annotations

import pytest

from tests.workers.tuya_devices import BROADCAST_KEY, Device, a_plug, plugged_in
from workers._tuya_session import Driver


@pytest.fixture(scope="module")
def driver() -> Driver:
    driver = Driver()
    driver.open()
    return driver


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_the_library_reads_a_simulated_device_of_every_version(driver: Driver, version: str) -> None:
    device = Device(version=version)
    with plugged_in(device):
        client = driver.library.Device(
            device.device_id, device.host, device.key, version=float(version), connection_timeout=5, persist=True
        )
        client.set_socketRetryLimit(1)
        try:
            assert client.status()["dps"] == a_plug()
            device.push({"19": 900})
            pushed = client.receive()
            assert pushed["dps"] == {"19": 900}
        finally:
            client.close()


@pytest.mark.parametrize("version", ["3.3", "3.4", "3.5"])
def test_the_library_does_not_get_in_with_another_key(driver: Driver, version: str) -> None:
    device = Device(version=version)
    with plugged_in(device):
        client = driver.library.Device(
            device.device_id, device.host, "another-key-1234", version=float(version), connection_timeout=0.3
        )
        client.set_socketRetryLimit(1)
        try:
            assert client.status()["Err"] in ("900", "904", "914")
        finally:
            client.close()
    assert device.bad_keys


def test_the_library_has_the_key_of_the_broadcasts(driver: Driver) -> None:
    assert driver.library.udpkey == BROADCAST_KEY
