"""What a pulse worker knows, in memory that outlives it: a descriptor that the parent keeps, as it keeps the lines.

It is written after every look into the kernel's buffer, before anything is reported. A worker that is killed between
the two leaves a gap in the numbers of the edges, which its successor counts; killed later, it leaves the count itself.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Final

import msgspec
from msgspec import Struct

from reading import Reading
from workers._pulse import Tally

_HEAD: Final = struct.Struct("=QII")  # turn, length, CRC-32 of the rest
_SLOT_BYTES: Final = 1 << 20  # two of them; pages that nobody writes cost nothing
_MOST_UNREPORTED: Final = 1000  # the writer knows a number again as long as no more than 1,024 came after it


class State(Struct):
    """All that a successor needs."""

    request: str  # what the kept lines were requested for; a request for anything else is of no use
    offsets: list[int]  # of the lines, in the order of the channels
    tallies: dict[str, Tally]
    unreported: list[Reading]  # pulses that are counted, and perhaps not in the report channel yet


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(State).decode


class Memory:
    """Two slots, written in turn: a kill in the middle of writing one leaves the other."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._turn = 0

    @classmethod
    def new(cls) -> Memory:
        return cls(os.memfd_create("wattherd-pulses", os.MFD_CLOEXEC))

    def load(self) -> State | None:
        """Return what was noted last, None if that is nothing that can be read."""
        found: tuple[int, State | None] = (0, None)
        for slot in (0, 1):
            turn, length, crc = _HEAD.unpack(self._read(slot * _SLOT_BYTES, _HEAD.size).ljust(_HEAD.size, b"\0"))
            content = self._read(slot * _SLOT_BYTES + _HEAD.size, min(length, _SLOT_BYTES))
            if turn <= found[0] or zlib.crc32(content, turn & 0xFFFFFFFF) != crc:
                continue
            try:
                found = turn, _decode(content)
            except msgspec.MsgspecError:
                continue  # another version of wattherd wrote it
        self._turn, state = found
        return state

    def note(self, state: State) -> None:
        del state.unreported[:-_MOST_UNREPORTED]
        content = _encode(state)
        self._turn += 1
        head = _HEAD.pack(self._turn, len(content), zlib.crc32(content, self._turn & 0xFFFFFFFF))
        os.pwrite(self.descriptor, head + content, self._turn % 2 * _SLOT_BYTES)

    def _read(self, at: int, length: int) -> bytes:
        return os.pread(self.descriptor, length, at)
