"""The table of a channel is written, or added at the end, and nothing else of somebody's configuration changes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.edit import EditError, channel_holder, edited_channel, set_channel_values

STATES = {"states": ["idle", "running"], "thresholds_w": [50.0], "hysteresis_w": 5.0, "dwell_s": 0.0}
WRITTEN = 'states = ["idle", "running"]\nthresholds_w = [50.0]\nhysteresis_w = 5.0\ndwell_s = 0.0\n'


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("", "\n[channels.a.x]\n" + WRITTEN),
        ("[site]  # mine", "[site]  # mine\n\n[channels.a.x]\n" + WRITTEN),
        ("[site]\r\nname='h'\r\n", "[site]\r\nname='h'\r\n" + ("\n[channels.a.x]\n" + WRITTEN).replace("\n", "\r\n")),
        ("[channels.a.y]\nmax_gap_s = 9\n", "[channels.a.y]\nmax_gap_s = 9\n\n[channels.a.x]\n" + WRITTEN),
        ("[channels.a.x]", "[channels.a.x]\n" + WRITTEN),
        ("[channels.a.x]\n[api]\nport = 1\n", "[channels.a.x]\n" + WRITTEN + "[api]\nport = 1\n"),
        (
            '[ channels . "a" . x ] # mine\ntariff = "main"  # 1000 a year\n\n# The rest\n[api]\n',
            '[ channels . "a" . x ] # mine\ntariff = "main"  # 1000 a year\n' + WRITTEN + "\n# The rest\n[api]\n",
        ),
        (
            '[channels.a.x]\nstates = [ "off" , "low",\n  "high" ] # three\nthresholds_w = [1, 2]\ndwell_s = 3\n',
            '[channels.a.x]\nstates = ["idle", "running"] # three\nthresholds_w = [50.0]\ndwell_s = 0.0\n'
            "hysteresis_w = 5.0\n",
        ),
    ],
)
def test_what_is_there_is_changed_and_what_is_not_is_added(text: str, new: str) -> None:
    assert edited_channel(text, "a", "x", STATES) == new


@pytest.mark.parametrize(
    "text",
    [
        "channels = {a = {x = {max_gap_s = 9}}}\n",
        "channels = {b = {x = {max_gap_s = 9}}}\n",
        "[channels.a]\nx.max_gap_s = 9\n",
        "[channels.a]\nx = {max_gap_s = 9}\n",
        "channels = 3\n",
        "[channels]\na = 3\n",
        '[channels.a.x]\nstates = ["off", # not 0 W\n "on"]\n',
        "[[[",
    ],
)
def test_what_cannot_be_changed_surely_is_left_and_told_with_what_to_enter(tmp_path: Path, text: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(EditError, match=r"enter by hand: states = \['idle', 'running'\], thresholds_w = \[50.0\]"):
        set_channel_values(file, "a", "x", STATES)
    assert file.read_text() == text
    assert [*tmp_path.iterdir()] == [file]


names = st.sampled_from(["x", "y", "z-1"])
keys = st.sampled_from(["max_gap_s = 9", "tariff = 'main' # states = 3", "dwell_s=1_0", "thresholds_w = [ 1.5,2 ]"])


@settings(max_examples=150)
@given(st.lists(st.tuples(names, st.sets(keys)), unique_by=lambda each: each[0]), names, st.booleans())
def test_whatever_is_there_only_the_wanted_keys_of_one_channel_change(
    tables: list[tuple[str, set[str]]], name: str, crlf: bool
) -> None:
    text = "# Mine\n[site]\nname = 'h'\n"
    for each, lines in tables:
        text += f"\n# of {each}\n[channels.a.{each}]\n" + "".join(f"{line}\n" for line in sorted(lines))
    text = text.replace("\n", "\r\n") if crlf else text
    expected = tomllib.loads(text)
    expected.setdefault("channels", {}).setdefault("a", {}).setdefault(name, {}).update(STATES)
    new = edited_channel(text, "a", name, STATES)
    assert tomllib.loads(new) == expected
    changed = ("states", "thresholds_w", "hysteresis_w", "dwell_s", f"[channels.a.{name}]")
    kept = [[line for line in each.splitlines() if line and not line.startswith(changed)] for each in (text, new)]
    assert kept[0] == kept[1]
    assert new.count("\r\n") == (new.count("\n") if crlf else 0)


def test_the_backup_is_what_it_was_and_the_file_is_found(tmp_path: Path) -> None:
    one, two = tmp_path / "site.toml", tmp_path / "more.toml"
    one.write_text("[site]\n[channels.b.x]\nmax_gap_s = 9\n")
    two.write_text('[[sources.a.devices]]\nname = "x"\n')
    assert channel_holder([one, two], "b", "x") == one
    assert channel_holder([one, two], "a", "x") == two
    assert channel_holder([one, two], "c", "x") == one
    first = set_channel_values(two, "a", "x", STATES)
    second = set_channel_values(two, "a", "x", {"dwell_s": 4.0})
    assert [first.name, second.name] == ["more.toml.before-states-1", "more.toml.before-states-2"]
    assert first.read_text() == '[[sources.a.devices]]\nname = "x"\n'
    assert tomllib.loads(two.read_text())["channels"]["a"]["x"] == {**STATES, "dwell_s": 4.0}
