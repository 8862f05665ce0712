"""An InfluxDB is set up, looked at, summed up anew and cleared away, with the words that PowerLogger's users know."""

from __future__ import annotations

import contextlib
import json
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from commands._influx_place import keep_in_env
from commands.influx import command
from config.env import read_env
from tests.peers.flux_checker import FluxChecker
from tests.peers.influx2_fake import ADMIN, Influx2, running_influx2
from tests.peers.influxd import Influxd
from tests.peers.process import free_ports
from tests.peers.victoria_metrics import VictoriaMetrics

ROOT = Path(__file__).parents[2]
BUCKETS = ("PowerLogger_raw", "PowerLogger_1m", "PowerLogger_5m", "PowerLogger_1h")
ALREADY_THERE = """✅ All PowerLogger buckets already exist!
  • PowerLogger_raw
  • PowerLogger_1m
  • PowerLogger_5m
  • PowerLogger_1h

Setup appears to be complete. Skipping bucket creation.
"""
DANGER = """⚠️  DANGER: This will DELETE all PowerLogger buckets from InfluxDB!

This action is IRREVERSIBLE and will permanently delete:
  • PowerLogger_raw  (with all historical pulse data)
  • PowerLogger_1m   (with all downsampled data)
  • PowerLogger_5m   (with all downsampled data)
  • PowerLogger_1h   (with all downsampled data)

All data in these buckets will be LOST FOREVER!

Type 'DELETE' to confirm deletion:"""


