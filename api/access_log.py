"""Who asked for what: `logs/api_access.log`, one line a request, in the format that the seed's tools read.

Lines wait in memory and go to the card every ten seconds. Machines that ask all the time for the same (`/metrics`,
`/healthz`, `/readyz`) are left out: they would wear the card and say nothing. No line has more than a request target,
which HTTP lets have no control characters; whatever looks like a key in it is left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import unquote_plus
from zoneinfo import ZoneInfo

from starlette.types import ASGIApp, Receive, Scope, Send

from api.snapshot import now
from api.times import naive
from config.interface import hash_of_key

log = logging.getLogger("api.access_log")

FLUSH_EVERY_S: Final = 10.0
_MOST_FILE_BYTES: Final = 4_000_000
_MOST_BYTES: Final = 20_000_000  # of all files
_MOST_WAITING: Final = 5_000  # lines; what comes beyond them within ten seconds is an attack and not a house
_MOST_TARGET: Final = 500  # characters
_LEFT_OUT: Final = frozenset({"/metrics", "/healthz", "/readyz"})
_SECRET: Final = re.compile(r"key|token|secret|password|authorization", re.IGNORECASE)
_NAME: Final = "api_access.log"
_OLD: Final = re.compile(re.escape(_NAME) + r"\.(\d{4}-\d\d-\d\d)(?:\.(\d{1,6}))?")


class AccessLog:
    """One file a day, and the older ones beside it. A log that cannot be written is no reason not to answer."""

    def __init__(self, directory: Path, zone: ZoneInfo, days: int, key_hash: str = "") -> None:
        self.path = directory / _NAME
        self._zone = zone
        self._days = days
        self._key_hash = key_hash
        self._waiting: list[str] = []
        self._trouble = ""

    def note(self, method: str, target: str) -> None:
        """Note a request."""
        if self._days and len(self._waiting) < _MOST_WAITING and target.partition("?")[0] not in _LEFT_OUT:
            shown = without_keys(target[:_MOST_TARGET], self._key_hash)
            self._waiting.append(f"{naive(now().utc_ns, self._zone).replace('T', ' ')} - INFO - {method} {shown}\n")

    def flush(self) -> None:
        """Write what waits."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._rotate(lines[0][:10])
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("%s cannot be written: %s; its lines are left out", self.path, error.strerror or error)
            self._trouble = str(error)

    def files(self) -> list[Path]:
        """Return all files, oldest first; what waits is written before."""
        self.flush()
        return [*self._old(), *([self.path] if self.path.exists() else [])]

    def _rotate(self, today: str) -> None:
        """Put the file of an earlier day, or one that is too long, beside; delete what is too old or too much."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                begun = file.read(10)
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if begun == today and size < _MOST_FILE_BYTES:
            return
        day = begun if _is_day(begun) else today
        number = 1 + max((int(_OLD.fullmatch(old.name)[2] or 0) for old in self._old() if day in old.name), default=0)  # type: ignore[index]
        self.path.rename(self.path.with_name(f"{_NAME}.{day}.{number}"))
        oldest = str(date.fromisoformat(today) - timedelta(days=self._days - 1))
        room = _MOST_BYTES - _MOST_FILE_BYTES
        for old in reversed(self._old()):
            room -= old.stat().st_size
            if room < 0 or old.name[len(_NAME) + 1 :][:10] < oldest:
                old.unlink()

    def _old(self) -> list[Path]:
        found = [(match, path) for path in _beside(self.path) if (match := _OLD.fullmatch(path.name))]
        return [path for _, path in sorted(found, key=lambda one: (one[0][1], int(one[0][2] or 0)))]


class Accesses:
    """Notes every request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app = app
        self._log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._log.note("HEAD" if scope.get("wattherd.head") else scope["method"], target_of(scope))
        await self._app(scope, receive, send)


def target_of(scope: Scope) -> str:
    """Return what was asked for, as it was sent: escaped, so that it is one word of plain characters."""
    raw = scope.get("raw_path") or b"?"
    query = scope.get("query_string") or b""
    target = raw + (b"?" + query if query else b"")
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E else f"%{byte:02X}" for byte in target)


def without_keys(target: str, key_hash: str = "") -> str:
    """Leave out of a target whatever is a key, by its name or by its hash.

    >>> without_keys("/energy?applianceId=1&api_key=geheim")
    '/energy?applianceId=1&api_key=***'
    """
    path, mark, query = target.partition("?")
    return path + mark + "&".join(_told(part, key_hash) for part in query.split("&"))


def _told(part: str, key_hash: str) -> str:
    name, is_set, value = part.partition("=")
    if is_set and _SECRET.search(unquote_plus(name)):
        return f"{name}=***"
    if key_hash and hash_of_key(unquote_plus(value or name)) == key_hash:
        return f"{name}=***" if is_set else "***"
    return part


def _beside(path: Path) -> Iterator[Path]:
    try:
        yield from path.parent.iterdir()
    except OSError:
        return


def _is_day(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return True
