"""Files that are replaced as a whole: after a power cut there is the old one or the new one, and never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def replaced(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in the place of another in one step, down to the disk; by default for its owner alone.

    Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.unlink(missing_ok=True)  # of a process that had our number and was killed
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask says
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
