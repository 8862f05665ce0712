"""What holds of every command: help with an example, whole at 80 columns; mistakes end with 2; JSON is JSON."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from orchestrator import main
from tests.faults.house import House
from tests.metered import HOUR_NS, QUARTER_NS, metered
from tests.peers.process import wait_for

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "commands").glob("[!_]*.py"))


def every(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from every(inner, (*words, name))


COMMANDS = {
    words: command
    for name in NAMES
    for words, command in every(importlib.import_module(f"commands.{name}").command, (name,))
}
# Those that tell programs nothing, and why they need not.
WITHOUT_JSON = {
    "run": "it goes on until it is stopped; its api tells programs",
    "example": "it prints TOML, which is for programs already",
    "calibrate": "a dialogue, step by step",
    "key": "it shows a secret to a person, once",
    "channel": "a group",
    "influx": "a group",
    "ledger": "a group",
    "pzem": "a group",
    "service": "a group",
    "service install": "the status tells",
    "service uninstall": "the status tells",
    "influx setup": "it shows secrets to a person, once",
    "influx backfill": "the status tells",
    "influx delete-buckets": "a dialogue",
    "pzem scan": "discover modbus --json tells it",
    "pzem test": "test --json tells it",
    "pzem set-address": "a dialogue",
    "pzem set-shunt": "a dialogue",
    "pzem reset-energy": "a dialogue",
}
# What each is called with here; what stands in braces is filled in. `None`: it is asked in its own test.
CALLS: dict[str, str | None] = {
    "audit": "",
    "backup": "--to {folder}/backups",
    "bill": "plugs/fridge --from {day} --tariff main",
    "channel rename": "meter/a x",
    "channel replace": "meter/b --note new",
    "channel repurpose": "meter/c y",
    "check": "",
    "compare": None,  # tests/commands/test_compare.py; it needs two meters
    "discover": None,  # tests/commands/test_discover.py; it would call into the network of whoever tests
    "discover modbus": "--port /dev/null --units 1-1 --timeout 0.05",
    "discover i2c": "--bus 200",
    "discover gpio": "",
    "discover kasa": None,
    "discover tuya": None,
    "discover mqtt": "--port 1 --wait 1",
    "discover glow": "--port 1 --wait 1",
    "influx verify": None,  # tests/commands/test_influx.py; it needs a server
    "export": "--from {day} --out {folder}/export.csv",
    "import": "{folder}/log.csv --device 1=plugs/old",
    "init": "--no-network --replace --config {folder}/new.toml",
    "ledger learn-states": None,  # tests/commands/test_learn_states.py
    "ledger show": "",
    "ledger entries": "",
    "ledger repair": "meter/d --add-kwh 1.5",
    "ledger undo": "1",
    "ledger set-reading": "meter/d 12345.6",
    "once": None,  # tests/commands/test_once.py; with this house it would wait for a sender
    "restore": "{archive} --check",
    "status": "",
    "support": "--output {folder}/bundle.tar.gz",
    "test": "meter --wait 0.1",
    "verify": "--no-canary",
}
# Those that do not end with a next step when called so, and why.
WITHOUT_NEXT = {
    "channel rename": "it is renamed by now; tests/commands/test_ledger.py",
    "channel repurpose": "it has another purpose by now; tests/commands/test_ledger.py",
    **dict.fromkeys((name for name in CALLS if name.startswith("discover ")), "nothing is found, and why is told"),
    "ledger undo": "it is undone by now; tests/commands/test_ledger.py",
    "support": "two seconds; tests/commands/test_support.py",
    "test": "one second; tests/commands/test_test.py",
}
NO_CONFIG = ("discover", "init", "restore")


def title(words: tuple[str, ...]) -> str:
    return " ".join(words)


@pytest.mark.parametrize("words", COMMANDS, ids=title)
def test_the_help_has_an_example_that_can_be_typed_and_nothing_is_cut_at_80_columns(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At a terminal of 80 columns click leaves two free.
    shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=78, prog_name="./orchestrator.py")
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "..." not in re.sub(
        r"\[(OPTIONS|ARGS|SOURCE|DEVICE|CHANNEL|KIND|NAME)\]\.\.\.",
        "",
        shown.output.split("Usage:")[1].partition("\n\n")[2],
    )
    examples = re.findall(r"^ *Example: \./orchestrator\.py (.+)$", shown.output, re.MULTILINE)
    assert len(examples) == 1, "one example, in one line"
    typed = shlex.split(examples[0])
    assert tuple(typed[: len(words)]) == words or isinstance(COMMANDS[words], click.Group)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wattherd-backup-20261128.tar.gz").touch()
    parse(typed)


def parse(typed: list[str]) -> None:
    """Let click read a line as it would, without doing anything."""
    command: click.Command = main
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context(command.name or "", list(typed), parent=context, resilient_parsing=False)
        typed = [*context._protected_args, *context.args]
        if not typed:
            return
        found = command.get_command(context, typed[0])
        assert found, f"there is no {typed[0]}"
        command, typed = found, typed[1:]
    command.make_context(command.name or "", list(typed), parent=context)


@pytest.mark.parametrize("words", COMMANDS, ids=title)
def test_an_option_that_there_is_not_ends_with_2_and_a_sentence(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*words, "--no-such-option"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "No such option" in done.stderr
    assert "--no-such-option" in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("words", COMMANDS, ids=title)
def test_every_command_tells_programs_or_has_a_reason_not_to(words: tuple[str, ...]) -> None:
    has_json = any(option.name == "as_json" for option in COMMANDS[words].params)
    assert has_json != (title(words) in WITHOUT_JSON)
    assert has_json == (title(words) in CALLS), "CALLS says how it is called here"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that ran, has a history, and rests."""
    folder = tmp_path_factory.mktemp("house")
    tariff = '[tariffs.main]\ncurrency = "GBP"\n[[tariffs.main.periods]]\nfrom = 2020-01-01\nunit_rate_per_kwh = 0.25\n'
    house = House(folder, f"[outputs.csv]\n[outputs.history]\n{tariff}", ["a", "b", "c", "d"])
    house.started()
    try:
        for device in house.devices:
            house.post({"device": device, "power_w": 100.0, "pulses_total": 1})
        wait_for(lambda: (house.metric("wattherd_output_delivered_total", output="history") or 0) >= 4, "the readings")
        assert house.stop() == 0
    finally:
        house.kill()
    (folder / "log.csv").write_text("timestamp,watts,appliance_id\n2024-12-04 10:00:00,125.5,1\n")
    now_ns = time.time_ns() // QUARTER_NS * QUARTER_NS
    metered(house.data_dir, {"plugs/fridge": lambda _: 100.0}, now_ns - 48 * HOUR_NS, now_ns)
    yield house


