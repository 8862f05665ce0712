"""What energy costs: to the last digit, at every hour of the year, on the days of 23 and 25 hours too."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.load import Catalog, load
from config.prices import read_prices
from config.settings import DAYS, TariffBand, TariffPeriod, TariffTable
from tariff import Price, Tariff, rounded

S = 10**9
HOUR = 3600 * S
KWH = 10**9  # in µWh
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_KINDS = Catalog(list, lambda _: None, list, lambda _: None)  # type: ignore[arg-type, return-value]


def ns(text: str, zone: str = "UTC") -> int:
    """The instant of an ISO time; without an offset in it, by the clock of `zone` (the first time it shows it)."""
    time = datetime.fromisoformat(text)
    aware = time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))
    return (aware - EPOCH) // timedelta(microseconds=1) * 1000


def flat(**options: object) -> TariffPeriod:
    return TariffPeriod(**{"from_": date(2015, 1, 1), "unit_rate_per_kwh": Decimal("0.25"), **options})  # type: ignore[arg-type]


def tariff(*periods: TariffPeriod, zone: str = "Europe/London", base: Path = Path(), **options: object) -> Tariff:
    files = {one.prices_file: read_prices(base / one.prices_file) for one in periods if one.prices_file}
    return Tariff.of(TariffTable(currency="GBP", periods=periods, **options), zone, files)  # type: ignore[arg-type]


def band(rate: str, from_: str = "00:00", to: str = "24:00", **options: object) -> TariffBand:
    return TariffBand(name="night", unit_rate_per_kwh=Decimal(rate), from_=from_, to=to, **options)  # type: ignore[arg-type]


def hours_at(subject: Tariff, rate: str, start: str, end: str, zone: str = "Europe/London") -> float:
    """For how many hours of a range, by the clock of the zone, a kWh costs so much."""
    parts = subject.parts(ns(start, zone), ns(end, zone), 0)
    return sum(p.end_ns - p.start_ns for p in parts if p.price.unit_rate_per_kwh == Decimal(rate)) / HOUR


# ---- the proof: a year of half hours


YEAR = """
[tariffs.main]
currency = "GBP"
vat_percent = 5.0

[[tariffs.main.periods]]
from = 2025-04-01
standing_charge_per_day = 0.5337
unit_rate_per_kwh = 0.2486
export_rate_per_kwh = 0.15

[[tariffs.main.periods.bands]]
name = "peak"
from = "16:05"
to = "19:00"
days = ["mon", "tue", "wed", "thu", "fri"]
unit_rate_per_kwh = 0.37125
export_rate_per_kwh = 0.2893

[[tariffs.main.periods.bands]]
name = "late"
from = "22:40"
to = "05:25"
days = ["fri", "sun"]
months = [4, 5, 9]
unit_rate_per_kwh = 0.0899

[[tariffs.main.periods.bands]]
name = "night"
from = "00:30"
to = "01:35"
unit_rate_per_kwh = 0.0701

[[tariffs.main.periods.bands]]
name = "weekend"
days = ["sat", "sun"]
months = [6, 7, 8]
unit_rate_per_kwh = 0.2

[[tariffs.main.periods]]
from = 2025-10-01
standing_charge_per_day = 0.6012
unit_rate_per_kwh = 0.2701
export_rate_per_kwh = 0.12
prices_file = "agile.csv"
bands = [{ name = "night", from = "23:30", to = "05:30", months = [10, 11, 12, 1], unit_rate_per_kwh = 0.1 }]

