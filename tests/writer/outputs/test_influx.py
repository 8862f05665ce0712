"""Every point that a server can take is there, whatever it answers in between; what it can never take is set aside."""

from __future__ import annotations

import base64
import email.utils
import inspect
import logging
import math
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logs
from config.settings import Site
from reading import Clock, Quality, Record
from tests.peers.fakes import InfluxMood, RecordingInflux, Says, self_signed_certificate
from tests.peers.influxd import Influxd
from tests.peers.process import free_ports, wait_for
from tests.peers.victoria_metrics import VictoriaMetrics
from writer import Batch, Memo, OutputDown, OutputRefused, output_class
from writer.outputs import influx as module
from writer.outputs._http import Answer
from writer.outputs._line_protocol import LineProtocol
from writer.outputs.influx import Influx, Options

ANY_TEXT = st.text(st.characters() | st.sampled_from('\n\r\\",= %@#\t\0'), max_size=20)
VALUES = st.dictionaries(
    ANY_TEXT.filter(lambda key: key not in ("", "quality", "clock")), st.floats() | st.integers() | ANY_TEXT, max_size=4
)


_opened: list[Influx] = []


@pytest.fixture(autouse=True)
def _close_outputs() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def output(url: str, **options: Any) -> Influx:
    _opened.append(Influx(msgspec.convert({"url": url, **options}, Options), Site(), Memo()))
    return _opened[-1]


def records(count: int, at_s: int = 1_763_640_605) -> list[Record]:
    return [Record("kasa", "fridge", (at_s + n) * 10**9 + 1, {"power_w": 1.5 * n}) for n in range(count)]


def parse(line: str) -> tuple[str, dict[str, str], dict[str, float | str], int]:
    """Read a line the way the servers do: a backslash and the next character belong together."""

    def split(text: str, at: str, *, quotes: bool = False) -> list[str]:
        parts, start, place, quoted = [], 0, 0, False
        while place < len(text):
            if text[place] == "\\":
                place += 2
                continue
            if text[place] == '"' and quotes:
                quoted = not quoted
            elif text[place] == at and not quoted:
                parts.append(text[start:place])
                start = place + 1
            place += 1
        return [*parts, text[start:]]

    def plain(name: str) -> str:
        for char in ",= ":
            name = name.replace("\\" + char, char)
        return name

    assert line.endswith("\n")
    head, fields, time_ns = split(line[:-1], " ", quotes=True)
    measurement, *tags = split(head, ",")
    tag_set = {}
    for tag in tags:
        key, value = split(tag, "=")
        assert value
        tag_set[plain(key)] = plain(value)
    field_set: dict[str, float | str] = {}
    for each in split(fields, ",", quotes=True):
        key, value = split(each, "=", quotes=True)
        if value.startswith('"'):
            assert value.endswith('"')
            field_set[plain(key)] = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        else:
            field_set[plain(key)] = float(value)
    return plain(measurement), tag_set, field_set, int(time_ns)


