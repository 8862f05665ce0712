"""The far end of the shim: device files that a test fills with chips, and the bytes that the kernel's drivers speak."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

from tests.shim.build import shim_library
from tests.shim.chips import BusFault, I2cChip, SpiChip

_OPEN, _READ, _WRITE = 1, 2, 3
_QUESTION = struct.Struct("=IIQ")
_ANSWER = struct.Struct("=Ii")
_TRANSFER = struct.Struct("=QQIIHBB4x")  # struct spi_ioc_transfer
_I2C_MESSAGE = struct.Struct("=HHH")
_I2C_FUNCTIONS = 0x0EFF0009  # plain I2C, and SMBus made of it: what a Raspberry Pi says


class Session(Protocol):
    """One open file: what the kernel keeps for it, and its calls. A result below zero is an errno."""

    def call(self, number: int, argument: int, body: bytes) -> tuple[int, bytes]: ...


class DeviceFile(Protocol):
    def session(self) -> Session: ...


class Spi:
    """`/dev/spidevB.C` with one chip on it."""

    def __init__(self, chip: SpiChip) -> None:
        self.chip = chip
        self.fail = 0  # the errno of every transfer
        self.speed_hz = 0  # of the last transfer

    def session(self) -> Session:
        return _SpiSession(self)


class _SpiSession:
    def __init__(self, file: Spi) -> None:
        self._file = file
        self._settings = {1: 0, 2: 0, 3: 8, 4: 500_000, 5: 0}  # mode, LSB first, bits, speed, long mode

    def call(self, number: int, argument: int, body: bytes) -> tuple[int, bytes]:
        if self._file.fail:
            return -self._file.fail, b""
        if number in (_READ, _WRITE):
            received = self._file.chip.exchange(body or bytes(argument))
            return argument, received if number == _READ else b""
        setting, size, writes = number & 0xFF, number >> 16 & 0x3FFF, number >> 30 & 1
        if setting == 0:
            return self._transfer(argument, body)
        if not writes:
            return 0, self._settings[setting].to_bytes(size, "little")
        value = int.from_bytes(body, "little")
        lsb_first = value if setting == 2 else value & 0x08 if setting in (1, 5) else 0
        if lsb_first or (setting == 3 and value not in (0, 8)):
            return -errno.EINVAL, b""  # as the controller of a Raspberry Pi
        self._settings[setting] = value
        if setting in (1, 5):
            self._settings[1] = self._settings[5] = value
        return 0, b""

    def _transfer(self, count: int, body: bytes) -> tuple[int, bytes]:
        """Exchange what is between two edges of chip select at once."""
        selected, received, at = b"", b"", 0
        for _ in range(count):
            _, _, size, speed_hz, _, _, released = _TRANSFER.unpack_from(body, at)
            at += _TRANSFER.size
            self._file.speed_hz = speed_hz or self._settings[4]
            selected += body[at : at + size]
            at += size
            if released:
                received, selected = received + self._file.chip.exchange(selected), b""
        received += self._file.chip.exchange(selected)
        return len(received), received


class I2c:
    """`/dev/i2c-N` with chips by address."""

    def __init__(self, chips: Mapping[int, I2cChip]) -> None:
        self.chips = dict(chips)
        self.fail = 0  # the errno of every transfer: a bus that is stuck
        self.held: set[int] = set()  # addresses that a kernel driver has
        self.transfers: list[int] = []  # whom each transfer was meant for

    def session(self) -> Session:
        return _I2cSession(self)

    def send(self, address: int, data: bytes) -> None:
        self._chip(address).write(data)

    def receive(self, address: int, size: int) -> bytes:
        return self._chip(address).read(size)

    def _chip(self, address: int) -> I2cChip:
        self.transfers.append(address)
        if self.fail:
            raise BusFault(self.fail)
        if address not in self.chips:
            raise BusFault(errno.EREMOTEIO)  # nobody acknowledges
        chip = self.chips[address]
        if chip.fail:
            raise BusFault(chip.fail)
        return chip


class _I2cSession:
    def __init__(self, file: I2c) -> None:
        self._file = file
        self._address = 0

    def call(self, number: int, argument: int, body: bytes) -> tuple[int, bytes]:
        try:
            return self._call(number, argument, body)
        except BusFault as fault:
            return -fault.number, b""

    def _call(self, number: int, argument: int, body: bytes) -> tuple[int, bytes]:
        match number:
            case 0x0703 | 0x0706:  # I2C_SLAVE, I2C_SLAVE_FORCE
                if argument > 0x7F:
                    return -errno.EINVAL, b""
                if number == 0x0703 and argument in self._file.held:
                    return -errno.EBUSY, b""
                self._address = argument
                return 0, b""
            case 0x0701 | 0x0702:  # I2C_RETRIES, I2C_TIMEOUT
                return 0, b""
            case 0x0705:  # I2C_FUNCS
                return 0, _I2C_FUNCTIONS.to_bytes(8, "little")
            case 0x0707:  # I2C_RDWR
                return self._combined(argument, body)
            case 0x0720:  # I2C_SMBUS
                return 0, self._smbus(*body[:3], body[3:])
            case 2:
                return argument, self._file.receive(self._address, argument)
            case 3:
                self._file.send(self._address, body)
                return argument, b""
            case _:
                return -errno.ENOTTY, b""

    def _combined(self, count: int, body: bytes) -> tuple[int, bytes]:
        received, at = b"", 0
        for _ in range(count):
            address, flags, size = _I2C_MESSAGE.unpack_from(body, at)
            at += _I2C_MESSAGE.size
            if flags & 1:
                received += self._file.receive(address, size)
            else:
                self._file.send(address, body[at : at + size])
                at += size
        return count, received

    def _smbus(self, reads: int, command: int, kind: int, data: bytes) -> bytes:
        """Make an SMBus call of plain transfers, as the kernel does (i2c_smbus_xfer_emulated)."""
        file, to, pointer = self._file, self._address, bytes([command])
        if kind == 0:  # quick
            file.send(to, b"")
            return b""
        if kind == 1:  # byte
            if reads:
                return file.receive(to, 1)
            file.send(to, pointer)
            return b""
        if kind == 4:  # process call
            file.send(to, pointer + data[:2])
            return file.receive(to, 2)
        width = {2: 1, 3: 2}.get(kind, min(data[0], 32))
        if kind not in (2, 3, 5, 8):
            raise BusFault(errno.EOPNOTSUPP)
        if not reads:
            file.send(to, pointer + {5: data[: 1 + width], 8: data[1 : 1 + width]}.get(kind, data[:width]))
            return b""
        file.send(to, pointer)
        if kind == 5:  # the chip says how long its block is
            block = file.receive(to, 33)
            if not 1 <= block[0] <= 32:
                raise BusFault(errno.EPROTO)
            return block[: 1 + block[0]]
        received = file.receive(to, width)
        return bytes([width]) + received if kind == 8 else received


class Simulator:
    """Serves device files to every process that runs with `environment`. A path that is none of `files` is absent."""

    def __init__(self, files: Mapping[str, DeviceFile]) -> None:
        self.files: dict[str, DeviceFile | int] = dict(files)  # an int is the errno of opening it
        self._directory = tempfile.mkdtemp(prefix="shim-")  # short: a socket's path may have 107 characters
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(f"{self._directory}/socket")
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads[0].start()

    @property
    def environment(self) -> dict[str, str]:
        shim = {"LD_PRELOAD": str(shim_library()), "WATTHERD_SHIM_SOCKET": f"{self._directory}/socket"}
        return {**os.environ, **shim}

    @property
    def open_files(self) -> int:
        with self._lock:
            return len(self._connections)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()  # then no connection comes any more
        with self._lock:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()
        shutil.rmtree(self._directory)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        session: Session | None = None
        with contextlib.suppress(ConnectionError):
            while message := connection.recv(65536):
                number, call, argument = _QUESTION.unpack_from(message)
                body = message[_QUESTION.size :]
                if call == _OPEN:
                    file = self.files.get(body.decode(), errno.ENOENT)
                    session = None if isinstance(file, int) else file.session()
                    result, answer = (-file if isinstance(file, int) else 0), b""
                elif session is None:
                    result, answer = -errno.EBADF, b""
                else:
                    result, answer = session.call(call, argument, body)
                connection.sendall(_ANSWER.pack(number, result) + answer)
        with self._lock:
            self._connections.discard(connection)
            connection.close()


def named(files: Mapping[str, DeviceFile]) -> dict[str, DeviceFile]:
    """Return files by their paths.

    >>> list(named({"spidev0_1": I2c({}), "i2c_1": I2c({})}))
    ['/dev/spidev0.1', '/dev/i2c-1']
    """
    return {f"/dev/{name.replace('i2c_', 'i2c-').replace('_', '.')}": file for name, file in files.items()}


@contextlib.contextmanager
def simulated(**files: DeviceFile) -> Iterator[Simulator]:
    """Serve files named like `spidev0_0` and `i2c_1`."""
    simulator = Simulator(named(files))
    try:
        yield simulator
    finally:
        simulator.stop()