[[tariffs.main.periods]]
from = 2026-02-10
vat_percent = 20
standing_charge_per_day = 0.47
unit_rate_per_kwh = 0.3
"""


@functools.cache
def summer_of(year: int) -> tuple[datetime, datetime]:
    """The law: from 01:00 UTC of the last Sunday of March to 01:00 UTC of the last Sunday of October."""
    march, october = (
        next(day for day in (datetime(year, month, number, 1) for number in range(31, 24, -1)) if day.weekday() == 6)
        for month in (3, 10)
    )
    return march, october


def naively(utc: datetime, file: dict[datetime, tuple[str, str]]) -> tuple[str, int, str]:
    """What a kWh costs without VAT, the VAT in percent, and what it earns: written by hand from the text above."""
    first, last = summer_of(utc.year)
    local = utc + timedelta(hours=1) if first <= utc < last else utc
    minute, weekday = local.hour * 60 + local.minute, local.weekday()
    began = local - timedelta(days=1) if minute < 12 * 60 else local
    if local < datetime(2025, 10, 1):
        if weekday < 5 and 16 * 60 + 5 <= minute < 19 * 60:
            return "0.37125", 5, "0.2893"
        if (minute >= 22 * 60 + 40 or minute < 5 * 60 + 25) and began.weekday() in (4, 6) and began.month in (4, 5, 9):
            return "0.0899", 5, "0.15"
        if 30 <= minute < 95:
            return "0.0701", 5, "0.15"
        return "0.2" if weekday >= 5 and local.month in (6, 7, 8) else "0.2486", 5, "0.15"
    if local < datetime(2026, 2, 10):
        night = (minute >= 23 * 60 + 30 or minute < 5 * 60 + 30) and began.month in (10, 11, 12, 1)
        unit, export = file.get(utc.replace(minute=utc.minute // 30 * 30), ("", ""))
        return unit or ("0.1" if night else "0.2701"), 5, export or "0.12"
    return "0.3", 20, ""


def test_a_year_of_half_hours_costs_to_the_last_digit_what_an_independent_computation_says(tmp_path: Path) -> None:
    random = Random(20250401)
    file: dict[datetime, tuple[str, str]] = {}
    at = datetime(2025, 9, 15)
    while at < datetime(2026, 3, 1):
        if random.random() < 0.97:
            unit = f"{random.randint(-5_0000, 40_0000) / 1e6:.6f}"
            export = random.choice(["", f"{random.randint(0, 3000) / 1e4:.4f}"])
            file[at] = (unit if export == "" or random.random() < 0.9 else "", export)
        at += timedelta(minutes=30)
    rows = [f"{at:%Y-%m-%dT%H:%M}Z,{unit},{export}\n" for at, (unit, export) in file.items()]
    random.shuffle(rows)
    (tmp_path / "agile.csv").write_text("from_utc,unit_rate_per_kwh,export_rate_per_kwh\n" + "".join(rows))
    (tmp_path / "site.toml").write_text(YEAR)
    house = load(tmp_path / "site.toml", NO_KINDS, base_directory=tmp_path)
    subject = Tariff.of(house.tariffs["main"], house.site.timezone, house.prices)

    # From the first to the last local midnight of the year, both of which are in summer time.
    start, end = datetime(2025, 3, 31, 23), datetime(2026, 3, 31, 23)
    costs, earnings = [], []
    used_uwh: dict[tuple[str, int], int] = defaultdict(int)
    sold_uwh: dict[str, int] = defaultdict(int)
    at, at_ns = start, ns(f"{start}Z")
    while at < end:
        uwh, export_uwh = random.randint(0, 10**9) * 6, random.randint(0, 10**8) * 6
        costs.append(subject.cost(at_ns, at_ns + 1800 * S, uwh))
        earnings.append(subject.cost(at_ns, at_ns + 1800 * S, export_uwh, export=True))
        for minute in range(0, 30, 5):
            unit_rate, vat, export_rate = naively(at + timedelta(minutes=minute), file)
            used_uwh[unit_rate, vat] += uwh // 6
            sold_uwh[export_rate] += export_uwh // 6
        at, at_ns = at + timedelta(minutes=30), at_ns + 1800 * S
    assert len(costs) == 365 * 48
    of_all = [Fraction(rate) * (100 + vat) / 100 * uwh / KWH for (rate, vat), uwh in used_uwh.items()]
    assert sum(map(Fraction, filter(None, costs))) == sum(of_all)
    assert None not in costs
    of_all = [Fraction(rate) * uwh / KWH for rate, uwh in sold_uwh.items() if rate]
    assert sum(map(Fraction, filter(None, earnings))) == sum(of_all)
    assert earnings.count(None) == 50 * 48 - 2, "from 10 February to the day of 23 hours nobody pays for export"
    assert subject.standing_charge(ns(f"{start}Z"), ns(f"{end}Z")) == (
        183 * Decimal("0.5337") * Decimal("1.05") + 132 * Decimal("0.6012") * Decimal("1.05") + 50 * Decimal("0.564")
    )
    assert len(used_uwh) > 1000, "the year has the prices of the file in it"


# ---- the clock on the wall


ZONES = ["Europe/London", "Asia/Kolkata", "America/Sao_Paulo", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo"]
# Days on which the clocks were changed, in one of the zones each, and some on which they were not.
CHANGES = [
    "2025-03-30",
    "2025-10-26",
    "2018-11-04",
    "2018-02-17",
    "2025-10-04",
    "2025-04-05",
    "2016-02-29",
    "2024-12-31",
]
TIMES = st.integers(0, 1439).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
BANDS = st.builds(
    lambda times, rate, days, months: band(f"0.{rate}", *times, days=tuple(sorted(days)), months=tuple(sorted(months))),
    st.tuples(TIMES, st.one_of(TIMES, st.just("24:00"))).filter(lambda times: times[0] != times[1]),
    st.integers(1, 99),
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.sets(st.integers(1, 12), min_size=1),
)
PERIODS = st.lists(
    st.builds(
        lambda day, bands, rate, charge: flat(
            from_=date.fromisoformat(day),
            bands=tuple(bands),
            unit_rate_per_kwh=Decimal(rate),
            standing_charge_per_day=Decimal(charge),
        ),
        st.sampled_from(["2015-01-01", "2016-03-01", *CHANGES]),
        st.lists(BANDS, max_size=3),
        st.integers(1, 9),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda period: period.from_,
)
INSTANTS = st.builds(
    lambda day, second: (datetime.fromisoformat(f"{day}T00:00Z") - EPOCH) // timedelta(seconds=1) * S + second * S,
    st.sampled_from(CHANGES),
    st.integers(-20 * 3600, 44 * 3600),
)


def by_the_wall(periods: Sequence[TariffPeriod], at_ns: int, zone: str) -> Decimal | None:
    """The price at an instant, by nothing but the date and the time that a clock on the wall shows."""
    local = datetime.fromtimestamp(at_ns // S, ZoneInfo(zone)).replace(tzinfo=None)
    known = [period for period in periods if period.from_ <= local.date()]
    if not known:
        return None
    period = max(known, key=lambda one: one.from_)
    time = f"{local:%H:%M}"
    for one in period.bands:
        over_midnight = one.from_ > one.to
        inside = (time >= one.from_ or time < one.to) if over_midnight else one.from_ <= time < one.to
        began = local - timedelta(days=1) if over_midnight and time < one.to else local
        if inside and DAYS[began.weekday()] in one.days and began.month in one.months:
            return one.unit_rate_per_kwh
    return period.unit_rate_per_kwh


@settings(max_examples=60)
@given(st.sampled_from(ZONES), PERIODS, st.lists(INSTANTS, min_size=1, max_size=10))
def test_the_price_is_always_that_of_the_clock_on_the_wall(
    zone: str, periods: list[TariffPeriod], instants: list[int]
) -> None:
    subject = tariff(*periods, zone=zone)
    for at_ns in instants:
        assert subject.rate_at(at_ns) == by_the_wall(periods, at_ns, zone)


@settings(max_examples=60)
@given(st.sampled_from(ZONES), PERIODS, INSTANTS)
def test_until_the_next_boundary_the_price_stays_what_it_is(zone: str, periods: list[TariffPeriod], at_ns: int) -> None:
    subject = tariff(*periods, zone=zone)
    boundary_ns = subject.next_boundary(at_ns)
    assert at_ns < boundary_ns <= at_ns + 24 * HOUR
    for minute_ns in [*range(at_ns, boundary_ns, 600 * S), boundary_ns - 1]:
        assert by_the_wall(periods, minute_ns, zone) == subject.rate_at(at_ns)


@pytest.mark.parametrize(
    ("day", "times", "zone", "hours"),
    [
        ("2025-06-01", ("00:30", "07:30"), "Europe/London", 7),
        ("2025-03-30", ("00:30", "07:30"), "Europe/London", 6),
        ("2025-10-26", ("00:30", "07:30"), "Europe/London", 8),
        ("2025-03-30", ("01:15", "01:45"), "Europe/London", 0),  # that morning has no such time
        ("2025-10-26", ("01:15", "01:45"), "Europe/London", 1),  # and this one has it twice
        ("2025-03-30", ("01:15", "02:45"), "Europe/London", 0.75),
        ("2025-10-26", ("00:30", "01:30"), "Europe/London", 1.5),  # it comes again when the clock does
        ("2025-03-30", ("00:00", "24:00"), "Europe/London", 23),
        ("2025-10-26", ("00:00", "24:00"), "Europe/London", 25),
        ("2025-10-26", ("00:00", "07:00"), "Asia/Kolkata", 7),
        ("2018-11-04", ("00:00", "06:00"), "America/Sao_Paulo", 5),  # the day begins at one
        ("2018-02-17", ("22:00", "24:00"), "America/Sao_Paulo", 3),  # eleven to midnight comes twice
        ("2025-10-05", ("01:45", "02:45"), "Australia/Lord_Howe", 0.5),  # half an hour forward
        ("2025-04-06", ("01:15", "02:15"), "Australia/Lord_Howe", 1.5),  # and back
    ],
)
def test_a_band_is_as_long_as_the_clock_on_the_wall_shows_it(
    day: str, times: tuple[str, str], zone: str, hours: float
) -> None:
    subject = tariff(flat(bands=(band("0.09", *times),)), zone=zone)
    next_day = date.fromisoformat(day) + timedelta(days=1)
    assert hours_at(subject, "0.09", day, str(next_day), zone) == hours


def test_a_band_over_midnight_belongs_to_the_day_and_month_in_which_it_begins() -> None:
    friday = tariff(flat(bands=(band("0.09", "23:00", "07:00", days=("fri",)),)))
    assert hours_at(friday, "0.09", "2025-06-06T12:00", "2025-06-07T12:00") == 8
    assert hours_at(friday, "0.09", "2025-06-05T12:00", "2025-06-06T12:00") == 0
    december = tariff(flat(bands=(band("0.09", "23:00", "07:00", months=(12,)),)))
    assert hours_at(december, "0.09", "2025-12-31T12:00", "2026-01-01T12:00") == 8
    assert hours_at(december, "0.09", "2025-11-30T12:00", "2025-12-01T12:00") == 0


def test_the_first_band_that_fits_counts_and_says_its_name() -> None:
    bands = (band("0.09", "00:00", "07:00"), band("0.08", "00:00", "24:00"))
    subject = tariff(flat(bands=bands))
    assert subject.price_at(ns("2025-01-05T06:59:59")) == Price(Decimal("0.09"), None, "night")
    assert subject.rate_at(ns("2025-01-05T07:00")) == Decimal("0.08")
    assert subject.price_at(ns("2014-12-31T23:59:59")) == Price(None, None, "")


def test_a_period_counts_from_local_midnight_of_its_date() -> None:
    subject = tariff(flat(from_=date(2025, 7, 1), unit_rate_per_kwh=Decimal("0.3")), flat())
    midnight = ns("2025-06-30T23:00Z")
    assert (subject.rate_at(midnight - 1), subject.rate_at(midnight)) == (Decimal("0.25"), Decimal("0.3"))
    assert subject.cost(midnight - HOUR, midnight + HOUR, 2 * KWH) == Decimal("0.55")


# ---- intervals


@settings(max_examples=60)
@given(
    st.sampled_from(ZONES),
    PERIODS,
    INSTANTS,
    st.integers(1, 100 * HOUR),
    st.integers(-(10**6), 10**13),
    st.lists(st.integers(-HOUR, 100 * HOUR), max_size=8),
)
def test_the_costs_of_the_parts_of_a_range_add_up_to_the_last_digit_wherever_it_is_cut(
    zone: str, periods: list[TariffPeriod], start_ns: int, duration_ns: int, uwh: int, cuts: list[int]
) -> None:
    subject = tariff(
        flat(), *(one for one in periods if one.from_ != flat().from_), zone=zone, vat_percent=Decimal("5.5")
    )
    interval = (start_ns, start_ns + duration_ns, uwh)
    whole = subject.cost(*interval)
    assert whole is not None
    edges = sorted({start_ns - HOUR, *(start_ns + cut for cut in cuts), start_ns + duration_ns + HOUR})
    ranges = list(itertools.pairwise(edges))
    assert sum((subject.cost(*interval, between=one) or 0 for one in ranges), Decimal(0)) == whole
    parts = [part for one in ranges for part in subject.parts(*interval, between=one)]
    assert sum(part.uwh for part in parts) == uwh
    assert [parts[0].start_ns, parts[-1].end_ns] == [*interval[:2]]
    assert [part.end_ns for part in parts[:-1]] == [part.start_ns for part in parts[1:]]
    for part in parts:  # no part has a µWh more or less than its share of the time
        assert abs(part.uwh - Fraction(uwh * (part.end_ns - part.start_ns), duration_ns)) < 1


@given(st.lists(st.tuples(st.integers(0, 50 * HOUR), st.integers(0, 10**12)), min_size=1, max_size=9))
def test_at_one_price_it_makes_no_difference_how_the_energy_came(pieces: list[tuple[int, int]]) -> None:
    subject = tariff(flat(unit_rate_per_kwh=Decimal("0.24863")), vat_percent=Decimal("5"))
    at_ns, total = ns("2025-10-25T12:00"), Decimal(0)
    for duration_ns, uwh in pieces:
        total += subject.cost(at_ns, at_ns + duration_ns, uwh) or 0
        at_ns += duration_ns
    assert total == Decimal(sum(uwh for _, uwh in pieces)) * Decimal("0.24863") * Decimal("1.05") / KWH


def test_energy_is_spread_evenly_over_its_interval() -> None:
    subject = tariff(flat(bands=(band("0.09", "00:30", "07:30"),)))
    at_ns = ns("2025-01-05T00:00")
    assert subject.cost(at_ns, at_ns + HOUR, KWH) == Decimal("0.17")
    assert subject.cost(at_ns, at_ns + HOUR, KWH, between=(at_ns + HOUR // 4, at_ns + HOUR)) == Decimal("0.1075")
    assert subject.cost(at_ns, at_ns + HOUR, KWH, between=(at_ns + HOUR, at_ns + 9 * HOUR)) == 0


def test_energy_of_one_instant_costs_what_it_does_just_then() -> None:
    subject = tariff(flat(bands=(band("0.09", "00:30", "07:30"),)))
    at_ns = ns("2025-01-05T00:30")
    assert subject.cost(at_ns, at_ns, KWH) == Decimal("0.09")
    assert subject.cost(at_ns, at_ns, KWH, between=(at_ns - HOUR, at_ns)) == 0
    assert subject.cost(at_ns, at_ns, KWH, between=(at_ns, at_ns + 1)) == Decimal("0.09")


def test_an_interval_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it begins"):
        tariff(flat()).cost(2, 1, 5)


def test_what_was_used_before_the_first_period_has_no_price_and_none_is_invented() -> None:
    subject = tariff(flat(from_=date(2025, 4, 1), standing_charge_per_day=Decimal(1)))
    first = ns("2025-04-01", "Europe/London")
    assert subject.cost(first - HOUR, first, KWH) is None
    assert subject.cost(first - HOUR, first + HOUR, KWH) is None
    assert subject.cost(first - HOUR, first, 0) == 0, "nothing costs nothing at any price"
    assert subject.cost(first, first + HOUR, KWH) == Decimal("0.25")
    assert subject.standing_charge(first - 48 * HOUR, first + 1) == 1


def test_every_digit_is_kept() -> None:
    rate = Decimal("123456.12345678901234567890123456789012345")
    subject = tariff(flat(unit_rate_per_kwh=rate), vat_percent=Decimal("7.1234567890123456789"))
    cost = subject.cost(0, 7, 0) or subject.cost(ns("2020-01-01"), ns("2020-02-01"), 98_765_432_109_876_543_211)
    assert cost is not None
    expected = Fraction(rate) * (1 + Fraction("7.1234567890123456789") / 100) * 98_765_432_109_876_543_211 / KWH
    assert Fraction(cost) == expected


def test_years_of_asking_fill_no_memory() -> None:
    subject = tariff(flat(bands=(band("0.09", "00:30", "07:30"),)))
    start_ns = ns("2020-01-01")
    days = [subject.cost(start_ns + 24 * HOUR * day, start_ns + 24 * HOUR * (day + 1), 24 * KWH) for day in range(400)]
    # From midnight to midnight of UTC, the change takes or gives half an hour of the night.
    usual, spring, autumn = (
        24 * Decimal("0.25") - night * Decimal("0.16") for night in map(Decimal, ("7", "6.5", "7.5"))
    )
    assert [days.count(cost) for cost in (usual, spring, autumn)] == [398, 1, 1]
    assert len(subject._days) <= 64


# ---- VAT, export, standing charge


def test_vat_comes_on_top_of_rates_and_standing_charge_and_not_of_what_export_earns() -> None:
    options = {"standing_charge_per_day": Decimal("0.5"), "export_rate_per_kwh": Decimal("0.15")}
    bands = (band("0.1", "12:00"),)
    subject = tariff(flat(bands=bands, **options), vat_percent=Decimal("5"))
    night, noon = ns("2025-01-05"), ns("2025-01-05T12:00")
    assert subject.price_at(night) == Price(Decimal("0.2625"), Decimal("0.15"))
    assert subject.price_at(noon) == Price(Decimal("0.105"), Decimal("0.15"), "night")
    assert subject.standing_charge(night, night + 1) == Decimal("0.525")
    assert subject.cost(night, night + HOUR, KWH, export=True) == Decimal("0.15")
    included = tariff(flat(bands=bands, **options), vat_percent=Decimal("5"), rates_include_vat=True)
    assert included.price_at(night) == Price(Decimal("0.25"), Decimal("0.15"))
    assert included.standing_charge(night, night + 1) == Decimal("0.5")


def test_vat_changes_with_the_period_that_says_so() -> None:
    later = flat(from_=date(2025, 2, 1), vat_percent=Decimal(20))
    subject = tariff(flat(), later, vat_percent=Decimal(5))
    assert subject.rate_at(ns("2025-01-31")) == Decimal("0.2625")
    assert subject.rate_at(ns("2025-02-01")) == Decimal("0.3")


def test_export_without_a_rate_has_no_price_and_a_band_may_have_its_own() -> None:
    at_ns = ns("2025-01-05T17:00")
    assert tariff(flat()).cost(at_ns, at_ns + 1, 5, export=True) is None
    peak = band("0.4", "16:00", "19:00", export_rate_per_kwh=Decimal("0.3"))
    subject = tariff(flat(bands=(peak,), export_rate_per_kwh=Decimal("0.1")))
    assert subject.cost(at_ns, at_ns + 4 * HOUR, 4 * KWH, export=True) == Decimal("0.8")


@pytest.mark.parametrize(
    ("zone", "start", "end", "days"),
    [
        ("Europe/London", "2025-03-30", "2025-03-31", 1),  # 23 hours
        ("Europe/London", "2025-10-26", "2025-10-27", 1),  # 25 hours
        ("Europe/London", "2025-01-01", "2026-01-01", 365),
        ("Europe/London", "2025-06-01T00:00:00", "2025-06-01T00:00:01", 1),
        ("Europe/London", "2025-06-01T00:00:01", "2025-06-02T00:00:00", 0),
        ("Asia/Kolkata", "2024-01-01", "2025-01-01", 366),
        ("America/Sao_Paulo", "2018-11-03T12:00", "2018-11-05", 1),  # a midnight that no clock showed
        ("America/Sao_Paulo", "2018-02-17T12:00", "2018-02-18T12:00", 1),
        ("America/Havana", "2025-11-02", "2025-11-03", 1),  # a midnight that came twice
        ("America/St_Johns", "2010-11-06T12:00", "2010-11-08T12:00", 2),  # the date went back for an hour
        ("Pacific/Apia", "2011-12-29", "2012-01-01", 2),  # a day that never was
        ("Australia/Lord_Howe", "2025-01-01", "2026-01-01", 365),
    ],
)
def test_each_local_day_that_begins_has_one_standing_charge(zone: str, start: str, end: str, days: int) -> None:
    subject = tariff(flat(from_=date(2009, 1, 1), standing_charge_per_day=Decimal("0.5337")), zone=zone)
    assert subject.standing_charge(ns(start, zone), ns(end, zone)) == days * Decimal("0.5337")


@settings(max_examples=60)
@given(st.sampled_from(ZONES), PERIODS, INSTANTS, st.lists(st.integers(0, 3_000_000), min_size=1, max_size=6))
def test_the_standing_charges_of_ranges_that_adjoin_add_up(
    zone: str, periods: list[TariffPeriod], start_ns: int, cuts: list[int]
) -> None:
    subject = tariff(*periods, zone=zone)
    edges = sorted(start_ns + cut * S for cut in [0, *cuts])
    whole = subject.standing_charge(edges[0], edges[-1])
    assert whole == sum(map(subject.standing_charge, edges, edges[1:]), Decimal(0))
    assert whole >= 0


def test_a_standing_charge_that_changes_counts_from_its_day() -> None:
    later = flat(from_=date(2025, 10, 26), standing_charge_per_day=Decimal(10))
    subject = tariff(flat(standing_charge_per_day=Decimal(1)), later)
    start, end = ns("2025-10-25", "Europe/London"), ns("2025-10-28", "Europe/London")
    assert subject.standing_charge(start, end) == 21


# ---- prices from a file


def with_file(folder: Path, rows: str, **options: object) -> Tariff:
    (folder / "agile.csv").write_text(f"from_utc,unit_rate_per_kwh,export_rate_per_kwh\n{rows}")
    return tariff(flat(prices_file="agile.csv", **options), base=folder, vat_percent=Decimal(5))


def test_prices_of_a_file_go_before_bands_and_rates_which_count_where_it_has_none(tmp_path: Path) -> None:
    rows = "2025-01-05T10:00Z,0.2,0.1\n2025-01-05T10:30Z,-0.04,\n2025-01-05T11:30Z,,0.07\n2025-01-05T12:00Z,1,\n"
    subject = with_file(tmp_path, rows, export_rate_per_kwh=Decimal("0.03"), bands=(band("0.1", "11:15", "11:45"),))
    prices = {
        "10:00": Price(Decimal("0.21"), Decimal("0.1")),
        "10:30": Price(Decimal("-0.042"), Decimal("0.03")),
        "11:00": Price(Decimal("0.2625"), Decimal("0.03")),
        "11:15": Price(Decimal("0.105"), Decimal("0.03"), "night"),
        "11:30": Price(Decimal("0.105"), Decimal("0.07"), "night"),
        "11:45": Price(Decimal("0.2625"), Decimal("0.07")),
        "12:00": Price(Decimal("1.05"), Decimal("0.03")),
        "12:30": Price(Decimal("0.2625"), Decimal("0.03")),
    }
    at_ns = ns("2025-01-05T10:00")
    found = {}
    while at_ns < ns("2025-01-05T13:00"):
        found[f"{datetime.fromtimestamp(at_ns // S, UTC):%H:%M}"] = subject.price_at(at_ns)
        at_ns = subject.next_boundary(at_ns)
    assert found == prices


def test_what_neither_file_nor_rate_has_a_price_for_has_none(tmp_path: Path) -> None:
    rows = "2025-01-05T10:00Z,0.2,\n2025-01-05T10:30Z,0.4,\n2025-01-05T12:00Z,0.2,\n"
    subject = with_file(tmp_path, rows, unit_rate_per_kwh=None)
    at_ns = ns("2025-01-05T10:00")
    assert subject.cost(at_ns, at_ns + HOUR, KWH) == Decimal("0.315")
    assert subject.cost(at_ns, at_ns + 2 * HOUR, KWH) is None
    assert subject.rate_at(at_ns + HOUR) is None


def test_a_price_of_the_file_is_of_no_band(tmp_path: Path) -> None:
    rows = "2025-01-05T10:00Z,0.2,\n2025-01-05T10:30Z,,0.1\n"
    subject = with_file(tmp_path, rows, bands=(band("0.1"),))
    assert subject.price_at(ns("2025-01-05T10:00")) == Price(Decimal("0.21"), None, "")
    assert subject.price_at(ns("2025-01-05T10:30")) == Price(Decimal("0.105"), Decimal("0.1"), "night")


def test_a_file_counts_only_while_its_period_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("from_utc,unit_rate_per_kwh\n2025-06-30T22:30Z,7\n2025-06-30T23:00Z,8\n")
    subject = tariff(flat(prices_file="a.csv"), flat(from_=date(2025, 7, 1)), base=tmp_path)
    midnight = ns("2025-06-30T23:00Z")
    assert [subject.rate_at(midnight + shift) for shift in (-1, 0)] == [7, Decimal("0.25")]


# ---- showing


@given(st.decimals(-(10**9), 10**9, places=12), st.integers(0, 4))
def test_money_is_rounded_for_showing_to_the_nearest_and_never_shows_a_negative_nothing(
    money: Decimal, places: int
) -> None:
    shown = rounded(money, places)
    assert abs(Fraction(shown) - Fraction(money)) <= Fraction(1, 2 * 10**places)
    assert -shown.as_tuple().exponent == places  # type: ignore[operator]
    assert not (shown == 0 and shown.is_signed())
    assert rounded(Decimal("0.005")) == -rounded(Decimal("-0.005")) == Decimal("0.01")
