"""What systemd is told, where it listens: ready, alive, stopping, and which descriptors to keep.

The protocol is sd_notify(3): one datagram of lines to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

log = logging.getLogger("parent")

_FIRST_LISTEN_FD: Final = 3  # sd_listen_fds(3)


class Notifier:
    """Says nothing at all where nobody listens."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half of what systemd allows, as sd_watchdog_enabled(3) advises.
        self.watchdog_interval_s = int(watchdog_us) / 2e6 if watchdog_us.isdigit() and ours and address else None

    def ready(self, status: str) -> None:
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1\nSTATUS=stopping")

    def keep(self, name: str, descriptor: int) -> None:
        """Have a descriptor kept over a restart of the parent itself."""
        self._tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [descriptor])

    def forget(self, name: str) -> None:
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _tell(self, message: str, descriptors: Sequence[int] = ()) -> None:
        if self._socket is None:
            return
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([message.encode()], ancillary, socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            log.warning("systemd cannot be told %r: %s", message.split("\n", 1)[0], error)


def inherited_descriptors(environment: Mapping[str, str]) -> dict[str, int]:
    """Return what systemd kept for us, by the name it was given."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0") or 0)
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for number in range(count):
        descriptor = _FIRST_LISTEN_FD + number
        os.set_inheritable(descriptor, False)
        found[names[number] if number < len(names) else str(number)] = descriptor
    return found
