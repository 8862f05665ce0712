"""The benches work: their table, their JSON, the quick mode, and the page that shows the figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import markdown, write_docs
from bench.figures import Figure, Skipped, medians, read, table, verdict, write
from bench.pulse import edge_us
from bench.svg import Curve, picture

ROOT = Path(__file__).parents[1]
_LONG = "a thing with a name that is longer than anybody would ever print in one column"
_FINDINGS = [
    Figure("a reading", 1.5, "µs", "Point", 7.5, 0.25),
    Figure(_LONG, 123_456.7, "MB", _LONG, 1.0),
    Skipped("a pulse", "no stress-ng; try: apt install stress-ng"),
]


def test_the_table_is_no_wider_than_a_hundred_columns_and_says_what_is_met_and_what_is_skipped() -> None:
    lines = table(_FINDINGS).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[-1] for line in lines[1:3]] == ["met", "NOT"]
    assert "skipped: no stress-ng" in lines[3]


def test_what_is_only_compared_has_no_verdict(tmp_path: Path) -> None:
    figures = [*_FINDINGS, Figure("a reading", 1.5, "µs", "vmagent", 1.0, None)]
    assert table(figures).endswith("1.500       -")
    assert verdict(figures) == "1 of 2 within their budget, 1 skipped"
    assert "| 1.500 | - |  |" in markdown({"pipeline": figures})


def test_what_is_written_as_json_is_read_back(tmp_path: Path) -> None:
    path = write("some", _FINDINGS, tmp_path)
    assert read(path) == _FINDINGS
    first, second, _ = json.loads(path.read_text())["figures"]
    assert (first["ratio"], first["met"], second["met"]) == (0.2, True, False)


def test_a_median_is_taken_of_each_and_they_take_turns() -> None:
    turns: list[str] = []
    costs = {name: iter(values) for name, values in {"a": (1.0, 9.0, 2.0), "b": (5.0, 4.0, 6.0)}.items()}

    def cost(name: str) -> float:
        turns.append(name)
        return next(costs[name])

    assert medians({"a": lambda: cost("a"), "b": lambda: cost("b")}, rounds=3) == {"a": 2.0, "b": 5.0}
    assert turns == ["a", "b"] * 3


def test_the_page_gets_the_new_table_in_place_of_the_old_one(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- figures: make bench -->\nold\n<!-- end of figures -->\nafter\n")
    for _ in range(2):
        write_docs({"pipeline": _FINDINGS}, page)
    text = page.read_text()
    assert markdown({"pipeline": _FINDINGS}) in text
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert "old" not in text


def test_a_picture_of_growth_names_its_power() -> None:
    assert "grows with the power 1.00" in picture([Curve("CPU", "ms", {1: 3.0, 10: 30.0, 100: 300.0})])


def test_no_edge_is_missing_behind_the_raw_reader() -> None:
    assert edge_us(bursts=3) > 0


def test_the_quick_mode_of_a_bench_prints_one_table_and_writes_its_json(tmp_path: Path) -> None:
    # Nothing that could load the machine is found, so all of that is skipped, and says why.
    environment = {**os.environ, "PATH": str(tmp_path)}
    words = [sys.executable, "-m", "bench", "--quick", "--results", str(tmp_path), "pulse"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "skipped: no stress-ng; try: apt install stress-ng" in done.stdout
    skipped, edge = read(tmp_path / "bench.json")
    assert isinstance(skipped, Skipped)
    assert isinstance(edge, Figure)
    assert edge.what in done.stdout.rpartition("what  ")[2]


def test_a_bench_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    words = [sys.executable, "-m", "bench", "speed"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such bench: speed; there are pipeline, " in done.stderr


@pytest.mark.parametrize(
    "name", ["pipeline", "disk", "memory", "restart", "pulse", "drain", "history", "api", "growth"]
)
def test_every_bench_can_be_tried_quickly_and_says_what_it_measures(name: str) -> None:
    text = (ROOT / "bench" / f"{name}.py").read_text()
    assert "told.quick" in text
    assert f"-m bench.{name}" in text.split('"""')[1]
