"""What Home Assistant is told obeys its own rules, written here from its documentation and its schemas."""

from __future__ import annotations

import json
import re
import string
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import NAME_PATTERN
from reading import COUNTERS, METRICS
from writer.outputs._home_assistant import SENSORS, Device, Discovery

LETTERS = string.ascii_letters + string.digits
NAMES = st.builds("".join, st.tuples(st.sampled_from(LETTERS), st.text(f"{LETTERS}_-__", max_size=5)))

# "Device discovery payload": a root key that is not here makes Home Assistant refuse the whole device.
ROOT_KEYS = {
    "device",
    "origin",
    "components",
    "availability",
    "availability_mode",
    "availability_template",
    "availability_topic",
    "payload_available",
    "payload_not_available",
    "state_topic",
    "command_topic",
    "qos",
    "encoding",
}
DEVICE_KEYS = {
    "identifiers",
    "connections",
    "manufacturer",
    "model",
    "name",
    "hw_version",
    "serial_number",
    "sw_version",
    "via_device",
    "suggested_area",
    "configuration_url",
}
ORIGIN_KEYS = {"name", "sw_version", "support_url"}
# "MQTT sensor": what a component may have besides the platform.
SENSOR_KEYS = {
    "platform",
    "unique_id",
    "name",
    "state_topic",
    "qos",
    "value_template",
    "json_attributes_topic",
    "json_attributes_template",
    "device_class",
    "state_class",
    "unit_of_measurement",
    "suggested_display_precision",
    "expire_after",
    "force_update",
    "icon",
    "entity_category",
    "enabled_by_default",
}
# "Sensor entity", available device classes: the units and the state classes that each may have.
MEASUREMENT, TOTALS = {"measurement"}, {"total", "total_increasing"}
DEVICE_CLASSES: dict[str, tuple[set[str | None] | None, set[str]]] = {
    "apparent_power": ({"mVA", "VA", "kVA"}, MEASUREMENT),
    "current": ({"A", "mA"}, MEASUREMENT),
    "energy": ({"J", "kJ", "MJ", "GJ", "mWh", "Wh", "kWh", "MWh", "GWh", "TWh"}, TOTALS),
    "frequency": ({"Hz", "kHz", "MHz", "GHz"}, MEASUREMENT),
    "gas": ({"m³", "ft³", "CCF"}, TOTALS),
    "monetary": (None, {"total"}),  # any ISO 4217 code
    "power": ({"mW", "W", "kW", "MW", "GW", "TW"}, MEASUREMENT),
    "power_factor": ({"%", None}, MEASUREMENT),
    "reactive_power": ({"var", "kvar"}, MEASUREMENT),
    "temperature": ({"°C", "°F", "K"}, MEASUREMENT),
    "voltage": ({"V", "mV", "µV", "kV", "MV"}, MEASUREMENT),
}
DISCOVERY_TOPIC = re.compile(r"device/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")


def check(topic: str, payload: bytes, prefix: str = "homeassistant") -> dict[str, Any]:
    """Raise unless Home Assistant takes a discovery message whole; return what it says."""
    assert topic.startswith(f"{prefix}/")
    assert DISCOVERY_TOPIC.fullmatch(topic.removeprefix(f"{prefix}/"))
    config = json.loads(payload)
    assert set(config) <= ROOT_KEYS
    assert {"device", "origin", "components"} <= set(config)
    assert set(config["device"]) <= DEVICE_KEYS
    assert config["device"]["identifiers"]
    assert all(isinstance(each, str) and each for each in config["device"]["identifiers"])
    assert set(config["origin"]) <= ORIGIN_KEYS
    assert config["origin"]["name"]
    assert not {"availability", "availability_topic"} <= set(config)  # one excludes the other
    assert is_topic(config["availability_topic"])
    unique = [component["unique_id"] for component in config["components"].values()]
    assert len(set(unique)) == len(unique) > 0
    for key, component in config["components"].items():
        assert " " not in key  # it splits its own names there
        check_sensor(component)
    return config


def check_sensor(component: dict[str, Any]) -> None:
    assert set(component) <= SENSOR_KEYS
    assert component["platform"] == "sensor"
    assert is_topic(component["state_topic"])
    assert is_topic(component["json_attributes_topic"])
    assert component["qos"] in (0, 1, 2)
    assert component["name"]
    assert component.get("expire_after", 1) > 0
    assert component.get("suggested_display_precision", 0) >= 0
    state_class, unit = component.get("state_class"), component.get("unit_of_measurement")
    assert state_class in {None, *MEASUREMENT, *TOTALS}
    assert unit is None or unit
    if device_class := component.get("device_class"):
        units, state_classes = DEVICE_CLASSES[device_class]
        assert unit in units if units is not None else re.fullmatch("[A-Z]{3}", unit or "")
        assert state_class is None or state_class in state_classes
    render(component["json_attributes_template"], {"value": 1.5, "quality": "measured", "clock": "synced"})


def is_topic(text: str) -> bool:
    return bool(text) and not set(text) & set("#+\0") and len(text.encode()) < 65536


def render(template: str, payload: dict[str, Any]) -> str:
    """Do what Jinja does with the few templates that we have."""
    [inner] = re.findall(r"\A\{\{ (.*) \}\}\Z", template)
    expression, *filters = inner.split(" | ")
    value = eval(expression, {"__builtins__": {}}, {"value_json": SimpleNamespace(**payload)})
    for each in filters:
        value = {"round(6)": lambda number: round(number, 6), "tojson": json.dumps}[each](value)
    return str(value)


def discovery(**more: Any) -> Discovery:
    return Discovery(**{"site": "home", "topic_prefix": "wattherd", "expire_after_s": 120, "currency": "GBP", **more})


