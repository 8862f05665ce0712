"""Who may use what: judged from rights and groups as the kernel shows them, with the command that mends it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commands._configuration import read
from commands._doctor import Finding, Mark
from commands._doctor.machine import node, who
from commands._doctor.rights import check_devices, check_realtime
from config.settings import Settings
from tests.commands.doctor.trees import Machine

ALL = """
[sources.pulse]
kind = "pulse"
core = 3
[sources.clamps]
kind = "mcp3008"
[[sources.clamps.devices]]
name = "a"
channel = 0
[sources.rails]
kind = "ina219"
[[sources.rails.devices]]
name = "b"
address = 0x40
[sources.shunts]
kind = "pzem"
port = "/dev/ttyUSB0"
[[sources.shunts.devices]]
name = "c"
unit = 1
model = "017"
shunt_a = 100
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to a group")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "site.toml").write_text(ALL)
    return read(tmp_path / "site.toml")


def by_source(findings: list[Finding]) -> dict[str, Finding]:
    return {one.part.removeprefix("source "): one for one in findings if one.check.startswith("device")}


def with_devices(machine: Machine) -> Machine:
    for path, group in (("gpiochip0", 997), ("spidev0.0", 999), ("i2c-1", 998), ("ttyUSB0", 20)):
        machine.device(f"dev/{path}", 0o660, group)
    return machine


@needs_root
def test_whoever_is_in_the_groups_may_use_every_bus(tmp_path: Path, settings: Settings) -> None:
    machine = with_devices(Machine(tmp_path / "m", groups="20 997 998 999"))
    found = by_source([*check_devices(settings, who(machine.pid, machine.root), machine.root)])
    assert {name: one.mark for name, one in found.items()} == dict.fromkeys(
        ("pulse", "clamps", "rails", "shunts"), Mark.GOOD
    )
    assert found["rails"].what == "pi may use /dev/i2c-1"


@needs_root
def test_whoever_is_in_none_is_told_the_command_for_each(tmp_path: Path, settings: Settings) -> None:
    machine = with_devices(Machine(tmp_path / "m"))
    found = by_source([*check_devices(settings, who(machine.pid, machine.root), machine.root)])
    assert {one.mark for one in found.values()} == {Mark.WRONG}
    for source, group in (("pulse", "gpio"), ("clamps", "spi"), ("rails", "i2c"), ("shunts", "dialout")):
        assert found[source].what_now.startswith(f"run: sudo usermod -aG {group} pi")


@needs_root
def test_a_group_that_was_joined_after_the_start_counts_with_the_next_one(tmp_path: Path, settings: Settings) -> None:
    machine = with_devices(Machine(tmp_path / "m", by_file="i2c"))
    found = by_source([*check_devices(settings, who(machine.pid, machine.root), machine.root)])
    assert found["rails"].what_now == "the group i2c counts from then on: restart the house"
    ours = by_source([*check_devices(settings, who(None, machine.root), machine.root)])
    assert "log out and in again" in ours["rails"].what_now


@needs_root
def test_a_device_of_root_alone_is_given_to_the_usual_group(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path / "m", groups="997")
    machine.device("dev/gpiochip0", 0o600, 0)
    found = by_source([*check_devices(settings, who(machine.pid, machine.root), machine.root)])
    assert "sudo chgrp gpio /dev/gpiochip0" in found["pulse"].what_now


def test_a_bus_that_is_not_there_is_told_how_to_be_switched_on(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path / "m")
    found = by_source([*check_devices(settings, who(machine.pid, machine.root), machine.root)])
    assert "raspi-config nonint do_i2c 0" in found["rails"].what_now
    assert "raspi-config nonint do_spi 0" in found["clamps"].what_now
    assert "ls /dev/serial/by-id" in found["shunts"].what_now
    assert {one.mark for one in found.values()} == {Mark.WRONG}


def test_a_port_by_its_number_is_to_be_named_by_what_stays(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path / "m", uid=0)
    machine.write("dev/ttyUSB0", "")
    found = [*check_devices(settings, who(machine.pid, machine.root), machine.root)]
    [moves] = [one for one in found if one.check == "serial.stays"]
    assert moves.mark is Mark.MIND
    assert "by-id or by-path" in moves.what_now
    (machine.root / "dev/serial/by-id").mkdir(parents=True)
    (machine.root / "dev/serial/by-id/usb-1a86-if00").symlink_to(machine.root / "dev/ttyUSB0")
    found = [*check_devices(settings, who(machine.pid, machine.root), machine.root)]
    [moves] = [one for one in found if one.check == "serial.stays"]
    assert moves.what_now.endswith('port = "/dev/serial/by-id/usb-1a86-if00"')
    assert node("/dev/serial/by-id/usb-1a86-if00", who(machine.pid, machine.root), machine.root).by_id == ""


@pytest.mark.parametrize(
    ("rights", "mark"),
    [
        ({"uid": 0}, Mark.GOOD),
        ({"caps": "0000000000800000"}, Mark.GOOD),
        ({"rtprio": 90}, Mark.GOOD),
        ({"rtprio": "unlimited"}, Mark.GOOD),
        ({"rtprio": 49}, Mark.MIND),
        ({}, Mark.MIND),
    ],
)
def test_real_time_is_a_right_that_is_there_or_told_how_to_get(
    tmp_path: Path, settings: Settings, rights: dict[str, str], mark: Mark
) -> None:
    machine = Machine(tmp_path / "m", **rights)  # type: ignore[arg-type]
    [finding, core] = check_realtime(settings, who(machine.pid, machine.root), machine.root)
    assert finding.mark is mark
    if mark is Mark.MIND:
        assert "echo 'pi - rtprio 50' | sudo tee /etc/security/limits.d/wattherd.conf" in finding.what_now
    assert core.mark is Mark.NOTE
    assert "isolcpus=3 on the kernel's line" in core.what_now
    machine.write("sys/devices/system/cpu/isolated", "2-3\n")
    [_, core] = check_realtime(settings, who(machine.pid, machine.root), machine.root)
    assert (core.mark, core.what) == (Mark.GOOD, "core 3 is for this source alone")


def test_what_nobody_may_know_is_no_fault(tmp_path: Path, settings: Settings) -> None:
    machine = Machine(tmp_path / "m")
    (machine.root / "proc/4242/limits").unlink()
    finding = next(check_realtime(settings, who(machine.pid, machine.root), machine.root))
    assert finding.mark is Mark.NOTE


def test_our_own_rights_are_those_that_the_kernel_tells() -> None:
    own = who(None)
    assert own.uid == os.getuid()
    assert set(os.getgroups()) <= own.gids
    assert not own.is_house
