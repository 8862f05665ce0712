"""The house as a service of a real systemd, with the units that are shipped, hardened as they are."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workers
from tests.faults.house import ROOT, House, csv_rows
from tests.peers.namespace import UID, USER
from tests.peers.process import require, wait_for
from tests.peers.systemd import Systemd, running_systemd

SHIPPED = ROOT / "deploy" / "systemd"
DROP_INS = sorted((SHIPPED / "wattherd.service.d").glob("*.conf"))
INSTALL = ("/srv/wattherd/.venv/bin/python", "/srv/wattherd/orchestrator.py", "service", "install")
WORST_SCORE = 2.5


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A house whose configuration uses the names that it has below /srv."""
    house = House(tmp_path / "house", "[outputs.csv]\n[outputs.history]\n", ["a"])
    house.config.write_text(house.config.read_text().replace(str(house.data_dir), "/srv/house/my var"))
    house.data_dir = tmp_path / "house" / "my var"
    return house


@pytest.fixture
def systemd(house: House, tmp_path: Path) -> Iterator[Systemd]:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the virtual environment is not the one of `make install`")
    with running_systemd(tmp_path, {ROOT: "wattherd", house.directory: "house"}) as systemd:
        # There is no journal here.
        systemd.run("mkdir", "-p", "/run/systemd/system/wattherd.service.d")
        drop_in(systemd, "StandardOutput=append:/srv/house/log\nStandardError=append:/srv/house/log")
        yield systemd


def drop_in(systemd: Systemd, lines: str, name: str = "50-test") -> None:
    text = f"[Service]\n{lines}\n"
    file = f"/run/systemd/system/wattherd.service.d/{name}.conf"
    systemd.run("sh", "-c", 'printf "%s" "$1" > "$2"', "sh", text, file)
    systemd.run("systemctl", "daemon-reload")


def install(systemd: Systemd, *more: str) -> str:
    return systemd.run(*INSTALL, "--user", USER, "--config", "/srv/house/site.toml", *more).stdout


def host_pid(systemd: Systemd) -> int:
    """The number that the parent of the house has on this machine."""
    return systemd.main_pid("wattherd.service")


@pytest.mark.long
def test_the_installed_service_measures_survives_its_parent_and_leaves_nobody(house: House, systemd: Systemd) -> None:
    assert "the house runs, and starts with the machine" in install(systemd)
    wait_for(house.is_ready, f"the house to be ready; its log: {house.log_path}", 30)
    shown = systemd.show("wattherd.service", "ActiveState", "StatusText", "UnitFileState", "NRestarts")
    assert shown["ActiveState"] == "active"
    assert shown["UnitFileState"] == "enabled"
    assert shown["StatusText"] == "3 processes run"
    assert house.post({"device": "a", "power_w": 1})[0] == 200

    parent = host_pid(systemd)
    wait_for(lambda: len(systemd.processes("wattherd.service")) == 4, "parent, source, writer and api to be all")
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: systemd.show("wattherd.service", "NRestarts")["NRestarts"] == "1", "another parent", 30)
    wait_for(lambda: host_pid(systemd) not in (0, parent) and house.is_ready(), "the house to be ready again", 40)
    assert house.post({"device": "a", "power_w": 2})[0] == 200

    systemd.run("systemctl", "reload", "wattherd.service")
    wait_for(lambda: "reloaded" in house.log, "the configuration to be read anew")

    def powers() -> list[str]:
        return sorted(row[4] for row in csv_rows(house.data_dir / "csv") if row[3] == "power_w")

    wait_for(lambda: powers() == ["1.0", "2.0"], "both readings to be in the file")
    systemd.run("systemctl", "start", "wattherd-backup.service")  # as the timer does, beside the running house
    [backup] = (house.data_dir / "backups").iterdir()
    assert (backup.stat().st_uid, backup.stat().st_mode & 0o777) == (UID, 0o600)
    systemd.run("systemctl", "stop", "wattherd.service")
    ended = systemd.show("wattherd.service", "Result", "ExecMainStatus", "ActiveState")
    assert ended == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
    assert systemd.processes("wattherd.service") == []
    assert powers() == ["1.0", "2.0"]
    assert {path.stat().st_uid for path in house.data_dir.rglob("*")} == {UID}
    assert "Operation not permitted" not in house.log


