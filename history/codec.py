"""How readings and buckets lie on the disk: columns of small differences, packed.

A meter says 86.5 and then 86.7, not 17 digits. So a column of numbers is kept as whole tenths, hundredths, … wherever
that gives back the very same numbers, each as its difference to the one before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate
from math import gcd
from operator import sub
from typing import Any, Final

import msgspec
from msgspec import Struct

from history.buckets import REGISTER, TEXT, Bucket, Point

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_SCALES: Final = (1, 10, 100, 1000, 10_000, 1_000_000)
_MOST_SCALED: Final = 2**53  # beyond it a float has no fractions
_PROBES: Final = 8
_PLAIN: Final = b"\x01"  # before what is not packed smaller; nothing from zlib begins so
_WORTH_PACKING: Final = 250  # bytes
_WINDOW_BITS: Final = 12

Span = tuple[int, int]


class Group(Struct, frozen=True, array_like=True, gc=False):
    """Records of one shape in the journal: `columns[i][j]` is what series[i] said at times_ns[j]."""

    series: Sequence[int]
    times_ns: Sequence[int]
    flags: Sequence[int]
    columns: Sequence[Sequence[float | int | str]]

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.series) * len(self.times_ns)


class Entry(Struct, frozen=True, array_like=True):
    """One record, as it is in the journals of before the records of one shape were kept together."""

    time_ns: int
    flags: int
    series: list[int]
    values: list[float | int | str]


class Batch(Struct, frozen=True, array_like=True):
    """What one commit brought: the numbers of the outbox's rows, first and last of each run, and their records."""

    rows: list[Span]
    entries: list[Entry] = []
    groups: list[Group] = []


_decode_batch = msgspec.msgpack.Decoder(Batch).decode


def encode_batch(batch: Batch) -> bytes:
    return sealed(_encode(batch))


def decode_batch(body: bytes) -> Batch:
    """Give back the very same batch. Raises ValueError if it is not as it was written."""
    batch = _decode_batch(unsealed(body))
    ones = [Group(one.series, [one.time_ns], [one.flags], [[value] for value in one.values]) for one in batch.entries]
    return Batch(batch.rows, [], [*ones, *batch.groups]) if ones else batch


def sealed(body: bytes) -> bytes:
    """Put a checksum before it: a flipped bit must not make another number of a number.

    >>> unsealed(sealed(b"86.5"))
    b'86.5'
    """
    return zlib.crc32(body).to_bytes(4, "big") + body


def unsealed(body: bytes) -> bytes:
    if zlib.crc32(body[4:]).to_bytes(4, "big") != body[:4]:
        raise ValueError("it is not as it was written")
    return body[4:]


def encode_points(points: Sequence[Point]) -> bytes:
    """Pack points, given in the order of time."""
    times, values, flags = zip(*points, strict=True)
    texts: list[str] = []
    if isinstance(values[0], str):
        texts = sorted(set(values))
        number = {text: index for index, text in enumerate(texts)}
        values = tuple(number[value] for value in values)
    # To the nanosecond, times are noise that no packer makes shorter.
    packed = _pack([_numbers(values), _same(flags), texts])
    return _PLAIN + sealed(_encode([_differences(_differences(times)), packed]))


def decode_points(body: bytes) -> list[Point]:
    """Give back the very same points.

    >>> points = [(10, 86.5, 0), (20, 86.7, 0), (31, 0.1, 1)]
    >>> decode_points(encode_points(points)) == points
    True
    """
    times, *columns = _unpack(body)
    values, flags, texts = _unpack(columns[0]) if len(columns) == 1 else columns  # once all of it was packed as one
    numbers = _plain_numbers(values)
    said = [texts[int(number)] for number in numbers] if texts else numbers
    return list(zip(accumulate(accumulate(times)), said, _each(flags, len(said)), strict=True))


