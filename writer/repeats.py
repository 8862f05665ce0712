"""Which of a device's own messages were committed already: one that comes twice is booked once.

A sender that got no answer sends again, perhaps after newer messages, perhaps after a worker was killed that had the
first copy. So its numbers are remembered one by one, as far back as a home's devices ever repeat themselves, each with
a digest of what was said: a device that numbers something new with an old number is misbuilt, and still not ignored.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from reading import Value

WINDOW: Final = 256  # numbers below the highest one; what comes later than that cannot be told from something new
_MOST_BOOTS: Final = 4  # of one device: what it kept from before it started anew may still come
_DIGEST_BYTES: Final = 2
_encode = msgspec.msgpack.Encoder(order="sorted").encode


class Seen(Struct, frozen=True, array_like=True):
    """The numbers of one boot of one device."""

    highest: int
    digests: bytes  # two bytes each: of `highest`, of the number below it and so on; zero where none was seen


def digest(values: Mapping[str, Value]) -> bytes:
    """Tell two messages apart: two bytes, never zero, the same in every process."""
    return (zlib.crc32(_encode(values)) % 0xFFFF + 1).to_bytes(_DIGEST_BYTES, "little")


def with_message(boots: Mapping[str, Seen], boot: str, number: int, what: bytes) -> dict[str, Seen] | None:
    """Return `boots` with one more message, None if it was there already. The boot of the newest message is last.

    >>> boots = {}
    >>> for number in (7, 9, 8):
    ...     boots = with_message(boots, "b00t", number, b"ab")
    >>> with_message(boots, "b00t", 8, b"ab") is None, with_message(boots, "b00t", 8, b"xy") is None
    (True, False)
    """
    seen = _with_message(boots.get(boot), number, what)
    if seen is None:
        return None
    others = [(other, numbers) for other, numbers in boots.items() if other != boot]
    return dict([*others[1 - _MOST_BOOTS :], (boot, seen)])


def _with_message(seen: Seen | None, number: int, what: bytes) -> Seen | None:
    if seen is None:
        return Seen(number, what)
    age = seen.highest - number
    if age < 0:
        unseen = bytes(_DIGEST_BYTES * min(-age - 1, WINDOW))
        return Seen(number, (what + unseen + seen.digests)[: _DIGEST_BYTES * WINDOW])
    if age >= WINDOW:
        return seen
    place = slice(_DIGEST_BYTES * age, _DIGEST_BYTES * (age + 1))
    if seen.digests[place] == what:
        return None
    digests = bytearray(seen.digests.ljust(place.stop, b"\0"))
    digests[place] = what
    return Seen(seen.highest, bytes(digests))
