"""Somebody who looks at the page with a real Chromium, and writes down whatever goes wrong meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.peers.process import require

ARTEFACTS = Path(__file__).parents[2] / "build" / "screenshots"
PHONE = (390, 844)
DESKTOP = (1280, 900)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --no-first-run"
)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser until the end of the block."""
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS.split())
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A page in a context of its own: its own storage, size, scheme and place in the world."""

    page: Page
    address: str
    requests: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # by the console of the browser

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("requestfailed", lambda request: self.failures.append(f"{request.url}: {request.failure}"))
        self.page.on(
            "response",
            lambda response: (
                self.failures.append(f"{response.url}: {response.status}") if response.status >= 400 else None
            ),
        )
        self.page.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.told.append(f"exception: {error}"))

    def open(self, place: str = "/") -> Visitor:
        """Open the page, and wait until it shows a number or says why it does not."""
        self.page.goto(self.address + place)
        self.page.wait_for_selector("body.ready")
        return self

    def waits_for(self, condition: str, what: str, within_s: float = 15.0) -> Any:
        """Return the first answer of an expression of the page that is true.

        It is asked again from here: the page's own policy forbids what the browser would need to do that by itself.
        """
        deadline_s = time.monotonic() + within_s
        while not (answer := self.page.evaluate(condition)):
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited {within_s} s for {what}; the page says:\n{self.text('body')}", pytrace=False)
            self.page.wait_for_timeout(20)
        return answer

    def sees_live_values(self) -> None:
        self.waits_for("/\\d/.test(document.querySelector('#now-number').textContent)", "the number of the house")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def row(self, device: str) -> dict[str, str]:
        """Read one row of the table of devices: column and text."""
        row = self.page.locator("#devices-rows tr", has_text=device).first
        return {name: row.locator(f".{name}").first.inner_text() for name in ("name", "state", "power", "age")}

    def screenshot(self, name: str) -> None:
        """Keep a picture of the whole page, for people."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    @property
    def overflow_px(self) -> int:
        """By how much the page is wider than the screen."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def had_a_good_time(self) -> None:
        """No request left the machine, none failed, and nobody complained."""
        foreign = [request.url for request in self.requests if not request.url.startswith((self.address, "data:"))]
        assert not foreign, foreign
        assert not self.failures, self.failures
        assert not self.told, self.told


@contextlib.contextmanager
def visit(
    browser: Browser,
    address: str,
    size: tuple[int, int] = DESKTOP,
    scheme: Literal["light", "dark"] = "light",
    **options: Any,
) -> Iterator[Visitor]:
    """Visit the house; whoever leaves closes the door."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        **{"locale": "en-GB", "device_scale_factor": 2 if size == PHONE else 1, **options},
    )
    context.set_default_timeout(15_000)
    try:
        yield Visitor(context.new_page(), address)
    finally:
        context.close()


def axe(visitor: Visitor) -> list[str]:
    """What the page would make hard for some readers."""
    violations = Axe().run(visitor.page).response["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in violations]
