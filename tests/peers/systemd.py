"""A real systemd as process 1 of namespaces of its own: it starts services and touches nothing of this machine.

It has a private /run and /etc (what it writes there is gone with it), a private tree of processes, and what a test
binds below /srv. Only root can make it; elsewhere these tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.peers.process import require, wait_for

USER, UID = "meterman", 4711
_SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/units /run/systemd/system /run/lock
for place in etc root; do
    mkdir -p /run/over/$place/upper /run/over/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir=/run/over/$place/upper,workdir=/run/over/$place/work /$place
done
chmod 711 /root  # Python itself may lie there
rm -f /etc/systemd/system/*.target.wants/*
mount -t tmpfs -o mode=755 tmpfs /srv
while read -r from to; do mkdir -p "/srv/$to"; mount --rbind "$from" "/srv/$to"; done < "$BINDS"
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount --bind "$CONSOLE" /dev/console
echo "$USER_NAME:x:$USER_ID:$USER_ID::/srv:/bin/false" >> /etc/passwd
echo "$USER_NAME:x:$USER_ID:" >> /etc/group
for target in umount final shutdown exit reboot poweroff halt timers multi-user network-online time-sync; do
    cp /lib/systemd/system/$target.target /run/units/
done
for target in sysinit basic default; do
    printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\n' $target > /run/units/$target.target
done
export SYSTEMD_UNIT_PATH=/run/systemd/system:/etc/systemd/system:/run/units container=test
unset NOTIFY_SOCKET BINDS CONSOLE USER_NAME USER_ID
exec /lib/systemd/systemd --system --unit=default.target --show-status=false --log-target=console
"""


class Systemd:
    """What a test asks of it."""

    def __init__(self, pid: int, console: Path) -> None:
        self.pid = pid
        self.console = console

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root beside its services."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--"]
        environment = {**os.environ, "SYSTEMD_PAGER": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120, env=environment)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.said}")
        return done

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """What `systemctl show` says of a unit."""
        asked = self.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in asked.stdout.splitlines())

    def processes(self, unit: str) -> list[int]:
        """Everybody in the control group of a unit, by the numbers that they have there."""
        listed = self.run("cat", f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs", check=False)
        return [int(number) for number in listed.stdout.split()]

    @property
    def said(self) -> str:
        return self.console.read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def running_systemd(directory: Path, binds: Mapping[Path, str]) -> Iterator[Systemd]:
    """Boot it; `binds` names directories of this machine and what they are called below /srv."""
    require("systemd-analyze")
    if os.geteuid() != 0 or not _SYSTEMD.exists():
        pytest.skip("only root can start a systemd of its own")
    listed = directory / "binds"
    listed.write_text("".join(f"{path} {name}\n" for path, name in binds.items()))
    console = directory / "console"
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=_keep, args=(ours, console), daemon=True)
    namespaces = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child=KILL"]
    process = subprocess.Popen(
        [*namespaces, "sh", "-c", _BOOT],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "BINDS": str(listed),
            "CONSOLE": os.ttyname(theirs),
            "USER_NAME": USER,
            "USER_ID": str(UID),
        },
    )
    reader.start()
    try:
        pid = wait_for(lambda: _child(process), "the namespaces", 10)
        systemd = Systemd(pid, console)

        def booted() -> bool:
            if process.poll() is not None:
                why = console.read_text(errors="replace") if console.exists() else ""
                pytest.skip(f"this machine lets nobody start a systemd of his own: {why[-500:]}")
            return systemd.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

        wait_for(booted, "systemd to have booted", 30)
        yield systemd
    finally:
        process.kill()  # whoever is process 1 of its namespace takes all others along
        process.wait()
        os.close(theirs)
        reader.join(10)


def _child(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is not None:
        pytest.skip("this machine lets nobody make namespaces")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _keep(terminal: int, console: Path) -> None:
    """Write down what is said, so that nobody waits for us to read it."""
    with console.open("wb", buffering=0) as file:
        while True:
            try:
                said = os.read(terminal, 65536)
            except OSError:  # nobody is left to say anything
                break
            if not said:
                break
            file.write(said)
    os.close(terminal)
