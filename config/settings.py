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
    file_interval_s = "auto"        # how often the files of csv and history are written: 60 on an SD card, or a number
    outbox_quota_mb = 256.0         # what an absent output may pile up; then the oldest raw values go first
    outbox_reserve_mb = 8.0         # allocated beforehand, so that a full disk does not stop it at once

    [clock]
    require_sync = "auto"           # hold readings until the clock is set: true, false; auto: if a service sets it
    hold_at_most_s = 600.0          # then they go out, flagged as unsynced

    [api]
    enabled = true
    host = "127.0.0.1"              # any other than this machine's own loopback needs a key
    port = 8000
    key_hash = ""                   # `./orchestrator.py key` makes a key and writes its hash here
    always_ask_for_key = false      # true: of loopback too, where a reverse proxy is
    allowed_hosts = []              # names by which it is reached, beside its own: ["energy.example.org"]
    cors_origins = []               # pages of others that may ask it: ["https://app.example.org"]; ["*"]: all
    access_log_days = 7             # of logs/api_access.log below data_dir; 0: none is kept
    appliances = []                 # [{ id = 1, name = "Refrigerator", channel = "shunts/fridge" }]

    [tariffs.main]                  # as many as there are contracts
    currency = "GBP"
    vat_percent = 0.0               # comes on top of unit rates and standing charge, not of what export earns
    rates_include_vat = false       # true: it is in all of them already

    [[tariffs.main.periods]]        # each counts from local midnight of its date until the next one's
    from = 2025-04-01
    standing_charge_per_day = 0.0
    unit_rate_per_kwh = 0.2486      # where no band fits; needed unless there is a prices_file
    export_rate_per_kwh = 0.15      # left out: nobody knows what export earns
    prices_file = ""                # a CSV: from_utc,unit_rate_per_kwh,export_rate_per_kwh; goes before bands and rates
    vat_percent = 0.0               # left out: that of the tariff

    [[tariffs.main.periods.bands]]  # the first that fits counts
    name = "night"
    from = "00:00"                  # by the clock on the wall; it may go over midnight
    to = "24:00"
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]   # on which it begins
    months = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    unit_rate_per_kwh = 0.09
    export_rate_per_kwh = 0.15      # left out: that of the period

    [channels.meter.esp32-meter]    # what there is to say of a channel: the source and the device
    rated_power_w = 25000.0         # a rise of its counter by more than that allows is not believed
    max_gap_s = 300.0               # power alone is not integrated over a longer silence
    states = []                     # ["idle", "running"]: from low power to high, told as `state`
    thresholds_w = []               # [50.0]: between them
    hysteresis_w = 0.0              # how wide a threshold is
    dwell_s = 0.0                   # how long a state must last before it is told
    role = "part"                   # "grid": the meter of the whole house; "generation": panels, say
    tariff = ""                     # "main": what its energy costs by [tariffs.main] is told as `cost`

    [reconciliations.house]         # channels that measure the same energy; the first is the one to trust
    views = ["smart/grid", "meter/esp32-meter"]   # "circuit/oven + circuit/rest" is a view that is a sum
    tolerance_percent = 2.0         # what a day may differ by before it is told
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from config.interface import Api, Appliance
from config.lines import Place
from config.prices import Prices
from config.table import NAME_PATTERN, Name, Port, Positive, Table

__all__ = ["NAME_PATTERN", "Api", "Appliance", "Name", "Port", "Positive", "Table"]  # what lives next door

Role = Literal["grid", "generation", "part"]  # the meter of the whole house; panels, say; all else
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MOST_STATES: Final = 16
_STATE_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_TIME_OF_DAY: Final = re.compile("([01][0-9]|2[0-3]):[0-5][0-9]")


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
    # auto: 60 on an SD card, with each commit elsewhere. Not more, because what waits for five minutes is a trouble.
    file_interval_s: Annotated[float, Meta(ge=0, le=240)] | Literal["auto"] = "auto"
    outbox_quota_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 256.0  # what an absent output may pile up
    outbox_reserve_mb: Annotated[float, Meta(ge=0, le=500)] = 8.0  # set aside, so that a full disk stops nothing


class ClockRules(Table, frozen=True, kw_only=True):
    """`[clock]`: when the time of day is believed."""

    require_sync: bool | Literal["auto"] = "auto"  # auto: wherever a time service is installed
    hold_at_most_s: Positive = 600.0  # then readings go out flagged as unsynced


class TariffBand(Table, frozen=True, kw_only=True):
    """`[[tariffs.<name>.periods.bands]]`: hours of the day, by the clock on the wall."""

    name: str
    unit_rate_per_kwh: Decimal
    export_rate_per_kwh: Decimal | None = None  # None: that of the period
    from_: str = field(default="00:00", name="from")
    to: str = "24:00"
    days: tuple[str, ...] = DAYS  # on which it begins, also where it goes over midnight
    months: tuple[int, ...] = tuple(range(1, 13))

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        for key, time in (("from", self.from_), ("to", self.to)):
            if not (_TIME_OF_DAY.fullmatch(time) or (key == "to" and time == "24:00")):
                yield (key,), f'{time!r:.60} is no time of day; write it like "07:30"'
        if self.from_ == self.to:
            yield ("to",), 'the band ends when it begins; a whole day is from = "00:00" to = "24:00"'
        for day in self.days:
            if day not in DAYS:
                yield ("days",), f"there is no day {day!r:.60}; there are: {', '.join(DAYS)}"
        if not {*self.months} <= {*range(1, 13)}:
            yield ("months",), "expected months from 1 to 12 only"
        for key, chosen in (("days", self.days), ("months", self.months)):
            if not chosen:
                yield (key,), f"without {key} the band never counts; leave the key out for all of them"


