"""The page in houses that have little to show, that ask for a key, or that say what was meant to do harm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from tests.api.visitor import PHONE, Visitor, axe, chromium, visit
from tests.faults.house import ROOT, House
from tests.peers.process import wait_for

NARROW = (360, 740)
HOSTILE = "<img src=x onerror=alert(1)><b>" + "x" * 200
SIMULATED = """
[sources.house]
kind = "simulated"
interval_s = 0.5
[[sources.house.devices]]
name = "fridge"
load = "fridge"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house without history and without prices; with the right key it can be seen from everywhere."""
    house = House(tmp_path_factory.mktemp("small"), "", ["esp32-meter"])
    house.head += 'appliances = [{ id = 1, name = "Refrigerator", channel = "house/fridge" }]\n'
    house.configure("[outputs.csv]\n", SIMULATED)
    house.started()
    try:
        wait_for(lambda: '"fridge"' in (house.get("/api/v1/live") or ""), "the first reading")
        yield house
    finally:
        house.stop()


@pytest.fixture
def address(house: House) -> str:
    return f"http://127.0.0.1:{house.api_port}"


def test_a_house_without_history_says_how_to_get_one(browser: Browser, address: str) -> None:
    with visit(browser, address, PHONE) as visitor:
        visitor.open().sees_live_values()
        assert "[outputs.history]" in visitor.text("#power-empty")
        assert visitor.text("#hint-command") == "./orchestrator.py example history"
        assert visitor.page.is_hidden("#power-range")
        assert visitor.overflow_px <= 0
        assert axe(visitor) == []
        visitor.screenshot("no-history-phone-light")
        visitor.had_a_good_time()


WORDS = """async () => {
    const { power, energy, money, comparison, duration, metricName, metricValue, Clock } =
        await import("/static/numbers.js");
    const clock = new Clock("Europe/London");
    return [power(86.4), power(1234), power(-812), power(-0.02), power(null), energy(3210), energy(1234567),
        money(1.5, "GBP"), money(-0.001, "GBP"), comparison(80, 100), comparison(5, 0), duration(119), duration(7200),
        metricName("voltage_v"), metricName("soil_moisture_percent"), metricValue("voltage_v", 231.44),
        metricValue("state", "idle"), clock.say("time", 1792888200), clock.say("time", 1792891800)].map(String)
}"""


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (
            "en-GB",
            "86 W|1.23 kW|−812 W|0 W|–|3.21 kWh|1,235 kWh|£1.50|£0.00|20 % less||119 s|2 h|Voltage|Soil moisture"
            "|231.4 V|idle|01:30|01:30",  # an hour that comes twice
        ),
        (
            "de-DE",
            "86 W|1,23 kW|−812 W|0 W|–|3,21 kWh|1.235 kWh|1,50 £|0,00 £|20 % less||119 s|2 h|Voltage|Soil moisture"
            "|231,4 V|idle|01:30|01:30",
        ),
    ],
)
def test_numbers_are_written_as_the_reader_writes_them(browser: Browser, address: str, locale: str, words: str) -> None:
    with visit(browser, address, locale=locale) as visitor:
        visitor.open()
        said = [word.replace("\u00a0", " ") for word in visitor.page.evaluate(WORDS)]
        assert said == words.split("|")


def test_a_device_has_the_name_that_people_know_it_by(browser: Browser, address: str) -> None:
    with visit(browser, address) as visitor:
        visitor.open().sees_live_values()
        assert visitor.row("Refrigerator")["name"].split() == ["Refrigerator", "house/fridge"]
        visitor.page.locator("#devices-rows a", has_text="Refrigerator").click()
        visitor.page.wait_for_selector("#device-view:not([hidden])")
        assert visitor.text("#device-title") == "Refrigerator"
        assert visitor.page.title() == "Refrigerator · proof · wattherd"


def test_what_a_device_calls_itself_is_text_and_breaks_no_layout(browser: Browser, house: House, address: str) -> None:
    live = json.loads(house.get("/api/v1/live") or "{}")
    health = json.loads(house.get("/api/v1/health") or "{}")
    for device in live["devices"]:
        device.update(source=HOSTILE, device=HOSTILE, values={**device["values"], "state": HOSTILE})
    health["reasons"] = [{"part": HOSTILE, "what": HOSTILE, "remedy": HOSTILE}]
    for part in (*health["sources"], *health["outputs"]):
        part.update(name=HOSTILE, kind=HOSTILE, note=HOSTILE, state=HOSTILE)
    with visit(browser, address, NARROW) as visitor:
        replace_stream(visitor, live, health)
        visitor.open()
        visitor.page.wait_for_selector("#devices-rows tr")
        visitor.waits_for("document.querySelectorAll('#attention-list li').length", "the reasons")
        assert visitor.page.locator("#devices-rows .device-name").first.inner_text() == HOSTILE
        assert visitor.page.locator("img:not([src='/static/icon.svg']), main b > b").count() == 0
        assert visitor.overflow_px <= 0
        assert axe(visitor) == []
        visitor.screenshot("hostile-narrow-light")
        visitor.page.locator("#devices-rows a").first.click()
        visitor.page.wait_for_selector("#device-view:not([hidden])")
        assert visitor.text("#device-title") == HOSTILE
        assert visitor.overflow_px <= 0
        assert not [line for line in visitor.told if "Security" in line or line.startswith("exception")]


def test_trouble_stands_at_the_top_with_its_remedy(browser: Browser, house: House, address: str) -> None:
    health = json.loads(house.get("/api/v1/health") or "{}")
    health["ready"] = False
    health["reasons"] = [{"part": "output csv", "what": "is down: the disk is full", "remedy": "make room on it"}]
    health["outputs"][0].update(state="down", mood="bad", pending=1234, dropped=5)
    with visit(browser, address, PHONE, "dark") as visitor:
        replace_stream(visitor, json.loads(house.get("/api/v1/live") or "{}"), health)
        visitor.open()
        visitor.waits_for("document.querySelectorAll('#attention-list li').length", "the reasons")
        assert visitor.text("#verdict") == "1 thing needs attention"
        assert "make room on it" in visitor.text("#attention")
        assert "5 records lost" in visitor.text("#outputs-rows")
        assert axe(visitor) == []
        visitor.screenshot("trouble-phone-dark")


def replace_stream(visitor: Visitor, live: Any, health: Any) -> None:
    """Let the house say what no configuration of ours would let it say."""
    body = f"event: live\ndata: {json.dumps(live)}\n\nevent: health\ndata: {json.dumps(health)}\n\n"

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    visitor.page.route("**/api/v1/live/stream", answer)


def test_from_another_machine_the_page_asks_for_the_key_keeps_it_and_forgets_it(
    browser: Browser, tmp_path: Path
) -> None:
    house = House(tmp_path, "[outputs.csv]\n", ["esp32-meter"], SIMULATED)
    command = [sys.executable, "orchestrator.py", "key", "--config", str(house.config)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    key = said.split("\n\n")[1].strip()
    try:
        house.started()
        # As a proxy in front of the house tells of somebody elsewhere.
        elsewhere = {"X-Forwarded-For": "192.168.1.77"}
        with visit(browser, f"http://127.0.0.1:{house.api_port}", PHONE, extra_http_headers=elsewhere) as visitor:
            visitor.open()
            assert visitor.page.is_visible("#key")
            assert visitor.page.is_hidden("#shell")
            assert visitor.page.evaluate("document.activeElement.id") == "key-field"
            assert axe(visitor) == []
            visitor.screenshot("key-phone-light")
            visitor.page.keyboard.type("not the key")
            visitor.page.keyboard.press("Enter")
            visitor.waits_for("document.querySelector('#key-trouble').textContent.includes('not the key')", "a no")
            assert visitor.page.get_attribute("#key-field", "aria-invalid") == "true"
            visitor.page.keyboard.type(key)  # over the wrong one, which is selected
            visitor.page.keyboard.press("Enter")
            visitor.sees_live_values()
            assert visitor.page.is_hidden("#key")
            visitor.page.reload()
            visitor.sees_live_values()
            visitor.page.click("#forget")
            visitor.page.wait_for_selector("#key", state="visible")
            assert {*visitor.failures} <= {f"{one.url}: 403" for one in visitor.requests} | {
                f"{visitor.address}/api/v1/live/stream: net::ERR_ABORTED"  # by leaving the page
            }
    finally:
        house.kill()
