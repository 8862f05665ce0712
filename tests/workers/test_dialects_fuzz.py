"""Every decoder of MQTT payloads against what nobody should send: no crash, no injected name, no more series."""

from __future__ import annotations

import datetime
import math
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reading import METRICS, Reading
from tests.workers.recorded_messages import DIALECTS, recorded
from vitals import REFUSALS
from workers._dialects import Device, Said, Value, dialect_of
from workers._dialects._values import found, steps
from workers._glow import Announced, News, decode_cloud, decode_local, joined
from workers._json import Refused
from workers._measured import Measured
from workers._utc import date_ns, epoch_ns

AT_NS = 5_000_000_000_000_000
NAMES = [f"device-{number}" for number in range(100)]

# What a value may be replaced with.
ODD = [
    *(b"null", b"true", b"[]", b"{}", b'""', b'"nan"', b"NaN", b"-Infinity", b'"unavailable"', b"1e999", b"-1e999"),
    *(b"-1", b"0", b"-0.0", b"1e308", b"99999999999999999999", b"9" * 400, b'"1e5"', b"[1,2]", b'{"total":[]}', b"4e9"),
    *(b'"../../etc"', b'"device-7"', b'"evil\\n\\u001b[31m"', b'"' + b"F" * 17 + b'"', b'"\xc3\xa9"', b"0x7F", b"1_0"),
]
A_VALUE = re.compile(rb"""(?<=[:\[,])(?:-?\d+(?:\.\d+)?|"[^"]*"|\w+)""")


Take = Callable[[str, bytes], tuple[Reading, ...]]


class Heard:
    """One decoder with a message that it understands."""

    def __init__(self, name: str, topic: str, payload: bytes, keeper: object, take: Take) -> None:
        self.name = name
        self.keeper = keeper
        self.topic = topic
        self.payload = payload
        self.values = [match.span() for match in A_VALUE.finditer(payload)] or [(0, len(payload))]
        self.take = take


def all_heard() -> list[Heard]:
    names = iter(NAMES)
    heard = []
    for message in (message for dialect in DIALECTS for message in recorded(dialect)):
        name = next(names)
        table = {"name": name, "dialect": message["dialect"], **message["device"]}
        decoder = dialect_of(msgspec.convert(table, Device))

        def take(topic: str, payload: bytes, decoder: Any = decoder) -> tuple[Reading, ...]:
            said: Said = decoder.take(topic, payload, False, AT_NS)
            check_words(said.trouble, said.refused)
            return said.readings

        heard.append(Heard(name, message["topic"], message["payload"].encode(), decoder, take))
    for message in recorded("glow"):
        name, news = next(names), News()

        def announced(topic: str, payload: bytes, name: str = name, news: News = news) -> tuple[Reading, ...]:
            joined(topic, payload)
            local = decode_local(topic, payload)
            said: list[Announced] = [local] if local else decode_cloud(topic, payload)
            for each in said:
                check_words(each.trouble, each.refused)
            return tuple(each.reading(name, AT_NS) for each in said if news.has(each))

        heard.append(Heard(name, message["topic"], message["payload"].encode(), news, announced))
    return heard


def check_words(trouble: str, refused: tuple[str, ...]) -> None:
    assert {*refused} <= {*REFUSALS}
    if trouble:
        assert "; " in trouble
        assert trouble.isprintable()
        assert len(trouble) < 300


def check_reading(reading: Reading, name: str) -> None:
    assert reading.device == name
    assert reading.values
    assert reading.at_ns <= AT_NS
    for metric, value in reading.values.items():
        assert metric in METRICS
        assert isinstance(value, float | int)
        assert math.isfinite(value)
        assert abs(value) <= 1e12 or metric == "pulses" or (metric == "device_energy_wh" and value <= 2**53 * 1000)
        assert metric != "power_w" or abs(value) <= 25_000
    if reading.origin:
        assert 0 <= reading.origin.time_ns < 2**63


def mutated(chance: random.Random, heard: Heard) -> bytes:
    payload = heard.payload
    match chance.randrange(8):
        case 0 | 1 | 2:
            begin, end = chance.choice(heard.values)
            return payload[:begin] + chance.choice(ODD) + payload[end:]
        case 3:
            at = chance.randrange(len(payload) + 1)
            return payload[:at] + chance.randbytes(chance.randrange(1, 4)) + payload[at:]
        case 4:
            return payload[: chance.randrange(len(payload) + 1)]
        case 5:
            begin, end = sorted((chance.randrange(len(payload) + 1), chance.randrange(len(payload) + 1)))
            return payload[:begin] + payload[end:]
        case 6:
            begin, end = sorted((chance.randrange(len(payload) + 1), chance.randrange(len(payload) + 1)))
            return payload[:end] + payload[begin:]
        case _:
            return payload


