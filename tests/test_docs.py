"""What the documents say can be done: every configuration in them is one, every command exists, every link leads on."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

import orchestrator
from commands._configuration import catalog
from config.interface import Api
from config.load import ConfigurationError, load
from config.settings import ClockRules, Site, Supervise, Writer

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")],
    key=lambda page: str(page.relative_to(ROOT)),
)
PAGES = [page for page in PAGES if "node_modules" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text_of(name), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name in a page, as the usual renderers make it from the headings."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    broken = []
    prose = re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(link)
    assert broken == []


# ---- commands


def command_lines(text: str) -> list[str]:
    """Every call of orchestrator.py that is written as code."""
    code = re.findall(r"^ *```(?:sh|console|text)?\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    code += re.findall(r"^(?:    |\t)(.*)$", text, re.MULTILINE)
    code += re.findall(r"`([^`\n]+)`", text)
    found = []
    for line in (line for block in code for line in block.splitlines()):
        for call in re.findall(r"(?:^|[\s/])orchestrator\.py ([a-z][^|;&`]*)", line):
            found.append(re.split(r"\s+#|\s>|\s<|\s2>", call)[0].strip().rstrip(",."))
    return found


def flaw_of(line: str) -> str:
    """Say what in a call does not exist."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    context: Any = click.Context(orchestrator.main)
    command: click.Command = orchestrator.main
    called = ""
    while words and isinstance(command, click.Group):
        word = words[0]
        if word.startswith("-") or "…" in word or word in ("...", "COMMAND"):
            break
        inner = command.get_command(context, word)
        if inner is None:
            return f"there is no command {word!r}" if re.fullmatch(r"[a-z][a-z-]*", word) else ""
        words, command, called = words[1:], inner, f"{called} {word}".strip()
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help"}
    for word in words:
        option = word.strip("[](),.").split("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in known:
            return f"{called} has no {option}"
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_exists(name: str) -> None:
    flaws = {line: flaw for line in command_lines(text_of(name)) if (flaw := flaw_of(line))}
    assert flaws == {}


def test_a_command_that_does_not_exist_would_be_found() -> None:
    lines = ("chekc   # it", "backup --kep 3 > x", "ledger shwo")
    page = "```sh\n" + "".join(f"./orchestrator.py {line}\n" for line in lines) + "```\n"
    assert [flaw_of(line) for line in command_lines(page)] == [
        "there is no command 'chekc'",
        "backup has no --kep",
        "there is no command 'shwo'",
    ]


def test_every_command_has_its_line_in_the_readme() -> None:
    lines = re.findall(r"^\| `\./orchestrator\.py ([a-z]+)", text_of("README.md"), re.MULTILINE)
    assert {*lines} == {*orchestrator.main.list_commands(click.Context(orchestrator.main))}


def test_every_target_of_make_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for name in NAMES:
        if name == "docs/moving.md":  # names the targets of another project too
            continue
        code = "\n".join([*blocks(name, "sh"), *re.findall(r"`([^`\n]+)`", text_of(name))])
        for call in re.findall(r"(?:^|\s)make ((?:[a-z-]+ ?)+)(?:$|\s|#)", code, re.MULTILINE):
            assert {*call.split()} <= targets, f"{name}: make {call}"


# ---- configurations


def flaws_in(block: str, tmp_path: Path) -> list[str]:
    """Say what is wrong with a configuration, or with tables out of one; what such tables lack is no flaw."""
    tables = tomllib.loads(block)
    lacking = [
        f'[sources.{source}]\nkind = "{kind_for(content["devices"][0])}"\n'
        for source, content in tables.get("sources", {}).items()
        if isinstance(content, dict) and "kind" not in content and content.get("devices")
    ]
    site = tmp_path / "site.toml"
    named = set(re.findall(r'_env = "([A-Z_0-9]+)"', block))
    (tmp_path / ".env").write_text("".join(f"{name}=long-enough-for-anything\n" for name in named))
    (tmp_path / ".env").chmod(0o600)
    site.write_text("".join(lacking) + block if lacking else block)
    try:
        load(site, catalog(), merge=False, base_directory=tmp_path)
    except ConfigurationError as error:
        return [problem for problem in error.problems if not is_about_the_rest(problem)]
    return []


def kind_for(device: dict[str, Any]) -> str:
    """A kind whose devices may have these keys."""
    for kind in catalog().source_kinds():
        options = catalog().source_options(kind)
        devices = next((each for each in options.__struct_fields__ if each == "devices"), None)
        if devices and {*device} <= keys_of_devices(options):
            return kind
    return "simulated"


def keys_of_devices(options: Any) -> set[str]:
    for one in msgspec.structs.fields(options):
        if one.name == "devices":
            return {field.encode_name for field in msgspec.structs.fields(one.type.__args__[0])}
    return set()


REST = (
    "this key is missing",  # of a table that is shown in part
    "no such source",
    "is no channel",
    "has no device",
    "there is no source",
    "there is no [tariffs.",
    "cannot be read",  # a file of prices or certificates that the page tells how to get
)


def is_about_the_rest(problem: str) -> bool:
    return any(words in problem for words in REST)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "toml")])
