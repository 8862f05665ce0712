"""Looking round for Kasa plugs: who is there is named, what is printed is a configuration, and nothing is switched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands._discover_kasa import look
from commands._discovery import EXIT_FAILED, EXIT_PARTLY
from tests.commands.bench import orchestrator
from tests.workers.kasa_devices import ACCOUNT, Home, Klap, Legacy


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)


def switched(question: Any) -> bool:
    return "set_" in str(question)


@pytest.mark.usefixtures("account")
def test_every_plug_is_named_and_the_block_passes_the_check(tmp_path: Path) -> None:
    devices = (
        *(Legacy(1, alias="Fridge Plug"), Legacy(2, outlets=("Kettle", "TV", "TV")), Legacy(3, meter=False)),
        *(Klap(4, alias="Fridge Plug"), Klap(5, version=1, alias="\x1b[31mEvil\n[sources.x]")),
        Klap(6, outlets=("Left", "Right")),
    )
    with Home(*devices) as home:
        found = look(home.broadcast, 2.0)
        assert not any(switched(question) for device in devices for question in device.questions)
    assert found.status == 0, found
    text = "\n".join(found.lines)
    assert f'{home.at(1)}: HS110(UK) "Fridge Plug", MAC 50:C7:BF:00:11:01, firmware 1.0.4' in text
    assert f'{home.at(2)}: HS300(US) "Fridge"' in text
    assert '  outlet 1: "Kettle"\n  outlet 2: "TV"' in text
    assert ": no meter" in text
    assert "(KLAP)" in text
    assert all(line.isprintable() for line in found.lines)
    file = tmp_path / "site.toml"
    file.write_text(found.block)
    done = orchestrator("check", "--config", file, environment=ACCOUNT)
    assert done.returncode == 0, done.stderr + found.block
    assert "1 source, 8 devices" in done.stdout
    for name in ("fridge-plug", "fridge-plug-2", "kettle", "tv", "tv-2", "left", "right"):
        assert f'name = "{name}"' in found.block
    assert 'username_env = "KASA_USERNAME"' in found.block
    assert not any(secret in found.block for secret in ACCOUNT.values())


def test_a_locked_plug_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ACCOUNT:
        monkeypatch.delenv(name, raising=False)
    newest = Klap(3)
    newest.encrypt_type = "TPAP"
    with Home(Legacy(1), Klap(2), newest) as home:
        found = look(home.broadcast, 2.0)
    assert found.status == EXIT_PARTLY
    assert [one["host"] for one in found.found] == [home.at(1)]
    locked, unknown = found.problems
    assert locked.startswith(f"{home.at(2)}: P110(UK), MAC 50:C7:BF:00:11:02: it wants an account")
    assert "set KASA_USERNAME and KASA_PASSWORD in the environment" in locked
    assert "its firmware speaks something that python-kasa" in unknown
    assert home.at(2) not in found.block


def test_a_network_without_plugs_says_what_to_try() -> None:
    with Home() as home:
        found = look(home.broadcast, 0.3)
    assert (found.status, found.lines, found.block) == (EXIT_FAILED, [], "")
    assert any("--target 192.168.1.255" in words for words in found.what_now)
