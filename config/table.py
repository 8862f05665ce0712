"""What every table of the configuration is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from config.lines import Place

# Seconds, mostly: a year and a thousandth are beyond what anybody means, and within what every clock and timer takes.
Positive = Annotated[float, Meta(ge=0.001, le=31_536_000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
# One segment of a Graphite path, one Influx tag, one file name and one Prometheus label at once.
NAME_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table. A field that ends in `_env` names an environment variable that holds a secret.

    A `Decimal` is exactly the number that stands in the file.
    """

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        """Say what no type can say is wrong, each with the key that it is about."""
        yield from ()
