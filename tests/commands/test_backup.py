"""Backup and restore: a house that is put back has what it had at one instant, and goes on from there."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from history.queries import History
from tests.commands.bench import at_terminal, clean
from tests.faults.house import ROOT, House, Oracle, csv_rows
from tests.peers.process import wait_for

OUTPUTS = "[outputs.csv]\n[outputs.history]\n"


def orchestrator(*arguments: str | Path, status: int = 0, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "orchestrator.py", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == status, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def backed_up(house: House, *more: str | Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(orchestrator("backup", "--json", "--config", house.config, *more))
    return told


class Put(House):
    """A house that was put back from an archive, which listens where the first one did."""

    def __init__(self, directory: Path, like: House) -> None:
        self.directory = directory
        self.data_dir = directory / "var"
        self.config = directory / like.config.name
        self.log_path = directory / "log"
        self.api_port, self.ports, self.sources = like.api_port, like.ports, like.sources
        self.process = None
        self.environment = {}


def registers(house: House) -> dict[str, float]:
    """Every register as the ledger tells it."""
    told = json.loads(orchestrator("ledger", "show", "--json", "--config", house.config))
    return {channel: each["energy_wh"] for channel, each in told.items()}


def numbers(house: House, device: str) -> list[int]:
    """The numbers of the readings that stand in the files, in their order."""
    rows = csv_rows(house.data_dir / "csv")
    return [int(float(row[4])) for row in rows if row[2] == device and row[3] == "pulses"]


def in_history(house: House, device: str) -> list[int]:
    with closing(History(house.data_dir / "history.db")) as history:
        columns = history.series(("meter", device, "pulses"), 0, 2**62, 0)
    return [int(each) for each in columns.last if isinstance(each, float | int)]


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_house_put_back_has_each_reading_once_and_goes_on(tmp_path: Path) -> None:
    house = House(tmp_path / "house", OUTPUTS, ["a", "b"]).started()
    restored = []
    try:
        oracle = Oracle(house).start()
        wait_for(lambda: len(oracle.posted) > 100, "some readings")
        for number in range(3):  # while it runs, at instants that chance chooses
            answered = {device: answered_by(oracle, device) for device in house.devices}
            told = backed_up(house, "--to", tmp_path / f"backups{number}")
            begun = {device: posted_by(oracle, device) for device in house.devices}
            restored.append((Path(told["archive"]), answered, begun))
            beyond = len(oracle.posted) + 40
            wait_for(lambda beyond=beyond: len(oracle.posted) > beyond, "more readings")
        oracle.finish()
    finally:
        house.stop()
    for number, (archive, answered, begun) in enumerate(restored):
        into = tmp_path / f"put{number}"
        orchestrator("restore", archive, "--into", into)
        again = Put(into, house)
        noted = registers(again)
        again.started()
        try:
            wait_for(lambda again=again: nothing_waits(again), "what waited to arrive")
        finally:
            again.stop()
        for device in house.devices:
            found = numbers(again, device)
            assert found == [*range(1, len(found) + 1)], "each reading up to the instant is there, once, in order"
            assert answered[device] <= len(found) <= begun[device]
            assert in_history(again, device) == found
        assert registers(again) == noted
        assert all(balance.holds for balance in again.balance().values())
    # And it goes on: another life after the last one, nothing doubled, nothing taken for a repeat.
    before = {device: numbers(again, device) for device in house.devices}
    again.started()
    for device in house.devices:
        beyond = before[device][-1] + 1000
        assert again.post({"device": device, "boot": "b2", "seq": 1, "pulses_total": beyond, "power_w": 5})[0] == 200
    wait_for(lambda: nothing_waits(again), "the new readings to arrive")
    again.stop()
    for device in house.devices:
        assert numbers(again, device) == [*before[device], before[device][-1] + 1000] == in_history(again, device)


def answered_by(oracle: Oracle, device: str) -> int:
    return max(
        (number for (who, number), each in [*oracle.posted.items()] if who == device and each.answered_s), default=0
    )


def posted_by(oracle: Oracle, device: str) -> int:
    return max((number for who, number in [*oracle.posted] if who == device), default=0)


def nothing_waits(house: House) -> bool:
    return all(
        house.metric("wattherd_output_pending", output=output) == 0
        and house.metric("wattherd_output_state", output=output, state="up") == 1
        for output in ("csv", "history")
    ) and bool(house.is_ready())


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a house leaves that has measured a little and was stopped."""
    house = House(tmp_path_factory.mktemp("left"), OUTPUTS, ["a"]).started()
    for number in range(1, 4):
        assert house.post({"device": "a", "pulses_total": number, "power_w": number})[0] == 200
    wait_for(lambda: house.metric("wattherd_output_delivered_total", output="csv") == 3, "the readings to arrive")
    assert house.stop() == 0
    return house.data_dir


@pytest.fixture
def rested(left_behind: Path, tmp_path: Path) -> House:
    """A house that rests: nobody else's to change."""
    shutil.copytree(left_behind, tmp_path / "house" / "var")
    return House(tmp_path / "house", OUTPUTS, ["a"])


