"""The facts of this machine, as the kernel tells them under /proc, /sys and /etc; a test shows it a tree of its own."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.intervals import is_on_a_card

ROOT: Final = Path("/")
CAP_SYS_NICE: Final = 23  # linux/capability.h
_NETWORK_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"})
_THROTTLED: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"


@dataclass(frozen=True, slots=True)
class Who:
    """Whose rights count: those of the house if one runs, else those of whoever asks."""

    name: str
    uid: int
    gids: frozenset[int]
    members: frozenset[str]  # the groups that the user is in by /etc/group, from the next log-in on
    can_nice: bool  # CAP_SYS_NICE
    rtprio: int | None  # the limit, None if nobody may know
    is_house: bool


@dataclass(frozen=True, slots=True)
class Node:
    """A device file."""

    path: str
    exists: bool
    group: str = ""
    is_group: bool = False  # it is the group by which a user gets it
    may_use: bool = False
    by_id: str = ""  # its name that stays, where it has one


@dataclass(frozen=True, slots=True)
class Disk:
    """Where the data lies."""

    path: Path
    free_bytes: int
    total_bytes: int
    is_read_only: bool
    file_system: str
    is_card: bool
    written_bytes: int | None  # by everybody since the machine started, None if the kernel does not tell
    up_s: float

    @property
    def is_network(self) -> bool:
        return self.file_system in _NETWORK_FILE_SYSTEMS

    @property
    def is_memory(self) -> bool:
        return self.file_system in ("tmpfs", "ramfs")


def who(pid: int | None, root: Path = ROOT) -> Who:
    """Return whose rights count: those of the process `pid`, else our own."""
    status = _fields(root / f"proc/{pid or 'self'}/status")
    uid = int(status.get("Uid", str(os.getuid())).split()[0])
    gids = {int(number) for number in (status.get("Gid", "").split()[:1] + status.get("Groups", "").split())}
    can_nice = bool(int(status.get("CapEff", "0"), 16) >> CAP_SYS_NICE & 1)
    name = next((line[0] for line in _passwd(root) if line[2] == str(uid)), str(uid))
    groups = {line[0] for line in _groups(root) if name in line[3].split(",") or int(line[2]) in gids}
    return Who(name, uid, frozenset(gids), frozenset(groups), can_nice, _rtprio(pid, root), pid is not None)


def node(path: str, whose: Who, root: Path = ROOT) -> Node:
    """Look at a device file without opening it: to open some resets what hangs on them."""
    file = root / path.lstrip("/")
    try:
        status = file.stat()
    except OSError:
        return Node(path, exists=False)
    group = next((line[0] for line in _groups(root) if line[2] == str(status.st_gid)), str(status.st_gid))
    bits = 6 if whose.uid == 0 else status.st_mode & 7
    if status.st_gid in whose.gids:
        bits |= status.st_mode >> 3 & 7
    if status.st_uid == whose.uid:
        bits |= status.st_mode >> 6 & 7
    is_group = status.st_mode >> 3 & 6 == 6 and group != "root"
    return Node(path, True, group, is_group, bits & 6 == 6, _by_id(file, root))


def disk(path: Path, root: Path = ROOT) -> Disk:
    """Look at the file system that a directory is or will be in."""
    there = next(place for place in [path, *path.absolute().parents] if place.exists())
    numbers = os.statvfs(there)
    device = there.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    written = None
    with suppress(OSError, IndexError, ValueError):
        # The seventh number of Documentation/block/stat.rst: sectors of 512 bytes.
        written = int((root / f"sys/dev/block/{name}/stat").read_text().split()[6]) * 512
    return Disk(
        there,
        numbers.f_bavail * numbers.f_frsize,
        numbers.f_blocks * numbers.f_frsize,
        bool(numbers.f_flag & os.ST_RDONLY),
        _file_system(name, root),
        is_on_a_card(there),
        written,
        up_s(root),
    )


def up_s(root: Path = ROOT) -> float:
    """Return how long this machine runs."""
    with suppress(OSError, ValueError, IndexError):
        return float((root / "proc/uptime").read_text().split()[0])
    return 0.0


def model(root: Path = ROOT) -> str:
    """Name the board: "Raspberry Pi 4 Model B Rev 1.4"; nothing if it does not say."""
    with suppress(OSError):
        return (root / "proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    return ""


def throttled(root: Path = ROOT) -> int | None:
    """Return what the firmware of a Pi says of its supply and heat, None if there is no firmware that says it."""
    with suppress(OSError, ValueError):
        return int((root / _THROTTLED).read_text().strip(), 16)
    if root == ROOT and Path("/usr/bin/vcgencmd").exists():
        with suppress(OSError, subprocess.SubprocessError):
            told = subprocess.run(
                ["/usr/bin/vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False
            ).stdout
            if found := re.search(r"throttled=0x([0-9a-fA-F]+)", told):
                return int(found[1], 16)
    return None


def under_voltage_alarm(root: Path = ROOT) -> bool | None:
    """Return what the kernel's own sensor of the supply says (rpi_volt), None if there is none."""
    for name in sorted((root / "sys/class/hwmon").glob("*/name")):
        with suppress(OSError, ValueError):
            if name.read_text().strip() == "rpi_volt":
                return bool(int(name.with_name("in0_lcrit_alarm").read_text()))
    return None


def temperature_c(root: Path = ROOT) -> float | None:
    """Return how hot the processor is."""
    with suppress(OSError, ValueError):
        return int((root / "sys/class/thermal/thermal_zone0/temp").read_text()) / 1000
    return None


def real_time_clock(root: Path = ROOT) -> str:
    """Name the clock that goes on without power; nothing if there is none."""
    with suppress(OSError):
        return (root / "sys/class/rtc/rtc0/name").read_text().split()[0]
    return ""


def isolated_cores(root: Path = ROOT) -> frozenset[int]:
    """Return the cores that the kernel gives to nobody by itself (isolcpus)."""
    with suppress(OSError, ValueError):
        return frozenset(_range((root / "sys/devices/system/cpu/isolated").read_text().strip()))
    return frozenset()


def _range(text: str) -> Iterator[int]:
    """Read a list of cores.

    >>> [*_range("2-3,5")]
    [2, 3, 5]
    """
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _rtprio(pid: int | None, root: Path) -> int | None:
    if pid is None and root == ROOT:
        return resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    with suppress(OSError):
        for line in (root / f"proc/{pid or 'self'}/limits").read_text().splitlines():
            if line.startswith("Max realtime priority"):
                soft = line.removeprefix("Max realtime priority").split()[0]
                return 99 if soft == "unlimited" else int(soft)
    return None


def _by_id(file: Path, root: Path) -> str:
    for link in sorted((root / "dev/serial/by-id").glob("*")):
        if link.resolve() == file.resolve() and link != file:
            return f"/{link.relative_to(root)}"
    return ""


def _file_system(name: str, root: Path) -> str:
    """Return the type of what is mounted from a device (proc_pid_mountinfo(5))."""
    with suppress(OSError):
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == name:
                return after.split()[0]
    return ""


def _fields(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _passwd(root: Path) -> Iterator[list[str]]:
    return _colons(root / "etc/passwd", 7)


def _groups(root: Path) -> Iterator[list[str]]:
    return _colons(root / "etc/group", 4)


def _colons(file: Path, count: int) -> Iterator[list[str]]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        if len(parts := line.split(":")) == count:
            yield parts
