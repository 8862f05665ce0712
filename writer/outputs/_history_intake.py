"""Turns the records of a batch into what the journal of the history keeps: groups, each of one device."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from math import isnan
from typing import Any, Final

from history.buckets import HOUR_NS, TEXT, flags_of, kind_of, micro
from history.codec import Group
from history.tables import RAW, Series, State, Tables
from reading import Record, Value
from writer import Batch, Shape

MOST_NUMBER: Final = 1e11  # of watts, watt-hours, volts or pulses; no house has so much
_OWED: Final = {"energy_wh": "energy_debt_wh", "energy_export_wh": "energy_export_debt_wh"}
_DEBTS: Final = frozenset(_OWED.values())


class Catalogue:
    """Knows every series, and begins new ones."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.series: dict[int, Series] = {}
        self._known: dict[tuple[str, str], dict[tuple[str, bool], Series]] = {}  # by device, metric and whether a text
        for series in Tables(connection).series():
            self._add(series)

    def groups(self, batch: Batch, again: Collection[int], state: State) -> tuple[list[Group], dict[int, str]]:
        """Return what the journal keeps of a batch, and why which of its records can never be kept.

        `again` are those rows of the outbox that are in the history already.
        """
        groups = []
        refused = {}
        for shape in batch.shapes():
            columns = shape.columns()
            if not again and _is_plain(shape, columns):
                groups.append(self._group(shape, columns))
                continue
            for place, record in zip(shape.places, shape.records, strict=True):
                if why := unfit(record):
                    refused[place] = why
                else:
                    groups += self._group_of_one(record, state, again=bool(again) and batch.rows[place] in again)
        return groups, refused

    def _group(self, shape: Shape, columns: Sequence[Sequence[Value]]) -> Group:
        heads = zip(shape.metrics, columns, strict=True)
        return Group(
            [self.find(shape, metric, column[0]).id for metric, column in heads],
            [record.time_ns for record in shape.records],
            [flags_of(record.quality, record.clock) for record in shape.records],
            columns,
        )

    def _group_of_one(self, record: Record, state: State, *, again: bool) -> list[Group]:
        """Return what is kept of a record, if anything.

        A reading that comes again has a time that is there already. Where the times are gone, and with bookings, of
        which several may have one time, only the number of its row tells.
        """
        series, columns = [], []
        hour = record.time_ns // HOUR_NS
        for metric, value in _true_values(record).items():
            each = self.find(record, metric, value)
            if again and state.finest(hour, each.kind) != RAW:
                continue
            series.append(each.id)
            columns.append([value])
        return [Group(series, [record.time_ns], [flags_of(record.quality, record.clock)], columns)] if series else []

    def find(self, whose: Record | Shape, metric: str, value: Value) -> Series:
        """Return a series, begun if there is none yet."""
        of_device = self._known.setdefault((whose.source, whose.device), {})
        return of_device.get((metric, isinstance(value, str))) or self._begin(whose, metric, value)

    def _begin(self, whose: Record | Shape, metric: str, value: Value) -> Series:
        key = (whose.source, whose.device, metric, kind_of(metric, value))
        cursor = self._connection.execute(
            "INSERT INTO series (source, device, metric, kind) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET kind = kind RETURNING id",  # somebody renamed a channel to it
            key,
        )
        [(number,)] = cursor.fetchall()
        self._add(new := Series(number, *key))
        return new

    def _add(self, series: Series) -> None:
        self.series[series.id] = series
        of_device = self._known.setdefault((series.source, series.device), {})
        of_device[series.metric, series.kind == TEXT] = series


def unfit(record: Record) -> str:
    """Say why a record can never be kept, or nothing."""
    if record.time_ns < 0:
        return "a time before 1970"
    for metric, value in record.values.items():
        if not isinstance(value, str) and not -MOST_NUMBER <= value <= MOST_NUMBER:  # NaN is neither
            return f"{metric} is beyond anything that a house can have"
    return ""


def _is_plain(shape: Shape, columns: Sequence[Sequence[Value]]) -> bool:
    """Whether all of its records can be kept just as they are, each column as one series."""
    if not columns or min(record.time_ns for record in shape.records) < 0 or not _DEBTS.isdisjoint(shape.metrics):
        return False
    return all(map(_is_fit, columns))


def _is_fit(column: Sequence[Any]) -> bool:
    """Whether a column has nothing but texts, or nothing but numbers that a house can have."""
    try:
        total = sum(column)
    except TypeError:
        return {*map(type, column)} == {str}
    # Where there is one NaN the sum is NaN, whatever least and greatest are.
    return min(column) >= -MOST_NUMBER and max(column) <= MOST_NUMBER and not isnan(total)


def _true_values(record: Record) -> Mapping[str, Value]:
    """Return what there is to keep, with the register as high as it would be without what was taken back."""
    values = record.values
    for metric, owed in _OWED.items():
        debt, register = values.get(owed), values.get(metric)
        if debt and register is not None and not isinstance(debt, str) and not isinstance(register, str):
            values = {**values, metric: (micro(register) - micro(debt)) / 1e6}
    return values
