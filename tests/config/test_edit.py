"""Writing into somebody's configuration: the values change, and nothing else does."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.edit import EditError, edited, holder, restore, set_device_values

KEYS = ("current_gain", "current_offset_a", "noise_floor_a")
VALUES = {"current_gain": 1.0337, "current_offset_a": -0.03, "noise_floor_a": 0.004}

OWNERS = """\
# My house. Do not touch.\t(really)
[site]
name   =   'home'   # not "Home"

  [sources.clamps]
  kind = "mcp3008"

[[sources.clamps.devices]]   # the old one
name = "saw"
channel = 0
current_gain = 1_0.5e-1      # by hand, current_offset_a = 3 was wrong

# the new one
[[sources.clamps.devices]]
name = "drill"
channel = 1


# Outputs
[outputs.csv]
"""


def lines_without(text: str) -> list[str]:
    """Every line but those whose key may change."""
    return [line for line in text.splitlines(keepends=True) if not re.match(rf"\s*[\"']?({'|'.join(KEYS)})\b", line)]


def test_values_are_replaced_and_added_behind_the_last_key_of_their_table() -> None:
    new = edited(OWNERS, "clamps", "saw", VALUES)
    assert new == OWNERS.replace(
        "current_gain = 1_0.5e-1      # by hand, current_offset_a = 3 was wrong\n",
        "current_gain = 1.0337      # by hand, current_offset_a = 3 was wrong\n"
        "current_offset_a = -0.03\nnoise_floor_a = 0.004\n",
    )
    assert edited(OWNERS, "clamps", "drill", {"current_gain": 2.0}) == OWNERS.replace(
        "channel = 1\n", "channel = 1\ncurrent_gain = 2.0\n"
    )


@pytest.mark.parametrize(
    ("text", "new"),
    [
        (
            '[sources.a]\ndevices = [{name="y"}, # c\n  { name = "x", unit=1 },\n]\n',
            '[sources.a]\ndevices = [{name="y"}, # c\n  { name = "x", unit=1, current_gain = 1.5 },\n]\n',
        ),
        (
            "sources.a.devices = [{name='x', current_gain =  1.0}]",
            "sources.a.devices = [{name='x', current_gain =  1.5}]",
        ),
        (
            '[sources]\na = {kind = "p", devices = [{name = "x"}]}\n',
            '[sources]\na = {kind = "p", devices = [{name = "x", current_gain = 1.5}]}\n',
        ),
        ('[[sources.a.devices]]\r\nname = "x"', '[[sources.a.devices]]\r\nname = "x"\r\ncurrent_gain = 1.5\r\n'),
        (
            '\ufeff[[sources.a.devices]]\n\t"name" = """x"""\n[api]\n',
            '\ufeff[[sources.a.devices]]\n\t"name" = """x"""\n\tcurrent_gain = 1.5\n[api]\n',
        ),
        (
            '[sources.a]\n[[sources.a.devices]]\nname = "y"\n[api]\nport = 1\n[[sources.a.devices]]\nname = "x"\n',
            '[sources.a]\n[[sources.a.devices]]\nname = "y"\n[api]\nport = 1\n[[sources.a.devices]]\nname = "x"\n'
            "current_gain = 1.5\n",
        ),
    ],
)
def test_tables_are_found_however_they_are_written(text: str, new: str) -> None:
    assert edited(text, "a", "x", {"current_gain": 1.5}) == new


blanks = st.text(" \t", max_size=3)
comments = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=12)
ends = st.sampled_from(["\n", "\r\n"])
numbers = st.floats(-1000, 1000).map(lambda value: round(value, 6))


@st.composite
def files(draw: st.DrawFn) -> tuple[str, int]:
    """A configuration in somebody's hand, and how many devices it has."""
    text, end = "", draw(ends)

    def line(words: str = "") -> str:
        comment = f"#{draw(comments)}" if draw(st.booleans()) else ""
        return f"{draw(blanks)}{words}{draw(blanks)}{comment}{end}"

    count = draw(st.integers(1, 3))
    text += line() + line('[sources."a"]') + line('kind="pzem"') + line()
    for number in range(count):
        text += line(draw(st.sampled_from(["[[ sources.a.devices ]]", "[[sources.'a'.devices]]"])))
        keys = [f'name = "d{number}"', "note = 'current_gain = 7'", f"unit={number}"]
        keys += [f"{key}{draw(blanks)}= {draw(numbers)!r}" for key in draw(st.sets(st.sampled_from(KEYS)))]
        for key in draw(st.permutations(keys)):
            text += line(key)
            text += line() if draw(st.booleans()) else ""
        text += line()
        text += line("[outputs.o" + str(number) + "]") if draw(st.booleans()) else ""
    return text, count


