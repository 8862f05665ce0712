"""The configuration: every mistake at once, each with its place and what to do; nothing else ever happens."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from commands._configuration import catalog
from config.load import Catalog, ConfigurationError, load
from config.settings import DeviceTable, OutputTable, PolledTable, Port, Settings, SourceTable
from config.words import printable


class Relay(SourceTable, frozen=True, kw_only=True):
    label: str


class Device(DeviceTable, frozen=True, kw_only=True):
    gain: float = 1.0
    secret_env: str = ""
    relay: Relay | None = None


class Wired(PolledTable, frozen=True, kw_only=True):
    port: Port = 5000
    token_env: str = ""
    mode: Literal["fast", "slow"] = "slow"
    prefix: Annotated[str, Meta(pattern=r"\A[a-z.]+\Z")] = "home.power"
    numbers: dict[str, int] = {}  # noqa: RUF012 - msgspec gives each table its own
    spare: list[int] = []  # noqa: RUF012 - as above
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if self.port == 6666:
            raise ValueError(f"port {self.port} is not for\nus")


class Plain(OutputTable, frozen=True, kw_only=True):
    host: str = "127.0.0.1"


CATALOG = Catalog(lambda: ["wired", "wireless"], lambda _: Wired, lambda: ["paper", "plain"], lambda _: Plain)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    folder.mkdir()
    return folder / "site.toml"


def problems(file: Path) -> list[str]:
    """Every mistake, with the folder left out of what is said."""
    with pytest.raises(ConfigurationError) as caught:
        load(file, CATALOG)
    return [problem.replace(f"{file.parent}/", "") for problem in caught.value.problems]


def problem(file: Path, text: str | bytes) -> str:
    """The only mistake in a file with this text."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = problems(file)
    assert len(found) == 1, found
    return found[0]


def good(file: Path, text: str | bytes) -> Settings:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file, CATALOG)


WIRED = '[sources.bus]\nkind = "wired"\n'
TWO_DEVICES = WIRED + '[[sources.bus.devices]]\nname = "one"\n[[sources.bus.devices]]\n'


