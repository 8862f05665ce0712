"""Reads the `.env` file: secrets by name, for its owner alone."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from dotenv.parser import parse_stream


def read_env(configuration: Path, problems: list[str]) -> dict[str, str]:
    """Return what the first `.env` beside the configuration or above it holds; add to `problems` what is wrong."""
    directory = configuration.parent
    for file in (directory / ".env", Path(os.path.normpath(directory / ".." / ".env"))):
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


def _parsed(file: Path, text: str, problems: list[str]) -> dict[str, str]:
    found = {}
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key and ("=" in line.key or "\0" in line.key + (line.value or ""))):
            problems.append(f"{file}:{line.original.line}: expected NAME=value")
        elif line.key and line.value is not None:
            found[line.key] = line.value
    return found
