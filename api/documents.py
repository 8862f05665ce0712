"""What the interface answers, as types: they are what is sent, and what the OpenAPI document says of it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from config.settings import Role

Time = Annotated[str, Meta(description="ISO 8601, in UTC", examples=["2026-11-28T09:30:00.000Z"])]
LocalTime = Annotated[
    str, Meta(description="ISO 8601 with the offset of the site", examples=["2026-11-28T00:00:00+00:00"])
]
Channel = Annotated[str, Meta(description="source/device", examples=["meter/esp32-meter"])]
Value = float | int | str


class Problem(Struct, frozen=True):
    """Why there is no answer: what, which, what now."""

    error: str


class Hint(Struct, frozen=True):
    """What to do next with a new house."""

    text: str
    command: str | None = None


class House(Struct, frozen=True):
    """The house itself."""

    site: str
    timezone: str
    currency: str | None
    version: str
    simulated: Annotated[bool, Meta(description="some source makes its numbers up")]
    demo: Annotated[bool, Meta(description="this is the demo house")]
    time: Time
    started: Time | None
    hint: Hint | None
    history: Annotated[bool, Meta(description="whether there is an [outputs.history]: series and energy need it")]


class HousePower(Struct, frozen=True):
    """The power of the whole house now; negative flows out of it."""

    power_w: float | None
    import_w: float | None
    export_w: float | None
    complete: Annotated[bool, Meta(description="false: one of the channels is stale or was never heard of")]
    stale: Annotated[bool, Meta(description="true: none of the channels is fresh")]
    of: Annotated[list[Channel], Meta(description="the channels that it is the sum of")]


class Device(Struct, frozen=True):
    """One device now. An old number is never among its values."""

    source: str
    device: str
    kind: str
    role: Role
    time: Time
    age_s: float
    stale: bool
    quality: Literal["measured", "estimated", "simulated"]
    clock: Annotated[
        Literal["synced", "restamped", "unsynced", "held"],
        Meta(description="what is known of `time`; held: the clock of this machine is not set yet"),
    ]
    values: Annotated[dict[str, Value], Meta(description="empty while it is stale")]
    last_values: Annotated[dict[str, Value] | None, Meta(description="only while it is stale: what it said last")] = (
        None
    )
    sleeps: Annotated[bool, Meta(description="it may be silent while it is dark, and that is no fault")] = False


class Live(Struct, frozen=True):
    """What is measured now."""

    time: Time
    house: HousePower
    devices: list[Device]


class KnownDevice(Struct, frozen=True):
    """A device that is configured or was ever heard of."""

    source: str
    device: str
    kind: str
    role: Role
    title: str | None
    metrics: list[str]
    first: Time | None
    last: Time | None
    appliance_id: int | None
    tariff: str | None


class Devices(Struct, frozen=True):
    """All devices."""

    devices: list[KnownDevice]


class Series(Struct, frozen=True):
    """One metric of one device in steps. A step without a reading is not in it."""

    source: str
    device: str
    metric: str
    unit: str
    kind: Literal["gauge", "register", "text", "booking"]
    step_s: int
    time_s: Annotated[list[int], Meta(description="seconds since 1970 at which each step begins")]
    n: Annotated[list[int], Meta(description="how many readings")]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    last: list[float | str | None]
    increase: Annotated[list[float | None], Meta(description="of a register: by how much it rose")]


class StackedSeries(Struct, frozen=True):
    """One device of a stack."""

    source: str
    device: str
    role: Role
    mean: Annotated[list[float | None], Meta(description="null where there is no reading")]


class Stack(Struct, frozen=True):
    """One metric of every device on one axis of time."""

    metric: str
    unit: str
    step_s: int
    time_s: list[int]
    series: list[StackedSeries]


class Period(Struct, frozen=True):
    """A local hour, day, week, month or year."""

    start: LocalTime
    end: LocalTime


class HouseEnergy(Struct, frozen=True):
    """Energy and money of the whole house, by period."""

    energy_wh: list[float | None]
    export_wh: list[float | None]
    cost: list[float | None]
    estimated: Annotated[list[bool], Meta(description="some of it was booked over a gap")]
    of: list[Channel]


class ChannelEnergy(Struct, frozen=True):
    """Energy and money of one channel, by period; null: nothing is known."""

    source: str
    device: str
    role: Role
    metric: Literal["energy_wh", "energy_export_wh"]
    energy_wh: list[float | None]
    estimated: list[bool]
    cost: list[float | None]


class Energy(Struct, frozen=True):
    """Energy by local periods."""

    by: Literal["hour", "day", "week", "month", "year"]
    timezone: str
    currency: str | None
    periods: list[Period]
    house: HouseEnergy
    channels: list[ChannelEnergy]


class HouseCost(Struct, frozen=True):
    """Money of the whole house, by period."""

    cost: list[float | None]


class ChannelCost(Struct, frozen=True):
    """Money of one channel, by period."""

    source: str
    device: str
    cost: list[float | None]


class Cost(Struct, frozen=True):
    """What was bought less what was sold, by local periods; without standing charges, see `bill`."""

    by: Literal["hour", "day", "week", "month", "year"]
    timezone: str
    currency: str | None
    periods: list[Period]
    channels: list[ChannelCost]
    house: HouseCost


class Gap(Struct, frozen=True):
    """A time for which nothing was measured of one device; without source and device: of all of them."""

    source: str | None
    device: str | None
    from_: Time | None = field(name="from")
    to: Annotated[Time | None, Meta(description="null: it goes on, or the clock was not set")]
    over: bool
    length_s: Annotated[float | None, Meta(description="null: nobody knows, the clock was not set")]
    cause: Literal["device", "bus", "clock", "process", "output", "unknown"]
    what: str
    energy_known: Annotated[bool, Meta(description="what flowed meanwhile is booked, or it was nothing")]
    expected: Annotated[bool, Meta(description="it sleeps while it is dark, and that is no fault")]


class Gaps(Struct, frozen=True):
    """All gaps of more than five minutes, newest first; at most a thousand."""

    gaps: list[Gap]


class Reason(Struct, frozen=True):
    """One thing that is wrong, and what to do now."""

    part: str
    what: str
    remedy: str | None


class SourceHealth(Struct, frozen=True):
    """How a source is."""

    name: str
    kind: str
    state: Literal["reading", "starting", "trouble", "not open", "restarting", "failing", "stopped", "unknown"]
    mood: Literal["good", "waiting", "bad"]
    last_reading_age_s: float | None
    readings: int
    restarts: int
    note: str


class OutputHealth(Struct, frozen=True):
    """How an output is."""

    name: str
    kind: str
    state: Literal["up", "starting", "down", "stopped", "catching up", "no writer", "unknown"]
    mood: Literal["good", "waiting", "bad"]
    accepted: int
    delivered: int
    pending: int
    dropped: int
    oldest_pending_age_s: float | None
    note: str


class WriterHealth(Struct, frozen=True):
    """How the writer is."""

    commits: int
    held: Annotated[int, Meta(description="readings that wait for the clock to be set")]
    outbox_bytes: int
    last_commit_age_s: float | None


class ClockHealth(Struct, frozen=True):
    """How the clock of this machine is."""

    synced: bool
    steps: int


class Health(Struct, frozen=True):
    """How every part of the house is."""

    ready: bool
    simulated: bool
    reasons: list[Reason]
    sources: list[SourceHealth]
    outputs: list[OutputHealth]
    writer: WriterHealth
    clock: ClockHealth


encode = msgspec.json.Encoder().encode