def test_an_empty_file_is_a_house_with_every_default(site: Path) -> None:
    house = good(site, "")
    assert (house.site.name, house.api.port, house.sources, house.files) == ("home", 8000, {}, (site,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sit]\n", 'site.toml:1: [sit]: unknown table; did you mean "site"?'),
        (
            "[zzz]\n",
            "site.toml:1: [zzz]: unknown table; "
            "there are: api, channels, clock, outputs, reconciliations, site, sources, supervise, tariffs, writer",
        ),
        ("\nsite = 3", "site.toml:2: [site]: expected a table"),
        ("sources = 3", "site.toml:1: [sources]: expected a table"),
        ("[sources]\nbus = 3", "site.toml:2: [sources.bus]: expected a table"),
        ('[site]\nnmae = "x"', 'site.toml:2: [site] nmae: unknown key; did you mean "name"?'),
        ('site.nmae = "x"', 'site.toml:1: [site] nmae: unknown key; did you mean "name"?'),
        ("[api]\n# port\nport = 0", "site.toml:3: [api] port: expected a whole number >= 1, got 0"),
        ("[api]\nport = 70000", "site.toml:2: [api] port: expected a whole number <= 65535, got 70000"),
        ("[api]\nport = 80.5", "site.toml:2: [api] port: expected a whole number, got 80.5"),
        ('[api]\nport = "80"', "site.toml:2: [api] port: expected a whole number, got '80'"),
        ("[api]\nport = true", "site.toml:2: [api] port: expected a whole number, got true"),
        ("[api]\nport = 2020-02-03", "site.toml:2: [api] port: expected a whole number, got 2020-02-03"),
        ("[api]\nport = [\n1,\n2\n]", "site.toml:2: [api] port: expected a whole number, got a list"),
        ("[api]\nport = { a = 'p4ss' }", "site.toml:2: [api] port: expected a whole number, got a table"),
        ('[api]\nenabled = "yes"', "site.toml:2: [api] enabled: expected true or false, got 'yes'"),
        ("[api]\nhost = 1", "site.toml:2: [api] host: expected text in quotes, got 1"),
        ('[api]\nhost = ""', "site.toml:2: [api] host: expected something like \"127.0.0.1\", got ''"),
        ("[clock]\nrequire_sync = 1", 'site.toml:2: [clock] require_sync: expected true or false or "auto", got 1'),
        (
            '[writer]\ncommit_interval_s = "fast"',
            "site.toml:2: [writer] commit_interval_s: expected a number or \"auto\", got 'fast'",
        ),
        ('[site]\ndata_dir = ""', "site.toml:2: [site] data_dir: expected text in quotes of length >= 1, got ''"),
        (WIRED + 'mode = "fats"', 'site.toml:3: [sources.bus] mode: expected "fast" or "slow", got \'fats\''),
        (WIRED + 'prefix = "A"', "site.toml:3: [sources.bus] prefix: expected something like \"home.power\", got 'A'"),
        (
            WIRED + 'numbers = { a = "b" }',
            "site.toml:3: [sources.bus] numbers: inside: expected a whole number, got text in quotes",
        ),
        (
            WIRED + "[sources.bus.devices]\nname = 'x'",
            "site.toml:3: [sources.bus] devices: there may be several: write [[sources.bus.devices]] with two brackets",
        ),
        (WIRED + "devices = [\n 3,\n]", "site.toml:3: [sources.bus] devices, number 1: expected a table"),
        (TWO_DEVICES, "site.toml:5: [sources.bus] devices, number 2: name: this key is missing"),
        (
            TWO_DEVICES + 'name = "two"\ngian = 2',
            'site.toml:7: [sources.bus] devices, number 2: gian: unknown key; did you mean "gain"?',
        ),
        (
            TWO_DEVICES + 'name = "one"',
            "site.toml:6: [sources.bus] devices, number 2: name: 'one' is the name of another device too",
        ),
        (
            TWO_DEVICES + 'name = "ONE"',
            "site.toml:6: [sources.bus] devices, number 2: name: 'ONE' is the name of another device too",
        ),
        (
            "[sources.bus]\nport = 1",
            'site.toml:1: [sources.bus]: this key is missing: kind = "…", one of wired, wireless',
        ),
        (
            '[sources.bus]\nkind = "wierd"',
            "site.toml:2: [sources.bus] kind: there is no kind 'wierd'; did you mean \"wired\"?",
        ),
        (
            '[sources.bus]\nkind = "xyz"',
            "site.toml:2: [sources.bus] kind: there is no kind 'xyz'; there are: wired, wireless",
        ),
        ("[sources.bus]\nkind = {}", "site.toml:2: [sources.bus] kind: expected text in quotes, got a table"),
        ("[outputs.papre]", "site.toml:1: [outputs.papre] kind: there is no kind 'papre'; did you mean \"paper\"?"),
        (WIRED + "port = 6666", "site.toml:1: [sources.bus]: port 6666 is not for\\nus"),
    ],
)
def test_each_mistake_is_told_in_plain_words_with_its_place(site: Path, text: str, expected: str) -> None:
    assert problem(site, text) == expected


@pytest.mark.parametrize(
    ("name", "shown", "mended"),
    [
        ("kitchen.fridge", "'kitchen.fridge'", "kitchen-fridge"),
        ("a b", "'a b'", "a-b"),
        ("a=b", "'a=b'", "a-b"),
        ("a\nb", "'a\\nb'", "a-b"),
        ("-x", "'-x'", "x"),
        ("küche", "'küche'", "k-che"),
        ("a\x1b[31m", "'a\\x1b[31m'", "a-31m"),
        ("x" * 64, f"'{'x' * 59}…", "x" * 63),
    ],
)
def test_a_name_that_some_output_could_not_write_is_refused_with_one_that_would_do(
    site: Path, name: str, shown: str, mended: str
) -> None:
    rule = f"{shown} is no name: letters, digits, - and _ only, 63 at most; {mended!r} would do"
    quoted = json.dumps(name, ensure_ascii=True)
    assert problem(site, f"[site]\nname = {quoted}") == f"site.toml:2: [site] name: {rule}"
    device = f"{WIRED}[[sources.bus.devices]]\nname = {quoted}"
    assert problem(site, device) == f"site.toml:4: [sources.bus] devices, number 1: name: {rule}"
    source = f'[sources.{quoted}]\nkind = "wired"'
    assert problem(site, source).endswith(f"]: {rule}")


