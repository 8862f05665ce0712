"""One Modbus line: keeps the port to itself, does one transaction after the other, and says what went wrong.

`Bus.open()` is the only place that imports the driver. A `BusFault` concerns one unit, `PortLost` the whole line.
"""

from __future__ import annotations

import enum
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from workers import SourceError
from workers._pzem_port import find, refusal

_BITS_A_CHARACTER: Final = 11  # start, eight of data, two stops
_SILENT_CHARACTERS: Final = 3.5  # between two messages: Modbus over serial line 1.02, section 2.5.1.1
_EXCEPTIONS: Final = {
    1: "it does not know the function",
    2: "it has no such register",
    3: "it does not allow the value",
    4: "it failed at it",
}


class Fault(enum.Enum):
    """How a transaction went wrong."""

    SILENT = "silent"
    DAMAGED = "damaged"  # from the right unit, with a wrong checksum
    CUT = "cut"  # the beginning of a right answer
    WRONG_UNIT = "wrong unit"
    NOISE = "noise"  # no answer to what was asked
    REFUSED = "refused"  # an exception reply
    ECHO = "echo"  # the adapter sends back what it is sent
    NO_ECHO = "no echo"  # and the configuration says that it does


# What another try may mend at once. Silence costs a whole timeout: it waits for the next probe.
FLEETING: Final = frozenset({Fault.DAMAGED, Fault.CUT, Fault.NOISE, Fault.WRONG_UNIT})
# What a bad line shows in turn: one trouble, however it looks this time.
UNREADABLE: Final = frozenset({Fault.DAMAGED, Fault.CUT, Fault.NOISE})


class BusFault(Exception):  # noqa: N818 - an answer of the line, which is asked again
    """One unit gave no good answer."""

    def __init__(self, fault: Fault, what: str, what_now: str, *, code: int = 0) -> None:
        super().__init__(f"{what}; {what_now}")
        self.fault = fault
        self.what = what
        self.what_now = what_now
        self.code = code  # of an exception reply


