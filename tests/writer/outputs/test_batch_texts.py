"""A batch that is printed at once has, to the byte, the text of its records one by one."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphite_helper import LineEncoder
from reading import METRICS, Clock, Quality, Record
from writer.outputs._csv_rows import EnergyMonitor, Tidy
from writer.outputs._line_protocol import LineProtocol

NAMES = st.sampled_from(["kasa", "", "air con,2=1", "100% %s %b", '=a"b"', "n@t\0", "Läufer\ud800", "@", "a\nb"])
METRIC = st.sampled_from([*sorted(METRICS), "", "p%b", "m\0", "@t"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
ODD = st.floats() | st.integers() | st.sampled_from(["on", "null", "1,2", '"', "%b", "import", "\ud800", ""])
# Few of each, so that records share a second and a template.
TIMES = st.integers(0, 3 * 10**9) | st.integers(1_700_000_000_000_000_000, 1_700_000_003_000_000_000)


def records(values: st.SearchStrategy) -> st.SearchStrategy[list[Record]]:
    return st.lists(
        st.builds(
            Record,
            NAMES,
            NAMES,
            TIMES,
            st.dictionaries(METRIC, values, max_size=4),
            st.sampled_from([Quality.MEASURED] * 3 + [*Quality]),
            st.sampled_from([Clock.SYNCED] * 3 + [*Clock]),
        ),
        max_size=12,
    )


PLAIN_OR_ODD = records(NUMBERS) | records(NUMBERS | ODD)


@given(PLAIN_OR_ODD)
def test_line_protocol(batch: list[Record]) -> None:
    protocol = LineProtocol("electricity", "home")
    for _ in range(2):  # the second time from the templates
        assert protocol.lines(batch) == b"".join(LineProtocol("electricity", "home").line(one) for one in batch)


@given(PLAIN_OR_ODD)
def test_graphite(batch: list[Record]) -> None:
    encoder = LineEncoder("home.electricity")
    for _ in range(2):
        one_by_one = "".join(LineEncoder("home.electricity").lines(one) for one in batch)
        assert encoder.lines_of(batch) == one_by_one.encode("ascii")


@given(PLAIN_OR_ODD)
def test_csv(batch: list[Record]) -> None:
    profile = Tidy()
    for _ in range(2):
        dated = [(one, profile.date(one.time_ns)) for one in batch]
        one_by_one = "".join(Tidy().rows(one, Tidy().date(one.time_ns)) for one in batch)
        assert profile.text(dated) == one_by_one.encode("utf-8", "replace")


@pytest.mark.parametrize("at_ns", [-1, 10**18])
def test_graphite_says_of_a_batch_what_it_says_of_a_record(at_ns: int) -> None:
    device = "d" * 250 if at_ns > 0 else "fridge"
    batch = [Record("kasa", "lamp", 10**18, {"power_w": 1.0}), Record("kasa", device, at_ns, {"power_w": 1.0})]
    with pytest.raises(ValueError, match=r"1970|characters"):
        LineEncoder("home").lines_of(batch)


@given(
    st.lists(st.integers(-(10**10), 10**10) | st.integers(1_761_440_000, 1_761_450_000), min_size=1),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Africa/Monrovia", "Australia/Lord_Howe"]),
)
def test_a_file_has_the_date_and_time_of_the_calendar(seconds: list[int], name: str) -> None:
    zone = ZoneInfo(name)
    profile = EnergyMonitor({}, zone)
    for second in seconds:
        moment = datetime.fromtimestamp(second, UTC).astimezone(zone)
        assert profile.date(second * 10**9 + 5) == (moment.date().isoformat(), moment.time().isoformat(), 5)
