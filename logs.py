"""Logs: one line per record, written by one system call, from whichever process, to the parent's stderr.

A write of at most 4,096 bytes to a pipe is atomic, so the lines of all processes end in one place, none torn, none
lost when a process is killed, and there is no lock that a killed process could keep.
"""

from __future__ import annotations

import logging
import os
import sys
import time

_MOST_BYTES = 4000
_SYSLOG_PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
# Everything that a terminal, a journal or a log reader would take for more than a character of the line.
_ESCAPES = {code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)]} | {
    0x0A: "\\n",
    0x0D: "\\r",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
_secrets: list[str] = []  # the longest first: one may be part of another


def hide(secret: str) -> None:
    """Let `secret` never appear in a log line of this process or of those forked from it."""
    if len(secret) >= 4 and secret not in _secrets:
        _secrets.append(secret)
        _secrets.sort(key=len, reverse=True)


def format_line(record: logging.LogRecord, *, journal: bool) -> bytes:
    """Format one record as one line.

    >>> record = logging.makeLogRecord({"name": "meter", "levelno": 30, "levelname": "WARNING", "created": 0.0,
    ...     "msecs": 0, "msg": "two\\nlines"})
    >>> format_line(record, journal=False)
    b'1970-01-01T00:00:00.000Z WARNING meter: two\\\\nlines\\n'
    >>> format_line(record, journal=True)
    b'<4>meter: two\\\\nlines\\n'
    """
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - a record that does not fit its words is no reason to stop measuring
        text = f"{record.msg!r} {record.args!r} cannot be put together: {error}"
    if record.exc_info:
        text += " | " + logging.Formatter().formatException(record.exc_info)
    for secret in _secrets:
        text = text.replace(secret, "***")
    if journal:
        head = f"<{_SYSLOG_PRIORITY.get(record.levelno, 6)}>{record.name}: "
    else:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name}: "
    line = (head + text).translate(_ESCAPES).encode("utf-8", "backslashreplace")
    if len(line) > _MOST_BYTES:
        line = line[: _MOST_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()
    return line + b"\n"


class _OneWrite(logging.Handler):
    """Writes a record with one system call. A log that cannot be written is no reason to stop measuring."""

    def __init__(self, descriptor: int, *, journal: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._descriptor, format_line(record, journal=self._journal))
        except OSError:
            pass


def start(level: int = logging.INFO) -> None:
    """Send all logs of this process, and of those forked from it, to stderr."""
    if sys.stderr is None:  # started with it closed: the next file that is opened would get its number, and our lines
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until the end
    descriptor = sys.stderr.fileno()
    logging.basicConfig(level=level, handlers=[_OneWrite(descriptor, journal=_is_journal(descriptor))], force=True)


def _is_journal(descriptor: int) -> bool:
    """Whether systemd's journal reads what is written there; the variable is inherited past any redirection."""
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
