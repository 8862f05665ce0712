"""The writer process: commits what the workers report, then serves each output. This is what an output has to know."""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, overload

from config.settings import OutputTable, Site
from reading import Record, Value


class OutputDown(Exception):  # noqa: N818 - a state of the peer, not a fault of ours
    """Nothing of the batch is known to be accepted: the same batch comes again later.

    `retry_after_s` is the peer's own wish (`Retry-After`). `remedy` says what a person has to mend (a wrong token): the
    output then counts as stopped, and is tried again only now and then.
    """

    def __init__(self, what: str, *, retry_after_s: float | None = None, remedy: str = "") -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s
        self.remedy = remedy


class OutputRefused(Exception):  # noqa: N818 - an answer, not a fault
    """The peer will never take the records at `indices` of the batch and has all the others: they are set aside."""

    def __init__(self, what: str, indices: Iterable[int]) -> None:
        super().__init__(what)
        self.indices = frozenset(indices)


class Shape(NamedTuple):
    """Those records of a batch that are of one device and have the same metrics, in the order of the batch."""

    source: str
    device: str
    metrics: tuple[str, ...]
    places: list[int]  # in the batch
    records: list[Record]

    def columns(self) -> list[tuple[Value, ...]]:
        """Return the values of each metric."""
        return list(zip(*[record.values.values() for record in self.records], strict=True))


class Batch(Sequence[Record]):
    """Committed records, oldest first.

    `rows` are the numbers of the outbox's rows that they came in, one for each record: a number never comes back with
    other records, so an output with a transaction of its own can tell by them what it has already.
    """

    def __init__(self, records: Sequence[Record], rows: Sequence[int] = ()) -> None:
        self._records = records
        self.rows = rows

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Record | Batch:
        return Batch(self._records[index], self.rows[index]) if isinstance(index, slice) else self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def shapes(self) -> list[Shape]:
        """Return the records by what they have in common, for whoever works faster on many that are alike."""
        found: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, record in enumerate(self._records):
            found[(record.source, record.device, *record.values)].append(place)
        return [
            Shape(source, device, tuple(metrics), places, [self._records[place] for place in places])
            for (source, device, *metrics), places in found.items()
        ]


class Memo(dict[str, int]):
    """What an output must not forget, committed in one transaction with its cursor: the size of a file, say."""

    def keep(self) -> None:
        """Return when what is noted now is on the disk, together with all that was confirmed before this batch.

        Costs a commit, so it is for the rare note that must be there before something is done that it can undo.
        """


class Output(ABC):
    """Where records go to, served in a thread of its own. Calls never overlap, and none comes after `close()`."""

    Options: ClassVar[type[OutputTable]]  # this output's TOML table
    # After an outage the newest records go first and the backlog beside them. A file wants them in order instead.
    newest_first: ClassVar[bool] = True
    # A file below data_dir is written every `[writer] file_interval_s`: each time costs a card the same.
    is_file: ClassVar[bool] = False

    def __init__(self, options: Any, site: Site, memo: Memo) -> None:
        self.options = options
        self.site = site
        self.memo = memo
        self.has_more_to_do = False  # of a file: it wants to be served with each commit until this is False again

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Return when the peer has every record. Raise `OutputDown` for none of it, `OutputRefused` for all but some.

        A batch that was not confirmed comes again, in this process or in the next one, with the same records and times.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


def kinds() -> list[str]:
    """Name every kind of output, without importing any."""
    return sorted(path.stem for path in (Path(__file__).parent / "outputs").glob("[!_]*.py"))


def output_class(kind: str) -> type[Output]:
    """Import `writer/outputs/<kind>.py` and return its one Output."""
    module = importlib.import_module(f"writer.outputs.{kind}")
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Output) and member.__module__ == module.__name__ and not inspect.isabstract(member)
    ]
    if len(found) != 1:
        raise TypeError(f"writer/outputs/{kind}.py must define exactly one Output, it defines {len(found)}")
    return found[0]
