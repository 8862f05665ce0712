"""The interface as it describes itself: every answer fits, every page of its documentation works offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import documents, seed_documents
from api.documentation import _DOCUMENTS
from tests.api.conftest import app_of, well_house
from tests.api.visitor import Visitor, chromium
from tests.faults.house import House
from tests.peers.process import wait_for

HOUSE = """
[sources.house]
kind = "simulated"
interval_s = 0.5
[channels.house.house-meter]
role = "grid"
tariff = "main"
[tariffs.main]
currency = "GBP"
[[tariffs.main.periods]]
from = 2025-01-01
unit_rate_per_kwh = 0.25
export_rate_per_kwh = 0.15
[outputs.csv]
[outputs.history]
"""


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    house = well_house()
    found: dict[str, Any] = app_of(house.settings, house.board).openapi()
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("home"), "", ["esp32-meter"])
    house.head += 'appliances = [{ id = 1, name = "Refrigerator", channel = "house/fridge" }]\n'
    house.configure(HOUSE)
    house.started()
    try:
        wait_for(lambda: fetched(house, "/api/v1/devices")["devices"][0]["first"], "the history")
        wait_for(lambda: answers(house, "/readyz") == 200, "the house to be ready")
        yield house
    finally:
        house.kill()


def fetched(house: House, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{house.api_port}{path}", timeout=10) as answer:
        return json.load(answer)


def answers(house: House, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{house.api_port}{path}", timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_everything_is_described(described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        assert [*methods] == ["get"], path
        route = methods["get"]
        assert len(route["description"]) > 15, path
        for parameter in route.get("parameters", ()):
            assert len(parameter["description"]) > 5, (path, parameter["name"])
        assert "403" in route["responses"], path
        for status, answer in route["responses"].items():
            assert answer["description"], (path, status)
            for kind, content in answer.get("content", {}).items():
                assert content["schema"], (path, status)
                if status == "200" and kind != "application/vnd.sqlite3":
                    assert content["example"], path


def test_what_is_refused_is_described_as_it_is_sent(described: dict[str, Any]) -> None:
    text = json.dumps(described)
    assert "HTTPValidationError" not in text
    assert described["components"]["schemas"]["Problem"]["required"] == ["error"]
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert reference in described["components"]["schemas"]


def test_every_example_is_what_its_description_says(described: dict[str, Any]) -> None:
    kinds = {kind.__name__: kind for kind in _DOCUMENTS}
    checked = 0
    for path, methods in described["paths"].items():
        for answer in methods["get"]["responses"].values():
            content = answer.get("content", {}).get("application/json", {})
            if "example" in content:
                kind = kinds[content["schema"]["$ref"].rpartition("/")[2]]
                assert msgspec.to_builtins(msgspec.convert(content["example"], kind)) == content["example"], path
                checked += 1
    assert checked > 12


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/house", documents.House),
        ("/api/v1/live", documents.Live),
        ("/api/v1/devices", documents.Devices),
        ("/api/v1/health", documents.Health),
        ("/api/v1/gaps", documents.Gaps),
        ("/api/v1/energy", documents.Energy),
        ("/api/v1/cost", documents.Cost),
        ("/api/v1/series?source=house&device=fridge&metric=power_w&from=-1h", documents.Series),
        ("/api/v1/series/stack?from=-1h", documents.Stack),
        ("/energy", seed_documents.EnergyNow),
        ("/energy/history", seed_documents.EnergyHistory),
        ("/logs/historical-data", seed_documents.HistoricalData),
        ("/appliances", seed_documents.Appliances),
    ],
)
def test_a_real_house_answers_as_described(home: House, path: str, kind: type) -> None:
    msgspec.convert(fetched(home, path), kind, strict=True)


@pytest.mark.long
def test_schemathesis_finds_no_answer_that_is_not_described(home: House, tmp_path: Path) -> None:
    """What a schema cannot say (`from` before `to`, a 31st of February) may be refused, so that is not checked."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{home.api_port}/openapi.json"]
    command += ["--seed", "20261128", "--max-examples", "5", "--no-color", "--no-shrink", "--generation-deterministic"]
    command += ["--exclude-checks", "positive_data_acceptance", "--exclude-path", "/api/v1/live/stream"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "20", "--wait-for-schema", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "19 selected / 20 total" in done.stdout
    assert re.search(r"(\d{3,}) generated", done.stdout), "there were too few questions to mean anything"
    assert "Traceback" not in home.log
    assert "fault" not in home.log


def test_every_link_leads_somewhere(home: House) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{home.api_port}/links", timeout=10) as answer:
        text = answer.read().decode()
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) > 18
    assert [link for link in links if not link.startswith("/")] == []
    for link in links:
        assert answers(home, link.replace("&amp;", "&")) == 200, link


def test_all_that_is_described_is_linked(described: dict[str, Any], home: House) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{home.api_port}/links", timeout=10) as answer:
        text = answer.read().decode()
    linked = {link.partition("?")[0] for link in re.findall(r'href="([^"]+)"', text)}
    needs_more = {"/api/v1/series", "/api/v1/series/stack", "/api/v1/live/stream", "/api/v1/house", "/api/v1/health"}
    assert {*described["paths"]} - linked == needs_more


@pytest.mark.parametrize(
    ("path", "shows"),
    [("/docs", "Tell what every device measures now"), ("/redoc", "Everything that wattherd measures")],
)
def test_the_documentation_is_drawn_offline_by_a_real_browser(home: House, path: str, shows: str) -> None:
    address = f"http://127.0.0.1:{home.api_port}"
    with chromium() as browser, browser.new_context() as context:
        visitor = Visitor(context.new_page(), address)
        visitor.page.goto(address + path)
        deadline_s = time.monotonic() + 30
        while shows not in visitor.page.inner_text("body"):
            assert time.monotonic() < deadline_s, visitor.page.inner_text("body")[:500] + str(visitor.told)
            visitor.page.wait_for_timeout(100)
        beyond = [
            request.url for request in visitor.requests if not request.url.startswith((address, "data:", "blob:"))
        ]
        assert beyond == []
        assert [told for told in visitor.told if told.startswith(("error", "exception"))] == []