class TariffPeriod(Table, frozen=True, kw_only=True):
    """`[[tariffs.<name>.periods]]`: what counts from local midnight of a date on."""

    from_: date = field(name="from")
    standing_charge_per_day: Decimal = Decimal(0)
    unit_rate_per_kwh: Decimal | None = None  # None: what neither file nor band has is without a price
    export_rate_per_kwh: Decimal | None = None
    prices_file: str = ""
    vat_percent: Decimal | None = None  # None: that of the tariff
    bands: tuple[TariffBand, ...] = ()

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        if self.unit_rate_per_kwh is None and not self.prices_file:
            yield ("unit_rate_per_kwh",), "this key is missing; it is the price wherever no band fits"
        if self.vat_percent is not None and not 0 <= self.vat_percent <= 100:
            yield ("vat_percent",), f"expected 0 to 100, got {self.vat_percent}"


class TariffTable(Table, frozen=True, kw_only=True):
    """`[tariffs.<name>]`: one contract, with all that it ever said."""

    currency: str
    vat_percent: Decimal = Decimal(0)
    rates_include_vat: bool = False
    periods: tuple[TariffPeriod, ...] = ()

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        if not re.fullmatch("[A-Z]{3}", self.currency):
            yield ("currency",), f'{self.currency!r:.60} is no currency; write its three letters, "GBP" say'
        if not 0 <= self.vat_percent <= 100:
            yield ("vat_percent",), f"expected 0 to 100, got {self.vat_percent}"
        if not self.periods:
            yield ("periods",), "there is none, so nothing has a price; add one with its date: from = 2025-04-01"
        for number, period in enumerate(self.periods):
            if period.from_ in {earlier.from_ for earlier in self.periods[:number]}:
                yield ("periods", number, "from"), f"another period is from {period.from_} too; keep one of the two"


class ChannelTable(Table, frozen=True, kw_only=True):
    """`[channels.<source>.<device>]`"""

    rated_power_w: Annotated[float, Meta(gt=0, le=1e9)] = 25_000.0
    max_gap_s: Positive = 300.0
    states: tuple[str, ...] = ()
    thresholds_w: tuple[float, ...] = ()
    hysteresis_w: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    dwell_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    role: Role = "part"
    tariff: str = ""

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        if not self.states and not self.thresholds_w:
            return
        if len(self.states) != len(self.thresholds_w) + 1 or len(self.states) > _MOST_STATES:
            yield (
                ("states",),
                (
                    f"{len(self.thresholds_w)} thresholds lie between {len(self.thresholds_w) + 1} states"
                    f" (at most {_MOST_STATES}), here are {len(self.states)}"
                ),
            )
        for name in self.states:
            if not _STATE_PATTERN.fullmatch(name):
                yield ("states",), f"{name!r:.60} is no name of a state; use letters, digits, - and _"
        if list(self.thresholds_w) != sorted({*self.thresholds_w}) or any(each <= 0 for each in self.thresholds_w):
            yield ("thresholds_w",), "expected powers above zero that rise"
        steps = [after - before for before, after in zip((0.0, *self.thresholds_w), self.thresholds_w, strict=False)]
        if steps and self.hysteresis_w > min(steps):
            yield ("hysteresis_w",), f"{self.hysteresis_w:g} W is wider than the distance between thresholds"


class ReconciliationTable(Table, frozen=True, kw_only=True):
    """`[reconciliations.<name>]`: views of the same energy, each a channel or a sum of some."""

    views: tuple[str, ...]
    tolerance_percent: Annotated[float, Meta(gt=0, le=100)] = 2.0

    @property
    def channels(self) -> list[list[str]]:
        """Of each view the channels whose sum it is."""
        return [[part.strip() for part in view.split("+")] for view in self.views]

    def mistakes(self) -> Iterator[tuple[Place, str]]:
        if len(self.views) < 2:
            yield ("views",), "one view alone agrees with itself; name two or more"
        named = [channel for view in self.channels for channel in view]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            yield ("views",), f"{twice[0]} is named twice"


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
    """A whole configuration, checked. `sources`, `outputs` and `tariffs` hold the typed options of each, by name."""

    site: Site
    supervise: Supervise
    writer: Writer
    clock: ClockRules
    api: Api
    sources: dict[str, SourceTable]
    outputs: dict[str, OutputTable]
    tariffs: dict[str, TariffTable] = {}
    channels: dict[str, ChannelTable] = {}  # by source/device
    reconciliations: dict[str, ReconciliationTable] = {}
    prices: dict[str, Prices] = {}  # what stood in the files of prices, by the names that the tariffs use
    files: tuple[Path, ...] = ()
    secrets: dict[str, str] = {}  # by the name of the environment variable that the configuration asks for

    @property
    def data_dir(self) -> Path:
        """Where everything durable lives; relative paths count from the place where the house is started."""
        return Path(self.site.data_dir).expanduser()

    @property
    def remarks(self) -> list[str]:
        """What is no mistake, but worth a word to the owner."""
        periods = [period for tariff in self.tariffs.values() for period in tariff.periods if period.prices_file]
        told = [
            f"{period.prices_file}: {gap}; "
            + (
                "energy has no price there"
                if period.unit_rate_per_kwh is None
                else "the rates of the period count there"
            )
            for period in periods
            for gap in self.prices[period.prices_file].gaps
        ]
        return [*dict.fromkeys(told)]
