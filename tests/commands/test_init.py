"""`orchestrator.py init`: what it writes can be run, what was there stays, and who ends it has changed nothing."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from commands import init
from commands._configuration import read
from commands._init_look import local_timezone, spi_places
from commands._init_text import Block, Draft, mistake_in, settled
from config.env import read_env, with_secrets
from config.load import ConfigurationError
from tests.commands.bench import ROOT, Terminal, at_terminal, orchestrator
from tests.peers.influxd import Influxd
from tests.peers.mosquitto import running_mosquitto
from tests.peers.victoria_metrics import VictoriaMetrics
from tests.workers.pzem_slave import ac, dc, plugged_in

YES = ("--yes", "--no-network")


def run_init(*words: str | Path) -> Result:
    return CliRunner().invoke(init.command, [str(word) for word in words])


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def answer(terminal: Terminal, question: str, words: str) -> None:
    terminal.expect(question)
    terminal.type(f"{words}\n")
    terminal.seen = ""


def test_an_empty_folder_becomes_a_house_that_the_check_takes(tmp_path: Path) -> None:
    target = tmp_path / "site.toml"
    done = orchestrator("init", *YES, "--config", target)
    assert done.returncode == 0, done.stderr
    assert f"Next: ./orchestrator.py check --config {target}" in done.stdout
    assert "\x1b" not in done.stdout
    assert mode(tmp_path / ".env") == 0o600
    assert mode(target) == 0o644
    check = orchestrator("check", "--config", target)
    assert check.returncode == 0, check.stderr
    assert "0 sources, 0 devices, 2 outputs" in check.stdout
    assert {*tomllib.loads(target.read_text())} == {"site", "outputs"}
    assert target.read_text().count("# ") >= 5, "it is commented"


def test_meters_on_a_serial_line_are_found_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of a newcomer: init, check, test; the line is a real pseudo-terminal with units on it."""
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(init, "_DEV", tmp_path / "dev")
    target = tmp_path / "site.toml"
    with plugged_in(tmp_path / "dev" / "ttyUSB0", {1: dc(1), 2: ac(2)}):
        done = run_init(*YES, "--config", target)
        assert done.exit_code == 0, done.output
        assert "unit 1: 017" in done.stdout
        settings = read(target)
        assert [device.name for device in settings.sources["shunts"].devices] == ["unit-1", "unit-2"]  # type: ignore[attr-defined]
        assert f"Next: ./orchestrator.py test --config {target}" in " ".join(done.stdout.split())
        test = orchestrator("test", "--config", target, "--json")
    assert test.returncode == 0, test.stdout
    assert json.loads(test.stdout)["sources"]["shunts"]["devices"]["unit-1"]["values"]["voltage_v"] == 12.6


def test_what_is_there_is_replaced_with_a_yes_only_and_kept(tmp_path: Path) -> None:
    target, env = tmp_path / "site.toml", tmp_path / ".env"
    target.write_text("# mine\n[outputs.csv]\n")
    env.write_text("# mine too\nINFLUX_TOKEN=s3cret")
    env.chmod(0o600)
    done = orchestrator("init", *YES, "--config", target)
    assert done.returncode == 1
    assert "is there already and was not changed" in done.stderr
    assert target.read_text() == "# mine\n[outputs.csv]\n"
    done = orchestrator("init", *YES, "--replace", "--config", target)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site.toml.before-init-1").read_text() == "# mine\n[outputs.csv]\n"
    assert "[outputs.history]" in target.read_text()
    assert env.read_text().startswith("# mine too\nINFLUX_TOKEN=s3cret\n")
    assert mode(env) == 0o600


