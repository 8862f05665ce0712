"""When a child that ended is started again: at once, then ever later, never given up."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from supervise.states import CONFIGURATION_EXITS

HEALTHY_AFTER_S: Final = 60.0  # having run for so long, a child starts with a clean slate
DEGRADED_ENDS: Final = 5
DEGRADED_WITHIN_S: Final = 300.0
_AFTER_BAD_CONFIGURATION_S: Final = 60.0


@dataclass(slots=True)
class Restarts:
    """The patience with one child. All times are monotonic seconds."""

    longest_s: float = 60.0  # the pause does not grow beyond this
    _pause_s: float = 0.0
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=DEGRADED_ENDS))

    def pause_s(self, now_s: float, ran_for_s: float, exit_status: int) -> float:
        """Note an end and return how long to wait before the next start.

        >>> patience = Restarts()
        >>> patience.pause_s(0.0, ran_for_s=1.0, exit_status=1)
        0.0
        >>> 0.8 <= patience.pause_s(1.0, ran_for_s=1.0, exit_status=1) <= 1.2
        True
        """
        self._ends.append(now_s)
        if ran_for_s >= HEALTHY_AFTER_S:
            self._pause_s = 0.0
        if exit_status in CONFIGURATION_EXITS:
            return _AFTER_BAD_CONFIGURATION_S
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - so that children do not restart in step
        self._pause_s = min(max(1.0, self._pause_s * 2), self.longest_s)
        return min(pause_s, self.longest_s)

    def is_degraded(self, now_s: float) -> bool:
        """Whether the child ended five times within five minutes."""
        return len(self._ends) == DEGRADED_ENDS and now_s - self._ends[0] <= DEGRADED_WITHIN_S
