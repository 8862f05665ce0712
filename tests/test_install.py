"""What an installation gets: packages with their hashes (but on 32-bit ARM), zones of its own, a licence."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "requirements" / "install.sh"
# An interpreter that only tells whether it is one of 32-bit ARM, and what pip would have been told.
INTERPRETER = """#!/bin/sh
if [ "$1" = -c ]; then exit {told}; fi
echo "$@"
while [ $# -gt 0 ]; do
    if [ "$1" = -r ]; then cat "$2"; fi
    shift
done
"""


def installed(folder: Path, told: int, *locks: str) -> str:
    interpreter = folder / "python"
    interpreter.write_text(INTERPRETER.format(told=told))
    interpreter.chmod(0o755)
    done = subprocess.run([INSTALL, interpreter, *locks], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_elsewhere_every_package_is_held_against_its_hash(tmp_path: Path) -> None:
    line = installed(tmp_path, 1, "requirements/base.txt", "requirements/page.txt").splitlines()[0]
    assert line.endswith("--no-deps --require-hashes -r requirements/base.txt -r requirements/page.txt")


@pytest.mark.parametrize("lock", ["requirements/kasa.txt", "requirements.txt"])
def test_on_32_bit_arm_the_versions_are_the_same_and_the_hashes_are_left_out(lock: str, tmp_path: Path) -> None:
    told = installed(tmp_path, 0, lock)
    told = "\n".join(line for line in told.splitlines() if not line.lstrip().startswith("#"))
    assert "-hash" not in told
    assert "\\" not in told
    locks = [lock, *re.findall(r"^-r (\S+)", (ROOT / lock).read_text(), re.MULTILINE)]
    pinned = {pin for each in locks for pin in re.findall(r"^[\w.-]+==\S+", (ROOT / each).read_text(), re.MULTILINE)}
    assert {*re.findall(r"^[\w.-]+==\S+", told, re.MULTILINE)} == pinned
    assert len(pinned) > 5


def test_the_zones_that_plugs_name_come_with_the_lock_and_not_with_the_system() -> None:
    """python-kasa fails on a plug in one of these where Debian leaves them out."""
    assert re.search(r"^tzdata==", (ROOT / "requirements/base.txt").read_text(), re.MULTILINE)
    words = "from zoneinfo import ZoneInfo; [ZoneInfo(name) for name in ('GB', 'EST', 'CST6CDT', 'Europe/London')]"
    subprocess.run([sys.executable, "-c", words], env={"PYTHONTZPATH": ""}, check=True)


def test_the_licence_is_the_one_that_is_named() -> None:
    licence = " ".join((ROOT / "LICENSE").read_text().split())
    assert licence.startswith("GNU GENERAL PUBLIC LICENSE Version 3")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "GPL-3.0-or-later"
    assert "\nGPL-3.0-or-later; see [LICENSE](LICENSE)." in (ROOT / "README.md").read_text()
