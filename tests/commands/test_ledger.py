"""`ledger` and `channel`, before a running house and before one that rests."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from history.queries import History
from tests.commands.bench import orchestrator
from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for

OUTPUTS = "[outputs.csv]\n[outputs.history]\n"
DAY_NS = 24 * 3600 * 10**9


def in_history_wh(house: House, device: str = "house") -> float:
    """All the energy that the history has of a device."""
    now_ns = time.time_ns()
    history = History(house.data_dir / "history.db")
    with contextlib.closing(history):
        steps = history.energy_steps(("meter", device, "energy_wh"), now_ns - DAY_NS, now_ns + DAY_NS, 1800)
    return sum(step.amount or 0.0 for step in steps)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, OUTPUTS, ["house"]).started()
    yield house
    house.kill()


def ask(house: House, *words: str) -> tuple[int, str]:
    done = orchestrator(*words, "--config", house.config)
    return done.returncode, done.stdout + done.stderr


def registers(house: House) -> list[float]:
    return [float(row[4]) for row in csv_rows(house.data_dir / "csv") if row[2:4] == ["house", "energy_wh"]]


@pytest.mark.long
def test_a_running_house_is_shown_mended_and_told_what_its_meter_shows(house: House) -> None:
    for number in range(3):
        house.post({"device": "house", "boot": "b", "seq": number, "pulses_total": 5000 + 20 * number})
    wait_for(lambda: registers(house) == [0.0, 20.0, 40.0], "the readings")
    status, told = ask(house, "ledger", "show")
    assert status == 0
    assert "meter/house" in told
    assert "0.040" in told
    assert all(len(line) <= 80 for line in told.splitlines()[:-1])
    status, told = ask(house, "ledger", "repair", "house", "--add-kwh", "1.5", "--note", "the meter was off")
    booked = "✓ meter/house, import: 1.500 kWh booked; the register is 1.540 kWh now.\n"
    assert (status, told) == (0, f"{booked}Next: ./orchestrator.py ledger entries --config {house.config}\n")
    status, told = ask(house, "ledger", "set-reading", "meter/house", "12345.6")
    assert status == 0
    house.post({"device": "house", "boot": "b", "seq": 3, "pulses_total": 5050})
    wait_for(lambda: registers(house)[-1] == 1550.0, "the reading after the repair")
    wait_for(lambda: in_history_wh(house) == pytest.approx(1550.0), "the history to have it once")
    face = [float(row[4]) for row in csv_rows(house.data_dir / "csv") if row[3] == "meter_reading_wh"]
    assert face == [12_345_610.0]
    status, told = ask(house, "ledger", "entries")
    assert status == 0
    assert "repair: the meter was off" in " ".join(told.split())
    assert all(len(line) <= 80 for line in told.splitlines()[:-1])
    told_json = json.loads(ask(house, "ledger", "entries", "--json")[1])
    assert [entry["kind"] for entry in told_json] == ["start", "repair", "set_reading"]
    status, told = ask(house, "ledger", "undo", str(told_json[1]["entry"]))
    assert status == 0, told
    wait_for(lambda: in_history_wh(house) == pytest.approx(50.0), "the history to have what is true")
    show = json.loads(ask(house, "ledger", "show", "house", "--json")[1])
    assert show["meter/house"]["energy_wh"] == 50.0
    assert show["meter/house"]["energy_debt_wh"] == 1500.0
    assert house.stop() == 0
    assert all(numbers.holds for numbers in house.balance().values())


def test_a_renamed_meter_goes_on_after_the_reload(house: House) -> None:
    house.post({"device": "house", "boot": "b", "seq": 1, "pulses_total": 5000})
    house.post({"device": "house", "boot": "b", "seq": 2, "pulses_total": 5070})
    wait_for(lambda: registers(house) == [0.0, 70.0], "the readings")
    status, told = ask(house, "channel", "rename", "house", "home")
    assert status == 0
    assert "Next: name it home in the configuration" in told
    house.sources = {"meter": ["home"]}
    house.configure(OUTPUTS)
    assert house.process
    house.process.send_signal(signal.SIGHUP)

    def is_taken() -> bool:
        with suppress(OSError):  # while its worker starts anew
            return house.post({"device": "home", "boot": "b", "seq": 3, "pulses_total": 5075})[0] == 200
        return False

    wait_for(is_taken, "the new name")
    wait_for(
        lambda: [row[4] for row in csv_rows(house.data_dir / "csv") if row[2:4] == ["home", "energy_wh"]] == ["75.0"],
        "the register to go on",
    )
    show = json.loads(ask(house, "ledger", "show", "--json")[1])
    assert list(show) == ["meter/home"]
    wait_for(lambda: in_history_wh(house, "home") == pytest.approx(75.0), "the history to go on under the new name")
    assert in_history_wh(house, "house") == 0


def test_a_house_that_rests_is_mended_by_the_command_itself(house: House) -> None:
    house.post({"device": "house", "pulses_total": 5000})
    house.post({"device": "house", "pulses_total": 5070})
    wait_for(lambda: registers(house) == [0.0, 70.0], "the readings")
    assert house.stop() == 0
    status, told = ask(house, "ledger", "repair", "house", "--add-kwh", "-0.03")
    assert status == 0, told
    status, told = ask(house, "channel", "replace", "house")
    assert status == 0, told
    house.started()
    house.post({"device": "house", "pulses_total": 3})
    house.post({"device": "house", "pulses_total": 43})
    wait_for(lambda: registers(house)[-1] == 80.0, "the register")
    # A correction made while nobody ran reaches the outputs like any reading: it was committed with the rest.
    corrections = [float(row[4]) for row in csv_rows(house.data_dir / "csv") if row[3] == "energy_correction_wh"]
    assert corrections == [-30.0]
    assert house.stop() == 0
    assert all(numbers.holds for numbers in house.balance().values())


def test_what_a_beginner_gets_wrong_is_told_in_words(tmp_path: Path, house: House) -> None:
    house.post({"device": "house", "pulses_total": 5000})
    wait_for(lambda: registers(house), "the reading")
    for words, expected in (
        (("ledger", "repair"), "say what to book"),
        (("ledger", "repair", "hause", "--add-kwh", "1"), "there are: meter/house"),
        (("ledger", "repair", "house", "--add-kwh", "1", "--at", "yesterday"), "'yesterday' is no time"),
        (("ledger", "repair", "--entry", "1"), "held nothing back"),
        (("ledger", "undo", "77"), "no entry 77"),
        (("channel", "rename", "house", "a b"), "no name for a channel"),
        (("ledger", "set-reading", "house", "1e12"), "range"),
    ):
        status, told = ask(house, *words)
        assert status in (1, 2), words
        assert expected in told, words
    empty = tmp_path / "empty.toml"
    empty.write_text(f'[site]\ndata_dir = "{tmp_path}/nothing"\n')
    done = orchestrator("ledger", "show", "--config", empty)
    assert done.returncode == 1
    assert "no house has run" in done.stderr
