"""What Glow displays pass on, decoded: recorded messages of both feeds, and what is new in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reading import METRICS, Origin
from tests.workers.recorded_messages import recorded
from vitals import REFUSALS
from workers._glow import Announced, News, decode_cloud, decode_local, joined
from workers._json import Refused

RECORDED = recorded("glow")
LOCAL = "glow/1234567890AB/SENSOR/electricitymeter"
CLOUD = "SMART/HILD/1234567890AB"
NOON_NS = 1795179610 * 10**9


def decode(topic: str, payload: str) -> dict[str, Announced]:
    """What a message says, by meter."""
    local = decode_local(topic, payload.encode())
    return {each.meter: each for each in ([local] if local else decode_cloud(topic, payload.encode()))}


def electricity(**changes: Any) -> str:
    """A message of a display in the house: `power`, `units` or anything inside `import` may be another."""
    imported = {"cumulative": 4595.563, "units": "kWh", "price": {"unitrate": 0.2486, "standingcharge": 0.5337}}
    power = {"value": changes.pop("power", 0.5), "units": changes.pop("units", "kW")}
    energy = {"export": {"cumulative": 0, "units": "kWh"}, "import": imported | changes}
    return json.dumps({"electricitymeter": {"timestamp": "2026-11-20T13:00:10Z", "energy": energy, "power": power}})


@pytest.mark.parametrize("message", RECORDED, ids=lambda message: message["from"])
def test_a_recorded_message_comes_to_what_the_meter_said(message: dict[str, Any]) -> None:
    said = decode(message["topic"], message["payload"])
    expected = {meter: message[meter] for meter in ("electricity", "gas") if meter in message}
    assert {meter: announced.values for meter, announced in said.items()} == expected
    assert [reason for each in said.values() for reason in each.refused] == message.get("refused", [])
    assert all(announced.mac == "1234567890AB" for announced in said.values())
    is_cloud = message["topic"].startswith("SMART")
    for meter, announced in said.items():
        assert announced.time_ns == (0 if is_cloud and meter == "gas" else message.get("time_ns", 0))
        assert bool(announced.trouble) == ("out_of_range" in announced.refused)
        assert {*announced.values} <= METRICS
        assert {*announced.refused} <= {*REFUSALS}


@pytest.mark.parametrize(
    ("digits", "power_w"),
    [
        ("FFFEA2", -350),
        ("0001C8", 456),
        ("000000", 0),
        ("800001", None),
        ("800000", None),
        ("FFFFFFFE", -2),
        ("A2", -94),
    ],
)
def test_the_demand_is_signed_by_the_length_of_its_digits(digits: str, power_w: int | None) -> None:
    cluster = {"00": {"00": "000000461F6B"}, "03": {"00": "00", "01": "000001", "02": "0003E8"}, "04": {"00": digits}}
    [said] = decode_cloud(CLOUD, json.dumps({"elecMtr": {"0702": cluster}}).encode())
    assert said.values.get("power_w") == power_w


def test_a_demand_is_as_large_as_multiplier_and_divisor_say() -> None:
    cluster = {"00": {"00": "000000461F6B"}, "03": {"00": "00", "01": "000002", "02": "0186A0"}, "04": {"00": "0001C8"}}
    [said] = decode_cloud(CLOUD, json.dumps({"elecMtr": {"0702": cluster}}).encode())
    assert said.values == {"device_energy_wh": 91911.26, "power_w": 9.12}


@pytest.mark.parametrize("unit", ["02", "80", "FF", "xx", 1, None])
def test_a_gas_meter_that_counts_in_something_else_is_refused(unit: object) -> None:
    cluster = {"00": {"00": "000000187689"}, "03": {"00": unit, "01": "000001", "02": "0003E8"}}
    [said] = decode_cloud(CLOUD, json.dumps({"gasMtr": {"0702": cluster}}).encode())
    assert said.values == {}
    assert said.refused


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"power": 25.001}, "power_w"),
        ({"power": -26}, "power_w"),
        ({"power": True}, "power_w"),
        ({"units": "W"}, "power_w"),
        ({"units": None}, "power_w"),
        ({"units": "kW", "cumulative": -1}, "device_energy_wh"),
        ({"cumulative": 1e12}, "device_energy_wh"),
        ({"cumulative": "a lot"}, "device_energy_wh"),
    ],
    ids=str,
)
def test_a_number_that_cannot_be_is_left_out_and_told_and_the_rest_is_booked(
    changes: dict[str, Any], metric: str
) -> None:
    whole = decode(LOCAL, electricity())["electricity"]
    said = decode(LOCAL, electricity(**changes))["electricity"]
    assert {*whole.values} - {*said.values} == {metric}
    assert said.refused in (("out_of_range",), ("malformed",))
    assert "; " in said.trouble


def test_a_register_in_another_unit_is_refused() -> None:
    payload = electricity().replace('"cumulative": 4595.563, "units": "kWh"', '"cumulative": 4595.563, "units": "MWh"')
    said = decode(LOCAL, payload)["electricity"]
    assert "device_energy_wh" not in said.values
    assert said.trouble.startswith("the display does not give its cumulative in kWh; ")


@pytest.mark.parametrize("price", [{}, {"unitrate": 0, "standingcharge": 0.5}, {"unitrate": None}, None, "none"])
def test_a_tariff_that_the_meter_does_not_know_is_no_tariff_of_zero(price: object) -> None:
    said = decode(LOCAL, electricity(price=price))["electricity"]
    assert {*said.values} == {"device_energy_wh", "power_w"}


def test_a_tariff_without_a_standing_charge_is_a_tariff() -> None:
    said = decode(LOCAL, electricity(price={"unitrate": -0.01, "standingcharge": 0}))["electricity"]
    assert said.values["unit_rate_per_kwh"] == -0.01
    assert said.values["standing_charge_per_day"] == 0


def test_what_is_said_again_is_not_new_although_other_things_change() -> None:
    news = News()
    first = decode(LOCAL, electricity())["electricity"]
    assert news.has(first)
    assert not news.has(first)
    assert not news.has(decode(LOCAL, electricity(power=0.7))["electricity"]), "the meter was not read again"
    later = electricity().replace(":10Z", ":20Z")
    assert news.has(decode(LOCAL, later)["electricity"]), "the same numbers, measured again"


def test_gas_of_the_cloud_is_new_when_its_register_has_moved() -> None:
    both = next(message for message in RECORDED if message["from"] == "cloud, both meters")
    news = News()
    assert news.has(decode(CLOUD, both["payload"])["gas"])
    ten_seconds_later = both["payload"].replace("1795179610", "1795179620")
    assert not news.has(decode(CLOUD, ten_seconds_later)["gas"])
    assert news.has(decode(CLOUD, ten_seconds_later.replace("187689", "18768A"))["gas"])


def test_a_message_that_has_nothing_is_no_news_and_hides_none() -> None:
    news = News()
    first = decode(LOCAL, electricity())["electricity"]
    assert news.has(first)
    assert not news.has(first._replace(values={}))
    assert not news.has(first)


def test_a_reading_has_the_name_of_the_configuration_and_the_date_of_the_meter() -> None:
    announced = decode("glow/1234567890ab/SENSOR/electricitymeter", electricity())["electricity"]
    assert announced.mac == "1234567890AB"
    reading = announced.reading("grid", 7)
    assert (reading.device, reading.at_ns, reading.origin) == ("grid", 7, Origin("", 0, NOON_NS))
    undated = electricity().replace("2026-11-20T13:00:10Z", "1970-01-01T00:00:00Z")
    assert decode(LOCAL, undated)["electricity"].reading("grid", 7).origin is None


@pytest.mark.parametrize(
    ("topic", "payload", "answer"),
    [
        ("glow/1234567890AB/STATE", '{"software":"v1.8.12","han":{"rssi":-75,"status":"joined","lqi":100}}', True),
        ("glow/1234567890AB/STATE", '{"software":"v1.8.12","han":{"rssi":0,"status":"disconnected"}}', False),
        ("glow/1234567890AB/STATE", '{"software":"v1.8.12"}', None),
        ("glow/1234567890AB/STATE", '{"han":{"status":7}}', None),
        (LOCAL, '{"han":{"status":"joined"}}', None),
    ],
)
def test_a_display_tells_whether_it_hears_the_meter(topic: str, payload: str, answer: bool | None) -> None:
    assert joined(topic, payload.encode()) is answer


@pytest.mark.parametrize(
    "topic", ["glow", "glow/x/SENSOR/electricitymeter", "SMART/HILD", f"{CLOUD}/x", f"{LOCAL}/x", ""]
)
def test_other_topics_say_nothing(topic: str) -> None:
    assert decode_local(topic, b"{}") is None
    assert decode_cloud(topic, b"{}") == []
    assert joined(topic, b"{}") is None


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b"{", b'"x"', b"\xff", b'{"a":1,"a":2}', b"[" * 9000])
def test_what_is_no_object_is_refused_by_every_decoder(payload: bytes) -> None:
    for decoder, topic in ((decode_local, LOCAL), (decode_cloud, CLOUD), (joined, "glow/1234567890AB/STATE")):
        with pytest.raises(Refused) as refused:
            decoder(topic, payload)
        assert refused.value.reason == "malformed"


def test_a_prefix_of_several_levels_is_fine() -> None:
    assert decode("home/energy/glow/1234567890AB/SENSOR/electricitymeter", electricity())["electricity"].values
