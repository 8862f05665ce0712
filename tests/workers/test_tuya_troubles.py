"""The Tuya source when things go wrong: keys, silence, other clients, bad messages, and one device among others."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import logs
from tests.peers.process import wait_for
from tests.workers.tuya_devices import PORT, QUERY, REFRESH, Device, a_plug, an_address, black_hole, plugged_in
from tests.workers.tuya_house import House, a_source, house, keys_file, meter, options
from workers import SourceError
from workers.tuya import Tuya

PLUG = {"current_a": 0.412, "power_w": 86.1, "voltage_v": 238.4}


@pytest.mark.parametrize("ends_strangers", [False, True])
@pytest.mark.parametrize("version", ["3.3", "3.4", "3.5"])
def test_a_wrong_key_troubles_its_device_alone(tmp_path: Path, version: str, ends_strangers: bool) -> None:
    bad = Device(version, key="new-key-after-it", device_id="bf0badbadbad", ends_strangers=ends_strangers)
    good = Device(version)
    file = keys_file(tmp_path, good, Device(device_id=bad.device_id))
    with house(tmp_path, [bad, good], meter(bad, "bad"), meter(good), keys_file=file, timeout_s=0.4) as home:
        trouble = home.until_trouble("run the wizard again: .venv/bin/python -m tinytuya wizard", "bad")
        assert "key" in trouble
        home.until("plug", **PLUG)
        assert home.source.troubles.keys() == {"bad"}
        assert {reading.device for reading in home.readings} == {"plug"}
        assert bad.bad_keys
        bad.key = good.key  # paired again, and the wizard has been told
        home.hears("bad")
        assert not home.source.troubles


def test_a_wrong_key_is_told_in_every_version_that_is_tried(tmp_path: Path) -> None:
    bad = Device("3.3", key="new-key-after-it", ends_strangers=True)
    with house(tmp_path, [bad], meter(bad, version="auto"), keys_file=keys_file(tmp_path, Device())) as home:
        assert home.until_trouble("its key does not fit")
        assert not home.readings


@pytest.mark.parametrize("version", ["auto", "3.3", "3.5"])
def test_a_device_that_says_nothing_is_told_with_what_may_hold_it(tmp_path: Path, version: str) -> None:
    silent = Device("3.3", is_silent=True)
    with house(tmp_path, [silent], meter(silent, version=version), timeout_s=0.2, patience={"probe_s": 0.2}) as home:
        trouble = home.until_trouble("takes the connection and says nothing")
        assert "close the phone app, Home Assistant" in trouble
        assert ("every version" if version == "auto" else f"version {version} was tried") in trouble
        silent.is_silent = False
        silent.version = "3.3" if version == "auto" else version
        home.hears()
        assert not home.source.troubles


def test_a_device_that_falls_silent_is_reached_again_and_tells_nothing_old(tmp_path: Path) -> None:
    device = Device("3.4")
    with house(tmp_path, [device], timeout_s=0.3) as home:
        home.hears()
        device.is_silent = True
        home.until_trouble("says nothing; another app holds it")
        assert home.round() == []
        device.is_silent = False
        home.hears()
        home.until_well()


@pytest.mark.parametrize("version", ["3.3", "3.4"])
def test_another_app_that_holds_the_only_connection_is_named(tmp_path: Path, version: str) -> None:
    device = Device(version)
    with socket.create_connection((device.host, PORT)) as app:
        wait_for(lambda: device.clients, "the app to be connected")
        with house(tmp_path, [device], timeout_s=0.5) as home:
            trouble = home.until_trouble("takes the connection and hangs up")
            assert "most let only one speak to them: close the phone app, Home Assistant" in trouble
            app.close()
            home.hears()
            assert not home.source.troubles


def test_nobody_at_an_address_is_told(tmp_path: Path) -> None:
    gone = Device()
    with house(tmp_path, [gone]) as home:
        home.hears()
        gone.unplug()
        assert "refuses the connection; most let only one" in home.until_trouble("refuses")
        gone.plug_in()
        home.hears()
    with black_hole() as host:
        file = keys_file(tmp_path, gone)
        table = meter(gone, host=host)
        source = a_source(options(table, keys_file=str(file), timeout_s=0.2))
        try:
            source.open()
            assert House(source).until_trouble(f"nobody answers at {host}; see that it has power")
        finally:
            source.close()


def test_a_black_hole_changes_nothing_for_the_others(tmp_path: Path) -> None:
    """Measured: the longest gap in what the others tell, with a plug that swallows everything and one that is mute."""

    def longest_gap_s(tables: list[dict[str, Any]], devices: list[Device]) -> float:
        file = keys_file(tmp_path, *devices, *(Device(device_id=table["id"]) for table in tables[2:]))
        source = a_source(options(*tables, keys_file=str(file), interval_s=0.1, timeout_s=30))
        home = House(source)
        try:
            source.open()
            for device in devices:
                home.until(device.device_id[-5:], **PLUG)
            home.readings.clear()
            ends_s = time.monotonic() + 1.5
            longest_read_s = 0.0
            while (began_s := time.monotonic()) < ends_s:
                home.round()
                longest_read_s = max(longest_read_s, time.monotonic() - began_s)
            assert longest_read_s < 10, "whoever waits for the dead one waits for 30 s"
            assert source.links.keys() == {table["id"] for table in tables}
        finally:
            source.close()
        gaps = []
        for device in devices:
            times = [reading.at_ns for reading in home.readings if reading.device == device.device_id[-5:]]
            assert len(times) >= 2
            gaps += [(after - before) / 1e9 for before, after in itertools.pairwise(times)]
        return max(gaps)

    devices = [Device("3.3", device_id="bf000000good1"), Device("3.5", device_id="bf000000good2")]
    mute = Device(is_silent=True, device_id="bf000000mute")
    tables = [meter(device, device.device_id[-5:]) for device in devices]
    with plugged_in(*devices, mute), black_hole() as host:
        alone_s = longest_gap_s(tables, devices)
        dead = [meter(mute, "dead", id="bf000000dead", host=host), meter(mute, "mute")]
        beside_s = longest_gap_s([*tables, *dead], devices)
    print(f"longest gap alone {alone_s:.3f} s, beside two that are dead {beside_s:.3f} s")
    assert beside_s < 10


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    device = Device()
    with plugged_in(device):
        file = keys_file(tmp_path, device, mode=0o644)
        source = a_source(options(meter(device), keys_file=str(file)))
        with pytest.raises(SourceError, match=f"others may read it .mode 644.; run: chmod 600 {file}"):
            source.open()
        source.close()
        assert not device.connections


def test_the_keys_that_the_wizard_fetches_anew_are_taken(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device]) as home:
        home.hears()
        device.key = "paired-once-more"
        device.drop()
        home.until_trouble("its key does not fit")
        file = keys_file(tmp_path, device, mode=0o644)
        home.until_trouble(f"others may read it (mode 644); run: chmod 600 {file}")
        file.chmod(0o600)
        with pytest.raises(SourceError, match="has new keys; there is nothing to do"):
            home.round()
        home.source.close()
        home.source.open()  # as the runtime does
        home.hears()
        assert not home.source.troubles
        file.write_text(file.read_text() + "\n")  # nothing new in it
        home.hears()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no .*; run the wizard there .*python -m tinytuya wizard"),
        ("<html>", "is no list of devices; let the wizard write it anew"),
        ("[]", "it has no key in .*; let the wizard fetch the keys again"),
        ('[{"id": "bf0123456789abcdefghij", "key": "0123"}]', "its key has 4 characters instead of 16"),
        ('[{"id": "bf0123456789abcdefghij", "key": "0123456789abcde€"}]', "characters that no key has"),
    ],
)
def test_a_missing_or_broken_key_is_told(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    table = {"name": "plug", "id": "bf0123456789abcdefghij", "host": "192.0.2.1"}
    source = a_source(options(table, keys_file=str(file)))
    with pytest.raises(SourceError, match=words):
        source.open()
    source.close()


def test_a_device_without_a_key_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("3.4", key="a b$c'd\\e\"f{g}h<")  # taken literally
    monkeypatch.setenv("KETTLE_KEY", device.key)
    tables = [
        meter(device, key_env="KETTLE_KEY"),
        {"name": "lost", "id": "bfffffffffff"},
        {"name": "short", "id": "bfeeeeeeeeee", "key_env": "SHORT_KEY"},
    ]
    monkeypatch.setenv("SHORT_KEY", "abcd")
    with house(tmp_path, [device], *tables, keys_file=tmp_path / "absent.json") as home:
        home.until("plug", **PLUG)
        assert home.source.troubles.keys() == {"lost", "short"}
        assert "there is no" in home.source.troubles["lost"]
        assert "its key has 4 characters instead of 16 in SHORT_KEY; put" in home.source.troubles["short"]


def test_no_key_is_ever_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    device = Device("3.4", key="SECRETsecret1234")
    with caplog.at_level(logging.DEBUG), house(tmp_path, [device]) as home:
        home.hears()
        device.drop()
        home.hears()
        shown = repr(home.source.links[device.device_id].plan) + str(home.source.troubles) + caplog.text
        assert device.key not in shown
        record = logging.makeLogRecord({"msg": f"the key {device.key} leaks", "name": "x"})
        assert device.key.encode() not in logs.format_line(record, journal=False)


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3, bytes(64), b"\0\0\x55\xaa" + b"\xff" * 40, b"\0\0\x66\x99" + bytes(60)],
)
def test_nonsense_is_counted_and_the_connection_made_anew(tmp_path: Path, said: bytes) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], interval_s=0.2) as home:
        home.hears()
        device.say(said)
        wait_for(lambda: home.round() is not None and device.connections > 1, "another connection")
        home.hears()
        home.until_well()


def test_values_that_cannot_be_are_refused_and_counted(tmp_path: Path) -> None:
    device = Device("3.3", dps={"18": "412", "19": 10**15, "20": 2384, "21": None, "x": 1})
    with house(tmp_path, [device], meter(device, product="plug-a")) as home:
        home.until("plug", voltage_v=238.4)
        home.until_trouble("data point 18: it is no number, and is refused; correct product")
        assert home.source.refused["malformed"]
        assert home.source.refused["out_of_range"]
        device.dps = a_plug()
        home.until_well()


def test_a_product_that_nobody_knows_is_told_with_its_data_points(tmp_path: Path) -> None:
    device = Device("3.3", dps={"1": True, "2": "cold", "33": 7})
    with house(tmp_path, [device]) as home:
        assert "(data points 1, 2, 33); set product" in home.until_trouble("it is no product that is known")
        assert not home.readings


def test_a_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], meter(device, channel="b")) as home:
        home.until_trouble("""it has no channel 'b'; set channel to "", or correct product""")
        assert not home.readings


def test_a_message_about_another_device_is_refused(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], interval_s=60) as home:
        home.hears()
        device.push({"19": 9990}, devId="somebody-else")
        wait_for(lambda: home.round() is not None and home.source.refused["unknown_device"], "the refusal")
        assert all(reading.values.get("power_w") != 999.0 for reading in home.readings)


def test_a_device_that_sends_without_end_is_left_alone(tmp_path: Path) -> None:
    device, other = Device("3.3"), Device("3.3", device_id="bf000000000other")
    with house(tmp_path, [device, other], interval_s=5) as home:
        home.hears()
        for _ in range(400):
            device.push({"19": 1000})
        home.until_trouble("it sends without end")
        assert home.source.refused["too_many"] == 1
        assert len([one for one in home.readings if one.device == "plug"]) < 100, "one reading a round at most"
        other.push({"19": 500})
        home.until("plug1", power_w=50.0)


def test_a_device_that_is_there_and_mute_is_told(tmp_path: Path) -> None:
    device = Device("3.4", is_mute=True)
    patience = {"mute_after_s": 0.3, "beat_s": 0.1}
    with house(tmp_path, [device], patience=patience, timeout_s=0.2) as home:
        home.until_trouble("it is there and tells no numbers")
        device.is_mute = False
        home.hears()
        assert device.connections == 1


def test_who_was_asleep_believes_nothing_that_waits(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], interval_s=60, stale_after_s=0.5) as home:
        home.hears()
        device.push({"19": 7770})
        home.source._awake_s -= 1000  # as if this process had been stopped for so long
        home.hears()
        home.round()
        assert home.source.refused["stale"] == 1
        assert all(reading.values.get("power_w") != 777.0 for reading in home.readings)
        assert device.connections == 2


def test_a_device_that_tells_the_same_for_ever_under_load_is_not_believed(tmp_path: Path) -> None:
    device = Device("3.3")
    with house(tmp_path, [device], frozen_after_s=0.3) as home:
        home.until("plug", **PLUG)
        home.until_trouble("it has told the very same for 0.005 minutes, from memory as it seems")
        assert home.source.refused["stale"]
        assert home.round() == []
        device.dps["20"] = 2385
        home.until("plug", **{**PLUG, "voltage_v": 238.5})
        assert not home.source.troubles


def test_a_device_without_load_may_tell_the_same_for_ever(tmp_path: Path) -> None:
    device = Device("3.3", dps={"18": 0, "19": 0, "20": 2384})
    with house(tmp_path, [device], frozen_after_s=0.2) as home:
        home.hears()
        ends_s = time.monotonic() + 0.5
        while time.monotonic() < ends_s:
            home.round()
        home.hears()
        assert not home.source.troubles


def test_a_read_without_an_open_source_is_no_crash(tmp_path: Path) -> None:
    source = Tuya("plugs", options({"name": "plug", "id": "bf0123456789"}, keys_file=str(tmp_path / "x")))
    with pytest.raises(SourceError, match="not open"):
        source.read()
    source.close()


def test_what_stays_of_a_key_file_is_in_the_shape_of_the_wizard(tmp_path: Path) -> None:
    """Both shapes that tinytuya itself reads: a list, and a list in an object."""
    device = Device("3.4")
    file = keys_file(tmp_path, device)
    file.write_text(json.dumps({"devices": json.loads(file.read_text())}))
    with house(tmp_path, [device], keys_file=file) as home:
        home.until("plug", **PLUG)
        assert device.commands(REFRESH, QUERY, 0x10)


def test_an_address_where_nobody_listens_costs_nothing_but_a_trouble(tmp_path: Path) -> None:
    device = Device()
    with house(tmp_path, [device], meter(device), meter(device, "gone", id="bf00000gone", host=an_address())) as home:
        home.source.troubles.clear()
    file = keys_file(tmp_path, device, Device(device_id="bf00000gone"))
    other = Device(device_id=device.device_id)
    tables = [meter(other), meter(other, "gone", id="bf00000gone", host=an_address())]
    with house(tmp_path, [other], *tables, keys_file=file) as home:
        home.until("plug", **PLUG)
        home.until_trouble("refuses the connection", "gone")
        assert home.source.troubles.keys() == {"gone"}
