"""What the ledger makes of readings: registers, estimates, what the face of the meter shows, what is taken back."""

from __future__ import annotations

from typing import Any

from logbook.entries import Entry, Kind
from logbook.moment import Moment
from reading import Quality, Reading
from writer.ledger import Booking, Channel, Terms, copy_of, new_channel
from writer.register import UWH, Rules

SECOND = 10**9


class Meter:
    """One channel, read by the writer."""

    def __init__(self, terms: Terms | None = None) -> None:
        self.channel: Channel = new_channel()
        self.entries: list[Entry] = []
        self.booking = Booking({"roof/pv": terms} if terms else {})

    def reads(
        self, at_s: float, *, boot: str = "", quality: Quality = Quality.MEASURED, **values: Any
    ) -> list[Reading]:
        reading = Reading("pv", int(at_s * SECOND), values, quality)
        moment = Moment("boot", reading.at_ns, 0)
        return list(self.booking.book("roof/pv", self.channel, reading, moment, device_boot=boot, entries=self.entries))

    def last(self, at_s: float, **values: Any) -> dict[str, Any]:
        return dict(self.reads(at_s, **values)[-1].values)


def test_a_counter_of_the_device_moves_the_register_and_its_power_does_not() -> None:
    meter = Meter()
    assert meter.last(0, device_energy_wh=91_234.0, power_w=1500.0) == {
        "device_energy_wh": 91_234.0,
        "power_w": 1500.0,
        "energy_wh": 0.0,
    }
    assert meter.last(10, device_energy_wh=91_240.5, power_w=1500.0)["energy_wh"] == 6.5
    assert "energy_wh" not in meter.last(15, power_w=9000.0)
    assert meter.last(20, device_energy_wh=91_241.0, power_w=0.0)["energy_wh"] == 7.0
    assert [entry.kind for entry in meter.entries] == [Kind.START]


def test_import_and_export_have_a_register_each() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=100, device_energy_export_wh=5000)
    values = meter.last(10, device_energy_wh=101, device_energy_export_wh=5003)
    assert (values["energy_wh"], values["energy_export_wh"]) == (1.0, 3.0)


def test_power_alone_is_integrated_and_export_appears_with_the_first_of_it() -> None:
    meter = Meter()
    assert meter.last(0, power_w=3600.0)["energy_wh"] == 0.0
    assert meter.last(10, power_w=3600.0) == {"power_w": 3600.0, "energy_wh": 10.0}
    values = meter.last(20, power_w=-3600.0)
    assert (values["energy_wh"], values["energy_export_wh"]) == (12.5, 2.5)


def test_a_counter_that_appears_later_takes_over_from_the_power() -> None:
    meter = Meter()
    meter.reads(0, power_w=3600.0)
    meter.reads(10, power_w=3600.0)
    assert meter.last(20, power_w=3600.0, device_energy_wh=700.0)["energy_wh"] == 10.0
    assert meter.last(30, power_w=3600.0, device_energy_wh=710.0)["energy_wh"] == 20.0


def test_what_was_counted_while_nobody_looked_is_spread_and_called_an_estimate() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0)
    *spread, reading = meter.reads(3600, device_energy_wh=2200.0, power_w=5.0)
    assert len(spread) == 12
    assert {one.quality for one in spread} == {Quality.ESTIMATED}
    assert reading.quality is Quality.MEASURED
    registers = [one.values["energy_wh"] for one in [*spread, reading]]
    assert registers == sorted(registers)
    assert registers[-1] == 1200.0
    for one in spread:
        assert abs(one.values["energy_wh"] - one.at_ns / SECOND / 3) < 0.001
    assert [(one.kind, one.booked_uwh) for one in meter.entries[1:]] == [(Kind.ESTIMATED, 1200 * UWH)]


def test_an_estimate_of_a_simulation_is_still_a_simulation() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0, quality=Quality.SIMULATED)
    readings = meter.reads(3600, device_energy_wh=2200.0, quality=Quality.SIMULATED)
    assert {one.quality for one in readings} == {Quality.SIMULATED}


def test_a_silence_of_weeks_is_spread_in_a_bounded_number_of_points() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0)
    readings = meter.reads(90 * 86_400, device_energy_wh=900_000.0)
    assert len(readings) == 101


