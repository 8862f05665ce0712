"""The `.env` file: secrets by name, for its owner alone."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

_HEAD = "# Secrets, by the names that the configuration uses. For its owner alone: chmod 600.\n"


def read_env(configuration: Path, problems: list[str]) -> dict[str, str]:
    """Return what the first `.env` beside the configuration or above it holds; add to `problems` what is wrong."""
    for file in env_files(configuration):
        try:
            status = file.stat()
            if not stat.S_ISREG(status.st_mode):  # some call their virtual environment so
                continue
            if status.st_mode & 0o077:
                mode = f"{stat.S_IMODE(status.st_mode):o}"
                problems.append(f"{file}: others may read it (mode {mode}); run: chmod 600 {file}")
                return {}
            text = file.read_text(encoding="utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"{file}: cannot be read: {error.strerror}")
            return {}
        except UnicodeDecodeError:
            problems.append(f"{file}: is not UTF-8 text; save it as UTF-8")
            return {}
        return _parsed(file, text, problems)
    return {}


def env_files(configuration: Path) -> tuple[Path, Path]:
    """Where a `.env` may lie; the first that there is counts."""
    directory = configuration.parent
    return directory / ".env", Path(os.path.normpath(directory / ".." / ".env"))


def with_secrets(text: str, secrets: Mapping[str, str]) -> str:
    """Return the text of a `.env` with `secrets` added: what has a value in it keeps that value.

    >>> print(with_secrets("A=1", {"A": "2", "B": "it's"}), end="")
    A=1
    B='it\\'s'
    """
    there = {line.key for line in parse_stream(io.StringIO(text)) if line.key and line.value}
    new = {name: value for name, value in secrets.items() if name not in there}
    if text and not text.endswith("\n"):
        text += "\n"
    return (text or _HEAD) + "".join(f"{name}={_quoted(value)}\n" for name, value in new.items())


def _quoted(value: str) -> str:
    if any(char in value for char in "\0\r\n"):
        raise ValueError("a secret is one line")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'" if value else ""


def _parsed(file: Path, text: str, problems: list[str]) -> dict[str, str]:
    found = {}
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key and ("=" in line.key or "\0" in line.key + (line.value or ""))):
            problems.append(f"{file}:{line.original.line}: expected NAME=value")
        elif line.key and line.value is not None:
            found[line.key] = line.value
    return found
