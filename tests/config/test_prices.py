"""Files of prices: what is good is read whatever its order and step, what is not is told with its line."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.prices import PricesError, read_prices

HEADER = "from_utc,unit_rate_per_kwh,export_rate_per_kwh\n"
MIDNIGHT_S = 1_761_436_800  # 2025-10-26T00:00Z


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agile.csv"


def problems(file: Path) -> list[str]:
    with pytest.raises(PricesError) as caught:
        read_prices(file)
    return [problem.replace(f"{file.parent}/", "") for problem in caught.value.problems]


def test_rows_in_any_order_are_read_exactly_and_hold_until_the_next_one(file: Path) -> None:
    file.write_text(
        f"{HEADER}2025-10-26T00:30Z,-0.0351,\n\n2025-10-26 00:00:00+00:00 , 0.20 ,0.15\n20251026T02+01,,1e-05"
    )
    prices = read_prices(file)
    assert [*prices.starts_s] == [MIDNIGHT_S, MIDNIGHT_S + 1800, MIDNIGHT_S + 3600]
    assert [*prices.ends_s] == [MIDNIGHT_S + 1800, MIDNIGHT_S + 3600, MIDNIGHT_S + 5400]
    assert [str(rate) for rate in prices.unit_rates] == ["0.20", "-0.0351", "None"]
    assert prices.export_rates == [Decimal("0.15"), None, Decimal("0.00001")]
    assert prices.gaps == []


def test_what_a_spreadsheet_writes_is_welcome_and_columns_may_stand_in_any_order(file: Path) -> None:
    file.write_bytes('\ufeffunit_rate_per_kwh,"from_utc"\r\n"0.2",2025-10-26T00:00\r\n\r\n'.encode())
    prices = read_prices(file)
    assert ([*prices.starts_s], [*prices.ends_s]) == ([MIDNIGHT_S], [MIDNIGHT_S + 1800]), "a lone row is one half hour"
    assert (prices.unit_rates, prices.export_rates) == ([Decimal("0.2")], [None])


def test_every_gap_is_told_with_its_length_and_nothing_holds_across_it(file: Path) -> None:
    times = [0, 1, 2, 3, 7, 8, 9, 11, 12]
    file.write_text(HEADER + "".join(f"{_utc(MIDNIGHT_S + 1800 * number)},0.2,\n" for number in times))
    prices = read_prices(file)
    assert prices.gaps == [
        "3 half hours are missing from 2025-10-26T02:00Z on",
        "1 half hour is missing from 2025-10-26T05:00Z on",
    ]
    assert [(end - MIDNIGHT_S) // 1800 for end in prices.ends_s] == [1, 2, 3, 4, 8, 9, 10, 12, 13]


def test_of_very_many_gaps_only_the_first_are_told(file: Path) -> None:
    times = [*range(60), *range(60, 160, 2)]
    file.write_text(HEADER + "".join(f"{_utc(MIDNIGHT_S + 1800 * number)},0.2,\n" for number in times))
    gaps = read_prices(file).gaps
    assert (len(gaps), gaps[-1]) == (11, "and 39 more such gaps")


@pytest.mark.parametrize(("step_s", "word"), [(3600, "2 hours are"), (86400, "2 days are"), (900, "2 prices are")])
def test_the_step_is_that_of_the_file(file: Path, step_s: int, word: str) -> None:
    file.write_text(HEADER + "".join(f"{_utc(MIDNIGHT_S + step_s * number)},0.2,\n" for number in [0, 1, 2, 5]))
    prices = read_prices(file)
    assert prices.gaps == [f"{word} missing from {_utc(MIDNIGHT_S + 3 * step_s)} on"]
    assert prices.ends_s[-1] == MIDNIGHT_S + 6 * step_s


def test_a_stray_row_between_two_others_changes_the_step_of_no_other(file: Path) -> None:
    minutes = [0, 30, 60, 75, 90, 120, 180]
    file.write_text(HEADER + "".join(f"{_utc(MIDNIGHT_S + 60 * minute)},0.2,\n" for minute in minutes))
    prices = read_prices(file)
    assert prices.gaps == ["1 half hour is missing from 2025-10-26T02:30Z on"]
    assert [(end - MIDNIGHT_S) // 60 for end in prices.ends_s] == [30, 60, 75, 90, 120, 150, 210]


def test_a_day_of_25_hours_is_no_gap_in_prices_by_the_day(file: Path) -> None:
    days = ["2025-10-24T23:00Z", "2025-10-25T23:00Z", "2025-10-27T00:00Z", "2025-10-28T00:00Z"]
    file.write_text(HEADER + "".join(f"{day},0.2,\n" for day in days))
    prices = read_prices(file)
    assert prices.gaps == []
    assert prices.ends_s[:-1] == prices.starts_s[1:]


COLUMNS = "expected the names of the columns: from_utc,unit_rate_per_kwh,export_rate_per_kwh (the last may be left out)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"agile.csv:1: {COLUMNS}"),
        ("2025-10-26T00:00Z,0.2\n", f"agile.csv:1: {COLUMNS}"),
        ("\nfrom_utc;unit_rate_per_kwh\n", f"agile.csv:2: {COLUMNS}"),
        ("from_utc,unit_rate\n", f"agile.csv:1: {COLUMNS}"),
        ("from_utc,unit_rate_per_kwh,from_utc\n", f"agile.csv:1: {COLUMNS}"),
        (HEADER, "agile.csv: has no prices, only the names of the columns"),
        (f"{HEADER}2025-10-26T00:00Z,0.2\n", "agile.csv:2: expected 3 columns, got 2"),
        (
            f"{HEADER}2025-10-26T00:00Z,0,2,0\n",
            "agile.csv:2: expected 3 columns, got 4; a decimal comma would be one too many",
        ),
        (
            f"{HEADER}26.10.2025 00:00,0.2,\n",
            "agile.csv:2: '26.10.2025 00:00' is no time; write it like 2025-10-26T00:30Z",
        ),
        (
            f"{HEADER}2025-10-26T00:00:00.5Z,0.2,\n",
            "agile.csv:2: '2025-10-26T00:00:00.5Z' is no time; write it like 2025-10-26T00:30Z",
        ),
        (f"{HEADER}2025-10-26T00:00Z,24p,\n", "agile.csv:2: '24p' is no price; write it like 0.2486"),
        (f"{HEADER}2025-10-26T00:00Z,nan,\n", "agile.csv:2: 'nan' is no price; write it like 0.2486"),
        (f"{HEADER}2025-10-26T00:00Z,1,1e9\n", "agile.csv:2: '1e9' is no price; write it like 0.2486"),
        (f"{HEADER}2025-10-26T00:00Z,1_0,\n", "agile.csv:2: '1_0' is no price; write it like 0.2486"),
        (f"{HEADER}2025-10-26T00:00Z,{'9' * 999},\n", f"agile.csv:2: '{'9' * 40}' is no price; write it like 0.2486"),
        (f"{HEADER}2025-10-26T00:00Z,,\n", "agile.csv:2: has no price; leave the line out"),
        (
            f"{HEADER}2025-10-26T01:00+01:00,1,\n2025-10-26T00:30Z,1,\n2025-10-26T00:00Z,2,\n",
            "agile.csv:4: 2025-10-26T00:00Z stands in line 2 already; keep one of the two",
        ),
        (f'{HEADER}2025-10-26T00:00Z,"1,\n', "agile.csv:2: is not valid CSV: "),
    ],
)
def test_each_bad_line_is_told_in_plain_words_with_its_number(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    [problem] = problems(file)
    assert problem.startswith(expected)


def test_all_bad_lines_are_told_at_once_and_of_very_many_the_first(file: Path) -> None:
    file.write_text(f"{HEADER}x,1,\n2025-10-26T00:00Z,1,\n2025-10-26T00:30Z,y,\n")
    assert [problem.split(": ")[0] for problem in problems(file)] == ["agile.csv:2", "agile.csv:4"]
    file.write_text(HEADER + "x,1,\n" * 500)
    told = problems(file)
    assert (len(told), told[-1]) == (11, "agile.csv: 490 more of its lines are wrong")


def test_a_file_that_cannot_be_read_is_told_with_the_reason(file: Path) -> None:
    assert problems(file) == ["agile.csv: cannot be read: No such file or directory"]
    file.mkdir()
    assert problems(file) == ["agile.csv: cannot be read: is not a file"]
    os.mkfifo(file.parent / "pipe")
    assert problems(file.parent / "pipe") == ["pipe: cannot be read: is not a file"]
    assert "this is no name of a file" in problems(Path("a\0b"))[0]
    (file.parent / "latin").write_bytes(HEADER.encode() + b"2025\xb7")
    assert problems(file.parent / "latin") == ["latin:2: is not UTF-8 text; save it as UTF-8"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_told(file: Path) -> None:
    file.write_text(HEADER)
    file.chmod(0)
    assert problems(file) == ["agile.csv: cannot be read: Permission denied"]


def test_a_file_far_too_large_for_prices_is_not_even_read(file: Path) -> None:
    with file.open("wb") as hole:
        hole.truncate(10**12)
    assert problems(file) == ["agile.csv: is larger than 16 MB: is it the right file?"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text('0123456789-:TZ+,.e\n\r"x \0', max_size=60).map(str.encode)))
def test_whatever_bytes_the_file_has_it_is_read_or_refused(file: Path, content: bytes) -> None:
    file.write_bytes(HEADER.encode() + content)
    try:
        prices = read_prices(file)
    except PricesError as error:
        assert error.problems
    else:
        assert len(prices.starts_s) == len(prices.ends_s) == len(prices.unit_rates) == len(prices.export_rates) > 0


def _utc(seconds: int) -> str:
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%MZ}"
