"""A real Mosquitto: plain, with passwords, with TLS; it can be stopped, killed and started again where it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.peers.process import free_ports, listens, require, wait_for

_CONF = """
listener {port} 127.0.0.1
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
allow_anonymous {anonymous}
log_type all
connection_messages true
{more}
"""


class Mosquitto:
    """One broker and its folder."""

    host = "127.0.0.1"
    username = "herd"
    password = "a-long-password"

    def __init__(
        self, folder: Path, *, tls: bool = False, password: bool = False, options: tuple[str, ...] = ()
    ) -> None:
        self._program = require("mosquitto")
        self.folder = folder
        [self.port] = free_ports(1)
        self.tls = tls
        self.with_password = password
        self.ca_file = folder / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None
        more = [*options]
        if tls:
            _certificates(folder)
            more += [f"cafile {folder}/ca.pem", f"certfile {folder}/server.pem", f"keyfile {folder}/server.key"]
        if password:
            subprocess.run(
                [require("mosquitto_passwd"), "-b", "-c", folder / "passwords", self.username, self.password],
                check=True,
                capture_output=True,
            )
            more.append(f"password_file {folder}/passwords")
        if os.geteuid() == 0:
            more.append("user root")
        conf = _CONF.format(port=self.port, folder=folder, anonymous=str(not password).lower(), more="\n".join(more))
        (folder / "mosquitto.conf").write_text(conf)

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    def start(self) -> None:
        # Even if the tests are killed, no server is left behind.
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, self._program, "-c", self.folder / "mosquitto.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process
        wait_for(lambda: listens(self.port) or process.poll() is not None, "mosquitto to listen")
        if process.poll() is not None:
            pytest.fail(f"mosquitto ended with {process.returncode}:\n{self.log[-2000:]}")

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; SIGKILL loses what it had not saved yet."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal_number)
            process.wait()

    def pause(self) -> None:
        """Let it be there and never answer."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
        """Publish as a device would, and return when the broker has it."""
        with self.client() as client:
            client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(10)

    @contextlib.contextmanager
    def client(self, **options: object) -> Iterator[paho.Client]:
        """A connected client of the library's own, with its loop running."""
        client = paho.Client(CallbackAPIVersion.VERSION2, **options)  # type: ignore[arg-type]
        if self.with_password:
            client.username_pw_set(self.username, self.password)
        if self.tls:
            client.tls_set_context(ssl.create_default_context(cafile=str(self.ca_file)))
        client.connect("127.0.0.1", self.port, keepalive=60)
        client.loop_start()
        try:
            wait_for(client.is_connected, "the client to be connected")
            yield client
        finally:
            client.disconnect()
            client.loop_stop()

    def watch(self, topic: str) -> contextlib.AbstractContextManager[list[paho.MQTTMessage]]:
        """Every message under `topic` from now on, as it comes, those retained first."""
        return _watching(self, topic)


@contextlib.contextmanager
def running_mosquitto(
    folder: Path, *, tls: bool = False, password: bool = False, options: tuple[str, ...] = ()
) -> Iterator[Mosquitto]:
    """Run a broker until the end of the block; `options` are further lines of its configuration."""
    broker = Mosquitto(folder, tls=tls, password=password, options=options)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop(signal.SIGKILL)


@contextlib.contextmanager
def _watching(broker: Mosquitto, topic: str) -> Iterator[list[paho.MQTTMessage]]:
    seen: list[paho.MQTTMessage] = []
    subscribed: list[float] = []
    with broker.client() as client:
        client.on_message = lambda _client, _data, message: seen.append(message)
        client.on_subscribe = lambda *_: subscribed.append(time.monotonic())
        client.subscribe(topic, qos=1)
        wait_for(lambda: subscribed, "the subscription")
        yield seen


def _certificates(folder: Path) -> None:
    """Make an authority and a certificate for 127.0.0.1 and localhost."""
    openssl = require("openssl")

    def run(*words: str | Path) -> None:
        subprocess.run([openssl, *words], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=test authority")
    run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run(
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    )
