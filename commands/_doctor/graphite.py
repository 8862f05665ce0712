"""Carbon and Graphite: the canary by the web's render API or the whisper file, and how long which series is kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from commands._doctor import Finding, Mark
from commands._doctor.canary import DEVICE, METRIC, SOURCE, came_back, canary, sent, unread, until
from commands._doctor.retention import check_files, check_rules, file_of, kept_in_file
from commands._peer import Peer, PeerDown
from config.settings import PolledTable, Settings
from graphite_helper import metric_path
from reading import Record
from writer import Memo
from writer.outputs.graphite import Graphite
from writer.outputs.graphite import Options as GraphiteOptions

_LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_CONF: Final = ("/etc/carbon", "/opt/graphite/conf")
_WHISPER: Final = ("/var/lib/graphite/whisper", "/opt/graphite/storage/whisper")
_WEB_PORTS: Final = (80, 8080)
_GUESS_S: Final = 2.0
_RENDER_S: Final = 10.0
_METRICS: Final = ("power_w", "energy_wh")
_WINDOWS: Final = ("-6h", "-2d", "-9d", "-45d", "-400d")  # each may lie in another archive
_IN_MEMORY_S: Final = 1200
_MOST_SERIES: Final = 3
# What a source that is told and not asked is told, roughly.
_TOLD_EVERY_S: Final = 10.0

Points = list[tuple[float | None, int]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where Graphite can be looked into; "" and None: nobody said, so the usual places are tried."""

    web: str = ""
    whisper: Path | None = None
    conf: Path | None = None

    def guessed(self, host: str) -> Places:
        """Fill in what is at its usual place."""
        if host not in _LOCAL:
            return Places(self.web or _web_at(host), self.whisper, self.conf)
        whisper = self.whisper or next((Path(place) for place in _WHISPER if Path(place).is_dir()), None)
        conf = self.conf or next(
            (Path(place) for place in _CONF if (Path(place) / "storage-schemas.conf").is_file()), None
        )
        return Places(self.web or _web_at(host), whisper, conf)


def check_graphite(
    part: str, options: GraphiteOptions, settings: Settings, places: Places, within_s: float
) -> Iterator[Finding]:
    """Send a canary, look for it, and judge how long everything is kept."""
    places = places.guessed(options.host)
    record = canary()
    if wrong := sent(part, Graphite(options, settings.site, Memo()), record):
        yield from wrong
    else:
        yield _read_back(part, options, places, record, within_s)
    yield from check_retention(part, options, settings, places)


def check_retention(part: str, options: GraphiteOptions, settings: Settings, places: Places) -> Iterator[Finding]:
    series = [*series_of(settings, options.prefix)]
    found: list[Finding] = []
    if places.conf:
        found += check_rules(series, places.conf, part)
    if places.whisper:
        found += check_files(series, places.whisper, places.conf, part)
    if places.web:
        found += _rendered(part, options, Peer(places.web, {}, _RENDER_S))
    if not found:
        what = "nobody told how long carbon keeps what"
        now = "name its rules: verify --graphite-conf DIR (with storage-schemas.conf), or --graphite-web URL"
        found.append(Finding(part, "graphite.rules", Mark.MIND, what, now))
    yield from found


def series_of(settings: Settings, prefix: str) -> Iterator[tuple[str, float]]:
    """Name what this house tells Graphite, and how many seconds lie between two values."""
    for source, options in settings.sources.items():
        if not options.enabled:
            continue
        interval_s = options.interval_s if isinstance(options, PolledTable) else _TOLD_EVERY_S
        interval_s = getattr(options, "report_interval_s", interval_s)
        place = f"{prefix}.simulated" if options.kind == "simulated" else prefix
        named = [device.name for device in getattr(options, "devices", ())]
        for device in named or [getattr(options, "device", "device")]:
            for metric in _METRICS:
                yield metric_path(place, source, device, metric), interval_s


def _read_back(part: str, options: GraphiteOptions, places: Places, record: Record, within_s: float) -> Finding:
    path = metric_path(options.prefix, SOURCE, DEVICE, METRIC)
    wanted, at_s = record.values[METRIC], record.time_ns // 10**9
    if not places.web and places.whisper is None:
        now = "name graphite-web or the files: verify --graphite-web URL, or --whisper DIR"
        return unread(part, "carbon never answers", now)

    def look() -> str | None:
        if places.web and wanted in _values(Peer(places.web, {}, _RENDER_S), path, "-10min"):
            return places.web
        if places.whisper and _in_file(file_of(places.whisper, path), float(wanted), at_s):
            return str(file_of(places.whisper, path))
        return None

    try:
        where = until(look, within_s)
    except PeerDown as down:
        return unread(part, f"{places.web}: {down}", "is graphite-web running, and is its address right?")
    if where:
        return came_back(part, where)
    now = "carbon may be slow to make new files (MAX_CREATES_PER_MINUTE): wait longer, --wait 90"
    if not places.web:
        now += "; or these are not its files: --graphite-web URL"
    return unread(part, f"{path} had no such value within {within_s:g} s", now)


