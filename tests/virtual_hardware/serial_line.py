"""The host's side of the RS-485 adapter: a battery's PZEM-017 on it, and a hand that pulls it out when a test asks."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.workers.pzem_slave import Slave, dc

_ADAPTER = {"driver": "usb-serial", "id": "adapter", "bus": "usb.0", "chardev": "rs485"}
_HANDS = {
    "unplug": {"execute": "device_del", "arguments": {"id": "adapter"}},
    "plug": {"execute": "device_add", "arguments": _ADAPTER},
}


@contextlib.contextmanager
def serial_line(results: Path) -> Iterator[Path]:
    """Serve one line on a socket, and what a guest writes to `results`/ask; yield the name of the socket."""
    path = results / "rs485"
    leaving = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(0.2)
        threads = [
            threading.Thread(target=_serve, args=(listener, leaving)),
            threading.Thread(target=_obey, args=(results, leaving)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield path
        finally:
            leaving.set()
            for thread in threads:
                thread.join()
            path.unlink()


def _serve(listener: socket.socket, leaving: threading.Event) -> None:
    slave = Slave(Path("none"), {1: dc(1)})
    while not leaving.is_set():
        with contextlib.suppress(TimeoutError, OSError):
            connection, _ = listener.accept()
            with connection:
                slave._serve(connection.fileno(), leaving)


def _obey(results: Path, leaving: threading.Event) -> None:
    """Do what the guest asks for, and tell it that it is done."""
    ask = results / "ask"
    while not leaving.wait(0.05):
        if not ask.exists():
            continue
        wish = ask.read_text().strip()
        if wish not in _HANDS:
            continue  # half written
        ask.unlink()
        (results / "done").write_text(_told(results / "qmp", _HANDS[wish]))


def _told(path: Path, order: object) -> str:
    """Give an order to QEMU's monitor; return its answer."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(10)
        monitor.connect(str(path))
        lines = monitor.makefile("rw")
        lines.readline()  # its greeting
        for each in ({"execute": "qmp_capabilities"}, order):
            lines.write(json.dumps(each) + "\n")
            lines.flush()
            answer = _answer(lines.readline)
        time.sleep(0.2)  # what hangs on the bus is told by it, not by this answer
        return json.dumps(answer)


def _answer(readline: object) -> object:
    while line := readline():  # type: ignore[operator]
        said = json.loads(line)
        if "return" in said or "error" in said:  # anything else is an event
            return said
    return {}