@pytest.fixture(autouse=True)
def _no_variables_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "ORG", "TOKEN", "WRITER_TOKEN", "READ_TOKEN"):
        monkeypatch.delenv(f"INFLUX_{name}", raising=False)
    for name in ("RAW_BUCKET", "B1M_BUCKET", "B5M_BUCKET", "B1H_BUCKET", "MEASUREMENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def influx2(flux: FluxChecker) -> Iterator[Influx2]:
    with running_influx2(flux) as server:
        yield server


@dataclass
class House:
    """A folder with a configuration and a `.env`, and the command as a person runs it there."""

    folder: Path

    def influx(self, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(command, [*words, "--config", str(self.folder / "site.toml")], input=typed)

    def env(self, **variables: str) -> None:
        file = self.folder / ".env"
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        file.chmod(0o600)


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., House]:
    def made(toml: str = "", **variables: str) -> House:
        (tmp_path / "site.toml").write_text(toml)
        built = House(tmp_path)
        if variables:
            built.env(**variables)
        return built

    return made


def test_with_nothing_but_the_env_file_of_powerlogger_everything_is_made(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    here = house(INFLUX_ORG="home", INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN, MEASUREMENT="PowerPulse")
    result = here.influx("setup")
    assert result.exit_code == 0, result.output
    keeps = {one["name"]: [rule["everySeconds"] for rule in one["retentionRules"]] for one in influx2.buckets.values()}
    day = 86_400
    assert keeps == {BUCKETS[0]: [30 * day], BUCKETS[1]: [90 * day], BUCKETS[2]: [365 * day], BUCKETS[3]: []}
    tasks = {one["name"]: (one["every"], one["offset"], one["status"]) for one in influx2.tasks.values()}
    assert tasks == {
        "PowerLogger_1m": ("1m", "30s", "active"),
        "PowerLogger_5m": ("5m", "1m", "active"),
        "PowerLogger_1h": ("1h", "1m", "active"),
    }
    rights = {
        token["description"].split(":")[1].split(",")[0].strip(): {
            (permission["action"], influx2.buckets[permission["resource"]["id"]]["name"])
            for permission in token["permissions"]
        }
        for token in influx2.authorizations.values()
    }
    assert rights == {
        "writes readings": {(action, name) for action in ("read", "write") for name in BUCKETS},
        "reads": {("read", name) for name in BUCKETS},
    }
    assert all(result.output.count(token["token"]) == 1 for token in influx2.authorizations.values()), "shown once"


def test_what_is_there_is_left_alone_and_said_in_the_words_of_powerlogger(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    assert here.influx("setup").exit_code == 0
    before = json.dumps([influx2.buckets, influx2.tasks, influx2.authorizations])
    calls = len(influx2.calls)
    result = here.influx("setup")
    assert result.output.startswith(ALREADY_THERE)
    assert json.dumps([influx2.buckets, influx2.tasks, influx2.authorizations]) == before
    assert {call.method for call in influx2.calls[calls:]} == {"GET"}
    assert all(token["token"] not in result.output for token in influx2.authorizations.values())


def test_what_is_missing_or_old_is_mended_and_what_keeps_another_time_is_told(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    influx2.make("PowerLogger_raw", keeps_s=7 * 86_400)
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    result = here.influx("setup")
    assert "Mind: PowerLogger_raw keeps 7 days, not 30 days; it was left as it is" in result.output
    assert "PowerLogger_1m: bucket created, keeps 90 days" in result.output
    old = next(task for task in influx2.tasks.values() if task["name"] == "PowerLogger_5m")
    old["flux"] = "// of an older version\n"
    assert "❌ task PowerLogger_5m is not the one of this version" in here.influx("verify").output
    assert "task PowerLogger_5m: brought up to date" in here.influx("setup").output
    assert "rollup.flux" in old["flux"]
    old["status"] = "inactive"
    assert "❌ task PowerLogger_5m is switched off" in here.influx("verify").output


def test_tokens_for_buckets_that_were_made_anew_are_replaced(influx2: Influx2, house: Callable[..., House]) -> None:
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    here.influx("setup")
    first = {token["token"] for token in influx2.authorizations.values()}
    influx2.buckets.pop(influx2.bucket("PowerLogger_5m")["id"])
    here.influx("setup")
    second = {token["token"] for token in influx2.authorizations.values()}
    assert len(second) == 2
    assert not first & second


def test_a_server_that_shows_no_token_twice_makes_no_difference(flux: FluxChecker, house: Callable[..., House]) -> None:
    with running_influx2(flux, hashes_tokens=True) as server:
        here = house(INFLUX_HOST=server.url, INFLUX_TOKEN=ADMIN)
        here.influx("setup")
        assert here.influx("setup").output.startswith(ALREADY_THERE)
        assert len(server.authorizations) == 2


def test_new_tokens_go_into_the_env_file_of_the_house_when_wished(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    """Although the configuration names a token that only setup makes."""
    toml = f'[outputs.influx]\nurl = "{influx2.url}"\ntoken_env = "WATTHERD_WRITES"\n'
    here = house(toml, INFLUX_TOKEN=ADMIN)
    result = here.influx("setup", "--save-tokens")
    assert result.exit_code == 0, result.output
    file = here.folder / ".env"
    kept = read_env(here.folder / "site.toml", [])
    written = {token["description"].split(":")[1][1:7]: token["token"] for token in influx2.authorizations.values()}
    assert kept == {"INFLUX_TOKEN": ADMIN, "WATTHERD_WRITES": written["writes"], "INFLUX_READ_TOKEN": written["reads,"]}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not any(token in result.output for token in written.values())


def test_keeping_a_variable_leaves_every_other_line_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nA=1\nexport TOKEN=old\nB='x y'\nTOKEN=older")
    keep_in_env(file, {"TOKEN": "new", "OTHER": "2"})
    assert file.read_text() == "# mine\nA=1\nB='x y'\nTOKEN='new'\nOTHER='2'\n"


def test_names_may_be_others_in_the_env_file_or_in_the_configuration_which_counts(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    names = {"RAW_BUCKET": "r", "B1M_BUCKET": "m", "B5M_BUCKET": "f", "B1H_BUCKET": 'h "${x}"'}
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN, **names)
    result = here.influx("setup")
    assert result.exit_code == 0, result.output
    assert {one["name"] for one in influx2.buckets.values()} == {*names.values()}
    (here.folder / "site.toml").write_text(
        f'[outputs.influx]\nurl = "{influx2.url}"\nbucket = "mine"\nbucket_1h = ""\n'
    )
    result = here.influx("setup")
    assert "Mind: RAW_BUCKET=r is not used: the configuration has bucket = 'mine'" in result.output
    assert {one["name"] for one in influx2.buckets.values()} == {
        *names.values(),
        "mine",
        "PowerLogger_1m",
        "PowerLogger_5m",
    }


@pytest.mark.parametrize("fault", ["token", "org", "down", "web page"])
@pytest.mark.parametrize("verb", [["setup"], ["delete-buckets"], ["backfill", "--from", "2026-01-01"]])
def test_whoever_cannot_connect_is_told_what_to_check(
    influx2: Influx2, house: Callable[..., House], fault: str, verb: list[str]
) -> None:
    token = "3EDgXV1TOvCk4ssy3wb" + "x" * 69
    variables = {"INFLUX_HOST": influx2.url, "INFLUX_ORG": "home", "INFLUX_TOKEN": ADMIN}
    variables |= {
        "token": {"INFLUX_TOKEN": token},
        "org": {"INFLUX_ORG": "soothill"},
        "down": {"INFLUX_HOST": f"http://127.0.0.1:{free_ports(1)[0]}"},
        "web page": {"INFLUX_HOST": f"{influx2.url}/nothing"},
    }[fault]
    if fault == "web page":
        influx2.violations = NeverMind()
    result = house(**variables).influx(*verb, typed="DELETE\n")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"""❌ ERROR: Cannot connect to InfluxDB or credentials are invalid!

Current configuration from .env:
  • Host:   {variables["INFLUX_HOST"]}
  • Org:    {variables["INFLUX_ORG"]}
  • Token:  {"3EDgXV1TOvCk4ssy3wb..." if fault == "token" else ADMIN[: len(ADMIN) // 4] + "..."}

Please check:
  1. InfluxDB server is running and accessible
  2. INFLUX_HOST is correct
  3. INFLUX_ORG matches your organization name
  4. INFLUX_TOKEN is valid and has admin permissions
"""
    )
    assert variables["INFLUX_TOKEN"] not in result.output
    assert "Traceback" not in result.output


class NeverMind(list[str]):
    """Takes note of nothing."""

    def append(self, _: str) -> None:
        pass


def test_verify_says_what_is_missing_and_the_next_step(influx2: Influx2, house: Callable[..., House]) -> None:
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    result = here.influx("verify")
    assert result.exit_code == 1
    for name in BUCKETS:
        assert f"❌ bucket {name}: is missing" in result.output
    assert "./orchestrator.py influx setup --config" in result.output
    here.influx("setup")
    result = here.influx("verify")
    assert (result.exit_code, "❌" in result.output) == (0, False)
    for name in BUCKETS:
        assert f"✓ bucket {name}: keeps " in result.output
    told = json.loads(here.influx("verify", "--json").stdout)
    assert told["good"] is True
    assert [one["what"] for one in told["seen"] if one["what"].startswith("bucket")] == [
        "bucket PowerLogger_raw: keeps 30 days",
        "bucket PowerLogger_1m: keeps 90 days",
        "bucket PowerLogger_5m: keeps 365 days",
        "bucket PowerLogger_1h: keeps for ever",
    ]


def test_verify_without_a_server_is_no_traceback(house: Callable[..., House]) -> None:
    result = house(INFLUX_HOST=f"http://127.0.0.1:{free_ports(1)[0]}", INFLUX_TOKEN=ADMIN).influx("verify")
    assert result.exit_code == 1
    assert "❌ connection to " in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("typed", ["", "\n", "delete\n", "yes\n", "DELETE it\n"])
def test_without_the_very_word_nothing_is_deleted(influx2: Influx2, house: Callable[..., House], typed: str) -> None:
    influx2.make(*BUCKETS)
    result = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN).influx("delete-buckets", typed=typed)
    assert result.exit_code != 0
    assert result.stdout.startswith(DANGER)
    assert len(influx2.buckets) == 4
    assert {call.method for call in influx2.calls} == {"GET"}


def test_deleting_takes_the_buckets_their_tasks_and_tokens_and_nothing_of_others(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    here.influx("setup")
    influx2.make("somebody else's")
    other = influx2.token(("read", "somebody else's"))
    influx2.buckets.pop(influx2.bucket("PowerLogger_5m")["id"])
    result = here.influx("delete-buckets", typed="DELETE\n")
    assert result.exit_code == 0, result.output
    assert "  • deleting PowerLogger_raw … ✓\n" in result.output
    assert "  - PowerLogger_5m: does not exist, skipped\n" in result.output
    assert "✅ All PowerLogger buckets have been deleted." in result.output
    assert [one["name"] for one in influx2.buckets.values()] == ["somebody else's"]
    assert [one["token"] for one in influx2.authorizations.values()] == [other]
    assert {one["name"] for one in influx2.tasks.values()} <= {"PowerLogger_5m"}


def test_a_backfill_asks_for_every_window_once_in_pieces(influx2: Influx2, house: Callable[..., House]) -> None:
    influx2.make("PowerLogger_raw", keeps_s=30 * 86_400)
    influx2.make(*BUCKETS[1:])
    here = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN)
    midnight_s = int(time.time()) // 86_400 * 86_400
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(midnight_s - days * 86_400)) for days in (3, 2))
    result = here.influx("backfill", "--from", first, "--to", last)
    assert result.exit_code == 0, result.output
    asked = [
        tuple(line.split(" = ")[1] for line in script.splitlines() if line.startswith(("start = ", "stop = ")))
        for script in influx2.queries
        if 'to(bucket: "PowerLogger_1h")' in script
    ]
    assert asked == [
        (f"{first}T00:00:00Z", f"{first}T06:00:00Z"),
        (f"{first}T06:00:00Z", f"{first}T12:00:00Z"),
        (f"{first}T12:00:00Z", f"{first}T18:00:00Z"),
        (f"{first}T18:00:00Z", f"{last}T00:00:00Z"),
    ]
    assert len(influx2.queries) == 12
    assert f"✓ {12 * 6 * 2} points written in 12 pieces." in result.output


def test_a_backfill_touches_no_window_whose_readings_are_gone_in_part(
    influx2: Influx2, house: Callable[..., House]
) -> None:
    influx2.make("PowerLogger_raw", keeps_s=86_400)
    influx2.make(*BUCKETS[1:])
    result = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN).influx("backfill", "--from", "2020-01-01")
    assert "Raw readings are kept for 1 days, so it begins with" in result.output
    starts = [line for script in influx2.queries for line in script.splitlines() if line.startswith("start = ")]
    earliest = time.strftime("start = %Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86_400))
    assert min(starts) >= earliest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "yesterday"), "is no date; write it like 2026-11-03"),
        (("--from", "2026-02-30"), "is no date"),
        (("--from", "2026-01-02", "--to", "2026-01-01"), "there is nothing to sum up between"),
        (("--from", "2026-01-01", "--output", "nobody"), "there is no [outputs.nobody] of kind influx"),
        ((), "Missing option '--from'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    influx2: Influx2, house: Callable[..., House], words: tuple[str, ...], told: str
) -> None:
    influx2.make(*BUCKETS)
    result = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN).influx("backfill", *words)
    assert (result.exit_code, told in result.stderr) == (2, True), result.output


