"""Runs the benches and prints one table: what, ours, against what, the ratio, its budget, and whether it is met.

`python -m bench` runs all of them, `python -m bench pipeline drain` these, each in a process of its own. Beside the
table its figures are in `var/bench/bench.json`. No time is a pass mark by itself, and a budget that is missed is no
failure: docs/performance.md says what each is and why. The status is 1 when a bench itself failed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from bench.figures import Finding, Skipped, columns, machine, parser, read, table, verdict, write

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs" / "performance.md"
BENCHES: Final = ("pipeline", "disk", "memory", "restart", "pulse", "drain", "history", "api", "growth")
_BEGIN, _END = "<!-- figures: make bench -->\n", "<!-- end of figures -->\n"


def run(bench: str, results: Path, *, quick: bool) -> list[Finding] | None:
    """Run one bench and return what it found; None if it failed."""
    print(f"--- {bench}", flush=True)
    path = results / f"{bench}.json"
    path.unlink(missing_ok=True)
    words = [sys.executable, "-m", f"bench.{bench}", "--results", str(results), *(["--quick"] if quick else [])]
    status = subprocess.run(words, cwd=ROOT).returncode
    return None if status else read(path)


def last(bench: str, results: Path) -> list[Finding] | None:
    """Return what the last run of a bench found; None if there was none."""
    path = results / f"{bench}.json"
    return read(path) if path.exists() else None


def markdown(found: Mapping[str, Iterable[Finding]]) -> str:
    """Lay the figures out as the table of the documentation."""
    where = machine()
    lines = [
        f"Measured on {where['cores']} cores ({where['processor']}), "
        f"Linux {where['kernel']}, Python {where['python']}.\n",
        "| bench | what | ours | against | theirs | ratio | budget | |",
        "|---|---|--:|---|--:|--:|--:|---|",
    ]
    for bench, findings in found.items():
        for each in findings:
            if isinstance(each, Skipped):
                lines.append(f"| {bench} | {each.what} | | skipped: {each.why} | | | | |")
                continue
            ours, theirs, ratio, most, met = columns(each)
            verdict = "**not met**" if met == "NOT" else met
            lines.append(f"| {bench} | {each.what} | {ours} | {each.peer} | {theirs} | {ratio} | {most} | {verdict} |")
    return "\n".join(lines) + "\n"


def write_docs(found: Mapping[str, Iterable[Finding]], path: Path = DOCS) -> None:
    """Put the table into the page, in place of the last one."""
    before, _, rest = path.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}{markdown(found)}{_END}{after}")


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("benches", nargs="*", metavar="BENCH", help=f"some of: {' '.join(BENCHES)}")
    arguments.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    arguments.add_argument("--again", action="store_true", help="measure nothing: take the JSON of the last run")
    told = arguments.parse_args()
    if unknown := {*told.benches} - {*BENCHES}:
        arguments.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    results = told.results.resolve()
    found: dict[str, list[Finding]] = {}
    failed = []
    for bench in told.benches or BENCHES:
        findings = last(bench, results) if told.again else run(bench, results, quick=told.quick)
        if findings is None:
            failed.append(bench)
        else:
            found[bench] = findings
    everything = [each for findings in found.values() for each in findings]
    print(f"\n{table(everything)}")
    print(f"{verdict(everything)}; written to {write('bench', everything, results)}")
    if told.write_docs and not failed:
        write_docs(found)
        if "growth" in found:
            shutil.copy(results / "growth.svg", DOCS.parent)
    if failed:
        print(f"failed, or never run: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
