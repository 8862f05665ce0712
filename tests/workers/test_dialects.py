"""What devices say over MQTT, decoded: recorded messages, and the rules that hold for every dialect."""

from __future__ import annotations

import importlib
import re
import tomllib
from typing import Any

import msgspec
import pytest

from reading import METRICS, Origin
from tests.workers.recorded_messages import DIALECTS, recorded
from vitals import REFUSALS
from workers._dialects import MOST_PAYLOAD_BYTES, Device, Dialect, Refused, Said, dialect_of

AT_NS = 5_000_000_000_000
RECORDED = [message for dialect in DIALECTS for message in recorded(dialect)]


def make(dialect: str, topic: str, **options: Any) -> Dialect:
    table = {"name": "house", "dialect": dialect, "topic": topic, **options}
    return dialect_of(msgspec.convert(table, Device))


def take(decoder: Dialect, topic: str, payload: str | bytes, *, retained: bool = False) -> Said:
    return decoder.take(topic, payload.encode() if isinstance(payload, str) else payload, retained, AT_NS)


def values(said: Said) -> dict[str, Any]:
    return {metric: value for reading in said.readings for metric, value in reading.values.items()}


@pytest.mark.parametrize("message", RECORDED, ids=lambda message: f"{message['dialect']}: {message['from']}")
def test_a_recorded_message_comes_to_what_the_device_meant(message: dict[str, Any]) -> None:
    decoder = make(message["dialect"], **message["device"])
    if reason := message.get("raises"):
        with pytest.raises(Refused) as refused:
            take(decoder, message["topic"], message["payload"])
        assert refused.value.reason == reason
        return
    said = take(decoder, message["topic"], message["payload"], retained=message.get("retained", False))
    assert values(said) == message["values"]
    assert said.online == message.get("online")
    assert list(said.refused) == message.get("refused", [])
    assert said.trouble == ""
    assert len(said.readings) == bool(message["values"])
    for reading in said.readings:
        assert (reading.device, reading.at_ns) == ("house", AT_NS)
        assert (reading.origin.time_ns if reading.origin else 0) == message.get("time_ns", 0)


@pytest.mark.parametrize("message", RECORDED, ids=lambda message: f"{message['dialect']}: {message['from']}")
def test_a_device_subscribes_to_what_it_says_something_about(message: dict[str, Any]) -> None:
    decoder = make(message["dialect"], **message["device"])
    filters = decoder.filters()
    says_something = message["values"] or "online" in message or "raises" in message
    assert not says_something or message["topic"] in filters
    assert len({*filters}) == len(filters)
    assert not any({*each} & {*"+#"} for each in filters)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_recorded_messages_of_every_kind(dialect: str) -> None:
    messages = recorded(dialect)
    assert any(message["values"] for message in messages)
    assert any(not message["values"] for message in messages)
    if dialect != "json":  # whose devices say nothing of their being there
        assert {message["online"] for message in messages if "online" in message}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_example_of_a_dialect_is_a_device(dialect: str) -> None:
    documentation = importlib.import_module(f"workers._dialects.{dialect}").__doc__ or ""
    block = "\n".join(line[4:] for line in documentation.splitlines() if line.startswith("    "))
    [table] = tomllib.loads(block)["sources"]["broker"]["devices"]
    device = msgspec.convert(table, Device)
    assert device.dialect == dialect
    assert dialect_of(device).filters()


@pytest.mark.parametrize(
    "message",
    [message for message in RECORDED if message["values"]],
    ids=lambda message: f"{message['dialect']}: {message['from']}",
)
def test_a_value_that_the_broker_kept_is_never_new(message: dict[str, Any]) -> None:
    decoder = make(message["dialect"], **message["device"])
    assert take(decoder, message["topic"], message["payload"], retained=True).readings == ()


@pytest.mark.parametrize("message", RECORDED, ids=lambda message: f"{message['dialect']}: {message['from']}")
def test_a_topic_of_somebody_else_says_nothing(message: dict[str, Any]) -> None:
    decoder = make(message["dialect"], **message["device"])
    assert take(decoder, f"{message['topic']}/of/another", message["payload"]) == Said()


def test_a_payload_beyond_the_limit_is_refused_before_it_is_read() -> None:
    decoder = make("tasmota", "plug1")
    with pytest.raises(Refused) as refused:
        take(decoder, "tele/plug1/SENSOR", b" " * (MOST_PAYLOAD_BYTES + 1))
    assert refused.value.reason == "too_large"
    assert values(take(decoder, "tele/plug1/SENSOR", b'{"ENERGY":{"Power":1}}'.ljust(MOST_PAYLOAD_BYTES)))


def test_a_value_that_cannot_be_is_left_out_and_told_and_the_rest_is_booked() -> None:
    decoder = make("tasmota", "plug1", max_power_w=3680)
    said = take(decoder, "tele/plug1/SENSOR", '{"ENERGY":{"Power":4000,"Voltage":65535,"Total":1.5,"Factor":-1.01}}')
    assert values(said) == {"device_energy_wh": 1500.0}
    assert said.refused == ("out_of_range",) * 3
    assert said.trouble == (
        "its Power of 4000 W cannot be (-3680 to 3680 W); set max_power_w of the device if it can be so much"
    )


