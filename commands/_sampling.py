"""Takes samples of one device for its calibration, at its own pace and with progress."""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import click

from commands._calibration import Calibration, Meter, Refusal
from commands._probe import Probe, Unreachable
from config.settings import PolledTable, SourceTable

# A PZEM renews its numbers once a second; the others measure whenever they are asked.
_PACE_S: Final = {"pzem": 1.0, "ina219": 0.1}
_PATIENCE_S: Final = 4.0  # without any current
_RETRY_S: Final = 0.2
_SETTLES: Final = 2  # samples that are left out after the load has changed


class Sampler:
    """One device of a source that is open."""

    def __init__(self, probe: Probe, options: SourceTable, device: str, count: int) -> None:
        interval_s = options.interval_s if isinstance(options, PolledTable) else 0.0
        self._probe = probe
        self._pace_s = min(interval_s, _PACE_S.get(options.kind, 0.0))
        self._device = device
        self._count = count
        self._told: set[str] = set()

    def currents(self, words: str) -> list[float]:
        return [one["current_a"] for one in self.rounds(words)]

    def rounds(self, words: str) -> list[dict[str, float]]:
        """Return so many samples; the first is left out, because it may have begun before. Raise `Unreachable`."""
        samples: list[dict[str, float]] = []
        self._next()
        terminal = sys.stderr.isatty()
        if not terminal:
            click.echo(f"Measuring {words}.", err=True)
        with click.progressbar(
            length=self._count, label=f"Measuring {words}", file=sys.stderr, hidden=not terminal
        ) as bar:
            while len(samples) < self._count:
                time.sleep(self._pace_s)
                samples.append(self._next())
                bar.update(1)
        return samples

    def wait_for_load(self, calibration: Calibration, meter: Meter, wait_s: float) -> None:
        """Wait until more flows than a twentieth of the full scale. Raise `Refusal` when nothing does."""
        click.echo(f"Switch the known load on now; waiting for it {wait_s:g} s at most.")
        sys.stdout.flush()
        ends_s = time.monotonic() + wait_s
        while abs(calibration.shown_a(self._next()["current_a"], meter)) < 0.05 * meter.full_scale_a:
            if time.monotonic() > ends_s:
                raise Refusal(
                    f"no load of 5 % of the full scale ({meter.full_scale_a:.4g} A) came in {wait_s:g} s",
                    "switch it on when asked to, or take a larger one",
                )
            time.sleep(max(self._pace_s, _RETRY_S))
        for _ in range(_SETTLES):
            time.sleep(self._pace_s)
            self._next()

    def _next(self) -> dict[str, float]:
        """Return the numbers of one reading that has a current."""
        ends_s = time.monotonic() + _PATIENCE_S
        while True:
            numbers = self._read()
            if "current_a" in numbers:
                return numbers
            if time.monotonic() > ends_s:
                trouble = self._probe.troubles.get(self._device, "")
                what, _, what_now = trouble.partition("; ")
                raise Unreachable(
                    f"{self._device} tells no current ({what or 'no reason is known'})",
                    what_now or "see what it says: ./orchestrator.py test",
                )
            time.sleep(_RETRY_S)

    def _read(self) -> dict[str, float]:
        numbers: dict[str, Any] = {}
        for reading in self._probe.read():
            if reading.device == self._device:
                numbers = {metric: value for metric, value in reading.values.items() if not isinstance(value, str)}
        trouble = self._probe.troubles.get(self._device, "")
        if trouble and trouble not in self._told and "current_a" in numbers:
            self._told.add(trouble)
            click.echo(f"! {trouble}", err=True)
        return numbers