@pytest.mark.long
def test_a_hundred_thousand_strange_messages_break_nothing_and_add_no_series() -> None:
    chance = random.Random(20261120)
    decoders = all_heard()
    topics = [heard.topic for heard in decoders]
    series: set[tuple[str, str]] = set()
    told: dict[str, int] = {"readings": 0, "refused": 0}
    for _ in range(100_000):
        heard = chance.choice(decoders)
        payload = mutated(chance, chance.choice(decoders) if chance.random() < 0.1 else heard)
        topic = heard.topic if chance.random() < 0.95 else chance.choice(topics)
        try:
            readings = heard.take(topic, payload)
        except Refused as refused:
            assert refused.reason in REFUSALS
            told["refused"] += 1
            continue
        for reading in readings:
            check_reading(reading, heard.name)
            series |= {(reading.device, metric) for metric in reading.values}
        told["readings"] += bool(readings)
    assert all(len(repr(vars(heard.keeper))) < 20_000 for heard in decoders), (
        "a decoder remembers more than it needs to"
    )
    assert {name for name, _ in series} <= {heard.name for heard in decoders}
    assert len(series) <= len(decoders) * len(METRICS)
    assert min(told.values()) > 10_000, "the mutations must neither all be let in nor all be refused"


_DEVICES = {
    dialect: [
        msgspec.convert({"name": "house", "dialect": dialect, **message["device"]}, Device)
        for message in recorded(dialect)[:2]
    ]
    for dialect in DIALECTS
}


@given(payload=st.binary(max_size=400), retained=st.booleans())
def test_any_bytes_on_any_topic_are_decoded_or_refused(payload: bytes, retained: bool) -> None:
    for dialect in DIALECTS:
        for device in _DEVICES[dialect]:
            decoder = dialect_of(device)
            for topic in decoder.filters():
                try:
                    said = decoder.take(topic, payload, retained, AT_NS)
                except Refused:
                    continue
                assert not (retained and said.readings)
                for reading in said.readings:
                    check_reading(reading, "house")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("abc"), inside, max_size=3),
    max_leaves=12,
)


@given(content=ANYTHING, path=st.lists(st.sampled_from(["a", "b", "c", 0, 1, 2]), max_size=5))
def test_a_path_leads_to_what_python_would_find_there(content: object, path: list[str | int]) -> None:
    expected: Any = content
    for step in path:
        try:
            expected = expected[step] if isinstance(expected, dict if isinstance(step, str) else list) else None
        except (KeyError, IndexError):
            expected = None
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    assert list(steps(written)) == path
    assert found(content, written) is expected


@given(raw=ANYTHING, value=st.sampled_from(["W", "kWh", "V", "%", "pulses", "pulses/min"]))
def test_anything_put_as_a_number_is_one_in_range_or_is_left_out(raw: object, value: str) -> None:
    measured = Measured(25_000.0)
    Value(unit=value).put(measured, raw, pulses_per_kwh=0.001)
    for metric, number in measured.values.items():
        check_reading(Reading("house", 0, {metric: number}), "house")
    assert measured.values or measured.refused or raw is None or isinstance(raw, str)


@given(st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2241, 12, 31)), st.integers(-14 * 60, 14 * 60))
def test_a_date_is_what_the_standard_library_makes_of_it(local: datetime.datetime, east_min: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=east_min))
    date = local.replace(tzinfo=zone)
    since = date - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    expected_ns = (since // datetime.timedelta(microseconds=1)) * 1000
    if expected_ns >= 1_577_836_800 * 10**9:
        assert date_ns(date.isoformat()) == expected_ns
    if east_min == 0:
        assert date_ns(date.isoformat().replace("+00:00", "Z")) == expected_ns


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", 7, "9" * 99, "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "2026-01-32T00:00:00Z"),
        *("2026-01-01T24:00:00Z", "2019-12-31T23:59:59Z", "2300-01-01T00:00:00Z", "٢٠٢٦-01-01T00:00:00Z"),
    ],
)
def test_what_is_no_date_that_can_be_meant_is_none(text: object) -> None:
    assert date_ns(text) == 0


@given(ANYTHING)
def test_a_time_in_seconds_is_one_that_the_writer_can_hold(value: object) -> None:
    assert 0 <= epoch_ns(value) < 2**63
