"""What the ledger keeps beside its registers, in the same file and the same commits: its entries, and errands."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from logbook.entries import Entry
from logbook.entries import entries as entries_in

BOOKS: Final = """
CREATE TABLE IF NOT EXISTS entry (  -- of the energy ledger: what happened to which register
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,       -- source/device
    metric TEXT NOT NULL,        -- energy_wh or energy_export_wh
    kind TEXT NOT NULL,
    boot TEXT NOT NULL,
    at_ns INTEGER NOT NULL,      -- monotonic
    utc_ns INTEGER NOT NULL,     -- 0 until the clock was set
    before_uwh INTEGER NOT NULL, -- what the device's counter showed
    after_uwh INTEGER NOT NULL,
    booked_uwh INTEGER NOT NULL,
    note TEXT NOT NULL,
    undoes INTEGER NOT NULL      -- the entry that this one takes back, or 0
);
CREATE TABLE IF NOT EXISTS errand (  -- what a command asks of the writer, and its answer; see writer/errands.py
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    answer TEXT
);
"""
MOST_ENTRIES: Final = 20_000
MOST_ERRANDS: Final = 100


class Books:
    """The entries and errands of one outbox, over its connection; whoever owns that owns the transaction too."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen_version = -1

    def enter(self, entries: Sequence[Entry]) -> None:
        """Write entries down, and forget the oldest of too many."""
        if entries:
            self._connection.executemany(
                "INSERT INTO entry VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_entry_row(one) for one in entries],
            )
            self._connection.execute("DELETE FROM entry WHERE id <= (SELECT max(id) FROM entry) - ?", (MOST_ENTRIES,))

    def put_answers(self, answers: Mapping[int, str]) -> None:
        """Answer errands."""
        if answers:
            self._connection.executemany(
                "UPDATE errand SET answer = ? WHERE id = ?", [(answer, errand) for errand, answer in answers.items()]
            )
            self._connection.execute("DELETE FROM errand WHERE id <= (SELECT max(id) FROM errand) - ?", (MOST_ERRANDS,))

    def errands(self) -> list[tuple[int, str]]:
        """Return what commands have asked since the last look and nobody answered yet, with its number."""
        version = self._number("PRAGMA data_version")
        if version == self._seen_version:  # nobody but us has written into the file
            return []
        self._seen_version = version
        return self._connection.execute("SELECT id, text FROM errand WHERE answer IS NULL ORDER BY id").fetchall()

    def leave_errand(self, text: str) -> int:
        """Write down an errand for the writer; return its number."""
        return self._connection.execute("INSERT INTO errand (text) VALUES (?)", (text,)).lastrowid or 0

    def answer(self, errand: int) -> str | None:
        """Return the answer to an errand, once there is one."""
        row = self._connection.execute("SELECT answer FROM errand WHERE id = ?", (errand,)).fetchone()
        return row[0] if row else None

    def take_back_errand(self, errand: int) -> bool:
        """Withdraw an errand that nobody answered; False if somebody did after all."""
        query = "DELETE FROM errand WHERE id = ? AND answer IS NULL"
        return self._connection.execute(query, (errand,)).rowcount == 1

    def entry(self, number: int) -> Entry | None:
        """Return one entry of the ledger."""
        found = self.entries("WHERE id = ?", number)
        return found[0][1] if found else None

    def undone_by(self, number: int) -> int:
        """Return the entry that took back another one, 0 if none did."""
        return self._number("SELECT id FROM entry WHERE undoes = ?", number) if number else 0

    def entries(self, condition: str = "", *arguments: Any) -> list[tuple[int, Entry]]:
        """Return entries of the ledger with their numbers, oldest first."""
        return entries_in(self._connection, condition, *arguments)

    def _number(self, query: str, *arguments: Any) -> int:
        (number,) = self._connection.execute(query, arguments).fetchone() or (0,)
        return number or 0


def _entry_row(one: Entry) -> tuple[str | int, ...]:
    counted = (one.before_uwh, one.after_uwh, one.booked_uwh)
    return (one.channel, one.metric, one.kind, *one.moment, *counted, one.note, one.undoes)