def test_what_was_accepted_survives_each_death_of_the_parent(house: House, systemd: Systemd) -> None:
    """Among the first things that systemd does when a parent dies is to clear away, and the writer is not done yet."""
    drop_in(systemd, "RestartSec=100ms", "60-sooner")
    install(systemd)
    accepted = []
    parent = 0
    for deaths in range(5):
        wait_for(house.is_ready, f"the house to be ready; its log: {house.log_path}", 30)
        parent = host_pid(systemd)
        everyone = {*systemd.processes("wattherd.service")}
        for power_w in range(10 * deaths, 10 * deaths + 10):
            assert house.post({"device": "a", "power_w": power_w})[0] == 200
            accepted.append(float(power_w))
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda gone=parent: host_pid(systemd) not in (0, gone), "another parent", 30)
        wait_for(lambda those=everyone: not those & {*systemd.processes("wattherd.service")}, "the old ones to leave")
    wait_for(house.is_ready, "the house to be ready again", 30)
    systemd.run("systemctl", "stop", "wattherd.service")
    assert systemd.processes("wattherd.service") == []
    powers = [float(row[4]) for row in csv_rows(house.data_dir / "csv") if row[3] == "power_w"]
    assert powers == accepted


def test_it_is_as_confined_as_the_unit_says_and_still_knows_whether_the_clock_is_set(
    house: House, systemd: Systemd
) -> None:
    install(systemd)
    wait_for(house.is_ready, f"the house to be ready; its log: {house.log_path}", 30)
    status = Path(f"/proc/{host_pid(systemd)}/status").read_text()
    assert re.search(r"^Uid:\s+4711\s+4711", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"^{capabilities}:\s+0000000000000000$", status, re.MULTILINE)
    systemd.run("systemctl", "stop", "wattherd.service")
    # What one of its processes may and may not do, tried in its place.
    (house.directory / "tried.py").write_text(TRIED)
    drop_in(
        systemd,
        "Type=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
        "ExecStart=/srv/wattherd/.venv/bin/python -B /srv/house/tried.py\nWorkingDirectory=/srv/wattherd",
        "60-tried",
    )
    before = len(house.log)
    systemd.run("systemctl", "start", "wattherd.service")
    tried = dict(line.split(": ", 1) for line in house.log[before:].splitlines())
    assert tried["asks whether the clock is set"] == "yes"
    assert tried["writes its data"] == "yes"
    assert tried["writes beside its data"] == "no"
    assert tried["writes to /etc"] == "no"
    assert tried["sets the clock"] == "no"
    assert tried["uses a device"] == "no"
    assert tried["takes real time"] == "no"
    assert tried["maps memory to write and run"] == "no"
    assert tried["opens a raw socket"] == "no"
    assert tried["opens a TCP socket"] == "yes"
    assert tried["sees other processes"] == "no"
    assert tried["loads every driver"] == "yes"


TRIED = """
import ctypes, errno, importlib, mmap, os, socket, sys, time
sys.path.insert(0, "/srv/wattherd")
from writer.clock import _Timex
libc = ctypes.CDLL(None, use_errno=True)

def tell(what, attempt):
    try:
        answer = "yes" if attempt() else "no"
    except OSError as error:
        answer = "no"
    except ImportError as error:
        answer = f"no: {error}"
    print(f"{what}: {answer}", flush=True)

def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
    return True

tell("asks whether the clock is set", lambda: libc.adjtimex(ctypes.byref(_Timex())) >= 0)
tell("writes its data", lambda: write("/srv/house/my var/x"))
tell("writes beside its data", lambda: write("/srv/house/x"))
tell("writes to /etc", lambda: write("/etc/x"))
tell("sets the clock", lambda: not time.clock_settime(time.CLOCK_REALTIME, time.time()))
tell("uses a device", lambda: os.open("/dev/kmsg", os.O_RDONLY))
tell("takes real time", lambda: not os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
tell("maps memory to write and run", lambda: mmap.mmap(-1, 4096, prot=everything))
tell("opens a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tell("opens a TCP socket", lambda: socket.socket())
tell("sees other processes", lambda: os.path.exists("/proc/1"))
drivers = ["gpiod", "kasa", "minimalmodbus", "paho.mqtt.client", "smbus2", "spidev", "tinytuya", "cryptography.x509"]
tell("loads every driver", lambda: all(importlib.import_module(driver) for driver in drivers))
"""


