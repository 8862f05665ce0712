"""`orchestrator.py support`: what helps is in it, and not one of the secrets that are planted everywhere."""

from __future__ import annotations

import base64
import io
import json
import os
import sqlite3
import stat
import tarfile
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands._masking import MASK, Masking, dresses
from tests.commands.bench import orchestrator
from tests.faults.house import House
from tests.peers.process import wait_for

SECRETS = {
    "INFLUX_TOKEN": "iNfLuX-t0ken==/+abc",
    "MQTT_PASSWORD": "pass word with blanks",
    "KASA_USERNAME": "ann.other@example.com",
    "KASA_PASSWORD": 'qu"ote\\d-kasa',
    "UNUSED_SECRET": "nobody-names-me-9",
}
MAC = "a4:cf:12:0b:77:3e"
BARE_MAC = "1234567890AB"
SSID = "The Neighbours' WiFi"
TUYA_KEY = "k3y-0f-the-kettl"
IN_A_URL = "url-Pa55word"
PASTED = "pasted-by-mistake-77"
LOG_ONLY = "only-in-the-log-4711"
CONFIG = f"""
[site]
name = "proof"
data_dir = "{{data_dir}}"
[api]
enabled = false
[sources.plugs]
kind = "kasa"
username_env = "KASA_USERNAME"
password_env = "KASA_PASSWORD"
[[sources.plugs.devices]]
name = "fridge"
host = "192.168.1.20"
device_id = "{MAC}"
[sources.tuya]
kind = "tuya"
keys_file = "{{keys_file}}"
[[sources.tuya.devices]]
name = "kettle"
id = "bf0123456789abcdef01ab"
[outputs.influx]
url = "http://127.0.0.1:1"
token_env = "INFLUX_TOKEN"
[outputs.mqtt]
port = 1
username = "herd"
password_env = "MQTT_PASSWORD"
[outputs.csv]
"""
LOG = f"""\
2026-11-28T04:08:15.799Z INFO parent: the house runs: writer, source.plugs
2026-11-28T04:08:16.100Z WARNING plugs: {MAC} at 192.168.1.20 joined ssid={SSID}
2026-11-28T04:08:16.200Z WARNING plugs: essid: "{SSID}", psk: {LOG_ONLY}
2026-11-28T04:08:16.300Z ERROR influx: Authorization: Token {SECRETS["INFLUX_TOKEN"]} was refused by 81.2.69.142
2026-11-28T04:08:16.400Z ERROR influx: http://herd:{IN_A_URL}@nas:8086/write?token={LOG_ONLY}
2026-11-28T04:08:16.500Z ERROR mqtt: password={SECRETS["MQTT_PASSWORD"]}, try again
2026-11-28T04:08:16.600Z ERROR tuya: {{"id": "bf0123456789abcdef01ab", "local_key": "{LOG_ONLY}", "mac": "{BARE_MAC}"}}
2026-11-28T04:08:16.700Z ERROR old: UNUSED_SECRET is {SECRETS["UNUSED_SECRET"]}
2026-11-28T04:08:16.800Z ERROR basic: Basic {base64.b64encode(b"herd:" + SECRETS["MQTT_PASSWORD"].encode()).decode()}
2026-11-28T04:08:16.900Z ERROR url: q={urllib.parse.quote(SECRETS["MQTT_PASSWORD"])}
"""
PLANTED = [*SECRETS.values(), MAC, BARE_MAC, SSID, TUYA_KEY, IN_A_URL, PASTED, LOG_ONLY, "81.2.69.142"]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A configuration with secrets wherever some may be, and a log and an outbox that have them too."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([{"id": "bf0123456789abcdef01ab", "name": "Kettle", "key": TUYA_KEY}]))
    keys.chmod(0o600)
    lines = [f"{name}='{value.replace(chr(92), chr(92) * 2)}'" for name, value in SECRETS.items()]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    (tmp_path / ".env").chmod(0o600)
    (tmp_path / "site.toml").write_text(CONFIG.format(data_dir=tmp_path / "var", keys_file=keys))
    (tmp_path / "log").write_text(LOG)
    (tmp_path / "var").mkdir()
    with sqlite3.connect(tmp_path / "var" / "outbox.db") as outbox:
        outbox.executescript(
            "CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB);"
            "CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, at_utc TEXT DEFAULT CURRENT_TIMESTAMP, origin TEXT,"
            " reason TEXT, body BLOB);"
        )
        body = f"reading of {MAC} with token {SECRETS['INFLUX_TOKEN']}".encode()
        outbox.execute("INSERT INTO dead_letter (origin, reason, body) VALUES ('output influx', '400: no', ?)", (body,))
    return tmp_path


