from __future__ import annotations

import asyncio
import json
import time
from random import Random

import pytest

from tests.api.conftest import app_of
from vitals import FIELDS, Board


class Answer:
    def __init__(self, messages: list[dict]) -> None:
        self.status = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.text = b"".join(message.get("body", b"") for message in messages[1:]).decode()


def ask(house, path: str, method: str = "GET") -> Answer:
    """Call the application as an HTTP server does."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 4242),
        "server": None,
    }
    asyncio.run(app_of(house.settings, house.board)(scope, receive, send))
    return Answer(sent)


def test_the_api_says_that_it_lives_even_when_the_house_does_not(house):
    house.board = Board()
    answer = ask(house, "/healthz")
    assert (answer.status, json.loads(answer.text)) == (200, {"status": "ok"})


def test_a_house_in_which_all_is_well_says_ready(house):
    answer = ask(house, "/readyz")
    assert (answer.status, json.loads(answer.text)) == (200, {"status": "ready"})


def test_a_house_that_is_not_ready_says_why(house):
    house.put("worker", "meter", note="no port; plug it in", open=0)
    answer = ask(house, "/readyz")
    assert (answer.status, json.loads(answer.text)) == (
        503,
        {"status": "not ready", "reasons": [{"part": "source meter", "what": "no port; plug it in"}]},
    )


def test_the_demo_is_ready_and_says_that_it_is_simulated(house):
    house.put("worker", "meter", simulated=1)
    answer = ask(house, "/readyz")
    assert (answer.status, json.loads(answer.text)) == (200, {"status": "ready", "simulated": True})
    assert json.loads(ask(house, "/api/v1/health").text)["simulated"] is True


def test_metrics_come_in_the_text_format_of_prometheus(house):
    answer = ask(house, "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'wattherd_source_readings_total{source="meter"} 20.0\n' in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/healthz/../secret", "/static/..", "/static/%2e%2e", "/static/x.js\0"])
def test_there_is_nothing_else(house, path):
    assert ask(house, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz"])
def test_no_request_can_write_anything(house, method, path):
    assert ask(house, path, method).status == 405


def test_a_monitor_may_ask_with_head(house):
    assert ask(house, "/readyz", "HEAD").status == 200


def test_every_request_is_counted_also_one_that_found_nothing(house):
    for path in ("/", "/metrics", "/nothing"):
        ask(house, path)
    assert house.row("api", "api")["requests"] == 3


def test_no_answer_is_kept_by_a_cache(house):
    for path in ("/api/v1/live", "/metrics", "/healthz", "/readyz"):
        assert ask(house, path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("state", [-1, 0, 1, 2, 3, 4, 99])
def test_the_health_survives_every_state(house, state):
    for process in ("source.meter", "writer", "api"):
        house.put("process", process, state=state)
    house.put("output", "csv", state=state)
    assert ask(house, "/api/v1/health").status == 200


@pytest.mark.parametrize("seed", range(5))
def test_no_board_however_damaged_is_too_much_for_any_page(house, seed):
    random = Random(seed)
    for role, fields in FIELDS.items():
        for row in list(house.board.rows(role)):
            row._note[:] = random.randbytes(len(row._note))
            for field in fields:
                row[field] = random.choice((0, 1, -1, random.randint(-(2**63), 2**63 - 1), time.time_ns()))
    for row in list(house.board._rows)[50:]:
        row._name[:], row._role[:8] = (
            random.randbytes(len(row._name)),
            random.choice((b"worker\0\0", random.randbytes(8))),
        )
    assert {
        ask(house, path).status for path in ("/api/v1/health", "/api/v1/house", "/metrics", "/healthz", "/readyz")
    } <= {200, 503}
