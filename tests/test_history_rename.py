"""The history of a channel goes on under another name, whoever writes into it at the same time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from config.settings import Site
from history.queries import History as Queries
from history.rename import rename
from reading import Record
from writer import Batch, Memo
from writer.outputs.history import History, Options

HOUR = 3600 * 10**9
START = 1_780_000_000 * 10**9 // HOUR * HOUR


def records(device: str, *minutes: int, metric: str = "energy_wh") -> Batch:
    made = [Record("meter", device, START + minute * 60 * 10**9, {metric: float(minute)}) for minute in minutes]
    return Batch(made, [START // HOUR + minute for minute in minutes])


def energy_wh(path: Path, device: str, metric: str = "energy_wh") -> float:
    with closing(Queries(path)) as history:
        return sum(step.amount or 0.0 for step in history.energy_steps(("meter", device, metric), START, START + HOUR))


def test_a_renamed_channel_has_the_history_of_the_old_one_while_it_is_written(tmp_path: Path) -> None:
    output = History(Options(kind="history"), Site(data_dir=str(tmp_path)), Memo())
    path = tmp_path / "history.db"
    output.write(records("house", 1, 2))
    assert rename(path, ("meter", "house"), ("meter", "home")) == 1
    output.write(records("house", 3))  # the configuration has the old name still
    output.write(records("home", 4))
    assert energy_wh(path, "home") == 3.0
    assert energy_wh(path, "house") == 0.0
    output.close()
    again = History(Options(kind="history"), Site(data_dir=str(tmp_path)), Memo())
    again.write(records("home", 5))
    again.close()
    assert energy_wh(path, "home") == 4.0


def test_export_that_was_booked_by_hand_counts_at_its_time(tmp_path: Path) -> None:
    output = History(Options(kind="history"), Site(data_dir=str(tmp_path)), Memo())
    output.write(records("roof", 1, 5, metric="energy_export_wh"))
    correction = Record("meter", "roof", START + 40 * 60 * 10**9, {"energy_export_correction_wh": 7.5})
    output.write(Batch([correction], [START]))
    output.close()
    with closing(Queries(tmp_path / "history.db")) as history:
        steps = history.energy_steps(("meter", "roof", "energy_export_wh"), START, START + HOUR)
    assert [step.amount for step in steps[:2]] == [4.0, 7.5]


def test_where_there_is_no_history_nothing_is_renamed(tmp_path: Path) -> None:
    assert rename(tmp_path / "history.db", ("meter", "house"), ("meter", "home")) == 0
    assert [*tmp_path.iterdir()] == []
