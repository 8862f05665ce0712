"""`orchestrator.py verify`: a canary through each real server and back, what is wrong with its remedy, and no trace."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commands._configuration import read
from commands._doctor.packages import check_interpreter, check_packages, locks_of, pins
from graphite_helper import send
from tests.commands.bench import at_terminal, orchestrator
from tests.faults.house import House
from tests.peers.carbon import Carbon, running_carbon
from tests.peers.graphite_web import GraphiteWeb, running_graphite_web
from tests.peers.influxd import Influxd
from tests.peers.mosquitto import running_mosquitto
from tests.peers.process import free_ports, wait_for
from tests.peers.victoria_metrics import VictoriaMetrics

Found = dict[tuple[str, str], dict[str, Any]]


def verified(folder: Path, text: str, *words: str | Path, **environment: str) -> tuple[int, Found]:
    """What is found, by part and check; the worst where there are several."""
    file = folder / "site.toml"
    file.write_text(f'[site]\nname = "proof"\ndata_dir = "{folder}/var"\n{text}')
    done = orchestrator("verify", "--json", "--config", file, *words, environment=environment)
    assert done.stderr == "", done.stderr
    told = json.loads(done.stdout)
    assert told["status"] == done.returncode
    found: Found = {}
    for one in told["findings"]:
        found.setdefault((one["part"], one["check"]), one)
        if one["mark"] == "wrong":
            found[one["part"], one["check"]] = one
    return done.returncode, found


def test_files_get_a_canary_beside_them_and_keep_no_trace(tmp_path: Path) -> None:
    for profile in ("tidy", "machine", "energy_monitor"):
        _, found = verified(tmp_path, f'[outputs.csv]\nprofile = "{profile}"\n[outputs.history]\n')
        assert found["output csv", "canary.read"]["mark"] == "good", profile
        assert found["output history", "canary.read"]["mark"] == "good"
    assert not (tmp_path / "var").exists(), "what the house makes itself is not made here"


def test_a_house_that_runs_is_neither_disturbed_nor_fed(tmp_path: Path) -> None:
    house = House(tmp_path, "[outputs.csv]\n[outputs.history]\n", ["esp32-meter"])
    try:
        house.started()
        house.post({"device": "esp32-meter", "pulses_total": 5, "power_w": 100.0})
        done = orchestrator("verify", "--json", "--config", house.config)
        found = {(one["part"], one["check"]): one for one in json.loads(done.stdout)["findings"]}
        assert "everything measures and arrives" in found["house", "house.ready"]["what"]
        assert str(house.process.pid) in found["house", "house.ready"]["what"]  # type: ignore[union-attr]
        assert found["output csv", "canary.read"]["mark"] == found["output history", "canary.read"]["mark"] == "good"
        house.post({"device": "esp32-meter", "pulses_total": 6, "power_w": 100.0})
        assert house.stop() == 0
    finally:
        house.kill()
    written = "".join(file.read_text() for file in (house.data_dir / "csv").iterdir())
    assert "canary" not in written
    assert written.count(",pulses,") == 2
    assert "somebody changed it" not in house.log
    ledger = json.loads(orchestrator("ledger", "show", "--json", "--config", house.config).stdout)
    assert {*ledger} == {"meter/esp32-meter"}


def test_the_canary_comes_back_from_a_real_graphite_web(
    tmp_path: Path, carbon: Carbon, graphite_web: GraphiteWeb
) -> None:
    text = f'[outputs.graphite]\nport = {carbon.port}\nprefix = "verified"\n'
    _, found = verified(tmp_path, text, "--graphite-web", graphite_web.url)
    assert found["output graphite", "canary.read"]["mark"] == "good", found
    assert graphite_web.url in found["output graphite", "canary.read"]["what"]
    assert [one for one in carbon.series() if one.startswith("verified")] == ["verified.wattherd.canary.value"]


def test_the_canary_comes_back_from_the_file_and_the_rules_beside_it_are_judged(tmp_path: Path, carbon: Carbon) -> None:
    text = f'[outputs.graphite]\nport = {carbon.port}\nprefix = "filed"\n[sources.house]\nkind = "simulated"\n'
    words = ("--whisper", carbon.whisper_dir, "--graphite-conf", carbon.folder)
    _, found = verified(tmp_path, text, *words)
    assert "canary/value.wsp" in found["output graphite", "canary.read"]["what"]
    assert found["output graphite", "graphite.rules"]["mark"] == "good"


@pytest.mark.long
def test_retention_that_forgets_is_found_in_the_rules_and_by_a_real_graphite_web(tmp_path: Path) -> None:
    """Finding 1: 30 s into slots of 10 s, with carbon's own xFilesFactor of 0.5."""
    (tmp_path / "carbon").mkdir()
    schemas = "[home]\npattern = ^home\nretentions = 10s:7d,1m:30d,10m:1y\n"
    with (
        running_carbon(tmp_path / "carbon", schemas=schemas) as carbon,
        running_graphite_web(tmp_path / "web", carbon.whisper_dir, carbon.query_port) as web,
    ):
        now_s = int(time.time())
        path = "home.electricity.kasa.fridge.power_w"
        send("127.0.0.1", carbon.port, [f"{path} 80 {at_s}\n" for at_s in range(now_s - 3600, now_s, 30)], 10)
        text = f'[outputs.graphite]\nport = {carbon.port}\n[sources.kasa]\nkind = "kasa"\ninterval_s = 30\n'
        text += '[[sources.kasa.devices]]\nname = "fridge"\nhost = "10.0.0.1"\n'
        status, found = verified(tmp_path, text, "--graphite-conf", carbon.folder)
        rules = found["output graphite", "graphite.rules"]
        assert (status, rules["mark"]) == (1, "wrong")
        assert "33 % of the slots of 10 s have a value" in rules["what"]
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:  # until carbon has written what it has in memory
            status, found = verified(tmp_path, text, "--graphite-web", web.url)
            kept = found.get(("output graphite", "graphite.kept"), {})
            if kept.get("mark") == "wrong":
                break
        assert "has next to nothing in its archive of 60 s" in kept["what"], kept


