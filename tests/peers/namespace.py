"""A place of its own on this machine, made of namespaces: for programs that believe that all of it belongs to them.

It has a private tree of processes, a private /run, an /etc and a /root of which nothing is written back, and what a
test binds below /srv. Only root can make it; elsewhere the tests that need one are skipped.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.peers.process import wait_for

USER, UID = "meterman", 4711
_PRELUDE = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
for place in etc root; do
    mkdir -p /run/over/$place/upper /run/over/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir=/run/over/$place/upper,workdir=/run/over/$place/work /$place
done
chmod 711 /root  # Python itself may lie there
mount -t tmpfs -o mode=755 tmpfs /srv
while read -r from to; do mkdir -p "/srv/$to"; mount --rbind "$from" "/srv/$to"; done < "$BINDS"
mount -t proc proc /proc
echo "$USER_NAME:*:$USER_ID:$USER_ID::/srv:/bin/sh" >> /etc/passwd
echo "$USER_NAME:x:$USER_ID:" >> /etc/group
unset BINDS USER_NAME USER_ID
"""


class Namespace:
    """What a test asks of it; `pid` is the number on this machine of its first process."""

    def __init__(self, pid: int, console: Path) -> None:
        self.pid = pid
        self.console = console

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--"]
        environment = {**os.environ, "SYSTEMD_PAGER": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120, env=environment)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.said}")
        return done

    def outside(self, inside: int) -> int:
        """The number on this machine of a process that has the number `inside` in there; 0 if there is none."""
        return {number: pid for pid, number in self.processes().items()}.get(inside, 0)

    def processes(self) -> dict[int, int]:
        """Everybody in there: by the numbers on this machine those in there."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\s+(\d+)\s+(\d+)$", status.read_text(), re.MULTILINE)
                if numbers and status.with_name("ns").joinpath("pid").samefile(f"/proc/{self.pid}/ns/pid"):
                    found[int(numbers[1])] = int(numbers[2])
        return found

    @property
    def said(self) -> str:
        return self.console.read_text(errors="replace")[-3000:] if self.console.exists() else ""


@contextlib.contextmanager
def running_namespace(
    directory: Path, binds: Mapping[Path, str], script: str, is_up: Callable[[Namespace], bool]
) -> Iterator[Namespace]:
    """Run a shell script as its first process, after all is prepared; $CONSOLE is a terminal that is written down.

    `binds` names directories of this machine, and what they are called below /srv.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make a place of its own")
    listed = directory / "binds"
    listed.write_text("".join(f"{path} {name}\n" for path, name in binds.items()))
    console = directory / "console"
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=_keep, args=(ours, console), daemon=True)
    namespaces = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child=KILL"]
    process = subprocess.Popen(
        [*namespaces, "sh", "-c", _PRELUDE + script],
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
        namespace = Namespace(wait_for(lambda: _child(process), "the namespaces", 10), console)

        def up() -> bool:
            if process.poll() is not None:
                pytest.skip(f"this machine lets nobody make a place of his own: {namespace.said[-500:]}")
            return is_up(namespace)

        wait_for(up, "the place to be ready", 30)
        yield namespace
    finally:
        process.kill()  # whoever is the first process in there takes all others along
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
