"""`[tariffs.…]`: exact numbers out of TOML, and every mistake at once with its line and key."""

from __future__ import annotations

import inspect
import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import config.settings
from commands.example import example_of
from config.lines import Place
from config.load import Catalog, ConfigurationError, load
from config.settings import Settings, TariffBand, TariffPeriod, TariffTable
from config.words import dotted
from tariff import Tariff

NO_KINDS = Catalog(list, lambda _: None, list, lambda _: None)  # type: ignore[arg-type, return-value]
MAIN = '[tariffs.main]\ncurrency = "GBP"\n'
PERIOD = f"{MAIN}[[tariffs.main.periods]]\nfrom = 2025-04-01\nunit_rate_per_kwh = 0.2486\n"  # five lines
BAND = f"{PERIOD}[[tariffs.main.periods.bands]]\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site.toml"


def good(site: Path, text: str) -> Settings:
    site.write_text(text)
    return load(site, NO_KINDS, base_directory=site.parent)


def problems(site: Path, text: str) -> list[str]:
    """Every mistake, with the folder left out of what is said."""
    site.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(site, NO_KINDS, base_directory=site.parent)
    return [problem.replace(f"{site.parent}/", "") for problem in caught.value.problems]


def told(line: int, *place: str | int) -> str:
    whole: Place = ("tariffs", "main", *place)
    return f"site.toml:{line}: {dotted(whole)}: "


def test_a_number_is_exactly_the_one_that_was_written(site: Path) -> None:
    text = PERIOD.replace("0.2486", "0.1000000000000000055511151231257827")
    [period] = good(site, f"{text}standing_charge_per_day = 1\nexport_rate_per_kwh = -1.5e-3\n").tariffs["main"].periods
    assert str(period.unit_rate_per_kwh) == "0.1000000000000000055511151231257827"
    assert period.standing_charge_per_day == 1
    assert period.export_rate_per_kwh == Decimal("-0.0015")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.decimals(-999_999, 999_999, places=12))
def test_every_decimal_survives_the_file(site: Path, number: Decimal) -> None:
    [period] = good(site, PERIOD.replace("0.2486", f"{number:f}")).tariffs["main"].periods
    assert f"{period.unit_rate_per_kwh:f}" == f"{number:f}"


def test_other_numbers_of_the_house_stay_what_they_were(site: Path) -> None:
    house = good(site, f"{PERIOD}[supervise]\nhung_after_s = 5.5\n")
    assert type(house.supervise.hung_after_s) is float


def test_what_a_tariff_does_not_say_has_its_default(site: Path) -> None:
    table = good(site, f'{BAND}name = "night"\nunit_rate_per_kwh = 0\n').tariffs["main"]
    night = TariffBand(name="night", unit_rate_per_kwh=Decimal(0), from_="00:00", to="24:00")
    period = TariffPeriod(from_=date(2025, 4, 1), unit_rate_per_kwh=Decimal("0.2486"), bands=(night,))
    assert table == TariffTable(currency="GBP", vat_percent=Decimal(0), rates_include_vat=False, periods=(period,))


def test_the_example_of_the_docstring_has_every_key_and_makes_a_tariff(site: Path) -> None:
    example, _, _ = example_of(inspect.getdoc(config.settings) or "").partition("[channels.")  # these need sources
    table = good(site, example).tariffs["main"]
    at_ns = 1_750_000_000 * 10**9
    assert Tariff.of(table, "Europe/London", {}).cost(at_ns, at_ns + 1, 10**9) == Decimal("0.09")
    text = example_of(inspect.getdoc(config.settings) or "").partition("[tariffs.main]")[2]
    for kind in (TariffTable, TariffPeriod, TariffBand):
        for one in kind.__struct_encode_fields__:
            assert f"\n{one} = " in text or f".{one}]]" in text, one


