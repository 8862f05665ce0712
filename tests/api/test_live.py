"""What every device said last: newest first, by metric, and never an old number as a new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from api import documents, snapshot
from api.channels import Channels
from api.live import Live
from config.settings import (
    Api,
    Appliance,
    ChannelTable,
    ClockRules,
    PolledTable,
    Settings,
    Site,
    SourceTable,
    Supervise,
    TariffTable,
    Writer,
)
from history.queries import History
from reading import Clock, Quality, Reading, Value
from tap import Drop
from tests.metered import QUARTER_NS, metered
from workers.simulated import Device, Options

S = 10**9


class Clocks:
    """The two clocks of the machine, in the hands of a test."""

    def __init__(self) -> None:
        self.at = snapshot.Now(1000 * S, 2_000_000 * S)

    def __call__(self) -> snapshot.Now:
        return self.at

    def later(self, seconds: float) -> None:
        self.at = snapshot.Now(*(ns + round(seconds * S) for ns in self.at))

    @property
    def offset_ns(self) -> int:
        return self.at.utc_ns - self.at.monotonic_ns


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    found = Clocks()
    monkeypatch.setattr("api.live.now", found)
    return found


def settings(**channels: str) -> Settings:
    """A house with plugs that are asked every 2 s, a meter that sends, and roles by source__device."""
    return Settings(
        site=Site(),
        supervise=Supervise(),
        writer=Writer(),
        clock=ClockRules(),
        api=Api(),
        sources={
            "plugs": PolledTable(kind="kasa", interval_s=2),
            "slow": PolledTable(kind="kasa", interval_s=60),
            "meter": SourceTable(kind="esp32_http"),
            "off": SourceTable(kind="glow", enabled=False),
        },
        outputs={},
        channels={name.replace("__", "/"): ChannelTable(role=role) for name, role in channels.items()},  # type: ignore[arg-type]
    )


def told(clocks: Clocks, live: Live, channel: str, *, age_s: float = 0.0, **values: Value) -> None:
    source, _, device = channel.partition("/")
    at_ns = clocks.at.monotonic_ns - round(age_s * S)
    live.take(Drop(source, clocks.offset_ns, Clock.SYNCED, [Reading(device, at_ns, values)]))


def only(live: Live) -> documents.Device:
    [device] = live.document().devices
    return device


def test_a_device_has_what_it_said_with_its_time_and_age(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, "plugs/fridge", power_w=86.5, energy_wh=12.0, state="running", cost=0.25)
    clocks.later(1.25)
    device = only(live)
    assert (device.source, device.device, device.kind, device.role) == ("plugs", "fridge", "kasa", "part")
    assert (device.time, device.age_s, device.stale) == ("1970-01-24T03:33:20.000Z", 1.25, False)
    assert (device.quality, device.clock) == ("measured", "synced")
    assert device.values == {"cost": 0.25, "energy_wh": 12.0, "power_w": 86.5, "state": "running"}
    assert device.last_values is None


@pytest.mark.parametrize(("channel", "stale_after_s"), [("plugs/a", 30), ("slow/a", 180), ("meter/a", 300)])
def test_a_silent_device_is_stale_and_its_old_numbers_are_not_among_its_values(
    clocks: Clocks, channel: str, stale_after_s: int
) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, channel, power_w=86.5)
    clocks.later(stale_after_s - 0.1)
    assert not only(live).stale
    assert live.stale() == frozenset()
    clocks.later(0.2)
    device = only(live)
    assert (device.stale, device.values, device.last_values) == (True, {}, {"power_w": 86.5})
    assert live.stale() == {channel}
    assert live.power_now(channel) is None


def test_what_a_device_no_longer_says_goes_although_it_says_other_things(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, "plugs/fridge", power_w=86.5)
    clocks.later(31)
    told(clocks, live, "plugs/fridge", voltage_v=230.0)
    assert only(live).values == {"voltage_v": 230.0}
    assert live.power_now("plugs/fridge") is None


def test_metrics_that_come_one_by_one_are_together(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, "plugs/fridge", power_w=86.5)
    told(clocks, live, "plugs/fridge", voltage_v=230.0)
    assert only(live).values == {"power_w": 86.5, "voltage_v": 230.0}


def test_a_late_reading_changes_nothing_that_is_newer(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, "plugs/fridge", power_w=86.5)
    version = live.version
    told(clocks, live, "plugs/fridge", age_s=20, power_w=3000.0)
    assert (only(live).values, only(live).age_s, live.version) == ({"power_w": 86.5}, 0.0, version)
    assert [power_w for _, power_w in live.recent("plugs/fridge")] == [86.5]


def test_what_a_dead_api_left_in_the_tap_is_never_shown_as_new(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    told(clocks, live, "plugs/fridge", age_s=600, power_w=86.5)
    assert (only(live).stale, only(live).age_s, only(live).values) == (True, 600.0, {})


def test_devices_that_the_configuration_does_not_know_are_left_out(clocks: Clocks) -> None:
    simulated = Options(kind="simulated", devices=(Device(name="fridge", load="fridge"),))
    live = Live(Channels(replace(settings(), sources={"sim": simulated, "off": SourceTable(kind="x", enabled=False)})))
    for channel in ("sim/kettle", "gone/x", "off/x"):
        told(clocks, live, channel, power_w=1.0)
    assert live.document().devices == []


def test_a_reading_that_waits_for_the_clock_says_so_and_gets_its_date_with_it(clocks: Clocks) -> None:
    live = Live(Channels(settings()))
    reading = Reading("a", clocks.at.monotonic_ns, {"power_w": 1.0}, Quality.SIMULATED)
    live.take(Drop("plugs", 7 * S, None, [reading]))
    assert (only(live).clock, only(live).time, only(live).quality) == ("held", "1970-01-01T00:16:47.000Z", "simulated")
    live.take(Drop("plugs", clocks.offset_ns, Clock.SYNCED, []))
    assert (only(live).clock, only(live).time) == ("restamped", "1970-01-24T03:33:20.000Z")
    live.take(Drop("plugs", 7 * S, Clock.UNSYNCED, [reading]))
    assert (only(live).clock, only(live).time) == ("unsynced", "1970-01-01T00:16:47.000Z")


def test_the_house_is_the_sum_of_its_grid_meters(clocks: Clocks) -> None:
    live = Live(Channels(settings(meter__a="grid", meter__b="grid", plugs__sun="generation")))
    told(clocks, live, "meter/a", power_w=-500.0)
    told(clocks, live, "meter/b", power_w=200.0)
    told(clocks, live, "plugs/fridge", power_w=86.5)
    told(clocks, live, "plugs/sun", power_w=1000.0)
    house = live.document().house
    assert (house.power_w, house.import_w, house.export_w) == (-300.0, 0.0, 300.0)
    assert (house.complete, house.stale, house.of) == (True, False, ["meter/a", "meter/b"])
    clocks.later(301)
    told(clocks, live, "meter/b", power_w=200.0)
    house = live.document().house
    assert (house.power_w, house.complete, house.stale) == (200.0, False, False)
    clocks.later(301)
    house = live.document().house
    assert (house.power_w, house.import_w, house.export_w, house.stale) == (None, None, None, True)


def test_a_grid_meter_that_was_never_heard_of_leaves_the_house_unknown(clocks: Clocks) -> None:
    live = Live(Channels(settings(meter__a="grid")))
    told(clocks, live, "plugs/fridge", power_w=86.5)
    house = live.document().house
    assert (house.power_w, house.complete, house.stale, house.of) == (None, False, True, ["meter/a"])


def test_a_house_without_a_grid_meter_is_the_sum_of_its_parts_that_have_power(clocks: Clocks) -> None:
    live = Live(Channels(settings(plugs__sun="generation")))
    told(clocks, live, "plugs/fridge", power_w=86.5)
    told(clocks, live, "slow/tv", power_w=13.5)
    told(clocks, live, "plugs/sun", power_w=1000.0)
    told(clocks, live, "meter/gas", gas_m3=5.0)
    house = live.document().house
    assert (house.power_w, house.complete, house.of) == (100.0, True, ["plugs/fridge", "slow/tv"])


def test_a_part_that_is_configured_and_was_never_heard_of_makes_the_sum_incomplete(clocks: Clocks) -> None:
    devices = (Device(name="fridge", load="fridge"), Device(name="kettle", load="kettle"))
    live = Live(Channels(replace(settings(), sources={"sim": Options(kind="simulated", devices=devices)})))
    assert live.document().house.of == []
    told(clocks, live, "sim/fridge", power_w=86.5)
    assert (live.document().house.power_w, live.document().house.complete) == (86.5, False)
    told(clocks, live, "sim/kettle", power_w=0.0)
    assert live.document().house.complete


def test_nobody_heard_of_is_no_house(clocks: Clocks) -> None:
    house = Live(Channels(settings())).document().house
    assert (house.power_w, house.complete, house.stale, house.of) == (None, False, False, [])


LOADS: Mapping[str, Any] = {"plugs/fridge": lambda _: 86.5, "gone/tv": lambda _: 50.0}


def test_a_new_process_knows_the_last_values_from_the_history_and_how_old_they_are(
    clocks: Clocks, tmp_path: Path
) -> None:
    clocks.at = snapshot.Now(100 * S, 2_000_000 * S // QUARTER_NS * QUARTER_NS)  # the machine was started just now
    last_ns = clocks.at.utc_ns - 4 * QUARTER_NS
    metered(tmp_path, LOADS, last_ns - 40 * QUARTER_NS, last_ns)
    live = Live(Channels(settings()))
    live.seed(History(tmp_path / "history.db"))
    device = only(live)
    assert (device.device, device.stale, device.age_s, device.values) == ("fridge", True, 3600.0, {})
    assert device.last_values == {"energy_wh": 86.5 * 10, "power_w": 86.5}
    assert live.recent("plugs/fridge")[-1] == (last_ns, 86.5)
    told(clocks, live, "plugs/fridge", power_w=90.0)
    assert only(live).values == {"power_w": 90.0}
    assert [power_w for _, power_w in live.recent("plugs/fridge")][-2:] == [86.5, 90.0]


def test_values_that_are_not_old_yet_are_values_after_a_restart(clocks: Clocks, tmp_path: Path) -> None:
    clocks.at = snapshot.Now(time.monotonic_ns(), time.time_ns())
    last_ns = clocks.at.utc_ns - 2 * S
    metered(tmp_path, LOADS, last_ns - 40 * QUARTER_NS, last_ns)
    live = Live(Channels(settings()))
    live.seed(History(tmp_path / "history.db"))
    assert not only(live).stale
    assert only(live).values["power_w"] == 86.5


def test_a_history_that_is_damaged_or_not_there_yet_is_no_reason_not_to_start(clocks: Clocks, tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database" * 1000)
    for path in (tmp_path / "history.db", tmp_path / "nothing.db"):
        live = Live(Channels(settings()))
        live.seed(History(path))
        assert live.document().devices == []


def test_an_outbox_that_is_just_being_made_knows_nothing_yet_and_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outbox.db").touch()  # as a new writer leaves it for an instant
    live = Live(Channels(settings()))
    live.seed_registers(tmp_path / "outbox.db")
    assert (live.document().devices, caplog.records) == ([], [])
    (tmp_path / "outbox.db").write_bytes(b"this is no database" * 1000)
    live.seed_registers(tmp_path / "outbox.db")
    assert "come with the next readings" in caplog.text


def test_the_configuration_says_more_of_a_channel() -> None:
    pounds = TariffTable(currency="GBP")
    house = replace(
        settings(meter__a="grid"),
        api=Api(appliances=(Appliance(id=3, name="Fridge", channel="plugs/fridge"),)),
        tariffs={"main": pounds, "other": TariffTable(currency="EUR")},
    )
    house.channels["plugs/fridge"] = ChannelTable(tariff="main")
    channels = Channels(house)
    assert (channels.role("meter/a"), channels.role("plugs/x"), channels.tariff("meter/a")) == ("grid", "part", None)
    assert (channels.title("plugs/fridge"), channels.appliance_id("plugs/fridge")) == ("Fridge", 3)
    assert (channels.tariff("plugs/fridge"), channels.currency) == ("main", "GBP")
    house.channels["meter/a"] = ChannelTable(tariff="other")
    assert Channels(house).currency is None, "nobody can add up pounds and euros"