def encode_buckets(buckets: Sequence[Bucket], start_ns: int, width_ns: int, kind: int) -> bytes:
    """Pack the buckets of the hour that begins at `start_ns`."""
    places = [(bucket.start_ns - start_ns) // width_ns for bucket in buckets]
    columns: list[Any] = [
        sum([1 << place for place in places]),
        _same([bucket.n for bucket in buckets]),
        _same([bucket.flags for bucket in buckets]),
        _differences([bucket.last_ns - bucket.start_ns for bucket in buckets]),
    ]
    if kind == TEXT:
        columns += [[bucket.total for bucket in buckets], [bucket.last for bucket in buckets]]
        return _pack(columns)
    # One after the other: they are near each other, so they share a scale and their differences are small.
    columns.append(_numbers([v for bucket in buckets for v in (bucket.least, bucket.last, bucket.most)]))
    if kind == REGISTER:
        columns += [
            _differences([bucket.first_ns - bucket.start_ns for bucket in buckets]),
            _numbers([bucket.first for bucket in buckets]),
            _same([bucket.fallen for bucket in buckets]),
        ]
    else:
        columns.append(_whole([bucket.total for bucket in buckets]))
    return _pack(columns)


def decode_buckets(body: bytes, start_ns: int, width_ns: int, kind: int) -> list[Bucket]:
    """Give back the very same buckets."""
    present, counts, flags, last_times, *columns = _unpack(body)
    starts = [start_ns + index * width_ns for index in range(present.bit_length()) if present >> index & 1]
    size = len(starts)
    rows: Any = zip(starts, _each(counts, size), _each(flags, size), accumulate(last_times), strict=True)
    if kind == TEXT:
        return [
            Bucket(start, n, total, 0.0, 0.0, start + late, text, start + late, text, 0, flag)
            for (start, n, flag, late), total, text in zip(rows, *columns, strict=True)
        ]
    numbers = _plain_numbers(columns[0])
    leasts, lasts, mosts = numbers[::3], numbers[1::3], numbers[2::3]
    if kind == REGISTER:
        firsts = zip(accumulate(columns[1]), _plain_numbers(columns[2]), _each(columns[3], size), strict=True)
        return [
            Bucket(start, n, 0, least, most, start + early, first, start + late, last, fallen, flag)
            for (start, n, flag, late), least, last, most, (early, first, fallen) in zip(
                rows, leasts, lasts, mosts, firsts, strict=True
            )
        ]
    return [
        Bucket(start, n, total, least, most, start + late, last, start + late, last, 0, flag)
        for (start, n, flag, late), least, last, most, total in zip(
            rows, leasts, lasts, mosts, _plain_whole(columns[1]), strict=True
        )
    ]


def _pack(columns: list[Any]) -> bytes:
    """Pack columns, smaller where they are so long that it pays."""
    plain = _encode(columns)
    if len(plain) < _WORTH_PACKING:
        return _PLAIN + sealed(plain)
    packer = zlib.compressobj(wbits=_WINDOW_BITS, memLevel=5)  # to make ready for more takes longer than to pack this
    return packer.compress(plain) + packer.flush()  # with a checksum of its own


def _unpack(body: bytes) -> Any:
    return _decode(unsealed(body[1:]) if body[:1] == _PLAIN else zlib.decompress(body))


def _numbers(values: Sequence[Any]) -> list[Any]:
    """Pack numbers as [scale, differences], or as they are where no scale is exact.

    >>> _numbers([86.5, 86.7, 86.4]), _numbers([1 / 3])
    ([10, [865, 2, -3]], [0, [0.3333333333333333]])
    """
    probes = values[:: len(values) // _PROBES + 1]
    for scale in _SCALES:
        if all(abs(value) * scale < _MOST_SCALED and round(value * scale) / scale == value for value in probes):
            scaled = [round(value * scale) for value in values]
            if max(scaled) < _MOST_SCALED > -min(scaled) and [number / scale for number in scaled] == list(values):
                return [scale, _differences(scaled)]
    return [0, list(values)]


def _plain_numbers(packed: list[Any]) -> list[float]:
    scale, numbers = packed
    return [number / scale for number in accumulate(numbers)] if scale else numbers


def _whole(totals: Sequence[Any]) -> list[Any]:
    """Pack amounts in millionths; those of a meter that shows tenths are all multiples of 100,000.

    >>> _whole([200_000, 500_000]), _plain_whole([100_000, [2, 3]])
    ([100000, [2, 3]], [200000, 500000])
    """
    if float in {*map(type, totals)}:
        return [0, list(totals)]
    common = gcd(*totals)
    unit = next(unit for unit in (1_000_000, 100_000, 10_000, 1000, 1) if not common % unit)
    return [unit, _differences([total // unit for total in totals])]


def _plain_whole(packed: list[Any]) -> list[Any]:
    unit, numbers = packed
    return [number * unit for number in accumulate(numbers)] if unit else numbers


def _differences(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *map(sub, numbers[1:], numbers)]


def _same(numbers: Sequence[int]) -> int | list[int]:
    """Pack one number if all are the same, which counts and flags mostly are."""
    return numbers[0] if len({*numbers}) == 1 else list(numbers)


def _each(packed: int | list[int], size: int) -> list[int]:
    return packed if isinstance(packed, list) else [packed] * size
