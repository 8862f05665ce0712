"""What the texts of deploy/influx compute, run by InfluxData's own engine of Flux, where somebody has built it."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from statistics import fmean
from typing import Any

import pytest

from reading import AVERAGED, LASTING
from tests.peers import flux_engine
from writer.outputs._influx_rollups import LEVELS, Level, backfill_script, task_script
from writer.outputs._influx_sums import _counts
from writer.outputs.influx import Options

BEGIN_S = 1_763_640_000
COUNTING = '        |> keep(columns: ["_field"])\n        |> group()\n        |> count(column: "_field")\n'

pytestmark = flux_engine.NEEDED

Name = tuple[str, str, str]  # measurement, device, field
Series = dict[Name, list[tuple[float, Any]]]


@pytest.fixture(scope="module")
def series() -> Series:
    """Two hours of readings of every kind, at any moments."""
    chance = random.Random(5)
    found: Series = {}

    def add(count: int, device: str, field: str, value: Callable[[], Any], measurement: str = "electricity") -> None:
        points = {BEGIN_S + chance.randrange(7_200_000) / 1000: value() for _ in range(count)}
        found[measurement, device, field] = sorted(points.items())

    for device in ("fridge", "oven"):
        for field in ("power_w", "voltage_v"):
            add(400, device, field, lambda: chance.uniform(-100, 3000))
        for field in ("energy_wh", "pulses"):
            add(300, device, field, lambda: float(chance.randrange(10**6)))
    add(60, "fridge", "state", lambda: chance.choice(["on", "off"]))
    add(5, "fridge", "quality", lambda: "estimated")
    add(30, "oven", "energy_correction_wh", lambda: chance.uniform(-3, 3))
    add(90, "roof", "Pulse", lambda: 1, "PowerPulse")
    add(90, "roof", "power_w", lambda: 1.0, "somebody else's")
    return found


def stored(series: Series) -> str:
    names = ("_measurement", "device", "_field")
    return flux_engine.stored({tuple(zip(names, key, strict=True)): points for key, points in series.items()})


def expected(series: Series, width_s: int) -> dict[tuple[Name, float], Any]:
    found: dict[tuple[Name, float], Any] = {}
    for (measurement, device, field), points in series.items():
        windows: dict[float, list[Any]] = {}
        for at_s, value in points:
            windows.setdefault(at_s // width_s * width_s, []).append(value)
        for start_s, values in windows.items():
            if measurement not in ("electricity", "PowerPulse"):
                continue
            if field in AVERAGED:
                for suffix, value in (("", fmean(values)), ("_min", min(values)), ("_max", max(values))):
                    found[(measurement, device, field + suffix), start_s] = value
            elif field in LASTING or isinstance(values[0], str):
                found[(measurement, device, field), start_s] = values[-1]
            else:
                found[(measurement, device, field), start_s] = sum(values)
    return found


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_the_engine_computes_what_an_independent_computation_does(series: Series, level: Level) -> None:
    script = backfill_script(Options(), level, "sums", BEGIN_S, BEGIN_S + 7200)
    script = 'import "csv"\n' + stored(series) + script
    assert COUNTING in script
    wanted = expected(series, level.width_s)
    found = {
        ((row["_measurement"], row["device"], row["_field"]), datetime.fromisoformat(row["_time"]).timestamp()): row
        for row in flux_engine.run(script.replace(COUNTING, ""), BEGIN_S)
    }
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        told = found[key]["_value"]
        assert told == value if isinstance(value, str) else float(told) == pytest.approx(value), key
    assert sum(_counts(flux_engine.answer(script, BEGIN_S))) == len(wanted), "it tells how many points it wrote"


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_a_task_computes_whole_windows_as_far_back_as_it_says(series: Series, level: Level) -> None:
    now_s = BEGIN_S + 7001  # no edge of any window
    head, imported, rest = task_script(Options(), level, "sums").partition('import "date"\n')
    script = head + 'import "csv"\n' + imported + stored(series) + rest
    look_back_s = int(level.look_back[:-1]) * {"m": 60, "h": 3600}[level.look_back[-1]]
    first_s = (now_s - look_back_s) // level.width_s * level.width_s
    last_s = now_s // level.width_s * level.width_s
    wanted = {at_s for _, at_s in expected(series, level.width_s) if first_s <= at_s < last_s}
    found = {
        datetime.fromisoformat(row["_time"]).timestamp() for row in flux_engine.run(script.replace(COUNTING, ""), now_s)
    }
    assert found == wanted
