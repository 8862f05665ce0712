"""Gathers what somebody who helps from afar needs to see, and lets none of it out before it is masked."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from dotenv.parser import parse_stream

from commands._configuration import ROOT
from commands._masking import Masking
from config.env import env_files

COMMAND_S: Final = 120.0
_LOG_LINES: Final = 2000
_MOST_BYTES: Final = 2_000_000  # of one member
_PROC: Final = (
    "proc/version",
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/loadavg",
    "proc/uptime",
    "proc/self/mountinfo",
    "proc/diskstats",
    "proc/device-tree/model",
    "proc/sys/kernel/random/boot_id",
    "etc/os-release",
    "etc/debian_version",
    "boot/firmware/config.txt",
    "sys/devices/system/cpu/isolated",
)
_DEVICES: Final = ("gpiochip*", "i2c-*", "spidev*", "ttyUSB*", "ttyACM*", "ttyAMA*", "ttyS*", "serial*", "serial/*/*")
_KEYS_FILE: Final = "devices.json"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the bundle."""

    name: str
    what: str
    size: int


@dataclass(slots=True)
class Bundle:
    """What goes out. There is one door, and it masks."""

    masking: Masking
    _texts: dict[str, bytes] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)

    def add(self, name: str, what: str, text: str) -> None:
        """Take a text; of one that is too long, its end."""
        content = self.masking.mask(text).encode("utf-8", "replace")[-_MOST_BYTES:]
        self._texts[name] = content
        self.members.append(Member(name, what, len(content)))

    def write(self, file: Path, at_s: int) -> None:
        """Write all of it, for its owner alone. Raises `OSError`."""
        folder = file.name.removesuffix(".tar.gz")
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as opened, tarfile.open(fileobj=opened, mode="w:gz") as tar:
                for name, content in self._texts.items():
                    entry = tarfile.TarInfo(f"{folder}/{name}")
                    entry.size, entry.mtime, entry.mode = len(content), at_s, 0o600
                    tar.addfile(entry, io.BytesIO(content))
        except BaseException:
            file.unlink(missing_ok=True)
            raise


def files_of(config: Path) -> list[Path]:
    """Name the files of a configuration, whether or not they can be understood."""
    return [config, *sorted((config.parent / "conf.d").glob("*.toml"))]


def secrets_of(config: Path) -> set[str]:
    """Return every secret that this house has, also one that stands where it should not."""
    found = {*_of_env_files(config)}
    for file in files_of(config):
        with suppress(OSError, ValueError):
            tables = tomllib.loads(file.read_text(encoding="utf-8", errors="replace"))
            found |= {*_of_tables(tables, "")}
    for place in (ROOT / _KEYS_FILE, *(Path(name) for name in _keys_files(config))):
        with suppress(OSError, ValueError):
            found |= {*_of_keys(json.loads(place.read_bytes()))}
    return {secret for secret in found if secret}


def _of_env_files(config: Path) -> Iterator[str]:
    for file in env_files(config):
        with suppress(OSError):
            for line in parse_stream(io.StringIO(file.read_text(encoding="utf-8", errors="replace"))):
                if line.value:
                    yield line.value


def _of_tables(table: Any, key: str) -> Iterator[str]:
    """Yield what a table says in the place of a secret: the variable's value, and what was written there by mistake."""
    if isinstance(table, dict):
        for name, inner in table.items():
            yield from _of_tables(inner, name)
    elif isinstance(table, list):
        for inner in table:
            yield from _of_tables(inner, key)
    elif isinstance(table, str):
        if key.endswith("_env"):
            yield os.environ.get(table, "")
            if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", table):
                yield table
        elif re.search(r"(?i)passw|secret|token|psk|(^|_)key$", key):
            yield table
        elif found := re.match(r"[a-z+]+://([^/@\s]+)@", table):
            yield from found[1].split(":", 1)[1:]


def _of_keys(told: Any) -> Iterator[str]:
    """Yield the keys in what tinytuya's wizard wrote."""
    if isinstance(told, dict):
        for name, inner in told.items():
            if isinstance(inner, str) and "key" in name.lower():
                yield inner
            yield from _of_keys(inner)
    elif isinstance(told, list):
        for inner in told:
            yield from _of_keys(inner)


def _keys_files(config: Path) -> Iterator[str]:
    for file in files_of(config):
        with suppress(OSError):
            for found in re.findall(r'(?m)^\s*keys_file\s*=\s*"([^"\n]+)"', file.read_text(errors="replace")):
                yield str(ROOT / found)


