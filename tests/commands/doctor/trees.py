"""Builds what a machine shows under /proc, /sys, /dev and /etc, in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

PASSWD = "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n"
GROUP = "root:x:0:\ndialout:x:20:{dialout}\nspi:x:999:{spi}\ni2c:x:998:{i2c}\ngpio:x:997:{gpio}\npi:x:1000:\n"
STATUS = (
    "Name:\torchestrator\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t1000\t1000\nGroups:\t{groups} \nCapEff:\t{caps}\n"
)
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max locked memory         8388608              8388608              bytes
Max realtime priority     {rtprio}                    {rtprio}
"""


class Machine:
    """A machine of files. `pi` is its user, process 4242 the house."""

    pid = 4242

    def __init__(
        self,
        root: Path,
        *,
        groups: str = "",
        by_file: str = "",
        uid: int = 1000,
        caps: str = "0000000000000000",
        rtprio: int | str = 0,
    ) -> None:
        """`groups`: numbers that the process has; `by_file`: a group that /etc/group says the user is in."""
        self.root = root
        members = {name: "pi" if name == by_file else "" for name in ("dialout", "spi", "i2c", "gpio")}
        self.write("etc/passwd", PASSWD)
        self.write("etc/group", GROUP.format(**members))
        status = STATUS.format(uid=uid, groups=groups, caps=caps)
        for place in (f"proc/{self.pid}", "proc/self"):
            self.write(f"{place}/status", status)
            self.write(f"{place}/limits", LIMITS.format(rtprio=rtprio))

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def device(self, path: str, mode: int, group: int) -> Path:
        """A device file, as far as its rights go. Only root can give it to a group."""
        file = self.write(path, "")
        file.chmod(mode)
        os.chown(file, 0, group)
        return file
