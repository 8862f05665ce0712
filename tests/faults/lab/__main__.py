"""Runs the fault lab: `python -m tests.faults.lab [EXPERIMENT …]`; `make faults` runs all of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from tests.faults.lab.bench import ALONE, EXPERIMENTS, Bench, Sheet
from tests.faults.lab.report import print_all, verdict, write_all, write_figures

ROOT = Path(__file__).parents[3]
REPORT = ROOT / "build" / "faults"
PROMISES = ROOT / "docs" / "promises.md"
_LONGEST_S = 1800.0


@click.command(help=__doc__)
@click.argument("experiments", nargs=-1, type=click.Choice(EXPERIMENTS))
@click.option("--seed", default=1, show_default=True, help="another one has other chances")
@click.option("--scale", default=1.0, show_default=True, help="0.1 does a tenth of everything")
@click.option("--minutes", default=3.0, show_default=True, help="of the soak; 1440 is a day")
@click.option("--jobs", default=2, show_default=True, help="experiments at a time, as far as they bear company")
@click.option("--keep", is_flag=True, help="leave the files of each experiment where they are")
@click.option("--write-docs", is_flag=True, help="put the figures into docs/promises.md")
@click.option("--sheet", type=click.Path(path_type=Path), hidden=True, help="run one, here, and leave its findings")
def main(
    experiments: Sequence[str],
    seed: int,
    scale: float,
    minutes: float,
    jobs: int,
    keep: bool,
    write_docs: bool,
    sheet: Path | None,
) -> None:
    if sheet:
        found = Bench(experiments[0], sheet.parent, seed, scale, minutes).run()
        sheet.write_bytes(msgspec.json.encode(found))
        return
    began_s = time.monotonic()
    sheets = run_all(experiments or EXPERIMENTS, seed, scale, minutes, jobs, keep=keep)
    print_all(sheets)
    write_all(sheets, REPORT)
    click.echo(f"all in all {(time.monotonic() - began_s) / 60:.1f} minutes")
    if write_docs:
        write_figures(sheets, PROMISES)
        click.echo(f"the figures are in {PROMISES.relative_to(ROOT)}")
    click.echo(f"written to {REPORT.relative_to(ROOT)}/report.json and report.md")
    sys.exit(0 if all(one.passed or one.skipped for one in sheets) else 1)


def run_all(
    experiments: Sequence[str], seed: int, scale: float, minutes: float, jobs: int, *, keep: bool
) -> list[Sheet]:
    """Run each experiment in a process and a directory of its own, `jobs` at a time; at the end those that go alone."""
    waiting = sorted(experiments, key=lambda name: name in ALONE)
    running: dict[str, tuple[subprocess.Popen[bytes], Path, float]] = {}
    sheets: dict[str, Sheet] = {}
    while waiting or running:
        while waiting and len(running) < (1 if ALONE & {waiting[0], *running} else jobs):
            name = waiting.pop(0)
            directory = Path(tempfile.mkdtemp(prefix=f"wattherd-{name}-"))
            sheet = directory / "sheet.json"
            command = [sys.executable, "-m", "tests.faults.lab", name, "--seed", str(seed), "--scale", str(scale)]
            command += ["--minutes", str(minutes)]
            process = subprocess.Popen([*command, "--sheet", str(sheet)], cwd=ROOT)
            running[name] = process, directory, time.monotonic()
        for name, (process, directory, since_s) in list(running.items()):
            if process.poll() is None and time.monotonic() - since_s > max(1.0, scale) * _LONGEST_S + minutes * 60:
                process.kill()
            if process.poll() is not None:
                sheets[name] = found = _sheet(name, directory / "sheet.json", seed, scale)
                click.echo(f"{name}: {verdict(found)} after {found.took_s:.0f} s")
                write_all([*sheets.values()], REPORT)  # whoever ends us early still has these
                if keep:
                    click.echo(f"{name}: its files are in {directory}")
                else:
                    shutil.rmtree(directory, ignore_errors=True)
                del running[name]
        time.sleep(0.1)
    return [sheets[name] for name in experiments]


def _sheet(name: str, path: Path, seed: int, scale: float) -> Sheet:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sheet)
    except (OSError, ValueError) as error:
        return Sheet(name, "", seed, scale, differences=[f"it ended without a word: {error}"])


if __name__ == "__main__":
    main()
