"""What stays known of plugs over restarts: who was met at which host, and how to reach him. No secret is in it.

Without it a plug that got another address in a power cut would be taken for the one that had the address before. What
a plug and an account prove to each other with (python-kasa calls it `credentials_hash`) is left out: whoever reads it
could use it like the password.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from files import replaced
from workers._kasa_network import Connection

_MOST_BYTES: Final = 1 << 20


class Memo(Struct, frozen=True):
    """One plug."""

    ids: frozenset[str]  # its own id and its MAC, as it said them itself
    address: str  # where it was met last
    connection: Connection


class _Content(Struct, frozen=True):
    plugs: dict[str, Memo]  # by the host of the configuration


class Memory:
    """A file of mode 600 that is replaced as a whole."""

    def __init__(self, source: str, directory: Path | None) -> None:
        self._path = directory / f"kasa-{source}.json" if directory else None
        self._saved: dict[str, Memo] = {}
        self._is_told = False
        self._log = logging.getLogger(source)

    def load(self) -> Mapping[str, Memo]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                content = msgspec.json.decode(file.read(_MOST_BYTES), type=_Content)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            self._log.warning(
                "what was known of the plugs cannot be read (%s: %s); who is at each host now is taken for the one",
                *(self._path, error),
            )
            return {}
        self._saved = content.plugs
        return self._saved

    def save(self, plugs: Mapping[str, Memo]) -> None:
        """Write what is known, if it is news. Failing to is no reason not to measure; it is told once."""
        if self._path is None or plugs == self._saved:
            return
        try:
            replaced(self._path, msgspec.json.format(msgspec.json.encode(_Content({**plugs})), indent=1))
        except OSError as error:
            if not self._is_told:
                self._log.warning(
                    "%s cannot be written (%s), so after a restart each plug is believed to be the one at its host; "
                    "let this user write there",
                    *(self._path, error.strerror or error),
                )
            self._is_told = True
            return
        self._is_told = False
        self._saved = {**plugs}