@pytest.fixture(scope="module")
def archive(house: House) -> Path:
    """A backup of it."""
    assert called("backup", "--to", house.directory / "archives", "--config", house.config).exit_code == 0
    [archive] = (house.directory / "archives").glob("*.tar.gz")
    return archive


def arguments(house: House, archive: Path, name: str) -> list[str | Path]:
    yesterday = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    call = (CALLS[name] or "").format(folder=house.directory, day=yesterday, archive=archive)
    config = () if name.split()[0] in NO_CONFIG else ("--config", house.config)
    return [*name.split(), *call.split(), *config]


def called(*words: str | Path) -> Result:
    """Call a command as its process would, in this one: that is twenty times cheaper."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call is not None])
def test_json_is_one_document_and_nothing_else(house: House, archive: Path, name: str) -> None:
    done = called(*arguments(house, archive, name), "--json")
    assert done.exit_code in (0, 1, 3), done.stderr
    told = json.loads(done.stdout)
    assert isinstance(told, dict | list)
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "name", [name for name, call in CALLS.items() if call is not None and name not in WITHOUT_NEXT]
)
def test_a_command_ends_with_what_to_do_next(house: House, archive: Path, name: str) -> None:
    done = called(*arguments(house, archive, name))
    assert done.exit_code in (0, 1, 3), done.stderr
    told = done.output.strip().splitlines()
    assert re.search(r"^Next(, [^:]+)?: \S", told[-1]), told


def test_a_configuration_with_a_mistake_is_told_to_programs_too(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text("[outputs.nothing]\n[sites]\n")
    done = called("check", "--json", "--config", tmp_path / "site.toml")
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    assert told["status"] == 2
    assert len(told["mistakes"]) == 2