def test_a_backfill_into_buckets_that_are_not_there_says_so(influx2: Influx2, house: Callable[..., House]) -> None:
    influx2.make("PowerLogger_raw")
    result = house(INFLUX_HOST=influx2.url, INFLUX_TOKEN=ADMIN).influx("backfill", "--from", "2026-01-01")
    assert result.exit_code == 1
    assert 'could not find bucket "PowerLogger_1m"; run: ./orchestrator.py influx setup' in result.stderr


def test_the_targets_of_powerlogger_are_there() -> None:
    def make(*targets: str) -> str:
        done = subprocess.run(["make", "-C", ROOT, *targets], capture_output=True, text=True, check=True)
        return done.stdout

    assert make() == make("help"), "help is the default"
    for target in ("install", "setup-influxdb", "verify", "delete-buckets", "clean", "help"):
        assert f"  make {target} " in make("help")
    assert "orchestrator.py influx setup" in make("--dry-run", "setup-influxdb")
    assert "orchestrator.py influx delete-buckets" in make("--dry-run", "delete-buckets")
    assert "rm -rf .venv" in make("--dry-run", "clean")


# ---- other servers, for real where there is one


def test_a_real_influxdb_1_is_set_up_looked_at_summed_up_and_cleared(
    influxd: Influxd, house: Callable[..., House]
) -> None:
    here = house(f'[outputs.influx]\nurl = "{influxd.url}"\napi = "v1"\nbucket = "whole house"\n')
    result = here.influx("setup")
    assert result.exit_code == 0, result.output
    policies = {
        row["name"]: (row["duration"], row["default"])
        for row in influxd.points("SHOW RETENTION POLICIES", "whole house")
    }
    assert policies.pop("autogen") == ("0s", False)
    assert policies == {
        "whole house": ("720h0m0s", True),
        "PowerLogger_1m": ("2160h0m0s", False),
        "PowerLogger_5m": ("8760h0m0s", False),
        "PowerLogger_1h": ("0s", False),
    }
    assert here.influx("setup").output.startswith("✅ All PowerLogger buckets already exist!")
    assert here.influx("verify").exit_code == 0

    begin_s = int(time.time()) // 3600 * 3600 - 4 * 3600
    lines = [
        f"electricity,device=fridge,site=home,source=kasa power_w={n % 7},energy_wh={n} {begin_s + n * 10}000000000"
        for n in range(720)
    ]
    influxd.write("whole house", "whole house", *lines)
    since = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(begin_s))
    result = here.influx("backfill", "--from", since)
    assert result.exit_code == 0, result.output
    hours = influxd.points('SELECT * FROM "PowerLogger_1h"."electricity"', "whole house")
    told = [(row["time"] // 10**9 - begin_s, row["energy_wh"], row["power_w_min"], row["power_w_max"]) for row in hours]
    assert told == [(0, 359, 0, 6), (3600, 719, 0, 6)]
    assert [row["power_w"] for row in hours] == pytest.approx(
        [sum(n % 7 for n in hour) / 360 for hour in (range(360), range(360, 720))]
    )
    minutes = influxd.points('SELECT count("power_w") FROM "PowerLogger_1m"."electricity"', "whole house")
    assert minutes[0]["count"] == 120

    influxd.query('DROP CONTINUOUS QUERY "PowerLogger_5m" ON "whole house"')
    assert "❌ continuous query PowerLogger_5m is missing" in here.influx("verify").output
    assert "continuous query PowerLogger_5m: created" in here.influx("setup").output
    result = here.influx("delete-buckets", typed="DELETE\n")
    assert result.exit_code == 0, result.output
    left = [row["name"] for row in influxd.points("SHOW RETENTION POLICIES", "whole house")]
    assert left == ["autogen"]
    assert not [
        one for one in influxd.query("SHOW CONTINUOUS QUERIES") if one["name"] == "whole house" and "values" in one
    ]


def test_a_real_influxdb_1_runs_the_continuous_queries_itself(influxd: Influxd, house: Callable[..., House]) -> None:
    """It takes a minute, because a minute has to be over."""
    here = house(f'[outputs.influx]\nurl = "{influxd.url}"\napi = "v1"\nbucket = "running"\n')
    assert here.influx("setup").exit_code == 0
    begin_s = int(time.time()) // 60 * 60 - 120
    lines = [f"electricity,device=d,site=s,source=k power_w={n} {begin_s + n * 10}000000000" for n in range(12)]
    influxd.write("running", "running", *lines)

    def summed_up() -> list[dict[str, Any]]:
        return influxd.points('SELECT "power_w", "power_w_max" FROM "PowerLogger_1m"."electricity"', "running")

    deadline_s = time.monotonic() + 80
    while len(summed_up()) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.5)
    assert [(row["time"] // 10**9, row["power_w"], row["power_w_max"]) for row in summed_up()] == [
        (begin_s, 2.5, 5),
        (begin_s + 60, 8.5, 11),
    ]


def test_an_influxdb_1_that_the_configuration_takes_for_another_is_told(
    influxd: Influxd, house: Callable[..., House]
) -> None:
    result = house(f'[outputs.influx]\nurl = "{influxd.url}"\n').influx("setup")
    assert result.exit_code == 1
    assert 'this is an InfluxDB 1.6.7~rc0; set api = "v1" in [outputs.influx]' in result.stderr


def test_a_real_victoria_metrics_needs_nothing_and_that_is_said(
    victoria_metrics: VictoriaMetrics, house: Callable[..., House]
) -> None:
    here = house(f'[outputs.influx]\nurl = "{victoria_metrics.url}"\n')
    for verb in ("setup", "verify"):
        result = here.influx(verb)
        assert result.exit_code == 0, result.output
        assert "-retentionPeriod" in result.output
    assert here.influx("delete-buckets", typed="DELETE\n").exit_code == 2


@dataclass
class Influx3:
    """What an InfluxDB 3 says of its databases."""

    databases: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def running_influx3() -> Iterator[Influx3]:
    state = Influx3()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            if self.headers.get("Authorization") != f"Bearer {ADMIN}":
                status, told = 401, b""
            elif self.path == "/ping":
                status, told = 200, b'{"version":"3.4.0","revision":"x"}'
            elif (self.command, self.path) == ("GET", "/api/v3/configure/database?format=json"):
                status, told = (
                    200,
                    json.dumps([{"iox::database": name} for name in ("_internal", *state.databases)]).encode(),
                )
            elif (self.command, self.path) == ("POST", "/api/v3/configure/database"):
                wanted = json.loads(body)
                assert wanted.keys() == {"db", "retention_period"}
                state.databases[wanted["db"]] = wanted["retention_period"]
                status, told = 200, b""
            elif self.command == "DELETE" and self.path.startswith("/api/v3/configure/database?db="):
                del state.databases[self.path.split("=")[1]]
                status, told = 200, b""
            else:
                status, told = 404, b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_DELETE = do  # noqa: N815 - as http.server wants it

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def test_of_an_influxdb_3_the_raw_database_is_made_and_the_rest_is_said(house: Callable[..., House]) -> None:
    with running_influx3() as server:
        here = house(f'[outputs.influx]\nurl = "{server.url}"\n', INFLUX_TOKEN=ADMIN)
        result = here.influx("setup")
        assert result.exit_code == 0, result.output
        assert server.databases == {"PowerLogger_raw": "30d"}
        assert "InfluxDB 3 runs no Flux" in result.output
        assert here.influx("verify").exit_code == 0
        assert here.influx("setup").output.startswith(
            "✅ All PowerLogger buckets already exist!\n  • PowerLogger_raw\n"
        )
        here.influx("delete-buckets", typed="DELETE\n")
        assert server.databases == {}
        here.env(INFLUX_TOKEN="wrong")
        assert here.influx("setup").exit_code == 1
