"""States by power: nothing flickers, and what lasts is told in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logbook.moment import Moment
from writer.states import State, StateRules, look

SECOND = 10**9
RULES = StateRules(("idle", "running", "boost"), (50.0, 1500.0), hysteresis_w=10.0, dwell_ns=20 * SECOND)


def run(powers: list[float], rules: StateRules = RULES, every_s: int = 10) -> list[str]:
    state: State | None = None
    told = []
    for number, power_w in enumerate(powers):
        state = look(state, power_w, Moment("boot", number * every_s * SECOND), rules)
        told.append(rules.names[state.level])
    return told


def test_a_new_state_is_told_when_it_has_lasted() -> None:
    assert run([3, 80, 80, 80, 3, 3, 3]) == ["idle", "idle", "idle", "running", "running", "running", "idle"]


def test_a_peak_that_does_not_last_changes_nothing() -> None:
    assert set(run([3, 80, 3, 80, 3, 80, 3])) == {"idle"}


def test_within_the_hysteresis_a_state_stays() -> None:
    quick = StateRules(("idle", "running"), (50.0,), hysteresis_w=10.0)
    assert run([3, 54, 56, 51, 46, 44], quick) == ["idle", "idle", "running", "running", "running", "idle"]


def test_states_between_are_skipped_when_the_power_is_far_beyond() -> None:
    assert run([3, 2000, 2000, 2000]) == ["idle", "idle", "idle", "boost"]


def test_while_it_goes_on_rising_the_last_one_has_to_last() -> None:
    assert run([3, 80, 2000, 2000, 2000]) == ["idle", "idle", "idle", "idle", "boost"]


def test_export_is_work_too() -> None:
    assert run([-2000]) == ["boost"]


def test_over_a_boot_of_unknown_length_the_new_state_is_told_at_once() -> None:
    state = State(0, 1, Moment("boot", 5))
    assert look(state, 80, Moment("next", 1), RULES).level == 1


def test_fewer_states_than_before_begin_anew() -> None:
    assert look(State(2, 2, Moment()), 80, Moment("boot", 1), StateRules(("off", "on"), (5.0,))).level == 1


@given(st.lists(st.floats(45.1, 54.9), min_size=1, max_size=30))
def test_noise_around_a_threshold_never_flickers(powers: list[float]) -> None:
    quick = StateRules(("idle", "running"), (50.0,), hysteresis_w=10.0)
    assert len(set(run(powers, quick))) == 1
