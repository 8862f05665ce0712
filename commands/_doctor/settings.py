"""What the configuration says that no error is and somebody should know: secrets, ranges of inputs, remarks."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from commands._doctor import Finding, Mark
from config.env import env_files
from config.settings import Settings
from workers._clamp import ends_at_a
from workers.mcp3008 import Options as Mcp3008


def check_secrets(settings: Settings) -> Iterator[Finding]:
    """Who could read or change what is configured; a `.env` that others may read is refused before anything else."""
    env = next((file for file in env_files(settings.files[0]) if file.is_file()), None)
    if env:
        mode = stat.S_IMODE(env.stat().st_mode)
        yield Finding("configuration", "secrets.mode", Mark.GOOD, f"{env} is for its owner alone (mode {mode:o})")
    elif settings.secrets:
        what = f"{len(settings.secrets)} secrets come from the environment; there is no .env"
        yield Finding("configuration", "secrets.mode", Mark.NOTE, what)
    for file in settings.files:
        if _everybody_writes(file):
            what = f"everybody may change {file}"
            yield Finding("configuration", "configuration.mode", Mark.WRONG, what, f"run: chmod o-w {file}")
    for remark in settings.remarks:
        yield Finding("configuration", "configuration.remark", Mark.MIND, remark)
    if not settings.sources:
        now = "look for some: ./orchestrator.py discover"
        yield Finding("configuration", "configuration.sources", Mark.MIND, "no source is configured", now)
    if not settings.outputs:
        now = "[outputs.csv] is the simplest"
        yield Finding("configuration", "configuration.outputs", Mark.MIND, "no output is configured", now)


def _everybody_writes(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def check_ranges(settings: Settings) -> Iterator[Finding]:
    """Tell where the input of each clamp ends. Thresholds beyond that are refused as mistakes already."""
    for name, options in settings.sources.items():
        if not isinstance(options, Mcp3008) or not options.enabled:
            continue
        for device in options.devices:
            end_a = ends_at_a(device, options.volts_per_code)
            end_va = device.phases * end_a * device.line_voltage_v
            what = f"{device.name} can show {end_a:.3g} A ({end_va:.3g} VA) at most"
            if device.mode == "dc_average" and end_a < device.ct_range_amps / 10:
                now = "more is cut off: mend amplifier_gain, or take the clamp that fits; docs/calibration.md"
                what += f", of the {device.ct_range_amps:g} A of its clamp"
                yield Finding(f"source {name}", "clamp.range", Mark.MIND, what, now)
            else:
                yield Finding(f"source {name}", "clamp.range", Mark.GOOD, what)
