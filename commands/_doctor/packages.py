"""Whether the packages that this configuration needs are there, in the versions that are locked."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from commands._configuration import ROOT
from commands._doctor import Finding, Mark
from config.settings import Settings

_EVERY_HOUSE: Final = ("base", "page")
_PIN: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+?)(?:\s*;\s*(.*?))?\s*\\?$", re.MULTILINE)
_MOST_NAMED: Final = 4


def locks_of(settings: Settings, folder: Path = ROOT / "requirements") -> list[Path]:
    """Name the locks that count: what every house needs, and one for each kind that is configured and has one."""
    kinds = {options.kind for options in settings.sources.values() if options.enabled}
    kinds |= {options.kind or name for name, options in settings.outputs.items() if options.enabled}
    names = [*_EVERY_HOUSE, *sorted(kinds)]
    return [path for name in names if (path := folder / f"{name}.txt").exists()]


def pins(text: str) -> dict[str, str]:
    r"""Read a lock; what is for another platform only is left out.

    >>> pins("click==8.5.1 \\\n    --hash=sha256:aa\ntzdata==2026.6 ; sys_platform == 'win32' \\\n    --hash=x\n")
    {'click': '8.5.1'}
    """
    return {name: version for name, version, condition in _PIN.findall(text) if not condition}


def installed(name: str) -> str:
    """Return the version of a package, nothing if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_packages(locks: Iterable[Path], version_of: Callable[[str], str] = installed) -> Iterator[Finding]:
    """Compare what is there with the locks."""
    wanted: dict[str, str] = {}
    for lock in locks:
        wanted |= pins(lock.read_text())
    there = {name: version_of(name) for name in wanted}
    missing = [name for name, version in there.items() if not version]
    others = [name for name, version in there.items() if version and version != wanted[name]]
    if missing:
        what = f"{_listed(missing)} not installed"
        yield Finding("packages", "packages.there", Mark.WRONG, what, "run: make install")
    if others:
        told = [f"{name} {there[name]} instead of {wanted[name]}" for name in others]
        yield Finding("packages", "packages.locked", Mark.MIND, _listed(told), "run: make install")
    if not missing and not others:
        what = f"{len(wanted)} packages are there, each in the version that is locked"
        yield Finding("packages", "packages.there", Mark.GOOD, what)


def check_interpreter(version: tuple[int, ...] = sys.version_info[:3], *, in_venv: bool | None = None) -> Finding:
    shown = ".".join(map(str, version))
    if in_venv is None:
        in_venv = sys.prefix != sys.base_prefix
    if version < (3, 11):
        what_now = "make the virtual environment anew with a newer one: make clean install PYTHON=python3.11"
        return Finding("packages", "packages.python", Mark.WRONG, f"Python {shown} is older than 3.11", what_now)
    if not in_venv:
        what = f"Python {shown} of the system runs this, not that of a virtual environment"
        return Finding("packages", "packages.python", Mark.MIND, what, "run: make install")
    return Finding("packages", "packages.python", Mark.GOOD, f"Python {shown} in its virtual environment")


def _listed(words: list[str]) -> str:
    rest = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def versions(locks: Iterable[Path]) -> Mapping[str, str]:
    """Return what is installed of all that is locked, for a report."""
    return {name: installed(name) for lock in locks for name in pins(lock.read_text())}
