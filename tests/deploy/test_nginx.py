"""A real nginx with TLS before a real house, with the configuration that is shipped."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from config.interface import hash_of_key
from tests.faults.house import ROOT, House
from tests.peers.process import free_ports, require, running, wait_for

SHIPPED = ROOT / "deploy" / "nginx" / "wattherd.conf"
NAME = "energy.example.org"
KEY = "the-key-of-this-house-and-no-other"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "house", "[outputs.history]\n", ["a"])
    text = house.config.read_text()
    more = f'allowed_hosts = ["{NAME}"]\nkey_hash = "{hash_of_key(KEY)}"\n'
    house.config.write_text(text.replace("[api]\n", f"[api]\n{more}"))
    house.started()
    try:
        yield house
    finally:
        house.stop()


class Visitor:
    """Somebody who comes from outside."""

    def __init__(self, port: int, plain_port: int, certificate: Path) -> None:
        self.port = port
        self.plain_port = plain_port
        self.context = ssl.create_default_context(cafile=str(certificate))

    def connected(self) -> http.client.HTTPSConnection:
        """A connection to nginx in which the certificate is checked for the name that a visitor types."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.context)
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sock = self.context.wrap_socket(raw, server_hostname=NAME)
        return connection

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        with closing(self.connected()) as connection:
            connection.request("GET", path, headers={"Host": NAME, **headers})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture
def visitor(house: House, tmp_path: Path) -> Iterator[Visitor]:
    nginx = require("nginx")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run(
        ["openssl", "req", *kind, *names, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
        timeout=60,
    )
    port, plain_port = free_ports(2)
    site = SHIPPED.read_text().replace("http://127.0.0.1:8000", f"http://127.0.0.1:{house.api_port}")
    site = re.sub(r"ssl_certificate .*;", f"ssl_certificate {certificate};", site)
    site = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", site)
    site = re.sub(r"^ *listen \[::\]:.*\n", "", site, flags=re.MULTILINE)
    site = site.replace("listen 443", f"listen 127.0.0.1:{port}").replace(
        "listen 80;", f"listen 127.0.0.1:{plain_port};"
    )
    assert "letsencrypt/live" not in re.sub(r"^#.*$", "", site, flags=re.MULTILINE)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        f"daemon off;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\nworker_processes 1;\n"
        "events {}\nhttp {\n"
        f"access_log {tmp_path}/access.log;\n"
        + "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"gzip on;\ngzip_types *;\n{site}\n}}\n"
    )
    with running([nginx, "-c", str(configuration), "-e", f"{tmp_path}/error.log"], port, tmp_path / "nginx.log"):
        yield Visitor(port, plain_port, certificate)


def test_who_comes_from_outside_needs_the_key_and_then_sees_everything(house: House, visitor: Visitor) -> None:
    assert visitor.get("/")[0] == 200, "the empty page asks for the key, so it must be there before it"
    status, headers, body = visitor.get("/api/v1/live")
    assert (status, b"X-API-Key" in body) == (403, True)
    assert headers["strict-transport-security"] == "max-age=31536000"
    # What somebody claims of himself opens nothing.
    for claim in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP"):
        assert visitor.get("/api/v1/live", **{claim: "127.0.0.1"})[0] == 403
    assert visitor.get("/api/v1/live", **{"X-API-Key": "another"})[0] == 403
    status, _, body = visitor.get("/api/v1/live", **{"X-API-Key": KEY})
    assert status == 200
    assert "house" in json.loads(body)
    assert visitor.get("/api/v1/live", Authorization=f"Bearer {KEY}")[0] == 200
    # Who sits on the machine itself is asked for nothing, now as before.
    assert house.get("/api/v1/live") is not None


def test_live_values_come_as_they_happen(house: House, visitor: Visitor) -> None:
    with closing(visitor.connected()) as connection:
        connection.request("GET", "/api/v1/live/stream", headers={"Host": NAME, "X-API-Key": KEY})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        heard = ""

        def hears(words: str) -> bool:
            nonlocal heard
            heard += answer.read1(65536).decode()
            return words in heard

        wait_for(lambda: hears("event: live"), "the first event")
        # What is posted now comes through at once: nothing on the way waits for a buffer to be full.
        assert house.post({"device": "a", "power_w": 1234.5})[0] == 200
        wait_for(lambda: hears("1234.5"), "the value to come through", 15)


def test_the_rest_of_the_door_is_shut(visitor: Visitor) -> None:
    assert visitor.get("/metrics", **{"X-API-Key": KEY})[0] == 404
    with closing(http.client.HTTPConnection("127.0.0.1", visitor.plain_port, timeout=10)) as connection:
        connection.request("GET", "/api/v1/live?x=1", headers={"Host": NAME})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("location")) == (301, f"https://{NAME}/api/v1/live?x=1")
    with closing(visitor.connected()) as connection:
        connection.request("POST", "/", body=b"x" * 5000, headers={"Host": NAME})
        assert connection.getresponse().status == 413
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", visitor.port), timeout=10) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        old.wrap_socket(raw, server_hostname=NAME)
