"""The part of the fault lab that runs with every test: fewer of everything. `make faults` does the whole of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.lab.bench import Bench

PART = {"stops": 0.1}  # by experiment, how much of it


@pytest.mark.parametrize("experiment", PART)
def test_a_part_of_the_fault_lab_finds_everything_as_promised(experiment: str, tmp_path: Path) -> None:
    sheet = Bench(experiment, tmp_path, seed=1, scale=PART[experiment]).run()
    if sheet.skipped:
        pytest.skip(sheet.skipped)
    assert sheet.differences == []
