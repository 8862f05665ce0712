"""What energy costs at any time, exactly: a tariff by date and by the clock on the wall.

Energy is in whole µWh, time in nanoseconds of UTC, money a `Decimal` in the currency of the tariff that is never
rounded, VAT included. Where nobody said what a kWh costs the answer is None and never a guess.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final
from zoneinfo import ZoneInfo

from config.prices import Prices
from config.settings import DAYS, TariffBand, TariffPeriod, TariffTable

# Wide enough for every sum and product of a tariff; a digit that would be lost is an error.
_EXACT: Final = Context(prec=300, traps=[Inexact, InvalidOperation, Overflow])
_WIDE: Final = Context(prec=300)
_UWH_PER_KWH_DIGITS: Final = 9
_S: Final = 10**9  # in ns
_DAY_S: Final = 86_400
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_MOST_DAYS: Final = 64  # whose prices are kept


@dataclass(frozen=True, slots=True)
class Price:
    """What a kWh costs and what one that is exported earns; None: nobody said so."""

    unit_rate_per_kwh: Decimal | None = None
    export_rate_per_kwh: Decimal | None = None
    band: str = ""  # the name of the band that the unit rate is from

    def of(self, *, export: bool) -> Decimal | None:
        return self.export_rate_per_kwh if export else self.unit_rate_per_kwh


@dataclass(frozen=True, slots=True)
class Part:
    """The part of an interval that has one price."""

    start_ns: int
    end_ns: int
    uwh: int
    price: Price

    def cost(self, *, export: bool = False) -> Decimal | None:
        rate = self.price.of(export=export)
        if self.uwh == 0:
            return Decimal(0)
        return None if rate is None else _EXACT.scaleb(_EXACT.multiply(rate, self.uwh), -_UWH_PER_KWH_DIGITS)


class Tariff:
    """One contract with its periods. Not for several threads at once: it remembers the days it was asked for."""

    def __init__(self, currency: str, zone: ZoneInfo, periods: Sequence[_Period]) -> None:
        self.currency = currency
        self._zone = zone
        self._periods = sorted(periods, key=lambda period: period.first_day)
        self._first_days = [period.first_day for period in self._periods]
        self._days: dict[int, _Day] = {}  # by the number of the UTC day since 1970

    @classmethod
    def of(cls, table: TariffTable, timezone: str, prices: Mapping[str, Prices]) -> Tariff:
        """Make a tariff of its table, with `Settings.prices`."""
        return cls(table.currency, ZoneInfo(timezone), [_period(table, one, prices) for one in table.periods])

    def cost(
        self, start_ns: int, end_ns: int, uwh: int, *, export: bool = False, between: tuple[int, int] | None = None
    ) -> Decimal | None:
        """Return what the energy of an interval costs, or with `export` what it earns, without the standing charge.

        The energy is spread evenly over the interval. With `between`, only what falls into that range counts: the
        costs of ranges that adjoin add up to the cost of them together, to the last digit.
        None: a part of it has no price.
        """
        total = Decimal(0)
        for part in self.parts(start_ns, end_ns, uwh, between=between):
            cost = part.cost(export=export)
            if cost is None:
                return None
            total = added(total, cost)
        return total

    def parts(self, start_ns: int, end_ns: int, uwh: int, *, between: tuple[int, int] | None = None) -> Iterator[Part]:
        """Split an interval wherever the price changes. The energies of the parts add up to the whole.

        What an interval without duration has, it has at its instant.
        """
        if end_ns < start_ns:
            raise ValueError(f"an interval from {start_ns} to {end_ns} ns ends before it begins")
        first_ns, last_ns = between or (start_ns, max(end_ns, start_ns + 1))
        if start_ns == end_ns:
            if first_ns <= start_ns < last_ns:
                yield Part(start_ns, end_ns, uwh, self.price_at(start_ns))
            return
        at_ns, last_ns = max(start_ns, first_ns), min(end_ns, last_ns)
        duration_ns = end_ns - start_ns
        before_uwh = uwh * (at_ns - start_ns) // duration_ns
        while at_ns < last_ns:
            day, number = self._find(at_ns)
            until_ns = min(day.ends_ns[number], last_ns)
            until_uwh = uwh * (until_ns - start_ns) // duration_ns
            yield Part(at_ns, until_ns, until_uwh - before_uwh, day.prices[number])
            at_ns, before_uwh = until_ns, until_uwh

    def price_at(self, at_ns: int) -> Price:
        day, number = self._find(at_ns)
        return day.prices[number]

    def rate_at(self, at_ns: int, *, export: bool = False) -> Decimal | None:
        """Return what a kWh costs or, exported, earns at an instant."""
        return self.price_at(at_ns).of(export=export)

    def next_boundary(self, at_ns: int) -> int:
        """Return until when the price at `at_ns` surely counts: its next change, or the next midnight of UTC."""
        day, number = self._find(at_ns)
        return day.ends_ns[number]

    def standing_charge(self, start_ns: int, end_ns: int) -> Decimal:
        """Return the standing charges of all local days that begin in the range, its start included.

        A day of 23 or 25 hours costs one day. Days before the first period cost nothing that anybody knows of.
        """
        total = Decimal(0)
        for day in range(self._local_day(start_ns // _S), self._local_day(end_ns // _S) + 2):
            midnight_s = self._midnight_s(day)
            if start_ns <= midnight_s * _S < end_ns and self._local_day(midnight_s) == day:
                period = self._period_on(day)
                total = added(total, period.standing_charge_per_day if period else Decimal(0))
        return total

    def _find(self, at_ns: int) -> tuple[_Day, int]:
        number = at_ns // (_DAY_S * _S)
        day = self._days.get(number)
        if day is None:
            if len(self._days) >= _MOST_DAYS:
                del self._days[next(iter(self._days))]
            day = self._days[number] = self._day(number)
        return day, bisect_right(day.ends_ns, at_ns)

    def _day(self, number: int) -> _Day:
        """Work out the prices of one UTC day."""
        starts_s: list[int] = []
        prices: list[Price] = []
        for start_s, end_s, offset_s in self._stretches(number * _DAY_S, (number + 1) * _DAY_S):
            for edge_s in self._edges(start_s, end_s, offset_s):
                price = self._price(edge_s, edge_s + offset_s)
                if not prices or price != prices[-1]:
                    starts_s.append(edge_s)
                    prices.append(price)
        return _Day([edge_s * _S for edge_s in [*starts_s[1:], (number + 1) * _DAY_S]], prices)

    def _edges(self, start_s: int, end_s: int, offset_s: int) -> list[int]:
        """Return when the price may change in a stretch in which the clocks are not changed."""
        edges = {start_s}
        for day in range((start_s + offset_s) // _DAY_S, (end_s - 1 + offset_s) // _DAY_S + 1):
            midnight_s = day * _DAY_S - offset_s
            edges.add(midnight_s)
            if period := self._period_on(day):
                edges |= {midnight_s + edge_s for band in period.bands for edge_s in (band.from_s, band.to_s)}
                if period.file:
                    for times_s in (period.file.starts_s, period.file.ends_s):
                        edges |= {*times_s[bisect_left(times_s, start_s) : bisect_left(times_s, end_s)]}
        return sorted(edge_s for edge_s in edges if start_s <= edge_s < end_s)

    def _price(self, at_s: int, local_s: int) -> Price:
        """Return the price at an instant of which the clock on the wall is known, as if it showed UTC."""
        day, second = divmod(local_s, _DAY_S)
        period = self._period_on(day)
        return period.price_at(at_s, day, second) if period else Price()

    def _period_on(self, day: int) -> _Period | None:
        number = bisect_right(self._first_days, day)
        return self._periods[number - 1] if number else None

    def _stretches(self, start_s: int, end_s: int) -> Iterator[tuple[int, int, int]]:
        """Split a range where the clocks are changed: start, end, and by how much the wall is ahead of UTC."""
        offset_s = self._offset_s(start_s)
        for hour_s in range(start_s + 3600, end_s + 1, 3600):
            if self._offset_s(hour_s) == offset_s:
                continue
            before_s, change_s = hour_s - 3600, hour_s
            while change_s - before_s > 1:
                middle_s = (before_s + change_s) // 2
                if self._offset_s(middle_s) == offset_s:
                    before_s = middle_s
                else:
                    change_s = middle_s
            yield start_s, change_s, offset_s
            start_s, offset_s = change_s, self._offset_s(change_s)
        if start_s < end_s:
            yield start_s, end_s, offset_s

    def _offset_s(self, at_s: int) -> int:
        offset = datetime.fromtimestamp(at_s, self._zone).utcoffset()
        return 0 if offset is None else offset // timedelta(seconds=1)

    def _local_day(self, at_s: int) -> int:
        return (at_s + self._offset_s(at_s)) // _DAY_S

    def _midnight_s(self, day: int) -> int:
        """Return when a local day begins: its first instant, if the clocks are changed just then."""
        midnight = datetime.combine(date.fromordinal(_FIRST_DAY + day), datetime.min.time(), self._zone)
        return int(midnight.timestamp())


@dataclass(frozen=True, slots=True)
class _Day:
    """The prices of a UTC day in their order, and until when each of them counts."""

    ends_ns: list[int]
    prices: list[Price]


@dataclass(frozen=True, slots=True)
class _Band:
    """A band with its edges in seconds after midnight, by the clock on the wall."""

    from_s: int
    to_s: int
    weekdays: frozenset[int]  # 0 is Monday
    months: frozenset[int]
    price: Price

    def fits(self, day: int, second: int) -> bool:
        """Whether a second of a day, counted since 1970, is in the band: its own day is the one on which it began."""
        if self.from_s < self.to_s:
            if not self.from_s <= second < self.to_s:
                return False
        elif second < self.to_s:
            day -= 1
        elif second < self.from_s:
            return False
        began = date.fromordinal(_FIRST_DAY + day)
        return began.weekday() in self.weekdays and began.month in self.months


@dataclass(frozen=True, slots=True)
class _Period:
    """A period with its prices, VAT included."""

    first_day: int  # since 1970
    standing_charge_per_day: Decimal
    price: Price  # where no band fits
    bands: Sequence[_Band]
    file: Prices | None

    def price_at(self, at_s: int, day: int, second: int) -> Price:
        """Return the price at an instant: that of the file, and what it lacks from the first band that fits."""
        otherwise = next((band.price for band in self.bands if band.fits(day, second)), self.price)
        row = bisect_right(self.file.starts_s, at_s) - 1 if self.file else -1
        if self.file is None or row < 0 or at_s >= self.file.ends_s[row]:
            return otherwise
        unit_rate, export_rate = self.file.unit_rates[row], self.file.export_rates[row]
        price = otherwise if unit_rate is None else replace(otherwise, unit_rate_per_kwh=unit_rate, band="")
        return price if export_rate is None else replace(price, export_rate_per_kwh=export_rate)


def added(one: Decimal, other: Decimal) -> Decimal:
    """Add money to the last digit; `+` drops what is beyond 28 of them.

    >>> added(Decimal("1e15"), Decimal("-1e-20"))
    Decimal('999999999999999.99999999999999999999')
    """
    return _EXACT.add(one, other)


def rounded(money: Decimal, places: int = 2) -> Decimal:
    """Round money for showing, the half away from zero as on a bill.

    >>> rounded(Decimal("2.345")), rounded(Decimal("-0.001")), rounded(Decimal("1250.5"), 0)
    (Decimal('2.35'), Decimal('0.00'), Decimal('1251'))
    """
    shown = money.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, _WIDE)
    return abs(shown) if shown == 0 else shown


def _period(table: TariffTable, period: TariffPeriod, prices: Mapping[str, Prices]) -> _Period:
    vat_percent = table.vat_percent if period.vat_percent is None else period.vat_percent
    if table.rates_include_vat:
        vat_percent = Decimal(0)
    price = Price(_taxed(period.unit_rate_per_kwh, vat_percent), period.export_rate_per_kwh)
    file = prices[period.prices_file] if period.prices_file else None
    if file and vat_percent:
        file = replace(file, unit_rates=[_taxed(rate, vat_percent) for rate in file.unit_rates])
    return _Period(
        first_day=period.from_.toordinal() - _FIRST_DAY,
        standing_charge_per_day=_taxed(period.standing_charge_per_day, vat_percent) or Decimal(0),
        price=price,
        bands=[_band(band, price, vat_percent) for band in period.bands],
        file=file,
    )


def _band(band: TariffBand, price: Price, vat_percent: Decimal) -> _Band:
    earns = price.export_rate_per_kwh if band.export_rate_per_kwh is None else band.export_rate_per_kwh
    return _Band(
        from_s=_second(band.from_),
        to_s=_second(band.to),
        weekdays=frozenset(DAYS.index(day) for day in band.days),
        months=frozenset(band.months),
        price=Price(_taxed(band.unit_rate_per_kwh, vat_percent), earns, band.name),
    )


def _taxed(rate: Decimal | None, vat_percent: Decimal) -> Decimal | None:
    return rate if rate is None else _EXACT.multiply(rate, _EXACT.add(1, _EXACT.scaleb(vat_percent, -2)))


def _second(time: str) -> int:
    """Return the second of the day.

    >>> _second("07:30"), _second("24:00")
    (27000, 86400)
    """
    return int(time[:2]) * 3600 + int(time[3:]) * 60
