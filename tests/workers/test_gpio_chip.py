"""The character device: the kernel's records, the request as it is made, and every way in which it is refused.

The library is the real one, but for its `Chip`: there is no chip here. Real drivers are another test's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import SourceError, _gpio_chip
from workers._gpio import FALLING, RISING, Busy, Edge, Line, NoChip
from workers._gpio_chip import ChipEdges, decode

gpiod = pytest.importorskip("gpiod")

LINES = [
    Line(line=20, edge="falling", both=True, bias="pull_up", active_low=False),
    Line(line="EXPORT", edge="rising", both=False, bias="none", active_low=True),
]
U32 = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(st.integers(0, 2**63), st.sampled_from([RISING, FALLING]), U32, U32), max_size=20))
def test_records_come_out_as_they_went_in(edges: list[tuple[int, int, int, int]]) -> None:
    data = b"".join(struct.pack("=QIIII6I", at_ns, kind, off, 9, n, *[0] * 6) for at_ns, kind, off, n in edges)
    assert decode(data) == [Edge(*edge) for edge in edges]


@given(st.binary(max_size=500))
def test_no_bytes_make_the_decoder_fail(data: bytes) -> None:
    assert len(decode(data)) == len(data) // 48


class Request:
    """What the library returns; its descriptor is the reading end of a pipe."""

    def __init__(self) -> None:
        self.fd, self.feed = os.pipe()

    def release(self) -> None:
        os.close(self.fd)


class Chip:
    """A chip as the tests want it: labels by path, and what goes wrong."""

    labels: ClassVar[dict[str, str]] = {}
    denied: ClassVar[set[str]] = set()
    busy: ClassVar[dict[int, str | None]] = {}
    refusal: ClassVar[int] = 0
    asked: ClassVar[list[tuple[str, Any, str, int]]] = []
    requests: ClassVar[list[Request]] = []

    def __init__(self, path: str) -> None:
        self.path = path
        if path in self.denied:
            raise PermissionError(errno.EACCES, "Permission denied")
        if path not in self.labels:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    def __enter__(self) -> Chip:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_info(self) -> SimpleNamespace:
        return SimpleNamespace(label=self.labels[self.path])

    def line_offset_from_id(self, line: int | str) -> int:
        if isinstance(line, int):
            if line >= 54:
                raise ValueError("line offset of out range")
            return line
        if line != "EXPORT":
            raise OSError(errno.ENOENT, "No such file or directory")
        return 26

    def get_line_info(self, offset: int) -> SimpleNamespace:
        return SimpleNamespace(used=offset in self.busy, consumer=self.busy.get(offset))

    def request_lines(self, config: dict[int, Any], consumer: str, event_buffer_size: int) -> Request:
        if self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.asked.append((self.path, config, consumer, event_buffer_size))
        self.requests.append(request := Request())
        return request


@pytest.fixture
def chips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Chip]]:
    class Chips(Chip):
        labels: ClassVar[dict[str, str]] = {}
        denied: ClassVar[set[str]] = set()
        busy: ClassVar[dict[int, str | None]] = {}
        asked: ClassVar[list[tuple[str, Any, str, int]]] = []
        requests: ClassVar[list[Request]] = []

    def add(number: int, label: str) -> str:
        path = tmp_path / f"gpiochip{number}"
        path.touch()
        Chips.labels[str(path)] = label
        return str(path)

    Chips.add = staticmethod(add)  # type: ignore[attr-defined]
    monkeypatch.setattr(gpiod, "Chip", Chips)
    monkeypatch.setattr(_gpio_chip, "_DEVICES", tmp_path)
    yield Chips
    for request in Chips.requests:
        with suppress(OSError):
            os.close(request.feed)


def opened(chip: str = "auto", lines: list[Line] | None = None) -> ChipEdges:
    edges = ChipEdges(chip, lines or LINES, "wattherd pulse")
    edges.open()
    return edges


def refused(chip: str = "auto", lines: list[Line] | None = None) -> str:
    with pytest.raises(SourceError) as told:
        opened(chip, lines)
    return str(told.value)


def test_all_lines_are_requested_at_once_as_they_are_wanted(chips: Any) -> None:
    path = chips.add(0, "pinctrl-bcm2711")
    edges = opened()
    [(asked_path, config, consumer, size)] = chips.asked
    assert (asked_path, consumer, size, edges.offsets) == (path, "wattherd pulse", 1024, [20, 26])
    line = gpiod.line
    for offset, detect, bias, low in (
        (20, line.Edge.BOTH, line.Bias.PULL_UP, False),
        (26, line.Edge.RISING, line.Bias.DISABLED, True),
    ):
        wanted = config[offset]
        assert (wanted.direction, wanted.edge_detection, wanted.bias) == (line.Direction.INPUT, detect, bias)
        assert (wanted.active_low, wanted.event_clock) == (low, line.Clock.MONOTONIC)
        assert not wanted.debounce_period
    os.close(edges.descriptor)


def test_the_descriptor_lives_on_when_the_library_lets_go(chips: Any) -> None:
    chips.add(0, "pinctrl-rp1")
    edges = opened()
    assert edges.take() == []
    os.write(chips.requests[0].feed, struct.pack("=QIIII6I", 5, RISING, 20, 1, 1, *[0] * 6))
    assert edges.take() == [Edge(5, RISING, 20, 1)]
    os.close(edges.descriptor)


def test_the_chip_with_the_header_is_found_by_its_label(chips: Any) -> None:
    chips.add(0, "raspberrypi-exp-gpio")
    wanted = chips.add(4, "pinctrl-rp1")
    for chip in ("auto", "pinctrl-rp1", wanted):
        os.close(opened(chip).descriptor)
    assert [path for path, *_ in chips.asked] == [wanted] * 3


def test_the_only_chip_is_taken_whatever_it_is_called(chips: Any) -> None:
    chips.add(0, "gpio-sim")
    os.close(opened().descriptor)


def test_a_chip_that_cannot_be_chosen_is_told_with_what_there_is(chips: Any) -> None:
    assert "no GPIO chip on this machine" in refused()
    with pytest.raises(NoChip):
        opened("/dev/gpiochip-nowhere")
    first, second = chips.add(0, "one"), chips.add(1, "two")
    assert refused() == (
        f"none of the GPIO chips is one of a Raspberry Pi; there are: one ({first}), two ({second}); "
        'set chip = "…" to one of these labels'
    )
    assert "no GPIO chip is three; there are: one" in refused("three")


def test_without_permission_it_says_which_group(chips: Any) -> None:
    path = chips.add(0, "pinctrl-bcm2835")
    chips.denied.add(path)
    words = refused()
    assert words.startswith(f"this user may not open {path}; run: sudo usermod -aG ")
    assert "SupplementaryGroups=" in words
    with pytest.raises(SourceError) as told:
        opened()
    assert not isinstance(told.value, NoChip)  # no reason to try another backend


def test_a_busy_line_says_who_has_it(chips: Any) -> None:
    chips.add(0, "pinctrl-bcm2835")
    chips.busy[20] = "pulse-counter"
    with pytest.raises(Busy, match="line 20 is in use by pulse-counter; stop that program") as told:
        opened()
    assert told.value.consumers == {"pulse-counter"}
    chips.busy[20] = None
    assert "line 20 is in use by the kernel" in refused()
    chips.busy.clear()
    chips.busy[5] = "somebody whose line was let go meanwhile"
    assert "by whom nobody says" in refused()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EINVAL, 'correct `line` (0 to 27 are on the header of a Pi) or try bias = "none"'), (errno.EIO, "`dmesg`")],
)
def test_other_refusals_are_told(chips: Any, number: int, words: str) -> None:
    chips.add(0, "pinctrl-bcm2835")
    chips.refusal = number
    assert words in refused()


def test_a_line_that_is_named_twice_or_not_there_is_told(chips: Any) -> None:
    chips.add(0, "pinctrl-bcm2835")
    twice = [*LINES, Line(line=26, edge="rising", both=False, bias="none", active_low=False)]
    assert "two channels have the same line" in refused(lines=twice)
    for name, shown in (("IMPORT", "'IMPORT'"), (54, "54")):
        nowhere = [Line(line=name, edge="rising", both=False, bias="none", active_low=False)]
        assert f"the chip pinctrl-bcm2835 has no line {shown}; see what it has: gpioinfo" in refused(lines=nowhere)


def test_a_library_that_is_not_there_or_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    assert "gpiod is not installed; run: make install" in refused()
    monkeypatch.setitem(sys.modules, "gpiod", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "gpiod.line", SimpleNamespace(Bias=0, Clock=0, Direction=0, Edge=0))
    assert "gpiod is version 1" in refused()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO, errno.EIO])
def test_a_chip_that_is_gone_is_an_error(chips: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    chips.add(0, "pinctrl-bcm2835")
    edges = opened()

    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_gpio_chip.os, "read", fail)
    with pytest.raises(SourceError, match="the GPIO chip went away"):
        edges.take()
    os.close(edges.descriptor)


def test_levels_are_told_as_pulses_have_them_or_not_at_all(chips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chips.add(0, "pinctrl-bcm2835")
    edges = opened()
    assert edges.levels() == []  # a pipe knows of none
    asked = []

    def answer(descriptor: int, request: int, values: bytes) -> bytes:
        asked.append((descriptor, request, struct.unpack("=QQ", values)))
        return struct.pack("=QQ", 0b01, 0b11)

    monkeypatch.setattr(fcntl, "ioctl", answer)
    assert edges.levels() == [False, False]  # high, where a pulse is low; low, where a pulse is high
    assert asked == [(edges.descriptor, 0xC010B40F, (0, 0b11))]
    os.close(edges.descriptor)
