"""Turns the units that are shipped in `deploy/` into those of this house: its place, its user, its sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.settings import Settings

_SHIPPED: Final = Path(__file__).resolve().parent.parent / "deploy"
_UNITS: Final = Path("etc/systemd/system")
UNIT: Final = "wattherd.service"
TIMERS: Final = tuple(sorted(path.name for path in (_SHIPPED / "systemd").glob("*.timer")))
# What every file of ours begins with, so that nobody else's is ever removed.
MARK: Final = "# Written by wattherd's `make install-service`; what you change belongs into a drop-in of your own.\n"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the house lies, who runs it, and what its configuration is called if not config/site.toml."""

    root: Path
    user: str
    config: Path | None = None


def files(settings: Settings, place: Place) -> dict[Path, str]:
    """Return what belongs into the system, by its path from the root of the file system."""
    found = {}
    for shipped in sorted((_SHIPPED / "systemd").glob("wattherd*.*")):
        if shipped.is_file():
            found[_UNITS / shipped.name] = adapted(shipped.read_text(), settings, place)
    for kind in sorted({options.kind for options in settings.sources.values() if options.enabled}):
        shipped = _SHIPPED / "systemd" / "wattherd.service.d" / f"{kind}.conf"
        if shipped.exists():
            found[_UNITS / "wattherd.service.d" / shipped.name] = shipped.read_text()
    found[Path("etc/udev/rules.d/60-wattherd.rules")] = (_SHIPPED / "udev" / "60-wattherd.rules").read_text()
    found[Path("etc/sysusers.d/wattherd.conf")] = (_SHIPPED / "sysusers" / "wattherd.conf").read_text()
    return {path: MARK + text for path, text in found.items()}


def ours(top: Path) -> list[Path]:
    """Return the files below `top` that an earlier installation wrote."""
    patterns = ["etc/systemd/system/wattherd*", "etc/systemd/system/wattherd.service.d/*.conf"]
    patterns += ["etc/udev/rules.d/60-wattherd.rules", "etc/sysusers.d/wattherd.conf"]
    found = {path for pattern in patterns for path in top.glob(pattern) if path.is_file() and not path.is_symlink()}
    return sorted(path for path in found if path.read_text(errors="replace").startswith(MARK))


def adapted(unit: str, settings: Settings, place: Place) -> str:
    """Put place, user and writable directories into a unit.

    >>> house = Place(Path("/opt/w h"), "ann")
    >>> _line("User=pi", house, []), _line("WorkingDirectory=/home/pi/wattherd", house, [])
    ('User=ann', 'WorkingDirectory=/opt/w h')
    >>> _line("ExecStart=/home/pi/wattherd/.venv/bin/python /home/pi/wattherd/orchestrator.py run", house, [])
    'ExecStart="/opt/w h/.venv/bin/python" "/opt/w h/orchestrator.py" run'
    >>> _line("ReadWritePaths=/home/pi/wattherd/var", house, [Path("/srv/100%")])
    'ReadWritePaths=/srv/100%%'
    """
    return "".join(_line(line, place, writable(settings)) + "\n" for line in unit.splitlines())


def writable(settings: Settings) -> list[Path]:
    """Return the directories that a house writes to: its data, and wherever CSV files shall go."""
    found = [settings.data_dir.absolute()]
    for options in settings.outputs.values():
        if options.enabled and (directory := getattr(options, "directory", "")):
            path = (found[0] / Path(directory).expanduser()).absolute()
            if not any(path.is_relative_to(other) for other in found):
                found.append(path)
    return found


def _line(line: str, place: Place, paths: list[Path]) -> str:
    key, _, value = line.partition("=")
    match key:
        case "User":
            return f"User={place.user}"
        case "WorkingDirectory":
            return f"WorkingDirectory={_escaped(place.root)}"
        case "Documentation":
            return f"Documentation={(place.root / 'docs' / Path(value).name).as_uri()}"
        case "ReadWritePaths":
            return "ReadWritePaths=" + " ".join(map(_quoted, paths))
        case "ExecStart":
            return "ExecStart=" + " ".join(_command(value, place))
    return line


def _command(shipped: str, place: Place) -> Iterator[str]:
    for path in (place.root / ".venv" / "bin" / "python", place.root / "orchestrator.py"):
        yield _argument(path)
    yield from shipped.split()[2:]
    if place.config:
        yield "--config"
        yield _argument(place.config)


def _argument(path: Path) -> str:
    return _quoted(path).replace("$", "$$")


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _quoted(path: Path) -> str:
    """Write a path as one word of a unit.

    >>> _quoted(Path("/srv/wattherd")), _quoted(Path("/srv/our house"))
    ('/srv/wattherd', '"/srv/our house"')
    """
    text = _escaped(path)
    if re.fullmatch(r"[\w./%$@+:-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
