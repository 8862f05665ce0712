"""When a reading was taken, as far as the device, the clock and the way it came can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from reading import Origin, Reading
from writer.clock import WallClock
from writer.derive import Derivation
from writer.outbox import Intake, Outbox

HOUR = 3600 * 10**9
OFFSET = 1_800_000_000 * 10**9
NOW = 500 * HOUR  # monotonic


class Desk:
    """A derivation whose clock a test sets."""

    def __init__(self, path: Path) -> None:
        self.is_set = True
        self.outbox = Outbox(path, reserve_bytes=0, quota_bytes=10**9)
        self.intake = Intake()

    def takes(self, age_ns: int | None, *, late: bool) -> int | None:
        """Return how old a reading is taken for, None if it is left out; the device says that it is `age_ns` old."""
        clock = WallClock(True, 600, synchronised=lambda: self.is_set, offset=lambda: OFFSET)
        origin = Origin("b", 1, 0 if age_ns is None else NOW + OFFSET - age_ns, late)
        reading = Reading("d", NOW, {"pulses": 7}, origin=origin)
        made = list(Derivation(self.outbox, clock, {}).derived("meter", reading, self.intake))
        assert all(one.origin is None for one in made)
        return NOW - made[0].at_ns if made else None


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "outbox.db")


def test_the_date_of_a_device_is_believed_within_a_day(desk: Desk) -> None:
    assert desk.takes(3 * HOUR, late=False) == 3 * HOUR
    assert desk.takes(25 * HOUR, late=False) == 0
    assert desk.takes(-HOUR, late=False) == 0
    assert desk.takes(None, late=False) == 0


def test_what_waited_at_a_broker_has_its_own_date_or_is_left_out(desk: Desk) -> None:
    assert desk.takes(3 * HOUR, late=True) == 3 * HOUR
    assert desk.takes(60 * HOUR, late=True) == 60 * HOUR
    assert desk.intake.undated == 0
    assert desk.takes(40 * 24 * HOUR, late=True) is None
    assert desk.takes(-HOUR, late=True) is None
    assert desk.takes(None, late=True) is None
    assert desk.intake.undated == 3


def test_before_the_clock_is_set_nothing_that_waited_can_be_dated(desk: Desk) -> None:
    desk.is_set = False
    assert desk.takes(3 * HOUR, late=False) == 0
    assert desk.takes(3 * HOUR, late=True) is None
