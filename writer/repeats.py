"""Which of a device's own numbers were committed already: a message that comes twice is booked once.

A sender that got no answer sends again, perhaps after newer messages, perhaps after a worker was killed that had the
first copy. So the numbers are remembered one by one, as far back as a home's devices ever repeat themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

WINDOW: Final = 1024  # numbers below the highest one; what comes later than that cannot be told from something new
_ALL: Final = (1 << WINDOW) - 1
_MOST_BOOTS: Final = 4  # of one device: what it kept from before it started anew may still come


class Seen(Struct, frozen=True, array_like=True):
    """The numbers of one boot of one device."""

    highest: int
    window: bytes  # little-endian bits: bit n is set if `highest - n` was seen


def with_number(boots: Mapping[str, Seen], boot: str, number: int) -> dict[str, Seen] | None:
    """Return `boots` with one more number, None if it was there already. The boot of the newest message is last.

    >>> boots = {}
    >>> for number in (7, 9, 8):
    ...     boots = with_number(boots, "b00t", number)
    >>> with_number(boots, "b00t", 8) is None, with_number(boots, "b00t", 6) is None
    (True, False)
    """
    seen = _with_number(boots.get(boot), number)
    if seen is None:
        return None
    others = [(other, what) for other, what in boots.items() if other != boot]
    return dict([*others[1 - _MOST_BOOTS :], (boot, seen)])


def _with_number(seen: Seen | None, number: int) -> Seen | None:
    if seen is None:
        return Seen(number, b"\1")
    bits = int.from_bytes(seen.window, "little")
    age = seen.highest - number
    if age < 0:
        bits = (bits << -age) & _ALL | 1 if -age < WINDOW else 1
        return Seen(number, _packed(bits))
    if age >= WINDOW:
        return seen
    if bits >> age & 1:
        return None
    return Seen(seen.highest, _packed(bits | 1 << age))


def _packed(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
