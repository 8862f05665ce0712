"""A history of given records, written as the writer does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from config.settings import Site
from reading import Record
from writer import Batch, Memo
from writer.outputs.history import History, Options


def record(folder: Path, records: Sequence[Record], row: int = 1) -> None:
    """Put records into the history; what comes later has a higher row."""
    output = History(msgspec.convert({}, Options), Site(data_dir=str(folder)), Memo())
    output.write(Batch(list(records), [row] * len(records)))
    output.close()