def test_a_trouble_stays_until_that_very_number_is_well_again() -> None:
    decoder = make("shelly", "plug", max_power_w=3680)
    assert take(decoder, "plug/status/switch:0", '{"apower": 9999}').trouble
    assert take(decoder, "plug/status/switch:0", '{"voltage": 230}').trouble, "this says nothing of the power"
    assert take(decoder, "plug/online", "true").trouble
    assert not take(decoder, "plug/status/switch:0", '{"apower": 99}').trouble


@pytest.mark.parametrize("word", ["", "null", "None", "unavailable", "unknown", "---"])
def test_a_word_for_no_value_is_no_value_and_no_fault(word: str) -> None:
    decoder = make("esphome", "node", values=[{"path": "power", "unit": "W"}])
    assert take(decoder, "node/sensor/power/state", word) == Said()


@pytest.mark.parametrize(("text", "reason"), [("nan", "not_finite"), ("-inf", "not_finite"), ("12,5", "malformed")])
def test_what_is_no_number_is_never_zero(text: str, reason: str) -> None:
    decoder = make("esphome", "node", values=[{"path": "power", "unit": "W"}])
    said = take(decoder, "node/sensor/power/state", text)
    assert (values(said), said.refused) == ({}, (reason,))


def test_a_part_of_a_status_yields_only_what_it_carries() -> None:
    decoder = make("shelly", "plug")
    whole = '{"apower": 10.7, "voltage": 230, "aenergy": {"total": 4}}'
    assert len(values(take(decoder, "plug/status/switch:0", whole))) == 3
    part = '{"method": "NotifyStatus", "params": {"ts": 0, "switch:0": {"id": 0, "voltage": 231}}}'
    assert values(take(decoder, "plug/events/rpc", part)) == {"voltage_v": 231}


def test_two_channels_of_one_plug_never_share_energy() -> None:
    first, second = (make("tasmota", "dual", channel=channel) for channel in (1, 2))
    payload = '{"ENERGY":{"Total":3.067,"Power":[52,5],"Current":0.4}}'
    assert values(take(first, "tele/dual/SENSOR", payload)) == {"power_w": 52}
    assert values(take(second, "tele/dual/SENSOR", payload)) == {"power_w": 5}


def test_a_sum_without_one_of_its_phases_is_no_sum() -> None:
    said = take(make("tasmota", "main", channel=0), "tele/main/SENSOR", '{"ENERGY":{"Total":[1,2],"Power":[52,null]}}')
    assert values(said) == {"device_energy_wh": 3000.0}


def test_a_channel_that_is_not_there_is_told() -> None:
    said = take(make("tasmota", "dual", channel=3), "tele/dual/SENSOR", '{"ENERGY":{"Power":[52,5]}}')
    assert said.readings == ()
    assert said.trouble == "it has no channel 3; correct channel of the device"


def test_what_zigbee2mqtt_repeats_of_a_device_that_was_not_heard_is_no_reading() -> None:
    decoder = make("zigbee2mqtt", "z/plug")
    report = '{"power": 86.1, "energy": 12.34, "last_seen": "2026-07-27T09:41:41Z"}'
    assert values(take(decoder, "z/plug", report))
    assert take(decoder, "z/plug", '{"state": "ON", "last_seen": "2026-07-27T09:41:41Z"}') == Said()
    assert take(decoder, "z/plug", report) == Said(refused=("repeated",))
    in_the_same_second = report.replace("86.1", "90")
    assert values(take(decoder, "z/plug", in_the_same_second))["power_w"] == 90
    assert values(take(decoder, "z/plug", report.replace(":41Z", ":42Z")))["power_w"] == 86.1


@pytest.mark.parametrize("payload", ["", "[]", "7", '{"state":[]}', '{"state":7}', '{"state":"ON"}', "maybe"])
def test_an_availability_that_says_neither_is_neither(payload: str) -> None:
    assert take(make("zigbee2mqtt", "z/plug"), "z/plug/availability", payload) == Said()


def test_without_last_seen_the_same_power_twice_is_two_readings() -> None:
    decoder = make("zigbee2mqtt", "z/plug")
    assert values(take(decoder, "z/plug", '{"power": 86.1}')) == values(take(decoder, "z/plug", '{"power": 86.1}'))


