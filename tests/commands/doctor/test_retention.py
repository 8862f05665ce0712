"""What is said of Graphite's rules is what whisper does: each judgement is compared with real files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import whisper
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from commands._doctor import Mark
from commands._doctor.retention import (
    Archive,
    Keeping,
    check_files,
    check_rules,
    faults,
    kept_by_rules,
    kept_in_file,
)

SEED = "[electricity]\npattern = ^home\\.electricity\\.\nretentions = 10s:7d,1m:30d,10m:1y\n"
OURS = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = average\n"
POWER = "home.electricity.kasa.fridge.power_w"
NOW_S = 1_763_640_000


def first_losses(archives: list[tuple[int, int]], xff: float, interval_s: int) -> str:
    """Make a file, tell it something every `interval_s`, and see what the first archive with holes has lost."""
    longest_s = archives[-1][0]
    first_s = NOW_S - 6 * longest_s
    first_s -= first_s % longest_s
    told_s = range(first_s, NOW_S, interval_s)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/a.wsp"
        whisper.create(file, archives, xFilesFactor=xff, aggregationMethod="average")
        for at_s in told_s:
            whisper.update_many(file, [(at_s, 1.0)], now=at_s)
        for step_s, _ in archives[1:]:
            # The last slot may be waiting for more; those before must have something, if something was told then.
            (from_s, until_s, step_s), values = whisper.fetch(
                file, first_s + longest_s - 1, first_s + 4 * longest_s - 1, now=NOW_S, archiveToSelect=step_s
            )
            slots = {at_s // step_s for at_s in told_s}
            kept = [
                value is not None
                for at_s, value in zip(range(from_s, until_s, step_s), values, strict=True)
                if at_s // step_s in slots
            ]
            if not all(kept):
                return "a part is gone" if any(kept) else "everything is gone"
    return ""


@profile(max_examples=40)
@given(
    xff=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]),
    interval_s=st.sampled_from([5, 10, 20, 30, 60]),
    fine_s=st.sampled_from([5, 10]),
    times=st.sampled_from([6, 12]),
)
@example(xff=0.3, interval_s=20, fine_s=5, times=6)
def test_what_is_told_to_be_lost_is_lost_in_a_real_file_and_only_that(
    xff: float, interval_s: int, fine_s: int, times: int
) -> None:
    archives = [(fine_s, 720), (fine_s * times, 720), (fine_s * times * 5, 720)]
    kept = Keeping(tuple(Archive(*each) for each in archives), xff, "average", "")
    said = [what for _, what, _ in faults(kept, "power_w", float(interval_s))]
    lost = first_losses(archives, xff, interval_s)
    assert [lost in what for what in said] == [True] * bool(lost)


def test_the_rules_of_the_seed_forget_everything_after_a_week_unless_xfilesfactor_is_0() -> None:
    kept = kept_by_rules(POWER, SEED, "")
    assert kept
    [(mark, what, now)] = faults(kept, "power_w", 30.0)
    assert mark is Mark.WRONG
    assert what.startswith("after 7 days everything is gone: 33 % of the slots of 10 s have a value")
    assert "xFilesFactor = 0" in now
    mended = kept_by_rules(POWER, SEED, OURS)
    assert mended
    assert [*faults(mended, "power_w", 30.0)] == []


def test_a_register_that_is_averaged_or_added_up_is_told() -> None:
    for method, mark in (("average", Mark.MIND), ("sum", Mark.WRONG)):
        kept = kept_by_rules("home.electricity.a.b.energy_wh", SEED, OURS.replace("average", method))
        assert kept
        [(found, what, now)] = faults(kept, "energy_wh", 10.0)
        assert found is mark
        assert f"rolled up by {method}" in what
        assert "aggregationMethod = last" in now


def test_the_first_rule_that_fits_counts_as_it_does_for_carbon() -> None:
    schemas = "[carbon]\npattern = ^carbon\\.\nretentions = 60:90\n[rest]\npattern = .*\nretentions = 10:60,60:1d\n"
    aggregation = "[last]\npattern = _wh$\naggregationMethod = last\nxFilesFactor = 0.2\n" + OURS
    kept = kept_by_rules("home.a.b.energy_wh", schemas, aggregation)
    assert kept == Keeping((Archive(10, 60), Archive(60, 1440)), 0.2, "last", "[rest] and [last]")
    assert kept_by_rules("nothing", "[a]\npattern = ^b\nretentions = 1s:1d\n", "") is None
    assert kept_by_rules("b", "[a]\npattern = (\nretentions = 1s:1d\n", "") is None
    assert kept_by_rules("b", "no rules at all", "") is None


@given(st.text())
def test_any_text_is_no_rule_and_no_traceback(text: str) -> None:
    kept_by_rules("home.electricity.a.b.power_w", text, text)


def test_the_head_of_a_file_is_read_as_whisper_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "a.wsp"
    whisper.create(str(file), [(10, 60480), (60, 43200)], xFilesFactor=0.3, aggregationMethod="last")
    kept = kept_in_file(file)
    info = whisper.info(str(file))
    assert kept
    assert [tuple(one) for one in kept.archives] == [
        (each["secondsPerPoint"], each["points"]) for each in info["archives"]
    ]
    assert (kept.xff, kept.method) == (pytest.approx(info["xFilesFactor"]), info["aggregationMethod"])
    file.write_bytes(b"not a whisper file at all")
    assert kept_in_file(file) is None
    assert kept_in_file(tmp_path / "nothing") is None


def test_files_keep_the_rules_of_the_day_on_which_they_were_made(tmp_path: Path) -> None:
    conf, files = tmp_path / "conf", tmp_path / "whisper"
    conf.mkdir()
    (conf / "storage-schemas.conf").write_text(SEED)
    (conf / "storage-aggregation.conf").write_text(OURS)
    file = files / "home/electricity/kasa/fridge/power_w.wsp"
    file.parent.mkdir(parents=True)
    whisper.create(str(file), [(10, 60480), (60, 43200)], xFilesFactor=0.5)
    [good] = check_rules([(POWER, 30.0)], conf, "output graphite")
    assert good.mark is Mark.GOOD
    found = check_files([(POWER, 30.0)], files, conf, "output graphite")
    assert [one.mark for one in found] == [Mark.WRONG, Mark.MIND]
    assert "whisper-resize.py" in found[0].what_now
    assert "other rules than those of today" in found[1].what
    assert check_rules([(POWER, 30.0)], tmp_path, "output graphite") == []
    assert check_files([("home.nothing", 30.0)], files, conf, "output graphite") == []


def test_a_series_that_no_rule_has_is_named(tmp_path: Path) -> None:
    (tmp_path / "storage-schemas.conf").write_text("[other]\npattern = ^servers\\.\nretentions = 60s:1d\n")
    [found] = check_rules([(POWER, 30.0)], tmp_path, "output graphite")
    assert found.mark is Mark.MIND
    assert POWER in found.what
