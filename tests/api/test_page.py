"""The web page of a real house in a real browser: what it shows, and that it never shows an old number as a new one."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.api.home import SILENT, home
from tests.api.visitor import DESKTOP, PHONE, Visitor, axe, chromium, visit
from tests.faults.house import House
from tests.peers.process import wait_for

SIZES = {"phone": PHONE, "desktop": DESKTOP}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a history, whose source `cellar` stands still as soon as it has said something."""
    house = home(tmp_path_factory.mktemp("home")).started()
    try:
        wait_for(lambda: '"freezer"' in (house.get("/api/v1/live") or ""), "the first reading of the freezer")
        os.kill(pid(house, "source.cellar"), signal.SIGSTOP)
        yield house
    finally:
        with_cellar = house.pid("source.cellar")
        if with_cellar:
            os.kill(with_cellar, signal.SIGCONT)
        house.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def address(house: House) -> str:
    return f"http://127.0.0.1:{house.api_port}"


@pytest.fixture
def visitor(browser: Browser, address: str) -> Iterator[Visitor]:
    """A visitor at a desk, for whom nothing must go wrong."""
    with visit(browser, address) as visitor:
        yield visitor
        visitor.had_a_good_time()


def pid(house: House, name: str) -> int:
    found = house.pid(name)
    assert found, f"{name} does not run"
    return found


def test_the_page_shows_live_values_that_change(visitor: Visitor) -> None:
    visitor.open().sees_live_values()
    assert visitor.text("#site") == "proof"
    assert visitor.text("#demo") == "DEMO The numbers of cellar and house are simulated"
    first = visitor.text("#spark-words")
    assert re.match(r"Last (hour|\d+ min): ", first)
    assert visitor.row("fridge")["age"].endswith(("just now", " ago"))
    visitor.page.goto(f"{visitor.address}/#device=house/base")
    voltages = "document.querySelector('#device-values').textContent"
    was = visitor.waits_for(f"{voltages}.includes('Voltage') && {voltages}", "the voltage")
    visitor.waits_for(f"{voltages} !== {was!r}", "another voltage than before")


def test_the_whole_of_a_day_is_there_with_its_energy_and_its_cost(visitor: Visitor) -> None:
    visitor.open().sees_live_values()
    visitor.waits_for("document.querySelectorAll('#power-legend li').length >= 7", "the legend")
    visitor.waits_for("document.querySelector('#energy-figures').textContent.includes('£')", "money")
    assert "kWh" in visitor.text("#energy-figures")
    assert "Hatched" in visitor.text("#power-gaps")
    for range_, words in (("1 h", "hour"), ("7 d", "7 days"), ("30 d", "30 days"), ("24 h", "24 hours")):
        visitor.page.get_by_role("radio", name=range_, exact=True).first.check(force=True)
        visitor.waits_for(f"document.querySelector('#power-when').textContent.includes('last {words}')", range_)
    for view, words in (("7 days", "7 days"), ("Months", "12 months"), ("Today", "Today")):
        visitor.page.get_by_role("radio", name=view, exact=True).first.check(force=True)
        visitor.waits_for(f"document.querySelector('#energy-figures').textContent.includes('{words}')", view)
    drawn = (
        "(() => { const c = document.querySelector('#{} canvas');"
        " return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size })()"
    )
    for chart in ("spark", "power-chart", "energy-chart"):
        assert visitor.page.evaluate(drawn.replace("{}", chart)) > 20, f"{chart} is empty"


def test_the_legend_hides_and_shows_a_device(visitor: Visitor) -> None:
    visitor.open().sees_live_values()
    button = visitor.page.locator("#power-legend button", has_text="solar")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"


def test_a_chart_is_read_with_the_arrow_keys(visitor: Visitor) -> None:
    visitor.open().sees_live_values()
    visitor.waits_for("document.querySelectorAll('#power-legend li').length >= 7", "the legend")
    visitor.page.focus("#power-chart")
    visitor.page.keyboard.press("End")
    for _ in range(3):
        visitor.page.keyboard.press("ArrowLeft")
    words = visitor.page.get_attribute("#power-chart", "aria-valuetext") or ""
    assert re.search(r"\d\d:\d\d: .*house-meter −?[\d.]+.k?W", words), words
    assert visitor.text("#power-when") in words