@pytest.mark.parametrize("key", ["interval_s"])
@pytest.mark.parametrize(
    "number", ["0", "-1", "-0.5", "nan", "-nan", "inf", "-inf", "1e300", "1e-300", "10_000_000_000"]
)
def test_a_pause_that_no_timer_can_wait_is_refused(site: Path, key: str, number: str) -> None:
    assert problem(site, f"{WIRED}{key} = {number}").startswith(f"site.toml:3: [sources.bus] {key}: expected a number ")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("supervise", "hung_after_s"),
        ("supervise", "longest_pause_s"),
        ("supervise", "stop_within_s"),
        ("writer", "commit_interval_s"),
        ("writer", "outbox_quota_mb"),
        ("writer", "outbox_reserve_mb"),
        ("clock", "hold_at_most_s"),
    ],
)
@pytest.mark.parametrize("number", ["-1", "nan", "inf", "1e300", "1" + "0" * 400])
def test_no_number_of_the_house_is_beyond_use(site: Path, table: str, key: str, number: str) -> None:
    assert problem(site, f"[{table}]\n{key} = {number}").startswith(f"site.toml:2: [{table}] {key}: ")


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775808", "0x" + "f" * 5000])
def test_a_whole_number_that_no_database_holds_is_refused(site: Path, number: str) -> None:
    number = number.replace("-0x", "0x")
    expected = "site.toml:2: [api] port: is too large, got a very large number"
    assert problem(site, f"[api]\nport = {number}") == expected


def test_whole_numbers_do_where_any_number_does(site: Path) -> None:
    source = good(site, f"{WIRED}interval_s = 5").sources["bus"]
    assert isinstance(source, Wired)
    assert source.interval_s == 5.0


def test_every_mistake_of_a_file_is_told_at_once(site: Path) -> None:
    site.write_text(
        '[site]\nname = "a b"\ntimezone = "Europe/Lundon"\nx = 1\n[api]\nport = 0\n[sources.bus]\nkind = "wired"\n'
        'token_env = "MISSING"\nport = -1\n[[sources.bus.devices]]\n[[sources.bus.devices]]\nname = "y"\ngain = "z"\n'
        "[sources.other]\n[outputs.papper]\n[outputs.plain]\nprot = 1\n[nonsense]\n"
    )
    assert [(found.split(": ")[0].removeprefix("site.toml:"), found.split(": ")[1]) for found in problems(site)] == [
        ("19", "[nonsense]"),
        ("2", "[site] name"),
        ("4", "[site] x"),
        ("6", "[api] port"),
        ("10", "[sources.bus] port"),
        ("11", "[sources.bus] devices, number 1"),
        ("14", "[sources.bus] devices, number 2"),
        ("9", "[sources.bus] token_env"),
        ("15", "[sources.other]"),
        ("16", "[outputs.papper] kind"),
        ("18", "[outputs.plain] prot"),
        ("3", "[site] timezone"),
    ]


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Lundon", '; did you mean "Europe/London"?'),
        ("../../etc/passwd", ""),
        ("/etc/localtime", ""),
        ("Europe", '; did you mean "Europe/'),
        ("", ""),
        ("a\x00b", ""),
        ("x" * 5000, ""),
    ],
)
def test_a_time_zone_that_does_not_exist_is_a_mistake_with_the_nearest_one(site: Path, zone: str, hint: str) -> None:
    told = problem(site, f"[site]\ntimezone = {json.dumps(zone)}")
    assert told.startswith("site.toml:2: [site] timezone: there is no time zone '")
    assert hint in told
    assert len(told) < 200


@pytest.mark.parametrize("directory", ["~nobody-has-this-name/x", "a\x00b"])
def test_a_data_directory_that_cannot_be_is_a_mistake(site: Path, directory: str) -> None:
    told = problem(site, f"[site]\ndata_dir = {json.dumps(directory)}")
    assert told.startswith("site.toml:1: [site]: data_dir '")


# ---- files


def test_a_file_that_is_not_there_is_said_to_be_missing(site: Path) -> None:
    assert problems(site) == ["site.toml: cannot be read: No such file or directory; ./orchestrator.py init writes one"]


def test_a_directory_in_the_place_of_the_file_is_named(site: Path) -> None:
    site.mkdir()
    assert problems(site) == ["site.toml: cannot be read: Is a directory"]


