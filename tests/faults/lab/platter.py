"""What is left on a disk when the power is cut: a record of writes and syncs, played up to any point, in any order.

Until a file is synced, each of its writes may be on the disk or not, or a part of it, in whole sectors, in any order.
Names are made durable by the sync of any file, in the order in which they were given, as ext4 does it; or only by the
sync of their directory, which is all that POSIX promises.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from tests.faults.lab.disk import Change, Kind

_SECTOR = 512


class Cut(enum.Enum):
    """What becomes of that which was not synced."""

    ALL_IS_THERE = "all of it is there"
    NOTHING_IS_THERE = "none of it is there"
    SOME_IS_THERE = "some of it is there, in any order, torn"
    ONLY_SYNCED_NAMES = "some of it is there, and no name whose directory was not synced"


@dataclass
class _File:
    """One file, whatever it is called."""

    content: bytearray = field(default_factory=bytearray)  # as far as it is synced
    waiting: list[Change] = field(default_factory=list)  # writes and truncations since then

    def sync(self) -> None:
        for change in self.waiting:
            _apply(self.content, change)
        self.waiting.clear()

    def after(self, cut: Cut, chance: random.Random) -> bytes:
        content = bytearray(self.content)
        for change in self.waiting:
            if cut is Cut.ALL_IS_THERE:
                _apply(content, change)
            elif cut is not Cut.NOTHING_IS_THERE and chance.random() < 0.5:
                _apply(content, _torn(change, chance) if chance.random() < 0.3 else change)
        return bytes(content)


class Platter:
    """The disk at one point of a record; `play` goes on from there."""

    def __init__(self, root: Path, *, names_need_their_directory: bool = False) -> None:
        self._root = root
        self._strict = names_need_their_directory
        self._names: dict[str, _File | None] = {}  # as programs see them; None: a directory
        self._durable: dict[str, _File | None] = {}
        self._waiting: list[Change] = []  # changes of names
        self._made: dict[int, _File] = {}  # what a change of names has created, by its number in `_waiting`

    def play(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._play(change)

    def _play(self, change: Change) -> None:
        if change.kind is Kind.SYNC:
            file = self._names.get(change.path)
            if file is not None:
                file.sync()
            self._sync_names(change.path)
        elif change.kind in (Kind.WRITE, Kind.TRUNCATE):
            file = self._names[change.path]
            assert file is not None
            file.waiting.append(change)
        else:
            if change.kind is Kind.CREATE:
                self._made[id(change)] = _File()
            self._waiting.append(change)
            self._name(self._names, change)

    def _name(self, names: dict[str, _File | None], change: Change) -> None:
        if change.kind is Kind.CREATE:
            names[change.path] = self._made[id(change)]
        elif change.kind is Kind.MKDIR:
            names[change.path] = None
        elif change.kind is Kind.UNLINK:
            names.pop(change.path, None)
        elif change.path in names:
            names[change.data.decode()] = names.pop(change.path)

    def _sync_names(self, path: str) -> None:
        left = []
        for change in self._waiting:
            if self._strict and str(PurePath(change.path).parent) != path:
                left.append(change)
            else:
                self._name(self._durable, change)
        self._waiting = left

    def cut(self, cut: Cut, chance: random.Random, into: Path) -> None:
        """Lay out in a directory what is left if the power is cut now."""
        names = dict(self._durable)
        surviving = {Cut.ALL_IS_THERE: len(self._waiting), Cut.SOME_IS_THERE: chance.randint(0, len(self._waiting))}
        for change in self._waiting[: surviving.get(cut, 0)]:
            self._name(names, change)
        for name, file in sorted(names.items()):
            path = into / PurePath(name).relative_to(self._root)
            if file is None:
                path.mkdir(parents=True, exist_ok=True)
            elif path.parent.exists():
                path.write_bytes(file.after(cut, chance))


def _apply(content: bytearray, change: Change) -> None:
    if change.kind is Kind.TRUNCATE:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
    else:
        content.extend(bytes(max(0, change.offset - len(content))))
        content[change.offset : change.offset + len(change.data)] = change.data


def _torn(change: Change, chance: random.Random) -> Change:
    """Only some sectors of a write, from its begin or to its end."""
    if change.kind is Kind.TRUNCATE or len(change.data) <= _SECTOR:
        return change
    edges = range(_SECTOR - change.offset % _SECTOR, len(change.data), _SECTOR)
    edge = chance.choice(edges) if edges else 0
    if chance.random() < 0.5:
        return Change(change.kind, change.path, change.offset, change.data[:edge])
    return Change(change.kind, change.path, change.offset + edge, change.data[edge:])
