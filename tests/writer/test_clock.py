"""The wall clock: believed when the kernel says that it is set, and followed when it is stepped."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest

from logbook.moment import boot_id
from writer import clock
from writer.clock import STEP_NS, WallClock, kernel_says_synchronised, wall_minus_monotonic_ns


class World:
    """A machine whose clocks a test can turn."""

    def __init__(self) -> None:
        self.synchronised = False
        self.offset_ns = 1_000
        self.monotonic_s = 0.0

    def clock(self, require_sync: bool | str = True, hold_at_most_s: float = 600.0) -> WallClock:
        return WallClock(
            require_sync,  # type: ignore[arg-type]
            hold_at_most_s,
            synchronised=lambda: self.synchronised,
            offset=lambda: self.offset_ns,
            monotonic=lambda: self.monotonic_s,
        )


@pytest.fixture
def world() -> World:
    return World()


def test_a_clock_is_trusted_once_it_is_set_and_has_the_offset_of_then(world: World) -> None:
    wall = world.clock()
    assert not wall.trusted and not wall.hopeless
    world.offset_ns = 10**18  # set, and by a lot: that is no step, because nobody believed it before
    world.synchronised = True
    wall.look()
    assert wall.trusted
    assert (wall.offset_ns, wall.steps) == (10**18, 0)


def test_once_trusted_it_stays_so_when_the_time_server_is_out_of_reach(world: World) -> None:
    world.synchronised = True
    wall = world.clock()
    world.synchronised = False
    wall.look()
    assert wall.trusted
    world.monotonic_s = 10_000
    assert not wall.hopeless


def test_a_clock_that_nobody_sets_is_hopeless_after_the_time_limit_and_not_before(world: World) -> None:
    wall = world.clock(hold_at_most_s=600)
    world.monotonic_s = 599.9
    wall.look()
    assert not wall.hopeless
    world.monotonic_s = 600
    assert wall.hopeless and not wall.trusted
    world.synchronised = True  # late, and still welcome
    wall.look()
    assert wall.trusted and not wall.hopeless


@pytest.mark.parametrize(("by_ns", "steps"), [(STEP_NS - 1, 0), (STEP_NS, 1), (-STEP_NS, 1), (-(10**15), 1), (500, 0)])
def test_a_step_is_counted_and_followed_and_a_slew_only_followed(world: World, by_ns: int, steps: int) -> None:
    world.synchronised = True
    wall = world.clock()
    world.offset_ns += by_ns
    wall.look()
    wall.look()
    assert (wall.steps, wall.offset_ns) == (steps, world.offset_ns)


def test_a_slew_of_hours_is_no_step_however_far_it_gets(world: World) -> None:
    world.synchronised = True
    wall = world.clock()
    for _ in range(100):
        world.offset_ns += STEP_NS // 10
        wall.look()
    assert (wall.steps, wall.offset_ns) == (0, world.offset_ns)


def test_without_a_requirement_the_clock_is_trusted_at_once(world: World) -> None:
    assert world.clock(require_sync=False).trusted


@pytest.mark.parametrize("service", [True, False])
def test_auto_requires_what_a_time_service_can_give(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: bool
) -> None:
    sign = tmp_path / "chrony"
    if service:
        sign.mkdir()
    monkeypatch.setattr(clock, "_TIME_SERVICES", (str(sign),))
    assert world.clock(require_sync="auto").trusted is not service
    assert world.clock(require_sync=True).trusted is False


def test_the_kernel_answers_and_its_answer_is_understood() -> None:
    assert kernel_says_synchronised() in (True, False)
    timex = clock._Timex()
    assert ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) >= 0
    # Were the layout wrong, these would be elsewhere: the kernel's own time, and a tick of about 10 ms.
    assert abs(timex.time.tv_sec - time.time()) < 5
    assert 9_000 <= timex.tick <= 11_000
    assert kernel_says_synchronised() is not bool(timex.status & clock._STA_UNSYNC)


def test_the_offset_turns_monotonic_time_into_utc() -> None:
    assert abs(time.monotonic_ns() + wall_minus_monotonic_ns() - time.time_ns()) < 50_000_000
    assert WallClock(False, 1).boot == boot_id() != ""
