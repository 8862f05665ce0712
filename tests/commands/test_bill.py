"""`bill`: any days by any tariff, worked out anew from the history, to the last digit."""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands._bill import bills, cuts_of, together
from config.settings import TariffTable
from history.queries import History
from reading import Quality, Record
from tariff import Tariff, rounded
from tests.commands.bench import orchestrator
from tests.metered import metered
from tests.writer.outputs._history import batch, quick, write_all

TARIFF = """
[tariffs.main]
currency = "GBP"
vat_percent = 5
[[tariffs.main.periods]]
from = 2026-01-01
standing_charge_per_day = 0.5337
unit_rate_per_kwh = 0.2486
export_rate_per_kwh = 0.15
bands = [{ name = "night", from = "00:30", to = "07:30", unit_rate_per_kwh = 0.09 }]

[tariffs.flat]
currency = "GBP"
[[tariffs.flat.periods]]
from = 2026-03-10
unit_rate_per_kwh = 0.1
"""
CONFIGURATION = """
[site]
timezone = "Europe/London"
data_dir = "{data_dir}"
[sources.meter]
kind = "esp32_http"
[[sources.meter.devices]]
name = "house"
[[sources.meter.devices]]
name = "shed"
[outputs.history]
[channels.meter.house]
tariff = "main"
"""
HOUSE = "meter/house"


def at(text: str, timezone: str = "Europe/London") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp()) * 10**9


def tariff(name: str = "main", timezone: str = "Europe/London") -> Tariff:
    tables = tomllib.loads(TARIFF, parse_float=Decimal)["tariffs"]
    return Tariff.of(msgspec.convert(tables[name], TariffTable), timezone, {})


@contextmanager
def asking(folder: Path) -> Iterator[History]:
    history = History(folder / "history.db")
    try:
        yield history
    finally:
        history.close()


def configured(tmp_path: Path, more: str = "") -> Path:
    file = tmp_path / "site.toml"
    file.write_text(CONFIGURATION.format(data_dir=tmp_path) + more + TARIFF)
    return file


def bill(file: Path, *words: str) -> tuple[int, str]:
    done = orchestrator("bill", *words, "--config", file)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("month")
    meters = {"meter/house": lambda at_ns: 1000.0, "meter/shed": lambda at_ns: 500.0}
    metered(folder, meters, at("2026-03-01"), at("2026-04-01"))
    return folder


@pytest.fixture
def a_month(month: Path, tmp_path: Path) -> Path:
    """March 2026, with the day of 23 hours: a steady kilowatt in the house, half of one in the shed."""
    return Path(shutil.copytree(month, tmp_path, dirs_exist_ok=True))


def test_a_month_is_energy_by_bands_and_the_standing_charge_of_its_days(a_month: Path) -> None:
    status, told = bill(configured(a_month), "--from", "2026-03-01", "--to", "2026-03-31")
    assert status == 0
    # 31 nights of 7 h less the hour that the clock never showed; the rest of 743 h is day.
    night, day = Decimal(216) * Decimal("0.0945"), Decimal(527) * Decimal("0.26103")
    standing = 31 * Decimal("0.560385")
    for words, kwh, money in (("night", 216, night), ("the usual rate", 527, day)):
        assert f"bought, {words} {kwh}.000 {rounded(money)}" in " ".join(told.split())
    assert f"total {rounded(night + day + standing)}" in " ".join(told.split())
    assert "meter/house, 2026-03-01 to 2026-03-31, by [tariffs.main], in GBP, VAT included" in told
    assert all(len(line) <= 80 for line in told.splitlines()[:-1])


def test_programs_get_money_to_the_last_digit_and_days_that_add_up(a_month: Path) -> None:
    file = configured(a_month)
    words = ("house", "--from", "2026-03-01", "--to", "2026-03-31", "--json")
    month, days = (json.loads(bill(file, *words, *by)[1]) for by in ((), ("--by", "day")))
    assert Decimal(month["total"]["total"]) == 216 * Decimal("0.0945") + 527 * Decimal("0.26103") + 31 * Decimal(
        "0.560385"
    )
    assert len(days["bills"]) == 31
    assert sum(Decimal(each["total"]) for each in days["bills"]) == Decimal(month["total"]["total"])
    assert days["total"] == month["total"]
    by_date = {each["from"]: each["bought_wh"] for each in days["bills"]}
    assert (by_date["2026-03-28"], by_date["2026-03-29"]) == (24_000, 23_000)


