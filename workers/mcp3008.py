"""Current clamps on the eight inputs of an MCP3008, over SPI.

    [sources.clamps]
    kind = "mcp3008"
    enabled = true
    interval_s = 10.0
    bus = 0                        # /dev/spidev<bus>.<chip_select>
    chip_select = 0
    speed_hz = 1000000             # at most 1350000 with a supply of 3.3 V
    vref_v = 3.3                   # the voltage at the pin VREF
    adc_full_scale = 1023          # or 1024, as the datasheet has it: 0.1 % less
    mains_hz = 50                  # or 60

    [[sources.clamps.devices]]
    name = "machine-A"
    channel = 0                    # 0 to 7
    differential = false           # measure against the other input of the pair 0/1, 2/3, 4/5 or 6/7
    mode = "dc_average"            # the clamp board rectifies; or "true_rms": it gives the wave itself
    amplifier_gain = 100.0         # dc_average: of the board
    ct_range_amps = 50.0           # dc_average: where the clamp gives 1 V
    sample_rate_hz = 50.0          # dc_average
    averaging_window = 20          # dc_average: samples
    ical_a_per_v = 60.6            # true_rms: amperes for one volt at the input, 2000 ÷ 33 Ω here
    voltage_channel = "none"       # true_rms: 0 to 7, where a transformer shows the mains
    vcal = 230.0                   # volts of the mains for one volt at voltage_channel
    phase_shift_deg = 0.0          # by how much that transformer is ahead of the clamp
    phases = 3                     # of a balanced load, of which one is measured
    line_voltage_v = 230.0         # assumed where there is no voltage_channel
    assumed_power_factor = 1.0     # the same; 0.0: then no power_w is told, only apparent_power_va
    idle_threshold_a = 0.5         # below: state "idle", above: "running"
    fault_threshold_a = "none"     # above: state "fault"
    current_gain = 1.0             # the last three are for calibration, see workers/_calibration.py
    current_offset_a = 0.0
    noise_floor_a = 0.0

Each device tells current_a, apparent_power_va, power_w and state; with a voltage channel power_w is measured, and
voltage_v and power_factor are told too. Without one power_w is apparent_power_va × assumed_power_factor: an estimate,
and with 1.0 an upper limit.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from config.settings import PolledTable
from reading import Reading
from workers import Source, SourceError
from workers._clamp import Device, Told, check, from_average, from_wave
from workers._mcp3008 import Converter, Reply, Series, Unusable, command, decode_all


class Options(PolledTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "mcp3008"`."""

    bus: Annotated[int, Meta(ge=0, le=255)] = 0
    chip_select: Annotated[int, Meta(ge=0, le=255)] = 0
    speed_hz: Annotated[int, Meta(ge=10_000)] = 1_000_000  # slower, and the sampling capacitor runs dry
    vref_v: Annotated[float, Meta(ge=0.25, le=5.5)] = 3.3
    adc_full_scale: Literal[1023, 1024] = 1023
    mains_hz: Literal[50, 60] = 50
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError(
                "no device is configured: add a [[sources.<name>.devices]] table with a name and a channel"
            )
        most_hz = 3_600_000 if self.vref_v >= 4.5 else 1_350_000  # DS21295D: with a supply of 5 V and of 2.7 V
        if self.speed_hz > most_hz:
            raise ValueError(
                f"speed_hz = {self.speed_hz} is more than an MCP3008 keeps up with, {most_hz} at {self.vref_v:g} V:"
                " its codes would be wrong without a sign of it"
            )
        names: set[str] = set()
        inputs: dict[tuple[int, bool], str] = {}
        for device in self.devices:
            if device.name in names:
                raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
            names.add(device.name)
            other = inputs.setdefault((device.channel, device.differential), device.name)
            if other != device.name:
                raise ValueError(f"{other} and {device.name} are the same input: its current would be counted twice")
            check(device, self.volts_per_code)

    @property
    def volts_per_code(self) -> float:
        return self.vref_v / self.adc_full_scale


