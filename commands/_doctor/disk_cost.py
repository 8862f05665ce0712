"""What the intervals cost the disk: reckoned from what one commit, and one visit to the files, was seen to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from config.intervals import commit_interval_s, file_interval_s
from config.settings import Settings

# Bytes that reach an ext4 for one commit every 10 s, by what is served:
# `python -m bench.disk --commits --interval-s 10`, and with `--file-interval-s 60` for what is written once a minute.
_OUTBOX_BYTES: Final = 30_000
_MORE_BYTES: Final = {"csv": 28_000, "history": 35_000}
_MORE_BYTES_A_MINUTE: Final = {"csv": 69_000, "history": 70_000}
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one day in which something is measured all the time."""

    interval_s: float
    bytes_each: int
    file_interval_s: float = 0.0  # where files are written more seldom than is committed
    file_bytes: int = 0  # each time

    @property
    def commits(self) -> float:
        return _DAY_S / self.interval_s

    @property
    def file_writes(self) -> float:
        return _DAY_S / self.file_interval_s if self.file_interval_s else 0.0

    @property
    def mb_a_day(self) -> float:
        return (self.commits * self.bytes_each + self.file_writes * self.file_bytes) / 1e6

    @property
    def words(self) -> str:
        """Say what it costs, and how that is known.

        >>> Cost(10.0, 38_000).words
        'a commit every 10 s writes about 328 MB a day (reckoned: 8,640 commits of 38 kB)'
        >>> Cost(10.0, 20_000, 60.0, 50_000).words[:59]
        'a commit every 10 s, files every 60 s: about 245 MB a day ('
        """
        reckoned = f"reckoned: {self.commits:,.0f} commits of {self.bytes_each / 1000:.0f} kB"
        a_day = f"{self.mb_a_day:.0f} MB" if self.mb_a_day < 1000 else f"{self.mb_a_day / 1000:.1f} GB"
        every = f"a commit every {self.interval_s:g} s"
        if not self.file_writes:
            return f"{every} writes about {a_day} a day ({reckoned})"
        reckoned += f", {self.file_writes:,.0f} times files of {self.file_bytes / 1000:.0f} kB"
        return f"{every}, files every {self.file_interval_s:g} s: about {a_day} a day ({reckoned})"


def cost_of(settings: Settings) -> Cost:
    kinds = [options.kind or name for name, options in settings.outputs.items() if options.enabled]
    interval_s = commit_interval_s(settings.writer.commit_interval_s, settings.data_dir)
    files_s = file_interval_s(settings.writer.file_interval_s, settings.data_dir)
    if files_s <= interval_s or _MORE_BYTES.keys().isdisjoint(kinds):
        return Cost(interval_s, _OUTBOX_BYTES + sum(_MORE_BYTES.get(kind, 0) for kind in kinds))
    return Cost(interval_s, _OUTBOX_BYTES, files_s, sum(_MORE_BYTES_A_MINUTE.get(kind, 0) for kind in kinds))