def test_weeks_months_and_years_begin_where_the_range_does(a_month: Path) -> None:
    file = configured(a_month)
    words = ("--from", "2026-03-04", "--to", "2026-03-17")
    for by, expected in (
        ("week", ["week of 2026-03-04", "week of 2026-03-09", "week of 2026-03-16"]),
        ("month", ["2026-03"]),
        ("year", ["2026"]),
    ):
        status, told = bill(file, *words, "--by", by)
        lines = [line.strip() for line in told.splitlines()]
        assert status == 0
        for label in expected:
            assert any(line.startswith(f"{label}  ") for line in lines), told


def test_another_tariff_and_a_channel_without_one(a_month: Path) -> None:
    file = configured(a_month)
    day = ("--from", "2026-03-15", "--to", "2026-03-15")
    status, told = bill(file, "shed", *day)
    assert (status, told) == (2, "meter/shed has no tariff; add --tariff with one of these: main, flat\n")
    status, told = bill(file, "shed", *day, "--tariff", "flat", "--json")
    assert Decimal(json.loads(told)["total"]["total"]) == Decimal("1.2")
    assert bill(file, "shed", *day, "--tariff", "flot")[0] == 2


def test_energy_without_a_price_leaves_no_total(a_month: Path) -> None:
    file = configured(a_month)
    status, told = bill(file, "--tariff", "flat", "--from", "2026-03-09", "--to", "2026-03-10")
    assert status == 0
    assert "No total: 24.000 kWh have no price" in told
    assert "total not known" in " ".join(told.split())


def test_what_is_exported_earns(a_month: Path) -> None:
    metered(a_month, {HOUSE: lambda at_ns: 2000.0}, at("2026-03-01"), at("2026-04-01"), metric="energy_export_wh")
    with asking(a_month) as history:
        [made] = bills(history, HOUSE, tariff(), [at("2026-03-02"), at("2026-03-03")], at("2026-04-01"))
    assert made.sold_uwh == 48 * 10**9
    assert made.earned == 48 * Decimal("0.15")
    assert made.total == made.cost + made.standing - made.earned
    status, told = bill(configured(a_month), "--from", "2026-03-02", "--to", "2026-03-02", "--by", "day")
    assert status == 0
    assert "sold 48.000 -7.20" in " ".join(told.split())


def test_gaps_are_marked_as_estimated_and_the_unknown_as_unknown(tmp_path: Path) -> None:
    silent = {HOUSE: [range(at("2026-03-10T06:00"), at("2026-03-10T18:00"))]}
    metered(tmp_path, {HOUSE: lambda at_ns: 1000.0}, at("2026-03-10"), at("2026-03-12T12:00"), silent=silent)
    words = ("--from", "2026-03-09", "--to", "2026-03-12", "--by", "day")
    status, told = bill(configured(tmp_path), *words)
    assert status == 0
    assert "~ 12.000 kWh are estimated" in told
    assert "? Nothing is known of 35.5 hours" in told
    found = json.loads(bill(configured(tmp_path), *words, "--json")[1])["bills"]
    assert [each["estimated_wh"] for each in found] == [0, 12_000, 0, 0]
    assert [each["unknown_hours"] for each in found] == [24, 0, 0, 11.5]
    assert [each["bought_wh"] for each in found] == [0, 24_000, 24_000, 12_000]


