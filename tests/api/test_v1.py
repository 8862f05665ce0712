"""`/api/v1` over a real history: series, stacks, energy, money, gaps and files."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec.structs import replace

from config.settings import ChannelTable, OutputTable, TariffTable
from history.queries import History
from logbook.events import Event, Gap, What
from logbook.moment import Moment, boot_id
from reading import Record
from tests.api.recorded import record
from tests.api.server import Server, served
from tests.metered import QUARTER_NS, metered
from writer.ledger import new_channel
from writer.logbook import Logbook
from writer.outbox import Outbox

HOUR_NS = 3600 * 10**9
LONDON = ZoneInfo("Europe/London")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LOADS: Mapping[str, Callable[[int], float]] = {"meter/grid": lambda _: 400.0, "plugs/fridge": lambda _: 100.0}


def quarter_ns(ago: int = 0) -> int:
    return time.time_ns() // QUARTER_NS * QUARTER_NS - ago * QUARTER_NS


@pytest.fixture
def ask(house, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Ask a house whose meter measured 400 W and whose fridge 100 W, for two days until a quarter of an hour ago."""
    metered(tmp_path, LOADS, quarter_ns(2 * 96), quarter_ns(1))
    costs = [Record("meter", "grid", quarter_ns(n), {"cost": (192 - n) * 0.025}) for n in range(192, 0, -1)]
    record(tmp_path, costs, 2)
    house.settings = replace(
        house.settings,
        outputs={"history": OutputTable()},
        channels={"meter/grid": ChannelTable(role="grid", tariff="main")},
        tariffs={"main": TariffTable(currency="GBP")},
    )
    with served(house) as server:
        server.wait_until_it_serves()

        def get(path: str, status: int = 200) -> Any:
            answer = server.ask(f"/api/v1/{path}")
            assert answer.status == status, answer.body
            assert answer.headers["cache-control"] == "no-store"
            return answer.json

        get.server = server  # type: ignore[attr-defined]
        yield get


def test_the_house_says_who_it_is(ask: Callable[[str], Any]) -> None:
    found = ask("house")
    assert TIME.fullmatch(found.pop("time"))
    version = found.pop("version")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert found == {
        "site": "cottage",
        "timezone": "Europe/London",
        "currency": "GBP",
        "simulated": False,
        "demo": False,
        "started": None,
        "hint": None,
        "history": True,
    }


def test_every_device_is_listed_with_what_there_is_of_it(ask: Callable[[str], Any]) -> None:
    fridge, grid = sorted(ask("devices")["devices"], key=lambda one: one["device"])
    assert (grid["source"], grid["device"], grid["kind"], grid["role"]) == ("meter", "grid", "esp32_http", "grid")
    assert (grid["metrics"], grid["tariff"], grid["title"]) == (["cost", "energy_wh", "power_w"], "main", None)
    assert (fridge["metrics"], fridge["role"]) == (["energy_wh", "power_w"], "part")
    assert TIME.fullmatch(fridge["first"])
    last = datetime.fromisoformat(fridge["last"])
    assert timedelta(minutes=14) < datetime.now(UTC) - last < timedelta(minutes=31)


def test_a_series_has_a_row_for_each_step_in_which_something_was_measured(ask: Callable[[str], Any]) -> None:
    found = ask("series?source=plugs&device=fridge&metric=power_w&from=-12h&step=3600")
    assert (found["metric"], found["unit"], found["kind"], found["step_s"]) == ("power_w", "W", "gauge", 3600)
    count = len(found["time_s"])
    assert 12 <= count <= 13
    assert found["time_s"] == [found["time_s"][0] + 3600 * n for n in range(count)]
    assert found["mean"] == found["min"] == found["max"] == found["last"] == [100.0] * count
    assert found["n"][1:-1] == [4] * (count - 2)
    assert found["increase"] == [None] * count
    energy = ask("series?source=plugs&device=fridge&metric=energy_wh&from=-12h&step=3600")
    assert (energy["kind"], energy["unit"]) == ("register", "Wh")
    assert energy["increase"][1:-1] == [100.0] * (count - 2)
    assert energy["mean"] == [None] * len(energy["time_s"])


def test_the_step_is_chosen_so_that_a_chart_can_be_drawn(ask: Callable[[str], Any]) -> None:
    for days, step_s in ((1, 300), (2, 600), (30, 7200)):
        assert ask(f"series?source=plugs&device=fridge&metric=power_w&from=-{days}d")["step_s"] == step_s


