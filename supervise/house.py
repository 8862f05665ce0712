"""What the parent is asked to run: one plan per process, and what a process finds when it starts."""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import Supervise
from vitals import Board


class Role(enum.Enum):
    """Decides the order of starting and stopping, and how a process goes when the parent dies."""

    WORKER = "worker"
    WRITER = "writer"
    API = "api"


@dataclass(frozen=True, slots=True)
class Start:
    """What a child finds when it starts."""

    board: Board
    incarnation: int  # never used before
    channel: socket.socket | None  # a worker's end of its report channel
    deposits: socket.socket | None  # where a worker deposits descriptors with the parent
    kept: Mapping[str, int]  # what its predecessors deposited
    receivers: Mapping[str, socket.socket]  # the writer's ends, by stream
    tap: socket.socket | None = None  # the writer's or the api's end of the tap
    house_since_ns: int = 0  # CLOCK_MONOTONIC, when the parent was started


@dataclass(frozen=True, slots=True)
class Plan:
    """One process of the house."""

    name: str  # as in the log and in `ps`: "source.meter", "writer", "api"
    role: Role
    rows: Sequence[tuple[str, str]]  # its rows of the vitals board, (role, name); the first one has its heartbeat
    settings: object  # what it depends on: a reload that leaves this equal leaves the process alone
    main: Callable[[Start], None]


@dataclass(frozen=True, slots=True)
class House:
    """Everything that is to run."""

    data_dir: Path
    supervise: Supervise
    plans: Sequence[Plan]