def test_every_configuration_is_one(name: str, tmp_path: Path) -> None:
    flaws = {block: found for block in blocks(name, "toml") if (found := flaws_in(block, tmp_path))}
    assert flaws == {}


def test_a_configuration_with_a_mistake_would_be_found(tmp_path: Path) -> None:
    assert flaws_in('[outputs.graphite]\nhost = "a"\nprot = 1\n', tmp_path)
    assert flaws_in("[site]\ntimezone = 5\n", tmp_path)


TABLES = {"site": Site, "supervise": Supervise, "writer": Writer, "clock": ClockRules, "api": Api}


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_is_named_in_a_sentence_exists(name: str) -> None:
    """`[writer] commit_interval_s`, `kind = "csv"`: those in whole configurations are read above."""
    unknown = []
    for table, key in re.findall(r"`\[([a-z_.]+)\] ([a-z_]+)", text_of(name)):
        group, _, kind = table.partition(".")
        options = catalog().output_options(kind) if group == "outputs" else TABLES.get(table)
        if options is None or key not in {field.encode_name for field in msgspec.structs.fields(options)}:
            unknown.append(f"[{table}] {key}")
    kinds = {*catalog().source_kinds(), *catalog().output_kinds(), "cpu_temperature"}  # what CONTRIBUTING.md adds
    unknown += [kind for kind in re.findall(r"`kind = \"(\w+)\"", text_of(name)) if kind not in kinds]
    assert unknown == []


def test_the_configuration_of_the_readme_is_whole(tmp_path: Path) -> None:
    [block] = blocks("README.md", "toml")
    site = tmp_path / "site.toml"
    site.write_text(block)
    settings = load(site, catalog(), merge=False, base_directory=tmp_path)
    assert settings.sources
    assert settings.outputs


# ---- evidence


@pytest.fixture(scope="module")
def tests_there() -> set[str]:
    return {
        test
        for file in (ROOT / "tests").rglob("test_*.py")
        for test in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_test_that_is_named_as_evidence_exists(name: str, tests_there: set[str]) -> None:
    named = re.findall(r"`(test_\w+)`", text_of(name))
    made_up = {"test_a_killed_writer_loses_nothing"}  # in CONTRIBUTING.md, for its style
    assert [test for test in named if test not in tests_there | made_up] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_is_named_exists(name: str) -> None:
    folders = "api|bench|commands|config|deploy|docs|history|logbook|requirements|supervise|tests|workers|writer"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", text_of(name))
    of_the_reader = {"config/site.toml", "config/conf.d/", "deploy/.env"}
    of_the_reader |= {file for file in named if "cpu_temperature" in file}  # the source that CONTRIBUTING.md adds
    assert [file for file in named if not (ROOT / file).exists() and file not in of_the_reader] == []


def test_every_series_that_is_named_is_one_of_ours() -> None:
    sources = "".join(
        file.read_text()
        for folder in ("api", "deploy/prometheus")
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix in (".py", ".yml")
    )
    for name in NAMES:
        for series in re.findall(r"`wattherd_(\w+?)(?:\{[^`]*)?`", text_of(name)):
            if series != "canary":  # that is a measurement in InfluxDB
                assert series.removesuffix("_total") in sources, f"{name}: wattherd_{series}"