def test_times_may_be_written_in_many_ways(ask: Callable[[str], Any]) -> None:
    from_ns = quarter_ns(96)
    at = datetime.fromtimestamp(from_ns / 1e9, UTC)
    local = at.astimezone(LONDON)
    path = "series?source=plugs&device=fridge&metric=power_w&step=900&to=now&from="
    wanted = ask(f"{path}{from_ns // 10**9}")
    assert len(wanted["time_s"]) in (95, 96)
    for text in (f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%dT%H:%M:%S}%2B00:00", f"{local:%Y-%m-%dT%H:%M:%S}"):
        assert ask(path + text) == wanted


def test_a_stack_has_every_device_on_one_axis(ask: Callable[[str], Any]) -> None:
    found = ask("series/stack?from=-6h&step=900")
    assert (found["metric"], found["unit"], found["step_s"]) == ("power_w", "W", 900)
    assert [(one["source"], one["device"], one["role"]) for one in found["series"]] == [
        ("meter", "grid", "grid"),
        ("plugs", "fridge", "part"),
    ]
    for one, watts in zip(found["series"], (400.0, 100.0), strict=True):
        assert one["mean"] == [watts] * len(found["time_s"])
    assert ask("series/stack?metric=voltage_v")["series"] == []


def test_a_step_in_which_one_device_said_nothing_is_null_and_not_zero(house, tmp_path: Path) -> None:
    silent = {"plugs/fridge": [range(quarter_ns(8), quarter_ns(4))]}
    metered(tmp_path, LOADS, quarter_ns(16), quarter_ns(1), silent=silent)
    house.settings = replace(house.settings, outputs={"history": OutputTable()})
    with served(house) as server:
        server.wait_until_it_serves()
        found = server.ask("/api/v1/series/stack?from=-4h&step=900").json
        _, fridge = found["series"]
        assert fridge["mean"].count(None) == 4
        series = server.ask("/api/v1/series?source=plugs&device=fridge&metric=power_w&from=-4h&step=900").json
        assert len(series["time_s"]) == len(found["time_s"]) - 4


def test_energy_is_told_by_local_periods_of_the_house_and_of_each_channel(ask: Callable[[str], Any]) -> None:
    found = ask("energy?by=hour&from=-10h")
    assert (found["by"], found["timezone"], found["currency"]) == ("hour", "Europe/London", "GBP")
    assert len(found["periods"]) == 11
    for period in found["periods"]:
        start, end = (datetime.fromisoformat(period[edge]) for edge in ("start", "end"))
        assert end - start == timedelta(hours=1)
        assert start.utcoffset() == start.astimezone(LONDON).utcoffset()
    assert found["house"]["of"] == ["meter/grid"]
    assert found["house"]["energy_wh"][:-2] == [400.0] * 9
    assert found["house"]["export_wh"] == [None] * 11
    assert found["house"]["estimated"][:-2] == [False] * 9
    assert found["house"]["cost"][:-2] == pytest.approx([0.1] * 9)
    grid, fridge = found["channels"]
    assert (grid["device"], grid["role"], grid["metric"]) == ("grid", "grid", "energy_wh")
    assert fridge["energy_wh"][:-2] == [100.0] * 9
    assert fridge["cost"] == [None] * 11
    whole = sum(wh for wh in ask("energy?by=day&from=-3d")["house"]["energy_wh"] if wh is not None)
    assert whole == pytest.approx(400 * 191 / 4)


def test_energy_of_one_channel_alone(ask: Callable[[str], Any]) -> None:
    found = ask("energy?by=day&source=plugs&device=fridge")
    assert [one["device"] for one in found["channels"]] == ["fridge"]
    assert ask("energy?source=plugs&device=fridg", 404) == {  # type: ignore[call-arg]
        "error": 'there is no energy of plugs/fridg; did you mean "plugs/fridge"?'
    }


