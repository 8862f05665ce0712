"""The second backend, on a module that has the API of RPi.GPIO and is strict about its use."""

from __future__ import annotations

import contextlib
import csv
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.peers.process import wait_for
from workers import SourceError, _gpio_chip
from workers._gpio import FALLING, RISING, Line
from workers._gpio_rpi import RpiEdges
from workers.pulse import Options, Pulse

STAND_IN = '''
"""RPi.GPIO as far as a pulse counter needs it: callbacks from one thread, and a refusal of every wrong use."""
import os, queue, threading
BCM, IN, RISING, FALLING, BOTH = 11, 1, 31, 32, 33
PUD_OFF, PUD_DOWN, PUD_UP = 20, 21, 22
assert os.access(os.environ["LG_WD"], os.W_OK), "no place for the pipe of lgpio"
work_dir = os.environ["LG_WD"]
_mode, _pulls, _detected, _levels = None, {}, {}, {}
_calls = queue.Queue()

def setwarnings(flag):
    assert isinstance(flag, bool)

def setmode(mode):
    global _mode
    assert mode == BCM
    _mode = mode

def setup(channel, direction, pull_up_down=PUD_OFF):
    if _mode is None:
        raise RuntimeError("Please set pin numbering mode using GPIO.setmode(GPIO.BOARD) or GPIO.setmode(GPIO.BCM)")
    if not 0 <= channel <= 27:
        raise ValueError("The channel sent is invalid on a Raspberry Pi")
    assert direction == IN and pull_up_down in (PUD_OFF, PUD_DOWN, PUD_UP)
    _pulls[channel] = pull_up_down
    _levels[channel] = int(pull_up_down == PUD_UP)

def input(channel):
    if channel not in _pulls:
        raise RuntimeError("You must setup() the GPIO channel first")
    return _levels[channel]

def add_event_detect(channel, edge, callback=None, bouncetime=None):
    if channel not in _pulls:
        raise RuntimeError("You must setup() the GPIO channel as an input first")
    if channel in _detected:
        raise RuntimeError("Conflicting edge detection already enabled for this GPIO channel")
    assert edge in (RISING, FALLING, BOTH) and callable(callback)
    assert bouncetime is None or (isinstance(bouncetime, int) and bouncetime > 0)
    _detected[channel] = edge, callback

def remove_event_detect(channel):
    del _detected[channel]

def cleanup(channels):
    for channel in channels:
        assert channel not in _detected
        del _pulls[channel]

def put(channel, level):
    """What the world does to a pin."""
    _calls.put((channel, level))

def _run():
    while True:
        channel, level = _calls.get()
        before, _levels[channel] = _levels[channel], level
        edge, callback = _detected.get(channel, (None, None))
        if edge in (BOTH, RISING if level else FALLING) and level != before:
            callback(channel)
        _calls.task_done()

threading.Thread(target=_run, daemon=True).start()
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for `RPi/GPIO.py`, found first."""
    package = tmp_path / "RPi"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "GPIO.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LG_WD", raising=False)
    monkeypatch.setattr(_gpio_chip, "_DEVICES", tmp_path / "no-devices")
    yield package / "GPIO.py"
    for name in ("RPi", "RPi.GPIO"):
        sys.modules.pop(name, None)


def line(number: int = 20, **changes: Any) -> Line:
    wanted: dict[str, Any] = {"edge": "falling", "both": True, "bias": "pull_up", "active_low": False} | changes
    return Line(line=number, **wanted)


def press(*levels: tuple[int, int]) -> None:
    gpio = importlib.import_module("RPi.GPIO")
    for channel, level in levels:
        gpio.put(channel, level)
    gpio._calls.join()


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, [FALLING, RISING]),
        ({"active_low": True, "edge": "rising"}, [RISING, FALLING]),
        ({"both": False}, [FALLING]),
        ({"both": False, "edge": "rising"}, [RISING]),
        ({"both": False, "edge": "rising", "active_low": True}, [RISING]),
    ],
)
def test_edges_come_as_the_kernel_would_give_them(module: Path, changes: dict[str, Any], kinds: list[int]) -> None:
    edges = RpiEdges([line(**changes)])
    edges.open()
    before_ns = time.monotonic_ns()
    press((20, 0), (20, 1))
    came = edges.take()
    assert [(one.kind, one.offset, one.number) for one in came] == [(kind, 20, n) for n, kind in enumerate(kinds, 1)]
    assert all(before_ns <= one.at_ns <= time.monotonic_ns() for one in came)
    assert edges.take() == []
    edges.close()


def test_the_stamp_is_that_of_the_callback_and_not_of_the_reader(module: Path) -> None:
    edges = RpiEdges([line(both=False)])
    edges.open()
    press((20, 0))
    called_ns = time.monotonic_ns()
    press((20, 1), (20, 0))
    assert [one.at_ns < called_ns for one in edges.take()] == [True, False]
    edges.close()


def test_levels_are_told_as_pulses_have_them(module: Path) -> None:
    edges = RpiEdges([line(20), line(21, edge="rising", bias="pull_down")])
    edges.open()
    assert edges.levels() == [False, False]
    press((20, 0), (21, 1))
    assert edges.levels() == [True, True]
    edges.close()


def test_it_can_be_closed_and_opened_again(module: Path) -> None:
    edges = RpiEdges([line()])
    for _ in range(2):
        edges.open()
        press((20, 0), (20, 1))
        assert [one.number for one in edges.take()] == [1, 2]
        edges.close()


def test_lgpio_has_a_place_to_write_that_goes_with_it(module: Path) -> None:
    edges = RpiEdges([line()])
    edges.open()
    work_dir = Path(importlib.import_module("RPi.GPIO").work_dir)
    assert work_dir.is_dir()
    edges.close()
    assert not work_dir.exists()
    assert "LG_WD" not in os.environ


def test_a_line_that_is_refused_lets_go_of_the_others(module: Path) -> None:
    edges = RpiEdges([line(20), line(99)])
    with pytest.raises(SourceError, match="The channel sent is invalid on a Raspberry Pi; on a Pi 5"):
        edges.open()
    edges.close()
    good = RpiEdges([line(20)])
    good.open()
    good.close()


def test_a_module_that_does_not_work_here_is_told(module: Path) -> None:
    module.write_text('raise RuntimeError("This module can only be run on a Raspberry Pi!")')
    edges = RpiEdges([line()])
    with pytest.raises(SourceError, match='can only be run on a Raspberry Pi!; set backend = "gpiod"'):
        edges.open()
    edges.close()
    module.unlink()
    with pytest.raises(SourceError, match=r"RPi\.GPIO is not installed"):
        edges.open()
    edges.close()


def test_names_of_lines_are_refused(module: Path) -> None:
    with pytest.raises(SourceError, match="set `line` to the BCM number"):
        RpiEdges([line("EXPORT")]).open()  # type: ignore[arg-type]


def source_of(backend: str, **device: Any) -> Pulse:
    channel = {"name": "import", "output": "led", "max_power_w": 50_000.0, "min_interval_ms": 0.0, **device}
    table = {"kind": "pulse", "priority": 0, "backend": backend, "report_interval_s": 0.001, "devices": [channel]}
    source = Pulse("pulse", msgspec.convert(table, Options))
    source.wait_s = source.gather_s = 0.01
    return source


@pytest.mark.parametrize("backend", ["rpi_gpio", "auto"])
def test_pulses_are_counted_and_the_count_outlives_the_lines(module: Path, backend: str) -> None:
    source = source_of(backend, min_pulse_ms=0)
    for life in (1, 2):
        source.open()
        press(*[(20, level) for _ in range(5) for level in (0, 1)])
        reports = [one.values["pulses"] for one in source.read() if "pulses" in one.values]
        assert reports[-1] == 5 * life
        source.close()
    assert source.lost_edges == 0
    assert list(source.kept) == ["count"]  # lines of this backend cannot be kept
    os.close(source.kept["count"])


def test_short_pulses_are_bounces_here_too(module: Path) -> None:
    source = source_of("rpi_gpio", min_pulse_ms=20)
    source.open()
    press((20, 0), (20, 1), (20, 0))
    until_s = time.monotonic() + 0.02
    while time.monotonic() < until_s:
        threading.Event().wait(0.005)
    press((20, 1))
    assert [one.values["pulses"] for one in source.read() if "pulses" in one.values] == [1]
    assert source.refused == {"bounce": 1}
    source.close()
    os.close(source.kept["count"])


def test_where_neither_backend_works_it_says_that_there_is_no_chip(module: Path) -> None:
    module.unlink()
    source = source_of("auto")
    with pytest.raises(SourceError, match="there is no GPIO chip on this machine"):
        source.open()
    source.close()
    os.close(source.kept["count"])


def test_with_the_other_backend_asked_for_this_one_is_left_alone(module: Path) -> None:
    source = source_of("gpiod")
    with pytest.raises(SourceError, match="there is no GPIO chip on this machine"):
        source.open()
    source.close()
    assert "RPi.GPIO" not in sys.modules
    os.close(source.kept["count"])


# The whole house: what a worker deposits with the real parent, its successor finds

WORLD = """
def _world():
    import itertools, time
    for level in itertools.cycle((0, 1)):
        if 20 in _levels:
            put(20, level)
        time.sleep(0.01)

threading.Thread(target=_world, daemon=True).start()
"""


def counts(directory: Path) -> list[float]:
    """Every count of pulses that was written, in order."""
    rows = [row for file in sorted(directory.glob("*.csv")) for row in csv.DictReader(file.read_text().splitlines())]
    return [float(row["value"]) for row in rows if row["metric"] == "pulses"]


def test_the_count_goes_on_when_the_worker_of_a_real_house_is_killed(module: Path, tmp_path: Path) -> None:
    module.write_text(STAND_IN + WORLD)
    (tmp_path / "site.toml").write_text(f"""
[site]
data_dir = "{tmp_path / "var"}"
[supervise]
longest_pause_s = 0.05
[writer]
commit_interval_s = 0.1
[clock]
require_sync = false
[api]
enabled = false
[sources.pulse]
kind = "pulse"
backend = "rpi_gpio"
priority = 0
report_interval_s = 0.1
[[sources.pulse.devices]]
name = "import"
output = "led"
max_power_w = 100000
[outputs.csv]
directory = "{tmp_path / "csv"}"
""")
    with (tmp_path / "log").open("wb") as log:
        house = subprocess.Popen(
            [sys.executable, "orchestrator.py", "run", "--config", str(tmp_path / "site.toml")],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stdout=log,
            stderr=log,
        )
    try:
        seen = 0.0
        for _ in range(5):
            wait_for(lambda before=seen: max(counts(tmp_path / "csv"), default=0) > before + 5, "more pulses")
            seen = max(counts(tmp_path / "csv"))
            os.kill(worker_of(house.pid), signal.SIGKILL)
    finally:
        house.terminate()
        assert house.wait(20) == 0, (tmp_path / "log").read_text()
    written = counts(tmp_path / "csv")
    assert written == sorted(written), (tmp_path / "log").read_text()
    assert written[-1] > 25


def worker_of(parent: int) -> int:
    def found() -> int:
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "source.pulse":
                    return int(child)
        return 0

    return wait_for(found, "the worker")
