"""Files that are replaced as a whole: after a power cut there is the old one or the new one, and never half of one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

# What somebody has to mend. Every other error of a disk may pass by itself: it is full, or it fails now and then.
NEEDS_A_PERSON: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
)


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
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory as durable as what is in the files: new ones, renamed ones, those that are gone."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such thing
            raise
    finally:
        os.close(descriptor)
