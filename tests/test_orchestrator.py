"""The door as a user finds it: what each command says, with which status it ends, and that it never falls over."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

import workers
import writer
from commands._configuration import catalog
from config.lines import Place, line_numbers
from config.load import load
from config.settings import Settings, Table
from config.words import dotted

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(path.stem for path in (ROOT / "commands").glob("[!_]*.py"))


def orchestrator(*words: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "orchestrator.py", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return done


GOOD = """
[site]
data_dir = "{folder}/var"
[sources.house]
kind = "simulated"
[sources.meter]
kind = "esp32_http"
[[sources.meter.devices]]
name = "esp32-meter"
[outputs.csv]
[outputs.graphite]
[outputs.influx]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(GOOD.format(folder=tmp_path))
    return file


def test_check_of_a_good_configuration_says_what_it_holds_and_starts_nothing(site: Path) -> None:
    done = orchestrator("check", "--config", site)
    assert done.returncode == 0
    assert f"{site}: good. 2 sources, 8 devices, 3 outputs.\n" in done.stdout
    assert done.stderr == ""
    assert list(site.parent.iterdir()) == [site], "check leaves nothing behind, not even the data directory"


def test_check_tells_every_mistake_at_once_and_ends_with_2(site: Path) -> None:
    site.write_text(
        '[site]\nname = "my home"\n[api]\nport = 70000\n[sources.house]\nkind = "simulatet"\n'
        '[sources.meter]\nkind = "esp32_http"\nhost = "0.0.0.0"\n'
        '[outputs.influx]\ntoken_env = "NO_SUCH_TOKEN"\n[ouputs]\n'
    )
    done = orchestrator("check", "--config", site, NO_COLOR="1")
    assert done.returncode == 2
    assert done.stdout == ""
    told = done.stderr.replace(f"{site}:", "").splitlines()
    assert [line.split(":")[0] for line in told[:-1]] == ["12", "2", "4", "6", "7", "11"]
    assert 'did you mean "outputs"?' in told[0]
    assert "'my-home' would do" in told[1]
    assert "70000" in told[2]
    assert 'did you mean "simulated"?' in told[3]
    assert "NO_SUCH_TOKEN" in told[5]
    assert told[-1] == "6 mistakes in the configuration; nothing was started"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"[site", "is not valid TOML"),
        (b"\xff\xfe[\0s\0", "is not UTF-8 text"),
        (b"a = " + b"[" * 9000, "nested too deeply"),
        (b'[sources."a.b"]\nkind = "simulated"', "'a-b' would do"),
        (b"[sources.a]\nkind = 'esp32_http'", "no device is configured"),
        (b"[[sources]]\nkind = 'simulated'", "[sources]: expected a table"),
    ],
)
def test_a_mistake_ends_with_2_and_a_sentence(site: Path, content: bytes | None, words: str) -> None:
    site.unlink()
    if content is not None:
        site.write_bytes(content)
    done = orchestrator("check", "--config", site)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_run_starts_nothing_with_a_mistake_in_the_configuration(site: Path) -> None:
    site.write_text(GOOD.format(folder=site.parent) + "[api]\nport = 0\n")
    done = orchestrator("run", "--config", site)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "[api] port: expected a whole number >= 1, got 0" in done.stderr
    assert list(site.parent.iterdir()) == [site]


def test_a_directory_for_a_configuration_is_refused(tmp_path: Path) -> None:
    done = orchestrator("check", "--config", tmp_path)
    assert done.returncode == 2
    assert "is a directory" in done.stderr


def test_a_file_whose_name_is_no_text_can_be_checked(site: Path) -> None:
    odd = site.rename(Path(os.fsdecode(os.fsencode(site.parent) + b"/k\xfcche.toml")))
    assert orchestrator("check", "--config", odd).returncode == 0
    odd.write_text("[sit]")
    assert orchestrator("check", "--config", odd).returncode == 2


def test_check_works_from_whichever_folder_and_names_the_file_from_there(site: Path) -> None:
    done = orchestrator("check", "--config", "site.toml", cwd=site.parent)
    assert done.stdout.startswith("site.toml: good.")


def test_a_secret_of_the_env_file_never_shows(site: Path) -> None:
    with site.open("a") as file:
        file.write('[outputs.other]\nkind = "influx"\ntoken_env = "HOUSE_TOKEN_OF_THE_TEST"\nprot = 1\n')
    env = site.parent / ".env"
    env.write_text("HOUSE_TOKEN_OF_THE_TEST=s3cret-s3cret\n")
    env.chmod(0o644)
    done = orchestrator("check", "--config", site)
    assert done.returncode == 2
    assert f"run: chmod 600 {env}" in done.stderr
    env.chmod(0o600)
    again = orchestrator("check", "--config", site)
    assert [line for line in again.stderr.splitlines() if "HOUSE_TOKEN" in line] == []
    assert "s3cret" not in done.stdout + done.stderr + again.stdout + again.stderr