def test_a_person_at_a_terminal_is_asked_and_the_secrets_go_to_the_env_file(tmp_path: Path) -> None:
    target = tmp_path / "site.toml"
    with at_terminal("init", "--no-network", "--config", target) as terminal:
        answer(terminal, "What is this place called, in one word? [home]", "our house")
        terminal.expect("'our house' is no name")
        answer(terminal, "What is this place called", "barn")
        answer(terminal, "Its time zone?", "Europe/Nowhere")
        terminal.expect("there is no time zone 'Europe/Nowhere'")
        answer(terminal, "Its time zone?", "Europe/Berlin")
        answer(terminal, "Will an ESP32 on a meter post its pulses to this machine? [y/N]", "y")
        answer(terminal, "Keep the house's own history", "y")
        answer(terminal, "Write CSV files?", "n")
        answer(terminal, "Where is Graphite's carbon", "nas:2013")
        answer(terminal, "Where is InfluxDB or VictoriaMetrics", "http://127.0.0.1:1")
        answer(terminal, "Its organisation? [home]", "")
        answer(terminal, "The bucket for raw readings? [PowerLogger_raw]", "")
        terminal.expect("A token that may write to it")
        terminal.type("to'ken-of-mine\n")
        answer(terminal, "Write ", "y")
        assert terminal.end() == 0
        assert "ken-of-mine" not in terminal.seen, "a secret is not shown"
    settings = read(target)
    assert (settings.site.name, settings.site.timezone) == ("barn", "Europe/Berlin")
    assert {*settings.sources} == {"meter"}
    assert {*settings.outputs} == {"history", "graphite", "influx"}
    assert (settings.outputs["graphite"].host, settings.outputs["graphite"].port) == ("nas", 2013)  # type: ignore[attr-defined]
    assert settings.secrets["INFLUX_TOKEN"] == "to'ken-of-mine"
    assert len(settings.secrets["METER_TOKEN"]) == 32
    assert "ken-of-mine" not in target.read_text()
    assert mode(tmp_path / ".env") == 0o600


@pytest.mark.parametrize("before", ["What is this place called", "Write CSV files?", "Write /"])
def test_who_presses_ctrl_c_has_changed_nothing(tmp_path: Path, before: str) -> None:
    target = tmp_path / "new" / "site.toml"
    with at_terminal("init", "--no-network", "--config", target) as terminal:
        for question in ("What is this place", "Its time zone", "ESP32", "history", "CSV", "carbon", "InfluxDB"):
            if before.startswith(question) or question in before:
                break
            answer(terminal, question, "")
        terminal.expect(before)
        os.kill(terminal.process.pid, 2)
        assert terminal.end() == 130
    assert list(tmp_path.iterdir()) == []


def test_meters_at_a_broker_are_found_with_the_password_that_was_typed(tmp_path: Path) -> None:
    target = tmp_path / "site.toml"
    (tmp_path / "broker").mkdir()
    with running_mosquitto(tmp_path / "broker", password=True) as broker:
        broker.publish("tele/plug1/SENSOR", b'{"ENERGY":{"Total":514.153,"Power":56,"Voltage":234}}', retain=True)
        with at_terminal("init", "--wait", "1", "--config", target) as terminal:
            for question in ("What is this place", "Its time zone"):
                answer(terminal, question, "")
            answer(terminal, "Look for plugs in the home network", "n")
            answer(terminal, "ESP32", "n")
            answer(terminal, "Where is the MQTT broker of the house?", f"127.0.0.1:{broker.port}")
            answer(terminal, "Its user, empty if it wants none", broker.username)
            terminal.expect("Its password")
            terminal.type(f"{broker.password}\n")
            answer(terminal, "Read these? [Y/n]", "")
            answer(terminal, "Show the house in Home Assistant", "y")
            for question in ("history", "CSV", "carbon", "InfluxDB", "Write "):
                answer(terminal, question, "y" if question != "carbon" and question != "InfluxDB" else " ")
            assert terminal.end() == 0, terminal.seen
        settings = read(target)
        assert settings.sources["broker"].port == settings.outputs["mqtt"].port == broker.port  # type: ignore[attr-defined]
        assert settings.secrets == {"MQTT_PASSWORD": broker.password}
        assert [device.name for device in settings.sources["broker"].devices] == ["plug1"]  # type: ignore[attr-defined]
        assert orchestrator("check", "--config", target).returncode == 0


def test_databases_are_known_by_what_they_answer(
    tmp_path: Path, influxd: Influxd, victoria_metrics: VictoriaMetrics
) -> None:
    for server, told in ((influxd, "It is InfluxDB 1."), (victoria_metrics, "Write ")):
        target = tmp_path / told[:5].strip() / "site.toml"
        with at_terminal("init", "--no-network", "--config", target) as terminal:
            for question in ("What is this place", "Its time zone", "ESP32", "history", "CSV", "carbon"):
                answer(terminal, question, "")
            answer(terminal, "InfluxDB", server.url)
            if server is influxd:
                answer(terminal, told, "spine")
            answer(terminal, "Write ", "y")
            assert terminal.end() == 0
        options = read(target).outputs["influx"]
        assert (options.api, options.bucket) == (  # type: ignore[attr-defined]
            ("v1", "spine") if server is influxd else ("v2", "PowerLogger_raw")
        )


