"""Readings and buckets come back from the disk as they were, and it does not matter by which way a bucket was made."""

from __future__ import annotations

import random
import zlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history.buckets import (
    BOOKING,
    FIVE_MINUTES_NS,
    GAUGE,
    HOUR_NS,
    MINUTE_NS,
    REGISTER,
    TEXT,
    Point,
    absorbed,
    buckets_of,
    coarser,
    joined,
    merged,
)
from history.codec import (
    Batch,
    Group,
    decode_batch,
    decode_buckets,
    decode_points,
    encode_buckets,
    encode_points,
    sealed,
    unsealed,
)

START_NS = 1_762_862_400 * 10**9
NUMBERS = st.one_of(
    st.integers(-(10**11), 10**11).map(float),
    st.floats(-1e11, 1e11),
    st.integers(-(10**6), 10**6).map(lambda tenths: tenths / 10),
)
TEXTS = st.sampled_from(["idle", "running", "fault", "", "läuft"])


def points(values: st.SearchStrategy, most: int = 40) -> st.SearchStrategy[list[Point]]:
    """Readings of one hour, in order, each instant once."""
    point = st.tuples(st.integers(START_NS, START_NS + HOUR_NS - 1), values, st.integers(0, 15))
    return st.lists(point, min_size=1, max_size=most).map(lambda some: merged(some, []))


KINDS = [(GAUGE, NUMBERS), (REGISTER, NUMBERS), (BOOKING, NUMBERS), (TEXT, TEXTS)]


@pytest.mark.parametrize("values", [NUMBERS, TEXTS], ids=["numbers", "texts"])
@settings(max_examples=50)
@given(data=st.data())
def test_points_come_back_as_they_were(values: st.SearchStrategy, data: st.DataObject) -> None:
    some = data.draw(points(values))
    assert decode_points(encode_points(some)) == some


@pytest.mark.parametrize(("kind", "values"), KINDS)
@pytest.mark.parametrize("width_ns", [MINUTE_NS, FIVE_MINUTES_NS])
@settings(max_examples=50)
@given(data=st.data())
def test_buckets_come_back_as_they_were(
    width_ns: int, kind: int, values: st.SearchStrategy, data: st.DataObject
) -> None:
    some = buckets_of(data.draw(points(values)), width_ns, kind)
    assert decode_buckets(encode_buckets(some, START_NS, width_ns, kind), START_NS, width_ns, kind) == some


@pytest.mark.parametrize(("kind", "values"), KINDS)
@settings(max_examples=50)
@given(data=st.data())
def test_wider_buckets_are_the_same_from_narrower_ones_and_from_the_points(
    kind: int, values: st.SearchStrategy, data: st.DataObject
) -> None:
    some = data.draw(points(values))
    minutes = buckets_of(some, MINUTE_NS, kind)
    five_minutes = coarser(minutes, FIVE_MINUTES_NS, kind)
    assert five_minutes == buckets_of(some, FIVE_MINUTES_NS, kind)
    assert [joined(five_minutes, kind, START_NS)] == buckets_of(some, HOUR_NS, kind)


@given(points(NUMBERS))
def test_a_bucket_says_what_the_readings_say(some: list[Point]) -> None:
    [bucket] = buckets_of(some, HOUR_NS, GAUGE)
    values = [value for _, value, _ in some]
    assert (bucket.n, bucket.least, bucket.most) == (len(values), min(values), max(values))
    assert (bucket.last_ns, bucket.last) == some[-1][:2]
    assert bucket.total == sum(round(value * 1e6) for value in values)
    assert bucket.flags == max(bucket.flags | flags for _, _, flags in some)


@pytest.mark.parametrize("kind", [GAUGE, REGISTER, TEXT])
@settings(max_examples=50)
@given(data=st.data(), chance=st.randoms())
def test_points_that_come_after_their_bucket_was_made_change_it_as_if_they_had_been_there(
    kind: int, data: st.DataObject, chance: random.Random
) -> None:
    """A register that fell is the exception: what lies between its readings is gone."""
    some = data.draw(points(TEXTS if kind == TEXT else NUMBERS))
    if kind == REGISTER:
        some = [(at, value, flags) for (at, _, flags), value in zip(some, sorted(p[1] for p in some), strict=True)]
    shuffled = chance.sample(some, len(some))
    place = chance.randrange(len(some))
    early, late = sorted(shuffled[:place]), shuffled[place:]
    assert absorbed(buckets_of(early, MINUTE_NS, kind), late, MINUTE_NS, kind) == buckets_of(some, MINUTE_NS, kind)


def test_a_fall_within_a_bucket_is_no_negative_consumption() -> None:
    values = [10.0, 30.0, 5.0, 25.0, 20.0]
    [bucket] = buckets_of([(START_NS + at, value, 0) for at, value in enumerate(values)], HOUR_NS, REGISTER)
    assert bucket.rise == 40_000_000
    assert (bucket.first, bucket.last) == (10.0, 20.0)


def test_of_two_readings_at_one_instant_it_does_not_matter_which_came_first() -> None:
    assert merged([(5, 1.0, 0)], [(5, 2.0, 0)]) == merged([(5, 2.0, 0)], [(5, 1.0, 0)]) == [(5, 2.0, 0)]


def test_a_sensor_gone_mad_cannot_break_the_file() -> None:
    some = [(START_NS + at, 1e11 * (at % 2), 0) for at in range(3000)]
    for kind in (GAUGE, REGISTER):
        [bucket] = buckets_of(some, HOUR_NS, kind)
        assert isinstance(bucket.total, float) == (kind == GAUGE), "beyond what the file can hold as a whole number"
        assert bucket.fallen < 2**63
        hour = encode_buckets([bucket], START_NS, HOUR_NS, kind)
        assert decode_buckets(hour, START_NS, HOUR_NS, kind) == [bucket]


def test_what_an_earlier_version_packed_is_read() -> None:
    """It packed all columns as one, and records in the journal one by one."""
    body = zlib.compress(msgspec.msgpack.encode([[START_NS, -START_NS + 7, 0], [10, [865, 2, -3]], 0, []]))
    assert decode_points(body) == [(START_NS, 86.5, 0), (START_NS + 7, 86.7, 0), (START_NS + 14, 86.4, 0)]
    texts = zlib.compress(msgspec.msgpack.encode([[START_NS], [1, [1]], 1, ["idle", "running"]]))
    assert decode_points(texts) == [(START_NS, "running", 1)]
    journal = msgspec.msgpack.encode(
        [[(4, 5)], [[START_NS, 0, [1, 2], [86.5, "idle"]], [START_NS + 7, 1, [1], [86.7]]]]
    )
    assert decode_batch(sealed(journal)) == Batch(
        [(4, 5)], [], [Group([1, 2], [START_NS], [0], [[86.5], ["idle"]]), Group([1], [START_NS + 7], [1], [[86.7]])]
    )
    [minute] = buckets_of([(START_NS, 86.5, 0), (START_NS + 7, 86.7, 1)], MINUTE_NS, GAUGE)
    plain = encode_buckets([minute], START_NS, MINUTE_NS, GAUGE).removeprefix(b"\x01")
    packed = zlib.compress(unsealed(plain))
    assert decode_buckets(packed, START_NS, MINUTE_NS, GAUGE) == [minute]


@given(points(NUMBERS), st.integers(0, 10**4))
def test_a_flipped_bit_is_noticed(some: list[Point], where: int) -> None:
    body = bytearray(encode_points(some))
    body[where // 8 % len(body)] ^= 1 << where % 8
    with pytest.raises((zlib.error, ValueError)):
        decode_points(bytes(body))
