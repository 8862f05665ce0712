"""What was found out about Tuya devices, in memory that outlives the worker: a descriptor that the parent keeps.

Probing the protocol takes a device many seconds, in which it answers nobody. So what once worked is tried first.
"""

from __future__ import annotations

import os
import zlib
from typing import Final

import msgspec
from msgspec import Struct

_MOST_BYTES: Final = 1 << 20


class Finding(Struct, frozen=True):
    """How a device was spoken to last, with its key proven."""

    version: str
    host: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Finding]).decode


class Memory:
    """One block with its checksum; a kill in the middle of writing costs a probe."""

    LABEL: Final = "tuya-findings"

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Memory:
        return cls(os.memfd_create("wattherd-tuya", os.MFD_CLOEXEC))

    def load(self) -> dict[str, Finding]:
        """Return what was noted, by the id of the device; nothing if that cannot be read."""
        block = os.pread(self.descriptor, _MOST_BYTES, 0)
        length, checksum, content = block[:4], block[4:8], block[8:]
        content = content[: int.from_bytes(length, "big")]
        if zlib.crc32(content).to_bytes(4, "big") != checksum:
            return {}
        try:
            return _decode(content)
        except msgspec.MsgspecError:
            return {}  # another version of wattherd wrote it

    def note(self, findings: dict[str, Finding]) -> None:
        content = _encode(findings)
        head = len(content).to_bytes(4, "big") + zlib.crc32(content).to_bytes(4, "big")
        os.pwrite(self.descriptor, head + content, 0)