def test_a_house_that_rests_is_put_back_byte_for_byte(rested: House, tmp_path: Path) -> None:
    (rested.data_dir / "sources" / "kasa").mkdir(parents=True, exist_ok=True)
    (rested.data_dir / "sources" / "kasa" / "plugs.json").write_text("{}")
    archive = Path(backed_up(rested)["archive"])
    assert archive.parent == rested.data_dir / "backups"
    assert archive.name.startswith("wattherd-backup-2")
    assert archive.stat().st_mode & 0o777 == 0o600
    orchestrator("restore", archive, "--into", tmp_path / "put")
    put = tmp_path / "put" / "var"
    for name in ("ledger.copy", "incarnation", "sources/kasa/plugs.json"):
        assert (put / name).read_bytes() == (rested.data_dir / name).read_bytes()
    files = {path.name: path.read_bytes() for path in (rested.data_dir / "csv").iterdir()}
    assert {path.name: path.read_bytes() for path in (put / "csv").iterdir()} == files
    assert not (put / "backups").exists()
    assert not (put / ".restoring").exists()


def test_it_goes_to_where_the_configuration_says_and_never_over_anything(rested: House) -> None:
    archive = Path(backed_up(rested, "--to", rested.directory)["archive"])
    refused = orchestrator("restore", archive, "--config", rested.config, status=1)
    assert "is not empty" in refused
    assert "mv " in refused
    rested.data_dir.rename(rested.directory / "var.old")
    rested.config.write_text(rested.config.read_text() + "# changed since\n")
    told = json.loads(orchestrator("restore", archive, "--json", "--config", rested.config))
    assert told["data_dir"] == str(rested.data_dir)
    assert told["kept"] == [f"{rested.config}.from-backup"]
    assert rested.config.read_text().endswith("# changed since\n")
    assert numbers(rested, "a") == [1, 2, 3]
    assert "is not empty" in orchestrator("restore", archive, "--config", rested.config, status=1)


def test_nothing_is_put_under_a_house_that_runs(tmp_path: Path) -> None:
    house = House(tmp_path / "house", OUTPUTS, ["a"]).started()
    try:
        archive = Path(backed_up(house, "--to", tmp_path)["archive"])
        assert "another wattherd" in orchestrator("restore", archive, "--config", house.config, status=1)
        assert house.post({"device": "a", "power_w": 1})[0] == 200
    finally:
        assert house.stop() == 0


def test_secrets_are_in_it_only_when_asked_for(rested: House, tmp_path: Path) -> None:
    rested.config.write_text(
        rested.config.read_text() + '[outputs.influx]\nurl = "http://127.0.0.1:1"\ntoken_env = "T"\n'
    )
    env = rested.directory / ".env"
    env.write_text("T=hush-hush\n")
    env.chmod(0o600)
    told = backed_up(rested, "--to", tmp_path / "without")
    assert any("--with-secrets" in remark for remark in told["remarks"])
    assert b"hush-hush" not in gzip.decompress(Path(told["archive"]).read_bytes())
    archive = Path(backed_up(rested, "--to", tmp_path / "with", "--with-secrets")["archive"])
    orchestrator("restore", archive, "--into", tmp_path / "put")
    put = tmp_path / "put" / ".env"
    assert put.read_text() == "T=hush-hush\n"
    assert put.stat().st_mode & 0o777 == 0o600
    assert "good" in orchestrator("check", "--config", tmp_path / "put" / rested.config.name)


@pytest.mark.long
def test_a_file_outside_of_the_backup_that_went_on_is_neither_cut_off_nor_doubled(tmp_path: Path) -> None:
    """An outbox that is older than the files it writes would cut off what came since, if it went by its own notes."""
    outside = tmp_path / "outside"
    house = House(tmp_path / "house", f'[outputs.csv]\ndirectory = "{outside}"\n', ["a"]).started()
    house.post({"device": "a", "pulses_total": 1, "power_w": 1})
    wait_for(lambda: [*outside.glob("*.csv")], "the file")
    told = backed_up(house, "--to", tmp_path)
    assert any(str(outside) in remark for remark in told["remarks"])
    house.post({"device": "a", "pulses_total": 2, "power_w": 2})
    wait_for(lambda: house.metric("wattherd_output_delivered_total", output="csv") == 2, "the second reading")
    house.stop()
    house.data_dir.rename(tmp_path / "lost")
    words = orchestrator("restore", told["archive"], "--config", house.config)
    assert "gone on since the backup" in words
    house.started()
    house.post({"device": "a", "pulses_total": 3, "power_w": 3})
    wait_for(lambda: house.metric("wattherd_output_pending", output="csv") == 0, "the third reading")
    assert house.stop() == 0
    rows = csv_rows(outside)
    assert [float(row[4]) for row in rows if row[3] == "pulses"] == [1, 2, 3]
    assert all(balance.holds for balance in house.balance().values())


