"""`export`: the history as CSV that adds up to what was measured."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from commands import _export
from reading import Record
from tests.commands.bench import orchestrator
from tests.writer.outputs._history import batch, write_all

MONTHS = ("2025-08", "2025-09", "2025-10")  # the last one is over on every day on which this can run
CONFIGURATION = """
[site]
name = "home"
timezone = "Europe/London"
data_dir = "{data_dir}"
[sources.plugs]
kind = "simulated"
[outputs.history]
"""


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the 30th of July to the 2nd of November a fridge uses 100 Wh an hour, and a heater is on in October."""
    folder = tmp_path_factory.mktemp("house")
    begin, end = ns("2025-07-30T00:00"), ns("2025-11-02T00:00")
    write_all(folder, (batch(*records) for records in days(begin, end)))
    file = folder / "site.toml"
    file.write_text(CONFIGURATION.format(data_dir=folder))
    return file


def days(begin: int, end: int) -> Iterator[list[Record]]:
    day: list[Record] = []
    for number, at in enumerate(range(begin, end, 1800 * 10**9)):
        day.append(Record("plugs", "fridge", at, {"power_w": 100.0 + number % 2, "energy_wh": number * 50.0}))
        if ns("2025-10-01T00:00") <= at < ns("2025-10-02T00:00"):
            day.append(Record("plugs", "heater", at, {"power_w": 2000.0, "state": "running"}))
        if len(day) > 40:
            yield day
            day = []
    yield day


def run(file: Path, *words: str | Path, status: int = 0) -> str:
    done = orchestrator("export", *words, "--config", file)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(file: Path) -> list[dict[str, str]]:
    content = file.read_bytes()
    text = gzip.decompress(content) if file.suffix == ".gz" else content
    return [*csv.DictReader(io.StringIO(text.decode()))]


def test_a_month_has_its_hours_and_adds_up(house: Path, tmp_path: Path) -> None:
    run(house, "--month", "2025-09", "--out", tmp_path)
    rows = table(tmp_path / "wattherd-home-2025-09.csv.gz")
    energy = [row for row in rows if row["metric"] == "energy_wh"]
    assert len(energy) == 30 * 24
    # September begins in summer time, an hour before midnight in UTC.
    assert (energy[0]["time"], energy[-1]["time"]) == ("2025-08-31T23:00:00.000Z", "2025-09-30T22:00:00.000Z")
    assert sum(float(row["increase"]) for row in energy) == pytest.approx(30 * 24 * 100)
    power = [row for row in rows if row["metric"] == "power_w"]
    assert {(row["n"], row["mean"], row["min"], row["max"]) for row in power} == {("2", "100.5", "100", "101")}
    assert {row["device"] for row in rows} == {"fridge"}


def test_days_are_those_of_the_site(house: Path, tmp_path: Path) -> None:
    run(house, "--month", "2025-10", "--step", "day", "--out", tmp_path)
    rows = table(tmp_path / "wattherd-home-2025-10.csv.gz")
    used = {row["time"]: float(row["increase"]) for row in rows if row["metric"] == "energy_wh"}
    assert len(used) == 31
    assert used["2025-10-25T23:00:00.000Z"] == pytest.approx(2500)  # the clocks go back
    assert used["2025-10-27T00:00:00.000Z"] == pytest.approx(2400)
    assert {row["metric"] for row in rows} == {"energy_wh"}


def test_every_month_that_is_over_is_written_once(house: Path, tmp_path: Path) -> None:
    run(house, "--month", "2025-09", "--out", tmp_path)
    before = (tmp_path / "wattherd-home-2025-09.csv.gz").stat().st_mtime_ns
    (tmp_path / "wattherd-home-2025-08.csv.gz.part").write_text("an export that was killed")
    told = json.loads(run(house, "--month", "all", "--out", tmp_path, "--json"))
    made = {each["from"][:7]: each for each in told}
    assert {"2025-07", *MONTHS} <= {*made}
    assert made["2025-09"]["was_there"] is True
    assert all(made[month]["rows"] > 0 for month in ("2025-08", "2025-10"))
    assert (tmp_path / "wattherd-home-2025-09.csv.gz").stat().st_mtime_ns == before
    assert not [*tmp_path.glob("*.part")]
    run(house, "--month", "2025-09", "--out", tmp_path, "--again")
    assert (tmp_path / "wattherd-home-2025-09.csv.gz").stat().st_mtime_ns > before


def test_the_same_month_is_the_same_file(house: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(house, "--month", "2025-09", "--out", tmp_path / name)
    first, second = (tmp_path / name / "wattherd-home-2025-09.csv.gz" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_a_range_of_some_channels_goes_to_stdout(house: Path) -> None:
    said = run(
        house,
        "--from",
        "2025-09-30",
        "--to",
        "2025-10-02",
        "--channel",
        "plugs/heater",
        "--metric",
        "power_w",
        "--out",
        "-",
    )
    rows = [*csv.DictReader(io.StringIO(said))]
    assert len(rows) == 24
    assert {(row["device"], row["metric"], row["mean"]) for row in rows} == {("heater", "power_w", "2000")}


def test_readings_as_they_came(house: Path, tmp_path: Path) -> None:
    run(house, "--from", "2025-10-31", "--to", "2025-11-01", "--step", "raw", "--out", tmp_path / "raw.csv")
    rows = [row for row in table(tmp_path / "raw.csv") if row["metric"] == "power_w"]
    assert len(rows) == 96
    assert {row["n"] for row in rows} == {"1"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--month", "2999-01"], 2, "beyond all history"),
        (["--month", "2150-01"], 2, "is not over"),
        (["--month", "March"], 2, "is no month"),
        (["--month", "last", "--from", "2025-01-01"], 2, "leave out --from"),
        (["--from", "2025-02-02", "--to", "2025-02-01"], 2, "is after"),
        (["--channel", "plugs/frigde"], 2, "plugs/fridge"),
        (["--metric", "powr_w"], 2, "power_w"),
        (["--month", "2025-09", "--out", "x.csv"], 2, "names the files itself"),
        (["--month", "2024-01", "--out", "."], 1, "0 rows"),
        (["--from", "2025-09-01", "--to", "2025-09-02", "--out", "/proc/x"], 1, "name another place"),
    ],
)
def test_what_cannot_be_exported_is_told(
    house: Path, words: list[str], status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path) if word == "." else word for word in words]
    assert said in run(house, *words, status=status)


def test_what_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    def content() -> Iterator[tuple[bytes, None]]:
        yield b"time\n", None
        raise OSError(28, "No space left on device", "there")

    for name in ("month.csv.gz", "month.csv"):
        with pytest.raises(OSError, match="No space"):
            _export.write(content(), tmp_path / name, lambda _: None)
    assert [*tmp_path.iterdir()] == []


def test_the_last_month_is_that_before_today() -> None:
    assert f"{_export.last_month(datetime(2026, 1, 3).date()).first}" == "2025-12-01"