def test_the_page_about_tariffs_shows_a_configuration_and_a_file_that_work(site: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tariffs.md").read_text()
    [text] = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [rows] = re.findall(r"^```\n(from_utc.*?)^```", page, re.MULTILINE | re.DOTALL)
    (site.parent / "agile.csv").write_text(rows)
    house = good(site, text + '[[tariffs.main.periods]]\nfrom = 2025-10-26\nprices_file = "agile.csv"')
    subject = Tariff.of(house.tariffs["main"], "Europe/London", house.prices)
    half_past_ns = 1_761_438_600 * 10**9  # 2025-10-26T00:30Z
    assert subject.rate_at(half_past_ns) == Decimal("-0.011025")
    assert subject.rate_at(half_past_ns, export=True) is None
    for kind in (TariffTable, TariffPeriod, TariffBand):
        for key in kind.__struct_encode_fields__:
            assert f"`{key}`" in page or key == "periods", key


@pytest.mark.parametrize(
    ("text", "line", "place", "what"),
    [
        ("[tariffs]\nmain = 3", 2, (), "expected a table"),
        ("[tariffs.main]", 1, ("currency",), "this key is missing"),
        (PERIOD.replace("GBP", "£"), 2, ("currency",), "'£' is no currency; write its three letters, \"GBP\" say"),
        (MAIN, 1, ("periods",), "there is none, so nothing has a price; add one with its date: from = 2025-04-01"),
        (f"{MAIN}vat_percnt = 5", 3, ("vat_percnt",), 'unknown key; did you mean "vat_percent"?'),
        (f"{MAIN}vat_percent = -1{PERIOD[len(MAIN) - 1 :]}", 3, ("vat_percent",), "expected 0 to 100, got -1"),
        (f"{MAIN}vat_percent = 100.01{PERIOD[len(MAIN) - 1 :]}", 3, ("vat_percent",), "expected 0 to 100, got 100.01"),
        (f"{PERIOD}vat_percent = -0.1", 6, ("periods", 0, "vat_percent"), "expected 0 to 100, got -0.1"),
        (
            f"{MAIN}[tariffs.main.periods]",
            3,
            ("periods",),
            "there may be several: write [[tariffs.main.periods]] with two brackets",
        ),
        (PERIOD.replace("from = 2025-04-01\n", ""), 3, ("periods", 0, "from"), "this key is missing"),
        (
            PERIOD.replace("2025-04-01", '"2025-04-01"'),
            4,
            ("periods", 0, "from"),
            "expected a date without quotes, like 2025-04-01, got '2025-04-01'",
        ),
        (
            PERIOD.replace("2025-04-01", "2025-04-01T00:00:00"),
            4,
            ("periods", 0, "from"),
            "expected a date without quotes, like 2025-04-01, got 2025-04-01 00:00:00",
        ),
        (
            f"{PERIOD}[[tariffs.main.periods]]\nfrom = 2025-04-01\nunit_rate_per_kwh = 1",
            7,
            ("periods", 1, "from"),
            "another period is from 2025-04-01 too; keep one of the two",
        ),
        (
            PERIOD.replace("unit_rate_per_kwh = 0.2486\n", ""),
            3,
            ("periods", 0, "unit_rate_per_kwh"),
            "this key is missing; it is the price wherever no band fits",
        ),
        (
            PERIOD.replace("0.2486", '"0.2486"'),
            5,
            ("periods", 0, "unit_rate_per_kwh"),
            "expected a number, got '0.2486'",
        ),
        (PERIOD.replace("0.2486", "true"), 5, ("periods", 0, "unit_rate_per_kwh"), "expected a number, got true"),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nfrom = "7:30"',
            9,
            ("periods", 0, "bands", 0, "from"),
            "'7:30' is no time of day; write it like \"07:30\"",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nfrom = "24:00"\nto = "06:00"',
            9,
            ("periods", 0, "bands", 0, "from"),
            "'24:00' is no time of day; write it like \"07:30\"",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nfrom = 07:30:00',
            9,
            ("periods", 0, "bands", 0, "from"),
            "expected text in quotes, got 07:30:00",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nfrom = "07:30"\nto = "07:30"',
            10,
            ("periods", 0, "bands", 0, "to"),
            'the band ends when it begins; a whole day is from = "00:00" to = "24:00"',
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\ndays = ["mon", "Tue"]',
            9,
            ("periods", 0, "bands", 0, "days"),
            "there is no day 'Tue'; there are: mon, tue, wed, thu, fri, sat, sun",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\ndays = []',
            9,
            ("periods", 0, "bands", 0, "days"),
            "without days the band never counts; leave the key out for all of them",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nmonths = [1, 13]',
            9,
            ("periods", 0, "bands", 0, "months"),
            "expected months from 1 to 12 only",
        ),
        (
            f'{BAND}name = "x"\nunit_rate_per_kwh = 1\nmonths = [0x{"f" * 5000}]',
            9,
            ("periods", 0, "bands", 0, "months"),
            "expected months from 1 to 12 only",
        ),
        (
            f'{PERIOD}bands = [\n  {{ name = "x", unit_rate_per_kwh = 1, form = "x" }},\n]',
            6,
            ("periods", 0, "bands", 0, "form"),
            'unknown key; did you mean "from"?',
        ),
        (
            f'{PERIOD}prices_file = "gone.csv"',
            6,
            ("periods", 0, "prices_file"),
            "gone.csv: cannot be read: No such file or directory",
        ),
    ],
)
def test_each_mistake_of_a_tariff_is_told_in_plain_words_with_its_place(
    site: Path, text: str, line: int, place: Place, what: str
) -> None:
    assert problems(site, text) == [told(line, *place) + what]


