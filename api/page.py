"""The landing page: one HTML text that needs nothing from anywhere else, so that it works offline and on a phone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, NamedTuple

from api.health import MISSED_AFTER_S, Reason, in_words, reasons_not_ready, state_in_words
from api.metrics import VERSION
from api.snapshot import FrozenRow, Snapshot
from config.settings import Settings
from vitals import OUTPUT_STATES, PROCESS_STATES


def landing_page(settings: Settings, seen: Snapshot) -> str:
    """The house at one instant: what is wrong first, then every source and every output."""
    reasons = reasons_not_ready(settings, seen)
    sources = [_source(settings, seen, worker, reasons) for worker in seen.rows("worker")]
    outputs = [_output(settings, seen, output, reasons) for output in seen.rows("output")]
    in_a_table = {f"source {line.name}" for line in sources} | {f"output {line.name}" for line in outputs}
    site = escape(settings.site.name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="10">
<title>{site} · wattherd</title>
<link rel="icon" href="data:image/svg+xml,{_ICON}">
<style>{_STYLE}</style>
</head>
<body>
{_demo_banner(seen)}
<header><h1>{site}</h1>{_verdict(reasons)}</header>
{_attention(reason for reason in reasons if reason.part not in in_a_table)}
{_table("Sources", sources, "No source is running yet.")}
{_table("Outputs", outputs, "No output is running yet.")}
<nav><a href="/metrics">metrics</a><a href="/readyz">ready?</a><a href="/healthz">alive?</a></nav>
<footer>wattherd {escape(VERSION)}, fresh every 10 seconds</footer>
</body>
</html>
"""


class _Line(NamedTuple):
    """One source or output."""

    name: str
    kind: str
    state: str
    mood: str  # good, waiting, bad: a class of the stylesheet
    detail: str
    troubles: list[str]
    note: str


def _source(settings: Settings, seen: Snapshot, worker: FrozenRow, reasons: list[Reason]) -> _Line:
    table = settings.sources.get(worker.name)
    process = seen.find("process", f"source.{worker.name}")
    troubles = _troubles(f"source {worker.name}", reasons)
    state = state_in_words(PROCESS_STATES, process["state"]) if process else "unknown"
    state = {"backoff": "restarting", "degraded": "failing"}.get(state, state)
    if state == "running":
        state = ("trouble" if troubles else "reading") if worker["open"] else "not open"
    age_s = seen.age_s(worker["last_reading_ns"])
    detail = "no reading yet" if age_s is None else f"last reading {in_words(age_s)} ago"
    return _Line(
        name=worker.name,
        kind=table.kind if table else "",
        state=state,
        mood="good" if state == "reading" else "waiting" if state == "starting" else "bad",
        detail=f"{detail} · {worker['readings']:,} in all",
        troubles=troubles,
        note="" if any(worker.note in trouble for trouble in troubles) else worker.note,
    )


def _output(settings: Settings, seen: Snapshot, output: FrozenRow, reasons: list[Reason]) -> _Line:
    table = settings.outputs.get(output.name)
    kind = table.kind if table else ""
    troubles = _troubles(f"output {output.name}", reasons)
    state = state_in_words(OUTPUT_STATES, output["state"]) if seen.runs("output", output.name) else "no writer"
    dropped = output["dropped_refused"] + output["dropped_quota"] + output["dropped_damage"]
    counts = [f"{output['delivered']:,} delivered", f"{output['pending']:,} waiting"]
    waiting_s = seen.age_utc_s(output["oldest_pending_utc_ns"]) or 0.0
    if output["pending"] and waiting_s > MISSED_AFTER_S and state == "up":
        state = "catching up"
    return _Line(
        name=output.name,
        kind="" if kind == output.name else kind,
        state=state,
        mood="good" if state == "up" else "waiting" if state in ("starting", "catching up") else "bad",
        detail=" · ".join([*counts, f"{dropped:,} lost"] if dropped else counts),
        troubles=troubles,
        note="" if any(output.note in trouble for trouble in troubles) else output.note,
    )


def _troubles(part: str, reasons: list[Reason]) -> list[str]:
    return [reason.what for reason in reasons if reason.part == part]


def _demo_banner(seen: Snapshot) -> str:
    names = [worker.name for worker in seen.rows("worker") if worker["simulated"]]
    if not names:
        return ""
    return (
        '<p class="demo" role="note"><strong>DEMO: these numbers are simulated</strong> '
        f"No electricity is involved in {escape(', '.join(names))}.</p>"
    )


def _verdict(reasons: list[Reason]) -> str:
    if not reasons:
        return '<p class="verdict good">Everything is well</p>'
    parts = len({reason.part for reason in reasons})
    return f'<p class="verdict bad">{parts} {"thing needs" if parts == 1 else "things need"} attention</p>'


