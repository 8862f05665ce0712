"""Supply, heat, disk and clock of this machine: each is shown a machine that has the fault."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from commands._configuration import read
from commands._doctor import Mark
from commands._doctor.disk_cost import Cost, cost_of
from commands._doctor.health import ClockFacts, check_clock, check_disk, check_pi
from commands._doctor.machine import (
    Disk,
    disk,
    isolated_cores,
    model,
    real_time_clock,
    temperature_c,
    throttled,
    under_voltage_alarm,
    up_s,
)
from config.settings import Settings
from tests.commands.doctor.trees import Machine

GOOD_DISK = Disk(Path("/"), int(20e9), int(32e9), False, "ext4", True, int(1e9), 86_400.0)
COST = Cost(10.0, 48_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "site.toml").write_text('[outputs.history]\nmost_mb = 500\n[site]\ndata_dir = "/nowhere/var"\n')
    return read(tmp_path / "site.toml")


def test_a_pi_tells_its_supply_and_its_heat(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    machine.write("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    machine.write("sys/class/thermal/thermal_zone0/temp", "81300\n")
    root = machine.root
    found = [*check_pi(model(root), throttled(root), under_voltage_alarm(root), temperature_c(root))]
    assert [(one.check, one.mark) for one in found] == [
        ("machine.model", Mark.NOTE),
        ("machine.supply", Mark.WRONG),
        ("machine.slowed", Mark.MIND),
        ("machine.heat", Mark.MIND),
    ]
    assert found[0].what == "Raspberry Pi 4 Model B Rev 1.4"
    assert "81 °C" in found[3].what


@pytest.mark.parametrize(
    ("bits", "marks"),
    [
        ("0", [Mark.GOOD]),
        ("1", [Mark.WRONG]),
        ("10000", [Mark.MIND]),
        ("20000", [Mark.GOOD, Mark.MIND]),
        ("8", [Mark.GOOD, Mark.MIND]),
    ],
)
def test_each_bit_of_the_firmware_has_its_meaning(tmp_path: Path, bits: str, marks: list[Mark]) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/devices/platform/soc/soc:firmware/get_throttled", bits)
    assert [one.mark for one in check_pi("", throttled(machine.root), None, None)] == marks


def test_without_the_firmware_the_kernels_own_sensor_is_asked(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    machine.write("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    machine.write("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")
    assert throttled(machine.root) is None
    [supply] = check_pi("", None, under_voltage_alarm(machine.root), None)
    assert supply.mark is Mark.WRONG


def test_a_machine_that_tells_nothing_has_nothing_wrong(tmp_path: Path) -> None:
    root = tmp_path
    assert [*check_pi(model(root), throttled(root), under_voltage_alarm(root), temperature_c(root))] == []
    assert (real_time_clock(root), isolated_cores(root), up_s(root)) == ("", frozenset(), 0.0)


@pytest.mark.parametrize(
    ("change", "check", "mark"),
    [
        ({}, "disk.free", Mark.GOOD),
        ({"is_read_only": True}, "disk.writable", Mark.WRONG),
        ({"file_system": "tmpfs"}, "disk.kind", Mark.WRONG),
        ({"file_system": "nfs4"}, "disk.kind", Mark.WRONG),
        ({"free_bytes": 50_000_000}, "disk.free", Mark.WRONG),
        ({"free_bytes": 700_000_000}, "disk.free", Mark.MIND),
        ({"written_bytes": int(9e9)}, "disk.wear", Mark.MIND),
        ({"written_bytes": int(9e9), "is_card": False}, "disk.wear", Mark.NOTE),
    ],
)
def test_a_disk_is_judged_by_what_it_is_and_what_it_has(
    settings: Settings, change: dict[str, int], check: str, mark: Mark
) -> None:
    found = {one.check: one for one in check_disk(settings, replace(GOOD_DISK, **change), COST)}  # type: ignore[arg-type]
    assert found[check].mark is mark
    if mark in (Mark.WRONG, Mark.MIND):
        assert found[check].what_now


def test_what_is_written_is_measured_by_the_kernel_and_what_is_ours_is_reckoned(settings: Settings) -> None:
    found = {one.check: one.what for one in check_disk(settings, GOOD_DISK, COST)}
    assert found["disk.cost"] == "a commit every 10 s writes about 415 MB a day (reckoned: 8,640 commits of 48 kB)"
    assert found["disk.wear"].startswith("all programs together write 1000 MB a day to this disk (measured")


def test_the_cost_follows_the_interval_and_the_outputs(tmp_path: Path) -> None:
    def cost(text: str) -> Cost:
        (tmp_path / "site.toml").write_text(f'[site]\ndata_dir = "{tmp_path}"\n{text}')
        return cost_of(read(tmp_path / "site.toml"))

    one, ten = (cost(f"[writer]\ncommit_interval_s = {s}\n[outputs.csv]") for s in (1, 10))
    assert one.mb_a_day == pytest.approx(10 * ten.mb_a_day)
    both = cost("[writer]\ncommit_interval_s = 10\n[outputs.csv]\n[outputs.history]")
    assert both.bytes_each > ten.bytes_each
    idle = cost("[writer]\ncommit_interval_s = 10\n[outputs.csv]\n[outputs.history]\nenabled = false")
    assert idle.bytes_each == ten.bytes_each
    gathered = cost("[writer]\ncommit_interval_s = 10\nfile_interval_s = 60\n[outputs.csv]\n[outputs.history]")
    assert gathered.mb_a_day < ten.mb_a_day
    assert gathered.file_writes == pytest.approx(gathered.commits / 6)


def test_the_disk_of_this_machine_is_found(tmp_path: Path) -> None:
    found = disk(tmp_path / "not" / "there" / "yet")
    assert found.path == tmp_path
    assert 0 < found.free_bytes <= found.total_bytes
    assert not found.is_read_only
    assert found.up_s > 0


def test_what_is_mounted_tells_its_kind(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    machine = Machine(tmp_path / "m")
    name = f"{os.major(device)}:{os.minor(device)}"
    machine.write("proc/self/mountinfo", f"36 35 {name} / / rw,noatime master:1 - nfs4 server:/x rw\n")
    machine.write(f"sys/dev/block/{name}/stat", "1 2 3 4 5 6 2000 8 9 10 11\n")
    machine.write("proc/uptime", "5000.5 100\n")
    found = disk(tmp_path, machine.root)
    assert found.is_network
    assert (found.written_bytes, found.up_s) == (2000 * 512, 5000.5)


@pytest.mark.parametrize(
    ("facts", "require", "mark", "words"),
    [
        (ClockFacts(True, True, "rtc-pcf8523", False), '"auto"', Mark.GOOD, "a time service has set it"),
        (ClockFacts(False, True, "", False), '"auto"', Mark.MIND, "readings wait for it, 600 s at most"),
        (ClockFacts(False, True, "", True), "false", Mark.MIND, "they are stamped all the same"),
        (ClockFacts(False, False, "", False), '"auto"', Mark.MIND, "nobody sets it"),
    ],
)
def test_a_clock_that_nobody_set_is_told(
    tmp_path: Path, facts: ClockFacts, require: str, mark: Mark, words: str
) -> None:
    (tmp_path / "site.toml").write_text(f"[clock]\nrequire_sync = {require}\n")
    is_set, rtc = check_clock(read(tmp_path / "site.toml"), facts)
    assert is_set.mark is mark
    assert words in is_set.what
    assert ("fake-hwclock" in rtc.what) == facts.is_faked
    assert (rtc.mark is Mark.GOOD) == bool(facts.real_time_clock)


def test_a_clock_of_its_own_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("sys/class/rtc/rtc0/name", "rtc-ds1307 1-0068\n")
    assert real_time_clock(machine.root) == "rtc-ds1307"