@pytest.mark.parametrize(
    "number",
    ["1e6", "nan", "-inf", "1e-41", "1e999999999999999999", "1e999999999999999999999999", "9" * 400, "-1000000"],
)
def test_a_number_that_no_money_needs_is_refused(site: Path, number: str) -> None:
    [problem] = problems(site, PERIOD.replace("0.2486", number))
    assert problem.startswith(told(5, "periods", 0, "unit_rate_per_kwh") + "is too large or too fine a number, got ")
    assert len(problem) < 200


def test_a_name_that_no_channel_could_use_is_refused(site: Path) -> None:
    [problem] = problems(site, PERIOD.replace("tariffs.main", 'tariffs."my tariff"'))
    assert problem.endswith("'my tariff' is no name: letters, digits, - and _ only, 63 at most; 'my-tariff' would do")


def test_the_mistakes_of_all_tariffs_are_told_at_once_with_those_of_the_rest(site: Path) -> None:
    (site.parent / "bad.csv").write_text("from_utc,unit_rate_per_kwh\nx,1\n2025-01-01T00:00Z,y\n")
    text = (
        '[tariffs.main]\ncurrency = "pounds"\nvat_percent = 101\n[[tariffs.main.periods]]\nfrom = 2025-04-01\n'
        'prices_file = "bad.csv"\n[[tariffs.main.periods.bands]]\nname = "x"\nunit_rate_per_kwh = 1\nfrom = "1"\n'
        "months = [0]\n[[tariffs.main.periods]]\nfrom = 2025-04-01\n[tariffs.other]\ncurrency = 5\n"
        "[[tariffs.other.periods]]\nfrom = 2025-04-01\nvat_percent = 200\n[api]\nport = 0\n"
    )
    lines = [int(problem.split(":")[1]) for problem in problems(site, text)]
    assert sorted(lines) == [2, 3, 6, 6, 10, 11, 12, 13, 15, 16, 18, 20]


def test_what_is_missing_in_a_file_of_prices_is_no_mistake_but_told(site: Path) -> None:
    rows = "2025-10-26T00:00Z,0.2\n2025-10-26T00:30Z,0.2\n2025-10-26T02:30Z,0.2\n"
    (site.parent / "agile.csv").write_text(f"from_utc,unit_rate_per_kwh\n{rows}")
    period = f'{PERIOD}prices_file = "agile.csv"\n'
    gap = "agile.csv: 3 half hours are missing from 2025-10-26T01:00Z on; "
    assert good(site, period).remarks == [f"{gap}the rates of the period count there"]
    without = period.replace("unit_rate_per_kwh = 0.2486\n", "")
    assert good(site, without).remarks == [f"{gap}energy has no price there"]
    assert good(site, PERIOD).remarks == []
    again = f'{period}[[tariffs.main.periods]]\nfrom = 2025-05-01\nunit_rate_per_kwh = 1\nprices_file = "agile.csv"\n'
    assert len(good(site, again).remarks) == 1, "what two periods lack alike is told once"


def test_a_file_that_several_periods_name_is_read_and_complained_about_once(site: Path) -> None:
    twice = (
        f'{PERIOD}prices_file = "agile.csv"\n[[tariffs.main.periods]]\nfrom = 2025-05-01\nprices_file = "agile.csv"\n'
    )
    assert len(problems(site, twice)) == 1
    (site.parent / "agile.csv").write_text("from_utc,unit_rate_per_kwh\n2025-10-26T00:00Z,0.2\n")
    assert [*good(site, twice).prices] == ["agile.csv"]


def test_a_house_with_other_prices_in_the_file_is_another_house(site: Path) -> None:
    """So a reload starts those anew who reckon with them, and a file that breaks later breaks nobody."""
    file, text = site.parent / "agile.csv", f'{PERIOD}prices_file = "agile.csv"\n'
    file.write_text("from_utc,unit_rate_per_kwh\n2025-10-26T00:00Z,0.2\n")
    before = good(site, text)
    assert good(site, text) == before
    file.write_text("from_utc,unit_rate_per_kwh\n2025-10-26T00:00Z,0.3\n")
    assert good(site, text) != before
    file.unlink()
    at_ns = 1_761_436_800 * 10**9
    assert Tariff.of(before.tariffs["main"], "Europe/London", before.prices).rate_at(at_ns) == Decimal("0.2")