def packed(folder: Path, *words: str) -> dict[str, str]:
    bundle = folder / "bundle.tar.gz"
    bundle.unlink(missing_ok=True)
    done = orchestrator(
        "support", "--config", folder / "site.toml", "--output", bundle, "--log", folder / "log", *words
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(bundle.read_bytes())) as tar:
        for entry in tar:
            assert entry.name.startswith("bundle/")
            content = tar.extractfile(entry)
            assert content
            texts[entry.name.removeprefix("bundle/")] = content.read().decode()
    for text in (*texts.values(), done.stdout, done.stderr):
        for secret in PLANTED:
            for dress in dresses(secret):
                assert dress not in text, f"{secret} is there"
    return texts


def test_what_helps_is_in_it_and_no_secret_is_in_any_file(house: Path) -> None:
    texts = packed(house)
    assert {*texts} == {
        "README.txt",
        "config/site.toml",
        "versions.txt",
        "check.txt",
        "status.txt",
        "verify.txt",
        "audit.txt",
        "log.txt",
        "outbox.db.json",
        "history.db.json",
        "machine.txt",
    }
    assert 'token_env = "INFLUX_TOKEN"' in texts["config/site.toml"], "the name of a variable is no secret"
    assert 'device_id = "mac-1"' in texts["config/site.toml"]
    assert "mac-1 at 192.168.1.20 joined" in texts["log.txt"], "the same one has the same name"
    assert "was refused by public-address-1" in texts["log.txt"]
    assert "the house runs: writer, source.plugs" in texts["log.txt"]
    assert "good. 2 sources" in texts["check.txt"]
    assert "output influx" in texts["verify.txt"] or "packages" in texts["verify.txt"]
    assert "MemTotal" in texts["machine.txt"]
    assert "msgspec==" in texts["versions.txt"]
    outbox = json.loads(texts["outbox.db.json"])
    assert outbox["rows"] == {"state": 0, "dead_letter": 1}
    assert [(one["origin"], one["count"]) for one in outbox["dead letters"]] == [("output influx", 1)]
    assert "reading of" not in texts["outbox.db.json"]
    for name in texts:
        assert name in texts["README.txt"] or name == "README.txt"


def test_dead_letters_come_along_where_wished_masked_as_all_else(house: Path) -> None:
    assert "reading of mac-" in packed(house, "--with-dead-letters")["outbox.db.json"]


def test_a_configuration_with_mistakes_and_secrets_in_the_wrong_place_is_packed_too(house: Path) -> None:
    broken = (
        f'[outputs.influx]\nurl = "http://herd:{IN_A_URL}@nas:8086"\ntoken_env = "{PASTED}"\ntoken = "{LOG_ONLY}"\n'
    )
    (house / "site.toml").write_text(broken)
    texts = packed(house)
    assert "status 2" in texts["check.txt"]
    assert f'token_env = "{MASK}"' in texts["config/site.toml"]
    assert f"http://{MASK}@nas:8086" in texts["config/site.toml"]