class PortLost(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """The adapter went away in the middle of a transaction."""


@dataclass(frozen=True, slots=True)
class Line:
    """How the wires are driven. Eight bits, no parity: what every PZEM has."""

    baud_rate: int = 9600
    stop_bits: int = 2
    timeout_s: float = 0.3
    pause_ms: float = 20.0
    local_echo: bool = False


def least_pause_ms(baud_rate: int) -> float:
    """Return how long the line has to be silent between two messages.

    >>> round(least_pause_ms(9600), 2)
    4.01
    """
    return 1000 * _SILENT_CHARACTERS * _BITS_A_CHARACTER / baud_rate


@dataclass(slots=True)
class Breaker:
    """When a unit that failed is asked again: once after 1 s, then after ever longer pauses, each time with one probe.

    >>> breaker = Breaker(longest_s=60.0)
    >>> breaker.fail(100.0); breaker.is_due(100.9), breaker.is_due(101.0)
    (False, True)
    >>> breaker.fail(101.0); breaker.fail(103.0); breaker.is_due(106.9), breaker.is_due(107.0), breaker.is_open
    (False, True, True)
    >>> breaker.succeed(); breaker.is_due(107.0), breaker.is_open
    (True, False)
    """

    longest_s: float
    failures: int = 0  # in a row
    _due_s: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.failures > 0

    def is_due(self, now_s: float) -> bool:
        return not self.failures or now_s >= self._due_s

    def succeed(self) -> None:
        self.failures = 0

    def fail(self, now_s: float, *, calm: bool = False) -> None:
        """Note a failure; with `calm`, ask again as seldom as ever."""
        pause_s = self.longest_s if calm else min(2.0 ** min(self.failures, 30), self.longest_s)
        self.failures += 1
        self._due_s = now_s + pause_s


class Bus:
    """The line between `open()` and `close()`. One transaction at a time, with a pause before each."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.path = ""  # of the open port
        self.transactions = 0
        self._port: Any = None
        self._driver: Any = None
        self._instrument: Any = None
        self._quiet_since_s = 0.0

    def open(self, candidate: str) -> None:
        """Open a port by its path or as `usb:VID:PID[:serial]`. Raises `Unusable`."""
        try:
            import minimalmodbus  # type: ignore[import-untyped]  # both drivers come without types
            import serial  # type: ignore[import-untyped]
            from serial.tools import list_ports  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise SourceError(
                f"the package {error.name} is not installed",
                "run: .venv/bin/pip install --require-hashes -r requirements/pzem.txt",
            ) from error

        class Tap(serial.Serial):  # type: ignore[misc]  # as above
            """A port that remembers the last exchange: the driver tells faults apart only in prose."""

            sent = b""
            received = b""

            def write(self, data: bytes) -> Any:
                self.sent, self.received = bytes(data), b""
                return super().write(data)

            def read(self, size: int = 1) -> bytes:
                data: bytes = super().read(size)
                self.received += data
                return data

        self.close()
        path = find(candidate, list_ports.comports)
        line = self.line
        try:
            self._port = Tap(
                path,
                line.baud_rate,
                parity="N",
                stopbits=line.stop_bits,
                timeout=line.timeout_s,
                write_timeout=1.0,
                exclusive=True,  # nobody else of this machine that asks for it too: another house, a service command
            )
        except (OSError, termios.error, ValueError) as error:
            raise refusal(candidate, path, error) from error
        self.path = path
        self._driver = minimalmodbus
        # Our own port: for a name the driver would keep a port in a dictionary of its module, open for ever.
        self._instrument = minimalmodbus.Instrument(self._port, 1)
        self._instrument.handle_local_echo = line.local_echo

    def close(self) -> None:
        port, self._port, self._instrument = self._port, None, None
        if port is not None:
            try:
                port.close()
            except OSError:  # of an adapter that is gone
                pass

    def read_registers(self, unit: int, first: int, count: int, function: int) -> list[int]:
        """Read `count` registers in one transaction: 4 for input registers, 3 for holding ones."""
        words: list[int] = self._transact(
            unit, lambda instrument: instrument.read_registers(first, count, functioncode=function)
        )
        return words

    def write_register(self, unit: int, register: int, value: int) -> None:
        """Write one holding register with function 6. (The driver's default, 16, gets no answer from a PZEM.)"""
        self._transact(unit, lambda instrument: instrument.write_register(register, value, functioncode=6))

    def command(self, unit: int, function: int) -> None:
        """Do a function that has no data, such as 0x42 of a PZEM."""
        # Private, but the driver has no other door to a function of the maker.
        self._transact(unit, lambda instrument: instrument._perform_command(function, b""))  # noqa: SLF001, RUF100

    def _transact(self, unit: int, ask: Callable[[Any], Any]) -> Any:
        port, instrument = self._port, self._instrument
        if port is None or instrument is None:
            raise PortLost("the port is not open")
        pause_s = self.line.pause_ms / 1000 - (time.monotonic() - self._quiet_since_s)
        if pause_s > 0:
            time.sleep(pause_s)
        instrument.address = unit
        self.transactions += 1
        port.received = b""
        try:
            try:
                return ask(instrument)
            except self._driver.ModbusException as error:
                fault = fault_of(port.sent, port.received, local_echo=self.line.local_echo)
                self._settle(port)
                raise fault from error
            except (ValueError, TypeError, IndexError) as error:
                if not port.received:
                    raise  # our own mistake, not that of an answer which the driver could not take apart
                self._settle(port)
                raise fault_of(port.sent, port.received, local_echo=self.line.local_echo) from error
        except (OSError, termios.error) as error:
            # An adapter that is pulled out shows as any of these: termios.error is no OSError.
            raise PortLost(f"{self.path} is gone: {error}") from error
        finally:
            self._quiet_since_s = time.monotonic()

    def _settle(self, port: Any) -> None:
        """Wait until nothing more comes: the rest of a bad answer must not become the next unit's."""
        until_s = time.monotonic() + self.line.timeout_s
        while time.monotonic() < until_s:
            time.sleep(self.line.pause_ms / 1000)
            if not port.in_waiting:
                return
            port.reset_input_buffer()


def crc16(data: bytes) -> bytes:
    """Return the checksum of a frame, low byte first.

    >>> crc16(bytes.fromhex("010400000008")).hex(" ")
    'f1 cc'
    """
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


def fault_of(  # noqa: PLR0911 - one return a fault
    sent: bytes, answer: bytes, *, local_echo: bool = False
) -> BusFault:
    """Say what is wrong with an answer that the driver did not take.

    >>> def fault(answer):
    ...     return fault_of(bytes.fromhex("010400000008f1cc"), bytes.fromhex(answer)).what
    >>> fault("")
    'unit 1 does not answer'
    >>> fault("01 84 02 c2 c1")
    'unit 1 refuses what it is asked: it has no such register'
    >>> fault("01 04 10 04 ec 01 59 10 fb 00 00 86 a0 00 01 00 00 00 00 94 a3")
    'the answer of unit 1 is damaged: its checksum is wrong'
    >>> fault("01 04 10 04 ec 01")
    'the answer of unit 1 ends too early'
    >>> fault("05 04 10 12 d5 3a 98 0a 58 00 01 42 40 00 0f 00 00 00 00 77 08")
    'unit 5 answers where unit 1 was asked'
    >>> fault("010400000008f1cc 01 04 10")
    'the adapter sends back what it is sent'
    >>> fault("ff 00 ff")
    'what comes from unit 1 is no answer'
    """
    unit, function = sent[:2]
    wiring = "check the A and B wires, the common ground, and that no two units have one address"
    if local_echo and answer:
        if not answer.startswith(sent):
            what = "what is sent does not come back, though local_echo = true says so"
            return BusFault(Fault.NO_ECHO, what, "set local_echo = false, or look for a second sender on the wires")
        answer = answer[len(sent) :]
    if not answer:
        what_now = "check the A and B wires, its 5 V supply and its address (./orchestrator.py pzem scan)"
        return BusFault(Fault.SILENT, f"unit {unit} does not answer", what_now)
    if answer.startswith(sent):
        return BusFault(Fault.ECHO, "the adapter sends back what it is sent", "set local_echo = true for this source")
    if len(answer) >= 4 and crc16(answer[:-2]) == answer[-2:]:
        if answer[0] != unit:
            what_now = "raise timeout_s if answers come late; see that each unit has an address of its own"
            return BusFault(Fault.WRONG_UNIT, f"unit {answer[0]} answers where unit {unit} was asked", what_now)
        if answer[1] == function | 0x80 and len(answer) == 5:
            code = answer[2]
            why = _EXCEPTIONS.get(code, f"exception {code}")
            what_now = "check its model (./orchestrator.py pzem scan)"
            return BusFault(Fault.REFUSED, f"unit {unit} refuses what it is asked: {why}", what_now, code=code)
    elif answer[0] == unit and answer[1:2] in (b"", bytes([function])):
        if len(answer) < _length(function, answer):
            return BusFault(Fault.CUT, f"the answer of unit {unit} ends too early", wiring)
        return BusFault(Fault.DAMAGED, f"the answer of unit {unit} is damaged: its checksum is wrong", wiring)
    return BusFault(Fault.NOISE, f"what comes from unit {unit} is no answer", wiring)


def _length(function: int, answer: bytes) -> int:
    """Return how long an answer is that begins like this."""
    if function in (3, 4):
        return 5 + answer[2] if len(answer) > 2 else 5
    return 8 if function == 6 else 4
