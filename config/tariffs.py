"""Reads what only tariffs have: decimals as exact as they were written, dates, and files of prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, get_args

from config.lines import Place
from config.prices import Prices, PricesError, read_prices
from config.settings import TariffTable
from config.words import shown

_MOST: Final = 1_000_000  # of any currency, for a kWh or a day
_MOST_DECIMALS: Final = 40


def decimal(text: str) -> Decimal:
    """Return the number in a TOML text; one beyond all measure as no number."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("nan")


def strict_reader(kind: Any) -> Callable[[Any], Any] | None:
    """Return who reads a value of this type, where the usual conversion would be too lenient."""
    if kind is date:
        return _date
    return _exact if Decimal in (kind, *get_args(kind)) else None


def read_price_files(
    tariffs: Mapping[str, TariffTable], base_directory: Path
) -> tuple[dict[str, Prices], list[tuple[Place, str]]]:
    """Read the files of prices; return them by the names that the tariffs use, and what is wrong with them, by key."""
    found: dict[str, Prices] = {}
    wrong: list[tuple[Place, str]] = []
    seen: set[str] = set()
    for name, tariff in tariffs.items():
        for number, period in enumerate(tariff.periods):
            file = period.prices_file
            if not file or file in seen:
                continue
            seen.add(file)
            try:
                found[file] = read_prices(base_directory / file)
            except PricesError as error:
                place = ("tariffs", name, "periods", number, "prices_file")
                wrong += [(place, problem) for problem in error.problems]
    return found, wrong


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError(f"expected a date without quotes, like 2025-04-01, got {shown(value)}")


def _exact(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"expected a number, got {shown(value)}")
    number = Decimal(value)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_MOST_DECIMALS or not -_MOST < number < _MOST:
        raise ValueError(f"is too large or too fine a number, got {shown(value)}")
    return number
