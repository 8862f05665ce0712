"""Numbers as text, all those of a record at once: printing them is most of what an encoder has to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from reading import Value

_encode: Final = msgspec.json.Encoder().encode


def print_numbers(values: Iterable[Value]) -> list[bytes] | None:
    """Print every number in the shortest way that reads back as the very same.

    None if there is nothing, or something that is no finite number of at most 64 bits: look at each one then.

    >>> print_numbers([0.1, -3, 1e300])
    [b'0.1', b'-3', b'1e300']
    >>> print_numbers([1.0, "on"]), print_numbers([float("nan")]), print_numbers([])
    (None, None, None)
    """
    try:
        packed = _encode(tuple(values))  # JSON says null to NaN and infinity
    except (OverflowError, UnicodeEncodeError):
        return None
    if b"n" in packed or b'"' in packed or packed == b"[]":
        return None
    return packed[1:-1].split(b",")
