"""Chips as their datasheets describe them: an MCP3008, and the INA219, INA226, INA260 and INA3221."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

Signal = Callable[[float], float]  # volts at a time (CLOCK_MONOTONIC, seconds)


class BusFault(Exception):  # noqa: N818 - an answer of the kernel
    """The kernel's driver reports an errno instead of data."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class SpiChip(Protocol):
    def exchange(self, sent: bytes) -> bytes:
        """Return what comes back while `sent` goes out between two edges of chip select."""
        ...


class I2cChip(Protocol):
    fail: int  # the errno of every transfer with this chip

    def write(self, data: bytes) -> None: ...
    def read(self, size: int) -> bytes: ...


def level(volts: float) -> Signal:
    return lambda _: volts


def sine(
    rms_v: float,
    *,
    offset_v: float = 1.65,
    hz: float = 50.0,
    phase_deg: float = 0.0,
    harmonics: Mapping[int, float] | None = None,
) -> Signal:
    """Return a sine of the mains; `harmonics` are shares of the fundamental by their number."""
    parts = {1: 1.0, **(harmonics or {})}
    phase = math.radians(phase_deg)
    peak = rms_v * math.sqrt(2)

    def volts(at_s: float) -> float:
        angle = 2 * math.pi * (hz * at_s % 1.0) + phase
        return offset_v + peak * sum(share * math.sin(n * angle) for n, share in parts.items())

    return volts


def rectified(average_v: float, *, hz: float = 50.0) -> Signal:
    """Return a full-wave rectified sine without any smoothing, the worst that an averaging input can get."""
    return lambda at_s: average_v * math.pi / 2 * abs(math.sin(2 * math.pi * (hz * at_s % 1.0)))


class Mcp3008:
    """Bit-exact (Microchip DS21295D, section 5): the start bit may be anywhere, DOUT floats until the null bit."""

    def __init__(self, inputs: Mapping[int, Signal], vref_v: float = 3.3) -> None:
        self.inputs = dict(inputs)
        self.vref_v = vref_v

    def exchange(self, sent: bytes) -> bytes:
        clocks = 8 * len(sent)
        bits = int.from_bytes(sent, "big")
        if not bits:
            return b"\xff" * len(sent)
        start = clocks - bits.bit_length()
        setting = (
            (bits << 4 >> (clocks - start - 1)) & 0xF if clocks - start < 5 else bits >> (clocks - start - 5) & 0xF
        )
        code = f"{self.code(setting, time.monotonic()):010b}"
        # Four bits of setting and one clock to sample; then the null bit, the code, and the code again, LSB first.
        out = "1" * (start + 6) + "0" + code + code[-2::-1]
        return int(out.ljust(clocks, "0")[:clocks], 2).to_bytes(len(sent), "big")

    def code(self, setting: int, at_s: float) -> int:
        single, channel = setting & 8, setting & 7
        volts = self._volts(channel, at_s) if single else self._volts(channel, at_s) - self._volts(channel ^ 1, at_s)
        return max(0, min(1023, int(volts / self.vref_v * 1024)))

    def _volts(self, channel: int, at_s: float) -> float:
        return self.inputs[channel](at_s) if channel in self.inputs else 0.0


def code(number: int, vref_v: float = 3.3) -> Signal:
    """Return the level that an MCP3008 reads as `number`."""
    return level((number + 0.5) / 1024 * vref_v)


class Silent:
    """No chip at all: the line from it floats, or is pulled."""

    def __init__(self, level: int = 0xFF) -> None:
        self.level = level

    def exchange(self, sent: bytes) -> bytes:
        return bytes([self.level]) * len(sent)


class _Ina:
    """What all of the family share: a pointer, 16-bit registers, conversions that take their time, a ready flag."""

    reset_config: int
    ids: Mapping[int, int] = {}
    calibration_register: int | None = 5
    read_only: frozenset[int] = frozenset()

    def __init__(self, *, amps: float = 0.0, volts: float = 0.0, shunt_ohm: float = 0.1) -> None:
        self.fail = 0
        self.never_ready = False
        self.amps, self.volts, self.shunt_ohm = amps, volts, shunt_ohm
        self.writes: list[tuple[int, int]] = []
        self._pointer = 0
        self.brown_out()

    def brown_out(self) -> None:
        """The supply was away for a moment: every register is as after a start."""
        self.registers = {0: self.reset_config, **self.ids}
        if self.calibration_register:
            self.registers[self.calibration_register] = 0
        self._start()

    def write(self, data: bytes) -> None:
        if data:
            self._pointer = data[0]
        if len(data) >= 3:
            register, value = data[0], int.from_bytes(data[1:3], "big")
            self.writes.append((register, value))
            if register == 0 and value & 0x8000:
                self.brown_out()
            elif register not in self.ids and register not in self.read_only:
                self.registers[register] = value & 0xFFFE if register == self.calibration_register else value
                if register == 0:
                    self._start()

    def read(self, size: int) -> bytes:
        self._convert()
        value = self.registers.get(self._pointer, 0).to_bytes(2, "big")
        self._was_read(self._pointer)
        return value[:size].ljust(size, b"\xff")

    def _start(self) -> None:
        self._ready = False
        self._ready_at_s = time.monotonic() + self._conversion_s()
        self._converting = self.registers[0] & 7 not in (0, 4)

    def _convert(self) -> None:
        if self._converting and not self.never_ready and time.monotonic() >= self._ready_at_s:
            self._ready = True
            self._take()
            if self.registers[0] & 4:  # continuous
                self._ready_at_s = time.monotonic() + self._conversion_s()
            else:
                self._converting = False
        self._show_flags()

    def _conversion_s(self) -> float:
        raise NotImplementedError

    def _take(self) -> None:
        raise NotImplementedError

    def _show_flags(self) -> None:
        raise NotImplementedError

    def _was_read(self, register: int) -> None:
        raise NotImplementedError


