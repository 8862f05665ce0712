"""The servers in containers: a file that Compose takes, and that keeps what it says of ports, passwords and files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from tests.faults.house import ROOT
from tests.peers.process import free_ports, require, running, wait_for

FILE = ROOT / "deploy" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REQUIRED = ("INFLUX_ADMIN_PASSWORD", "INFLUX_ADMIN_TOKEN", "GRAFANA_ADMIN_PASSWORD", "MQTT_PASSWORD")


def composed(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Compose itself makes of the file; it needs no Docker for that."""
    program = require("docker-compose")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    (folder / "empty.env").touch()
    command = [program, "--env-file", str(folder / "empty.env"), "-f", str(FILE), "config"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_compose_takes_it(tmp_path: Path) -> None:
    done = composed(tmp_path, **dict.fromkeys(REQUIRED, "a-secret"))
    assert done.returncode == 0, done.stderr
    assert {*yaml.safe_load(done.stdout)["services"]} == {"graphite", "influxdb", "prometheus", "grafana", "mosquitto"}


@pytest.mark.parametrize("missing", REQUIRED)
def test_nothing_starts_with_a_password_that_nobody_chose(missing: str, tmp_path: Path) -> None:
    done = composed(tmp_path, **{name: "a-secret" for name in REQUIRED if name != missing})
    assert done.returncode != 0
    [words] = re.findall(rf"\$\{{{missing}:\?([^}}]+)\}}", FILE.read_text())
    assert words in done.stderr, "it says what is missing"


def test_no_secret_has_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", variable):
                assert re.match(r"\$\{[A-Z_]+:(\?.+|-)\}$", str(value)), f"{name}: {variable}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_watched_bounded_and_listens_here_alone(name: str) -> None:
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+\.\d+", tag), "a version, and not whatever is the latest"
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]
    for port in service.get("ports", []):
        assert re.match(r"(127\.0\.0\.1|\$\{[A-Z_]+:-127\.0\.0\.1\}):\d+:\d+$", port)
    if service.get("network_mode") == "host":
        told = str(service.get("command", "")) + str(service.get("environment", ""))
        assert "127.0.0.1" in told, "on the machine's own network it has to be told to listen to it alone"
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        if source.startswith("./"):
            assert (FILE.parent / source).exists(), f"there is no {source}"
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


def test_the_broker_starts_with_the_password_and_lets_nobody_else_in(tmp_path: Path) -> None:
    """Its command is a small program; here it runs with the real Mosquitto."""
    require("mosquitto")
    require("mosquitto_passwd")
    [port] = free_ports(1)
    [_, _, script] = SERVICES["mosquitto"]["command"]
    places = {
        "/etc/mosquitto": tmp_path / "etc",
        "/mosquitto/data": tmp_path / "data",
        "/mosquitto/config/wattherd.conf": tmp_path / "wattherd.conf",
        "/tmp/mosquitto.conf": tmp_path / "mosquitto.conf",
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "etc").mkdir()
    for folder in (*tmp_path.parents, tmp_path, tmp_path / "data"):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o777 if folder == tmp_path / "data" else folder.stat().st_mode | 0o011)
    shipped = (ROOT / "deploy" / "mosquitto" / "wattherd.conf").read_text()
    shipped = shipped.replace("listener 1883", f"listener {port} 127.0.0.1")
    for old, new in places.items():
        script, shipped = script.replace(old, str(new)), shipped.replace(old, str(new))
    (tmp_path / "wattherd.conf").write_text(shipped)
    environment = {"MQTT_USER": "wattherd", "MQTT_PASSWORD": "it's a $ecret"}
    path = {"PATH": os.environ["PATH"] + ":/usr/sbin"}
    script = script.replace("$$", "$")
    with running(["sh", "-c", script], port, tmp_path / "log", environment | path):
        assert enters(port, "wattherd", "it's a $ecret")
        assert not enters(port, "wattherd", "guessed")
        assert not enters(port, "", "")


def enters(port: int, user: str, password: str) -> bool:
    answers: list[int] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda _client, _data, _flags, code, _more: answers.append(code.value)
    if user:
        client.username_pw_set(user, password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    wait_for(lambda: answers, "the broker's answer")
    client.disconnect()
    client.loop_stop()
    return answers[0] == 0