def our_command(*words: str) -> str:
    """Return what a command of ours says, as its user would see it, and how it ended."""
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "orchestrator.py"), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {COMMAND_S:g} s\n"
    return f"{done.stdout}{done.stderr}\nstatus {done.returncode}\n"


def versions() -> str:
    """Return what runs here, in which versions."""
    commit = _said("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    lines = [
        f"wattherd {commit.strip() or 'without git'}",
        f"Python {platform.python_version()} ({sys.executable})",
        f"SQLite {sqlite3.sqlite_version}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        "",
    ]
    found = sorted({(one.metadata["Name"] or "?", one.version) for one in distributions()}, key=str)
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in found), ""])


def log(file: Path | None) -> tuple[str, str]:
    """Return the last lines of the log, and where they are from."""
    if file:
        try:
            with file.open("rb") as opened:
                opened.seek(max(0, file.stat().st_size - _MOST_BYTES))
                return opened.read().decode("utf-8", "replace"), str(file)
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}\n", str(file)
    words = ("journalctl", "-u", "wattherd", "-n", str(_LOG_LINES), "--no-pager", "-o", "short-iso-precise")
    if shutil.which("journalctl") and (said := _said(*words)).strip():
        return said, " ".join(words)
    return "no log is known; name it with --log FILE\n", "nowhere"


def machine(root: Path = Path("/")) -> str:
    """Return what the kernel says of this machine."""
    parts = []
    for name in _PROC:
        with suppress(OSError):
            text = (root / name).read_text(errors="replace").strip("\0\n ")
            parts.append(f"==> /{name}\n{text}\n")
    devices = sorted({path for pattern in _DEVICES for path in (root / "dev").glob(pattern)})
    parts.append("==> devices\n" + "".join(f"{_listed(path, root)}\n" for path in devices))
    parts.append(f"==> kernel\n{_said('dmesg', '--level=err,warn')[-100_000:]}\n")
    return "\n".join(parts)


def _listed(path: Path, root: Path) -> str:
    with suppress(OSError):
        status = path.stat()
        points = f" -> {path.readlink()}" if path.is_symlink() else ""
        return f"{status.st_mode & 0o777:o} {status.st_uid}:{status.st_gid} /{path.relative_to(root)}{points}"
    return f"? /{path.relative_to(root)}"


def database(path: Path, *, dead_letters: bool) -> str:
    """Return the shape of a database and how much is in each table; of dead letters the bodies only where wished."""
    if not path.exists():
        return f"there is no {path}\n"
    told: dict[str, Any] = {}
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            schema = connection.execute("SELECT name, type, sql FROM sqlite_schema ORDER BY name").fetchall()
            tables = [name for name, kind, _ in schema if kind == "table"]
            told["pragmas"] = {
                name: connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count", "journal_mode", "user_version")
            }
            told["rows"] = {
                name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - of the schema
                for name in tables
            }
            if "state" in tables:
                keys = [str(key) for (key,) in connection.execute("SELECT key FROM state ORDER BY key")]
                told["state"] = keys
            if "dead_letter" in tables:
                told["dead letters"] = [*_dead_letters(connection, bodies=dead_letters)]
            told["schema"] = [sql for _, _, sql in schema if sql]
    except sqlite3.Error as error:
        told["error"] = str(error)
    sizes = {part.name: part.stat().st_size for part in sorted(path.parent.glob(f"{path.name}*")) if part.is_file()}
    return json.dumps({"bytes": sizes, **told}, indent=2, ensure_ascii=False) + "\n"


def _dead_letters(connection: sqlite3.Connection, *, bodies: bool) -> Iterator[dict[str, Any]]:
    query = "SELECT origin, reason, count(*), min(at_utc), max(at_utc) FROM dead_letter GROUP BY origin, reason"
    for origin, reason, count, first, last in connection.execute(query):
        yield {"origin": origin, "reason": reason, "count": count, "first": first, "last": last}
    if bodies:
        for at_utc, origin, body in connection.execute("SELECT at_utc, origin, body FROM dead_letter ORDER BY id"):
            text = bytes(body).decode("utf-8", "backslashreplace") if isinstance(body, bytes) else str(body)
            yield {"at": at_utc, "origin": origin, "body": text}


def _said(*words: str) -> str:
    """Return what a program of the system says; nothing if it is not there or does not end."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
        return done.stdout
    return ""
