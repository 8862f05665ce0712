"""What looking round came to: what is there, what refused to be looked at, and what to write or to try next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXIT_FAILED = 1
EXIT_PARTLY = 3


@dataclass(slots=True)
class Discovery:
    """One kind of thing."""

    lines: list[str] = field(default_factory=list)  # what is there, for a person
    found: list[dict[str, Any]] = field(default_factory=list)  # the same for a program; empty: nothing usable
    problems: list[str] = field(default_factory=list)  # what; what now
    block: str = ""  # of the configuration, ready to be used
    what_now: list[str] = field(default_factory=list)  # where nothing is found

    @property
    def status(self) -> int:
        if not self.found:
            return EXIT_FAILED
        return EXIT_PARTLY if self.problems else 0


def numbered(name: str, number: int) -> str:
    """Name the first, second … source of a kind.

    >>> numbered("rails", 0), numbered("rails", 1)
    ('rails', 'rails-2')
    """
    return f"{name}-{number + 1}" if number else name
