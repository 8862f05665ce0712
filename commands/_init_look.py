"""Looks round for `init`: what this machine and its network have, and which drivers it takes to look."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from commands import _discover_gpio, _discover_i2c, _discover_kasa, _discover_modbus, _discover_tuya
from commands._configuration import ROOT
from commands._discovery import Discovery

# What to look with: the kind whose packages it takes, and the module that shows whether they are there.
_DRIVERS: Final = {"modbus": "pzem", "i2c": "ina219", "gpio": "pulse", "kasa": "kasa", "tuya": "tuya"}
_MODULES: Final = {"pzem": "minimalmodbus", "ina219": "smbus2", "pulse": "gpiod", "kasa": "kasa", "tuya": "tinytuya"}
_EVERYBODY: Final = "255.255.255.255"
_KASA_S: Final = 3.0
_CONNECT_S: Final = 0.5
_INSTALL_S: Final = 1800.0  # a Pi Zero that compiles
WHAT: Final = {
    "modbus": "PZEM meters on serial ports",
    "i2c": "current sensors on I2C",
    "gpio": "GPIO chips",
    "kasa": "Kasa and Tapo plugs in the network",
    "tuya": "Tuya devices in the network",
}


def looks(dev: Path, *, network: bool) -> dict[str, Callable[[], Discovery]]:
    """Return how to look for each kind of thing that this machine could have: those whose bus is there."""
    ports, buses = _discover_modbus.candidates_in(dev), _discover_i2c.buses_in(dev)
    found: dict[str, Callable[[], Discovery]] = {}
    if ports:
        found["modbus"] = lambda: _discover_modbus.look(ports, range(1, 17), 0.3)
    if buses:
        found["i2c"] = lambda: _discover_i2c.look(buses)
    if any(dev.glob("gpiochip*")):
        found["gpio"] = _discover_gpio.look
    if network:
        found["kasa"] = lambda: _discover_kasa.look(_EVERYBODY, _KASA_S)
        found["tuya"] = _discover_tuya.look
    return found


def missing_drivers(kinds: Iterable[str]) -> list[str]:
    """Name the kinds whose packages it takes to look, and that are not installed."""
    return [kind for each in kinds if (kind := _DRIVERS.get(each)) and importlib.util.find_spec(_MODULES[kind]) is None]


def install(kinds: list[str]) -> str:
    """Install the locked packages of some kinds as `make install` does; return what went wrong, or nothing."""
    if shutil.which("make") is None:
        return "make is not installed; run: sudo apt install make"
    targets = [f".venv/.driver-{kind}" for kind in kinds]
    try:
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", str(ROOT), *targets],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "it took too long; is the network slow?"
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    importlib.invalidate_caches()
    return "" if done.returncode == 0 else "".join(last) or f"make ended with {done.returncode}"


def spi_places(dev: Path) -> list[tuple[int, int]]:
    """Return bus and chip select of every SPI device that a program may use."""
    return sorted(_numbers(path.name) for path in dev.glob("spidev[0-9]*.[0-9]*"))


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """Read where something listens; `port` is the usual one.

    >>> host_and_port("nas", 1883), host_and_port("nas:1884", 1883), host_and_port("fe80::1", 1883)
    (('nas', 1883), ('nas', 1884), ('fe80::1', 1883))
    """
    host, colon, number = text.rpartition(":")
    return (host, int(number)) if colon and ":" not in host and number.isdecimal() else (text, port)


def local_timezone(root: Path = Path("/")) -> str:
    """Return the time zone of this machine, Europe/London if it has none that is known."""
    for name in _timezones(root):
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            continue
        if "/" in name:
            return name
    return "Europe/London"


def _timezones(root: Path) -> Iterator[str]:
    link = root / "etc/localtime"
    if link.is_symlink():
        yield str(link.readlink()).rpartition("zoneinfo/")[2]
    try:
        yield (root / "etc/timezone").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return


def _numbers(name: str) -> tuple[int, int]:
    """Read the numbers of an SPI device.

    >>> _numbers("spidev0.1")
    (0, 1)
    """
    bus, _, chip_select = name.removeprefix("spidev").partition(".")
    return int(bus), int(chip_select)