def test_the_numbers_of_an_esp32_go_on_to_the_writer() -> None:
    decoder = make("esp32", "esp32-meter")
    backlog = (
        '[{"device":"esp32-meter","boot":"a1b2","seq":7,"pulses_total":10,"age_ms":60000},'
        '{"device":"esp32-meter","boot":"a1b2","seq":8,"pulses_total":12,"age_ms":0,"imp_per_kwh":800}]'
    )
    said = take(decoder, "wattherd/pulse/esp32-meter/state", backlog)
    assert [reading.origin for reading in said.readings] == [Origin("a1b2", 7), Origin("a1b2", 8)]
    assert [AT_NS - reading.at_ns for reading in said.readings] == [60_000_000_000, 0]
    assert said.trouble.startswith("it counts 800 pulses per kWh, the configuration says 1000 and is used; ")
    well = '{"device":"esp32-meter","boot":"a1b2","seq":9,"pulses_total":13}'
    assert take(decoder, "wattherd/pulse/esp32-meter/state", well).trouble == ""


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ('{"device":"garage","pulses_total":1}', "a message names another device than its topic"),
        ('{"pulses_total":1}', "the message names no device"),
        ('{"device":"esp32-meter","power_w":99999}', "the power is above 25000 W, the most that house can have"),
    ],
)
def test_what_is_wrong_with_a_message_of_an_esp32_is_told(payload: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        take(make("esp32", "esp32-meter"), "wattherd/pulse/esp32-meter/state", payload)


def test_a_counter_that_begins_anew_is_passed_on_as_it_is() -> None:
    decoder = make("shelly", "shellyplug-s-1")
    topic = "shellies/shellyplug-s-1/relay/0/energy"
    assert values(take(decoder, topic, "600000")) == {"device_energy_wh": 10_000.0}
    assert values(take(decoder, topic, "60")) == {"device_energy_wh": 1.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dialect": "tasmota", "topic": "tele/+/SENSOR"}, "names no device: write it without + and #"),
        ({"dialect": "tasmota", "topic": "$SYS"}, "names no device"),
        ({"dialect": "tasmota", "topic": ""}, "names no device"),
        ({"dialect": "tasmota", "topic": "plug1/"}, "has a / at an end"),
        ({"dialect": "tasmota", "topic": "x" * 257}, "is longer than 256 bytes"),
        ({"dialect": "tasmota", "topic": "x", "values": [{"unit": "W"}]}, "has no values: it knows its own"),
        ({"dialect": "json", "topic": "x"}, "needs values: one { path, unit } a number"),
        ({"dialect": "esphome", "topic": "x", "values": [{"path": "a/b", "unit": "W"}]}, "names no sensor"),
        ({"dialect": "json", "topic": "x", "values": [{"unit": "W"}, {"path": "v", "unit": "V"}]}, "has no path"),
        ({"dialect": "json", "topic": "x", "values": [{"path": "a"}]}, "it needs a metric ("),
        ({"dialect": "json", "topic": "x", "values": [{"path": "a..b", "unit": "W"}]}, "cannot be read: write it like"),
        ({"dialect": "json", "topic": "x", "values": [{"path": "a[x]", "unit": "W"}]}, "cannot be read"),
        ({"dialect": "json", "topic": "x", "values": [{"metric": "power"}]}, "there is no metric 'power': choose one"),
        ({"dialect": "json", "topic": "x", "values": [{"metric": "energy_wh"}]}, "there is no metric 'energy_wh'"),
        (
            {"dialect": "json", "topic": "x", "values": [{"metric": "power_w", "unit": "kWh"}]},
            "power_w has no unit 'kWh'",
        ),
        ({"dialect": "json", "topic": "x", "values": [{"unit": "W", "scale": 0}]}, "a scale of 0 cannot be meant"),
        (
            {"dialect": "json", "topic": "x", "values": [{"path": "a", "unit": "W"}, {"path": "b", "unit": "kW"}]},
            "two values of house are its power_w",
        ),
        ({"dialect": "modbus", "topic": "x"}, "Invalid enum value 'modbus'"),
    ],
    ids=str,
)
def test_a_device_that_cannot_be_meant_is_refused_before_anything_starts(options: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(words)):
        msgspec.convert({"name": "house", **options}, Device)


@pytest.mark.parametrize(
    ("value", "payload", "expected"),
    [
        ({"unit": "mW"}, "1500", {"power_w": 1.5}),
        ({"unit": "pulses/min"}, "10", {"power_w": 1200.0}),
        ({"unit": "Wmin"}, "90", {"device_energy_wh": 1.5}),
        ({"unit": "kWh", "metric": "device_energy_export_wh"}, "0.1", {"device_energy_export_wh": 100.0}),
        ({"unit": "%"}, "98", {"power_factor": 0.98}),
        ({"unit": "m³"}, "1603.209", {"gas_m3": 1603.209}),
        ({"metric": "unit_rate_per_kwh", "scale": 0.01}, "24.86", {"unit_rate_per_kwh": 0.2486}),
        ({"unit": "W", "scale": -1}, "300", {"power_w": -300.0}),
        ({"unit": "pulses"}, "100", {"pulses": 100, "device_energy_wh": 200.0}),
        ({"unit": "pulses"}, "100.5", {}),
    ],
    ids=str,
)
def test_a_number_arrives_in_the_unit_of_its_metric(value: dict[str, Any], payload: str, expected: Any) -> None:
    decoder = make("json", "x", values=[value], pulses_per_kwh=500)
    assert values(take(decoder, "x", payload)) == expected


def test_what_the_tests_expect_exists() -> None:
    for message in RECORDED:
        assert {*message["values"]} <= METRICS
        assert {*message.get("refused", ()), *([message["raises"]] if "raises" in message else [])} <= {*REFUSALS}
