"""`discover tuya`: who says to be there is named with what the wizard knows, and the block passes the check."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands._configuration import catalog
from commands._discover_tuya import look
from commands._discovery import Discovery
from commands._probe import opened
from config.load import load
from tests.peers.process import wait_for
from tests.workers.tuya_devices import Device, a_broadcast, a_plug, an_address, plugged_in
from workers._tuya_broadcast import PORTS
from workers.tuya import Options

PLUG_MAPPING = {
    "19": {"code": "cur_power", "type": "Integer", "values": {"scale": 1, "unit": "W"}},
    "20": {"code": "cur_voltage", "type": "Integer", "values": {"scale": 1, "unit": "V"}},
}
CLAMPS_MAPPING = {
    "101": {"code": "power_a", "type": "Integer", "values": {"scale": 1, "unit": "W"}},
    "105": {"code": "power_b", "type": "Integer", "values": {"scale": 1, "unit": "W"}},
}
LAMP_MAPPING = {"20": {"code": "switch_led", "type": "Boolean", "values": {}}}


@contextmanager
def shouting(address: str, *claims: tuple[str, dict[str, Any] | bytes]) -> Iterator[None]:
    """Devices that say again and again, from an address each, where they are."""
    over = threading.Event()

    def shout() -> None:
        while not over.wait(0.02):
            for host, fields in claims:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
                    mouth.bind((host, 0))
                    data = fields if isinstance(fields, bytes) else a_broadcast(fields)
                    for port in PORTS:
                        mouth.sendto(data, (address, port))

    thread = threading.Thread(target=shout, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def claim(device_id: str, version: str = "3.3") -> dict[str, Any]:
    return {"ip": "10.0.0.1", "gwId": device_id, "productKey": "keyjup78v54myhan", "version": version}


def wizard(folder: Path, *devices: dict[str, Any], mode: int = 0o600) -> str:
    file = folder / "devices.json"
    file.write_text(json.dumps([{"key": "0123456789abcdef", **device} for device in devices]))
    file.chmod(mode)
    return str(file)


def checked(found: Discovery, folder: Path) -> Options:
    """The block, as the configuration takes it."""
    (folder / "site.toml").write_text(found.block)
    [options] = load(folder / "site.toml", catalog()).sources.values()
    assert isinstance(options, Options)
    return options


def listen(address: str, keys_file: str, heard: int, *claims: tuple[str, dict[str, Any] | bytes]) -> Discovery:
    """Look until so many devices are heard in one look."""

    def found() -> Discovery | None:
        discovery = look(keys_file, 0.3, address)
        return discovery if len(discovery.found) >= heard else None

    with shouting(address, *claims):
        return wait_for(found, f"{heard} devices")


def test_devices_are_named_and_their_block_passes_the_check(tmp_path: Path) -> None:
    file = wizard(
        tmp_path,
        {"id": "bf00000plug1", "name": "Küche: Wasserkocher", "product_name": "Plug", "mapping": PLUG_MAPPING},
        {"id": "bf0000clamps", "name": "Verteiler", "mapping": CLAMPS_MAPPING},
        {"id": "bf00000lamp1", "name": "Lampe", "mapping": LAMP_MAPPING},
        {"id": "bf0000silent", "name": "Keller", "last_ip": "192.168.1.44"},
        {"id": "bf000gateway", "name": "Hub", "mapping": {"1": {"code": "alarm"}}},
        {"id": "bf0000child1", "name": "Funkdose", "node_id": "a4c1", "parent": "bf00000plug1"},
    )
    found = listen(
        an_address(),
        file,
        4,
        ("127.9.0.1", claim("bf00000plug1", "3.5")),
        ("127.9.0.2", claim("bf0000clamps", "3.4")),
        ("127.9.0.3", claim("bf00000lamp1")),
        ("127.9.0.20", claim("bf000unknown", "3.1")),
        ("127.9.0.21", b"\0\0\x55\xaa nonsense"),
        ("127.9.0.22", {"from": "app", "ip": "10.0.0.5"}),
    )
    assert found.status == 0, found.problems
    assert found.lines == [
        "127.9.0.1: Küche: Wasserkocher (Plug), id bf00000plug1, version 3.5",
        "127.9.0.2: Verteiler, id bf0000clamps, version 3.4",
        "127.9.0.3: Lampe, id bf00000lamp1, version 3.3, measures nothing",
        "127.9.0.20: unknown, id bf000unknown, version 3.1, it has no key in the file: run the wizard again"
        " (.venv/bin/python -m tinytuya wizard)",
        "not heard: Keller, id bf0000silent, last seen at 192.168.1.44",
        "not heard: Hub, id bf000gateway",
    ]
    assert [one["id"] for one in found.found] == ["bf00000plug1", "bf0000clamps", "bf00000lamp1", "bf000unknown"]
    options = checked(found, tmp_path)
    assert [(one.name, one.id, one.host, one.version, one.channel, one.cid) for one in options.devices] == [
        ("kuche-wasserkocher", "bf00000plug1", "127.9.0.1", "3.5", "", ""),
        ("funkdose", "bf00000plug1", "127.9.0.1", "3.5", "", "a4c1"),
        ("verteiler-a", "bf0000clamps", "127.9.0.2", "3.4", "a", ""),
        ("verteiler-b", "bf0000clamps", "127.9.0.2", "3.4", "b", ""),
        ("plug", "bf000unknown", "127.9.0.20", "3.1", "", ""),
    ]
    assert "0123456789abcdef" not in json.dumps([found.lines, found.found, found.block])


def test_a_block_is_read_as_it_is(tmp_path: Path) -> None:
    device = Device("3.4", a_plug(120.0))
    with plugged_in(device):
        file = wizard(tmp_path, {"id": device.device_id, "name": "Kettle", "key": device.key})
        found = listen(an_address(), file, 1, (device.host, claim(device.device_id, "3.4")))
        with opened("plugs", checked(found, tmp_path), None) as probe:
            reading = wait_for(probe.read, "a reading")[0]
    assert (reading.device, reading.values["power_w"]) == ("kettle", 120.0)


def test_a_file_that_others_may_read_is_told_and_the_devices_all_the_same(tmp_path: Path) -> None:
    file = wizard(tmp_path, {"id": "bf00000plug1", "name": "Kettle"}, mode=0o644)
    found = listen(an_address(), file, 1, ("127.9.0.1", claim("bf00000plug1")))
    assert found.status == 3
    assert [problem for problem in found.problems if f"run: chmod 600 {file}" in problem]
    assert found.lines == ["127.9.0.1: unknown, id bf00000plug1, version 3.3"]


def test_a_silent_network_says_what_to_try(tmp_path: Path) -> None:
    found = look(str(tmp_path / "none.json"), 0.05, an_address())
    assert (found.status, found.block, found.found) == (1, "", [])
    assert any("run the wizard there" in problem for problem in found.problems)
    assert any("UDP 6666, 6667 and 7000" in words for words in found.what_now)


def test_ports_that_another_program_has_are_named(tmp_path: Path) -> None:
    address = an_address()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((address, 6667))
        found = look(wizard(tmp_path), 0.05, address)
    assert any("UDP 6667 is in use by another program" in problem for problem in found.problems)


def test_names_from_the_network_are_none(tmp_path: Path) -> None:
    """Whatever a broadcast holds: nothing of it but an id, a version and a product key is shown or written."""
    evil = '"]\n[sources.evil]\nkind = "x'
    claims = [
        ("127.9.0.1", {**claim("bf00000plug1"), "version": evil, "productKey": evil, "name": evil}),
        ("127.9.0.2", {**claim(evil)}),
    ]
    found = listen(an_address(), wizard(tmp_path), 1, *claims)
    assert len(found.found) == 1
    assert "evil" not in json.dumps([found.lines, found.found, found.block])
    assert checked(found, tmp_path).devices[0].version == "auto"


def test_a_crowd_of_claims_has_an_end(tmp_path: Path) -> None:
    crowd = [("127.9.0.1", claim(f"bf{number:08d}")) for number in range(300)]
    found = listen(an_address(), wizard(tmp_path), 256, *crowd)
    assert len(found.found) == 256
    assert len({device.name for device in checked(found, tmp_path).devices}) == len(found.found)


def test_a_name_of_the_wizard_cannot_break_the_block(tmp_path: Path) -> None:
    names = ['x"\n[evil]', "", "A" * 100, "a", "A", "../../etc", "\ud83d\udd0c"]
    listed = [{"id": f"bf0000000{number}", "name": name} for number, name in enumerate(names)]
    claims = [(f"127.9.0.{number + 1}", claim(f"bf0000000{number}")) for number in range(len(names))]
    options = checked(listen(an_address(), wizard(tmp_path, *listed), len(names), *claims), tmp_path)
    assert [device.name for device in options.devices] == ["x-evil", "plug", "a" * 48, "a", "a-2", "etc", "plug-2"]


def test_a_missing_driver_is_named_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "tinytuya.py").write_text("raise ModuleNotFoundError('hidden', name='tinytuya')\n")
    script = "from commands._discover_tuya import look; print(look('x', 0.01).problems)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"},
        timeout=60,
    )
    assert "the package tinytuya is not installed; run: make install" in done.stdout, done.stderr


@pytest.mark.parametrize("keys_file", ["devices.json", "/etc/wattherd/devices.json"])
def test_the_block_names_the_file_of_the_keys(tmp_path: Path, keys_file: str) -> None:
    found = listen(an_address(), keys_file, 1, ("127.9.0.1", claim("bf00000plug1")))
    assert checked(found, tmp_path).keys_file == keys_file
    assert msgspec.to_builtins(checked(found, tmp_path))["kind"] == "tuya"