def test_a_house_that_hangs_is_replaced_by_the_watchdog(house: House, systemd: Systemd) -> None:
    drop_in(systemd, "WatchdogSec=3\nRestartSec=100ms\nTimeoutAbortSec=2", "60-sooner")
    install(systemd)
    parent = host_pid(systemd)
    os.kill(parent, signal.SIGSTOP)
    wait_for(lambda: systemd.show("wattherd.service", "NRestarts")["NRestarts"] == "1", "another parent", 40)
    wait_for(lambda: host_pid(systemd) not in (0, parent) and house.is_ready(), "the house to be ready again", 40)


def test_a_broken_configuration_waits_for_a_person(house: House, systemd: Systemd) -> None:
    drop_in(systemd, "RestartSec=100ms", "60-sooner")
    install(systemd)
    systemd.run("systemctl", "stop", "wattherd.service")
    house.config.write_text("[site]\nnaem = 1\n")
    assert systemd.run("systemctl", "start", "wattherd.service", check=False).returncode != 0
    shown = systemd.show("wattherd.service", "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}
    assert "naem" in house.log


def test_installing_twice_changes_nothing_and_uninstalling_leaves_only_the_data(house: House, systemd: Systemd) -> None:
    install(systemd)
    assert house.post({"device": "a", "power_w": 1})[0] == 200
    parent = host_pid(systemd)
    again = install(systemd)
    assert "changed: none" in again
    assert "the house runs already" in again
    assert host_pid(systemd) == parent
    with house.config.open("a") as configuration:
        configuration.write('[sources.shunts]\nkind = "ina219"\n[[sources.shunts.devices]]\nname = "fridge"\n')
    assert "changed: ina219.conf" in install(systemd)
    wait_for(lambda: host_pid(systemd) not in (0, parent), "the house to have another parent")
    systemd.run(*INSTALL[:-1], "uninstall")
    left = systemd.run("find", "/etc/systemd/system", "/etc/udev/rules.d", "/etc/sysusers.d", "-name", "*wattherd*")
    assert left.stdout == ""
    assert systemd.show("wattherd.service", "LoadState")["LoadState"] in ("not-found", "masked")
    assert csv_rows(house.data_dir / "csv")


# ---- what can be said of the files alone


def score(directory: Path) -> float:
    """The exposure of the unit in `directory` with the drop-ins that lie there, as systemd judges it."""
    analyze = require("systemd-analyze")
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "./wattherd.service"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
    found = re.search(r"Overall exposure level for wattherd.service: ([\d.]+)", judged.stdout)
    assert found, judged.stdout + judged.stderr
    return float(found[1])


@pytest.mark.parametrize("drop_ins", [[], *([each] for each in DROP_INS), DROP_INS], ids=lambda those: str(len(those)))
def test_the_unit_is_hardened_with_whatever_it_grants(drop_ins: list[Path], tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "wattherd.service", tmp_path)
    (tmp_path / "wattherd.service.d").mkdir()
    for file in drop_ins:
        shutil.copy(file, tmp_path / "wattherd.service.d")
    assert score(tmp_path) <= WORST_SCORE


def test_the_score_hears_what_a_drop_in_says(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    shutil.copy(SHIPPED / "wattherd.service", tmp_path)
    (tmp_path / "wattherd.service.d").mkdir()
    (tmp_path / "wattherd.service.d" / "open.conf").write_text("[Service]\nProtectSystem=no\nSystemCallFilter=\n")
    assert score(tmp_path) > WORST_SCORE


@pytest.mark.parametrize("unit", sorted(path.name for path in SHIPPED.glob("wattherd*.*") if path.is_file()))
def test_systemd_has_nothing_to_say_against_the_units(unit: str, tmp_path: Path) -> None:
    analyze = require("systemd-analyze")
    for file in SHIPPED.rglob("*"):
        if file.is_file():
            there = tmp_path / file.relative_to(SHIPPED)
            there.parent.mkdir(exist_ok=True)
            there.write_text(re.sub(r"/home/pi/wattherd/\.venv/bin/python", sys.executable, file.read_text()))
    verified = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", tmp_path / unit],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert verified.returncode == 0, verified.stderr
    assert "nknown" not in verified.stderr, verified.stderr


def test_a_drop_in_belongs_to_a_kind_of_source() -> None:
    assert {file.stem for file in DROP_INS} <= {*workers.kinds()}