def _values(web: Peer, path: str, since: str) -> list[Any]:
    told = web.get("/render", target=path, format="json", **{"from": since}).told
    points = told[0].get("datapoints", []) if isinstance(told, list) and told and isinstance(told[0], dict) else []
    return [point[0] for point in points]


def _in_file(file: Path, wanted: float, at_s: int) -> bool:
    """Look for a value in the finest archive, by its bytes: points are 12 bytes, big-endian (whisper.py)."""
    kept = kept_in_file(file)
    if kept is None or not kept.archives:
        return False
    finest = kept.archives[0]
    slot_s = at_s - at_s % finest.step_s
    content = file.read_bytes()
    (offset,) = struct.unpack(">L", content[16:20])
    return struct.pack(">Ld", slot_s, wanted) in content[offset : offset + 12 * finest.points]


def _rendered(part: str, options: GraphiteOptions, web: Peer) -> Iterator[Finding]:
    """Judge by what comes back: whether the coarser archives have what the finest one has."""
    try:
        expanded = web.get("/metrics/expand", query=f"{options.prefix}.*.*.power_w", leavesOnly="1").told
        series = [*map(str, expanded["results"])][:_MOST_SERIES]
        shares = {path: filled_shares(_by_step(web, path)) for path in series}
    except (PeerDown, KeyError, TypeError, IndexError) as error:
        yield Finding(part, "graphite.kept", Mark.MIND, f"{web.url} does not tell what is kept: {error}")
        return
    judged = {path: steps for path, steps in shares.items() if steps}
    empty = [(step_s, path) for path, steps in judged.items() for step_s, share in steps.items() if share < 0.5]
    for step_s, path in empty[:1]:
        what = f"{path} has next to nothing in its archive of {step_s} s: history ends where the finer one does"
        yield Finding(part, "graphite.kept", Mark.WRONG, what, "set xFilesFactor = 0, then whisper-resize.py")
    if judged and not empty:
        what = f"the coarser archives of {len(judged)} series have what the finest one has"
        yield Finding(part, "graphite.kept", Mark.GOOD, what)


def filled_shares(by_step: dict[int, Points]) -> dict[int, float]:
    """Return of each coarser archive which share of its slots has a value where the finest one has some.

    The newest points are left out: carbon still has them in memory, and graphite-web adds them to every archive.

    >>> minute, hour = [(float(at), at) for at in range(0, 36_000, 60)], [(None, at) for at in range(0, 36_000, 3600)]
    >>> filled_shares({60: minute, 3600: hour}), filled_shares({60: minute, 3600: [(1.0, at) for _, at in hour]})
    ({3600: 0.0}, {3600: 1.0})
    """
    if not by_step:
        return {}
    finest, *coarser = sorted(by_step)
    newest_s = max((at_s for _, at_s in by_step[finest]), default=0)
    told = [at_s for value, at_s in by_step[finest] if value is not None and at_s < newest_s - _IN_MEMORY_S]
    shares = {}
    for step_s in coarser:
        # The first and the last slot may be filled in part only.
        wanted = sorted({at_s - at_s % step_s for at_s in told})[1:-1]
        there = {at_s for value, at_s in by_step[step_s] if value is not None}
        if wanted:
            shares[step_s] = sum(at_s in there for at_s in wanted) / len(wanted)
    return shares


def _by_step(web: Peer, path: str) -> dict[int, Points]:
    """Return the points of every archive that can be seen, by the seconds between them."""
    found: dict[int, Points] = {}
    for since in _WINDOWS:
        told = web.get("/render", target=path, format="json", **{"from": since}).told
        points = [(value, int(at_s)) for value, at_s in told[0]["datapoints"]] if told else []
        if len(points) >= 2:
            found.setdefault(points[1][1] - points[0][1], points)
    return found


def _web_at(host: str) -> str:
    """Return where a graphite-web answers beside carbon; nothing if it does at none of the usual ports."""
    name = f"[{host}]" if ":" in host else host
    for port in _WEB_PORTS:
        url = f"http://{name}:{port}" if port != 80 else f"http://{name}"
        try:
            answer = Peer(url, {}, _GUESS_S).get("/metrics/find", query="*", format="treejson")
        except PeerDown:
            continue
        if answer.good and isinstance(answer.told, list):
            return url
    return ""
