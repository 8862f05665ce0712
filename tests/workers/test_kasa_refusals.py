"""Kasa plugs that are not what the configuration says, or show what cannot be: words, counts and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reading import METRICS
from tests.workers.kasa_devices import Home, Klap, Legacy, at, reading_from


def test_a_plug_without_a_meter_and_an_outlet_that_is_not_there_are_told_in_words(tmp_path: Path) -> None:
    with Home(Legacy(1, meter=False), Legacy(2, outlets=("Kettle", "TV", "TV")), Klap(3, component=0)) as home:
        devices = [
            *(at(home.at(1), "switch"), at(home.at(3), "new-switch"), at(home.at(2), "kettle", child="1")),
            *(at(home.at(2), "tv", child="TV"), at(home.at(2), "lamp", child="Lamp")),
            at(home.at(2), "again", child="Kettle"),
        ]
        with reading_from(home, tmp_path, *devices, with_account=True) as bench:
            assert {*bench.round()} == {"kettle"}
            choices = 'set child to one of: 1 "Kettle", 2 "TV", 3 "TV"'
            strip = f"HS300(US) at {home.at(2)} has"
            take_out = "has no meter; take it out of the configuration: it can only switch"
            assert bench.troubles == {
                "switch": f"what is at {home.at(1)} {take_out}",
                "new-switch": f"what is at {home.at(3)} {take_out}",
                "tv": f'{strip} 2 outlets "TV"; {choices}',
                "lamp": f'{strip} no outlet "Lamp"; {choices}',
                "again": f"it is the same outlet as kettle; {choices}",
            }


@pytest.mark.parametrize("others", [[], ["kettle"]])
def test_an_outlet_that_gets_the_name_of_the_configuration_is_taken_up(others: list[str], tmp_path: Path) -> None:
    strip = Legacy(1, outlets=("Kettle", "Plug 2"))
    with Home(strip) as home:
        devices = [at(home.at(1), child="TV"), *(at(home.at(1), other, child="1") for other in others)]
        with reading_from(home, tmp_path, *devices) as bench:
            assert [*bench.round()] == others
            strip.outlets = ("Kettle", "TV")
            assert bench.round(after_s=1000)["fridge"]["power_w"] == 172.246
            assert not bench.troubles


def test_a_child_of_a_plug_that_is_no_strip_is_told(tmp_path: Path) -> None:
    with Home(Legacy(1)) as home, reading_from(home, tmp_path, at(home.at(1), child="2")) as bench:
        assert bench.round() == {}
        assert "which has no outlets to choose from; leave out child" in bench.troubles["fridge"]


@pytest.mark.parametrize(
    ("realtime", "reason"),
    [
        ({"power_mw": 9_999_000}, "out_of_range"),
        ({"power_mw": -5000}, "out_of_range"),
        ({"power_mw": 5000, "voltage_mv": 900_000}, "out_of_range"),
        ({"power_mw": 5000, "total_wh": -1}, "out_of_range"),
        ({"power_mw": float("nan")}, "not_finite"),
        ({"power_mw": 10**400}, "not_finite"),
        ({"power_mw": "5000"}, "malformed"),
        ({"power_mw": True}, "malformed"),
        ({"power_mw": None}, "malformed"),
        ({"power_mw": 5000, "err_code": -3}, "malformed"),
        ({}, "malformed"),
    ],
)
def test_what_cannot_be_is_refused_counted_and_told_and_the_next_good_value_is_shown(
    realtime: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    plug = Legacy(1)
    with (
        Home(plug, Legacy(2)) as home,
        reading_from(home, tmp_path, at(home.at(1)), at(home.at(2), "tv")) as bench,
    ):
        assert len(bench.round()) == 2
        plug.realtime = realtime
        assert {*bench.round()} == {"tv"}
        assert {*bench.round(after_s=70)} == {"tv"}
        assert {*bench.refused} <= {reason, "malformed"}
        assert bench.troubles["fridge"]
        plug.realtime = None
        assert len(bench.round(after_s=70)) == 2
        assert not bench.troubles


@pytest.mark.parametrize(
    "rubbish",
    [b"\x00\x00\x00\x00", b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x01\xd0", b"\xff" * 64],
    ids=["no length", "no JSON", "half a table", "the length of a film"],
)
@pytest.mark.parametrize("kind", [Legacy, Klap])
def test_rubbish_from_one_plug_concerns_it_alone(kind: type[Legacy | Klap], rubbish: bytes, tmp_path: Path) -> None:
    plug = kind(1)
    with Home(plug, Legacy(2)) as home:
        devices = at(home.at(1)), at(home.at(2), "tv")
        with reading_from(home, tmp_path, *devices, timeout_s=1.0, with_account=True) as bench:
            assert len(bench.round()) == 2
            plug.garbage = rubbish
            for _ in range(2):
                assert {*bench.round(after_s=3)} == {"tv"}
            assert {*bench.troubles} == {"fridge"}
            plug.garbage = None
            shown = bench.until("fridge")[-1]
            assert all(values.keys() <= METRICS for values in shown.values())