def _attention(reasons: Iterable[Reason]) -> str:
    items = "".join(f"<li><b>{escape(part)}</b> {escape(what)}</li>" for part, what in reasons)
    return f'<ul class="attention">{items}</ul>' if items else ""


def _table(title: str, lines: list[_Line], empty: str) -> str:
    if not lines:
        return f'<section><h2>{title}</h2><p class="empty">{empty}</p></section>'
    bodies = "\n".join(map(_body, lines))
    return f"<section><h2>{title}</h2><table>\n{bodies}\n</table></section>"


def _body(line: _Line) -> str:
    troubles = "".join(f'<p class="trouble">{escape(trouble)}</p>' for trouble in line.troubles)
    note = f"<p>{escape(line.note)}</p>" if line.note else ""
    return (
        f'<tbody><tr><th scope="row">{escape(line.name)} <small>{escape(line.kind)}</small></th>'
        f'<td><span class="state {line.mood}">{escape(line.state)}</span></td></tr>'
        f'<tr><td colspan="2"><p>{escape(line.detail)}</p>{troubles}{note}</td></tr></tbody>'
    )


_ICON: Final = (
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath fill='%23e8a020' d='M9 0 2 9h5l-1 7 8-10H9z'/%3E%3C/svg%3E"
)

_STYLE: Final = """
:root { color-scheme: light dark; --page: #f4f5f2; --card: #fff; --text: #1d2420; --soft: #5c6861; --line: #e3e7e2;
  --good: #17683a; --good-back: #def2e4; --waiting: #7a4d00; --waiting-back: #fdeecb;
  --bad: #a3201d; --bad-back: #fce3e0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #121614; --card: #1b211e; --text: #e8eeea; --soft: #9aa8a0; --line: #2a332e;
    --good: #7fdca0; --good-back: #173523; --waiting: #f5c763; --waiting-back: #3a2d0e;
    --bad: #ff9b92; --bad-back: #421c1a; } }
* { box-sizing: border-box; margin: 0; }
body { max-width: 44rem; margin: 0 auto; padding: 1.25rem 1rem 2rem; background: var(--page); color: var(--text);
  font: 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
header { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: .5rem 1rem; }
h1 { font-size: 1.75rem; letter-spacing: -.02em; }
h1::before { content: ""; display: inline-block; width: .32em; height: .8em; margin-right: .4em; border-radius: .16em;
  background: #e8a020; }
h2 { margin: 1.75rem 0 .5rem .25rem; font-size: .8rem; font-weight: 600; letter-spacing: .08em;
  text-transform: uppercase; color: var(--soft); }
.verdict, .state { display: inline-block; border-radius: 99px; font-weight: 600; white-space: nowrap; }
.verdict { padding: .3rem .85rem; }
.state { padding: .1rem .65rem; font-size: .85rem; }
.good { color: var(--good); background: var(--good-back); }
.waiting { color: var(--waiting); background: var(--waiting-back); }
.bad, .attention { color: var(--bad); background: var(--bad-back); }
.attention { margin-top: 1rem; padding: .75rem 1rem; border-radius: .8rem; list-style: none; }
.attention li + li { margin-top: .5rem; }
.demo { margin-bottom: 1.25rem; padding: .75rem 1rem; border-radius: .8rem; color: #3b2600; text-align: center;
  background: repeating-linear-gradient(-45deg, #ffd166 0 14px, #fbc54a 14px 28px); }
.demo strong { display: block; font-size: 1.05rem; }
table { width: 100%; border-collapse: collapse; background: var(--card); border-radius: .8rem; overflow: hidden;
  box-shadow: 0 0 0 1px var(--line); }
tbody + tbody { border-top: 1px solid var(--line); }
th, td { padding: .75rem 1rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; }
th + td { width: 1%; padding-left: 0; text-align: right; }
tr + tr td { padding: .1rem 1rem .75rem; }
table p, small { font-size: .875rem; font-weight: 400; }
table p + p { margin-top: .35rem; }
table p, small, .empty, footer { color: var(--soft); font-variant-numeric: tabular-nums; }
table .trouble { color: var(--bad); }
.empty { margin-left: .25rem; }
nav { display: flex; gap: .5rem; margin-top: 1.75rem; }
nav a { flex: 1; padding: .65rem; border-radius: .8rem; text-align: center; text-decoration: none; color: var(--text);
  background: var(--card); box-shadow: 0 0 0 1px var(--line); }
nav a:hover, nav a:focus-visible { box-shadow: 0 0 0 2px #e8a020; }
footer { margin-top: 1rem; font-size: .8rem; text-align: center; }
"""