@pytest.mark.long
def test_a_running_house_is_described_and_left_alone(tmp_path: Path) -> None:
    house = House(tmp_path, "[outputs.csv]\n[outputs.history]\n", ["a"])
    try:
        house.started()
        house.post({"device": "a", "power_w": 5.0, "pulses_total": 1})
        wait_for(lambda: house.metric("wattherd_output_delivered_total", output="history"), "the reading")
        bundle = tmp_path / "b.tar.gz"
        done = orchestrator("support", "--json", "--config", house.config, "--output", bundle, "--log", house.log_path)
        told = json.loads(done.stdout)
        assert told["file"] == str(bundle)
        assert {one["name"] for one in told["members"]} >= {"status.txt", "audit.txt", "log.txt"}
        with tarfile.open(bundle) as tar:
            status = tar.extractfile("b/status.txt")
            assert status and b"and is well" in status.read()
        assert house.stop() == 0
    finally:
        house.kill()


def test_nothing_is_overwritten_and_half_a_bundle_is_none(house: Path) -> None:
    (house / "there.tar.gz").write_text("mine")
    words = ("support", "--config", house / "site.toml", "--output")
    done = orchestrator(*words, house / "there.tar.gz")
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert (house / "there.tar.gz").read_text() == "mine"
    done = orchestrator(*words, house / "nowhere" / "b.tar.gz")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_the_default_name_has_the_date_and_lies_here(house: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = orchestrator("support", "--config", house / "site.toml", "--log", house / "log", cwd=here)
    assert done.returncode == 0
    [bundle] = here.iterdir()
    assert bundle.name.startswith("wattherd-support-2")
    assert bundle.name in done.stdout


@given(st.text("abcXYZ019 '\"\\$#=é{}&%+/@:.-", min_size=4, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_a_known_secret_is_in_no_masked_text(secret: str, before: str, after: str) -> None:
    masking = Masking([secret])
    for dress in dresses(secret):
        masked = masking.mask(before + dress + after)
        if secret not in MASK and MASK not in secret:
            assert secret not in masked or secret in before + after or _straddles(secret, masked)


def _straddles(secret: str, masked: str) -> bool:
    """A mask may happen to complete it out of what stands around, if it is made of such characters itself."""
    return any(char in secret for char in "*") or secret in masked.replace(MASK, "")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("X-API-Key: abc-def", f"X-API-Key: {MASK}"),
        ("wpa_passphrase=my own words, next", f"wpa_passphrase={MASK}, next"),
        ('{"psk":"a b c","n":1}', f'{{"psk":"{MASK}","n":1}}'),
        ("Serial\t\t: 10000000abcdef01", f"Serial\t\t: {MASK}"),
        ("key_hash = 'sha256:abc'", "key_hash = 'sha256:abc'"),
        ("PRIMARY KEY (id), 3 keys", "PRIMARY KEY (id), 3 keys"),
        ("this key is missing; token_env = INFLUX_TOKEN", "this key is missing; token_env = INFLUX_TOKEN"),
        ("wrote to ann@example.org", f"wrote to {MASK}@{MASK}"),
        ("at 10.0.0.7, 8.8.8.8 and 8.8.8.8", "at 10.0.0.7, public-address-1 and public-address-1"),
        ("b8-27-eb-00-11-22 is B8:27:EB:00:11:22 is b827eb001122", "mac-1 is mac-1 is mac-1"),
        ("2026-11-28T04:08:15.799Z took 12:34:56", "2026-11-28T04:08:15.799Z took 12:34:56"),
    ],
)
def test_what_looks_like_a_secret_is_masked_and_nothing_else(text: str, masked: str) -> None:
    assert Masking([]).mask(text) == masked


def test_the_bundle_of_a_house_that_never_ran_says_so(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(f'[site]\ndata_dir = "{tmp_path}/var"\n[outputs.csv]\n')
    bundle = tmp_path / "b.tar.gz"
    done = orchestrator("support", "--config", tmp_path / "site.toml", "--output", bundle)
    assert done.returncode == 0, done.stderr
    with tarfile.open(bundle) as tar:
        told = tar.extractfile("b/outbox.db.json")
        assert told and b"there is no" in told.read()
    assert os.listdir(tmp_path) == ["site.toml", "b.tar.gz"] or {*os.listdir(tmp_path)} == {"site.toml", "b.tar.gz"}