@pytest.mark.long
def test_retention_that_keeps_is_seen_by_a_real_graphite_web(tmp_path: Path) -> None:
    (tmp_path / "carbon").mkdir()
    rules = {"schemas": "[home]\npattern = ^home\nretentions = 10s:7d,1m:30d,10m:1y\n"}
    rules["aggregation"] = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = average\n"
    with (
        running_carbon(tmp_path / "carbon", **rules) as carbon,
        running_graphite_web(tmp_path / "web", carbon.whisper_dir) as web,
    ):
        now_s = int(time.time())
        path = "home.electricity.kasa.fridge.power_w"
        send("127.0.0.1", carbon.port, [f"{path} 80 {at_s}\n" for at_s in range(now_s - 3600, now_s, 30)], 10)
        found: Found = {}

        def kept() -> bool:
            found.update(
                verified(tmp_path, f"[outputs.graphite]\nport = {carbon.port}\n", "--graphite-web", web.url)[1]
            )
            return found.get(("output graphite", "graphite.kept"), {}).get("mark") == "good"

        assert wait_for(kept, "the archives to be filled")


def test_without_a_way_back_it_says_so(tmp_path: Path, carbon: Carbon) -> None:
    status, found = verified(tmp_path, f"[outputs.graphite]\nport = {carbon.port}\n", "--wait", "1")
    canary = found["output graphite", "canary.read"]
    assert canary["mark"] in ("mind", "good"), "good where this machine has a graphite-web at the usual port"
    if canary["mark"] == "mind":
        assert "a canary was taken, and cannot be read back" in canary["what"]
        assert "--graphite-web URL" in canary["what_now"]
        assert status in (1, 3)