def components(**more: Any) -> dict[str, Any]:
    return discovery(**more).config(Device("kasa", "fridge"), METRICS)["components"]


def test_every_metric_that_is_no_event_is_a_sensor() -> None:
    events = {metric for metric in METRICS if metric == "pulse" or metric.endswith("_correction_wh")}
    assert set(SENSORS) == set(components()) == METRICS - events


@given(
    made=st.builds(
        Discovery,
        NAMES,
        st.just("wattherd"),
        expire_after_s=st.sampled_from([0, 120]),
        currency=st.sampled_from(["", "GBP"]),
    ),
    device=st.builds(Device, NAMES, NAMES, st.booleans()),
    metrics=st.sets(st.sampled_from(sorted(SENSORS)), min_size=1),
)
def test_home_assistant_takes_every_announcement_whole(made: Discovery, device: Device, metrics: set[str]) -> None:
    assert all(re.match(NAME_PATTERN, name) for name in (made.site, device.source, device.name))
    topic = f"homeassistant/device/{made.device_id(device)}/config"
    config = check(topic, json.dumps(made.config(device, metrics)).encode())
    assert set(config["components"]) == metrics


@given(st.tuples(NAMES, NAMES, NAMES, st.booleans()), st.tuples(NAMES, NAMES, NAMES, st.booleans()))
def test_no_two_devices_have_the_same_id(first: tuple, other: tuple) -> None:
    ids = [discovery(site=site).device_id(Device(*rest)) for site, *rest in (first, other)]
    assert (ids[0] == ids[1]) == (first == other)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (("a_b", "c", "d"), ("a", "b_c", "d")),
        (("a", "b", "c_d"), ("a", "b_c", "d")),
        (("a", "b", "c_simulated"), ("a", "b", "c", True)),
    ],
)
def test_an_underscore_in_a_name_makes_no_two_devices_one(first: tuple, other: tuple) -> None:
    ids = [discovery(site=site).device_id(Device(*rest)) for site, *rest in (first, other)]
    assert ids[0] != ids[1]


def test_the_energy_dashboard_takes_the_energy_and_the_gas() -> None:
    made = components()
    for metric in COUNTERS - {"pulses", "gas_m3"}:
        sensor = made[metric]
        told = (sensor["device_class"], sensor["state_class"], sensor["unit_of_measurement"])
        assert told == ("energy", "total_increasing", "kWh")
    gas = made["gas_m3"]
    assert (gas["device_class"], gas["state_class"], gas["unit_of_measurement"]) == ("gas", "total_increasing", "m³")
    # As the current price of the grid it takes a sensor whose unit ends like this.
    assert made["unit_rate_per_kwh"]["unit_of_measurement"] == "GBP/kWh"


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("power_w", 86.5, "86.5"),
        ("power_w", -350, "-350"),
        ("energy_wh", 4_595_563.0, "4595.563"),
        ("device_energy_wh", 1, "0.001"),
        ("energy_wh", 12_345.678901, "12.345679"),
        ("gas_m3", 1603.209, "1603.209"),
        ("pulses", 91_234, "91234"),
        ("state", "running", "running"),
        ("state", "x" * 300, "x" * 255),
    ],
)
def test_a_value_is_shown_in_the_unit_of_its_sensor(metric: str, value: float | str, shown: str) -> None:
    assert render(components()[metric]["value_template"], {"value": value}) == shown


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_no_rounding_makes_a_counter_fall(first: float, other: float) -> None:
    low, high = sorted((first, other))
    template = SENSORS["energy_wh"].template
    assert float(render(template, {"value": low})) <= float(render(template, {"value": high}))


def test_the_quality_is_told_as_an_attribute() -> None:
    payload = {"value": 1, "quality": "estimated", "clock": "unsynced"}
    told = json.loads(render(components()["power_w"]["json_attributes_template"], payload))
    assert told == {"quality": "estimated", "clock": "unsynced"}


def test_all_but_counters_expire() -> None:
    made = components()
    assert {metric for metric, component in made.items() if "expire_after" not in component} == COUNTERS
    assert all("expire_after" not in component for component in components(expire_after_s=0).values())


def test_without_a_currency_money_is_a_number_without_a_unit() -> None:
    made = components(currency="")
    for metric in ("cost", "unit_rate_per_kwh", "standing_charge_per_day"):
        assert not {"unit_of_measurement", "device_class"} & set(made[metric])
    assert (components()["cost"]["device_class"], components()["cost"]["unit_of_measurement"]) == ("monetary", "GBP")


def test_a_simulated_device_says_so_and_is_not_the_real_one() -> None:
    real, simulated = Device("kasa", "fridge"), Device("kasa", "fridge", simulated=True)
    configs = [discovery().config(device, ["energy_wh"]) for device in (real, simulated)]
    assert [config["device"]["name"] for config in configs] == ["fridge", "fridge (simulated)"]
    assert configs[0]["device"]["identifiers"] != configs[1]["device"]["identifiers"]
    of_energy = [config["components"]["energy_wh"] for config in configs]
    assert of_energy[0]["unique_id"] != of_energy[1]["unique_id"]
    assert of_energy[1]["state_topic"] == "wattherd/home/simulated/kasa/fridge/energy_wh"


def test_ids_never_change() -> None:
    """Whoever changes them takes the history of every sensor away from its owner."""
    config = discovery().config(Device("my_plugs", "fridge-2"), ["power_w"])
    assert config["device"]["identifiers"] == ["wattherd_home_my__plugs_fridge-2"]
    assert config["components"]["power_w"]["unique_id"] == "wattherd_home_my__plugs_fridge-2_power_w"
