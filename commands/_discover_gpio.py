"""Finds the GPIO chips of this machine, and which of their lines are free for meters with a pulse output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from commands._discovery import Discovery
from commands._probe import install_command

# The lines of the seed, then those of the header that no bus has.
_WISHED: Final = (20, 26, 21, 16, 19, 13, 12, 6, 5, 22, 23, 24, 25, 27, 17, 18, 4)
_TYPES: Final = ("import", "export", "generate")
_LINES_ON_HEADER: Final = 28
_LABELS: Final = frozenset({"pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835"})


@dataclass(frozen=True, slots=True)
class GpioLine:
    """One line as the kernel knows it."""

    number: int
    name: str
    used_by: str  # empty: nobody


@dataclass(frozen=True, slots=True)
class GpioChip:
    """One chip."""

    path: str
    label: str
    lines: tuple[GpioLine, ...]

    @property
    def has_header(self) -> bool:
        return self.label in _LABELS


def look() -> Discovery:
    """Ask every chip what it has; no line is requested."""
    paths = sorted({path.resolve() for path in Path("/dev").glob("gpiochip*")})
    if not paths:
        return Discovery(
            what_now=[
                "run this on the Raspberry Pi that has the meter; in a container pass --device /dev/gpiochip0",
                'a kernel without GPIO character devices: backend = "rpi_gpio", see docs/sources/pulse.md',
            ]
        )
    try:
        import gpiod
    except ImportError:
        return Discovery(problems=[f"the package gpiod is not installed; {install_command('pulse')}"])
    chips, problems = [], []
    for path in paths:
        try:
            chips.append(_asked(gpiod, str(path)))
        except PermissionError:
            problems.append(f"this user may not open {path}; run: sudo usermod -aG gpio $USER, then log in again")
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror or error}); see the kernel's log: dmesg")
    found = described(chips)
    found.problems += problems
    return found


def described(chips: Sequence[GpioChip]) -> Discovery:
    """Put chips into words, and their free lines into a configuration."""
    found = Discovery(what_now=["nothing here has lines that could be used; see: gpioinfo"])
    for chip in chips:
        header = ", the one with the header pins" if chip.has_header else ""
        found.lines.append(f"{chip.path}: {chip.label}, {len(chip.lines)} lines{header}")
        found.lines += [f"  {words}" for words in _words(chip)]
        found.found.append({"path": chip.path, "label": chip.label, "lines": [asdict(line) for line in chip.lines]})
    headers = [chip for chip in chips if chip.has_header] or list(chips[:1])
    found.block = block("pulse", headers[0]) if headers else ""
    return found


def block(name: str, chip: GpioChip) -> str:
    """Return a source with the three meters of the seed, on lines that are free.

    >>> lines = tuple(GpioLine(n, f"GPIO{n}", "w1" if n == 26 else "") for n in range(28))
    >>> print(block("pulse", GpioChip("/dev/gpiochip0", "pinctrl-rp1", lines)).splitlines()[2:7])
    ['chip = "pinctrl-rp1"', '', '[[sources.pulse.devices]]', 'name = "import"', 'type = "import"']
    >>> [one for one in block("p", GpioChip("/dev/gpiochip0", "pinctrl-rp1", lines)).splitlines() if "line =" in one]
    ['line = 20', 'line = 16', 'line = 21']
    """
    free = {line.number for line in chip.lines if not line.used_by}
    wished = [number for number in _WISHED if number in free] if chip.has_header else sorted(free)
    seeds = dict(zip(_TYPES, _WISHED, strict=False))
    taken = {kind: number for kind, number in seeds.items() if number in wished}
    others = iter(number for number in wished if number not in taken.values())
    lines = [f"[sources.{name}]", 'kind = "pulse"', f"chip = {json.dumps(chip.label)}"]
    for kind in _TYPES:
        number = taken[kind] if kind in taken else next(others, None)
        if number is not None:
            lines += ["", f"[[sources.{name}.devices]]", f'name = "{kind}"', f'type = "{kind}"', f"line = {number}"]
            lines += ["imp_per_kwh = 1000.0  # printed on the meter"]
    return "\n".join(lines) + "\n" if len(lines) > 3 else ""


def _words(chip: GpioChip) -> list[str]:
    """Tell who uses which lines, and which are free.

    >>> _words(GpioChip("", "x", tuple(GpioLine(n, "", "w1" if n == 2 else "") for n in range(5))))
    ['line 2: used by w1', 'free: 0-1, 3-4']
    """
    used = [
        f"line {line.number}{f' ({line.name})' if line.name else ''}: used by {line.used_by}"
        for line in chip.lines
        if line.used_by
    ]
    free = [line.number for line in chip.lines if not line.used_by]
    if chip.has_header:
        free = [number for number in free if number < _LINES_ON_HEADER]
    return [*used, f"free{' on the header' if chip.has_header else ''}: {_ranges(free) or 'none'}"]


def _ranges(numbers: Sequence[int]) -> str:
    """Write rising numbers shortly.

    >>> _ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _asked(gpiod: Any, path: str) -> GpioChip:
    with gpiod.Chip(path) as chip:
        about = chip.get_info()
        infos = [chip.get_line_info(number) for number in range(about.num_lines)]
        lines = tuple(
            GpioLine(info.offset, str(info.name or ""), str(info.consumer or "the kernel") if info.used else "")
            for info in infos
        )
        return GpioChip(path, str(about.label), lines)
