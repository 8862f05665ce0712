from __future__ import annotations

import time

import pytest

import logs
from api.health import Reason, reasons_not_ready, simulated
from api.snapshot import look
from vitals import OUTPUT_STATES, PROCESS_STATES, Board

MINUTE_NS = 60 * 10**9
TWO_DAYS_NS = 48 * 60 * MINUTE_NS


@pytest.fixture(autouse=True)
def machine_that_has_been_up_for_days(monkeypatch):
    """What was some minutes ago is before the beginning of the monotonic clock on a machine that was just started."""
    clock = time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock() + TWO_DAYS_NS)


def reasons(house) -> list[Reason]:
    return reasons_not_ready(house.settings, look(house.board))


def ago(minutes: float) -> int:
    return time.monotonic_ns() - int(minutes * MINUTE_NS)


def test_a_house_in_which_all_is_well_is_ready(house):
    assert reasons(house) == []


def test_a_house_that_has_not_been_started_is_not_ready(house):
    house.board = Board()
    assert {part for part, _ in reasons(house)} == {
        "writer",
        "source meter",
        "source plugs",
        "output csv",
        "output influx",
    }


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("starting", "is starting"),
        ("backoff", "is down after 3 failures and will be started again; the log says why"),
        (
            "degraded",
            "is down after 3 failures, too many of late, and is started only now and then; the log says why",
        ),
        ("stopped", "is stopped"),
    ],
)
def test_a_process_that_does_not_run_is_the_only_reason_of_its_source(house, state, words):
    house.put("process", "source.meter", state=PROCESS_STATES.index(state), failures=3, pid=0)
    house.put("worker", "meter", open=0, beat_ns=ago(60), last_reading_ns=ago(60), devices_troubled=1)
    assert reasons(house) == [("source meter", words)]


def test_a_process_that_runs_again_after_too_many_failures_is_a_reason_beside_what_its_source_says(house):
    house.put("process", "source.meter", state=PROCESS_STATES.index("degraded"), failures=5)
    house.put("worker", "meter", open=0, note="no port; plug it in")
    assert reasons(house) == [
        ("source meter", "runs again after 5 failures, but has ended too often of late; the log says why"),
        ("source meter", "no port; plug it in"),
    ]


def test_a_state_of_a_later_version_is_a_reason_and_no_crash(house):
    house.put("process", "writer", state=77)
    house.put("output", "csv", state=-5)
    assert reasons(house) == [
        ("writer", "is in a state that this version of wattherd does not know (state 77)"),
    ]
    house.put("process", "writer", state=PROCESS_STATES.index("running"))
    assert reasons(house) == [("output csv", "is state -5")]


@pytest.mark.parametrize(
    ("role", "name", "part"),
    [("worker", "meter", "source meter"), ("writer", "writer", "writer"), ("api", "api", "api")],
)
def test_a_heartbeat_that_stands_still_is_a_reason(house, role, name, part):
    house.put(role, name, beat_ns=ago(0.75))
    assert reasons(house) == [(part, "has shown no sign of life for 45 s; it will be replaced")]


def test_a_new_process_is_not_blamed_for_the_heartbeat_of_its_predecessor(house):
    house.put("worker", "meter", beat_ns=ago(60))
    house.put("process", "source.meter", since_ns=ago(0.1))
    assert reasons(house) == []


def test_a_process_that_never_beats_is_a_reason(house):
    house.put("worker", "meter", beat_ns=0)
    house.put("process", "source.meter", since_ns=ago(1))
    assert reasons(house) == [("source meter", "has shown no sign of life for 60 s; it will be replaced")]


def test_a_source_that_is_not_open_says_why_and_what_now(house):
    house.put("worker", "meter", note="port 5000 is in use; set [sources.meter] port to a free one", open=0)
    assert reasons(house) == [("source meter", "port 5000 is in use; set [sources.meter] port to a free one")]
    house.put("worker", "meter", note="")
    assert reasons(house) == [("source meter", "is not open yet")]