def test_the_canary_comes_back_from_a_real_influxdb_1_and_is_taken_away(tmp_path: Path, influxd: Influxd) -> None:
    influxd.create("verified")
    text = f'[outputs.influx]\nurl = "{influxd.url}"\napi = "v1"\nbucket = "verified"\n'
    _, found = verified(tmp_path, text)
    assert found["output influx", "canary.read"]["mark"] == "good", found
    assert "InfluxDB 1 1." in found["output influx", "canary.read"]["what"]
    assert ("output influx", "canary.gone") not in found
    assert influxd.query("SHOW MEASUREMENTS", "verified") == []
    assert found["output influx", "token.scope"]["what"] == "everybody may do everything"


def test_places_for_sums_that_are_missing_are_found_in_a_real_influxdb_1(tmp_path: Path, influxd: Influxd) -> None:
    text = f'[outputs.influx]\nurl = "{influxd.url}"\napi = "v1"\nbucket = "summed"\n'
    (tmp_path / "setup.toml").write_text(text)
    setup = orchestrator("influx", "setup", "--config", tmp_path / "setup.toml")
    assert setup.returncode == 0, setup.stdout + setup.stderr
    _, found = verified(tmp_path, text)
    assert found["output influx", "sums"]["mark"] == "good", found
    influxd.query('DROP RETENTION POLICY "PowerLogger_5m" ON "summed"')
    _, found = verified(tmp_path, text)
    assert found["output influx", "sums"]["mark"] == "mind"
    assert "there is no PowerLogger_5m" in found["output influx", "sums"]["what"]
    assert "influx setup" in found["output influx", "sums"]["what_now"]


def test_the_canary_comes_back_from_a_real_victoria_metrics_and_is_taken_away(
    tmp_path: Path, victoria_metrics: VictoriaMetrics
) -> None:
    _, found = verified(tmp_path, f'[outputs.influx]\nurl = "{victoria_metrics.url}"\n')
    assert found["output influx", "canary.read"]["mark"] == "good", found
    assert "VictoriaMetrics" in found["output influx", "canary.read"]["what"]
    assert victoria_metrics.export('{__name__="wattherd_canary_value"}') == []


def test_a_database_that_is_not_there_and_one_that_is_away_are_told_with_their_remedy(
    tmp_path: Path, influxd: Influxd
) -> None:
    (port,) = free_ports(1)
    text = f'[outputs.a]\nkind = "influx"\nurl = "{influxd.url}"\napi = "v1"\nbucket = "nowhere"\n'
    text += f'[outputs.b]\nkind = "influx"\nurl = "http://127.0.0.1:{port}"\n'
    text += f"[outputs.graphite]\nport = {port}\n"
    text += f"[outputs.mqtt]\nport = {port}\n"
    status, found = verified(tmp_path, text)
    assert status == 1
    sent = {part: one for (part, check), one in found.items() if check == "canary.sent"}
    assert {*sent} == {"output a", "output b", "output graphite", "output mqtt"}
    assert "create the database 'nowhere'" in sent["output a"]["what_now"]
    assert "is it running and in reach?" in sent["output b"]["what_now"]
    assert "is it running and in reach?" in sent["output graphite"]["what_now"]


