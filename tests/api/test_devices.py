"""What /metrics tells of the devices: their numbers while they are fresh, and never an old one."""

from __future__ import annotations

import time

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from api.channels import Channels
from api.devices import LEFT_OUT, SHOWN, DeviceCollector
from api.live import Live
from config.settings import ChannelTable, Settings
from reading import METRICS, Clock, Quality, Reading
from tap import Drop
from tests.api.conftest import House
from workers.esp32_http import Options as Esp32
from workers.simulated import Device as SimulatedDevice
from workers.simulated import Options as Simulated

Samples = dict[tuple[str, ...], float]


def settings(house: House) -> Settings:
    fridge, kettle = (SimulatedDevice(name=name, load=name) for name in ("fridge", "kettle"))
    sources = {
        "meter": msgspec.convert({"kind": "esp32_http", "devices": [{"name": "esp32-meter"}]}, Esp32),
        "demo": Simulated(kind="simulated", interval_s=2, devices=(fridge, kettle)),
    }
    channels = {"meter/esp32-meter": ChannelTable(role="grid")}
    return msgspec.structs.replace(house.settings, sources=sources, channels=channels)


@pytest.fixture
def live(house: House) -> Live:
    return Live(Channels(settings(house)))


def hear(live: Live, source: str, device: str, age_s: float = 0.0, **values: float | str) -> None:
    at_ns = time.monotonic_ns() - round(age_s * 1e9)
    reading = Reading(device, at_ns, values, Quality.MEASURED)
    live.take(Drop(source, time.time_ns() - time.monotonic_ns(), Clock.SYNCED, [reading]))


def shown(house: House, live: Live) -> Samples:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DeviceCollector(live, Channels(settings(house))))
    text = generate_latest(registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    order = ("source", "device", "kind", "role", "direction", "state")
    found = {
        (each.name.removeprefix("wattherd_"), *(each.labels[one] for one in order if one in each.labels)): each.value
        for each in samples
    }
    assert len(found) == len(samples), "two series with the same labels: Prometheus would refuse all of them"
    return found


def test_every_metric_of_a_reading_has_a_series_or_a_reason_not_to() -> None:
    assert {*SHOWN} | {*LEFT_OUT} == METRICS
    assert not {*SHOWN} & {*LEFT_OUT}
    assert all(LEFT_OUT.values())


def test_a_device_shows_its_power_its_registers_and_its_state(house: House, live: Live) -> None:
    hear(live, "demo", "fridge", power_w=86.5, energy_wh=1234.5, energy_export_wh=2.0, state="running", voltage_v=230.1)
    found = shown(house, live)
    assert found["device_power_watts", "demo", "fridge"] == 86.5
    assert found["device_energy_watt_hours_total", "demo", "fridge", "import"] == 1234.5
    assert found["device_energy_watt_hours_total", "demo", "fridge", "export"] == 2
    assert found["device_voltage_volts", "demo", "fridge"] == 230.1
    assert found["device_state", "demo", "fridge", "running"] == 1
    assert found["device_stale", "demo", "fridge"] == 0
    assert found["device_info", "demo", "fridge", "simulated", "part"] == 1


@pytest.mark.parametrize("metric", sorted(SHOWN))
def test_every_metric_that_is_shown_comes_out_as_it_went_in(house: House, live: Live, metric: str) -> None:
    hear(live, "demo", "fridge", **{metric: 12.5})
    name = SHOWN[metric].name.removeprefix("wattherd_") + ("_total" if SHOWN[metric].is_counter else "")
    direction = [SHOWN[metric].direction] if SHOWN[metric].direction else []
    assert shown(house, live)[name, "demo", "fridge", *direction] == 12.5


def test_of_a_silent_device_only_the_silence_is_told(house: House, live: Live) -> None:
    hear(live, "demo", "fridge", age_s=40, power_w=86.5, energy_wh=1234.5, state="running")
    told = {key: value for key, value in shown(house, live).items() if key[1:3] == ("demo", "fridge")}
    assert {key[0] for key in told} == {"device_info", "device_stale", "device_last_reading_age_seconds"}
    assert told["device_stale", "demo", "fridge"] == 1
    assert told["device_last_reading_age_seconds", "demo", "fridge"] == pytest.approx(40, abs=5)


def test_a_device_that_was_never_heard_of_is_stale_and_has_no_age(house: House, live: Live) -> None:
    found = shown(house, live)
    assert found["device_stale", "demo", "kettle"] == 1
    assert ("device_last_reading_age_seconds", "demo", "kettle") not in found


def test_one_number_that_is_no_longer_told_goes_although_others_are(house: House, live: Live) -> None:
    hear(live, "demo", "fridge", age_s=40, power_w=86.5)
    hear(live, "demo", "fridge", energy_wh=1234.5)
    found = shown(house, live)
    assert ("device_power_watts", "demo", "fridge") not in found
    assert found["device_energy_watt_hours_total", "demo", "fridge", "import"] == 1234.5


def test_a_device_that_is_not_configured_adds_no_series(house: House, live: Live) -> None:
    before = {*shown(house, live)}
    hear(live, "demo", "somebody-elses", power_w=5.0)
    hear(live, "nowhere", "fridge", power_w=5.0)
    assert {*shown(house, live)} == before


def test_the_power_of_the_house_is_that_of_its_meter_and_absent_while_nobody_knows(house: House, live: Live) -> None:
    hear(live, "demo", "fridge", power_w=86.5)
    assert ("house_power_watts",) not in shown(house, live)
    assert shown(house, live)["house_power_complete",] == 0
    hear(live, "meter", "esp32-meter", power_w=-1500.0)
    assert shown(house, live)["house_power_watts",] == -1500
    assert shown(house, live)["house_power_complete",] == 1


def test_text_where_a_number_belongs_is_no_series(house: House, live: Live) -> None:
    hear(live, "demo", "fridge", power_w="much")
    assert ("device_power_watts", "demo", "fridge") not in shown(house, live)
