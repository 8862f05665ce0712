"""Every decoder of the Tuya source: what devices once sent, and 100,000 messages that nobody should send."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reading import METRICS
from tests.workers.tuya_devices import KEY, STATUS, a_broadcast, a_plug, ecb, frame_55aa, frame_6699
from vitals import REFUSALS
from workers._tuya_broadcast import claimed
from workers._tuya_device import Device, Meter
from workers._tuya_keys import decode as decode_keys
from workers._tuya_memory import Finding, Memory
from workers._tuya_points import Refused, decode, directions, is_phase, phase, points_in
from workers._tuya_products import UNITS, from_mapping, products, recognised
from workers._tuya_session import Broken, Driver, Fault, Heard, Session

KEY_BYTES = KEY.encode()
DEVICE_ID = "bf0123456789abcdefghij"
# Blobs of phases that owners of rail meters showed in public, with what their apps said.
PHASES = {
    "CWgABtwAABE=": (240.8, 1.756, 17),
    "CQoAMDkACuY=": (231.4, 12.345, 2790),
    "CWEA6mEAOEY=": (240.1, 60.001, 14406),
    "AAAAAAAAAAA=": (0, 0, 0),
    "COkAABUAAAU=": (228.1, 0.021, 5),
    "CQYAB/oAAXQ=": (231.0, 2.042, 372),
    "CV4AAPoAAC0=": (239.8, 0.25, 45),
    "COwABY8AARA=": (228.4, 1.423, 272),
    "CWYAAAAAAAA=": (240.6, 0, 0),
    "CWkAARgAACo=": (240.9, 0.28, 42),
    "CYYAAlsAAD8=": (243.8, 0.603, 63),
}


@pytest.fixture(scope="module")
def driver() -> Driver:
    driver = Driver()
    driver.open()
    return driver


@pytest.mark.parametrize(("blob", "shown"), PHASES.items())
def test_phases_that_meters_sent(blob: str, shown: tuple[float, float, float]) -> None:
    assert is_phase(blob)
    assert tuple(phase(blob).values()) == shown


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "malformed"),
        ("CQoAMDkACu", "malformed"),
        ("not base64!", "malformed"),
        ("CQoAMDkA", "malformed"),
        ("A" * 400, "malformed"),
        (2384, "malformed"),
        (None, "malformed"),
        ({"voltage": 230}, "malformed"),
        ("{", "malformed"),
        ('{"voltage": 230}', "malformed"),
        ('{"voltage": "230", "electricCurrent": 1, "power": 0.1}', "malformed"),
        ('{"voltage": NaN, "electricCurrent": 1, "power": 0.1}', "not_finite"),
        ('{"voltage": 230, "electricCurrent": 1e300, "power": 0.1}', "out_of_range"),
        ("AQADAgAAAZIDFwAQVQkX", "out_of_range"),  # another maker's layout
        ("CQoAMDkAbPw=", "out_of_range"),  # 27,900 W from 2,857 VA
        ("AAAAMDkACuY=", "out_of_range"),  # current without volts
    ],
)
def test_what_is_no_phase_is_refused(value: object, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        phase(value)
    assert refused.value.reason == reason


@given(st.floats(80, 280), st.floats(0, 400), st.floats(0, 1.0), st.binary(max_size=12))
def test_every_phase_that_can_be_is_read_to_its_last_digit(
    volts: float, amperes: float, power_factor: float, rest: bytes
) -> None:
    tenths, milli, watts = round(volts * 10), round(amperes * 1000), int(volts * amperes * power_factor)
    blob = struct.pack(">H", tenths) + milli.to_bytes(3, "big") + watts.to_bytes(3, "big") + rest
    assert [*phase(base64.b64encode(blob).decode()).values()] == [tenths / 10, milli / 1000, watts] or not any(blob[:8])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a9{\n\0é", max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a19", max_size=4), inner, max_size=4),
    max_leaves=4,
)
DPS = st.dictionaries(st.sampled_from([*map(str, range(1, 30)), "101", "102", "105", "112", "0", "x", "1000"]), JSON)


@given(
    st.one_of(
        JSON, st.fixed_dictionaries({"dps": DPS}), st.fixed_dictionaries({"data": st.fixed_dictionaries({"dps": DPS})})
    )
)
def test_no_message_makes_anything_but_sound_values(message: object) -> None:
    check(message, Counter())


@settings(max_examples=60)
@given(st.dictionaries(st.text("a19", max_size=3), JSON))
def test_no_mapping_makes_anything_but_known_points(mapping: dict[str, Any]) -> None:
    for point in from_mapping(mapping).values():
        assert point.metric in METRICS | {"phase"}


def check(message: object, seen: Counter[str]) -> None:
    """Put one message through every product and every channel."""
    dps = points_in(message)
    backwards = directions(dps, dps)
    assert all(re.fullmatch(r"[1-9][0-9]{0,2}", dp) for dp in dps)
    for name, product in products().items():
        for channel in product.channels:
            decoded = decode(dps, product.points, channel=channel, backwards=backwards)
            assert decoded.values.keys() <= METRICS
            assert all(type(value) is float and abs(value) <= 2**53 for value in decoded.values.values())
            assert all(refusal.reason in REFUSALS for refusal in decoded.refusals.values())
            assert all(re.fullmatch(r"[ -~]*", refusal.what) for refusal in decoded.refusals.values()), (
                "nothing foreign"
            )
            seen[name] += bool(decoded.values)
    assert recognised({*dps}, {*dps}) in {"", *products()}


def strange(chance: random.Random) -> Any:
    """A value that a device should not send, or just might."""
    kind = chance.randrange(12)
    if kind < 5:
        return chance.choice([0, 1, -1, 412, 2384, chance.randrange(-(2**40), 2**40), 10**300])
    if kind < 8:
        blob = bytearray(base64.b64decode(chance.choice([*PHASES])))
        blob[chance.randrange(8)] ^= 1 << chance.randrange(8)
        text = base64.b64encode(chance.randbytes(chance.randrange(4)) + blob).decode()
        return text[: chance.randrange(len(text))] if kind == 5 else text
    return chance.choice(
        [
            None,
            True,
            1.5,
            float("nan"),
            float("inf"),
            "REVERSE",
            "forward",
            "",
            "\0\n{evil}",
            [],
            {},
            '{"voltage":1}',
            {"a": 1},
        ]
    )


def test_a_hundred_thousand_messages_neither_crash_nor_invent_a_name() -> None:
    chance = random.Random(20240611)
    names = [str(dp) for product in products().values() for dp in product.points] + [
        "9",
        "102",
        "104",
        "x",
        "../a",
        "-1",
    ]
    values = [strange(chance) for _ in range(5000)]
    refused: Counter[str] = Counter()
    table = Device(name="plug", id=DEVICE_ID)
    known = {"plug", "", *(f"clamp-{channel}" for channel in "ab")}
    meters = [
        Meter(device, {}, refused, stale_after_s=60, frozen_after_s=900)
        for device in (
            table,
            *(Device(name=f"clamp-{one}", id=DEVICE_ID, channel=one, product="dual-meter") for one in "ab"),
        )  # type: ignore[arg-type]
    ]
    series = set()
    told = 0
    for number in range(60_000):
        dps = {chance.choice(names): chance.choice(values) for _ in range(chance.randrange(1, 4))}
        heard = Heard(points_in({"dps": dps}), is_answer=number % 3 == 0)
        for meter in meters if number % 5 == 0 else meters[:1]:
            meter.take(heard, number * 1_000_000_000)
            reading = meter.reading(number * 1_000_000_000)
            if reading:
                told += 1
                assert reading.values.keys() <= METRICS
                series |= {(reading.device, metric) for metric in reading.values}
            assert meter.trouble.isprintable()
        if number % 50 == 0:
            check({"dps": dps}, Counter())
    assert told > 1000, "some of it means something"
    assert {device for device, _ in series} <= known
    assert len(series) <= len(meters) * len(METRICS)
    assert refused.keys() <= {*REFUSALS}
    assert refused["malformed"] > 1000


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_frames_that_are_damaged_in_every_way_end_the_talk_and_nothing_else(driver: Driver, version: str) -> None:
    """Twenty thousand in all four versions: cut, flipped, stuck together, with the right key and a wrong one."""
    chance = random.Random(version)
    plain = json.dumps({"dps": a_plug()}).encode()
    frames = {
        "3.1": frame_55aa(10, 1, bytes(4) + plain),
        "3.3": frame_55aa(10, 1, bytes(4) + ecb(KEY_BYTES, plain)),
        "3.4": frame_55aa(16, 1, bytes(4) + ecb(KEY_BYTES, plain), KEY_BYTES),
        "3.5": frame_6699(16, 1, bytes(4) + plain, KEY_BYTES),
    }
    frame = frames[version]
    ends: Counter[str] = Counter()
    session = Session(driver, DEVICE_ID, KEY, version)
    for _ in range(5_000):
        if ends["again"] % 50 == 0:
            session = Session(driver, DEVICE_ID, KEY, version)
        session.is_ready = chance.random() < 0.9
        session._buffer = b""
        session.is_proven = chance.random() < 0.5
        ends["again"] += 1
        data = bytearray(frame)
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        if chance.random() < 0.2:
            data += chance.randbytes(chance.randrange(100))
        try:
            heard, answer = session.feed(bytes(data))
        except Broken as broken:
            ends[broken.fault.name] += 1
            continue
        assert answer == b""
        for one in heard:
            ends["good" if one.dps else "empty"] += 1
            if version in ("3.4", "3.5"):
                assert one.dps in ({}, a_plug()), "what is signed cannot be changed"
    assert ends["good"] > 500
    assert ends["DAMAGED"] > 100


@pytest.mark.parametrize("version", ["3.1", "3.3", "3.4", "3.5"])
def test_a_frame_whose_check_is_wrong_is_not_read_though_its_content_is_good(driver: Driver, version: str) -> None:
    plain = json.dumps({"dps": a_plug()}).encode()
    sealed = plain if version == "3.1" else ecb(KEY_BYTES, plain)
    other = b"another-key-1234"
    if version == "3.5":
        frame = frame_6699(16, 1, bytes(4) + plain, other)
    elif version == "3.4":
        frame = frame_55aa(16, 1, bytes(4) + sealed, other)
    else:
        good = bytearray(frame_55aa(10, 1, bytes(4) + sealed))
        good[-8] ^= 1  # the checksum
        frame = bytes(good)
    session = Session(driver, DEVICE_ID, KEY, version)
    session.is_ready = True
    with pytest.raises(Broken) as broken:
        session.feed(frame)
    assert broken.value.fault is (Fault.KEY if version in ("3.4", "3.5") else Fault.DAMAGED)


def test_bodies_that_are_nonsense_behind_a_good_frame(driver: Driver) -> None:
    """Five thousand: what a device with the right key may say, in place of what it should."""
    chance = random.Random(7)
    bodies: list[Any] = [None, 5, [], {}, "x", {"dps": []}, {"dps": None}, {"data": 5}, {"data": []}, {"cid": {}}, True]
    bodies += [{"data": {"cid": 5}, "dps": {"1": 1}}, {"devId": [], "dps": {}}, {"dps": {"1": {"a": [1] * 20}}}]
    session = Session(driver, DEVICE_ID, KEY, "3.3")
    malformed = 0
    for number in range(5_000):
        plain = json.dumps(chance.choice(bodies)).encode() if number % 2 else chance.randbytes(chance.randrange(40))
        if number % 7 == 0:
            plain = chance.choice(
                [b"json obj data unvalid", b"[" * 5000, b'{"dps":', b"\xff\xfe", b'{"a":' + b"9" * 5000]
            )[:1300]
        session.is_proven = number % 3 > 0
        body = ecb(KEY_BYTES, plain)
        try:
            heard, _ = session.feed(
                frame_55aa(STATUS, number, bytes(4) + chance.choice([b"", b"3.3" + bytes(12)]) + body)
            )
        except Broken:
            session = Session(driver, DEVICE_ID, KEY, "3.3")
            continue
        for one in heard:
            malformed += one.malformed
            assert isinstance(one.cid, str)
            check({"dps": one.dps}, Counter())
    assert malformed > 500


def test_twenty_thousand_datagrams_are_no_claims_or_good_ones(driver: Driver) -> None:
    chance = random.Random(11)
    fields = {"ip": "192.168.1.9", "gwId": DEVICE_ID, "productKey": "keyjup78v54myhan"}
    good = [a_broadcast({**fields, "version": version}) for version in ("3.1", "3.3", "3.5")]
    claims = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.1:
            data = bytearray(chance.randbytes(chance.randrange(200)))
        claim = claimed(driver, bytes(data), "192.168.1.77")
        if claim:
            claims += 1
            assert claim.host == "192.168.1.77"
            assert re.fullmatch(r"[A-Za-z0-9]{8,64}", claim.device_id)
            assert re.fullmatch(r"(3\.[0-9])?", claim.version)
    assert claims > 1000


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_file_of_keys_is_a_crash(content: bytes) -> None:
    known = decode_keys(content)
    assert known is None or all(isinstance(one.key, str) for one in known.values())


@given(st.binary(max_size=300))
def test_a_memory_that_is_torn_is_forgotten(content: bytes) -> None:
    memory = Memory.new()
    try:
        memory.note({DEVICE_ID: Finding("3.4", "192.168.1.9")})
        assert memory.load() == {DEVICE_ID: Finding("3.4", "192.168.1.9")}
        os.pwrite(memory.descriptor, content, 6)
        assert memory.load() in ({}, {DEVICE_ID: Finding("3.4", "192.168.1.9")})
    finally:
        os.close(memory.descriptor)


def test_the_tables_hold_metrics_and_units_that_there_are() -> None:
    for name, product in products().items():
        assert product.about, name
        assert {*map(str, (*product.numbers, *product.phases))} <= product.points.keys()
        for point in product.points.values():
            assert point.metric in METRICS | {"phase"}
            assert point.unit in UNITS
            assert {*point.channels} <= {"", "a", "b", "c"}


def test_what_was_used_since_the_last_report_is_no_register() -> None:
    assert all("17" not in product.points for product in products().values())
    mapping = {"17": {"code": "add_ele", "values": {"scale": 3, "unit": "kwh"}}}
    assert from_mapping(mapping) == {}


def test_every_product_is_named_in_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs/sources/tuya.md").read_text()
    assert [name for name in products() if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    "values",
    [
        {"scale": 1, "unit": "furlong"},
        {"scale": 1, "unit": "kWh"},  # power in kilowatt hours
        {"scale": -1, "unit": "W"},
        {"scale": "1", "unit": "W"},
        {"scale": True, "unit": "W"},
        {"scale": 1, "unit": ["W"]},
        None,
    ],
)
def test_a_mapping_that_makes_no_sense_is_left_out(values: object) -> None:
    assert from_mapping({"19": {"code": "cur_power", "values": values}}) == {}


def test_a_mapping_of_three_phases_has_no_whole() -> None:
    mapping = {dp: {"code": f"phase_{one}", "values": {}} for dp, one in (("6", "a"), ("7", "b"), ("8", "c"))}
    assert [point.channels for point in from_mapping(mapping).values()] == [("a",), ("b",), ("c",)]
    assert from_mapping({"6": mapping["6"]})["6"].channels == ("", "a")


def a_meter(refused: Counter[str], **changes: Any) -> Meter:
    return Meter(Device(name="plug", id=DEVICE_ID, **changes), {}, refused, stale_after_s=60, frozen_after_s=900)


def test_a_direction_that_is_too_old_is_not_that_of_a_new_power() -> None:
    meter = a_meter(Counter(), product="dual-meter", channel="a")
    meter.take(Heard({"102": "REVERSE"}), 0)
    meter.take(Heard({"101": 5000}), 59 * 10**9)
    reading = meter.reading(59 * 10**9)
    assert reading
    assert reading.values == {"power_w": -500.0}
    meter.take(Heard({"101": 5000}), 61 * 10**9)
    assert meter.reading(61 * 10**9) is None


def test_what_has_become_too_old_is_not_told() -> None:
    refused: Counter[str] = Counter()
    meter = a_meter(refused, product="plug-a")
    meter.take(Heard({"19": 5000}), 0)
    assert meter.reading(61 * 10**9) is None
    assert refused["stale"] == 1
    meter.take(Heard({"19": 5000}), 61 * 10**9)
    assert meter.reading(61 * 10**9)


def test_who_was_away_and_tells_the_same_as_before_is_believed() -> None:
    meter = a_meter(Counter(), product="plug-a")
    plug = Heard({"18": 412, "19": 861, "20": 2384})
    meter.take(plug, 0)
    meter.take(plug, 1000 * 10**9)
    assert meter.reading(1000 * 10**9)
    for second in range(1010, 1910, 10):
        meter.take(plug, second * 10**9)
    assert meter.reading(1900 * 10**9)
    assert not meter.trouble
    meter.take(plug, 1910 * 10**9)
    assert meter.reading(1910 * 10**9) is None
    assert "for 15 minutes" in meter.trouble