def _signed(value: float, lowest: int = -0x8000, highest: int = 0x7FFF) -> int:
    return max(lowest, min(highest, round(value))) & 0xFFFF


class Ina219(_Ina):
    """TI SBOS448."""

    reset_config = 0x399F
    read_only = frozenset({1, 2, 3, 4})
    overflow = False
    _bus = 0

    def _conversion_s(self) -> float:
        def one(setting: int) -> float:
            return 532e-6 * 2 ** (setting & 7) if setting & 8 else (84e-6, 148e-6, 276e-6, 532e-6)[setting & 3]

        return one(self.registers[0] >> 7 & 0xF) + one(self.registers[0] >> 3 & 0xF)

    def _take(self) -> None:
        ends = 4000 << (self.registers[0] >> 11 & 3)
        shunt = max(-ends, min(ends, round(self.amps * self.shunt_ohm / 10e-6)))
        self._bus = min(8000, round(self.volts / 0.004))
        current = math.trunc(shunt * self.registers[5] / 4096)
        self.overflow = abs(current) > 0x7FFF
        self.registers |= {1: shunt & 0xFFFF, 4: current & 0xFFFF, 3: abs(current) * self._bus // 5000 & 0xFFFF}

    def _show_flags(self) -> None:
        self.registers[2] = self._bus << 3 | self._ready << 1 | self.overflow

    def _was_read(self, register: int) -> None:
        if register == 3:
            self._ready = False


class _Ina2xx(_Ina):
    """INA226 and INA260: flags in register 6, cleared by reading it."""

    _times_s = (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3)
    _counts = (1, 4, 16, 64, 128, 256, 512, 1024)
    overflow = False

    def _conversion_s(self) -> float:
        config = self.registers[0]
        return self._counts[config >> 9 & 7] * (self._times_s[config >> 6 & 7] + self._times_s[config >> 3 & 7])

    def _show_flags(self) -> None:
        self.registers[6] = self._ready << 3 | self.overflow << 2

    def _was_read(self, register: int) -> None:
        if register == 6:
            self._ready = False


class Ina226(_Ina2xx):
    reset_config = 0x4127
    ids = {0xFE: 0x5449, 0xFF: 0x2260}  # noqa: RUF012 - never changed
    read_only = frozenset({1, 2, 3, 4})

    def _take(self) -> None:
        shunt = max(-0x8000, min(0x7FFF, round(self.amps * self.shunt_ohm / 2.5e-6)))
        bus = min(0x7FFF, round(self.volts / 0.00125))
        current = math.trunc(shunt * self.registers[5] / 2048)
        self.overflow = abs(current) > 0x7FFF
        self.registers |= {1: shunt & 0xFFFF, 2: bus, 4: current & 0xFFFF, 3: abs(current) * bus // 20000 & 0xFFFF}


class Ina260(_Ina2xx):
    reset_config = 0x6127
    ids = {0xFE: 0x5449, 0xFF: 0x2270}  # noqa: RUF012 - never changed
    calibration_register = None
    read_only = frozenset({1, 2, 3})

    def _take(self) -> None:
        amps, volts = _signed(self.amps / 0.00125), min(0x7FFF, round(self.volts / 0.00125))
        self.registers |= {1: amps, 2: volts, 3: round(abs(self.amps) * self.volts / 0.010)}


class Ina3221(_Ina):
    """Three inputs; `channels` holds amperes and volts of each."""

    reset_config = 0x7127
    ids = {0xFE: 0x5449, 0xFF: 0x3220}  # noqa: RUF012 - never changed
    calibration_register = None
    read_only = frozenset({1, 2, 3, 4, 5, 6})

    def __init__(self, channels: Mapping[int, tuple[float, float]], shunt_ohm: float = 0.1) -> None:
        self.channels = dict(channels)
        super().__init__(shunt_ohm=shunt_ohm)

    def _conversion_s(self) -> float:
        config = self.registers[0]
        times_s = _Ina2xx._times_s[config >> 6 & 7] + _Ina2xx._times_s[config >> 3 & 7]
        return _Ina2xx._counts[config >> 9 & 7] * times_s * (config >> 12 & 7).bit_count()

    def _take(self) -> None:
        for channel, (amps, volts) in self.channels.items():
            if self.registers[0] >> (15 - channel) & 1:
                shunt = max(-4096, min(4095, round(amps * self.shunt_ohm / 40e-6)))
                self.registers[2 * channel - 1] = shunt << 3 & 0xFFFF
                self.registers[2 * channel] = min(4095, round(volts / 0.008)) << 3

    def _show_flags(self) -> None:
        self.registers[0xF] = int(self._ready)

    def _was_read(self, register: int) -> None:
        if register == 0xF:
            self._ready = False


class Pca9685:
    """A servo driver, which has address 0x40 too: 8-bit registers, no answer that looks like an INA."""

    def __init__(self) -> None:
        self.fail = 0
        self.writes: list[bytes] = []
        self._pointer = 0

    def write(self, data: bytes) -> None:
        self._pointer = data[0] if data else self._pointer
        if len(data) > 1:
            self.writes.append(data)

    def read(self, size: int) -> bytes:
        return bytes(0x11 if self._pointer + n == 0 else 0x04 for n in range(size))