def test_a_table_with_a_mistake_stands_there_as_a_comment_that_names_it(tmp_path: Path) -> None:
    plugs = '[sources.kasa]\nkind = "kasa"\nusername_env = "NO_SUCH_NAME"\n'
    plugs += '[[sources.kasa.devices]]\nname = "a"\nhost = "10.0.0.1"\n'
    draft = Draft("home", "Europe/London", [Block(plugs)], [Block("[outputs.csv]")])
    text, settings = settled(draft, read, tmp_path)
    assert settings.sources == {}
    assert "# Left out: [sources.kasa] username_env: the environment variable NO_SUCH_NAME is not set" in text
    assert '# name = "a"' in text
    uncommented = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if "ources.kasa]" in line or "=" in line
    )
    assert "NO_SUCH_NAME" in uncommented
    assert mistake_in("[outputs.csv]", read) == ""


def test_what_clashes_with_the_rest_of_the_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "more.toml").write_text("[outputs.csv]\nkeep_days = 3\n[site]\nname = 'other'\n")
    done = orchestrator("init", *YES, "--config", tmp_path / "site.toml")
    assert done.returncode == 2
    assert "[site] name is set already" in done.stderr
    assert not (tmp_path / "site.toml").exists()


def test_a_program_gets_one_document(tmp_path: Path) -> None:
    done = orchestrator("init", "--json", "--no-network", "--config", tmp_path / "site.toml")
    told = json.loads(done.stdout)
    assert told["written"] == [str(tmp_path / "site.toml"), str(tmp_path / ".env")]
    assert told["outputs"] == ["csv", "history"]
    assert told["next"].startswith("./orchestrator.py check")


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True), st.text("aZ9 '\"\\$#=é{}", min_size=1)))
def test_any_secret_comes_back_from_the_env_file_as_it_was(secrets: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        env = Path(folder) / ".env"
        env.write_text(with_secrets("# mine\nMINE='1'", secrets))
        env.chmod(0o600)
        problems: list[str] = []
        found = read_env(Path(folder) / "site.toml", problems)
    assert problems == []
    assert found == {"MINE": "1"} | {name: value for name, value in secrets.items() if name != "MINE"} | (
        {"MINE": "1"} if "MINE" in secrets else {}
    )


def test_the_time_zone_is_that_of_the_machine(tmp_path: Path) -> None:
    assert local_timezone(tmp_path) == "Europe/London"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/timezone").write_text("America/Toronto\n")
    assert local_timezone(tmp_path) == "America/Toronto"
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    assert local_timezone(tmp_path) == "Asia/Tokyo"


def test_clamps_are_proposed_where_there_is_spi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spidev0.1").touch()
    assert spi_places(tmp_path) == [(0, 1)]
    monkeypatch.setattr(init, "_DEV", tmp_path)
    done = run_init(*YES, "--config", tmp_path / "site.toml")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "site.toml").read_text()
    assert "# [sources.clamps]" in text
    assert "· [sources.clamps] stands there as a comment: /dev/spidev0.1 is there" in " ".join(done.stdout.split())
    alive = text.replace("# [sources", "[sources").replace("# [[", "[[")
    alive = "\n".join(line.removeprefix("# ") if " = " in line else line for line in alive.splitlines())
    (tmp_path / "alive.toml").write_text(alive)
    assert "clamps" in read(tmp_path / "alive.toml").sources


def test_a_clash_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        settled(Draft("home", "Europe/London", [Block("[outputs.csv]"), Block("[outputs.csv]")]), read, tmp_path)


def test_the_example_of_secrets_names_them_all() -> None:
    """Every variable that the documentation and `init` propose for an option that ends in _env."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "commands").glob("*.py")]
    named = {name for page in pages for name in re.findall(r'_env = "([A-Z_]+)"', page.read_text())}
    offered = set(re.findall(r"^([A-Z_]+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert offered >= named - {"BROKER_PASSWORD", "KETTLE_KEY"}, "those two are examples of names of one's own"
