"""What leaves for carbon is what carbon takes, and `send` returns only when carbon has it."""

from __future__ import annotations

import math
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphite_helper import MOST_PATH_CHARS, LineEncoder, clean_segment, metric_path, send
from reading import Quality, Record
from tests.peers.carbon import Carbon
from tests.peers.fakes import CarbonMood, RecordingCarbon
from tests.peers.process import free_ports, wait_for

_LINE = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+ \S+ \d+")
ANY_TEXT = st.text(st.characters(), max_size=30)
VALUES = st.dictionaries(ANY_TEXT, st.floats() | st.integers() | ANY_TEXT, max_size=5)


@given(ANY_TEXT)
def test_any_text_becomes_one_segment(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]+", clean_segment(text))


@given(source=ANY_TEXT, device=ANY_TEXT, values=VALUES, time_ns=st.integers(0, 2**63))
def test_every_line_has_three_words_that_carbon_takes(source: str, device: str, values: dict, time_ns: int) -> None:
    encoder = LineEncoder("home.electricity")
    for _ in range(2):  # the second time from the template
        text = encoder.lines(Record(source, device, time_ns, values))
        numbers = [v for v in values.values() if not isinstance(v, str) and _is_finite_float(v)]
        lines = text.splitlines()
        assert len(lines) == len(numbers)
        for line, number in zip(lines, numbers, strict=True):
            assert line.isascii()
            assert _LINE.fullmatch(line)
            path, value, seconds = line.split()
            assert len(path) < 200
            assert float(value) == float(number)
            assert int(seconds) == time_ns // 10**9


def _is_finite_float(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def test_a_path_that_no_file_system_takes_is_an_error_that_says_so() -> None:
    assert len(metric_path("p", "s" * 63, "d" * 63, "m" * 69)) == MOST_PATH_CHARS
    with pytest.raises(ValueError, match="has 200 characters, at most 199 fit"):
        metric_path("p", "s" * 63, "d" * 63, "m" * 70)


def test_a_time_before_1970_never_becomes_now() -> None:
    with pytest.raises(ValueError, match="1970"):
        LineEncoder("home").lines(Record("kasa", "fridge", -1, {"power_w": 1.0}))


def test_a_percent_sign_and_an_at_sign_are_only_text() -> None:
    lines = LineEncoder("home").lines(Record("k@sa", "100%r", 10**9, {"power_w": 1}))
    assert lines == "home.k_sa.100_r.power_w 1 1\n"


def test_real_carbon_has_what_was_sent(carbon: Carbon) -> None:
    now_s = int(time.time())
    send("127.0.0.1", carbon.port, f"helper.sent 42.5 {now_s}\n", 5)
    assert wait_for(lambda: carbon.fetch("helper.sent", now_s), "the whisper file") == 42.5


def test_send_returns_only_when_carbon_has_read_to_the_end() -> None:
    lines = [f"a.b {n} {n}\n" for n in range(20_000)]
    with RecordingCarbon() as carbon:
        carbon.may_close.clear()
        returned = threading.Event()

        def sender() -> None:
            send("127.0.0.1", carbon.port, lines, 20)
            returned.set()

        thread = threading.Thread(target=sender)
        thread.start()
        assert carbon.read_to_the_end.wait(10)
        assert len(carbon.lines) == len(lines)
        assert not returned.is_set()
        carbon.may_close.set()
        assert returned.wait(10)
        thread.join()


@pytest.mark.parametrize("mood", [CarbonMood.NEVER_CLOSES, CarbonMood.DRIPS])
def test_a_carbon_that_never_closes_does_not_hold_us(mood: CarbonMood) -> None:
    with RecordingCarbon(mood) as carbon:
        start_s = time.monotonic()
        with pytest.raises(TimeoutError):
            send("127.0.0.1", carbon.port, "a.b 1 1\n", 0.3)
        assert 0.3 <= time.monotonic() - start_s < 3


def test_a_carbon_that_does_not_read_does_not_hold_us() -> None:
    with RecordingCarbon(CarbonMood.LEAVES_EARLY) as carbon, pytest.raises(TimeoutError):
        send("127.0.0.1", carbon.port, b"x" * 50_000_000, 0.3)


def test_a_carbon_that_resets_has_not_read_everything() -> None:
    with RecordingCarbon(CarbonMood.RESETS) as carbon, pytest.raises(OSError, match=r"reset|not connected"):
        send("127.0.0.1", carbon.port, b"a.b 1 1\n" * 100_000, 5)


def test_a_carbon_that_closes_before_it_has_read_everything_has_not_read_everything() -> None:
    # More than its window and less than our buffer: all is sent as far as we can see, and its FIN is there.
    with RecordingCarbon(CarbonMood.LEAVES_EARLY) as carbon, pytest.raises(ConnectionAbortedError, match="before it"):
        send("127.0.0.1", carbon.port, b"a.b 1 1\n" * 20_000, 5)


def test_nobody_listening_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        send("127.0.0.1", free_ports(1)[0], "a.b 1 1\n", 5)


def test_an_impossible_host_is_an_os_error() -> None:
    with pytest.raises(OSError, match="host"):
        send("a" * 70 + ".example", 2003, "a.b 1 1\n", 5)


def test_what_is_simulated_has_it_in_its_path() -> None:
    record = Record("house", "fridge", 7 * 10**9, {"power_w": 80.0}, Quality.SIMULATED)
    encoder = LineEncoder("home.electricity")
    assert encoder.lines(record) == "home.electricity.simulated.house.fridge.power_w 80.0 7\n"
    assert ".simulated." not in encoder.lines(Record("house", "fridge", 7 * 10**9, {"power_w": 80.0}))
