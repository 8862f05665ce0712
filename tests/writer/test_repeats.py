"""A number is new exactly once, in whatever order the numbers come."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from writer.repeats import WINDOW, Seen, with_number


@given(st.lists(st.integers(0, WINDOW - 1), max_size=200))
def test_each_number_is_new_once(numbers: list[int]) -> None:
    boots: dict[str, Seen] = {}
    seen: set[int] = set()
    for number in numbers:
        now = with_number(boots, "b", number)
        assert (now is None) == (number in seen)
        boots = now or boots
        seen.add(number)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(boots), type=dict[str, Seen]) == boots


@given(st.lists(st.integers(0, 2**60), max_size=50))
def test_a_jump_of_any_size_is_new_and_bounded(numbers: list[int]) -> None:
    boots: dict[str, Seen] = {}
    for number in numbers:
        boots = with_number(boots, "b", number) or boots
        assert len(boots["b"].window) <= WINDOW // 8
        assert with_number(boots, "b", boots["b"].highest) is None


def test_what_is_older_than_the_window_is_taken_rather_than_lost() -> None:
    boots = with_number({}, "b", 5 * WINDOW)
    assert boots is not None
    assert with_number(boots, "b", 1) == boots


def test_a_backlog_from_before_the_device_started_anew_is_still_known() -> None:
    boots: dict[str, Seen] = {}
    for boot in ("one", "two", "three", "four"):
        boots = with_number(boots, boot, 1) or boots
    assert with_number(boots, "one", 1) is None
    boots = with_number(boots, "five", 1) or boots
    assert list(boots) == ["two", "three", "four", "five"]
