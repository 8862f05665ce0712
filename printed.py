"""Numbers as text, all those of a batch at once: printing them is most of what an encoder has to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def fill(templates: Iterable[bytes], numbers: Sequence[Value]) -> bytes | None:
    """Join `templates` and print `numbers` into their places, each a `%b`, in the order of both.

    None if a number is none, as with `print_numbers`.

    >>> fill([b"power_w=%b %b\\n", b"100%% on\\n", b"power_w=%b %b\\n"], [86.5, 7, 90.0, 8])
    b'power_w=86.5 7\\n100% on\\npower_w=90.0 8\\n'
    >>> fill([b"power_w=%b\\n"], [float("inf")])
    """
    printed = print_numbers(numbers) if numbers else []
    return None if printed is None else b"".join(templates) % tuple(printed)


def no_template(text: bytes) -> bytes:
    """Return the template of a text that has no places."""
    return text.replace(b"%", b"%%")