def test_what_was_booked_by_hand_counts_where_it_belongs_and_is_marked(tmp_path: Path) -> None:
    def reading(text: str, **values: float) -> Record:
        return Record("meter", "house", at(text), values, Quality.MEASURED)

    records = [
        reading("2026-03-01T12:00", energy_wh=0.0),
        reading("2026-03-02T18:00", energy_correction_wh=5000.0),
        reading("2026-03-05T12:00", energy_wh=96_000.0),
        reading("2026-03-05T12:10", energy_wh=101_000.0, energy_correction_wh=-5000.0),
        reading("2026-03-06T12:00", energy_wh=125_000.0),
    ]
    write_all(tmp_path, [batch(*records)])
    words = ("--from", "2026-03-02", "--to", "2026-03-05", "--by", "day", "--json")
    found = json.loads(bill(configured(tmp_path), *words)[1])
    assert [each["corrected_wh"] for each in found["bills"]] == [5000, 0, 0, -5000]
    assert [round(each["bought_wh"] / 1000, 1) for each in found["bills"]] == [29.0, 24.0, 24.0, 23.9]
    assert found["total"]["corrected_wh"] == 0
    assert (
        "± 5.000 kWh of it were booked by hand"
        in bill(configured(tmp_path), "--from", "2026-03-02", "--to", "2026-03-02")[1]
    )


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("--from", "2026-04-01", "--to", "2026-03-01"), 2, "is after"),
        (
            (
                "--from",
                "1. March",
            ),
            2,
            "is no date; write it as 2026-03-31",
        ),
        (("--from", "2024-03-01", "--to", "2024-03-02"), 1, "the history goes from 2026-03-01 to 2026-04-01"),
        (("hause",), 2, "there are: meter/house, meter/shed"),
    ],
)
def test_what_cannot_be_billed_is_told_in_words(
    a_month: Path, words: tuple[str, ...], status: int, expected: str
) -> None:
    found = bill(configured(a_month), *words)
    assert found[0] == status
    assert expected in found[1]


def test_with_two_priced_channels_one_is_to_be_named(a_month: Path) -> None:
    status, told = bill(configured(a_month, '[channels.meter.shed]\ntariff = "flat"\n'))
    assert status == 2
    assert "several channels have a tariff: meter/house, meter/shed; name one" in told


ZONES = ["UTC", "Europe/London", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]


@st.composite
def readings(draw: st.DrawFn, first_ns: int, last_ns: int) -> list[Record]:
    """Registers that rise by fits and starts, and bookings."""
    count = draw(st.integers(2, 40))
    times = sorted(draw(st.sets(st.integers(first_ns // 10**6, last_ns // 10**6), min_size=count, max_size=count)))
    found, bought, sold = [], 0, 0
    for at_ms in times:
        bought += draw(st.integers(0, 30_000_000_000))
        sold += draw(st.integers(0, 9_000_000_000))
        values: dict[str, float | str] = {"energy_wh": bought / 1e6, "energy_export_wh": sold / 1e6}
        if draw(st.integers(0, 9)) == 0:
            values["energy_correction_wh"] = draw(st.integers(-5000, 5000)) / 10
        found.append(Record("meter", "house", at_ms * 10**6, values, draw(st.sampled_from(list(Quality)))))
    return found


@settings(max_examples=10)
@given(st.data(), st.sampled_from(ZONES), st.sampled_from(["2026-03-01", "2026-04-01", "2026-10-01"]))
def test_the_bills_of_the_days_are_the_bill_of_the_month_to_the_last_digit(
    data: st.DataObject, zone: str, month: str
) -> None:
    first = date.fromisoformat(month)
    from_ns, to_ns = at(month, zone), at(f"{(first + timedelta(days=31)).replace(day=1)}", zone)
    some = data.draw(readings(from_ns - 2 * 86_400 * 10**9, to_ns + 2 * 86_400 * 10**9))
    contract = tariff(timezone=zone)
    with tempfile.TemporaryDirectory(dir=quick()) as name:
        write_all(Path(name), [batch(*some)])
        with asking(Path(name)) as history:
            [whole] = bills(history, HOUSE, contract, [from_ns, to_ns], to_ns)
            cuts = cuts_of(from_ns, to_ns, "day", zone)
            by_day = bills(history, HOUSE, contract, cuts, to_ns)
            alone = [bills(history, HOUSE, contract, [start, end], to_ns)[0] for start, end in pairwise(cuts)]
    for parts in (by_day, alone):
        added = together(parts)
        assert (added.cost, added.earned, added.standing) == (whole.cost, whole.earned, whole.standing)
        assert added.total == whole.total
        assert (added.bought_uwh, added.sold_uwh) == (whole.bought_uwh, whole.sold_uwh)
        assert {band: one.uwh for band, one in added.bought.items() if one.uwh} == {
            band: one.uwh for band, one in whole.bought.items() if one.uwh
        }
