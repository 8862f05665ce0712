"""A small house in which all is well; each test breaks one thing."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from msgspec.structs import replace

from api import serve
from api.app import create_app
from api.parts import health
from api.snapshot import look
from api.stream import Newsroom
from commands._configuration import catalog
from config.load import ConfigurationError, load
from config.settings import Api, ClockRules, OutputTable, PolledTable, Settings, Site, SourceTable, Supervise, Writer
from vitals import PROCESS_STATES, Board, Row

MINUTE_NS = 60 * 10**9


@dataclass
class House:
    settings: Settings
    board: Board

    def row(self, role: str, name: str) -> Row:
        return self.board.claim(role, name)

    def put(self, role: str, name: str, note: str | None = None, **numbers: int) -> None:
        row = self.row(role, name)
        if note is not None:
            row.note = note
        for field, number in numbers.items():
            row[field] = number


def app_of(settings: Settings, board: Board) -> FastAPI:
    """Make the application as the process does, for a look without a server."""
    sight = serve.sight_of(settings, board, 0)
    newsroom = Newsroom(sight.live, lambda: health(settings, look(board)))
    return create_app(sight, newsroom, serve.access_log_of(settings))


@pytest.fixture
def house(tmp_path: Path) -> House:
    found = well_house()
    found.settings = replace(found.settings, site=replace(found.settings.site, data_dir=str(tmp_path)))
    return found


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return every mistake that a configuration has."""

    def mistakes(text: str) -> list[str]:
        file = tmp_path / "site.toml"
        file.write_text(text)
        try:
            load(file, catalog())
        except ConfigurationError as error:
            return error.problems
        return []

    return mistakes


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("this machine allows fewer than 1,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def well_house() -> House:
    settings = Settings(
        site=Site(name="cottage"),
        supervise=Supervise(hung_after_s=30),
        writer=Writer(),
        clock=ClockRules(),
        api=Api(port=0),
        sources={
            "meter": SourceTable(kind="esp32_http"),
            "plugs": PolledTable(kind="kasa", interval_s=1200),
            "off": SourceTable(kind="pulse", enabled=False),
        },
        outputs={"csv": OutputTable(), "influx": OutputTable()},
    )
    house = House(settings, Board())
    now, today = time.monotonic_ns(), time.time_ns()
    running = PROCESS_STATES.index("running")
    for process in ("source.meter", "source.plugs", "writer", "api"):
        since = now - 24 * 60 * MINUTE_NS
        house.put("process", process, state=running, pid=4242, starts=1, since_ns=since)
    for source in ("meter", "plugs"):
        house.put("worker", source, beat_ns=now, open=1, last_round_ns=now, last_reading_ns=now, readings=20, sent=20)
    house.put("writer", "writer", beat_ns=now, accepted=40, commits=4, clock_synced=1, last_commit_ns=now)
    for output in ("csv", "influx"):
        house.put("output", output, state=1, accepted=40, delivered=38, pending=2, oldest_pending_utc_ns=today)
    house.put("api", "api", beat_ns=now)
    return house