def test_whoever_sits_before_a_terminal_sees_how_far_it_is(rested: House, tmp_path: Path) -> None:
    with at_terminal("backup", "--to", tmp_path, "--config", rested.config) as terminal:
        terminal.expect("━")
        assert terminal.end() == 0
    assert "Next: copy it to another machine" in clean(terminal.seen)


def test_only_the_newest_are_kept_and_what_a_killed_one_left_goes(rested: House, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    (directory / "mine.tar.gz").write_text("somebody else's")
    for day in range(1, 5):
        old = directory / f"wattherd-backup-2020010{day}.tar.gz"
        old.write_text("old")
        os.utime(old, (day, day))
    (directory / ".wattherd-backup-77").write_text("half")
    told = backed_up(rested, "--to", directory, "--keep", "2")
    assert told["deleted"] == [f"wattherd-backup-2020010{day}.tar.gz" for day in (1, 2, 3)]
    left = sorted(path.name for path in directory.iterdir())
    assert left == ["mine.tar.gz", "wattherd-backup-20200104.tar.gz", Path(told["archive"]).name]
    again = backed_up(rested, "--to", directory)  # a second one on the same day
    assert again["archive"] != told["archive"]


def test_a_damaged_archive_is_recognised_wherever_it_is_damaged(rested: House, tmp_path: Path) -> None:
    archive = Path(backed_up(rested, "--to", tmp_path)["archive"])
    assert "is whole" in orchestrator("restore", "--check", archive)
    whole = archive.read_bytes()
    bad = tmp_path / "wattherd-backup-20200101.tar.gz"
    for cut in (10, len(whole) // 2, len(whole) - 5):
        bad.write_bytes(whole[:cut])
        assert "nothing was restored" in orchestrator("restore", bad, "--into", tmp_path / "put", status=1)
    content = bytearray(gzip.decompress(whole))
    place = content.index(b"SQLite format 3") + 5000
    content[place] ^= 0xFF
    bad.write_bytes(gzip.compress(bytes(content)))
    assert "is not what it was when it was packed" in orchestrator("restore", bad, "--into", tmp_path / "put", status=1)
    assert not (tmp_path / "put" / "var" / "outbox.db").exists()
    assert not (tmp_path / "put" / "var" / ".restoring").exists()


def hostile(archive: Path, to: Path, change: str) -> None:
    """Make an archive that is right but for one entry."""
    with tarfile.open(archive, "r:gz") as old, tarfile.open(to, "w:gz") as new:
        top = old.getnames()[0].partition("/")[0]
        entry = tarfile.TarInfo(f"{top}/data/x")
        content = b"evil"
        match change:
            case "up":
                entry.name = f"{top}/data/../../../../evil"
            case "absolute":
                entry.name = "/evil"
            case "elsewhere":
                entry.name = f"{top}/etc/evil"
            case "link":
                entry.type, entry.linkname, content = tarfile.SYMTYPE, "/etc", b""
            case "hard link":
                entry.type, entry.linkname, content = tarfile.LNKTYPE, f"{top}/data/outbox.db", b""
            case "device":
                entry.type, content = tarfile.CHRTYPE, b""
            case "twice":
                entry.name = f"{top}/data/incarnation"
            case "not listed":
                pass
        entry.size = len(content)
        new.addfile(entry, io.BytesIO(content))
        for member in old:
            new.addfile(member, old.extractfile(member))


@pytest.mark.parametrize(
    "change", ["up", "absolute", "elsewhere", "link", "hard link", "device", "twice", "not listed"]
)
def test_an_archive_that_reaches_elsewhere_is_refused(rested_archive: Path, change: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar.gz"
    hostile(rested_archive, bad, change)
    into = tmp_path / "put"
    assert "nothing was restored" in orchestrator("restore", bad, "--into", into, status=1)
    assert not [*tmp_path.rglob("evil")]
    assert not into.exists() or not [
        path for path in into.rglob("*") if path.is_file() and path.name != "wattherd.lock"
    ]


@pytest.fixture(scope="module")
def rested_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archive")
    house = House(directory, "[outputs.history]\n", ["a"]).started()
    assert house.post({"device": "a", "power_w": 1})[0] == 200
    assert house.stop() == 0
    return Path(backed_up(house)["archive"])


def test_a_restore_that_was_killed_is_done_again(rested_archive: Path, tmp_path: Path) -> None:
    into = tmp_path / "put"
    (into / "var" / ".restoring" / "data").mkdir(parents=True)
    (into / "var" / "history.db").write_text("moved before the kill")
    orchestrator("restore", rested_archive, "--into", into)
    with closing(sqlite3.connect(into / "var" / "history.db")) as history:
        assert history.execute("SELECT count(*) FROM series").fetchone()[0] > 0
    # But a house that began in there since is nobody's to delete.
    (into / "var" / ".restoring").mkdir()
    assert "is not empty" in orchestrator("restore", rested_archive, "--into", into, status=1)


def test_a_full_disk_and_a_house_that_never_ran_are_told(tmp_path: Path) -> None:
    house = House(tmp_path / "house", OUTPUTS, ["a"])
    assert "no house has run" in orchestrator("backup", "--config", house.config, status=1)