class Mcp3008(Source):
    """Samples the rectified inputs side by side, then each wave in a burst of its own."""

    Options = Options

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._spi: Any = None
        self._path = f"/dev/spidev{options.bus}.{options.chip_select}"

    def open(self) -> None:
        try:
            import spidev  # type: ignore[import-not-found]  # it comes without types
        except ImportError as error:
            raise SourceError("the package spidev is not installed", "run: make install") from error
        self._spi = spidev.SpiDev()
        try:
            self._spi.open(self.options.bus, self.options.chip_select)
            self._spi.mode = 0
            self._spi.max_speed_hz = self.options.speed_hz
        except OSError as error:
            raise self._cannot_open(error) from error
        self._converter = Converter(self._spi.xfer2, self.options.mains_hz)

    def read(self) -> list[Reading]:
        troubles: dict[str, str] = {}
        readings = []
        try:
            for device, at_ns, told in self._round():
                if told.values:
                    readings.append(Reading(device.name, at_ns, told.values))
                if told.trouble:
                    troubles[device.name] = told.trouble
                if told.refused:
                    self.refused[told.refused] += 1
        except OSError as error:
            what = f"{self._path} failed ({error.strerror or error})"
            raise SourceError(what, "check the wires; it is opened again by itself") from error
        self.troubles = troubles
        return readings

    def close(self) -> None:
        spi, self._spi = self._spi, None
        if spi is not None:
            spi.close()

    def _round(self) -> Iterator[tuple[Device, int, Told]]:
        """Yield what every device shows, and the middle of the time in which it was sampled."""
        averaged = [device for device in self.options.devices if device.mode == "dc_average"]
        begin_ns = time.monotonic_ns()
        series = [Series(_command(device), device.averaging_window, device.sample_rate_hz) for device in averaged]
        answers = self._converter.side_by_side(series)
        at_ns = (begin_ns + time.monotonic_ns()) // 2
        for device, replies in zip(averaged, answers, strict=True):
            yield device, at_ns, self._averaged(device, replies)
        for device in self.options.devices:
            if device.mode == "true_rms":
                begin_ns = time.monotonic_ns()
                told = self._waved(device)
                yield device, (begin_ns + time.monotonic_ns()) // 2, told

    def _averaged(self, device: Device, replies: Sequence[Reply]) -> Told:
        try:
            codes = decode_all(replies)
            told = from_average(device, codes, self.options.volts_per_code)
            if not any(codes) and self._converter.is_all_zeros():
                # A machine that stands still looks the same, so 0 A is told, but not without a word.
                words = "all eight inputs are at exactly 0 V: nothing seems connected; check the supply, VREF and MISO"
                return told._replace(trouble=words)
        except Unusable as unusable:
            return Told({}, str(unusable), unusable.reason)
        return told

    def _waved(self, device: Device) -> Told:
        commands = [_command(device)]
        if device.voltage_channel != "none":
            commands.append(command(device.voltage_channel))
        try:
            current, *voltages = self._converter.burst(commands)
            voltage = voltages[0] if voltages else None
            return from_wave(device, current, voltage, self._converter.period_ns, self.options.volts_per_code)
        except Unusable as unusable:
            return Told({}, str(unusable), unusable.reason)

    def _cannot_open(self, error: OSError) -> SourceError:
        table = f"[sources.{self.name}]"
        match error.errno:
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                there = ", ".join(sorted(str(path) for path in Path("/dev").glob("spidev*")))
                what = f"there is no {self._path}"
                what_now = (
                    f"correct bus and chip_select of {table}; there are: {there}"
                    if there
                    else "enable SPI: sudo raspi-config nonint do_spi 0, then restart the Pi"
                )
            case errno.EACCES | errno.EPERM:
                what = f"this user may not use {self._path}"
                what_now = "add it to the group spi: sudo usermod -aG spi $USER, then log in anew"
            case errno.EINVAL:
                what = f"{self._path} refuses mode 0 or {self.options.speed_hz} Hz"
                what_now = f"lower speed_hz of {table}"
            case _:
                what, what_now = (
                    f"{self._path} cannot be opened ({error.strerror or error})",
                    "see the kernel's log: dmesg",
                )
        return SourceError(what, what_now)


def _command(device: Device) -> bytes:
    return command(device.channel, differential=device.differential)
