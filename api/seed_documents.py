"""What the endpoints of the energy-monitor API answer, with the names that its app reads, and its own examples."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, field

LocalTime = Annotated[
    str,
    Meta(description="ISO 8601 by the clock of the site, without an offset", examples=["2024-12-04T10:30:45.123456"]),
]


class EnergyNow(Struct, frozen=True):
    """The power of one appliance."""

    timestamp: LocalTime
    watts: float
    appliance_id: int = field(name="applianceId")


class EnergyHistory(Struct, frozen=True):
    """The last readings of one appliance, oldest first."""

    data: list[EnergyNow]


class DailyStats(Struct, frozen=True):
    """One day of all appliances that were asked for."""

    date: str
    avg_watts: float
    max_watts: float
    min_watts: float
    total_readings: int


class HistoricalData(Struct, frozen=True):
    """Some days."""

    data: list[EnergyNow]
    daily_stats: list[DailyStats]


class Appliance(Struct, frozen=True):
    """A number and its name."""

    id: int
    name: str


class Appliances(Struct, frozen=True):
    """All appliances."""

    appliances: list[Appliance]


ENERGY: Final = EnergyNow("2024-12-04T10:30:45.123456", 125.5, 1)
HISTORY: Final = EnergyHistory([EnergyNow("2024-12-04T10:30:00", 120.3, 1)])
HISTORICAL_DATA: Final = HistoricalData(HISTORY.data, [DailyStats("2024-12-04", 115.2, 180.5, 45.3, 144)])
APPLIANCES: Final = Appliances(
    [Appliance(1, "Refrigerator"), Appliance(2, "Air Conditioner"), Appliance(3, "Water Heater")]
)
ENERGY_MONITOR: Final = "timestamp,watts,appliance_id\n2024-12-04 10:00:00,125.5,1\n2024-12-04 10:01:00,130.2,1\n"
ACCESS_LOG: Final = "2024-12-04 10:00:01 - INFO - GET /energy?applianceId=1\n"