def test_a_file_that_is_not_utf_8_is_told_with_its_line(site: Path) -> None:
    assert problem(site, b'[site]\nname = "k\xfcche"') == "site.toml:2: is not UTF-8 text; save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[site]\nname = \n[api]", 2, "Invalid value"),
        ("[site]\nname = 'x'\nname = 'y'", 3, "Cannot overwrite a value"),
        ("[site]\n[api]\n[site]", 3, "Cannot declare"),
        ("[site]\n\nlist = [1,\n2,", 4, "Invalid value"),
        ('[site]\ntext = """\n\n', 2, "Unterminated string"),
        ("[site]\nname = 'a\x07'", 2, "Found invalid character"),
        ("just words", 1, "Expected '='"),
        ("[site]\nwhen = 2021-02-30", 2, "Invalid date"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(site: Path, text: str, line: int, words: str) -> None:
    assert problem(site, text).startswith(f"site.toml:{line}: is not valid TOML: {words}")


@pytest.mark.parametrize("text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "9" * 5000, "a = " + "{a=" * 5000])
def test_a_file_beyond_all_measure_is_a_mistake_and_no_crash(site: Path, text: str) -> None:
    assert problem(site, text).startswith("site.toml")


def test_a_byte_order_mark_and_line_ends_of_windows_are_welcome(site: Path) -> None:
    assert good(site, b'\xef\xbb\xbf[site]\r\nname = "x"\r\n').site.name == "x"
    told = problem(site, b"\xef\xbb\xbf[api]\r\nhost = '''\r\nx'''\r\nport = 0\r\n")
    assert told == "site.toml:4: [api] port: expected a whole number >= 1, got 0"


def test_a_key_that_would_start_a_new_line_does_not(site: Path) -> None:
    told = problem(site, '[site]\n"a\\nb\\u001b[31m\\u202e" = 1')
    assert told.startswith("site.toml:2: [site] a\\nb\\x1b[31m\\u202e: unknown key")


# ---- conf.d


def test_the_files_of_conf_d_are_merged_in_the_order_of_their_names(site: Path) -> None:
    folder = site.parent / "conf.d"
    folder.mkdir()
    (folder / "20-b.toml").write_text("[api]\nport = 81\n")
    (folder / "10-a.toml").write_text('[sources.bus]\nport = 7\n[site]\nname = "x"\n')
    (folder / "notes.txt").write_text("[[[")
    (folder / ".#10-a.toml").symlink_to("nobody@nowhere")  # what an editor makes while the file is open in it
    house = good(site, WIRED)
    assert house.files == (site, folder / "10-a.toml", folder / "20-b.toml")
    assert (house.api.port, house.site.name) == (81, "x")
    assert house.sources["bus"].port == 7  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="kind"):
        load(folder / "10-a.toml", CATALOG)
    assert load(site, CATALOG, merge=False).files == (site,)


def test_a_key_that_two_files_set_is_a_mistake_that_names_both(site: Path) -> None:
    folder = site.parent / "conf.d"
    folder.mkdir()
    site.write_text("\n[api]\nport = 80\n[writer]\nx = {a = 1, b = 2}\n")
    (folder / "a.toml").write_text(
        "[api]\n\n\nport = 80\n[writer]\nx = {a = 1, c = 2}\n[[sources.bus.devices]]\nname = 'x'"
    )
    (folder / "b.toml").write_text("[sources]\nbus.devices = [{ name = 'y' }]\n")
    assert problems(site) == [
        "conf.d/a.toml:4: [api] port is set already in site.toml:3; keep one of the two",
        "conf.d/a.toml:6: [writer] x a is set already in site.toml:5; keep one of the two",
        "conf.d/b.toml:2: [sources.bus] devices is set already in conf.d/a.toml:7; keep one of the two",
    ]


def test_the_mistakes_of_all_files_are_told_at_once_each_with_its_own_file(site: Path) -> None:
    folder = site.parent / "conf.d"
    folder.mkdir()
    site.write_text(f"{WIRED}port = 0\n")
    (folder / "a.toml").write_text("[sources.bus]\nprot = 0\n")
    assert [found.split(": ")[0] for found in problems(site)] == ["site.toml:3", "conf.d/a.toml:2"]
    site.write_text("[")
    (folder / "a.toml").write_text("]")
    assert [found.split(": ")[0] for found in problems(site)] == ["site.toml:1", "conf.d/a.toml:1"]


def test_two_sources_that_graphite_could_not_tell_apart_are_refused(site: Path) -> None:
    site.write_text('[sources.Bus]\nkind = "wired"\n[sources.bus]\nkind = "wired"\n')
    assert problems(site) == [
        "site.toml:1: [sources.Bus]: differs from bus only in upper and lower case, which Graphite does not keep",
        "site.toml:3: [sources.bus]: differs from Bus only in upper and lower case, which Graphite does not keep",
    ]


# ---- secrets

WITH_TOKEN = f'{WIRED}token_env = "HOUSE_TOKEN"\n'


def test_a_secret_that_the_environment_does_not_have_is_a_mistake(site: Path) -> None:
    os.environ.pop("HOUSE_TOKEN", None)
    assert problem(site, WITH_TOKEN) == (
        "site.toml:3: [sources.bus] token_env: the environment variable HOUSE_TOKEN is not set; "
        "put HOUSE_TOKEN=… into .env (mode 600)"
    )
    device = f'{WIRED}[[sources.bus.devices]]\nname = "x"\nsecret_env = "NOT_THERE"'
    assert problem(site, device).startswith("site.toml:5: [sources.bus] devices, number 1: secret_env: the environment")
    os.environ["HOUSE_TOKEN"] = ""
    assert "HOUSE_TOKEN is not set" in problem(site, WITH_TOKEN)
    os.environ["HOUSE_TOKEN"] = "x"
    good(site, WITH_TOKEN)


@pytest.mark.parametrize("where", ["config/.env", ".env"])
def test_a_secret_is_taken_from_a_private_env_file_beside_the_configuration_or_above(site: Path, where: str) -> None:
    file = site.parent.parent / where
    file.write_text('\ufeff# the house\nexport HOUSE_TOKEN="s3cret $HOME # x"\n')
    file.chmod(0o600)
    settings = good(site, WITH_TOKEN)
    assert settings.secrets == {"HOUSE_TOKEN": "s3cret $HOME # x"}


def test_the_env_file_above_is_found_from_within_the_folder(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.parent.parent / ".env").write_text("HOUSE_TOKEN=s3cret\n")
    (site.parent.parent / ".env").chmod(0o600)
    site.write_text(WITH_TOKEN)
    monkeypatch.chdir(site.parent)
    load(Path("site.toml"), CATALOG)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_an_env_file_that_others_may_read_is_refused_with_the_command_that_mends_it(site: Path, mode: int) -> None:
    file = site.parent / ".env"
    file.write_text("HOUSE_TOKEN=s3cret\n")
    file.chmod(mode)
    site.write_text(WITH_TOKEN)
    assert problems(site) == [f".env: others may read it (mode {mode:o}); run: chmod 600 .env"]


def test_the_environment_wins_over_the_env_file(site: Path) -> None:
    file = site.parent / ".env"
    file.write_text("HOUSE_TOKEN=of-the-file\n")
    file.chmod(0o600)
    os.environ["HOUSE_TOKEN"] = "of-the-environment"
    settings = good(site, WITH_TOKEN)
    assert settings.secrets == {"HOUSE_TOKEN": "of-the-environment"}


@pytest.mark.parametrize("line", ["HOUSE_TOKEN='s3cret", "'A=B'=s3cret", "HOUSE_TOKEN=s3cret\x00x"])
def test_a_line_of_the_env_file_that_cannot_be_used_is_told_without_what_is_in_it(site: Path, line: str) -> None:
    file = site.parent / ".env"
    file.write_text(f"A_FIRST=1\n{line}\n")
    file.chmod(0o600)
    assert problem(site, "") == ".env:2: expected NAME=value"


def test_an_env_file_that_is_no_text_is_told(site: Path) -> None:
    file = site.parent / ".env"
    file.write_bytes(b"HOUSE_TOKEN=\xff\n")
    file.chmod(0o600)
    assert problem(site, "") == ".env: is not UTF-8 text; save it as UTF-8"


def test_a_virtual_environment_called_env_is_no_file_of_secrets(site: Path) -> None:
    (site.parent / ".env").mkdir()
    good(site, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_env_file_of_somebody_else_is_told(site: Path) -> None:
    (site.parent / ".env").write_text("HOUSE_TOKEN=s3cret\n")
    (site.parent / ".env").chmod(0)
    assert problem(site, "") == ".env: cannot be read: Permission denied"


@pytest.mark.parametrize(
    "text",
    [
        f'{WIRED}token_env = "s3cret-Token=="',
        f'{WIRED}token_env = "s3crettoken"',
        f"{WIRED}token_env = 53287",
        f'{WIRED}token = "s3cret-Token=="',
        f'{WIRED}[sources.bus.token_env]\nx = "s3cret"',
        f'{WIRED}spare = ["s3cret"]',
        f'{WIRED}numbers = {{ token = "s3cret" }}',
    ],
)
def test_a_secret_that_was_written_into_the_configuration_is_not_shown(site: Path, text: str) -> None:
    told = problem(site, text)
    assert "s3cret" not in told
    assert "53287" not in told


# ---- whatever is in it


NAMES = st.sampled_from(
    [
        "site",
        "api",
        "sources",
        "outputs",
        "bus",
        "plain",
        "kind",
        "devices",
        "name",
        "port",
        "token_env",
        "timezone",
        "data_dir",
        "mode",
        "clock",
        "writer",
    ]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["wired", "plain", "auto", "~x", "PATH"]),
    st.dates(),
    st.times(),
    st.datetimes(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, st.text(max_size=4)), inner, max_size=4)
    ),
    max_leaves=8,
)
BUSES = st.fixed_dictionaries(
    {"kind": st.just("wired")}, optional={name: VALUES for name in Wired.__struct_fields__ if name != "kind"}
)
TARIFFS = st.fixed_dictionaries(
    {"currency": st.one_of(st.just("GBP"), VALUES)},
    optional={
        "vat_percent": VALUES,
        "periods": st.lists(
            st.fixed_dictionaries(
                {"from": st.one_of(st.dates(), VALUES), "unit_rate_per_kwh": SCALARS},
                optional={
                    "vat_percent": SCALARS,
                    "prices_file": VALUES,
                    "bands": st.lists(
                        st.fixed_dictionaries(
                            {"name": SCALARS, "unit_rate_per_kwh": SCALARS},
                            optional=dict.fromkeys(("from", "to", "days", "months"), VALUES),
                        ),
                        max_size=2,
                    ),
                },
            ),
            max_size=2,
        ),
    },
)
CONFIGURATIONS = st.one_of(
    st.dictionaries(st.one_of(NAMES, st.text(st.characters(codec="utf-8"), max_size=4)), VALUES, max_size=5),
    st.fixed_dictionaries({"sources": st.dictionaries(NAMES, BUSES, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"tariffs": st.dictionaries(NAMES, TARIFFS, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"site": st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "data_dir"), VALUES))}),
)