def wire(text: str, instead: str) -> str:
    """What a text looks like at the other end: no control character, no half of a surrogate pair."""
    kept = (instead if ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" else char for char in text)
    return "".join(kept).encode("utf-8", "replace").decode("utf-8")


def name(text: str) -> str:
    """What a name looks like at the other end."""
    return wire(text, "_").replace("\\", "_").replace('"', "_")


def is_number(value: float | str) -> bool:
    try:
        return not isinstance(value, str) and math.isfinite(value)
    except OverflowError:
        return False


@given(
    source=ANY_TEXT,
    device=ANY_TEXT,
    values=VALUES,
    time_ns=st.integers(-(2**63), 2**63),
    quality=st.sampled_from(Quality),
    clock=st.sampled_from(Clock),
)
def test_a_server_reads_what_was_measured_and_nothing_else(
    source: str, device: str, values: dict, time_ns: int, quality: Quality, clock: Clock
) -> None:
    protocol = LineProtocol("electricity", "home")
    for _ in range(2):  # the second time from the templates
        line = protocol.line(Record(source, device, time_ns, values, quality, clock)).decode("utf-8")
        expected: dict[str, float | str] = {}
        for key, value in values.items():
            if isinstance(value, str):
                expected[name(key)] = wire(value, " ")
            elif is_number(value):
                expected[name(key)] = float(value)
        if not expected:
            assert line == ""
            continue
        if quality is not Quality.MEASURED:
            expected["quality"] = quality.value
        if clock is not Clock.SYNCED:
            expected["clock"] = clock.value
        assert line.count("\n") == 1
        measurement, tags, fields, at_ns = parse(line)
        assert measurement == "electricity"
        named = {"site": "home", "source": source, "device": device}
        assert tags == {key: name(value) for key, value in named.items() if value}
        assert fields == expected
        assert at_ns == time_ns


def test_a_whole_number_is_not_marked_as_an_integer() -> None:
    line = LineProtocol("electricity", "home").line(Record("pulse", "meter", 5, {"pulses": 3}))
    assert line == b"electricity,device=meter,site=home,source=pulse pulses=3 5\n"


def test_the_example_of_the_docstring_lists_every_option_with_its_default() -> None:
    lines = (inspect.getdoc(module) or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    table = tomllib.loads(example)["outputs"]["influx"]
    assert msgspec.convert(table, Options) == Options()
    assert set(table) == set(Options.__struct_fields__) - {"kind", "enabled"}


def test_it_is_the_output_that_its_file_is_named_after() -> None:
    assert output_class("influx") is Influx


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8086", "ftp://a", "http://", "http://me:pw@a", "http://a?b=c", "http://a:99999", "http://a b"],
)
def test_an_address_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": url}, Options)


# ---- real servers


def test_a_real_influxdb_has_every_point_once_although_the_batch_came_twice(influxd: Influxd) -> None:
    influxd.create("twice")
    influx = output(influxd.url, api="v1", bucket="twice")
    batch = Batch(
        [
            Record("kasa", "fridge", 1_763_640_605_123_456_789, {"power_w": 86.5, "energy_wh": 3, "state": 'a "b" \\'}),
            Record("kasa", "air con, 2=1", 1_763_640_605_123_456_789, {"power_w": 1e-07}, Quality.SIMULATED),
            Record("kasa", "fridge", 1_763_640_606_000_000_000, {"power_w": 1e300}, clock=Clock.RESTAMPED),
        ]
    )
    influx.write(batch)
    influx.write(batch)
    influx.close()
    points = influxd.points("SELECT * FROM \"electricity\" WHERE device = 'fridge'", "twice")
    tags = {"site": "home", "source": "kasa", "device": "fridge"}
    assert points == [
        {"time": 1_763_640_605_123_456_789, **tags, "power_w": 86.5, "energy_wh": 3, "state": 'a "b" \\'},
        {"time": 1_763_640_606_000_000_000, **tags, "power_w": 1e300, "clock": "restamped"},
    ]
    (other,) = influxd.points("SELECT * FROM \"electricity\" WHERE device = 'air con, 2=1'", "twice")
    assert (other["power_w"], other["quality"]) == (1e-07, "simulated")


def test_a_real_influxdb_refuses_a_conflict_of_types_and_has_all_the_others(influxd: Influxd) -> None:
    influxd.create("conflict")
    influx = output(influxd.url, api="v1", bucket="conflict")
    batch = records(100)
    batch[37] = msgspec.structs.replace(batch[37], values={"power_w": "much"})
    influx.write(Batch(batch[:1]))
    with pytest.raises(OutputRefused, match="field type conflict") as refused:
        influx.write(Batch(batch))
    influx.close()
    assert refused.value.indices == {37}
    times = [point["time"] for point in influxd.points('SELECT * FROM "electricity"', "conflict")]
    assert times == [record.time_ns for index, record in enumerate(batch) if index != 37]


def test_a_real_influxdb_has_single_pulses_in_the_schema_of_the_seed(influxd: Influxd) -> None:
    influxd.create("pulses")
    influx = output(influxd.url, api="v1", bucket="pulses")
    influx.write(Batch([Record("roof", "pv", n, {"pulse": kind}) for n, kind in enumerate(("import", "generate"))]))
    influx.close()
    points = influxd.points('SELECT * FROM "PowerPulse"', "pulses")
    assert [(point["PulseType"], point["Pulse"]) for point in points] == [("Import", 1), ("Generate", 1)]
    assert "integer" in str(influxd.query('SHOW FIELD KEYS FROM "PowerPulse"', "pulses"))
    assert influxd.points('SELECT * FROM "electricity"', "pulses") == []


def test_a_real_influxdb_1_says_which_option_to_mend(influxd: Influxd) -> None:
    with pytest.raises(OutputDown, match="404") as down:
        output(influxd.url).write(Batch(records(1)))
    assert 'set api = "v1"' in down.value.remedy
    with pytest.raises(OutputDown, match="database not found") as down:
        output(influxd.url, api="v1", bucket="nowhere").write(Batch(records(1)))
    assert "create the database 'nowhere'" in down.value.remedy


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_victoria_metrics_has_what_was_written(victoria_metrics: VictoriaMetrics, api: str) -> None:
    batch = records(500, at_s=int(time.time()) - 1000)
    influx = output(victoria_metrics.url, api=api, measurement=f"read_back_{api}")
    influx.write(Batch(batch))
    influx.close()
    selector = f'{{__name__="read_back_{api}_power_w",site="home",source="kasa",device="fridge"}}'
    (series,) = wait_for(lambda: victoria_metrics.export(selector), "the series")
    assert series["values"] == [record.values["power_w"] for record in batch]
    assert series["timestamps"] == [record.time_ns // 10**6 for record in batch]


# ---- answers


@pytest.mark.parametrize(
    ("host", "encoding"),
    [("127.0.0.1", None), ("localhost", None), ("127.1", "gzip")],  # the last as good as a name: it does not tell
)
def test_lines_are_packed_unless_they_stay_on_this_machine(host: str, encoding: str | None) -> None:
    with RecordingInflux() as server:
        influx = output(server.url.replace("127.0.0.1", host))
        influx.write(Batch(records(50)))
        influx.close()
        assert [request.headers.get("content-encoding") for request in server.requests] == [encoding]
        assert len(server.stored) == 50


def test_one_connection_serves_all_batches() -> None:
    with RecordingInflux() as server:
        influx = output(server.url)
        for record in records(20):
            influx.write(Batch([record]))
        influx.close()
        assert (server.connections, len(server.requests), len(server.stored)) == (1, 20, 20)
        assert server.requests[0].target == "/api/v2/write?org=home&bucket=PowerLogger_raw&precision=ns"


def test_a_connection_that_the_server_gave_up_is_replaced_without_a_word() -> None:
    with RecordingInflux() as server:
        influx = output(server.url)
        influx.write(Batch(records(1)))
        server.hang_up()
        influx.write(Batch(records(2)))
        influx.close()
        assert (server.connections, len(server.stored)) == (2, 2)


def test_a_path_before_the_api_and_odd_names_are_kept() -> None:
    with RecordingInflux() as server:
        influx = output(server.url + "/db/", org="my home", bucket="a/b&c")
        influx.write(Batch(records(1)))
        influx.close()
        assert server.requests[0].target == "/db/api/v2/write?org=my%20home&bucket=a%2Fb%26c&precision=ns"


def test_records_with_nothing_to_say_count_as_written_and_need_no_server() -> None:
    influx = output(f"http://127.0.0.1:{free_ports(1)[0]}")
    influx.write(Batch([Record("kasa", "fridge", 1, {"power_w": math.nan}), Record("kasa", "fridge", 1, {})]))


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_cannot_now_is_down(status: int) -> None:
    with RecordingInflux() as server:
        influx = output(server.url)
        server.then(Says(status, b"<html>busy", {"Content-Type": "text/html"}))
        with pytest.raises(OutputDown, match=str(status)) as down:
            influx.write(Batch(records(3)))
        assert (down.value.retry_after_s, down.value.remedy) == (None, "")
        influx.write(Batch(records(3)))
        influx.close()
        assert len(server.stored) == 3


def test_the_wish_of_the_server_is_told_in_seconds() -> None:
    # The date counts by the server's clock: here it is half a century behind ours.
    server_s = 300_000_000.0
    dates = {
        "Date": email.utils.formatdate(server_s, usegmt=True),
        "Retry-After": email.utils.formatdate(server_s + 90, usegmt=True),
    }
    wishes = [
        ({"Retry-After": "120"}, 120.0),
        (dates, 90.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
    ]
    for headers, expected in wishes:
        answer = Answer(429, "", {name.lower(): value for name, value in headers.items()})
        assert answer.retry_after_s == expected
    with RecordingInflux() as server:
        server.then(Says(503, b"", {"Retry-After": "7"}))
        with pytest.raises(OutputDown) as down:
            output(server.url).write(Batch(records(1)))
        assert down.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("status", "options", "told"),
    [
        (401, {}, "token_env"),
        (401, {"token_env": "TEST_TOKEN"}, "TEST_TOKEN"),
        (401, {"api": "v1", "username": "me"}, "password_env"),
        (403, {}, "bucket"),
        (404, {}, "org"),
        (404, {"api": "v1"}, "database"),
        (405, {}, "url or api"),
        (301, {}, "http://elsewhere/"),
    ],
)
def test_what_only_a_person_can_mend_is_said_in_words(
    status: int, options: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "abcdef")
    with RecordingInflux() as server:
        server.then(Says(status, b'{"code":"x","message":"no, because"}', {"Location": "http://elsewhere/"}))
        with pytest.raises(OutputDown, match="no, because") as down:
            output(server.url, **options).write(Batch(records(2)))
        assert told in down.value.remedy
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_record_that_a_server_can_never_take_is_refused_alone(status: int) -> None:
    with RecordingInflux() as server:
        server.then(Says(status, b'{"code":"invalid","message":"not this one"}'))
        with pytest.raises(OutputRefused, match="not this one") as refused:
            output(server.url).write(Batch(records(1)))
        assert refused.value.indices == {0}


@settings(max_examples=40)
@given(bad=st.sets(st.integers(0, 39)))
def test_exactly_the_bad_records_are_refused_and_all_others_are_stored(bad: set[int]) -> None:
    batch = records(40)
    batch.insert(20, Record("kasa", "fridge", 1, {}))  # has no line, so places in the batch and lines differ
    bad = {index + (index >= 20) for index in bad}
    refused: frozenset[int] = frozenset()
    with RecordingInflux() as server:
        times = {b" %d" % batch[index].time_ns for index in bad}
        server.refuses = lambda line: line[line.rindex(b" ") :] in times
        influx = output(server.url)
        try:
            influx.write(Batch(batch))
        except OutputRefused as error:
            refused = error.indices
        influx.close()
        assert refused == bad
        stored = {int(at_ns) for _, at_ns in server.stored}
        assert stored == {record.time_ns for index, record in enumerate(batch) if record.values and index not in bad}


def test_a_batch_that_is_too_large_is_halved_until_it_fits() -> None:
    with RecordingInflux() as server:
        server.most_lines = 10
        influx = output(server.url)
        influx.write(Batch(records(100)))
        influx.close()
        assert len(server.stored) == 100


def test_a_server_that_goes_down_while_the_bad_record_is_sought_gets_the_whole_batch_again() -> None:
    batch = records(8)
    with RecordingInflux() as server:
        server.refuses = lambda line: line.endswith(b" %d" % batch[5].time_ns)
        influx = output(server.url)
        server.then(Says(400), Says(204), Says(503, b"", {"Retry-After": "1"}))
        with pytest.raises(OutputDown) as down:
            influx.write(Batch(batch))
        assert down.value.retry_after_s == 1.0
        with pytest.raises(OutputRefused) as refused:
            influx.write(Batch(batch))
        influx.close()
        assert refused.value.indices == {5}
        assert len(server.stored) == 7


@pytest.mark.parametrize(
    "answer",
    [
        Says(200, b"<html>Please log in", {"Content-Type": "text/html"}),
        Says(400, b"<html>The plain HTTP request was sent to HTTPS port", {"Content-Type": "text/html"}),
        Says(400, b"Client sent an HTTP request to an HTTPS server.\n", {"Content-Type": "text/plain"}),
    ],
)
def test_what_is_no_database_neither_takes_nor_refuses_a_record(answer: Says) -> None:
    with RecordingInflux() as server:
        server.then(answer)
        with pytest.raises(OutputDown, match="no database") as down:
            output(server.url).write(Batch(records(4)))
        assert "url" in down.value.remedy


@pytest.mark.parametrize("mood", list(InfluxMood))
def test_whatever_goes_wrong_on_the_way_is_down_within_the_deadline(mood: InfluxMood) -> None:
    with RecordingInflux() as server:
        influx = output(server.url, timeout_s=0.4)
        server.then(mood)
        start_s = time.monotonic()
        with pytest.raises(OutputDown, match=server.url) as down:
            influx.write(Batch(records(50)))
        assert time.monotonic() - start_s < 3
        assert not down.value.remedy
        influx.write(Batch(records(50)))
        influx.close()
        assert len(server.stored) == 50


def test_half_a_body_after_a_whole_status_is_what_the_status_says() -> None:
    with RecordingInflux() as server:
        influx = output(server.url)
        server.then(Says(500, b"x" * 10_000_000))
        with pytest.raises(OutputDown, match=r"500: x{300}$"):
            influx.write(Batch(records(1)))
        influx.write(Batch(records(1)))
        influx.close()
        assert server.connections == 2  # nobody reads ten megabytes of complaint to keep a connection


def test_nobody_listening_is_down() -> None:
    with pytest.raises(OutputDown, match="refused"):
        output(f"http://127.0.0.1:{free_ports(1)[0]}").write(Batch(records(1)))


def test_a_server_with_a_certificate_is_believed_and_one_without_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecordingInflux(certificate=self_signed_certificate(tmp_path)) as server:
        with pytest.raises(OutputDown, match="certificate") as down:
            output(server.url).write(Batch(records(1)))
        assert "SSL_CERT_FILE" in down.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        influx = output(server.url, timeout_s=0.5)
        for record in records(3):
            influx.write(Batch([record]))
        assert len(server.stored) == 3
        server.then(InfluxMood.DRIPS)
        with pytest.raises(OutputDown, match="timed out"):
            influx.write(Batch(records(1)))
        with pytest.raises(OutputDown):
            output(server.url.replace("https", "http"), timeout_s=0.5).write(Batch(records(1)))


# ---- secrets


def test_the_token_is_sent_and_never_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", "very-secret\n")
    with RecordingInflux() as server:
        influx = output(server.url, token_env="TEST_TOKEN")
        influx.write(Batch(records(1)))
        influx.close()
        assert server.requests[0].headers["authorization"] == "Token very-secret"
    record = logging.makeLogRecord({"msg": "it said very-secret"})
    assert logs.format_line(record, journal=True).endswith(b"it said ***\n")


def test_name_and_password_are_sent_for_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSWORD", "pass word")
    with RecordingInflux() as server:
        influx = output(server.url, api="v1", username="me", password_env="TEST_PASSWORD")
        influx.write(Batch(records(1)))
        influx.close()
        login = base64.b64encode(b"me:pass word").decode()
        assert server.requests[0].headers["authorization"] == f"Basic {login}"
        assert server.requests[0].target == "/write?db=PowerLogger_raw&precision=n"


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "tökén"])
def test_a_token_that_cannot_be_one_is_told_before_anything_is_sent(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKEN", token)
    with RecordingInflux() as server:
        with pytest.raises(OutputDown, match="TEST_TOKEN") as down:
            output(server.url, token_env="TEST_TOKEN").write(Batch(records(1)))
        assert "TEST_TOKEN" in down.value.remedy
        assert not server.requests
