"""What `verify` looks at: small checks over facts that were gathered before, so that each can be shown any machine."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple


class Mark(enum.StrEnum):
    """How a check came out."""

    GOOD = "✓"
    NOTE = "·"  # worth knowing, nothing to do
    MIND = "!"  # it works, or may; somebody should look
    WRONG = "✗"


class Finding(NamedTuple):
    """One line of the report."""

    part: str  # "clock", "output influx", "source meter"
    check: str  # for programs, the same for ever
    mark: Mark
    what: str
    what_now: str = ""

    @property
    def line(self) -> str:
        return f"{self.mark} {self.what}" + (f"; {self.what_now}" if self.what_now else "")


def status_of(findings: Iterable[Finding]) -> int:
    """Return the exit code: 1 if something is wrong, 3 if something is to be looked at.

    >>> [status_of(Finding("", "", mark, "") for mark in marks) for marks in ("✓·", "✓!", "!✗", "")]
    [0, 3, 1, 0]
    """
    marks = {finding.mark for finding in findings}
    return 1 if Mark.WRONG in marks else 3 if Mark.MIND in marks else 0