def test_the_demo_house_is_good() -> None:
    done = orchestrator("check", "--config", "config/demo.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("config/demo.toml: good.")


# ---- help


def test_help_of_every_command_is_whole_and_fits_a_terminal() -> None:
    """In one process: a look at each command as a user starts it would cost a second each."""
    told = {"": orchestrator("--help", COLUMNS="80").stdout, "check": orchestrator("check", "-h", COLUMNS="80").stdout}
    for command in COMMANDS:
        context = click.Context(importlib.import_module(f"commands.{command}").command, info_name=command)
        told.setdefault(command, "Usage: orchestrator.py " + context.get_help().removeprefix("Usage: "))
    for command, text in told.items():
        assert text.startswith(f"Usage: orchestrator.py {command}".rstrip())
        assert [line for line in text.splitlines() if len(line) > 80 or not line.isprintable()] == []


def test_the_list_of_commands_says_of_each_what_it_does() -> None:
    listed = orchestrator("-h", COLUMNS="80").stdout.partition("Commands:\n")[2]
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*[^.]\.$", listed, re.MULTILINE), (
            f"{command}: its first sentence is cut"
        )


@pytest.mark.parametrize(
    "words", [["chekc"], ["_house"], ["check", "--confg", "x"], ["check", "x"], ["--no"], ["example", "toaster"], []]
)
def test_what_is_no_command_or_option_ends_with_2(words: list[str]) -> None:
    done = orchestrator(*words)
    assert done.returncode == 2
    assert "Usage: orchestrator.py" in done.stdout + done.stderr


def test_who_mistypes_a_command_is_told_the_nearest() -> None:
    assert "Did you mean 'check'?" in orchestrator("chekc").stderr


# ---- example


@pytest.fixture(scope="module")
def example() -> str:
    done = orchestrator("example")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_check_accepts_the_example(example: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(example)
    done = orchestrator("check", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_has_every_option_of_every_table_with_its_default(example: str, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(example)
    house = load(tmp_path / "site.toml", catalog())
    lines = line_numbers(example)
    comments = [line.partition("#")[2] for line in ["", *example.split("\n")]]
    wrong: list[str] = []

    def compare(table: Table, place: Place) -> None:
        """A value that only shows what one may write has its default in the comment beside it."""
        for field in msgspec.structs.fields(table):
            here = (*place, field.name)
            value = getattr(table, field.name)
            if field.name == "devices":
                for number, device in enumerate(value[:1]):
                    compare(device, (*here, number))
            elif here not in lines:
                wrong.append(f"{dotted(here)} is missing")
            elif field.name != "kind" and not field.required:
                default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
                must_be_filled_in = default == ""
                if value != default and not must_be_filled_in and json.dumps(default) not in comments[lines[here]]:
                    wrong.append(f"{dotted(here)} is {value!r}, and nothing says that {default!r} is the default")

    for name in ("site", "supervise", "writer", "clock", "api"):
        compare(getattr(house, name), (name,))
    for group in ("sources", "outputs"):
        for name, table in getattr(house, group).items():
            compare(table, (group, name))
    assert wrong == []
    assert {table.kind for table in house.sources.values()} == {*workers.kinds()}
    assert {table.kind for table in house.outputs.values()} == {*writer.kinds()}
    assert {*tomllib.loads(example)} == {*Settings.__struct_fields__} - {"files", "prices", "secrets"}


def test_the_example_in_the_repository_is_current(example: str) -> None:
    file = ROOT / "config" / "example.toml"
    assert file.exists(), "config/example.toml is missing; run: make example"
    assert file.read_text() == example, "config/example.toml is out of date; run: make example"


def test_the_example_of_one_kind_is_its_part_of_the_whole(example: str) -> None:
    done = orchestrator("example", "csv")
    assert done.returncode == 0
    assert done.stdout in example
    assert tomllib.loads(done.stdout)["outputs"]["csv"]["kind"] == "csv"
    both = orchestrator("example", "mqtt").stdout
    assert {*tomllib.loads(both)} == {"sources", "outputs"}
    told = orchestrator("example", "toaster").stderr
    assert all(kind in told for kind in (*workers.kinds(), *writer.kinds()))
