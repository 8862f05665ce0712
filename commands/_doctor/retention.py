"""Whether Graphite keeps what it promises: its rules against how often it is told something.

Whisper rolls up the finest archive into the next one only if at least `xFilesFactor` of the slots below have a value.
With 0.5, carbon's default, and a reading every 30 s in slots of 10 s, a third is filled: nothing reaches the coarser
archives, and when the finest one ends the history is gone, without a word.
"""

from __future__ import annotations

import configparser
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from commands._doctor import Finding, Mark

# carbon's defaults, where no rule fits: conf/storage-aggregation.conf.example of graphite-carbon.
_XFF: Final = 0.5
_METHOD: Final = "average"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_METHODS: Final = {1: "average", 2: "sum", 3: "last", 4: "max", 5: "min", 6: "avg_zero", 7: "absmax", 8: "absmin"}
_MOST_ARCHIVES: Final = 64
# Which way of rolling up keeps the meaning of a metric; every other way makes numbers that nobody measured.
_RIGHT: Final = {"counter": ("last", "max"), "power": ("average", "avg_zero", "last", "max", "min", "absmax", "absmin")}


class Archive(NamedTuple):
    """One grid of slots."""

    step_s: int
    points: int

    @property
    def span_s(self) -> int:
        return self.step_s * self.points


@dataclass(frozen=True, slots=True)
class Keeping:
    """How one series is kept."""

    archives: tuple[Archive, ...]  # the finest first
    xff: float
    method: str
    by: str  # who says so: a section of the rules, a file


def rules_of(folder: Path) -> tuple[str, str] | None:
    """Return the texts of storage-schemas.conf and storage-aggregation.conf; None without the first."""
    try:
        schemas = (folder / "storage-schemas.conf").read_text(errors="replace")
    except OSError:
        return None
    try:
        return schemas, (folder / "storage-aggregation.conf").read_text(errors="replace")
    except OSError:
        return schemas, ""


def kept_by_rules(path: str, schemas: str, aggregation: str) -> Keeping | None:
    """Return how carbon would make a new file; None if no rule has it, or nobody understands the one that does.

    >>> rules = "[home]\\npattern = ^home\\\\.\\nretentions = 10s:7d,1m:30d\\n"
    >>> kept = kept_by_rules("home.electricity.kasa.fridge.power_w", rules, "")
    >>> kept.archives, kept.xff, kept.method
    ((Archive(step_s=10, points=60480), Archive(step_s=60, points=43200)), 0.5, 'average')
    """
    schema = _first(path, schemas)
    if schema is None:
        return None
    try:
        archives = tuple(_archive(part) for part in schema[1]["retentions"].split(","))
    except (KeyError, ValueError):
        return None
    found = _first(path, aggregation)
    rule = found[1] if found else {}
    try:
        xff = float(rule.get("xfilesfactor", _XFF))
    except ValueError:
        xff = _XFF
    method = rule.get("aggregationmethod", _METHOD).lower()
    return Keeping(archives, xff, method, f"[{schema[0]}]" + (f" and [{found[0]}]" if found else ""))


def kept_in_file(file: Path) -> Keeping | None:
    """Read the head of a whisper file, as whisper.py lays it out: big-endian, then 12 bytes an archive."""
    try:
        with file.open("rb") as opened:
            kind, _, xff, count = struct.unpack(">2LfL", opened.read(16))
            if not 0 < count <= _MOST_ARCHIVES:
                return None
            archives = [struct.unpack(">3L", opened.read(12))[1:] for _ in range(count)]
    except (OSError, struct.error):
        return None
    return Keeping(tuple(Archive(*each) for each in archives), round(xff, 6), _METHODS.get(kind, "?"), file.name)


def file_of(folder: Path, path: str) -> Path:
    return folder / Path(*path.split(".")).with_suffix(".wsp")


def faults(kept: Keeping, metric: str, interval_s: float) -> Iterator[tuple[Mark, str, str]]:
    """Say what gets lost or wrong; nothing if the series keeps what it promises.

    >>> seven_days, xff = (Archive(10, 60480), Archive(60, 43200)), 0.5
    >>> for _, what, _ in faults(Keeping(seven_days, xff, "average", ""), "power_w", 30.0): print(what)
    after 7 days everything is gone: 33 % of the slots of 10 s have a value, and xFilesFactor 0.5 wants 50 %
    >>> [*faults(Keeping(seven_days, 0.0, "average", ""), "power_w", 30.0)]
    []
    """
    for finer, coarser in pairwise(kept.archives):
        least, most = _shares(finer.step_s, coarser.step_s, interval_s)
        if least + 1e-9 < kept.xff:
            gone = "everything is gone" if most + 1e-9 < kept.xff else "a part is gone"
            share = f"{_percent(least, most)} of the slots of {finer.step_s} s have a value"
            wanted = f"xFilesFactor {kept.xff:g} wants {100 * kept.xff:.0f} %"
            what = f"after {_in_words(finer.span_s)} {gone}: {share}, and {wanted}"
            yield Mark.WRONG, what, "set xFilesFactor = 0: deploy/graphite/storage-aggregation.conf"
            break
    kind = "counter" if metric.endswith(("_wh", "_m3", "pulses", "cost")) else "power"
    if len(kept.archives) > 1 and kept.method not in _RIGHT[kind] and kept.method != "?":
        what = f"it is rolled up by {kept.method}, which makes {metric} a number that nobody measured"
        now = f"aggregationMethod = {'last' if kind == 'counter' else 'average'}: deploy/graphite/"
        yield Mark.WRONG if kept.method == "sum" else Mark.MIND, what, now


