"""What the history knows of imports: a file that cannot be read must not look like one that took in nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from history import imported
from history.imported import Stretch
from history.tables import SCHEMA, Series

POWER = Series(1, "loads", "fridge", "power_w", 0)


def test_a_stretch_is_remembered_and_a_disk_that_fails_is_no_empty_memory() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        assert imported._stretches(connection, POWER) == [], "a file from before there were any"
        connection.executescript(SCHEMA)
        imported.remember(connection, POWER.id, [Stretch(10, 20, 0, 5)])
        assert imported._stretches(connection, POWER) == [Stretch(10, 20, 0, 5)]
        connection.set_progress_handler(lambda: 1, 1)
        with pytest.raises(sqlite3.OperationalError):
            imported._stretches(connection, POWER)
