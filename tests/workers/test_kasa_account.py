"""Kasa plugs and the account of their owner: wrong, missing, not understood, and never told to anybody."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from tests.workers.kasa_devices import ACCOUNT, Home, Klap, Legacy, at, memory_in, reading_from
from workers import SourceError


@pytest.mark.parametrize("version", [1, 2])
def test_a_wrong_password_is_told_with_its_remedy_and_tried_seldom(version: int, tmp_path: Path) -> None:
    locked = Klap(1, version=version, password="another")
    with (
        Home(locked, Legacy(2)) as home,
        reading_from(home, tmp_path, at(home.at(1)), at(home.at(2), "tv"), with_account=True) as bench,
    ):
        assert {*bench.round()} == {"tv"}
        trouble = bench.troubles["fridge"]
        assert trouble.startswith(f"it does not take the account at {home.at(1)}; compare e-mail and password")
        assert "upper and lower case" in trouble
        assert "Third-Party Compatibility" in trouble
        handshakes = locked.handshakes
        for _ in range(8):
            assert {*bench.round(after_s=100)} == {"tv"}
        assert locked.handshakes == handshakes
        locked.password = ACCOUNT["KASA_PASSWORD"]
        assert {*bench.round(after_s=100)} == {"tv", "fridge"}
        assert not bench.troubles


def test_a_plug_that_wants_an_account_says_where_to_put_it(tmp_path: Path) -> None:
    with Home(Klap(1)) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        assert bench.round() == {}
        assert (
            "name the variables with the TP-Link account in username_env and password_env" in bench.troubles["fridge"]
        )


def test_a_plug_of_the_factory_is_read_without_its_owners_account(tmp_path: Path) -> None:
    with Home(Klap(1, username="", password="")) as home, reading_from(home, tmp_path, at(home.at(1))) as bench:
        assert bench.round() == {"fridge": {"power_w": 86.123}}


def test_an_account_that_is_not_in_the_environment_stops_the_source_in_words(tmp_path: Path) -> None:
    wanted = {"username_env": "KASA_USER_OF_NOBODY", "password_env": "KASA_PASSWORD"}
    with (
        Home(Legacy(1)) as home,
        pytest.raises(SourceError, match="the environment variable KASA_USER_OF_NOBODY is not set; put it"),
        reading_from(home, tmp_path, at(home.at(1)), **wanted),
    ):
        pass


def test_firmware_that_nobody_understands_has_words_of_its_own_and_is_asked_seldom(tmp_path: Path) -> None:
    newest = Klap(1)
    newest.encrypt_type = "TPAP"
    with Home(newest) as home, reading_from(home, tmp_path, at(home.at(1)), with_account=True) as bench:
        assert bench.round() == {}
        assert bench.troubles["fridge"].startswith("its firmware speaks something that python-kasa 0.")
        newest.encrypt_type = "KLAP"
        assert bench.round(after_s=100) == {}
        assert bench.round(after_s=900) == {"fridge": {"power_w": 86.123}}


@pytest.mark.parametrize("pin_ip", [False, True])
def test_a_plug_that_speaks_something_else_after_an_update_is_read_again(pin_ip: bool, tmp_path: Path) -> None:
    before, after = Legacy(1), Klap(1)
    with Home(before) as home, reading_from(home, tmp_path, at(home.at(1), pin_ip=pin_ip), with_account=True) as bench:
        assert bench.round()
        home.pull_out(before)
        home.plug_in(after)
        assert bench.until("fridge")[-1] == {"fridge": {"power_w": 86.123}}


def test_the_account_is_in_no_file_no_trouble_and_no_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    plug = Klap(1)
    with Home(plug, Klap(2, password="x")) as home:
        devices = at(home.at(1)), at(home.at(2), "tv")
        with reading_from(home, tmp_path, *devices, with_account=True) as bench:
            bench.round()
            plug.garbage = b"{"
            for _ in range(3):
                bench.round(after_s=70)
            told = caplog.text + json.dumps(bench.troubles) + memory_in(tmp_path).read_text()
    auth = plug._auth_hash()
    for secret in (*ACCOUNT.values(), auth.hex(), base64.b64encode(auth).decode()):
        assert secret not in told


def test_an_account_that_is_refused_once_is_tried_once_more_before_the_long_pause(tmp_path: Path) -> None:
    plug = Klap(1)
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1)), with_account=True) as bench:
        assert bench.round()
        plug.forget_sessions()
        plug.password = "another"
        assert bench.round() == {}
        assert not bench.troubles
        plug.password = ACCOUNT["KASA_PASSWORD"]
        assert bench.round()


def test_the_password_is_not_told_to_one_who_says_that_he_is_the_plug(tmp_path: Path) -> None:
    """An AES login carries it; a KLAP plug does not go back to that."""
    plug, liar = Klap(1), Klap(9, mac="50:C7:BF:00:11:01")
    liar.encrypt_type = "AES"
    with Home(plug) as home, reading_from(home, tmp_path, at(home.at(1)), with_account=True, timeout_s=0.5) as bench:
        assert bench.round()
        home.pull_out(plug)
        home.plug_in(liar)
        liar.silent = True
        for _ in range(4):
            assert bench.round(after_s=400) == {}
        assert home.calls
        assert liar.connected == 0
        liar.encrypt_type, liar.silent = "KLAP", False
        assert bench.until("fridge", after_s=400)
