"""Whether the house may use what hangs on this machine, and has the real time that it wishes for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from commands._doctor import Finding, Mark
from commands._doctor.machine import ROOT, Node, Who, isolated_cores, node
from config.settings import Settings, SourceTable
from workers.ina219 import Options as Ina219
from workers.mcp3008 import Options as Mcp3008
from workers.pulse import Options as Pulse
from workers.pzem import Options as Pzem

# What gives a bus a device file, by the beginning of its name.
_ENABLE: Final = {
    "/dev/i2c": "run: sudo raspi-config nonint do_i2c 0, then restart the Pi",
    "/dev/spidev": "run: sudo raspi-config nonint do_spi 0, then restart the Pi",
    "/dev/gpiochip": "run this on the Raspberry Pi; in a container pass --device /dev/gpiochip0",
    "/dev/ttyAMA": "run: sudo raspi-config nonint do_serial_hw 0, then restart the Pi",
    "/dev/serial0": "run: sudo raspi-config nonint do_serial_hw 0, then restart the Pi",
    "/dev/": "plug in the adapter; ls /dev/serial/by-id shows it then",
}
_USUAL_GROUP: Final = {"/dev/i2c": "i2c", "/dev/spidev": "spi", "/dev/gpiochip": "gpio", "/dev/": "dialout"}
_MOVES: Final = ("/dev/ttyUSB", "/dev/ttyACM")


def devices_of(settings: Settings, root: Path = ROOT) -> dict[str, list[str]]:
    """Name the device files that each source needs: any of those in a list will do."""
    found = {name: _paths(options, root) for name, options in settings.sources.items() if options.enabled}
    return {name: paths for name, paths in found.items() if paths}


def _paths(options: SourceTable, root: Path) -> list[str]:
    match options:
        case Mcp3008():
            return [f"/dev/spidev{options.bus}.{options.chip_select}"]
        case Ina219():
            return [f"/dev/i2c-{options.bus}"]
        case Pzem():
            return [port for port in options.candidates if port.startswith("/")]
        case Pulse() if options.backend != "rpi_gpio":
            if options.chip.startswith("/"):
                return [options.chip]
            chips = sorted((root / "dev").glob("gpiochip*"))
            return [f"/dev/{chip.name}" for chip in chips] or ["/dev/gpiochip0"]
    return []


def check_devices(settings: Settings, whose: Who, root: Path = ROOT) -> Iterator[Finding]:
    for source, paths in devices_of(settings, root).items():
        nodes = [node(path, whose, root) for path in paths]
        there = [one for one in nodes if one.exists]
        part = f"source {source}"
        if not there:
            yield Finding(part, "device.there", Mark.WRONG, f"there is no {paths[0]}", _by_prefix(_ENABLE, paths[0]))
            continue
        usable = [one for one in there if one.may_use]
        yield _usable(part, usable[0], whose) if usable else _unusable(part, there[0], whose)
        yield from _stays(part, there[0])


def _usable(part: str, one: Node, whose: Who) -> Finding:
    return Finding(part, "device.access", Mark.GOOD, f"{whose.name} may use {one.path}")


def _unusable(part: str, one: Node, whose: Who) -> Finding:
    what = f"{whose.name} may not use {one.path}"
    group = one.group if one.is_group else _by_prefix(_USUAL_GROUP, one.path)
    if group in whose.members and one.is_group:
        again = "restart the house" if whose.is_house else "log out and in again"
        return Finding(part, "device.access", Mark.WRONG, what, f"the group {group} counts from then on: {again}")
    if not one.is_group:
        what_now = f"run: sudo chgrp {group} {one.path} && sudo chmod g+rw {one.path} (deploy/udev keeps it so)"
        return Finding(part, "device.access", Mark.WRONG, what, what_now)
    what_now = f"run: sudo usermod -aG {group} {whose.name}, then log in again (a service: restart it)"
    return Finding(part, "device.access", Mark.WRONG, what, what_now)


def _stays(part: str, one: Node) -> Iterator[Finding]:
    """A name that depends on the order in which adapters were found is another adapter after the next start."""
    if not one.path.startswith(_MOVES):
        return
    what = f"{one.path} may be another adapter after the next start"
    name = f'port = "{one.by_id}"' if one.by_id else "a name from /dev/serial/by-id or by-path, or usb:VID:PID"
    yield Finding(part, "serial.stays", Mark.MIND, what, f"name it by what stays: {name}")


def check_realtime(settings: Settings, whose: Who, root: Path = ROOT) -> Iterator[Finding]:
    isolated = isolated_cores(root)
    for source, options in settings.sources.items():
        if not isinstance(options, Pulse) or not options.enabled:
            continue
        part, priority = f"source {source}", options.priority
        if priority:
            yield _priority(part, priority, whose)
        if options.core in isolated:
            yield Finding(part, "realtime.core", Mark.GOOD, f"core {options.core} is for this source alone")
        elif options.core >= 0:
            what = f"core {options.core} is its own among ours, but other programs may run there"
            what_now = f"isolcpus={options.core} on the kernel's line, if edges are lost: docs/realtime.md"
            yield Finding(part, "realtime.core", Mark.NOTE, what, what_now)


def _priority(part: str, priority: int, whose: Who) -> Finding:
    if whose.uid == 0 or whose.can_nice or (whose.rtprio or 0) >= priority:
        return Finding(part, "realtime.right", Mark.GOOD, f"{whose.name} may have real-time priority {priority}")
    if whose.rtprio is None:
        what = f"nobody told whether {whose.name} may have real-time priority {priority}"
        return Finding(part, "realtime.right", Mark.NOTE, what, "run this as that user, or as root")
    file = "/etc/security/limits.d/wattherd.conf"
    what_now = (
        f"systemd: LimitRTPRIO={priority} and AmbientCapabilities=CAP_SYS_NICE; else run: "
        f"echo '{whose.name} - rtprio {priority}' | sudo tee {file}, then log in again"
    )
    what = f"{whose.name} may not have real-time priority {priority}: edges may be lost on a busy machine"
    return Finding(part, "realtime.right", Mark.MIND, what, what_now)


def _by_prefix(words: dict[str, str], path: str) -> str:
    return next(told for prefix, told in words.items() if path.startswith(prefix))
