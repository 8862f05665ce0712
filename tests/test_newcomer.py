"""The newcomer's path, word for word from the README: a clone in an empty folder, its commands, its configuration.

It runs in a network of its own, where the ports that the README names are free. The packages are those of the lock,
downloaded once and kept; everything else is made anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.process import wait_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LOCKS = ("base.txt", "page.txt")
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys, time
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: up and running
print("up", flush=True)
time.sleep(3600)
"""


def five_minutes() -> list[tuple[str, str]]:
    """Language and text of each block of the README's path, in their order."""
    section = README.split("## Five minutes\n")[1].split("\n## ")[0]
    return re.findall(r"^```(sh|toml)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def wheels(pytestconfig: pytest.Config) -> Path:
    """The packages of the lock; downloaded once, while there is a network."""
    assert pytestconfig.cache is not None
    locks = [ROOT / "requirements" / name for name in LOCKS]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:16]
    folder = pytestconfig.cache.mkdir(f"wheels-{digest}")
    if not (folder / "whole").exists():
        options = [option for lock in locks for option in ("-r", str(lock))]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
        done = subprocess.run(
            [*pip, "--no-deps", "--require-hashes", "-d", folder, *options], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            pytest.skip(f"the packages cannot be downloaded here: {done.stderr[-300:]}")
        (folder / "whole").touch()
    return folder


class Newcomer:
    """Somebody who types what stands in the README, in the clone, in one of two terminals."""

    def __init__(self, clone: Path, network: int, wheels: Path, home: Path) -> None:
        self.clone = clone
        self.network = network
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PIP_NO_COMPILE": "1",  # what is never run need not be compiled
            "PIP_FIND_LINKS": str(wheels),
            "PYTHON": sys.executable,
        }

    def _in_there(self, line: str) -> list[str]:
        enter = ["nsenter", "--target", str(self.network), "--net", *([] if os.geteuid() == 0 else ["--user"])]
        return [*enter, "--", "bash", "-c", line]

    def types(self, line: str, statuses: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            self._in_there(line),
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode in statuses, f"{line}\n{done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def starts(self, line: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                self._in_there(line),
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def answers(self, path: str) -> str:
        """What the page answers under the address that the README names."""
        [address] = {*re.findall(r"<(http://127\.0\.0\.1:\d+)>", README)}
        return self.types(f"curl -sf {address}{path}", statuses=(0, 7, 22, 56))


@pytest.fixture
def newcomer(tmp_path: Path, wheels: Path) -> Iterator[Newcomer]:
    if not shutil.which("curl") or not shutil.which("make"):
        pytest.skip("curl and make are needed")
    clone = tmp_path / "wattherd"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no clone")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    own = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    network = subprocess.Popen([*own, sys.executable, "-c", LOOPBACK_UP], stdout=subprocess.PIPE, text=True)
    try:
        if network.stdout is None or network.stdout.readline() != "up\n":
            pytest.skip("this machine lets nobody have a network of his own")
        (tmp_path / "home").mkdir()
        yield Newcomer(clone, network.pid, wheels, tmp_path / "home")
    finally:
        network.kill()
        network.communicate()


def house_of(clone: Path, data_dir: str) -> int:
    return int((clone / data_dir / "wattherd.lock").read_text())


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_readme_leads_from_an_empty_folder_to_a_house_of_ones_own(newcomer: Newcomer, tmp_path: Path) -> None:
    blocks = five_minutes()
    assert [language for language, _ in blocks] == ["sh", "sh", "sh", "sh", "toml", "sh", "sh"]
    [(_, run), (_, post), (_, look), (_, init), (_, configuration), (_, own), (_, second)] = blocks

    # The demo.
    assert commands(run) == ["make run"]
    log = tmp_path / "demo.log"
    demo = newcomer.starts(run, log)
    try:
        wait_for(lambda: newcomer.answers("/readyz"), f"the demo house; its log: {log}", 180)
        assert "simulated" in log.read_text()
        assert "<title" in newcomer.answers("/")
        [promised] = re.findall(r"The answer `([^`]+)`", README)
        assert promised in newcomer.types(post)
        wait_for(lambda: newcomer.types(look, statuses=(0, 1, 2)).count("esp32-meter"), "the reading in the file", 30)
        house = house_of(newcomer.clone, "var/demo")
    finally:
        os.killpg(demo.pid, signal.SIGINT)  # Ctrl-C
        demo.wait(20)
    wait_for(lambda: not Path(f"/proc/{house}").exists(), "the house to have stopped")

    # A house of one's own.
    [line] = commands(init)
    newcomer.types(line)
    site = newcomer.clone / "config" / "site.toml"
    assert site.exists()
    site.write_text(configuration)
    assert commands(own)[-1].split("#")[0].strip() == "make run"
    for line in commands(own)[:-1]:
        newcomer.types(line)
    log = tmp_path / "own.log"
    mine = newcomer.starts(commands(own)[-1], log)
    try:
        wait_for(lambda: newcomer.answers("/readyz"), f"the house; its log: {log}", 60)
        assert "DEMO" not in log.read_text()
        status, verify, reload, stop = commands(second)
        newcomer.types(status, statuses=(0, 3))  # 3: nothing was measured yet, and it says so
        newcomer.types(verify, statuses=(0, 3))
        newcomer.types(reload)
        wait_for(lambda: "reloaded" in log.read_text(), "the configuration to be read anew")
        began_s = time.monotonic()
        newcomer.types(stop)
        assert mine.wait(20) == 0
        [within] = re.findall(r"then the writer, within (\d+) s", README)
        assert time.monotonic() - began_s < int(within) + 5
    finally:
        if mine.poll() is None:
            os.killpg(mine.pid, signal.SIGKILL)
            mine.wait()
