"""Views of the same energy are compared by whole local days, and a factor is suggested only where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import ReconciliationTable
from history.queries import History
from reconcile import Day, days_of, is_outside, midnight_before, present, suggested, total_of
from tests.metered import HOUR_NS, QUARTER_NS, Load, metered

LONDON = "Europe/London"
HOUSE = ReconciliationTable(views=("smart/grid", "meter/led"))
SUM = ReconciliationTable(views=("smart/grid", "plugs/tv + plugs/fridge"))


def at(text: str, timezone: str = LONDON) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp()) * 10**9


@contextmanager
def asking(folder: Path) -> Iterator[History]:
    history = History(folder / "history.db")
    try:
        yield history
    finally:
        history.close()


def compared(folder: Path, table: ReconciliationTable, first: str, last: str, timezone: str = LONDON) -> list[Day]:
    with asking(folder) as history:
        return days_of(history, table, at(first, timezone), at(last, timezone), timezone)


def steady(watts: float) -> Load:
    return lambda at_ns: watts


def by_date(watts_of: Callable[[int], float]) -> Load:
    """A load that differs from one UTC day to the next."""
    return lambda at_ns: watts_of(at_ns // (24 * HOUR_NS))


def test_a_day_has_the_hours_of_its_date_and_the_difference_of_its_registers(tmp_path: Path) -> None:
    meters = {"smart/grid": steady(1000), "meter/led": steady(950)}
    metered(tmp_path, meters, at("2026-03-27"), at("2026-03-30T23:45"))
    days = compared(tmp_path, HOUSE, "2026-03-28", "2026-03-31")
    assert [(day.end_ns - day.start_ns) // HOUR_NS for day in days] == [24, 23, 24]
    assert [day.energies_wh for day in days] == [(24_000, 22_800), (23_000, 21_850), (23_750, 22_562.5)]
    assert [day.difference_wh(1) for day in days] == [-1200, -1150, -1187.5]
    assert [day.complete for day in days] == [True, True, False]  # of the last one nothing is known behind its end
    total = total_of(days)
    assert total
    assert (total.days, total.hours, total.unaccounted_w(1)) == (2, 47.0, 50.0)


def test_in_october_a_day_has_25_hours(tmp_path: Path) -> None:
    meters = {"smart/grid": steady(1000), "meter/led": steady(1000)}
    metered(tmp_path, meters, at("2026-10-24"), at("2026-10-26T12:00"))
    [day] = compared(tmp_path, HOUSE, "2026-10-25", "2026-10-26")
    assert day.energies_wh == (25_000, 25_000)
    assert day.complete


@pytest.mark.parametrize("timezone", ["Asia/Kathmandu", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"])
def test_midnight_may_be_anywhere_within_an_hour(tmp_path: Path, timezone: str) -> None:
    meters = {"smart/grid": steady(1000), "meter/led": steady(500)}
    begin = at("2026-04-03", timezone) // HOUR_NS * HOUR_NS
    metered(tmp_path, meters, begin, at("2026-04-07", timezone))
    days = compared(tmp_path, HOUSE, "2026-04-04", "2026-04-06", timezone)
    hours = [(day.end_ns - day.start_ns) / HOUR_NS for day in days]
    assert sum(hours) == 48.5 if timezone == "Australia/Lord_Howe" else hours == [24.0, 24.0]
    for day, length in zip(days, hours, strict=True):
        assert day.complete
        assert day.energies_wh == pytest.approx((1000 * length, 500 * length), abs=0.01)


def test_a_sum_is_the_sum_of_its_channels(tmp_path: Path) -> None:
    meters = {"smart/grid": steady(1000), "plugs/tv": steady(100), "plugs/fridge": steady(50)}
    metered(tmp_path, meters, at("2026-01-01"), at("2026-01-03"))
    [day] = compared(tmp_path, SUM, "2026-01-01T00:00", "2026-01-02")
    assert day.missing == tuple(
        f"{name}: nothing was measured about its first midnight" for name in ("smart/grid", "plugs/tv", "plugs/fridge")
    )
    [day] = compared(tmp_path, SUM, "2026-01-02", "2026-01-03")
    assert day.energies_wh == (24_000, 3600)


def test_a_day_counts_only_if_every_channel_was_measured_about_both_midnights(tmp_path: Path) -> None:
    silent = {"meter/led": [range(at("2026-01-03T22:00"), at("2026-01-04T02:00"))]}
    meters = {"smart/grid": steady(1000), "meter/led": steady(900)}
    metered(tmp_path, meters, at("2026-01-01"), at("2026-01-07"), silent=silent)
    days = compared(tmp_path, HOUSE, "2026-01-02", "2026-01-06")
    assert [day.missing for day in days] == [
        (),
        ("meter/led: nothing was measured about its last midnight",),
        ("meter/led: nothing was measured about its first midnight",),
        (),
    ]
    total = total_of(days)
    assert total
    assert total.days == 2


def test_a_channel_that_was_never_heard_of_is_named(tmp_path: Path) -> None:
    metered(tmp_path, {"smart/grid": steady(1000)}, at("2026-01-01"), at("2026-01-04"))
    [day] = compared(tmp_path, HOUSE, "2026-01-02", "2026-01-03")
    assert (day.energies_wh, day.missing) == ((24_000, None), ("meter/led: nothing is known of this day",))
    assert total_of([day]) is None


@pytest.mark.parametrize("counted", [True, False])
def test_a_silent_plug_counts_if_its_own_counter_says_that_nothing_flowed(tmp_path: Path, counted: bool) -> None:
    silent = {"meter/led": [range(at("2026-01-02T21:00"), at("2026-01-03T03:00"))]}

    def by_day_only(at_ns: int) -> float:
        return 500.0 if 8 <= datetime.fromtimestamp(at_ns / 1e9, UTC).hour < 20 else 0.0

    meters = {"smart/grid": steady(1000), "meter/led": by_day_only}
    metered(tmp_path, meters, at("2026-01-01"), at("2026-01-05"), silent=silent, counted=counted)
    days = compared(tmp_path, HOUSE, "2026-01-02", "2026-01-04")
    assert [day.complete for day in days] == [counted, counted]
    assert [day.energies_wh[1] for day in days] == [6000, 6000]


def test_today_and_half_days_are_not_compared(tmp_path: Path) -> None:
    metered(tmp_path, {"smart/grid": steady(1), "meter/led": steady(1)}, at("2026-01-01"), at("2026-01-04"))
    with asking(tmp_path) as history:
        days = days_of(history, HOUSE, at("2026-01-01T12:00"), at("2026-01-03T12:00"), LONDON)
        assert [day.start_ns for day in days] == [at("2026-01-02")]
        assert days_of(history, HOUSE, at("2026-01-02T12:00"), at("2026-01-02T13:00"), LONDON) == []
    assert midnight_before(at("2026-10-25T23:00"), LONDON) == at("2026-10-25")


def test_without_a_history_nothing_is_known(tmp_path: Path) -> None:
    with asking(tmp_path) as history:
        days = days_of(history, HOUSE, at("2026-01-01"), at("2026-01-02"), LONDON)
        assert [day.complete for day in days] == [False]
        assert present(history, HOUSE, at("2026-01-01"), 0.0).unaccounted_w(1) is None


def test_the_suggested_factor_makes_the_view_right(tmp_path: Path) -> None:
    # 1000 impulses to the kWh were set where the meter gives 800: everything is 20 % short, whatever the day.
    def house(day: int) -> float:
        return 400 + 300 * (day % 3)

    meters = {"smart/grid": by_date(house), "meter/led": by_date(lambda day: 0.8 * house(day))}
    metered(tmp_path, meters, at("2026-01-01"), at("2026-01-12"))
    days = compared(tmp_path, HOUSE, "2026-01-02", "2026-01-11")
    factor = suggested(days, 1, 2.0)
    assert factor.factor == pytest.approx(1.25, rel=1e-9)
    assert (factor.days, factor.why_not) == (9, "")
    total = total_of(days)
    assert total
    assert total.energies_wh[1] * factor.factor == pytest.approx(total.energies_wh[0], rel=1e-9)


def test_a_missing_circuit_is_no_factor(tmp_path: Path) -> None:
    # An oven that is on every second day only.
    meters = {"smart/grid": by_date(lambda day: 400 + 300 * (day % 2)), "meter/led": steady(400)}
    metered(tmp_path, meters, at("2026-01-01"), at("2026-01-12"))
    factor = suggested(compared(tmp_path, HOUSE, "2026-01-02", "2026-01-11"), 1, 2.0)
    assert factor.factor is None
    assert factor.why_not == "the days differ too much for one factor: 1.000 to 1.750"


def test_two_days_suggest_nothing(tmp_path: Path) -> None:
    metered(tmp_path, {"smart/grid": steady(500), "meter/led": steady(400)}, at("2026-01-01"), at("2026-01-09"))
    for last, count in (("2026-01-03", "there is one"), ("2026-01-04", "there are 2")):
        factor = suggested(compared(tmp_path, HOUSE, "2026-01-02", last), 1, 2.0)
        assert factor.factor is None
        assert factor.why_not == f"it takes 3 complete days of 0.1 kWh or more; {count}"
    assert suggested(compared(tmp_path, HOUSE, "2026-01-02", "2026-01-05"), 1, 2.0).factor == 1.25


def test_days_with_long_gaps_suggest_nothing(tmp_path: Path) -> None:
    silent = {"meter/led": [range(at(f"2026-01-0{day}T10:00"), at(f"2026-01-0{day}T13:00")) for day in range(2, 6)]}
    metered(
        tmp_path,
        {"smart/grid": steady(500), "meter/led": steady(400)},
        at("2026-01-01"),
        at("2026-01-07"),
        silent=silent,
    )
    days = compared(tmp_path, HOUSE, "2026-01-02", "2026-01-06")
    assert [(day.complete, day.estimated_half_hours) for day in days] == [(True, 6)] * 4
    assert suggested(days, 1, 2.0).days == 0


def test_what_is_unaccounted_for_now_is_what_the_others_do_not_show(tmp_path: Path) -> None:
    meters = {"smart/grid": steady(1000), "plugs/tv": steady(100), "plugs/fridge": steady(50)}
    now_ns = at("2026-01-01T12:00")
    metered(tmp_path, meters, now_ns - QUARTER_NS, now_ns)
    with asking(tmp_path) as history:
        now = present(history, SUM, now_ns + 60 * 10**9, 0.0)
        assert (now.powers_w, now.unaccounted_w(1), now.is_negative(1, 2.0)) == ((1000, 150), 850, False)
        old = present(history, SUM, now_ns + 61 * 10**9, 0.0)
        assert old.powers_w == (None, None)
        assert old.missing[0] == "smart/grid has told no power for 61 s"
        assert present(history, SUM, now_ns + 61 * 10**9, 60.0) == now, "the history is written once a minute"
        one = present(history, HOUSE, now_ns, 0.0)
        assert (one.powers_w, one.missing) == ((1000, None), ("meter/led tells no power",))


def test_circuits_that_show_more_than_the_house_has_are_an_alarm(tmp_path: Path) -> None:
    meters = {"smart/grid": steady(1000), "plugs/tv": steady(900), "plugs/fridge": steady(121)}
    now_ns = at("2026-01-01T12:00")
    metered(tmp_path, meters, now_ns - QUARTER_NS, now_ns)
    with asking(tmp_path) as history:
        now = present(history, SUM, now_ns, 0.0)
        assert now.unaccounted_w(1) == -21
        assert now.is_negative(1, 2.0)
        assert not now.is_negative(1, 2.2)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.1, 50))
def test_what_is_outside_stays_outside_with_less_tolerance(trusted_wh: float, energy_wh: float, percent: float) -> None:
    difference_wh = energy_wh - trusted_wh
    if is_outside(difference_wh, trusted_wh, percent):
        assert is_outside(difference_wh, trusted_wh, percent / 2)
        assert abs(difference_wh) > 10
    assert not is_outside(0.0, trusted_wh, percent)
