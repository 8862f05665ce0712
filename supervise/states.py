"""The states of a child process, and the sets that they form."""

from __future__ import annotations

import enum
import os
from typing import Final


class State(enum.IntEnum):
    """In the order of `vitals.PROCESS_STATES`."""

    STARTING = 0  # forked, no heartbeat yet
    RUNNING = 1
    BACKOFF = 2  # it ended and waits for its next start
    DEGRADED = 3  # it runs or waits, but ended too often of late
    STOPPED = 4  # on request


# sysexits.h: what a new start alone does not mend, so it is not tried in a loop.
CONFIGURATION_EXITS: Final = range(os.EX_USAGE, os.EX_CONFIG + 1)