def test_late_readings_are_passed_on_and_book_nothing() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0)
    meter.reads(20, device_energy_wh=1020.0)
    assert meter.last(10, device_energy_wh=1010.0) == {"device_energy_wh": 1010.0}
    assert meter.last(30, device_energy_wh=1030.0)["energy_wh"] == 30.0


def test_while_a_strange_step_waits_nothing_is_said_of_the_register() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=215_700.0)
    assert "energy_wh" not in meter.last(10, device_energy_wh=0.0)
    assert meter.last(20, device_energy_wh=215_700.0)["energy_wh"] == 0.0
    assert [entry.kind for entry in meter.entries] == [Kind.START, Kind.GLITCH]


def test_the_boot_that_a_device_tells_makes_a_reset_certain_at_once() -> None:
    meter = Meter()
    meter.reads(0, boot="a", device_energy_wh=215_700.0)
    (reading,) = meter.reads(10, boot="b", device_energy_wh=5.0)
    assert reading.values["energy_wh"] == 5.0
    meter.reads(20, boot="b", device_energy_wh=8.0)
    assert meter.last(30, boot="b", device_energy_wh=9.0)["energy_wh"] == 9.0


def test_a_meter_that_was_replaced_goes_on_from_where_the_register_is() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=5000.0)
    meter.reads(10, device_energy_wh=5010.0)
    meter.channel.replaced = True
    meter.reads(15, temperature_c=20.0)
    assert meter.last(20, device_energy_wh=90_000.0)["energy_wh"] == 10.0
    assert meter.last(30, device_energy_wh=90_001.0)["energy_wh"] == 11.0
    assert [entry.kind for entry in meter.entries] == [Kind.START, Kind.REPLACEMENT]


def test_the_rated_power_of_a_channel_guards_it() -> None:
    meter = Meter(Terms(Rules(rated_power_w=2000.0)))
    meter.reads(0, device_energy_wh=1000.0)
    assert "energy_wh" not in meter.last(10, device_energy_wh=1200.0)


def test_a_register_that_was_told_too_high_waits_until_that_is_worked_off() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0)
    meter.reads(10, device_energy_wh=1050.0)
    meter.channel.energy_wh.book(-30 * UWH)
    assert [meter.last(at, device_energy_wh=wh) for at, wh in ((20, 1060), (30, 1080), (40, 1090))] == [
        {"device_energy_wh": 1060, "energy_wh": 50.0, "energy_debt_wh": 20.0},
        {"device_energy_wh": 1080, "energy_wh": 50.0, "energy_debt_wh": 0.0},
        {"device_energy_wh": 1090, "energy_wh": 60.0},
    ]


def test_what_the_face_of_the_meter_shows_goes_along_with_the_register() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0)
    meter.channel.energy_wh.face_uwh = 12_345_600 * UWH
    assert meter.last(10, device_energy_wh=1001.0)["meter_reading_wh"] == 12_345_601.0


def test_readings_without_energy_make_no_register() -> None:
    meter = Meter()
    assert meter.last(0, temperature_c=20.5) == {"temperature_c": 20.5}
    assert meter.channel.energy_wh == new_channel().energy_wh
    assert meter.channel.seen.at_ns == 0 and meter.channel.seen.boot == "boot"


def test_a_copy_shares_nothing_that_changes() -> None:
    meter = Meter()
    meter.reads(0, device_energy_wh=1000.0, device_energy_export_wh=3)
    before = copy_of(meter.channel)
    again = copy_of(meter.channel)
    meter.reads(10, device_energy_wh=3.0, device_energy_export_wh=8)
    assert before == again != meter.channel


def test_an_export_register_that_was_told_too_high_waits_too() -> None:
    meter = Meter()
    meter.reads(0, device_energy_export_wh=1000.0)
    meter.reads(10, device_energy_export_wh=1050.0)
    meter.channel.energy_export_wh.book(-30 * UWH)
    values = meter.last(20, device_energy_export_wh=1060.0)
    assert (values["energy_export_wh"], values["energy_export_debt_wh"]) == (50.0, 20.0)
