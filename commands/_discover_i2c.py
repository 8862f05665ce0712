"""Finds current sensors of the INA family on the I2C buses of this machine, by reading alone."""

from __future__ import annotations

import errno
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from commands._discovery import Discovery, numbered
from commands._probe import install_command
from workers._ina import (
    BUS,
    CALIBRATION,
    CONFIG,
    DIE_ID,
    MANUFACTURER_ID,
    MODELS,
    TEXAS_INSTRUMENTS,
    Model,
    ends_at_a,
    swapped,
)
from workers._ina_chip import ABSENT, WordBus

ADDRESSES: Final = range(0x40, 0x50)
_SHUNT_OHM: Final = 0.1


@dataclass(frozen=True, slots=True)
class Chip:
    """Who answers at an address."""

    address: int
    model: Model | None
    words: str


class Stuck(Exception):  # noqa: N818 - a state of the bus
    """The bus itself is at fault."""


def look(buses: Sequence[int]) -> Discovery:
    """Read the registers that tell what a chip is, at every address that one of the family can have."""
    found = Discovery(
        what_now=[
            "enable I2C: sudo raspi-config nonint do_i2c 0, then restart the Pi: ls /dev/i2c-1 shows it then",
            "this user must be in the group i2c: sudo usermod -aG i2c $USER, then log in again",
        ]
    )
    try:
        from smbus2 import SMBus
    except ImportError:
        found.problems.append(f"the package smbus2 is not installed; {install_command('ina219')}")
        found.what_now = []
        return found
    blocks: list[str] = []
    for number in buses or buses_in(Path("/dev")):
        try:
            with SMBus(number) as bus:
                chips = probe(bus)
        except PermissionError:
            found.problems.append(
                f"this user may not use /dev/i2c-{number}; run: sudo usermod -aG i2c $USER, then log in again"
            )
            continue
        except FileNotFoundError:
            found.problems.append(f"there is no /dev/i2c-{number}; enable I2C: sudo raspi-config nonint do_i2c 0")
            continue
        except (OSError, Stuck) as error:
            found.problems.append(
                f"/dev/i2c-{number} is stuck ({error}); look for a unit without supply, or a short of SDA or SCL"
            )
            continue
        good = [chip for chip in chips if chip.model]
        found.lines.append(f"/dev/i2c-{number}: {len(good) or 'no'} current sensor{'' if len(good) == 1 else 's'}")
        found.lines += [f"  0x{chip.address:02X}: {chip.words}" for chip in chips]
        if good:
            named = [{"address": chip.address, "model": chip.model.name} for chip in good if chip.model]
            found.found.append({"bus": number, "chips": named})
            blocks.append(_block(numbered("rails", len(blocks)), number, good))
    if found.lines and not found.found:
        found.what_now = [
            "check the supply (3.3 V), the ground, and that SDA and SCL are not swapped",
            "see who answers at all: i2cdetect -y 1",
        ]
    found.block = "\n".join(blocks)
    return found


def probe(bus: WordBus) -> list[Chip]:
    """Return who answers. Raise `Stuck` where that is the fault of the bus."""
    chips = []
    for address in ADDRESSES:
        try:
            chip = _identified(bus, address)
        except OSError as error:
            if error.errno in ABSENT:
                continue
            if error.errno == errno.EBUSY:
                words = "a driver of the kernel holds it; take its dtoverlay out, or run: sudo rmmod ina2xx"
                chips.append(Chip(address, None, words))
                continue
            if error.errno == errno.ETIMEDOUT:
                raise Stuck(error.strerror) from error
            chips.append(Chip(address, None, f"it fails ({error.strerror or error}); check its wires"))
        else:
            chips.append(chip)
    return chips


def _identified(bus: WordBus, address: int) -> Chip:
    """Name a chip by its ids. An INA219 has none: it is known by the bits of its registers that are always 0."""
    config = _word(bus, address, CONFIG)
    try:
        maker, die = _word(bus, address, MANUFACTURER_ID), _word(bus, address, DIE_ID)
    except OSError as error:
        if error.errno not in ABSENT:  # it answered a moment ago, so it has no such register
            raise
        maker = die = 0
    if maker == TEXAS_INSTRUMENTS:
        model = next((one for one in MODELS.values() if one.die_id == die & 0xFFF0), None)
        if model is None:
            return Chip(address, None, f"a chip of Texas Instruments that is no current sensor (id 0x{die:04X})")
        return Chip(address, model, model.name.upper())
    ina219 = MODELS["ina219"]
    if config == ina219.reset_config:
        return Chip(address, ina219, "INA219")
    zeros = config & 0xC000, _word(bus, address, BUS) & 0x0004, _word(bus, address, CALIBRATION) & 0x0001
    if any(zeros) or not config:
        return Chip(address, None, f"something else (its register 0 is 0x{config:04X}): a PCA9685 is at 0x40 too")
    return Chip(address, ina219, "INA219, as it seems: it has no number of its own, and was set up by somebody already")


def _word(bus: WordBus, address: int, register: int) -> int:
    return swapped(bus.read_word_data(address, register))


def buses_in(folder: Path) -> list[int]:
    found = [re.fullmatch(r"i2c-(\d+)", path.name) for path in folder.glob("i2c-*")]
    return sorted(int(match[1]) for match in found if match)


def _block(name: str, bus: int, chips: Sequence[Chip]) -> str:
    lines = [f"[sources.{name}]", 'kind = "ina219"', f"bus = {bus}"]
    for chip in chips:
        if not chip.model:
            continue
        channels = (1, 2, 3) if chip.model.name == "ina3221" else (0,)
        for channel in channels:
            most_a = math.floor(ends_at_a(chip.model, _SHUNT_OHM) * 1000) / 1000
            lines += [
                "",
                f"[[sources.{name}.devices]]",
                f'name = "{chip.model.name}-{chip.address:x}' + (f'-{channel}"' if channel else '"'),
                f"address = 0x{chip.address:02X}",
                f'model = "{chip.model.name}"',
            ]
            lines += [f"channel = {channel}"] if channel else []
            if not chip.model.own_shunt_ohm:
                lines.append(f"shunt_ohm = {_SHUNT_OHM}  # what is printed on the board: R100 is 0.1, R010 is 0.01")
            lines.append(f"max_current_a = {most_a:g}")
    return "\n".join(lines) + "\n"