def test_every_control_can_be_reached_by_keyboard(visitor: Visitor) -> None:
    visitor.open().sees_live_values()
    visitor.waits_for("document.querySelectorAll('#power-legend li').length >= 7", "the legend")
    wanted = visitor.page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
        ".filter((one) => one.checkVisibility() && (one.type !== 'radio' || one.checked)).length"
    )
    visitor.page.evaluate(
        "window.reached = new Set(); addEventListener('focusin', (event) => reached.add(event.target))"
    )
    for _ in range(wanted + 3):
        visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("reached.size") >= wanted
    visitor.page.locator("#devices-table").get_by_role("button", name="Power").press("Enter")
    assert visitor.page.locator("#devices-table th.power").get_attribute("aria-sort") == "descending"
    visitor.page.locator("#devices-rows a", has_text="kettle").press("Enter")
    visitor.waits_for("document.querySelector('#device-title').textContent === 'kettle'", "the page of the kettle")
    assert visitor.page.evaluate("document.activeElement.id") == "device-title"


def test_a_device_has_a_page_of_its_own(visitor: Visitor) -> None:
    visitor.open("/#device=house/house-meter").page.wait_for_selector("#device-days tr")
    options = visitor.page.locator("#device-metric option").all_inner_texts()
    assert {"Power", "Voltage", "Current", "Frequency"} <= {*options}
    for metric in ("Voltage", "Energy", "Power"):
        visitor.page.select_option("#device-metric", label=metric)
        visitor.waits_for(f"document.querySelector('#device-summary').textContent.startsWith('{metric}, last')", metric)
    assert "£" in visitor.text("#device-days")
    with visitor.page.expect_download() as download:
        visitor.page.click("#device-download")
    text = download.value.path().read_text()
    assert text.splitlines()[0] == "time,source,device,metric,n,mean,min,max,last,increase"
    assert len(text.splitlines()) > 100
    visitor.failures = [failure for failure in visitor.failures if "download.csv" not in failure]  # it is no page
    visitor.page.go_back()
    visitor.page.goto(f"{visitor.address}/#device=house/no-such-device")
    visitor.waits_for("document.querySelector('#device-age').textContent === 'never heard'", "that it is not known")
    visitor.failures.clear()  # the api says that there is no such device


def test_times_are_those_of_the_site_wherever_the_reader_is(browser: Browser, address: str) -> None:
    words = []
    for zone in ("Europe/London", "Asia/Kathmandu"):
        with visit(browser, address, timezone_id=zone) as visitor:
            visitor.open().sees_live_values()
            visitor.page.get_by_role("radio", name="7 d", exact=True).first.check(force=True)
            visitor.waits_for("document.querySelector('#power-when').textContent.includes('7 days')", "7 days")
            visitor.page.focus("#power-chart")
            visitor.page.keyboard.press("Home")
            words.append(visitor.text("#power-when"))
            assert visitor.text("#zone") == "Europe/London"
    assert re.match(r"\w{3},? \d+ \w+, \d\d:\d\d", words[0])
    assert words[0] == words[1]


@pytest.mark.parametrize(("size", "scheme"), [("phone", "light"), ("phone", "dark"), ("desktop", "dark")])
def test_both_views_are_good_on(browser: Browser, address: str, size: str, scheme: Any) -> None:
    """Nothing jumps, nothing is wider than the screen, nothing is hard to read, and pictures are kept for people."""
    with visit(browser, address, SIZES[size], scheme) as visitor:
        visitor.page.add_init_script(
            "window.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach((one) => {"
            " shift += one.value })).observe({type: 'layout-shift', buffered: true})"
        )
        visitor.open().sees_live_values()
        visitor.waits_for("document.querySelectorAll('#power-legend li').length >= 7", "the legend")
        visitor.page.wait_for_selector("#energy-figures dd")
        assert visitor.page.evaluate("shift") < 0.1
        assert visitor.overflow_px <= 0
        assert axe(visitor) == []
        visitor.screenshot(f"house-{size}-{scheme}")
        visitor.page.goto(f"{address}/#device=house/house-meter")
        visitor.page.wait_for_selector("#device-days tr")
        visitor.waits_for("document.querySelector('#device-summary').textContent.includes('between')", "the course")
        assert visitor.overflow_px <= 0
        assert axe(visitor) == []
        visitor.screenshot(f"device-{size}-{scheme}")
        visitor.had_a_good_time()