@dataclass
class FakeInflux:
    """Answers as 2.x and 3.x document it, and refuses whatever they would."""

    version: str
    may_read: bool = True
    may_administer: bool = False
    lines: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any]:
        parts = urllib.parse.urlsplit(target)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(parts.query).items()}
        self.asked.append((method, parts.path))
        if parts.path == "/ping":
            return (204, None) if self.version[0] == "2" else (200, {"version": self.version, "revision": "abc"})
        if headers["Authorization"] != "Token t0ken":
            return 401, {"code": "unauthorized", "message": "unauthorized access"}
        match method, parts.path:
            case "POST", "/api/v2/write":
                assert (query["bucket"], query["precision"]) == ("PowerLogger_raw", "ns")
                self.lines += body.decode().splitlines()
                return 204, None
            case "POST", "/api/v2/query" if self.version[0] == "2":
                flux = json.loads(body)
                assert (query["org"], flux["type"]) == ("home", "flux")
                assert 'r._measurement == "wattherd_canary"' in flux["query"]
                if not self.may_read:
                    return 404, {"code": "not found", "message": "failed to initialize execute state"}
                return 200, f",result,table,_value\r\n,_result,0,{self._value}\r\n"
            case "POST", "/api/v3/query_sql" if self.version[0] == "3":
                sql = json.loads(body)
                assert (sql["db"], sql["format"]) == ("PowerLogger_raw", "json")
                return 200, [{"value": float(self._value)}]
            case "POST", "/api/v2/delete" if self.version[0] == "2":
                told = json.loads(body)
                assert told["predicate"] == '_measurement="wattherd_canary"'
                assert query == {"org": "home", "bucket": "PowerLogger_raw"}
                self.lines.clear()
                return 204, None
            case "GET", "/api/v2/authorizations" if self.version[0] == "2":
                return 200, {"authorizations": [{"id": "1"}] if self.may_administer else []}
        return 404, {"error": "not found"}

    @property
    def _value(self) -> str:
        return self.lines[-1].split(" ")[1].removeprefix("value=")


