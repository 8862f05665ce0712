"""One child of the parent over all its lives: what it is to do, whether it lives, what its predecessors left."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from typing import Final

import channel
from config.settings import Supervise
from supervise import deposits
from supervise.fork import Life
from supervise.house import Plan, Role
from supervise.restarts import Restarts
from supervise.states import State
from vitals import Board, Row

_WRITER_LONGEST_PAUSE_S: Final = 5.0  # without the writer everything else piles up

Ends = tuple[socket.socket, socket.socket]  # of a report channel: the worker's and the writer's


class Child:
    """One plan, the process that carries it out just now, and what outlives that process."""

    def __init__(self, plan: Plan, board: Board, patience: Supervise, ends: Ends | None = None) -> None:
        self.plan = plan
        self.vitals: Row = board.claim("process", plan.name)
        self._claimed: set[tuple[str, str]] = set()
        self.heart = self.claim_rows(board)
        self.life: Life | None = None
        self.wanted = True
        self.due_s = 0.0  # when it is to be started, while it has no life
        self.stopping_at_s: float | None = None  # deadline of a requested end: then it is killed
        self.aborted_at_s: float | None = None  # it was hung and got SIGABRT
        self.forgive(patience)
        self.ends: Ends | None = None
        self.deposits: deposits.Deposits | None = None
        self.deposit_end: socket.socket | None = None
        if plan.role is Role.WORKER:
            self.ends = ends or channel.pair()
            self.deposit_end, parent_end = deposits.pair()
            self.deposits = deposits.Deposits(parent_end)

    def forgive(self, patience: Supervise) -> None:
        """Forget how often it ended."""
        longest_s = patience.longest_pause_s
        if self.plan.role is Role.WRITER:
            longest_s = min(longest_s, _WRITER_LONGEST_PAUSE_S)
        self.restarts = Restarts(longest_s)

    @property
    def stream(self) -> str:
        return self.plan.rows[0][1]

    def claim_rows(self, board: Board) -> Row:
        """Have the rows of its plan and no others; only while it has no life that might write to them."""
        self.release_rows(board, but=self.plan.rows)
        self._claimed = set(self.plan.rows)
        rows = [board.claim(role, name) for role, name in self.plan.rows]
        return rows[0]

    def release_rows(self, board: Board, but: Collection[tuple[str, str]] = ()) -> None:
        for role, name in self._claimed - set(but):
            board.release(role, name)

    @property
    def silent_for_s(self) -> float:
        """How long its work loop has shown no sign of life."""
        since_s = self.life.since_s if self.life else 0.0
        return time.monotonic() - max(since_s, self.heart["beat_ns"] / 1e9)

    @property
    def beats(self) -> bool:
        return self.life is not None and self.heart["beat_ns"] / 1e9 > self.life.since_s

    def show(self) -> None:
        """Put its state on the board."""
        degraded = self.restarts.is_degraded(time.monotonic())
        if not self.wanted:
            state = State.STOPPED if self.life is None else State.RUNNING
        elif self.life is None:
            state = State.DEGRADED if degraded else State.BACKOFF
        elif not self.beats:
            state = State.STARTING
        else:
            state = State.DEGRADED if degraded else State.RUNNING
        self.vitals["state"] = state
        self.vitals["pid"] = self.life.pid if self.life else 0
        self.vitals["since_ns"] = int(self.life.since_s * 1e9) if self.life else 0
