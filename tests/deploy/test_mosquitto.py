"""The broker's configuration that is shipped: the real Mosquitto starts with it, beside what Debian says already."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.faults.house import ROOT
from tests.peers.mosquitto import Mosquitto
from tests.peers.process import free_ports, require
from tests.workers.broker_bench import count, opened, read_until
from workers import SourceError
from workers.mqtt import Mqtt, Options

_DEBIAN = """
pid_file {folder}/mosquitto.pid
persistence true
persistence_location {folder}/
log_dest file {folder}/own.log
include_dir {folder}/conf.d
{user}
"""


class Shipped(Mosquitto):
    """A broker with the configuration of a Debian machine, and ours copied to where it belongs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        [self.port] = free_ports(1)
        self.with_password = True
        ours = (ROOT / "deploy" / "mosquitto" / "wattherd.conf").read_text()
        assert "\nlistener 1883\n" in ours
        ours = ours.replace("\nlistener 1883\n", f"\nlistener {self.port} 127.0.0.1\n")
        ours = ours.replace("/etc/mosquitto/wattherd.passwords", f"{folder}/passwords")
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "wattherd.conf").write_text(ours)
        user = "user root" if os.geteuid() == 0 else ""
        (folder / "mosquitto.conf").write_text(_DEBIAN.format(folder=folder, user=user))
        subprocess.run(
            [require("mosquitto_passwd"), "-b", "-c", folder / "passwords", self.username, self.password],
            check=True,
            capture_output=True,
        )


def make(broker: Mosquitto, **more: Any) -> Mqtt:
    devices = [{"name": "plug", "dialect": "tasmota", "topic": "plug1"}]
    options = {"kind": "mqtt", "port": broker.port, "devices": devices, "client_id": "house", **more}
    return Mqtt("broker", msgspec.convert(options, Options))


def test_mosquitto_starts_with_it_lets_nobody_in_without_a_password_and_keeps_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", Mosquitto.password)
    key: dict[str, Any] = {"username": Mosquitto.username, "password_env": "BROKER_PASSWORD"}
    broker = Shipped(tmp_path)
    broker.start()
    try:
        stranger = make(broker)
        with pytest.raises(SourceError, match="refuses this user or password"):
            stranger.open()
        stranger.close()
        with opened(make(broker, **key)):
            pass
        dated = b'{"device":"plug1","boot":"a","seq":1,"pulses_total":7,"ts":1795180560}'
        esp32 = {"name": "house", "dialect": "esp32", "topic": "plug1"}
        with opened(make(broker, **key, devices=[esp32])):
            pass
        with broker.client() as client:
            for _ in range(1500):  # more than Mosquitto keeps by itself
                last = client.publish("wattherd/pulse/plug1/state", dated, qos=1)
            last.wait_for_publish(20)
        broker.stop()
        broker.start()
        with opened(make(broker, **key, devices=[esp32])) as source:
            assert len(read_until(source, count(1500), 30)) == 1500
    finally:
        broker.stop(9)
    assert "rror" not in (tmp_path / "own.log").read_text() + broker.log