def test_a_silent_device_has_no_number_and_gets_one_when_it_speaks_again(visitor: Visitor, house: House) -> None:
    visitor.open().sees_live_values()
    row = visitor.row(SILENT)
    assert (row["state"], row["power"]) == ("silent", "–")
    assert re.fullmatch(r"stale for \d+ min", row["age"])
    visitor.page.goto(f"{visitor.address}/#device=meter/{SILENT}")
    visitor.waits_for("/^stale for/.test(document.querySelector('#device-age').textContent)", "that it is stale")
    assert visitor.text("#device-power") == "–"
    assert "The last that it said" in visitor.text("#device-silent")
    visitor.page.goto(f"{visitor.address}/#")
    assert house.post({"device": SILENT, "power_w": 123})[0] == 200
    cell = f"[...document.querySelectorAll('#devices-rows tr')].find((row) => row.textContent.includes('{SILENT}'))"
    visitor.waits_for(f"{cell}.querySelector('.power').textContent === '123\\u00a0W'", "its new number", 5)


def test_what_a_killed_api_showed_comes_back_by_itself(browser: Browser, house: House, address: str) -> None:
    with visit(browser, address) as visitor:
        voltage = "document.querySelector('#device-values')?.textContent.match(/Voltage([\\d.]+)/)?.[1]"
        visitor.open("/#device=house/base").waits_for(voltage, "the voltage")
        before = pid(house, "api")
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: house.pid("api") not in (None, before), "another api")
        visitor.waits_for("document.body.dataset.age === 'fresh'", "fresh numbers")
        wait_for(lambda: house.is_ready(), "the house to be ready again")
        was = visitor.page.evaluate(voltage)
        visitor.waits_for(f"{voltage} !== {was!r}", "another voltage from another api")
        assert visitor.page.is_hidden("#lost")


def test_without_an_api_numbers_dim_then_go_and_a_banner_says_why(browser: Browser, house: House, address: str) -> None:
    with visit(browser, address, PHONE) as visitor:
        visitor.page.clock.install()
        visitor.open().sees_live_values()
        os.kill(pid(house, "api"), signal.SIGSTOP)
        try:
            visitor.page.clock.fast_forward(20_000)
            visitor.waits_for("document.body.dataset.age === 'dim'", "dim numbers")
            assert re.search(r"\d", visitor.text("#now-number"))
            visitor.page.clock.fast_forward(30_000)
            visitor.waits_for("document.body.dataset.age === 'blank'", "no numbers")
            visitor.page.clock.fast_forward(3_000)
            visitor.page.wait_for_selector("#lost:not([hidden])")
            assert visitor.text("#now-number") == "–"
            assert {*visitor.page.locator("#devices-rows .power").all_inner_texts()} == {"–"}
            assert visitor.text("#verdict") == "No connection"
            assert axe(visitor) == []
            visitor.screenshot("lost-phone-light")
        finally:
            os.kill(pid(house, "api"), signal.SIGCONT)
        visitor.page.clock.fast_forward(10_000)
        visitor.sees_live_values()
        visitor.page.wait_for_selector("#lost", state="hidden")


def test_a_source_that_stands_still_shows_as_stale_and_recovers(visitor: Visitor, house: House) -> None:
    """Its process was stopped when the house was started; this test comes last, because staleness takes its time."""
    visitor.open().sees_live_values()
    row = "[...document.querySelectorAll('#devices-rows tr')].find((row) => row.textContent.includes('freezer'))"
    visitor.waits_for(f"{row}.classList.contains('stale')", "the freezer to be stale", 40)
    assert visitor.row("freezer")["power"] == "–"
    assert visitor.row("freezer")["age"].startswith("stale for ")
    # "Everything is well" is not said over it, though no source is in trouble.
    silent = visitor.page.locator("#devices-rows tr.stale").count()
    assert visitor.text("#verdict") == f"{silent} {'device' if silent == 1 else 'devices'} silent"
    visitor.screenshot("stale-desktop-light")
    os.kill(pid(house, "source.cellar"), signal.SIGCONT)
    visitor.waits_for(f"/\\d/.test({row}.querySelector('.power').textContent)", "the number of the freezer")
    assert visitor.row("freezer")["age"].endswith(("just now", " ago"))
