"""What a register books, step by step and over random lives of counters."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logbook.entries import Kind
from logbook.moment import Moment
from writer.register import ROLLOVERS_UWH, UWH, Counter, Power, Rules, Step, follow, integrate

BOOT = "boot-1"
SECOND = 10**9
WH = UWH
KWH = 1000 * UWH


def at(seconds: float, boot: str = BOOT, utc_s: float = 0) -> Moment:
    return Moment(boot, int(seconds * SECOND), int(utc_s * SECOND))


@dataclass
class Followed:
    """A counter that is read every ten seconds."""

    counter: Counter
    rules: Rules = field(default_factory=Rules)
    now_s: float = 0.0
    booked_uwh: int = 0
    kinds: list[Kind] = field(default_factory=list)

    def shows(self, *wh: float, every_s: float = 10.0, **known: bool) -> Step:
        for each in wh:
            self.now_s += every_s
            step = follow(self.counter, round(each * WH), at(self.now_s), self.rules, **known)
            self.booked_uwh += step.booked_uwh
            if step.kind:
                self.kinds.append(step.kind)
        return step

    @property
    def booked_wh(self) -> float:
        return self.booked_uwh / WH


def followed(wh: float, **rules: float) -> Followed:
    return Followed(Counter(round(wh * WH), at(0)), Rules(**rules))


def test_a_counter_that_goes_on_is_booked_as_it_is() -> None:
    meter = followed(215_000.0)
    meter.shows(215_000.5, 215_003, 215_003, 215_010.25)
    assert meter.booked_wh == 10.25
    assert meter.kinds == []


def test_one_wrong_number_books_nothing() -> None:
    """The spike that others booked as 215.6 kWh: 215.7, then once 215.6 (or 0), then 215.7 again."""
    for wrong in (215_600.0, 0.0, 9_999_999.0):
        meter = followed(215_700.0)
        assert not meter.shows(wrong).believed
        assert meter.shows(215_701).booked_uwh == WH
        assert meter.kinds == [Kind.GLITCH]
        meter.shows(215_702)
        assert meter.booked_wh == 2


def test_a_reset_is_believed_when_three_readings_say_so_and_then_books_all_since_zero() -> None:
    meter = followed(215_700.0)
    meter.shows(4, 8)
    assert meter.booked_wh == 0
    meter.shows(12)
    assert (meter.booked_wh, meter.kinds) == (12, [Kind.RESET])
    meter.shows(16)
    assert meter.booked_wh == 16


def test_a_device_that_says_that_it_began_anew_is_believed_at_once() -> None:
    meter = followed(215_700.0)
    meter.shows(4, restarted=True)
    assert (meter.booked_wh, meter.kinds) == (4, [Kind.RESET])


def test_a_counter_that_goes_on_from_an_older_count_books_only_what_is_certainly_new() -> None:
    meter = followed(215_700.0)
    meter.shows(215_650, restarted=True)
    meter.shows(215_655)
    assert (meter.booked_wh, meter.kinds) == (5, [Kind.SETBACK])


def test_a_reset_to_more_than_can_have_been_used_books_only_what_is_certainly_new() -> None:
    meter = followed(215_700.0)
    meter.shows(5000, 5001, 5002)
    assert (meter.booked_wh, meter.kinds) == (2, [Kind.SETBACK])


@pytest.mark.parametrize("largest_uwh", ROLLOVERS_UWH)
def test_a_counter_that_runs_over_its_largest_number_goes_on(largest_uwh: int) -> None:
    largest = largest_uwh / WH
    meter = followed(largest - 8)
    meter.shows(largest - 4, 0, 4, 8)
    assert (meter.booked_wh, meter.kinds) == (16, [Kind.ROLLOVER])


def test_a_jump_beyond_the_rated_power_is_not_booked_and_what_follows_is() -> None:
    meter = followed(1000.0, rated_power_w=3000)
    meter.shows(1001, 9000, 9005, 9010)
    assert meter.kinds == [Kind.JUMP]
    meter.shows(9015)
    assert meter.booked_wh == 1 + 10 + 5


def test_a_coarse_counter_moves_by_whole_steps() -> None:
    """Tenths of a kilowatt-hour at 3 kW: a step every two minutes, read every ten seconds."""
    meter = followed(12_300.0, rated_power_w=3700)
    for step in range(5):
        meter.shows(*[12_300.0 + 100 * step] * 11, 12_400.0 + 100 * step)
    assert (meter.booked_wh, meter.kinds) == (500, [])


def test_what_was_counted_in_a_long_silence_is_an_estimate_in_time_and_booked_in_full() -> None:
    meter = followed(1000.0)
    step = meter.shows(3000, every_s=7200)
    assert (step.kind, step.booked_uwh, step.gap_ns) == (Kind.ESTIMATED, 2000 * WH, 7200 * SECOND)
    meter.shows(3000, every_s=7200)
    assert meter.kinds == [Kind.ESTIMATED]


def test_another_device_begins_where_the_old_one_ended() -> None:
    meter = followed(215_700.0)
    meter.shows(17, replaced=True)
    meter.shows(18)
    assert (meter.booked_wh, meter.kinds) == (1, [Kind.REPLACEMENT])


def test_over_a_boot_whose_length_nobody_knows_what_the_counter_says_is_believed() -> None:
    counter = Counter(1000 * WH, at(500))
    step = follow(counter, 9000 * WH, at(3, boot="boot-2"), Rules())
    assert (step.kind, step.booked_uwh, step.gap_ns) == (Kind.ESTIMATED, 8000 * WH, 0)


def test_power_is_the_area_under_the_line_on_each_side_of_zero() -> None:
    power = Power(0, at(0))
    assert integrate(power, 3600 * 10**6, at(2), Rules()) == (1 * WH, 0)
    assert integrate(power, -3600 * 10**6, at(6), Rules()) == (1 * WH, 1 * WH)
    assert integrate(power, -3600 * 10**6, at(8), Rules()) == (0, 2 * WH)


def test_power_is_never_integrated_over_a_gap() -> None:
    power = Power(1000 * 10**6, at(0))
    assert integrate(power, 1000 * 10**6, at(301), Rules()) == (0, 0)
    assert integrate(power, 1000 * 10**6, at(3, "boot-2"), Rules()) == (0, 0)
    assert integrate(power, 3600 * 10**6, at(4, "boot-2"), Rules()) == (int((1000 + 3600) / 2 / 3600 * WH), 0)


@given(st.lists(st.tuples(st.integers(-25_000, 25_000), st.integers(1, 60_000)), max_size=40))
def test_the_area_is_the_same_to_the_last_microwatthour_however_it_is_cut(steps: list[tuple[int, int]]) -> None:
    """An independent sum of floats; its own error is what the tolerance is for."""
    power, now_ms = Power(0, at(0)), 0
    booked_in = booked_out = 0
    true_in = true_out = 0.0
    before_w = 0
    for watts, after_ms in steps:
        now_ms += after_ms
        inward, outward = integrate(power, watts * 10**6, at(now_ms / 1000), Rules())
        booked_in, booked_out = booked_in + inward, booked_out + outward
        hours = after_ms / 3.6e6
        if (before_w < 0) != (watts < 0) and before_w and watts:
            share = abs(before_w) / (abs(before_w) + abs(watts))
            areas = [before_w * share / 2 * hours, watts * (1 - share) / 2 * hours]
        else:
            areas = [(before_w + watts) / 2 * hours]
        true_in += sum(area for area in areas if area > 0)
        true_out -= sum(area for area in areas if area < 0)
        before_w = watts
    assert abs(booked_in / WH - true_in) < 2e-6
    assert abs(booked_out / WH - true_out) < 2e-6


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """What happens to a counter, reading by reading: (event, energy of the ten seconds in Wh, a number)."""
    events = st.sampled_from(["on"] * 12 + ["glitch", "reset", "gap", "repeat"])
    return draw(st.lists(st.tuples(events, st.integers(0, 60), st.integers(0, 10**9)), max_size=60))


@given(st.integers(100_000, 9_000_000), lives())
def test_over_a_random_life_the_register_never_falls_and_has_what_was_used(
    start: int, life: list[tuple[str, int, int]]
) -> None:
    """Resets lose what was used between the last reading and them, which nobody can know; the generator counts none."""
    meter = Followed(Counter(start * WH, at(0)))
    shown, used = start, 0
    registers = [0]
    quiet = 3  # readings since something odd: what is odd twice in a row cannot be told apart by anybody
    for event, energy, number in [*life, *[("on", 1, 0)] * 4]:
        odd = quiet >= 3
        quiet = quiet + 1
        if event == "glitch" and odd:
            meter.shows(number if abs(number - shown) > 1000 else shown + 10**6)
            quiet = 0
        elif event == "reset" and odd and shown > 1000:
            shown = 0
            quiet = 0
            meter.shows(shown)
        elif event == "gap" and odd:
            shown, used = shown + 20 * energy, used + 20 * energy
            meter.shows(shown, every_s=3600)
        elif event != "repeat":
            shown, used = shown + energy, used + energy
            meter.shows(shown)
        registers.append(meter.booked_uwh)
    assert registers == sorted(registers)
    assert meter.booked_wh == used


@given(st.integers(64_000, 65_535), lives())
def test_over_a_random_life_of_a_counter_of_16_bits_no_rollover_costs_anything(
    start: int, life: list[tuple[str, int, int]]
) -> None:
    """As above, with a counter that runs over; what comes twice and what comes while it is confirmed is in it too."""
    meter = Followed(Counter(start * WH, at(0)))
    shown, used, quiet = start, 0, 3
    registers = [0]
    for event, energy, number in [*life, *[("on", 1, 0)] * 4]:
        if event == "glitch" and quiet >= 3:
            wrong = number % 65_536
            quiet = 0
            if abs(wrong - shown) > 2000 and wrong > 2000:  # else it could be true
                meter.shows(wrong)
        elif event == "repeat":
            meter.shows(shown)
        elif event != "gap" and event != "reset":
            rolls = shown + energy >= 65_536
            if rolls and quiet < 3:
                continue  # two odd things at once cannot be told apart by anybody
            quiet = 0 if rolls else quiet + 1
            shown, used = (shown + energy) % 65_536, used + energy
            meter.shows(shown)
        registers.append(meter.booked_uwh)
    assert registers == sorted(registers)
    assert meter.booked_wh == used