def _shares(finer_s: int, coarser_s: int, interval_s: float) -> tuple[float, float]:
    """Return how many of the fine slots have a value, at least and at most, in a coarse one that has any at all.

    >>> [_shares(10, 60, interval_s) for interval_s in (5, 30, 60)]
    [(1.0, 1.0), (0.3333333333333333, 0.3333333333333333), (0.16666666666666666, 0.16666666666666666)]
    >>> [round(share, 2) for share in _shares(5, 30, 20)]
    [0.17, 0.33]
    """
    if interval_s <= finer_s:
        return 1.0, 1.0
    values = max(1.0, coarser_s / interval_s)
    return math.floor(values) * finer_s / coarser_s, math.ceil(values) * finer_s / coarser_s


def _percent(least: float, most: float) -> str:
    """Put a share, or the two between which it is, into words.

    >>> _percent(1 / 6, 1 / 3), _percent(1 / 3, 1 / 3)
    ('17 to 33 %', '33 %')
    """
    low, high = round(100 * least), round(100 * most)
    return f"{low} %" if low == high else f"{low} to {high} %"


def check_rules(series: Sequence[tuple[str, float]], conf: Path, part: str) -> list[Finding]:
    """Judge the rules of carbon for series of which one comes every so many seconds."""
    texts = rules_of(conf)
    if texts is None:
        return []
    found: dict[tuple[Mark, str], Finding] = {}
    unruled = []
    for path, interval_s in series:
        kept = kept_by_rules(path, *texts)
        if kept is None:
            unruled.append(path)
            continue
        for mark, what, now in faults(kept, path.rpartition(".")[2], interval_s):
            told = f"{path}: {what} (by {kept.by} in {conf})"
            found.setdefault((mark, what), Finding(part, "graphite.rules", mark, told, now))
    if unruled:
        what = f"no rule in {conf}/storage-schemas.conf fits {unruled[0]}: carbon keeps it as its default says"
        found[Mark.MIND, ""] = Finding(part, "graphite.rules", Mark.MIND, what, "deploy/graphite/storage-schemas.conf")
    good = f"the rules in {conf} keep what they promise, for {len(series)} series"
    return [*found.values()] or [Finding(part, "graphite.rules", Mark.GOOD, good)]


def check_files(series: Sequence[tuple[str, float]], whisper: Path, conf: Path | None, part: str) -> list[Finding]:
    """Judge the files that are there: they keep the rules of the day on which they were made."""
    texts = rules_of(conf) if conf else None
    found: dict[tuple[Mark, str], Finding] = {}
    looked_at = 0
    for path, interval_s in series:
        file = file_of(whisper, path)
        if (kept := kept_in_file(file)) is None:
            continue
        looked_at += 1
        for mark, what, _ in faults(kept, path.rpartition(".")[2], interval_s):
            now = "the rules count for new files only; for this one: whisper-resize.py with --xFilesFactor=0"
            found.setdefault((mark, what), Finding(part, "graphite.files", mark, f"{file}: {what}", now))
        wanted = kept_by_rules(path, *texts) if texts else None
        if wanted and wanted.archives != kept.archives:
            what = f"{file} was made by other rules than those of today"
            now = "whisper-resize.py FILE with today's retentions, or leave it"
            found.setdefault((Mark.MIND, "older"), Finding(part, "graphite.files", Mark.MIND, what, now))
    good = f"{looked_at} files in {whisper} keep what they promise"
    if not looked_at:
        return []
    return [*found.values()] or [Finding(part, "graphite.files", Mark.GOOD, good)]


def _first(path: str, rules: str) -> tuple[str, dict[str, str]] | None:
    """Return the first section whose pattern is found in a path, as carbon does it."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(rules)
    except configparser.Error:
        return None
    for section in parser.sections():
        options = dict(parser[section])
        try:
            if re.search(options.get("pattern", r"(?!)"), path):
                return section, options
        except re.error:
            continue
    return None


def _archive(text: str) -> Archive:
    """Read one retention.

    >>> _archive("10s:7d"), _archive("60:1440"), _archive("1m:30d")
    (Archive(step_s=10, points=60480), Archive(step_s=60, points=1440), Archive(step_s=60, points=43200))
    """
    step, _, span = text.strip().partition(":")
    step_s = _seconds(step)
    return Archive(step_s, int(span) if span.isdigit() else _seconds(span) // step_s)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if not found:
        raise ValueError(f"{text!r} is no length of time")
    unit = next((unit for unit in _UNITS_S if found[2].startswith(unit)), "") if found[2] else "s"
    return int(found[1]) * _UNITS_S[unit]


def _in_words(seconds: int) -> str:
    for unit, length_s in (("year", 31_536_000), ("day", 86_400), ("hour", 3600)):
        if seconds >= length_s:
            count = seconds // length_s
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} s"
