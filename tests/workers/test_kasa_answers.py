"""The decoders of what Kasa plugs answer: right in every unit, and never surprised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reading import METRICS
from vitals import REFUSALS
from workers._kasa_answers import (
    Facts,
    NoMeter,
    Refused,
    Values,
    is_strip,
    legacy_facts,
    legacy_values,
    smart_facts,
    smart_ids,
    smart_values,
    sum_of,
)
from workers._kasa_network import said_in

# Whatever JSON can hold, with the names that the decoders look for.
NAMES = st.sampled_from(
    [
        *("system", "get_sysinfo", "emeter", "get_realtime", "err_code", "deviceId", "device_id", "mac", "mic_mac"),
        *("alias", "nickname", "model", "feature", "type", "children", "id", "power", "power_mw", "voltage_mv"),
        *("current", "total", "total_wh", "component_nego", "component_list", "ver_code", "get_device_info"),
        *("get_child_device_list", "child_device_list", "get_child_device_component_list", "child_component_list"),
        *("get_emeter_data", "get_energy_usage", "get_current_power", "current_power", "position", "result"),
    ]
)
WORDS = st.sampled_from(
    ["80" * 20, "50:C7:BF:00:11:22", "energy_monitoring", "child_device", "IOT.SMARTBULB", "ENE", "\x1b\n"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS | st.just(10**400)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6)
)


@given(ANYTHING)
def test_no_answer_at_all_surprises_a_decoder(answer: Any) -> None:
    decoders: list[Callable[[Any], Any]] = [legacy_facts, legacy_values, smart_facts, smart_ids, is_strip]
    if isinstance(answer, dict):
        decoders.append(smart_values)
    for decode in decoders:
        try:
            assert_sane(decode(answer))
        except Refused as refusal:
            assert refusal.reason in REFUSALS
            assert refusal.what.isprintable()
        except NoMeter:
            pass
    ids, mac, model, alias = said_in(answer)
    assert len(ids) <= 2
    assert (mac + model + alias).isprintable()


@given(
    st.dictionaries(st.sampled_from(["power_mw", "power", "voltage_mv", "voltage", "current_ma", "total_wh"]), LEAVES)
)
def test_whatever_a_meter_shows_is_finite_and_possible_or_refused(fields: dict[str, Any]) -> None:
    for decode, answer in (
        (legacy_values, {"emeter": {"get_realtime": fields}}),
        (smart_values, {"get_emeter_data": fields}),
    ):
        try:
            assert_sane(decode(answer))
        except Refused as refusal:
            assert refusal.reason in REFUSALS


def assert_sane(decoded: Facts | Values | frozenset[str] | bool) -> None:
    if isinstance(decoded, Facts):
        texts = [decoded.alias, decoded.model, decoded.firmware, *(outlet.alias for outlet in decoded.outlets)]
        assert all(text.isprintable() and len(text) <= 40 for text in texts)
        assert decoded.ids
        assert len(decoded.outlets) <= 32
    elif isinstance(decoded, dict):
        assert decoded.keys() <= METRICS
        assert all(math.isfinite(value) and 0 <= value <= 1e9 for value in decoded.values())


@given(
    st.integers(0, 4_500_000),
    st.integers(80_000, 280_000),
    st.integers(0, 20_000),
    st.integers(0, 10**9),
    st.booleans(),
)
def test_a_meter_is_read_alike_in_thousandths_and_in_wholes(mw: int, mv: int, ma: int, wh: int, total: bool) -> None:
    new = {"power_mw": mw, "voltage_mv": mv, "current_ma": ma, **({"total_wh": wh} if total else {})}
    old = {"power": mw / 1000, "voltage": mv / 1000, "current": ma / 1000, **({"total": wh / 1000} if total else {})}
    assert legacy_values({"emeter": {"get_realtime": new}}) == pytest.approx(
        legacy_values({"emeter": {"get_realtime": old}})
    )


def test_the_energy_of_today_is_no_register() -> None:
    """Of new plugs: it begins anew every midnight, and the other energies every month and whenever they like."""
    usage = {
        "today_energy": 120,
        "month_energy": 3120,
        "current_power": 86123,
        "past24h": [1],
        "electricity_charge": [],
    }
    assert smart_values({"get_energy_usage": usage}) == {"power_w": 86.123}
    assert smart_values({"get_emeter_data": {"power_mw": 86123, "energy_wh": 971}}) == {"power_w": 86.123}


def test_a_sum_without_the_current_of_one_outlet_has_no_current() -> None:
    assert sum_of([{"power_w": 5.0, "current_a": 0.1}, {"power_w": 6.0}]) == {"power_w": 11.0}


def test_the_meter_of_a_bulb_is_a_module_of_another_name() -> None:
    info = {"deviceId": "80" * 20, "mic_mac": "50C7BF001122", "mic_type": "IOT.SMARTBULB", "model": "LB130(EU)"}
    facts = legacy_facts({"system": {"get_sysinfo": info}})
    assert (facts.has_meter, facts.methods) == (True, ("smartlife.iot.common.emeter",))
    answer = {"smartlife.iot.common.emeter": {"get_realtime": {"power_mw": 10800, "err_code": 0}}}
    assert legacy_values(answer, *facts.methods) == {"power_w": 10.8}
