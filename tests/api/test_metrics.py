from __future__ import annotations

import os
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics, snapshot
from vitals import FIELDS, PROCESS_STATES, Board

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(board: Board) -> Samples:
    text = metrics.render(board, "cottage").decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    by_key = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(by_key) == len(found), "two series with the same labels: Prometheus would refuse all of them"
    return by_key


def value(board: Board, name: str, **labels: str) -> float | None:
    return samples(board).get((f"wattherd_{name}", tuple(sorted(labels.items()))))


@pytest.mark.parametrize(("role", "field"), [(role, field) for role, fields in FIELDS.items() for field in fields])
def test_every_field_of_the_board_changes_a_series_or_has_a_reason_not_to(monkeypatch, role, field):
    now = time.monotonic_ns(), time.time_ns()
    monkeypatch.setattr(snapshot.time, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(snapshot.time, "time_ns", lambda: now[1])
    board = Board()
    row = board.claim(role, role)
    if role == "process":
        row["state"] = PROCESS_STATES.index("running")
    if role == "output":
        row["pending"] = 1
    before = samples(board)
    row[field] = 2
    if (role, field) in metrics.LEFT_OUT:
        assert metrics.LEFT_OUT[role, field]
        assert samples(board) == before
    else:
        assert samples(board) != before


def test_promtool_has_nothing_to_say_about_the_page(house):
    promtool = shutil.which("promtool")
    if not promtool:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("promtool is missing: make peers")
        pytest.skip("promtool is missing: apt install prometheus")
    page = metrics.render(house.board, "cottage")
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_nothing_but_our_own_series_is_on_the_page(house):
    names = {name for name, _ in samples(house.board)}
    assert all(name.startswith("wattherd_") for name in names)
    assert not [name for name in names if name.endswith("_created")]


def test_the_version_is_the_one_of_pyproject(house):
    version = tomllib.loads((Path(metrics.__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]
    assert value(house.board, "info", version=version, site="cottage") == 1


def test_an_age_is_absent_until_there_is_something_to_be_old():
    board = Board()
    worker = board.claim("worker", "meter")
    board.claim("output", "csv")
    assert not [name for name, _ in samples(board) if "age" in name or "lag" in name or "timestamp" in name]
    worker["last_reading_ns"] = time.monotonic_ns() - 7 * 10**9
    assert value(board, "source_last_reading_age_seconds", source="meter") == pytest.approx(7, abs=1)


def test_an_age_is_never_negative(house):
    house.put("worker", "meter", last_reading_ns=time.monotonic_ns() + 10**12)
    house.put("output", "csv", oldest_pending_utc_ns=time.time_ns() + 10**12)
    assert value(house.board, "source_last_reading_age_seconds", source="meter") == 0
    assert value(house.board, "output_lag_seconds", output="csv") == 0


def test_the_lag_is_absent_when_nothing_waits(house):
    house.put("output", "csv", pending=3, oldest_pending_utc_ns=time.time_ns() - 90 * 10**9)
    assert value(house.board, "output_lag_seconds", output="csv") == pytest.approx(90, abs=1)
    house.put("output", "csv", pending=0)
    assert value(house.board, "output_lag_seconds", output="csv") is None


def test_one_state_holds_and_an_unknown_one_is_none_of_them(house):
    def shown() -> dict[str, float]:
        return {s: samples(house.board)["wattherd_output_state", (("output", "csv"), ("state", s))] for s in states}

    states = ("starting", "up", "down", "stopped")
    house.put("output", "csv", state=2)
    assert shown() == {"starting": 0, "up": 0, "down": 1, "stopped": 0}
    for unknown in (99, -1):
        house.put("output", "csv", state=unknown)
        assert set(shown().values()) == {0}


def test_a_dead_process_keeps_its_totals_and_says_nothing_of_the_present(house):
    house.put("process", "source.meter", state=PROCESS_STATES.index("backoff"), failures=3)
    house.put("process", "writer", state=PROCESS_STATES.index("stopped"))
    board = house.board
    assert value(board, "process_up", process="source.meter") == 0
    assert value(board, "process_failures_total", process="source.meter") == 3
    assert value(board, "source_readings_total", source="meter") == 20
    assert value(board, "output_pending", output="csv") == 2
    assert value(board, "process_uptime_seconds", process="source.meter") is None
    assert value(board, "source_open", source="meter") is None
    assert value(board, "source_open", source="plugs") == 1
    assert value(board, "clock_synchronised") is None
    assert value(board, "output_state", output="csv", state="up") is None


@pytest.mark.parametrize(("pid", "up"), [(4242, 1), (0, 0)])
def test_a_degraded_process_is_up_only_if_there_is_one(house, pid, up):
    house.put("process", "source.meter", state=PROCESS_STATES.index("degraded"), pid=pid)
    assert value(house.board, "process_up", process="source.meter") == up


def test_the_heartbeat_is_named_after_the_process(house):
    processes = {dict(labels)["process"] for name, labels in samples(house.board) if "heartbeat" in name}
    assert processes == {"source.meter", "source.plugs", "writer", "api"}


def test_the_series_of_an_output_balance(house):
    house.put("output", "csv", accepted=100, delivered=90, pending=4, dropped_refused=1, dropped_quota=2)
    house.put("output", "csv", dropped_damage=3)
    shown = samples(house.board)
    dropped = [number for (name, labels), number in shown.items() if "output_dropped" in name and "csv" in str(labels)]
    assert (sorted(dropped), value(house.board, "output_dropped_total", output="csv", reason="quota")) == ([1, 2, 3], 2)
    assert value(house.board, "output_accepted_total", output="csv") == 90 + 4 + sum(dropped)


def test_rows_that_are_half_written_are_left_out(house):
    before = set(samples(house.board))
    rows = list(house.board._rows)
    rows[100].claim("worker", "")  # a role and no name yet
    rows[101].claim("outp", "half")  # half a role
    assert set(samples(house.board)) == before


def test_a_name_that_is_there_twice_is_shown_once(house):
    list(house.board._rows)[100].claim("worker", "meter")
    assert value(house.board, "source_open", source="meter") is not None


def test_a_row_that_is_released_while_it_is_read_is_left_out(house, monkeypatch):
    class Vanishing:
        role, name, note = "worker", "ghost", ""

        def __getitem__(self, field: str) -> int:
            raise KeyError("")

    monkeypatch.setattr(house.board, "rows", lambda role: iter([Vanishing()]))
    assert {name for name, _ in samples(house.board)} == {"wattherd_info"}


def test_no_name_can_break_the_page(house):
    house.put("worker", 'a"b\\c\nd', readings=5)
    house.row("worker", "x")._name[:4] = b"\xff\xfe\x00\x00"
    assert value(house.board, "source_readings_total", source='a"b\\c\nd') == 5
