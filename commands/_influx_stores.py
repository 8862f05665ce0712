"""What can be set up in an InfluxDB of any version: what all of them have in common."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Final

from commands._influx_place import Place
from writer.outputs._http import Answer, Connection, Unreachable

TIMEOUT_S: Final = 15.0
DAY_S: Final = 86_400


class NoConnection(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """There is no answer, or none to us: wrong address, organization or token."""


class Refused(Exception):  # noqa: N818
    """The server answers, and does not do what it was asked."""


class Store(ABC):
    """One server, seen by an administrator."""

    product: ClassVar[str] = "InfluxDB"
    thing: ClassVar[str] = "bucket"
    filler: ClassVar[str] = "task"  # what fills the buckets of sums
    lacks: ClassVar[str] = ""  # what it cannot do, and what to do instead
    remark: ClassVar[str] = ""  # what is left to do for a person

    def __init__(self, place: Place, version: str) -> None:
        self.place = place
        self.version = version

    @property
    def buckets(self) -> dict[str, int]:
        """What there should be, with what it keeps in seconds; 0 is for ever."""
        return self.place.buckets

    @abstractmethod
    def connect(self) -> None:
        """Return if we may administer it; raise `NoConnection`."""

    @abstractmethod
    def existing(self) -> dict[str, int]:
        """Return which of `buckets` are there, and what they keep."""

    @abstractmethod
    def create(self, bucket: str, keeps_s: int) -> None:
        """Make one bucket."""

    @abstractmethod
    def delete(self, bucket: str) -> None:
        """Delete one bucket, and what fills it."""

    def make_tasks(self) -> Iterator[tuple[str, str]]:
        """Make each filler, or mend it; yield its name and what was done."""
        yield from ()

    def tasks(self) -> dict[str, str]:
        """Return the fillers that are missing or altered: the name and what is wrong."""
        return {}

    def make_tokens(self) -> Iterator[tuple[str, str, str]]:
        """Make the tokens that are missing; yield whose, its variable, and the token: "" if it was there."""
        yield from ()

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection."""


class Http:
    """Asks a server that has no client library of its own kind here."""

    def __init__(self, place: Place) -> None:
        self._connection = Connection(place.options.url, TIMEOUT_S)

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, within_s: float = 0.0
    ) -> Answer:
        try:
            return self._connection.ask(method, target, body, {"User-Agent": "wattherd", **(headers or {})}, within_s)
        except Unreachable as error:
            raise NoConnection(f"{error}{'; ' if error.remedy else ''}{error.remedy}") from error

    def close(self) -> None:
        self._connection.close()


def login(place: Place) -> dict[str, str]:
    """Return the header that says who we are."""
    if place.options.username:
        pair = base64.b64encode(f"{place.options.username}:{place.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {"Authorization": f"Token {place.token}"} if place.token else {}
