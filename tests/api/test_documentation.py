"""What `docs/api.md` shows is what a house answers: its commands are run, its examples have the right names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from config.interface import Api
from tests.api.conftest import app_of, well_house
from tests.faults.house import House
from tests.peers.process import require, wait_for

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/api.md").read_text()
HOUSE = """
[sources.house]
kind = "simulated"
interval_s = 0.5
[outputs.history]
"""
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.startswith("curl")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("home"), "", ["esp32-meter"])
    house.head += 'appliances = [{ id = 1, name = "Refrigerator", channel = "house/fridge" }]\n'
    house.configure(HOUSE)
    house.started()
    try:
        path = "/api/v1/series?source=house&device=fridge&metric=power_w"
        wait_for(lambda: json.loads(house.get(path) or "{}").get("time_s"), "the history")
        yield house
    finally:
        house.kill()


def ran(house: House, command: str, directory: Path) -> str:
    line = command.replace("127.0.0.1:8000", f"127.0.0.1:{house.api_port}")
    words = [require("curl"), "--silent", "--show-error", "--fail", *shlex.split(line)[1:]]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 or ("--max-time" in command and done.returncode == 28), f"{command}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("command", [one for one in COMMANDS if "raspberrypi" not in one])
def test_every_command_does_what_is_said_of_it(home: House, tmp_path: Path, command: str) -> None:
    told = ran(home, command, tmp_path)
    if "download.csv" in command:
        assert (tmp_path / "wattherd.csv").read_text().startswith("time,source,device,metric,n,mean,min,max,last,")
    elif "stream" in command:
        assert told.startswith("retry: 1000\n\nevent: live\ndata: {")
    else:
        assert isinstance(json.loads(told), dict)


def shape(document: Any) -> Any:
    """Return the names in a document, without its numbers; of a list that of its first item, of values none."""
    if isinstance(document, dict):
        return {name: shape(inner) if name != "values" else {} for name, inner in document.items()}
    return [shape(document[0])] if isinstance(document, list) and document else []


def test_the_examples_have_the_names_of_the_answers(home: House, tmp_path: Path) -> None:
    examples = 0
    for (_, commands), (kind, example) in pairwise(BLOCKS):
        if kind == "json":
            told = json.loads(ran(home, commands.strip(), tmp_path))
            assert shape(told) == shape(json.loads(example))
            examples += 1
    assert examples == 2


def test_every_path_is_in_the_documents_and_in_the_description() -> None:
    house = well_house()
    described = {*app_of(house.settings, house.board).openapi()["paths"]}
    written = {path.partition("?")[0] for path in re.findall(r"`(/[a-z0-9_./-]+(?:\?[^`]*)?)`", TEXT)}
    assert described - written == set()
    assert {path for path in written if path.startswith("/api/")} <= described


def test_every_option_is_in_the_documents() -> None:
    table = TEXT.partition("| in `[api]` |")[2].partition("\n\n")[0]
    assert {*re.findall(r"`(\w+)`(?:,| \|)", table)} >= {*Api.__struct_fields__} - {"enabled"}