@given(files(), st.data())
@settings(max_examples=150)
def test_whatever_the_hand_only_the_wanted_keys_change(file: tuple[str, int], data: st.DataObject) -> None:
    text, count = file
    number = data.draw(st.integers(0, count - 1))
    values = data.draw(st.dictionaries(st.sampled_from(KEYS), numbers, min_size=1))
    new = edited(text, "a", f"d{number}", values)
    expected: dict[str, Any] = tomllib.loads(text)
    expected["sources"]["a"]["devices"][number].update(values)
    assert tomllib.loads(new) == expected
    assert lines_without(new) == lines_without(text)
    assert re.findall("#.*", new) == re.findall("#.*", text)
    if "\r\n" in text:
        assert not re.search(r"(?<!\r)\n", new)


def test_the_file_is_replaced_at_once_with_its_mode_and_the_backup_is_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(OWNERS.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    before = file.stat().st_ino
    first = set_device_values(file, "clamps", "saw", VALUES)
    second = set_device_values(file, "clamps", "saw", {"current_gain": 3.0})
    assert [first.name, second.name] == ["site.toml.before-calibration-1", "site.toml.before-calibration-2"]
    assert first.read_bytes() == OWNERS.replace("\n", "\r\n").encode()
    assert b"current_gain = 3.0 " in file.read_bytes()
    assert file.stat().st_ino != before
    assert {stat.S_IMODE(one.stat().st_mode) for one in (file, first, second)} == {0o640}
    restore(file, second)
    assert b"current_gain = 1.0337 " in file.read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["site.toml", "site.toml.before-calibration-1"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "mine.toml"
    real.parent.mkdir()
    real.write_text(OWNERS)
    (tmp_path / "site.toml").symlink_to(real)
    backup = set_device_values(tmp_path / "site.toml", "clamps", "saw", VALUES)
    assert (tmp_path / "site.toml").is_symlink()
    assert "1.0337" in real.read_text()
    assert backup.parent == real.parent


def test_the_file_that_holds_the_device_is_found(tmp_path: Path) -> None:
    one, two = tmp_path / "site.toml", tmp_path / "clamps.toml"
    one.write_text("[site]\n[sources.clamps]\nkind = 'mcp3008'\n")
    two.write_text('[[sources.clamps.devices]]\nname = "saw"\n')
    assert holder([one, two], "clamps", "saw") == two
    assert holder([one, two], "clamps", "nobody") == one


@pytest.mark.parametrize(
    "text", ["", "[site]\n", "sources = 3\n", '[[sources.clamps.devices]]\nname = "other"\n', "[[[", "devices = 1"]
)
def test_what_cannot_be_changed_is_left_and_told_with_what_to_enter(tmp_path: Path, text: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(EditError, match=r"enter by hand: current_gain = 2\.0"):
        set_device_values(file, "clamps", "saw", {"current_gain": 2.0})
    assert file.read_text() == text
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_leaves_everything_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(OWNERS)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(EditError, match="cannot be written"):
            set_device_values(file, "clamps", "saw", VALUES)
    finally:
        tmp_path.chmod(0o755)
    assert file.read_text() == OWNERS
