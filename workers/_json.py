"""Reads JSON that strangers send, strictly: what it cannot mean exactly one thing by is refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

_NUMBER: Final = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,3})?", re.ASCII)
_NOT_FINITE: Final = ("nan", "inf", "infinity")


class Refused(Exception):  # noqa: N818 - an answer to a sender, not a fault of ours
    """A payload that is not let in: by which of `vitals.REFUSALS`, what is wrong, and what its sender can do."""

    def __init__(self, reason: str, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")
        self.reason = reason
        self.what = what
        self.what_now = what_now


class NotJson(Refused):
    """The payload is no JSON at all, or JSON that means two things."""

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__("malformed", what, what_now)


def parse(payload: bytes, what_now: str) -> Any:
    """Parse one JSON text; `what_now` is what its sender is told when it is none. Raise `Refused`.

    >>> parse(b'{"power": 56.5}', "send JSON")
    {'power': 56.5}
    >>> parse(b'{"power": 56, "power": 57}', "send JSON")
    Traceback (most recent call last):
    ...
    workers._json.NotJson: a name occurs twice in one object; send JSON
    """

    def refuse_constant(constant: str) -> float:
        raise not_finite(constant)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise NotJson("a name occurs twice in one object", what_now)
        return fields

    try:
        text = payload.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse_constant, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise NotJson("the payload is not UTF-8", what_now) from error
    except ValueError as error:
        raise NotJson(f"the payload is not JSON: {error}", what_now) from error
    except RecursionError as error:
        raise NotJson("the payload is nested too deeply", what_now) from error


def number(value: object, name: str) -> float | int:
    """Return a finite number, also one that firmware has put in quotes. True is none. Raise `Refused`.

    >>> number("56.20", "power"), number("-7", "power"), number(5e3, "power")
    (56.2, -7, 5000.0)
    """
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            if value.lower().lstrip("+-") in _NOT_FINITE:
                raise not_finite(name)
            raise Refused("malformed", f"{name} is no number", "send it as a plain JSON number")
        value = float(value) if {*value} & {*".eE"} else _integer(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("malformed", f"{name} is no number", "send it as a plain JSON number")
    if not math.isfinite(value):
        raise not_finite(name)
    return value


def not_finite(name: str) -> Refused:
    return Refused("not_finite", f"{name} is not finite", "leave out what could not be measured, or send null")


def _integer(digits: str) -> float | int:
    """Read an integer in linear time: no counter has more digits than these."""
    return int(digits) if len(digits) <= 19 else float(digits)