def test_money_is_told_where_there_is_a_tariff(ask: Callable[[str], Any]) -> None:
    found = ask("cost?by=day&from=-3d")
    [channel] = found["channels"]
    assert (channel["source"], channel["device"]) == ("meter", "grid")
    assert channel["cost"] == found["house"]["cost"]
    assert sum(cost for cost in channel["cost"] if cost is not None) == pytest.approx(191 * 0.025)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("series", 422, "source: field required; see /docs"),
        ("series?source=plugs&device=fridge&metric=POWER", 422, "metric: "),
        ("series?source=plugs&device=../x&metric=power_w", 422, "device: "),
        ("series?source=plugs&device=fridge&metric=powr_w", 404, "there is no metric powr_w of plugs/fridge; did you "),
        ("series?source=plugs&device=frige&metric=power_w", 404, "there is no history of plugs/frige; did you mean "),
        ("series?source=plugs&device=fridge&metric=power_w&from=gestern", 422, "'gestern' is no time; write "),
        (
            "series?source=plugs&device=fridge&metric=power_w&from=99999999999",
            422,
            "'99999999999' is beyond all history",
        ),
        ("series?source=plugs&device=fridge&metric=power_w&from=0001-01-01", 422, "'0001-01-01' is "),
        ("series?source=plugs&device=fridge&metric=power_w&from=now&to=-1h", 422, "from now is not before to -1h"),
        ("series?source=plugs&device=fridge&metric=power_w&step=0", 422, "step: "),
        ("series?source=plugs&device=fridge&metric=power_w&step=1&from=-1d", 422, "step 1 would be 86,400 steps, more"),
        ("energy?by=century", 422, "by: "),
        ("energy?by=hour&from=-100d", 422, "these are 2,400 periods, more than 1,000; ask by=day, or for a shorter"),
        ("gaps?since=x", 422, "since: 'x' is no time"),
        ("download.csv?device=tv", 404, "there is no history of …/tv/…; /api/v1/devices lists what there is"),
        ("download.csv?from=-3650d&step=60", 422, "step 60 would be more than 2,000,000 rows; make it longer"),
        ("nothing", 404, "there is no /api/v1/nothing; /links lists what there is"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_plain_words(ask: Any, path: str, status: int, words: str) -> None:
    found = ask(path, status)
    assert [*found] == ["error"]
    assert found["error"].startswith(words)


@pytest.mark.parametrize(
    "path", ["series?source=a&device=b&metric=power_w", "series/stack", "energy", "cost", "download.csv"]
)
def test_a_house_without_a_history_says_what_to_add(house, path: str) -> None:
    with served(house) as server:
        server.wait_until_it_serves()
        answer = server.ask(f"/api/v1/{path}")
        assert (answer.status, answer.json["error"]) == (
            404,
            "this house keeps no history; add [outputs.history] to the configuration",
        )
        found = server.ask("/api/v1/house").json
        assert found["history"] is False
        assert found["hint"]["command"] == "./orchestrator.py example history"


def test_a_history_that_cannot_be_read_is_told_and_comes_back(house, tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database" * 1000)
    house.settings = replace(house.settings, outputs={"history": OutputTable()})
    with served(house) as server:
        server.wait_until_it_serves()
        answer = server.ask("/api/v1/energy")
        assert answer.status == 503
        assert answer.json["error"].startswith("the history cannot be read: ")
        assert server.ask("/api/v1/live").status == 200
        (tmp_path / "history.db").unlink()
        metered(tmp_path, LOADS, quarter_ns(8), quarter_ns(1))
        assert server.ask("/api/v1/energy").status == 200


# ---- files


def rows_of(answer: Any) -> list[list[str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    return [*csv.reader(io.StringIO(answer.body.decode()))]


def test_every_reading_comes_once_in_a_download(ask: Any, tmp_path: Path) -> None:
    server: Server = ask.server
    header, *rows = rows_of(server.ask("/api/v1/download.csv?from=-3d"))
    assert header == ["time", "source", "device", "metric", "n", "mean", "min", "max", "last", "increase"]
    powers = [row for row in rows if row[2:4] == ["fridge", "power_w"]]
    assert len(powers) == 192
    assert len({row[0] for row in powers}) == 192
    assert powers[0][4:] == ["1", "100", "100", "100", "100", ""]
    assert {(row[1], row[2], row[3]) for row in rows} == {
        ("meter", "grid", "cost"),
        ("meter", "grid", "energy_wh"),
        ("meter", "grid", "power_w"),
        ("plugs", "fridge", "energy_wh"),
        ("plugs", "fridge", "power_w"),
    }
    assert len(rows_of(server.ask("/api/v1/download.csv?from=-3d&metric=power_w&device=fridge"))) == 193


@pytest.mark.parametrize("step_s", [900, 7000, 13, 3600, 86_400])
def test_no_step_of_a_download_comes_twice_and_none_is_missing(ask: Any, tmp_path: Path, step_s: int) -> None:
    query = f"source=plugs&device=fridge&metric=power_w&step={step_s}"
    _, *rows = rows_of(ask.server.ask(f"/api/v1/download.csv?from=-3d&{query}"))
    times = [row[0] for row in rows]
    assert times == sorted({*times})
    assert sum(int(row[4]) for row in rows) == 192


def test_old_steps_that_are_kept_no_finer_come_once_too(house, tmp_path: Path) -> None:
    start_ns = quarter_ns(96 * 500) // HOUR_NS * HOUR_NS
    for row, from_ns in enumerate((start_ns, quarter_ns(96)), 1):
        record(
            tmp_path,
            [Record("plugs", "fridge", from_ns + n * QUARTER_NS, {"power_w": 100.0}) for n in range(96)],
            row,
        )
    house.settings = replace(house.settings, outputs={"history": OutputTable()})
    with served(house) as server:
        server.wait_until_it_serves()
        for step in ("33", "raw", "auto", "1000"):
            _, *rows = rows_of(server.ask(f"/api/v1/download.csv?from={start_ns // 10**9}&step={step}&to=now"))
            times = [row[0] for row in rows]
            assert times == sorted({*times}), step
            assert sum(int(row[4]) for row in rows) == 192, step


def test_a_text_is_nothing_that_a_spreadsheet_reckons_with(house, tmp_path: Path) -> None:
    evil = '=HYPERLINK("http://evil.example","x")'
    record(tmp_path, [Record("plugs", "fridge", time.time_ns() - 10**9, {"state": evil})])
    house.settings = replace(house.settings, outputs={"history": OutputTable()})
    with served(house) as server:
        server.wait_until_it_serves()
        _, [*_, last, _] = rows_of(server.ask("/api/v1/download.csv"))
        assert last == f"'{evil}"


def test_a_long_download_lets_others_be_answered_meanwhile(house, tmp_path: Path) -> None:
    start_ns = time.time_ns() - 20 * 3600 * 10**9
    for hour in range(20):
        seconds = range(hour * 3600, hour * 3600 + 3600)
        record(
            tmp_path,
            [Record("plugs", "fridge", start_ns + n * 10**9, {"power_w": float(n)}) for n in seconds],
            hour + 1,
        )
    house.settings = replace(house.settings, outputs={"history": OutputTable()})
    with served(house) as server:
        server.wait_until_it_serves()
        with server.connect() as download:
            download.sendall(b"GET /api/v1/download.csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert download.recv(1000).startswith(b"HTTP/1.1 200")  # and now nobody takes the rest
            beat = house.row("api", "api")["beat_ns"]
            for _ in range(5):
                started_s = time.monotonic()
                assert server.ask("/api/v1/live").status == 200
                assert time.monotonic() - started_s < 2
            deadline_s = time.monotonic() + 5
            while house.row("api", "api")["beat_ns"] == beat:
                assert time.monotonic() < deadline_s, "the heartbeat stands still"
                time.sleep(0.05)


# ---- gaps


def outbox_with(folder: Path, events: list[Event], gaps: list[Gap], seen: dict[str, Moment]) -> None:
    outbox = Outbox(folder / "outbox.db", reserve_bytes=0, quota_bytes=10**8)
    with closing(sqlite3.connect(folder / "outbox.db")) as connection:
        Logbook(connection).note(events)
        Logbook(connection)._insert("silence", [(one.channel, *one.last, *one.next) for one in gaps])
        for name, moment in seen.items():
            channel = new_channel()
            channel.seen = moment
            connection.execute(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", (f"ledger/{name}", msgspec.msgpack.encode(channel))
            )
        connection.commit()
    del outbox


class Moments:
    def __init__(self) -> None:
        self._boot, self._now = boot_id(), (time.monotonic_ns(), time.time_ns())

    def ago(self, minutes: float) -> Moment:
        return Moment(self._boot, *(ns - round(minutes * 60e9) for ns in self._now))


def test_gaps_come_with_their_cause_newest_first(house, tmp_path: Path) -> None:
    when = Moments()
    events = [
        Event(What.DOWN, "source plugs", when.ago(100), "no network; plug it in"),
        Event(What.UP, "source plugs", when.ago(80)),
        Event(What.STEP, "clock", when.ago(30), "the clock was set by +600 s", 600 * 10**9),
    ]
    gaps = [
        Gap("plugs/fridge", when.ago(100), when.ago(80)),
        Gap("plugs/fridge", when.ago(60 * 24 * 9), when.ago(60 * 24 * 8)),
        Gap("gone/tv", when.ago(50), when.ago(40)),
    ]
    outbox_with(tmp_path, events, gaps, {"plugs/fridge": when.ago(6), "plugs/tv": when.ago(0.1), "meter/a": Moment()})
    with served(house) as server:
        server.wait_until_it_serves()
        still, step, network = server.ask("/api/v1/gaps?since=-7d").json["gaps"]
        assert (still["source"], still["device"], still["to"], still["over"]) == ("plugs", "fridge", None, False)
        assert (still["cause"], still["energy_known"], still["expected"]) == ("device", False, False)
        assert 360 <= still["length_s"] < 420
        assert (step["source"], step["device"], step["cause"], step["length_s"]) == (None, None, "clock", 600.0)
        assert (network["cause"], network["length_s"], network["over"]) == ("bus", 1200.0, True)
        assert network["what"].startswith("source plugs: no network; plug it in; energy: not known: ")
        assert TIME.fullmatch(network["from"])
        assert TIME.fullmatch(network["to"])
        assert len(server.ask("/api/v1/gaps?since=-30d").json["gaps"]) == 4


def test_a_house_that_was_never_started_has_no_gaps(house) -> None:
    with served(house) as server:
        server.wait_until_it_serves()
        assert server.ask("/api/v1/gaps").json == {"gaps": []}


def test_an_outbox_that_cannot_be_read_is_told(house, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"this is no database" * 1000)
    with served(house) as server:
        server.wait_until_it_serves()
        answer = server.ask("/api/v1/gaps")
        assert (answer.status, answer.json["error"][:28]) == (503, "the outbox cannot be read: f")


@pytest.mark.long
def test_a_logbook_that_is_full_of_gaps_does_not_stop_the_process(house, tmp_path: Path) -> None:
    when = Moments()
    many = 20_000
    events = [
        Event(What.DOWN if n % 2 == 0 else What.UP, "device plugs/fridge", when.ago(9000 - n * 0.4), "it is away; wait")
        for n in range(many)
    ]
    gaps = [Gap("plugs/fridge", when.ago(9000 - n * 0.4), when.ago(9000 - n * 0.4 - 6)) for n in range(many)]
    outbox_with(tmp_path, events, gaps, {})
    with served(house) as server:
        server.wait_until_it_serves()
        house.put("api", "api", beat_ns=time.monotonic_ns())
        with server.connect() as asking:
            asking.sendall(b"GET /api/v1/gaps HTTP/1.1\r\nHost: localhost\r\n\r\n")
            asking.settimeout(60)
            longest_s, started_s = 0.0, time.monotonic()
            answered = b""
            while not answered:
                longest_s = max(longest_s, (time.monotonic_ns() - house.row("api", "api")["beat_ns"]) / 1e9)
                asking.setblocking(False)
                try:
                    answered = asking.recv(100)
                except BlockingIOError:
                    assert time.monotonic() - started_s < 60
                    time.sleep(0.02)
        assert answered.startswith(b"HTTP/1.1 200")
        assert longest_s < 10, "a parent that is patient for 30 s is far from replacing it"


def test_what_a_total_of_money_changed_follows_the_clock_on_the_wall(tmp_path: Path) -> None:
    """It may fall, where export earns; what it changed while nobody looked is spread over that time."""
    noon_ns = 1_762_862_400 * 10**9
    totals = [(0, 5.0), (1, 6.0), (2, 5.5), (5, 8.5), (6, 8.5)]
    record(tmp_path, [Record("m", "a", noon_ns + hours * HOUR_NS, {"cost": cost}) for hours, cost in totals])
    history = History(tmp_path / "history.db")
    found = history.summaries(("m", "a", "cost"), noon_ns - HOUR_NS, noon_ns + 8 * HOUR_NS, "hour", "Europe/London")
    assert [one.change for one in found] == [None, 1.0, -0.5, 1.0, 1.0, 1.0, 0.0, None, None]
    assert [one.n for one in found] == [0, 1, 1, 1, 0, 0, 1, 1, 0]
    history.close()
