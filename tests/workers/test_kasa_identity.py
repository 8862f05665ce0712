"""Kasa plugs that move, swap places or are exchanged: each is known by its own id, and no other is taken for it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.workers.kasa_devices import Home, Klap, Legacy, at, reading_from, scrambled


def test_a_plug_with_a_new_address_is_found_again_and_stays_found_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plugs")
    for plug in (Legacy(1), Klap(2)):
        with Home(plug, Legacy(9)) as home:
            table = at(plug.address)
            with reading_from(home, tmp_path, table, with_account=True) as bench:
                shown = bench.round()
                home.pull_out(plug)
                home.plug_in(plug, 77)
                assert bench.until("fridge")[-1] == shown
                assert not bench.troubles
            assert f"found again at {home.at(77)} (it was at {table['host']})" in caplog.text
            calls = home.calls
            with reading_from(home, tmp_path, table, with_account=True) as bench:
                assert bench.round() == shown
            assert home.calls == calls


def test_plugs_that_swapped_their_addresses_are_never_taken_for_each_other(tmp_path: Path) -> None:
    fridge, tv = Legacy(1, mac="50:C7:BF:00:00:01"), Legacy(2, mac="50:C7:BF:00:00:02")
    tv.power_mw = 5000
    with Home(fridge, tv) as home:
        devices = at(home.at(1)), at(home.at(2), "tv")
        with reading_from(home, tmp_path, *devices) as bench:
            assert len(bench.round()) == 2
        # A power cut: the house and the router start anew, and the plugs get each other's address.
        for plug in (fridge, tv):
            home.pull_out(plug)
        home.plug_in(fridge, 2)
        home.plug_in(tv, 1)
        with reading_from(home, tmp_path, *devices) as bench:
            seen = bench.until("fridge") + bench.until("tv")
        for shown in seen:
            assert shown.get("fridge", {}).get("power_w", 86.123) == 86.123
            assert shown.get("tv", {}).get("power_w", 5.0) == 5.0


def test_a_pinned_plug_is_looked_for_nowhere_else(tmp_path: Path) -> None:
    plug = Legacy(1)
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1), pin_ip=True)) as bench:
        assert bench.round()
        home.pull_out(plug)
        home.plug_in(plug, 77)
        for _ in range(3):
            assert bench.round(after_s=400) == {}
        assert home.calls == 0
        assert f"at {home.at(1)}" in bench.troubles["fridge"]


def test_lost_plugs_are_called_no_more_often_than_configured(tmp_path: Path) -> None:
    plug = Legacy(1)
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1)), timeout_s=0.3) as bench:
        assert bench.round()
        home.pull_out(plug)
        bench.round(after_s=10)
        bench.round(after_s=10)
        calls = home.calls
        assert calls
        bench.round(after_s=70)
        bench.round(after_s=70)
        assert home.calls == calls
        bench.round(after_s=200)
        assert home.calls > calls


@pytest.mark.parametrize(("kind", "model"), [(Legacy, "HS110(UK)"), (Klap, "P110")])
def test_another_plug_at_the_address_shows_nothing_and_is_told_with_what_to_do(
    kind: type[Legacy | Klap], model: str, tmp_path: Path
) -> None:
    old, new = kind(1), kind(1, mac="50:C7:BF:00:00:99")
    with Home(old) as home:
        new.port = old.port  # the same account opens it too
        with reading_from(home, tmp_path, at(home.at(1)), with_account=True) as bench:
            assert bench.round()
            home.pull_out(old)
            home.plug_in(new)
            for _ in range(3):
                assert bench.round(after_s=70) == {}
            trouble = bench.troubles["fridge"]
            assert f"is a {model} with MAC 50:C7:BF:00:00:99, not the plug 50:C7:BF:00:11:01" in trouble
            assert 'if you exchanged the plug, set device_id = "50:C7:BF:00:00:99"' in trouble
        with reading_from(home, tmp_path, at(home.at(1), device_id="50-c7-bf-00-00-99"), with_account=True) as bench:
            assert bench.round()


def test_a_plug_is_known_by_its_own_long_id_too(tmp_path: Path) -> None:
    plug = Legacy(1)
    with Home(plug) as home:
        with reading_from(home, tmp_path, at(home.at(1), device_id=plug.id)) as bench:
            assert bench.round()
        with reading_from(home, tmp_path / "other", at(home.at(1), device_id="80" * 20)) as bench:
            assert bench.round() == {}


def test_one_plug_under_two_addresses_is_counted_once(tmp_path: Path) -> None:
    plug = Legacy(1)
    with Home(plug, Legacy(2, mac=plug.mac)) as home:
        devices = at(home.at(1)), at(home.at(2), "tv")
        with reading_from(home, tmp_path, *devices) as bench:
            bench.round()
            assert {*bench.round(after_s=1000)} == {"fridge"}
            assert "is the same plug as fridge; take one of the two out" in bench.troubles["tv"]


def test_a_plug_that_no_call_reaches_is_found_by_trying(tmp_path: Path) -> None:
    plug = Legacy(1)
    plug.answers_calls = False
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        assert bench.round()


@pytest.mark.parametrize("rubbish", [b"\x00" * 30, scrambled(b"[7]"), scrambled(b'{"system": 7}'), b""])
def test_rubbish_that_answers_a_call_stops_nothing(
    rubbish: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    liar = Legacy(2)
    liar.called = lambda port, reply, data: reply(rubbish)  # type: ignore[method-assign]
    with Home(Legacy(1), liar) as home, reading_from(home, tmp_path, at(home.at(1)), at(home.at(2), "tv")) as bench:
        assert {*bench.round()} == {"fridge", "tv"}  # what it answers over TCP is good
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_of_many_who_answer_a_call_only_the_one_with_the_right_id_is_asked(tmp_path: Path) -> None:
    plug, others = Legacy(1), [Legacy(number) for number in range(100, 120)]
    with Home(*others, plug) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        shown = bench.round()
        home.pull_out(plug)
        home.plug_in(plug, 77)
        assert bench.until("fridge")[-1] == shown
        assert [other.connected for other in others] == [0] * len(others)
