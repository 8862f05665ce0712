"""Whisper files are backed up whole while a real carbon writes them, and come back as they were."""

from __future__ import annotations

import functools
import os
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import whisper

from graphite_helper import send
from tests.peers.carbon import Carbon, running_carbon
from tests.peers.process import require, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy" / "graphite"
SCHEMAS = "[all]\npattern = .*\nretentions = 1s:1h,10s:1d\n"
AGGREGATION = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = last\n"
SERIES = [f"house.circuit{n}.power_w" for n in range(5)]


def run(script: str, *words: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([DEPLOY / script, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def points(folder: Path, series: str, step_s: int = 1) -> dict[int, float]:
    file = folder / Path(*series.split(".")).with_suffix(".wsp")
    now_s = int(time.time())
    (start_s, _, step_s), values = whisper.fetch(str(file), now_s - 3000, now_s, archiveToSelect=step_s)
    return {start_s + n * step_s: value for n, value in enumerate(values) if value is not None}


def write(carbon: Carbon, at_s: int, value: float) -> None:
    send("127.0.0.1", carbon.port, [f"{series} {value} {at_s}\n" for series in SERIES], timeout_s=5)


def has(carbon: Carbon, series: str, times_s: range) -> bool:
    return len(carbon.points(series, 1, times_s.start, times_s.stop)) == len(times_s)


def test_a_backup_of_files_that_are_being_written_is_whole_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "carbon").mkdir()
    archive = tmp_path / "backups" / "whisper.tar.gz"
    begin_s = int(time.time()) - 1000
    with running_carbon(tmp_path / "carbon", schemas=SCHEMAS, aggregation=AGGREGATION) as carbon:
        for n in range(500):
            write(carbon, begin_s + n, float(n))
        for series in SERIES:
            wait_for(functools.partial(has, carbon, series, range(begin_s, begin_s + 500)), series)
        leaving = threading.Event()

        def go_on() -> None:
            n = 500
            while not leaving.wait(0.005):
                write(carbon, begin_s + n % 1000, float(n % 1000))
                n += 1

        writing = threading.Thread(target=go_on)
        writing.start()
        try:
            told = run("backup.sh", carbon.whisper_dir, archive).stdout
        finally:
            leaving.set()
            writing.join()
    assert f"{archive}: {len(SERIES)} series, " in told
    assert oct(archive.stat().st_mode)[-3:] == "600"
    assert sorted(path.name for path in archive.parent.iterdir()) == ["whisper.tar.gz"]
    restored = tmp_path / "restored"
    assert f"{len(SERIES)} series are back, 0 were filled up" in restore(archive, restored)
    for series in SERIES:
        found = points(restored, series)
        assert {n: found.get(begin_s + n) for n in range(500)} == {n: float(n) for n in range(500)}
        assert all(value == at_s - begin_s for at_s, value in found.items()), "no half of a change"
        coarse = points(restored, series, 10)
        assert {at_s // 10 * 10 for at_s in range(begin_s, begin_s + 500)} <= coarse.keys()
    assert not [path for path in restored.iterdir() if path.name.startswith(".")]


def restore(archive: Path, whisper_dir: Path) -> str:
    require("whisper-fill")
    return run("restore.sh", archive, whisper_dir).stdout


def test_what_came_after_the_backup_stays_and_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    folder = tmp_path / "whisper"
    file = folder / "house" / "power_w.wsp"
    file.parent.mkdir(parents=True)
    now_s = int(time.time()) // 10 * 10

    def make(times_s: range) -> None:
        whisper.create(str(file), [(1, 3600), (10, 8640)], xFilesFactor=0.0, aggregationMethod="last")
        whisper.update_many(str(file), [(at_s, at_s - now_s) for at_s in times_s])

    make(range(now_s - 1000, now_s - 500))
    archive = tmp_path / "backup.tar.gz"
    run("backup.sh", folder, archive)
    file.unlink()
    make(range(now_s - 600, now_s - 100))  # the card broke; a new one went on
    assert "0 series are back, 1 were filled up" in restore(archive, folder)
    assert points(folder, "house.power_w") == {at_s: at_s - now_s for at_s in range(now_s - 1000, now_s - 100)}


def test_a_file_that_never_stands_still_is_told_and_all_others_are_in_the_backup(tmp_path: Path) -> None:
    folder = tmp_path / "whisper"
    folder.mkdir()
    for name in ("calm", "restless"):
        whisper.create(str(folder / f"{name}.wsp"), [(1, 60)])
    leaving = threading.Event()

    def fidget() -> None:
        while not leaving.wait(0.0005):
            os.utime(folder / "restless.wsp")

    thread = threading.Thread(target=fidget)
    thread.start()
    try:
        done = run("backup.sh", folder, tmp_path / "b.tar.gz", status=3)
    finally:
        leaving.set()
        thread.join()
    assert "it never stood still: ./restless.wsp" in done.stderr
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        assert [name for name in archive.getnames() if name.endswith(".wsp")] == ["whisper/calm.wsp"]


def test_mistakes_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("backup.sh", tmp_path / "nowhere", tmp_path / "b.tar.gz", status=2)
    run("backup.sh", tmp_path / "empty", tmp_path / "b.tar.gz", status=1)
    run("restore.sh", tmp_path / "b.tar.gz", tmp_path / "w", status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_series_that_were_there_before_get_the_rules_and_keep_their_points(tmp_path: Path) -> None:
    require("whisper-resize")
    now_s = int(time.time()) // 600 * 600
    folder = tmp_path / "whisper"
    ours = folder / "home" / "electricity" / "meter" / "house" / "pulses.wsp"
    others = folder / "servers" / "pi" / "load.wsp"
    for file in (ours, others):
        file.parent.mkdir(parents=True)
        whisper.create(str(file), [(60, 1440)], xFilesFactor=0.5, aggregationMethod="average")
        whisper.update_many(str(file), [(now_s - 60 * n, 1000.0 - n) for n in range(300)])
    untouched = others.read_bytes()
    assert run("apply-rules.sh", folder).stdout.startswith("1 series follow the rules")
    info = whisper.info(str(ours))
    assert (info["aggregationMethod"], info["xFilesFactor"]) == ("last", 0.0)
    assert [one["secondsPerPoint"] for one in info["archives"]] == [10, 60, 600]
    assert others.read_bytes() == untouched
    (_, _, step_s), values = whisper.fetch(str(ours), now_s - 18_000, now_s - 600, archiveToSelect=600)
    assert step_s == 600
    # The last one of each ten minutes, and not their average.
    assert [value for value in values if value is not None] == [1000.0 - n for n in range(281, 0, -10)]
    assert run("apply-rules.sh", folder).stdout.startswith("0 series follow the rules")