@contextmanager
def serving(fake: FakeInflux) -> Iterator[FakeInflux]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, told = fake.answer(self.command, self.path, self.headers, body)
            content = told.encode() if isinstance(told, str) else b"" if told is None else json.dumps(told).encode()
            self.send_response(status)
            if self.path == "/ping" and fake.version[0] == "2":
                self.send_header("X-Influxdb-Version", f"v{fake.version}")
            self.send_header("Content-Type", "text/csv" if isinstance(told, str) else "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield fake
        server.shutdown()


def influx(fake: FakeInflux) -> str:
    return f'[outputs.influx]\nurl = "{fake.url}"\ntoken_env = "INFLUX_TOKEN"\n'


def test_influxdb_2_is_asked_in_flux_and_its_token_is_looked_at(tmp_path: Path) -> None:
    with serving(FakeInflux("2.7.10")) as fake:
        _, found = verified(tmp_path, influx(fake), INFLUX_TOKEN="t0ken")
    assert "read back from InfluxDB 2 2.7.10" in found["output influx", "canary.read"]["what"]
    assert found["output influx", "token.scope"]["mark"] == "good"
    assert fake.lines == [], "it was taken away"
    with serving(FakeInflux("2.7.10", may_administer=True)) as fake:
        _, found = verified(tmp_path, influx(fake), INFLUX_TOKEN="t0ken")
    assert found["output influx", "token.scope"]["mark"] == "mind"
    assert "influx setup" in found["output influx", "token.scope"]["what_now"]


def test_a_token_that_may_only_write_is_enough_for_the_house(tmp_path: Path) -> None:
    with serving(FakeInflux("2.7.10", may_read=False)) as fake:
        _, found = verified(tmp_path, influx(fake), "--wait", "0.5", INFLUX_TOKEN="t0ken")
    canary = found["output influx", "canary.read"]
    assert canary["mark"] == "mind"
    assert "may not read (404" in canary["what"]
    assert "enough for the house" in canary["what_now"]


def test_a_wrong_token_is_told_and_never_shown(tmp_path: Path) -> None:
    with serving(FakeInflux("2.7.10")) as fake:
        _, found = verified(tmp_path, influx(fake), INFLUX_TOKEN="wr0ng-token")
    assert "INFLUX_TOKEN" in found["output influx", "canary.sent"]["what_now"]
    assert "wr0ng-token" not in json.dumps([*found.values()])


def test_influxdb_3_is_asked_in_sql(tmp_path: Path) -> None:
    with serving(FakeInflux("3.1.0")) as fake:
        _, found = verified(tmp_path, influx(fake), INFLUX_TOKEN="t0ken")
    assert "read back from InfluxDB 3 3.1.0" in found["output influx", "canary.read"]["what"]
    assert found["output influx", "canary.gone"]["mark"] == "note"


def test_the_canary_comes_back_from_a_real_broker_that_hears_nothing_else(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path, password=True) as broker:
        text = f'[outputs.mqtt]\nport = {broker.port}\nusername = "{broker.username}"\npassword_env = "MQTT_PASSWORD"\n'
        with broker.watch("#") as heard:
            _, found = verified(tmp_path, text, MQTT_PASSWORD=broker.password)
        assert found["output mqtt", "canary.read"]["mark"] == "good", found
        assert [(one.topic, one.retain) for one in heard] == [("wattherd/proof/wattherd/canary/value", False)]
        _, found = verified(tmp_path, text, MQTT_PASSWORD="wrong")
        assert found["output mqtt", "canary.sent"]["mark"] == "wrong"


def test_a_broker_that_lets_us_publish_and_not_listen_cannot_be_read_back(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic write wattherd/#\n")
    with running_mosquitto(tmp_path, options=(f"acl_file {tmp_path}/acl",)) as broker:
        _, found = verified(tmp_path, f"[outputs.mqtt]\nport = {broker.port}\n", "--wait", "1")
    [canary] = [one for (part, _), one in found.items() if part == "output mqtt"]
    assert canary["mark"] in ("mind", "wrong")
    assert "wattherd/" in canary["what"] + canary["what_now"]


def test_with_no_canary_nothing_is_written_anywhere(tmp_path: Path) -> None:
    with serving(FakeInflux("2.7.10")) as fake:
        _, found = verified(tmp_path, f"{influx(fake)}[outputs.csv]\n", "--no-canary", INFLUX_TOKEN="t0ken")
    assert fake.asked == []
    assert not [part for part, _ in found if part.startswith("output")]


def test_a_person_sees_each_line_with_its_next_step_in_80_columns(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "site.toml").write_text(
        f'[site]\ndata_dir = "{tmp_path}/var"\n[outputs.influx]\nurl = "http://127.0.0.1:{port}"\n'
    )
    done = orchestrator("verify", "--config", tmp_path / "site.toml")
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "output influx\n  ✗ http://127.0.0.1" in done.stdout
    assert "Next, output influx: is it running and in reach?" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    with at_terminal("verify", "--config", tmp_path / "site.toml") as terminal:
        assert terminal.end() == 1
        assert "\x1b[31m✗" in terminal.seen


def test_a_configuration_with_a_mistake_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[outputs.nothing]\n")
    done = orchestrator("verify", "--config", tmp_path / "site.toml")
    assert done.returncode == 2
    assert "there is no kind 'nothing'" in done.stderr


def test_packages_are_compared_with_their_locks(tmp_path: Path) -> None:
    lines = ("click==8.5.1 \\", "    --hash=sha256:aa", "rich==1.0 ; sys_platform == 'win32' \\", "kasa==2 \\")
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert pins((tmp_path / "a.txt").read_text()) == {"click": "8.5.1", "kasa": "2"}
    versions = {"click": "8.5.1", "kasa": "2"}
    assert [one.mark.name for one in check_packages([tmp_path / "a.txt"], versions.__getitem__)] == ["GOOD"]
    versions = {"click": "8.0", "kasa": ""}
    wrong, other = check_packages([tmp_path / "a.txt"], versions.__getitem__)
    assert (wrong.what, wrong.what_now) == ("kasa not installed", "run: make install")
    assert other.what == "click 8.0 instead of 8.5.1"


def test_the_locks_that_count_are_those_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[sources.pulse]\nkind = "pulse"\n[outputs.influx]\n')
    names = [lock.stem for lock in locks_of(read(tmp_path / "site.toml"))]
    assert names[0] == "base"
    assert "pulse" in names
    assert "kasa" not in names


@pytest.mark.parametrize(
    ("version", "in_venv", "mark"),
    [((3, 11, 2), True, "GOOD"), ((3, 10, 9), True, "WRONG"), ((3, 13, 0), False, "MIND")],
)
def test_the_interpreter_is_looked_at(version: tuple[int, ...], in_venv: bool, mark: str) -> None:
    assert check_interpreter(version, in_venv=in_venv).mark.name == mark
