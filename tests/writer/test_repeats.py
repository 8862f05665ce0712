"""A number is new exactly once, in whatever order the numbers come."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from writer.repeats import WINDOW, Seen, digest, with_message

WHAT = digest({"power_w": 1.0})


@given(st.lists(st.integers(0, WINDOW - 1), max_size=200))
def test_each_number_is_new_once(numbers: list[int]) -> None:
    boots: dict[str, Seen] = {}
    seen: set[int] = set()
    for number in numbers:
        now = with_message(boots, "b", number, WHAT)
        assert (now is None) == (number in seen)
        boots = now or boots
        seen.add(number)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(boots), type=dict[str, Seen]) == boots


@given(st.lists(st.integers(0, 2**60), max_size=50))
def test_a_jump_of_any_size_is_new_and_bounded(numbers: list[int]) -> None:
    boots: dict[str, Seen] = {}
    for number in numbers:
        boots = with_message(boots, "b", number, WHAT) or boots
        assert len(boots["b"].digests) <= 2 * WINDOW
        assert with_message(boots, "b", boots["b"].highest, WHAT) is None


def test_what_is_older_than_the_window_is_taken_rather_than_lost() -> None:
    boots = with_message({}, "b", 5 * WINDOW, WHAT)
    assert boots is not None
    assert with_message(boots, "b", 1, WHAT) == boots


def test_a_backlog_from_before_the_device_started_anew_is_still_known() -> None:
    boots: dict[str, Seen] = {}
    for boot in ("one", "two", "three", "four"):
        boots = with_message(boots, boot, 1, WHAT) or boots
    assert with_message(boots, "one", 1, WHAT) is None
    boots = with_message(boots, "five", 1, WHAT) or boots
    assert list(boots) == ["two", "three", "four", "five"]


def test_something_new_under_an_old_number_is_taken_and_its_own_repeat_is_not() -> None:
    other = digest({"power_w": 2.0})
    boots = with_message({}, "constant", 1, WHAT)
    boots = with_message(boots or {}, "constant", 2, WHAT)
    boots = with_message(boots or {}, "constant", 1, other)
    assert boots is not None
    assert with_message(boots, "constant", 1, other) is None


@given(st.dictionaries(st.text(), st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text()))
def test_a_digest_does_not_depend_on_the_order_of_the_values(values: dict[str, float]) -> None:
    assert digest(values) == digest(dict(reversed(values.items())))
    assert digest(values) != b"\0\0"
