"""`key`: made once, shown once, its hash in the configuration, and every other byte as it was."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.interface import hash_of_key

ROOT = Path(__file__).parents[2]
SITE = (
    '# mine\n[site]\nname = "home"\ndata_dir = "{data}"\n\n[api]   # here\nport = 8123  # not 8000\n\n[outputs.csv]\n'
)


def key(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "orchestrator.py", "key", "--config", str(file), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(SITE.format(data=tmp_path / "var"))
    file.chmod(0o640)
    return file


def shown(told: str) -> str:
    [found] = re.findall(r"^  ([A-Za-z0-9_-]{43})$", told, re.MULTILINE)
    return str(found)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(site: Path) -> None:
    before = site.read_text()
    done = key(site)
    assert done.returncode == 0, done.stderr
    made = shown(done.stdout)
    text = site.read_text()
    assert made not in text
    assert tomllib.loads(text)["api"] == {"port": 8123, "key_hash": hash_of_key(made)}
    line = f'key_hash = "{hash_of_key(made)}"\n'
    assert text.replace(line, "") == before
    assert site.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in site.parent.iterdir()] == ["site.toml"], "no copy with an old hash lies about"
    assert "Next: set [api] host" in done.stdout


def test_a_table_that_is_not_there_yet_is_added(site: Path) -> None:
    site.write_text('[site]\nname = "home"\n')
    assert key(site).returncode == 0
    assert [*tomllib.loads(site.read_text())] == ["site", "api"]


def test_a_key_that_is_in_use_is_not_made_invalid_by_mistake(site: Path) -> None:
    first = shown(key(site).stdout)
    text = site.read_text()
    done = key(site)
    assert (done.returncode, site.read_text()) == (1, text)
    assert "Nothing was changed." in done.stderr
    done = key(site, "--yes")
    assert done.returncode == 0
    second = shown(done.stdout)
    assert second != first
    assert tomllib.loads(site.read_text())["api"]["key_hash"] == hash_of_key(second)


def test_the_key_goes_to_the_file_that_has_the_table(site: Path) -> None:
    (site.parent / "conf.d").mkdir()
    piece = site.parent / "conf.d" / "api.toml"
    piece.write_text("[api]\nenabled = true\n")
    site.write_text('[site]\nname = "home"\n')
    done = key(site)
    assert done.returncode == 0, done.stderr
    assert "key_hash" in piece.read_text()
    assert site.read_text() == '[site]\nname = "home"\n'


def test_what_cannot_be_changed_surely_is_left_and_no_key_is_made(site: Path) -> None:
    site.write_text("api = { port = 8123 }\n")
    done = key(site)
    assert done.returncode == 1
    assert "key_hash = 'sha256:" in done.stderr
    assert "Nothing was written, and there is no new key." in done.stderr
    assert done.stdout == ""
    assert site.read_text() == "api = { port = 8123 }\n"


def test_the_demo_house_has_no_key(tmp_path: Path) -> None:
    done = key(ROOT / "config" / "demo.toml")
    assert (done.returncode, done.stderr) == (
        2,
        "the demo house has no key; write config/site.toml first: ./orchestrator.py init\n",
    )


def test_with_a_key_the_house_may_be_reached_by_others(site: Path) -> None:
    site.write_text(site.read_text().replace("[api]   # here", '[api]   # here\nhost = "0.0.0.0"'))
    check = [sys.executable, "orchestrator.py", "check", "--config", str(site)]
    refused = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "./orchestrator.py key makes one" in refused.stderr
    done = key(site)
    assert done.returncode == 0, "a key is what it lacked"
    assert "Next, if the house runs" in done.stdout
    assert subprocess.run(check, cwd=ROOT, capture_output=True, timeout=60).returncode == 0


def test_a_configuration_that_does_not_hold_with_a_key_either_is_left(site: Path) -> None:
    site.write_text(site.read_text() + "nonsense = 1\n")
    before = site.read_text()
    done = key(site)
    assert (done.returncode, site.read_text()) == (1, before)
    assert "nonsense" in done.stderr