def toml(value: Any) -> str:
    """Write any value as TOML, tables inline."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=True) if value.isascii() else _quoted(value)
        case float():
            return (
                "nan"
                if math.isnan(value)
                else "inf"
                if value == math.inf
                else "-inf"
                if value == -math.inf
                else str(value)
            )
        case list():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{_quoted(key)} = {toml(item)}' for key, item in value.items())}}}"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" if not char.isalnum() else char for char in text) + '"'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(CONFIGURATIONS)
def test_whatever_the_configuration_says_it_is_read_or_refused_line_by_line(
    site: Path, content: dict[str, Any]
) -> None:
    text = "".join(f"{_quoted(key)} = {toml(value)}\n" for key, value in content.items())
    tomllib.loads(text)
    site.write_text(text, newline="")
    try:
        house = load(site, CATALOG)
    except ConfigurationError as error:
        assert error.problems
        for told in error.problems:
            assert told.isprintable(), told
            assert len(told) < 1000
            line, _, place = told.removeprefix(f"{site}:").partition(": [")
            [key] = tomllib.loads(text.split("\n")[int(line) - 1])
            assert place.startswith(printable(key)), "the line that is named is another one"
    else:
        assert set(content) <= {"site", "api", "sources", "outputs", "clock", "writer", "tariffs"}
        assert {*house.sources} == {*content.get("sources", {})}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40))
def test_whatever_bytes_the_file_has_nothing_else_is_raised(site: Path, content: bytes) -> None:
    site.write_bytes(content)
    try:
        load(site, CATALOG)
    except ConfigurationError as error:
        assert all(told.isprintable() for told in error.problems)


def test_two_outputs_that_write_the_same_files_are_a_mistake(site: Path) -> None:
    twice = '[outputs.csv]\n[outputs.again]\nkind = "csv"\ndirectory = "./csv/"\n'
    assert [problem.split(": ", 1)[1] for problem in real_problems(site, twice)] == [
        "[outputs.again]: output csv writes the same files; give this one a directory of its own"
    ]
    assert real_problems(site, twice.replace("./csv/", "other")) == []
    histories = '[outputs.history]\n[outputs.other]\nkind = "history"\n'
    assert [problem.split(": ", 1)[1] for problem in real_problems(site, histories)] == [
        "[outputs.other]: there is one history.db, and output history writes it"
    ]


def real_problems(site: Path, text: str) -> list[str]:
    """What is wrong with `text` where the kinds are those of the house."""
    site.write_text(text)
    try:
        load(site, catalog())
    except ConfigurationError as error:
        return error.problems
    return []
