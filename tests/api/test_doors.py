"""Who may ask, over real sockets: by which name, from where, with which key, and how."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from config.interface import Api, hash_of_key, is_loopback
from tests.api.server import Answer, Server, served

KEY = "a-key-of-some-length"
OPEN = ["/", "/static/page.js", "/static/uPlot.iife.js", "/links", "/docs", "/redoc", "/openapi.json", "/healthz"]
GUARDED = ["/api/v1/live", "/api/v1/house", "/api/v1/health", "/metrics", "/readyz", "/energy", "/logs/download/api"]
GUARDED += ["/api/v1/live/stream", "/nothing"]


@pytest.fixture
def server(house) -> Iterator[Server]:
    house.settings = replace(house.settings, api=Api(port=0, key_hash=hash_of_key(KEY)))
    with served(house) as found:
        found.wait_until_it_serves()
        yield found


def error(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert [*answer.json] == ["error"]
    return answer.json["error"]


@pytest.mark.parametrize(
    "path", [path for path in (*OPEN, *GUARDED) if path not in ("/nothing", "/api/v1/live/stream")]
)
def test_this_machine_needs_no_key(server: Server, path: str) -> None:
    assert server.ask(path).status in (200, 404, 503)


FORWARDED = ["Forwarded", "X_Forwarded_For", "X_Forwarded_Proto", "X_Forwarded_Host", "X_Real_IP", "Via", "x_real_ip"]


@pytest.mark.parametrize("header", FORWARDED)
def test_whom_a_proxy_speaks_for_needs_the_key(server: Server, header: str) -> None:
    for path in GUARDED:
        answer = server.ask(path, **{header: "127.0.0.1"})
        assert answer.status == 403, path
        assert error(answer) == "a key is needed; send it as X-API-Key, or as Authorization: Bearer"
    for path in OPEN:
        assert server.ask(path, **{header: "127.0.0.1"}).status == 200, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_API_Key": KEY}, 200),
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": f"bearer   {KEY}"}, 200),
        ({"X_API_Key": KEY[:-1]}, 403),
        ({"X_API_Key": KEY + "x"}, 403),
        ({"X_API_Key": ""}, 403),
        ({"X_API_Key": "ä"}, 403),
        ({"X_API_Key": hash_of_key(KEY)}, 403),
        ({"Authorization": f"Basic {KEY}"}, 403),
        ({"Authorization": KEY}, 403),
        ({"Cookie": f"X-API-Key={KEY}"}, 403),
    ],
)
def test_only_the_right_key_in_the_right_place_opens(server: Server, headers: dict[str, str], status: int) -> None:
    assert server.ask("/api/v1/live", X_Forwarded_For="192.0.2.7", **headers).status == status
    assert server.ask(f"/api/v1/live?key={KEY}&X-API-Key={KEY}", X_Forwarded_For="192.0.2.7").status == 403


def test_without_a_key_only_this_machine_may_ask(house) -> None:
    with served(house) as server:
        server.wait_until_it_serves()
        answer = server.ask("/api/v1/live", X_Real_IP="127.0.0.1", X_API_Key="")
        assert (answer.status, error(answer)) == (
            403,
            "only this machine itself may ask; ./orchestrator.py key makes a key for others",
        )


def test_where_a_proxy_hides_that_it_is_one_everybody_can_be_asked(house) -> None:
    api = Api(port=0, key_hash=hash_of_key(KEY), always_ask_for_key=True)
    house.settings = replace(house.settings, api=api)
    with served(house) as server:
        server.wait_until_it_serves()
        assert server.ask("/api/v1/live").status == 403
        assert server.ask("/healthz").status == 200
        assert server.ask("/api/v1/live", X_API_Key=KEY).status == 200


ELSEWHERE = f"""
import json, socket, sys
from pathlib import Path
from config.interface import Api, hash_of_key
from msgspec.structs import replace
from tests.api.conftest import well_house
from tests.api.server import served

address = sys.argv[1]
house = well_house()
house.settings = replace(house.settings, api=Api(host="0.0.0.0", port=0, key_hash=hash_of_key({KEY!r})))
with served(house) as server:
    server.wait_until_it_serves()
    found = {{"peer": address}}
    for name, headers in (("without", {{}}), ("wrong", {{"X_API_Key": "x"}}), ("with", {{"X_API_Key": {KEY!r}}})):
        found[name] = server.ask("/api/v1/live", host=address, **headers).status
    found["open"] = server.ask("/", host=address).status
    found["local"] = server.ask("/api/v1/live", host="127.0.0.2").status
