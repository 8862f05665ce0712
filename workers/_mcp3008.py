"""Asks an MCP3008: what it is sent, what its answers mean, and when to sample what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from workers._rms import FEWEST_A_CYCLE, Samples, covers

HIGHEST_CODE: Final = 1023
_SECOND_NS: Final = 10**9
_BURSTS_A_SECOND: Final = 5  # so a burst is 10 cycles of 50 Hz or 12 of 60 Hz
_MOST_BURSTS: Final = 3  # in length, for one that has holes

Reply = Sequence[int]
_Taken = tuple[int, int, Reply]  # when a transfer began and ended (CLOCK_MONOTONIC), and what came


class Unusable(Exception):  # noqa: N818 - a state of the wires, not a fault of ours
    """Samples that say nothing about the current: why, by one of `vitals.REFUSALS`, and "what; what now"."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class Series(NamedTuple):
    """Samples at a steady pace."""

    command: bytes
    samples: int
    rate_hz: float

    def due_s(self, number: int, period_s: float) -> float:
        """Return when a sample is due. Over the series the samples move once through the mains cycle.

        50 samples a second would else meet the ripple of a rectified 50 Hz at one and the same point.
        """
        return number / self.rate_hz + number / self.samples * period_s


class Converter:
    """Samples inputs. `transfer` exchanges bytes under one chip select; it may raise OSError."""

    def __init__(self, transfer: Callable[[bytes], Reply], mains_hz: int) -> None:
        self._transfer = transfer
        self._mains_hz = mains_hz
        self.period_ns = _SECOND_NS / mains_hz

    def side_by_side(self, wishes: Sequence[Series]) -> list[list[Reply]]:
        """Return the answers of several series that are sampled at the same time."""
        answers: list[list[Reply]] = [[] for _ in wishes]
        period_s = 1 / self._mains_hz
        plan = sorted(
            (wish.due_s(n, period_s), index) for index, wish in enumerate(wishes) for n in range(wish.samples)
        )
        begin_s = time.monotonic()
        for due_s, index in plan:
            if (pause_s := begin_s + due_s - time.monotonic()) > 0:
                time.sleep(pause_s)
            answers[index].append(self._transfer(wishes[index].command))
        return answers

    def burst(self, commands: Sequence[bytes]) -> list[Samples]:
        """Return what each input shows over some mains cycles, sampled in turn as fast as it goes.

        Where the machine does something else in between, the burst is longer. Raise `Unusable` where even that does not
        help, and for answers that are none.
        """
        taken: list[_Taken] = []
        wanted = self._mains_hz // _BURSTS_A_SECOND
        begin_ns = time.monotonic_ns()
        for cycle in range(1, _MOST_BURSTS * wanted + 1):
            self._sample(commands, taken, begin_ns + cycle * self.period_ns)
            if cycle >= wanted:
                samples = [self._timely(taken[lane :: len(commands)]) for lane in range(len(commands))]
                if all(covers(one_input, self.period_ns) for one_input in samples):
                    return samples
        raise Unusable(
            "too_slow", "sampling pauses too often to see the waves; give this machine less to do, or raise speed_hz"
        )

    def is_all_zeros(self) -> bool:
        """Tell whether every one of the eight inputs says 0, as a chip that is not there can."""
        return not any(decode_all([self._transfer(command(channel)) for channel in range(8)]))

    def _sample(self, commands: Sequence[bytes], taken: list[_Taken], until_ns: float) -> None:
        transfer, clock = self._transfer, time.monotonic_ns
        end_ns = clock()
        while end_ns < until_ns:
            for one in commands:
                begin_ns = end_ns
                reply = transfer(one)
                end_ns = clock()
                taken.append((begin_ns, end_ns, reply))

    def _timely(self, taken: Sequence[_Taken]) -> Samples:
        """Decode samples; leave out those that took so long that nobody knows when in that time they were taken."""
        codes = decode_all([reply for _, _, reply in taken])
        most_ns = self.period_ns / FEWEST_A_CYCLE
        kept = [
            (begin_ns, code)
            for (begin_ns, end_ns, _), code in zip(taken, codes, strict=True)
            if end_ns - begin_ns <= most_ns
        ]
        return Samples([begin_ns for begin_ns, _ in kept], [code for _, code in kept])


def command(channel: int, *, differential: bool = False) -> bytes:
    """Return the three bytes that ask for one conversion (DS21295D figure 6-1).

    Differential: the input is `channel`, its reference the other one of the pair 0/1, 2/3, 4/5 or 6/7.

    >>> [command(channel).hex(" ") for channel in (0, 1, 7)]
    ['01 80 00', '01 90 00', '01 f0 00']
    >>> [command(channel, differential=True).hex(" ") for channel in (0, 1, 7)]
    ['01 00 00', '01 10 00', '01 70 00']
    """
    return bytes([1, (0 if differential else 0x80) | channel << 4, 0])


def decode(reply: Sequence[int]) -> int:
    """Return the code in an answer. Raise ValueError where the null bit is set: what answers is no MCP3008.

    >>> [decode(bytes.fromhex(reply)) for reply in ("FFF800", "FFF801", "FFF9FF", "FFFA00", "FFFAAA", "FFFBFF")]
    [0, 1, 511, 512, 682, 1023]
    >>> decode([0xFF, 0xFF, 0xFF])
    Traceback (most recent call last):
      ...
    ValueError: the null bit is set
    """
    if reply[1] & 0x04:
        raise ValueError("the null bit is set")
    return (reply[1] & 0x03) << 8 | reply[2]


def decode_all(replies: Sequence[Reply]) -> list[int]:
    """Return the codes of many answers. Raise `Unusable` unless all are answers."""
    damaged = sum(reply[1] >> 2 & 1 for reply in replies)
    if not damaged:
        return [decode(reply) for reply in replies]
    if damaged == len(replies):
        raise Unusable("malformed", "no MCP3008 answers; check its supply, and the wires of MISO, MOSI, CLK and CS")
    raise Unusable(
        "malformed",
        f"{damaged} of {len(replies)} answers are damaged; shorten the wires, check the ground, or lower speed_hz",
    )
