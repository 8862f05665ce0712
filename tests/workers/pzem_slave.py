"""A line of PZEM units on a pseudo-terminal: strict about what it is asked, and as bad as a test wants it.

It is written from the makers' manuals alone and shares no code with what it tests. The port is a symlink, as udev makes
them, so that a line can be unplugged and come back as another terminal behind the same name.
"""

from __future__ import annotations

import os
import select
import struct
import termios
import threading
import time
import tty
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEAST_GAP_S = 3.5 * 11 / 9600

Mood = Callable[["Slave", bytes, bytes], list[tuple[float, bytes]]]  # (request, good answer) -> (delay, bytes)


def crc(data: bytes) -> bytes:
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


def frame(text: str) -> bytes:
    """A frame without its checksum, in hexadecimal."""
    data = bytes.fromhex(text)
    return data + crc(data)


class Unit:
    """The registers of one unit."""

    def __init__(self, inputs: list[int], holdings: dict[int, int]) -> None:
        self.inputs = inputs
        self.holdings = holdings
        self.present = True

    def registers(self, function: int, first: int, count: int) -> list[int] | None:
        wanted = range(first, first + count)
        if function == 4:
            return self.inputs[first : first + count] if wanted.stop <= len(self.inputs) else None
        return [self.holdings[n] for n in wanted] if all(n in self.holdings for n in wanted) else None


def low_first(value: int) -> list[int]:
    return [value & 0xFFFF, value >> 16]


def dc(
    address: int,
    volts: float = 12.6,
    amperes: float = 3.45,
    watts: float = 43.4,
    wh: int = 100_000,
    shunt: int | None = 0,
    alarms: tuple[bool, bool] = (False, False),
) -> Unit:
    """A 017, or a 003 if it has no shunt code."""
    inputs = [round(volts * 100), round(amperes * 100), *low_first(round(watts * 10)), *low_first(wh)]
    holdings = {0: 30000, 1: 700, 2: address} | ({} if shunt is None else {3: shunt})
    return Unit(inputs + [0xFFFF if alarm else 0 for alarm in alarms], holdings)


def ac(
    address: int,
    volts: float = 230.4,
    amperes: float = 5.217,
    watts: float = 1141.9,
    wh: int = 100_000,
    hertz: float = 50.0,
    factor: float = 0.95,
    alarm: bool = False,
) -> Unit:
    inputs = [round(volts * 10), *low_first(round(amperes * 1000)), *low_first(round(watts * 10)), *low_first(wh)]
    return Unit([*inputs, round(hertz * 10), round(factor * 100), 0xFFFF if alarm else 0], {1: 23000, 2: address})


# Moods: what becomes of one good answer.
def silent(_slave: Slave, _request: bytes, _answer: bytes) -> list[tuple[float, bytes]]:
    return []


def bad_crc(_slave: Slave, _request: bytes, answer: bytes) -> list[tuple[float, bytes]]:
    return [(0, answer[:-1] + bytes([answer[-1] ^ 0xFF]))]


