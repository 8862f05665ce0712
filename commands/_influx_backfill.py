"""Sums up a range of time anew, in pieces that a small server answers within seconds."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from commands._influx_place import Place
from commands._influx_stores import Http, NoConnection, Store, login
from commands._influx_v1 import InfluxV1
from writer.outputs._http import Answer
from writer.outputs._influx_rollups import RAW_KEEPS_S, Level, rolled_levels
from writer.outputs._influx_sums import NoRollupsError, RollupError, Sums

_PIECE_S: Final = 6 * 3600
_WITHIN_S: Final = 120.0

Piece = tuple[Level, str, int, int]  # level, bucket, from, up to and without


class Backfill:
    """What `influx backfill` does, piece by piece."""

    def __init__(self, place: Place, store: Store) -> None:
        options = structs.replace(place.options, api="v1" if isinstance(store, InfluxV1) else "v2")
        self._levels = rolled_levels(options)
        self._http = Http(place)
        self._login = login(place)
        self._sums = Sums(options, self._ask)
        self.now_s = int(self._http.ask("GET", "/ping", headers=self._login).at_s)
        self.keeps_s = RAW_KEEPS_S

    def limited(self, begin_s: int, end_s: int) -> tuple[int, int]:
        """Return the whole hours of which every reading is still there, up to now.

        A window whose readings are gone in part would be summed up from the rest, and be wrong from then on.
        """
        keeps_s = self._sums.raw_keeps_s()
        self.keeps_s = RAW_KEEPS_S if keeps_s is None else keeps_s
        widest_s = max((level.width_s for level, _ in self._levels), default=1)
        begin_s = begin_s // widest_s * widest_s
        if self.keeps_s:
            begin_s = max(begin_s, -(-(self.now_s - self.keeps_s) // widest_s) * widest_s)
        return begin_s, min(-(-end_s // widest_s) * widest_s, self.now_s)

    def pieces(self, begin_s: int, end_s: int) -> list[Piece]:
        """Return what to sum up one after the other: whole windows, none that is not over."""
        found = []
        for start_s in range(begin_s, end_s, _PIECE_S):
            for level, bucket in self._levels:
                stop_s = min(start_s + _PIECE_S, end_s) // level.width_s * level.width_s
                if start_s < stop_s:
                    found.append((level, bucket, start_s, stop_s))
        return found

    def sum_up(self, piece: Piece) -> int:
        """Return how many points one piece wrote."""
        return self._sums.sum_up(*piece)

    def is_missing(self, error: RollupError) -> bool:
        return isinstance(error, NoRollupsError)

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        try:
            return self._http.ask(method, target, body, {**headers, **self._login}, _WITHIN_S)
        except NoConnection as error:
            raise RollupError(str(error)) from error
