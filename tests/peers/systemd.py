"""A real systemd as process 1 of a place of its own: it starts services and touches nothing of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.peers.namespace import Namespace, running_namespace
from tests.peers.process import require

_SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = """
mkdir -p /run/units /run/systemd/system /run/lock
rm -f /etc/systemd/system/*.target.wants/*
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind "$CONSOLE" /dev/console
for target in umount final shutdown exit reboot poweroff halt timers multi-user network-online time-sync; do
    cp /lib/systemd/system/$target.target /run/units/
done
for target in sysinit basic default; do
    printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\n' $target > /run/units/$target.target
done
export SYSTEMD_UNIT_PATH=/run/systemd/system:/etc/systemd/system:/run/units container=test
unset CONSOLE
exec /lib/systemd/systemd --system --unit=default.target --show-status=false --log-target=console
"""


class Systemd:
    """What a test asks of it."""

    def __init__(self, place: Namespace) -> None:
        self.place = place
        self.run = place.run

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """What `systemctl show` says of a unit."""
        asked = self.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in asked.stdout.splitlines())

    def main_pid(self, unit: str) -> int:
        """The number on this machine of the main process of a unit; 0 if it has none."""
        inside = int(self.show(unit, "MainPID")["MainPID"])
        return self.place.outside(inside) if inside else 0

    def processes(self, unit: str) -> list[int]:
        """Everybody in the control group of a unit, by the numbers that they have there."""
        listed = self.run("cat", f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", check=False)
        return [int(number) for number in listed.stdout.split()]


@contextlib.contextmanager
def running_systemd(directory: Path, binds: Mapping[Path, str]) -> Iterator[Systemd]:
    """Boot it; `binds` names directories of this machine and what they are called below /srv."""
    require("systemd-analyze")
    if not _SYSTEMD.exists():
        pytest.skip(f"there is no {_SYSTEMD}")
    with running_namespace(directory, binds, _BOOT, _has_booted) as place:
        yield Systemd(place)


def _has_booted(place: Namespace) -> bool:
    return place.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")