print(json.dumps(found))
"""


def test_another_address_than_loopback_needs_the_key() -> None:
    """In a network namespace of its own, so that the address is there on every machine."""
    script = 'ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec "$@"'
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--net", *root, "sh", "-c", script, "sh", sys.executable, "-c", ELSEWHERE, "192.0.2.1"]
    repository = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody make a network namespace")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "peer": "192.0.2.1",
        "without": 403,
        "wrong": 403,
        "with": 200,
        "open": 200,
        "local": 200,
    }


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:1",
        "[::1]:8000",
        "192.168.1.7",
        "[fe80::1]",
        "localhost.",
        "pi.example",
    ],
)
def test_our_own_names_and_addresses_are_let_in(house, host: str) -> None:
    house.settings = replace(house.settings, api=Api(port=0, allowed_hosts=("pi.example",)))
    with served(house) as server:
        server.wait_until_it_serves()
        assert server.ask("/api/v1/live", Host=host).status == 200
        for own in (socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local:8000"):
            assert server.ask("/api/v1/live", Host=own).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "1", "a b", "[x]"]
)
@pytest.mark.parametrize("path", ["/", "/api/v1/live", "/healthz"])
def test_a_name_that_was_made_to_point_here_is_turned_away(server: Server, host: str, path: str) -> None:
    answer = server.ask(path, Host=host)
    assert answer.status == 400
    assert error(answer).endswith("is no name of this house; add it to [api] allowed_hosts, or use its address")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO", "get"])
@pytest.mark.parametrize("path", ["/", "/energy", "/api/v1/live", "/nothing"])
def test_nothing_but_looking_is_let_in(server: Server, method: str, path: str) -> None:
    answer = server.ask(path, method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/api/v1/live", "/api/v1/live/stream", "/metrics", "/appliances", "/docs"])
def test_head_says_the_same_without_the_content(server: Server, path: str) -> None:
    answer = server.ask(path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    if not path.endswith("stream"):
        assert answer.headers["content-type"] == server.ask(path).headers["content-type"]


def test_every_answer_tells_the_browser_to_be_careful(server: Server) -> None:
    for path in ("/", "/api/v1/live", "/nothing", "/static/page.js"):
        headers = server.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
    for path in ("/docs", "/redoc"):
        policy = server.ask(path).headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "http" not in policy


def test_pages_of_others_may_ask_only_where_they_are_listed(house, server: Server) -> None:
    assert "access-control-allow-origin" not in server.ask("/api/v1/live", Origin="https://app.example").headers
    house.settings = replace(house.settings, api=Api(port=0, cors_origins=("https://app.example",)))
    with served(house) as open_one:
        open_one.wait_until_it_serves()
        answer = open_one.ask("/api/v1/live", Origin="https://app.example")
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "access-control-allow-origin" not in open_one.ask("/api/v1/live", Origin="https://evil.example").headers
        # The browser asks first whether the key may be sent along, and has none for that.
        asks = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "x-api-key"}
        answer = open_one.ask("/api/v1/live", "OPTIONS", Origin="https://app.example", **asks)
        assert answer.status == 200
        assert "x-api-key" in answer.headers["access-control-allow-headers"].lower()
        asks["Access_Control_Request_Method"] = "POST"
        assert open_one.ask("/api/v1/live", "OPTIONS", Origin="https://app.example", **asks).status == 400
        assert open_one.ask("/api/v1/live", "OPTIONS").status == 405
        # A refusal can be read by the page too, so that it can ask for the key.
        answer = open_one.ask("/api/v1/live", Origin="https://app.example", X_Forwarded_For="192.0.2.7")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (403, "https://app.example")


def test_what_is_long_is_compressed_for_whoever_wants_it_and_what_is_short_is_not(server: Server) -> None:
    assert server.ask("/openapi.json", Accept_Encoding="gzip").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in server.ask("/openapi.json").headers
    assert "content-encoding" not in server.ask("/healthz", Accept_Encoding="gzip").headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::", "192.168.1.7", "pi"])
def test_a_house_that_others_can_reach_must_have_a_key(configured: Callable[[str], list[str]], host: str) -> None:
    mistakes = configured(f'[api]\nhost = "{host}"\n')
    if is_loopback(host):
        assert mistakes == []
    else:
        [mistake] = mistakes
        assert mistake.endswith(
            "host: others could read everything there without a key; ./orchestrator.py key makes one"
        )
        assert configured(f'[api]\nhost = "{host}"\nkey_hash = "{hash_of_key("k")}"\n') == []
        assert configured(f'[api]\nhost = "{host}"\nenabled = false\n') == []


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ('key_hash = "geheim"', "key_hash: is not what ./orchestrator.py key writes; run it, it makes a new key"),
        (
            "always_ask_for_key = true",
            "always_ask_for_key: there is no key to ask for; ./orchestrator.py key makes one",
        ),
        ('allowed_hosts = ["http://pi"]', "allowed_hosts: 'http://pi' is no name of a host; write it without port, "),
        ('cors_origins = ["app.example"]', "cors_origins: 'app.example' is no origin; write it without a path, "),
        ('cors_origins = ["https://app.example/"]', "is no origin; write it without a path, "),
        ('appliances = [{id = 1, name = "Fridge", channel = "x/fridge"}]', "channel: x/fridge: there is no source 'x'"),
        ('appliances = [{id = 0, name = "Fridge", channel = "x/fridge"}]', "id: expected a whole number >= 1, got 0"),
        (
            'appliances = [{id = 1, name = "A", channel = "m/a"}, {id = 1, name = "B", channel = "m/b"}]',
            "number 2: id: 1 is that of another appliance too",
        ),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(configured: Callable[[str], list[str]], table: str, what: str) -> None:
    assert any(what in mistake for mistake in configured(f"[api]\n{table}\n")), configured(f"[api]\n{table}\n")
