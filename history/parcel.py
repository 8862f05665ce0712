"""A parcel: what an older logger measured, put in order in a file of its own, until the history has taken it in."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

FOLDER: Final = "import"  # in data_dir
SUFFIX: Final = ".parcel"  # of one that is whole
SPOILT: Final = ".refused"  # of one that cannot be read
SCHEMA: Final = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    floor INTEGER NOT NULL,    -- of a register: how high the ledger has it, in millionths
    UNIQUE (source, device, metric)
);
CREATE TABLE point (
    series INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    value NOT NULL,            -- of a register: by how many millionths it rose since `since_ns`
    since_ns INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    PRIMARY KEY (series, time_ns)
) WITHOUT ROWID;
"""


class Content(Struct, frozen=True):
    """One series of a parcel."""

    id: int
    source: str
    device: str
    metric: str
    floor: int


_NEXT: Final = (
    "SELECT time_ns, value, since_ns, flags FROM point WHERE series = ? AND time_ns > ? ORDER BY time_ns LIMIT ?"
)
_WITHIN: Final = "FROM point WHERE series = ? AND time_ns >= ? AND time_ns < ?"
# Time, value (of a register by how many millionths it rose), since when it rose so, flags.
Item = tuple[Any, ...]


class Unreadable(Exception):  # noqa: N818 - a state of the world
    """A parcel is no parcel, or damaged."""


class Parcel:
    """Reads a parcel that is whole. Raises `Unreadable`."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error
        try:
            rows = self._ask("SELECT id, source, device, metric, floor FROM series ORDER BY id")
        except Unreadable:
            self.close()
            raise
        self.contents = [Content(*row) for row in rows]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def __len__(self) -> int:
        return int(self._ask("SELECT count(*) FROM point")[0][0])

    def items(self, series: int, after_ns: int, most: int) -> list[Item]:
        """Read the next items of a series."""
        return self._ask(_NEXT, series, after_ns, most)

    def rise(self, series: int, from_ns: int, before_ns: int) -> int:
        """Add up what a register rises in [from_ns, before_ns), in millionths."""
        return int(self._ask(f"SELECT coalesce(sum(value), 0) {_WITHIN}", series, from_ns, before_ns)[0][0])

    def count(self, series: int, from_ns: int, before_ns: int) -> int:
        """Count the items of [from_ns, before_ns)."""
        return int(self._ask(f"SELECT count(*) {_WITHIN}", series, from_ns, before_ns)[0][0])

    def _ask(self, query: str, *arguments: int) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error


def waiting(folder: Path) -> Iterator[Path]:
    """Name the parcels that wait, in the order in which they came."""
    with contextlib.suppress(OSError):
        yield from sorted(folder.glob(f"*{SUFFIX}"))
