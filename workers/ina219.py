"""Shunts for direct current on I2C: INA219, INA226, INA260 and INA3221, at most 26 V (36 V: INA226 and INA260).

    [sources.rails]
    kind = "ina219"
    enabled = true
    interval_s = 1.0
    bus = 1                   # /dev/i2c-<bus>

    [[sources.rails.devices]]
    name = "fridge-12v"
    address = 0x40            # 0x40 to 0x4F
    model = "auto"            # or "ina219", "ina226", "ina260", "ina3221": then nothing else is accepted
    channel = 1               # of an INA3221: 1, 2 or 3, each a device of its own
    shunt_ohm = 0.1           # R100 on the board; an INA260 has its own
    max_current_a = 3.2       # the range is the narrowest that has it
    averaging = 16            # 1, 2, 4 … 128 measurements for each reading
    current_gain = 1.0        # the last three are for calibration, see workers/_calibration.py
    current_offset_a = 0.0
    noise_floor_a = 0.0

Each device tells voltage_v (of the load, against ground), current_a and power_w; below zero the current flows back.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from config.settings import PolledTable, Positive
from reading import Reading
from workers import Source, SourceError
from workers._ina import MODELS, ends_at_a
from workers._ina_chip import ABSENT, Chip, Device, Told, Wrong


class Options(PolledTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "ina219"`."""

    interval_s: Positive = 1.0
    bus: Annotated[int, Meta(ge=0, le=255)] = 1
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.devices:
            raise ValueError(
                "no device is configured: add a [[sources.<name>.devices]] table with a name and an address"
            )
        names: set[str] = set()
        inputs: dict[tuple[int, int], Device] = {}
        for device in self.devices:
            if device.name in names:
                raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
            names.add(device.name)
            _check(device)
            other = inputs.setdefault((device.address, device.channel), device)
            if other is not device:
                raise ValueError(
                    f"{other.name} and {device.name} have the address 0x{device.address:02X}: two units at one address"
                    " cannot be told apart; bridge A0 or A1 on one of them, then correct its address"
                )
        for device in self.devices:
            if others := {one.model for one in self.devices if one.address == device.address} - {device.model}:
                raise ValueError(
                    f'{device.name}: the chip at 0x{device.address:02X} is "{device.model}" here, "{min(others)}" there'
                )


class Ina219(Source):
    """Starts the measurement of every chip, then collects them; a chip that fails does not stop the others."""

    Options = Options

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self._bus: Any = None
        self._path = f"/dev/i2c-{options.bus}"
        self._chips: list[Chip] = []

    def open(self) -> None:
        try:
            from smbus2 import SMBus
        except ImportError as error:
            raise SourceError("the package smbus2 is not installed", "run: make install") from error
        try:
            self._bus = SMBus(self.options.bus)
        except OSError as error:
            raise self._cannot_open(error) from error
        by_address: dict[int, list[Device]] = {}
        for device in self.options.devices:
            by_address.setdefault(device.address, []).append(device)
        self._chips = [Chip(address, devices) for address, devices in by_address.items()]

    def read(self) -> list[Reading]:
        troubles: dict[str, str] = {}
        readings = []
        for told in self._round():
            if told.values:
                readings.append(Reading(told.device.name, time.monotonic_ns(), told.values))
            if told.trouble:
                troubles[told.device.name] = told.trouble
            if told.refused:
                self.refused[told.refused] += 1
        for chip in self._chips:
            if chip.trouble:
                troubles |= {device.name: chip.trouble for device in chip.devices}
        self.troubles = troubles
        return readings

    def close(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def _round(self) -> Iterator[Told]:
        """Yield what every chip shows that answers. Raise `SourceError` when the bus itself is at fault."""
        now_s = time.monotonic()
        started, answered = [], False
        fault: OSError | None = None
        for chip in self._chips:
            if chip.is_due(now_s):
                try:
                    chip.start(self._bus)
                    started.append(chip)
                except (OSError, Wrong) as error:
                    fault = self._put_off(chip, error) or fault
        for chip in started:
            try:
                told = chip.finish(self._bus)
            except (OSError, Wrong) as error:
                fault = self._put_off(chip, error) or fault
            else:
                answered = True
                yield from told
        if fault and not answered:
            raise self._is_stuck(fault) from fault

    def _put_off(self, chip: Chip, error: OSError | Wrong) -> OSError | None:
        """Leave a chip alone; return the error if it may be the bus's."""
        if isinstance(error, Wrong):
            self.refused[error.reason] += len(chip.devices)
            chip.put_off(str(error), time.monotonic())
            return None
        if error.errno == errno.ETIMEDOUT:  # each further chip would cost such a time too
            raise self._is_stuck(error) from error
        chip.put_off(self._silence(chip, error), time.monotonic())
        return error if error.errno == errno.EIO else None

    def _silence(self, chip: Chip, error: OSError) -> str:
        address = f"0x{chip.address:02X}"
        if error.errno in ABSENT:
            return f"nothing answers at {address}; check supply, SDA and SCL, and: i2cdetect -y {self.options.bus}"
        if error.errno == errno.EBUSY:
            return f"a driver of the kernel holds {address}; take its dtoverlay out, or run: sudo rmmod ina2xx"
        return f"{address} fails ({error.strerror or error}); check the wires, and shorten them"

    def _is_stuck(self, error: OSError) -> SourceError:
        return SourceError(
            f"the bus {self._path} is stuck ({error.strerror or error})",
            "look for a unit without supply or a short of SDA or SCL; it is opened again by itself",
        )

    def _cannot_open(self, error: OSError) -> SourceError:
        table = f"[sources.{self.name}]"
        match error.errno:
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                there = ", ".join(sorted(str(path) for path in Path("/dev").glob("i2c-*")))
                enable = "enable I2C: sudo raspi-config nonint do_i2c 0, then restart the Pi"
                return SourceError(
                    f"there is no {self._path}", f"correct bus of {table}; there are: {there}" if there else enable
                )
            case errno.EACCES | errno.EPERM:
                what_now = "add it to the group i2c: sudo usermod -aG i2c $USER, then log in anew"
                return SourceError(f"this user may not use {self._path}", what_now)
            case _:
                what = f"{self._path} cannot be opened ({error.strerror or error})"
                return SourceError(what, "see the kernel's log: dmesg")


def _check(device: Device) -> None:
    """Raise ValueError for options of a device that do not go together."""
    models = MODELS.values() if device.model == "auto" else [MODELS[device.model]]
    if device.channel != 1 and device.model not in ("auto", "ina3221"):
        raise ValueError(f"{device.name}: channel = {device.channel} is only for an INA3221")
    if device.model == "ina3221" and device.address > 0x43:
        raise ValueError(f"{device.name}: an INA3221 has an address of 0x40 to 0x43, not 0x{device.address:02X}")
    best = max(models, key=lambda model: ends_at_a(model, device.shunt_ohm))
    end_a = ends_at_a(best, device.shunt_ohm)
    if device.max_current_a > end_a * 1.0001:
        raise ValueError(
            f"{device.name}: max_current_a = {device.max_current_a:g} can never be reached: an {best.name.upper()} with"
            f" shunt_ohm = {device.shunt_ohm:g} ends at {end_a:.3g} A"
        )
