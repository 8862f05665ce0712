"""What the configuration file says, as types: the tables that belong to the house and not to one source or output.

All of them, with the defaults; no file needs more than what differs:

    [site]
    name = "home"
    timezone = "Europe/London"
    data_dir = "var"                # everything durable; a relative path counts from where wattherd lies

    [supervise]
    hung_after_s = 30.0             # a process that shows no sign of life for so long is replaced
    longest_pause_s = 60.0          # before a process that keeps failing is started again; the writer waits 5 at most
    stop_within_s = 10.0            # from the request to stop until the last process is gone

    [writer]
    commit_interval_s = "auto"      # what a power cut may cost: 10 on an SD card, 1 elsewhere, or a number
    outbox_quota_mb = 256.0         # what an absent output may pile up; then the oldest raw values go first
    outbox_reserve_mb = 8.0         # allocated beforehand, so that a full disk does not stop it at once

    [clock]
    require_sync = "auto"           # hold readings until the clock is set: true, false; auto: if a service sets it
    hold_at_most_s = 600.0          # then they go out, flagged as unsynced

    [api]
    enabled = true
    host = "127.0.0.1"
    port = 8000
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

# Seconds, mostly: a year and a thousandth are beyond what anybody means, and within what every clock and timer takes.
Positive = Annotated[float, Meta(ge=0.001, le=31_536_000)]
Port = Annotated[int, Meta(ge=1, le=65535)]
# One segment of a Graphite path, one Influx tag, one file name and one Prometheus label at once.
NAME_PATTERN = r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TOML table. A field that ends in `_env` names an environment variable that holds a secret."""


class Site(Table, frozen=True, kw_only=True):
    """`[site]`"""

    name: Name = "home"
    timezone: str = "Europe/London"
    data_dir: Annotated[str, Meta(min_length=1)] = "var"

    def __post_init__(self) -> None:
        try:
            usable = "\0" not in self.data_dir and Path(self.data_dir).expanduser()
        except RuntimeError:
            usable = False
        if not usable:
            raise ValueError(f"data_dir {self.data_dir!r} names no directory: there is no such user, or it has a NUL")


class Supervise(Table, frozen=True, kw_only=True):
    """`[supervise]`: how patient the parent is."""

    hung_after_s: Positive = 30.0  # a process whose work loop shows no sign of life for so long is replaced
    longest_pause_s: Positive = 60.0  # before a process that keeps failing is started again; the writer waits 5 at most
    stop_within_s: Positive = 10.0  # from the request to stop until the last process is gone


class Writer(Table, frozen=True, kw_only=True):
    """`[writer]`: how much a power cut may cost, in seconds of data and in wear of the card."""

    commit_interval_s: Positive | Literal["auto"] = "auto"  # auto: 10 on an SD card, 1 elsewhere
    outbox_quota_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 256.0  # what an absent output may pile up
    outbox_reserve_mb: Annotated[float, Meta(ge=0, le=500)] = 8.0  # set aside, so that a full disk stops nothing


class ClockRules(Table, frozen=True, kw_only=True):
    """`[clock]`: when the time of day is believed."""

    require_sync: bool | Literal["auto"] = "auto"  # auto: wherever a time service is installed
    hold_at_most_s: Positive = 600.0  # then readings go out flagged as unsynced


class Api(Table, frozen=True, kw_only=True):
    """`[api]`"""

    enabled: bool = True
    host: Annotated[str, Meta(pattern=r"\A\S+\Z")] = "127.0.0.1"
    port: Port = 8000


class SourceTable(Table, frozen=True, kw_only=True):
    """What every `[sources.<name>]` has."""

    kind: str
    enabled: bool = True


class PolledTable(SourceTable, frozen=True, kw_only=True):
    """A source that is asked: one round of all its devices every `interval_s`."""

    interval_s: Positive = 10.0


class OutputTable(Table, frozen=True, kw_only=True):
    """What every `[outputs.<name>]` has. Without a `kind`, its name is its kind."""

    kind: str = ""
    enabled: bool = True


class DeviceTable(Table, frozen=True, kw_only=True):
    """What every `[[sources.<name>.devices]]` has."""

    name: Name


class Settings(Struct, frozen=True, kw_only=True):
    """A whole configuration, checked. `sources` and `outputs` hold the typed options of each, by name."""

    site: Site
    supervise: Supervise
    writer: Writer
    clock: ClockRules
    api: Api
    sources: dict[str, SourceTable]
    outputs: dict[str, OutputTable]
    files: tuple[Path, ...] = ()
    secrets: dict[str, str] = {}  # by the name of the environment variable that the configuration asks for

    @property
    def data_dir(self) -> Path:
        """Where everything durable lives; relative paths count from the place where the house is started."""
        return Path(self.site.data_dir).expanduser()