def test_devices_in_trouble_are_a_reason(house):
    house.put("worker", "plugs", devices_troubled=2)
    assert reasons(house) == [("source plugs", "2 devices in trouble")]
    house.put("worker", "plugs", note="kettle: no answer; is it plugged in?")
    assert reasons(house) == [("source plugs", "kettle: no answer; is it plugged in?")]


def test_a_source_without_a_reading_for_more_than_five_minutes_is_a_reason(house):
    house.put("worker", "meter", last_reading_ns=ago(4.9))
    assert reasons(house) == []
    house.put("worker", "meter", last_reading_ns=ago(7.1))
    assert reasons(house) == [("source meter", "no reading for 7 min; is the device switched on and in reach?")]


def test_a_slow_source_has_three_rounds_of_time(house):
    house.put("worker", "plugs", last_reading_ns=ago(59))  # it is asked every 20 minutes
    assert reasons(house) == []
    house.put("worker", "plugs", last_reading_ns=ago(61))
    assert len(reasons(house)) == 1


def test_a_source_that_never_had_a_reading_has_five_minutes_from_its_start(house):
    house.put("worker", "meter", last_reading_ns=0)
    house.put("process", "source.meter", since_ns=ago(4))
    assert reasons(house) == []
    house.put("process", "source.meter", since_ns=ago(6))
    assert reasons(house) == [("source meter", "no reading for 6 min; is the device switched on and in reach?")]


@pytest.mark.parametrize(("state", "note"), [("down", "connection refused; start InfluxDB"), ("stopped", "")])
def test_an_output_that_is_down_or_stopped_is_a_reason(house, state, note):
    house.put("output", "influx", note=note, state=OUTPUT_STATES.index(state))
    assert reasons(house) == [("output influx", f"{state}: {note}" if note else f"is {state}")]


def test_records_that_wait_for_more_than_five_minutes_are_a_reason(house):
    house.put("output", "influx", pending=4210, oldest_pending_utc_ns=time.time_ns() - 180 * MINUTE_NS)
    assert reasons(house) == [("output influx", "4,210 records waiting for it, the oldest for 3 h")]
    house.put("output", "influx", pending=0)
    assert reasons(house) == []


def test_a_clock_that_is_not_set_is_a_reason_only_while_records_wait_for_it(house):
    house.put("writer", "writer", clock_synced=0)
    assert reasons(house) == []
    house.put("writer", "writer", held=1)
    [(part, what)] = reasons(house)
    assert (part, what.split(";")[0]) == ("clock", "is not set: 1 record waiting for it")


def test_a_writer_that_cannot_commit_says_why(house):
    house.put("writer", "writer", note="the disk is full; make room", commit_failures=12)
    assert reasons(house) == [("writer", "the disk is full; make room (12 failures so far)")]


def test_readings_that_nobody_commits_are_a_reason(house):
    house.put("writer", "writer", last_commit_ns=ago(3.1))
    assert reasons(house) == [("writer", "has put nothing on the disk for 3 min; is the disk full or broken?")]


def test_commit_failures_that_are_over_and_quiet_sources_are_no_reason(house):
    house.put("writer", "writer", commit_failures=12)
    assert reasons(house) == []
    for source in ("meter", "plugs"):
        house.put("worker", source, last_reading_ns=ago(4.5))
    house.put("writer", "writer", last_commit_ns=ago(4.4))
    assert reasons(house) == []


def test_dead_letters_and_simulation_are_no_reason(house):
    house.put("writer", "writer", dead_letters=5)
    house.put("worker", "meter", simulated=1)
    assert reasons(house) == []
    assert simulated(look(house.board))


def test_a_secret_in_a_note_is_not_shown(house, monkeypatch):
    monkeypatch.setattr(logs, "_secrets", {"hunter2hunter2"})
    house.put("output", "influx", state=3, note="401 for token hunter2hunter2; set INFLUX_TOKEN\x1b[2J anew")
    assert reasons(house) == [("output influx", "stopped: 401 for token ***; set INFLUX_TOKEN\\x1b[2J anew")]
