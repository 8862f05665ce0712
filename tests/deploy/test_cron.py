"""The house under a real cron, with the crontab that is shipped."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import ROOT, House, csv_rows
from tests.peers.namespace import UID, Namespace, running_namespace
from tests.peers.process import require, wait_for

SHIPPED = ROOT / "deploy" / "cron" / "wattherd.crontab"
# A spool and a syslog of its own; this machine may have a cron that runs.
BOOT = """
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs
install -m 600 -o meterman -g crontab /srv/crontab/shipped /var/spool/cron/crontabs/meterman
chown 4711:4711 /srv/house
rm -rf /etc/cron.d /etc/crontab /etc/cron.hourly /etc/cron.daily
mkdir /run/dev
for node in null zero full random urandom tty; do touch /run/dev/$node; mount --bind /dev/$node /run/dev/$node; done
mount --rbind /run/dev /dev
/usr/bin/python3 -c '
import socket
syslog = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
syslog.bind("/dev/log")
import os; os.chmod("/dev/log", 0o666)
with open("/srv/house/syslog", "ab", buffering=0) as file:
    while True:
        file.write(syslog.recv(65536) + b"\\n")
' &
while [ ! -S /dev/log ]; do sleep 0.05; done
cron -f &
wait
"""


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "house", "[outputs.csv]\n", ["a"])
    house.config.write_text(house.config.read_text().replace(str(house.data_dir), "/srv/house/var"))
    return house


@pytest.fixture
def crontab(tmp_path: Path) -> Path:
    """The shipped one, with the place and the configuration of this house."""
    text = SHIPPED.read_text().replace("/home/pi/wattherd", "/srv/wattherd")
    text = text.replace("orchestrator.py run", "orchestrator.py run --config /srv/house/site.toml")
    (tmp_path / "crontab").mkdir()
    (tmp_path / "crontab" / "shipped").write_text(text)
    return tmp_path / "crontab"


@pytest.fixture
def cron(house: House, crontab: Path, tmp_path: Path) -> Iterator[Namespace]:
    require("cron")
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the virtual environment is not the one of `make install`")
    binds = {ROOT: "wattherd", house.directory: "house", crontab: "crontab"}
    with running_namespace(tmp_path, binds, BOOT, lambda place: bool(named(place, "cron"))) as place:
        yield place


def named(place: Namespace, name: str) -> list[int]:
    """The numbers on this machine of those in there who have this name."""
    return [pid for pid in place.processes() if name_of(pid) == name]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def parent_of(house: House, place: Namespace) -> int:
    return place.outside(int((house.data_dir / "wattherd.lock").read_text()))


def everybody(house: House, place: Namespace) -> list[int]:
    """Who belongs to the user of the house."""
    return [pid for pid in place.processes() if f"\nUid:\t{UID}\t" in status_of(pid)]


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def test_reboot_starts_the_house_a_signal_stops_it_and_nobody_is_left(house: House, cron: Namespace) -> None:
    wait_for(house.is_ready, f"the house to be ready; {cron.said}", 40)
    assert house.post({"device": "a", "power_w": 1})[0] == 200
    parent = parent_of(house, cron)
    assert f"\nUid:\t{UID}\t" in status_of(parent)
    assert len(everybody(house, cron)) >= 4
    syslog = house.directory / "syslog"
    wait_for(lambda: "wattherd: " in syslog.read_text() and "the house runs" in syslog.read_text(), "its log in syslog")
    os.kill(parent, signal.SIGTERM)
    wait_for(lambda: not everybody(house, cron), "everybody to have left")
    assert [row[4] for row in csv_rows(house.data_dir / "csv") if row[3] == "power_w"] == ["1.0"]


def test_a_parent_that_died_takes_everybody_along_and_is_not_replaced(house: House, cron: Namespace) -> None:
    """This is the limit that docs/deploy.md tells; what was accepted is safe all the same."""
    wait_for(house.is_ready, f"the house to be ready; {cron.said}", 40)
    for power_w in range(10):
        assert house.post({"device": "a", "power_w": power_w})[0] == 200
    os.kill(parent_of(house, cron), signal.SIGKILL)
    wait_for(lambda: not everybody(house, cron), "everybody to have left")
    assert named(cron, "cron"), "cron lives, and does nothing"
    # Whoever starts it by hand finds everything that was accepted.
    started = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "/srv/wattherd/orchestrator.py")
    told = cron.run(*started, "audit", "--json", "--config", "/srv/house/site.toml", check=False).stdout
    assert re.search(r'"accepted": 10\b', told), told


def test_the_crontab_is_one_that_cron_takes() -> None:
    lines = [line for line in SHIPPED.read_text().splitlines() if line and not line.startswith("#")]
    assert [line.split()[0] for line in lines][:1] == ["@reboot"]
    assert all("%" not in line for line in lines), "cron takes a percent sign for the end of the line"
