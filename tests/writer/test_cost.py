"""What energy costs as it is booked: for the time in which it flowed, to the last digit, and never a guess."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from config.settings import TariffBand, TariffPeriod, TariffTable
from logbook.moment import Moment
from reading import Reading
from tariff import Tariff
from writer.cost import Cost
from writer.ledger import Booking, Terms, copy_of, new_channel
from writer.register import UWH
from writer.states import StateRules

SECOND = 10**9
NIGHT = TariffBand(name="night", from_="00:30", to="07:30", unit_rate_per_kwh=Decimal("0.09"))
PERIOD = TariffPeriod(
    from_=date(2026, 1, 1),
    unit_rate_per_kwh=Decimal("0.2486"),
    export_rate_per_kwh=Decimal("0.15"),
    bands=(NIGHT,),
)
TARIFF = Tariff.of(TariffTable(currency="GBP", vat_percent=Decimal(5), periods=(PERIOD,)), "Europe/London", {})


def utc_s(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


class Meter:
    """A channel with a tariff; monotonic time is UTC less a day, and the clock may not be set yet."""

    def __init__(self, **terms: Any) -> None:
        self.channel = new_channel()
        self.booking = Booking({"m/m": Terms(**{"tariff": TARIFF, **terms})})
        self.is_set = True

    def reads(self, when: str, *, boot: str = "boot", **values: Any) -> dict[str, Any]:
        self.channel = copy_of(self.channel)  # it survives being written down
        utc_ns = utc_s(when) * SECOND
        moment = Moment(boot, utc_ns - 86_400 * SECOND, utc_ns if self.is_set else 0)
        reading = Reading("m", moment.at_ns, values)
        *_, last = self.booking.book("m/m", self.channel, reading, moment, device_boot="", entries=[])
        return dict(last.values)

    @property
    def cost(self) -> Cost:
        assert self.channel.cost
        return self.channel.cost


def test_energy_is_priced_for_the_time_in_which_it_flowed() -> None:
    """Two hours, half of them at night: 1 kWh at 0.2486 and 1 kWh at 0.09, with 5 % VAT."""
    meter = Meter()
    assert "cost" not in meter.reads("2026-03-01T06:30", temperature_c=20.0)
    assert meter.reads("2026-03-01T06:30", device_energy_wh=5000)["cost"] == 0.0
    meter.reads("2026-03-01T08:30", device_energy_wh=7000)
    assert meter.cost.total == Decimal("1.05") * (Decimal("0.2486") + Decimal("0.09"))


def test_what_is_sold_earns_and_bears_no_vat() -> None:
    meter = Meter()
    meter.reads("2026-03-01T12:00", device_energy_wh=0, device_energy_export_wh=0)
    values = meter.reads("2026-03-01T12:04", device_energy_wh=500, device_energy_export_wh=1000)
    assert meter.cost.total == Decimal("1.05") * Decimal("0.2486") / 2 - Decimal("0.15")
    assert values["cost"] == float(meter.cost.total)


def test_power_without_a_counter_has_its_price_too() -> None:
    meter = Meter()
    meter.reads("2026-03-01T12:00", power_w=6000.0)
    meter.reads("2026-03-01T12:05", power_w=6000.0)
    assert meter.cost.total == Decimal("1.05") * Decimal("0.2486") / 2


def test_energy_before_the_clock_was_set_is_priced_when_it_is() -> None:
    meter = Meter()
    meter.is_set = False
    meter.reads("2026-03-01T07:00", device_energy_wh=0)
    for minute, wh in ((20, 1000), (40, 2000)):
        assert "cost" not in meter.reads(f"2026-03-01T07:{minute}", device_energy_wh=wh)
    meter.is_set = True
    meter.reads("2026-03-01T08:00", device_energy_wh=3000)
    night, day = Decimal("0.09"), Decimal("0.2486")
    assert meter.cost.total == Decimal("1.05") * (night + (night + day) / 2 + day)


def test_energy_whose_time_nobody_will_ever_know_is_counted_and_not_guessed() -> None:
    meter = Meter()
    meter.is_set = False
    meter.reads("2026-03-01T07:00", device_energy_wh=0)
    meter.reads("2026-03-01T07:01", device_energy_wh=100)
    meter.is_set = True
    meter.reads("2026-03-01T12:00", boot="next", device_energy_wh=300)
    assert meter.cost.unpriced_uwh == 100 * UWH
    assert meter.cost.total == Decimal("1.05") * Decimal("0.2486") * Decimal("0.2")


def test_a_long_wait_for_the_clock_needs_no_more_memory() -> None:
    meter = Meter()
    meter.is_set = False
    for second in range(1000):
        meter.reads(f"2026-03-01T12:{second // 60:02}:{second % 60:02}", device_energy_wh=second)
    assert len(meter.cost.undated) <= 64
    meter.is_set = True
    meter.reads("2026-03-01T12:16:40", device_energy_wh=1000)
    assert meter.cost.total == Decimal("1.05") * Decimal("0.2486")


def test_before_the_first_period_nothing_is_said_of_money() -> None:
    meter = Meter()
    meter.reads("2025-12-31T20:00", device_energy_wh=0)
    assert "cost" not in meter.reads("2025-12-31T20:05", device_energy_wh=100)
    assert "cost" in meter.reads("2026-01-01T12:00", device_energy_wh=100)


def test_states_come_from_power_unless_the_device_has_its_own() -> None:
    meter = Meter(states=StateRules(("idle", "running"), (50.0,)))
    assert meter.reads("2026-03-01T12:00", power_w=80.0)["state"] == "running"
    assert meter.reads("2026-03-01T12:01", power_w=80.0, state="fault")["state"] == "fault"
    assert "state" not in meter.reads("2026-03-01T12:02", voltage_v=230.0)
