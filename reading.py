"""The one data type: what one device measured at one instant."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

Value = float | int | str
# 146 years before and after the start of the machine: beyond that, times in UTC do not fit into 64 bits.
_MonotonicNs = Annotated[int, Meta(gt=-(2**62), lt=2**62)]


class Quality(enum.StrEnum):
    """How a reading came to be; everything but `MEASURED` is told to whoever reads the numbers."""

    MEASURED = "measured"
    ESTIMATED = "estimated"  # booked over a gap from what the device's own counter said afterwards
    SIMULATED = "simulated"  # no electricity was involved


class Origin(Struct, frozen=True, array_like=True):
    """How the device itself numbered and dated a message, so that one sent twice is booked once.

    A sender that got no answer sends again. Only the writer, which remembers with the same transaction that commits,
    can tell the second copy from a new measurement, whoever was killed between the two.
    """

    boot: str  # changes whenever the device starts; no order is assumed
    sequence: int  # rises by one a message within a boot
    time_ns: int = 0  # UTC by the device's clock, 0 if it has none; believed only within a day of ours
    late: bool = False  # it waited somewhere on the way: without a date that can be believed it is no new reading


class Reading(Struct, frozen=True, array_like=True, gc=False):
    """What one device measured at one instant. It is the wire schema of the report channel too.

    There are many, and none can be part of a circle: the garbage collector need not look at them.
    """

    device: str  # the name in the configuration, never a name from the wire
    at_ns: _MonotonicNs  # CLOCK_MONOTONIC, when it was sampled
    values: Mapping[str, Value]  # the unit is in the name: power_w, energy_wh
    quality: Quality = Quality.MEASURED
    origin: Origin | None = None  # only from devices that repeat what was not acknowledged


class Clock(enum.StrEnum):
    """What was known of the wall clock when a record got its time."""

    SYNCED = "synced"
    RESTAMPED = "restamped"  # measured before the clock was set, dated afterwards with the right offset
    UNSYNCED = "unsynced"  # the clock was never set within the time limit: the date is a guess


class Record(Struct, frozen=True, gc=False):
    """A reading with its place in the world: what the outputs write."""

    source: str
    device: str
    time_ns: int  # UTC, nanoseconds since 1970
    values: Mapping[str, Value]
    quality: Quality = Quality.MEASURED
    clock: Clock = Clock.SYNCED


# The names a value may have. A counter only ever rises and survives longest when the outbox has to drop something.
COUNTERS = frozenset(
    {
        "pulses",
        "energy_wh",  # our register, which never falls
        "energy_export_wh",
        "device_energy_wh",  # what the device counts itself
        "device_energy_export_wh",
        "meter_reading_wh",  # what the face of the meter shows, once its owner has told us
        "gas_m3",
    }
)
METRICS = COUNTERS | {
    "pulse",  # one pulse of a meter; its value is the kind: import, export, generate
    "power_w",
    "apparent_power_va",
    "reactive_power_var",
    "power_factor",
    "voltage_v",
    "current_a",
    "frequency_hz",
    "energy_export_correction_wh",
    "energy_correction_wh",  # what a person booked or took back afterwards, at the time that it belongs to
    "energy_export_debt_wh",
    "energy_debt_wh",  # taken back and not yet worked off: the true register is so much lower
    "temperature_c",
    "cost",
    "unit_rate_per_kwh",  # what a smart meter announces, in the currency of the site
    "standing_charge_per_day",
    "state",
}

# How a stretch of time is told by one number. Whatever is not named here is averaged.
LASTING = COUNTERS | {  # by the last one: it holds until the next
    "energy_debt_wh",
    "energy_export_debt_wh",
    "cost",
    "unit_rate_per_kwh",
    "standing_charge_per_day",
}
SUMMED = frozenset({"energy_correction_wh", "energy_export_correction_wh"})  # each is told once
TEXTS = frozenset({"pulse", "state"})
AVERAGED = METRICS - LASTING - SUMMED - TEXTS