def cut(_slave: Slave, _request: bytes, answer: bytes) -> list[tuple[float, bytes]]:
    return [(0, answer[: len(answer) // 2])]


def garbage_before(_slave: Slave, _request: bytes, answer: bytes) -> list[tuple[float, bytes]]:
    return [(0, b"\xff\x00\xfe" + answer)]


def echoed(_slave: Slave, request: bytes, answer: bytes) -> list[tuple[float, bytes]]:
    return [(0, request + answer)]


def echo_alone(_slave: Slave, request: bytes, _answer: bytes) -> list[tuple[float, bytes]]:
    return [(0, request)]


def as_unit(address: int) -> Mood:
    return lambda _slave, _request, answer: [(0, (other := bytes([address]) + answer[1:-2]) + crc(other))]


def refuse(code: int) -> Mood:
    return lambda _slave, request, _answer: [(0, (body := bytes([request[0], request[1] | 0x80, code])) + crc(body))]


def late(delay_s: float) -> Mood:
    return lambda _slave, _request, answer: [(delay_s, answer)]


def say(data: bytes) -> Mood:
    return lambda _slave, _request, _answer: [(0, data)]


def half_then_unplug(slave: Slave, _request: bytes, answer: bytes) -> list[tuple[float, bytes]]:
    os.write(slave.master, answer[:7])
    slave.unplug(inside=True)
    return []


class Slave:
    """The units of one line and the terminal that they hang on."""

    def __init__(self, link: Path, units: dict[int, Unit] | None = None) -> None:
        self.link = link
        self.units = units or {}
        self.moods: dict[int, Mood] = {}  # of a unit, until it is taken out again
        self.next_moods: defaultdict[int, deque[Mood]] = defaultdict(deque)  # of its next answers
        self.requests: list[bytes] = []
        self.violations: list[str] = []  # what no master may do
        self.master = self._slave = -1
        self._thread: threading.Thread | None = None
        self._gone = threading.Event()

    def plug_in(self) -> None:
        self.master, self._slave = os.openpty()
        for end in (self.master, self._slave):
            tty.setraw(end)
        with suppress(FileNotFoundError):
            self.link.unlink()
        self.link.symlink_to(os.ttyname(self._slave))
        self._gone = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(self.master, self._gone), daemon=True)
        self._thread.start()

    def unplug(self, *, inside: bool = False) -> None:
        """Take the line away, for who has it open too."""
        self._gone.set()
        if not inside and self._thread is not None:
            self._thread.join()
        master, slave = self.master, self._slave  # the test may plug in anew as soon as it sees the line gone
        self.master = self._slave = -1
        if master >= 0:
            self.link.unlink()
            os.close(slave)
            os.close(master)

    def asked(self, address: int) -> list[bytes]:
        return [request for request in self.requests if request[0] == address]

    @property
    def stop_bits(self) -> int:
        return 2 if termios.tcgetattr(self._slave)[2] & termios.CSTOPB else 1

    def _serve(self, master: int, gone: threading.Event) -> None:
        pending: list[tuple[float, bytes]] = []
        buffer = b""
        quiet_since_s = received_s = 0.0
        while not gone.is_set():
            readable, _, _ = select.select([master], [], [], 0.001 if pending else 0.02)
            now_s = time.monotonic()
            for due_s, data in [one for one in pending if one[0] <= now_s]:
                os.write(master, data)  # too late: no master can keep a distance to what it does not expect
                pending.remove((due_s, data))
            if not readable:
                if buffer and now_s - received_s > 0.1:
                    self.violations.append(f"half a frame: {buffer.hex(' ')}")
                    buffer = b""
                continue
            received_s = now_s
            buffer += os.read(master, 256)
            while buffer and not gone.is_set():
                size = {0x42: 4, 0x41: 6}.get(buffer[1], 8) if len(buffer) > 1 else 8
                if len(buffer) < size:
                    break
                request, buffer = buffer[:size], buffer[size:]
                if now_s - quiet_since_s < LEAST_GAP_S:
                    self.violations.append(f"{(now_s - quiet_since_s) * 1000:.1f} ms after the last message")
                answers = self._answer(request)
                quiet_since_s = time.monotonic()  # before the answer: the master may be faster than this thread
                for delay_s, data in answers:
                    if delay_s:
                        pending.append((time.monotonic() + delay_s, data))
                    elif not gone.is_set():
                        os.write(master, data)

    def _answer(self, request: bytes) -> list[tuple[float, bytes]]:
        self.requests.append(request)
        if crc(request[:-2]) != request[-2:]:
            self.violations.append(f"a wrong checksum: {request.hex(' ')}")
            return []
        address = request[0]
        if address == 0xF8 and len(self.units) == 1:
            unit = next(iter(self.units.values()))
        elif address in self.units:
            unit = self.units[address]
        else:
            return []
        if not unit.present:
            return []
        body = self._reply(unit, request)
        answer = body + crc(body)
        queue = self.next_moods[address]
        mood = queue.popleft() if queue else self.moods.get(address)
        return mood(self, request, answer) if mood else [(0, answer)]

    def _reply(self, unit: Unit, request: bytes) -> bytes:
        address, function = request[:2]
        if function in (3, 4):
            first, count = struct.unpack(">HH", request[2:6])
            registers = unit.registers(function, first, count)
            if registers is None:
                return bytes([address, function | 0x80, 2])
            return bytes([address, function, 2 * count]) + b"".join(struct.pack(">H", word) for word in registers)
        if function == 6:
            register, value = struct.unpack(">HH", request[2:6])
            if register not in unit.holdings:
                return bytes([address, 0x86, 2])
            unit.holdings[register] = value
            if register == 2:  # the answer still comes from the old address
                self.units = {(value if one is unit else at): one for at, one in self.units.items()}
            return request[:6]
        if function == 0x42:
            start = 4 if len(unit.inputs) == 8 else 5
            unit.inputs[start : start + 2] = [0, 0]
            return request[:2]
        self.violations.append(f"function {function}, which no PZEM has: {request.hex(' ')}")
        return bytes([address, function | 0x80, 1])


@contextmanager
def plugged_in(link: Path, units: dict[int, Unit]) -> Iterator[Slave]:
    slave = Slave(link, units)
    slave.plug_in()
    try:
        yield slave
    finally:
        slave.unplug()
    assert slave.violations == []
