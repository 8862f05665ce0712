"""Reads `devices.json`, in which tinytuya's wizard writes the keys of all Tuya devices of an account."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import logs
from workers import SourceError

KEY_LENGTH: Final = 16
WIZARD: Final = ".venv/bin/python -m tinytuya wizard"
_MOST_BYTES: Final = 16_000_000
_ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Known:
    """What the wizard knows of one device. The key appears in no log and in no `repr`."""

    name: str = ""
    key: str = field(default="", repr=False)
    version: str = ""
    last_ip: str = ""
    product_name: str = ""
    mapping: Mapping[str, Any] = field(default_factory=dict)
    node_id: str = ""  # of a device that hangs on a gateway,
    parent: str = ""  # and the id of that gateway


def place_of(keys_file: str) -> Path:
    """A relative path counts from where wattherd lies."""
    return _ROOT / Path(keys_file).expanduser()


def read(file: Path) -> dict[str, Known]:
    """Return what is known of each device, by its id; from now on no log shows a key of them. Raises `SourceError`."""
    try:
        with open(file, "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if mode & 0o077:
                raise SourceError(
                    f"{file} holds the keys of your devices, and others may read it (mode {stat.S_IMODE(mode):o})",
                    f"run: chmod 600 {file}",
                )
            content = opened.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        what_now = f"run the wizard there ({WIZARD}; see docs/sources/tuya.md), or correct keys_file"
        raise SourceError(f"there is no {file}", what_now) from error
    except OSError as error:
        what_now = "let the user that runs wattherd own it, with mode 600"
        raise SourceError(f"{file} cannot be read ({error.strerror})", what_now) from error
    known = decode(content) if len(content) <= _MOST_BYTES else None
    if known is None:
        raise SourceError(f"{file} is no list of devices", f"let the wizard write it anew: {WIZARD}")
    for one in known.values():
        logs.hide(one.key)
    return known


def state_of(file: Path) -> tuple[int, ...]:
    """Return what changes whenever the file does."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode


def decode(content: bytes) -> dict[str, Known] | None:
    """Decode the file; None if it is nothing that the wizard writes.

    >>> known = decode(b'[{"id": "bf01", "name": "Kettle", "key": "0123456789abcdef", "last_ip": "192.0.2.7"}]')
    >>> known["bf01"].name, known["bf01"].key, known["bf01"]
    ('Kettle', '0123456789abcdef', Known(name='Kettle', version='', last_ip='192.0.2.7', product_name='', ...))
    >>> decode(b'{"devices": [{"id": "bf02", "version": 3.4}, 7]}')["bf02"].version
    '3.4'
    >>> decode(b"<html>") is None, decode(b"[]")
    (True, {})
    """
    try:
        devices = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if isinstance(devices, dict):
        devices = devices.get("devices")
    if not isinstance(devices, list):
        return None
    return {one["id"]: _known(one) for one in devices if isinstance(one, dict) and isinstance(one.get("id"), str)}


def flaw_of(key: str) -> str:
    """Say what is wrong with a key, or nothing. It is taken literally, whatever odd characters it has.

    >>> flaw_of("0123456789abcde<"), flaw_of("0123"), flaw_of("")
    ('', 'its key has 4 characters instead of 16', 'it has no key')
    """
    if not key:
        return "it has no key"
    if len(key) != KEY_LENGTH:
        return f"its key has {len(key)} characters instead of {KEY_LENGTH}"
    return "" if max(key) <= "\xff" else "its key has characters that no key has"


def _known(fields: dict[str, Any]) -> Known:
    mapping = fields.get("mapping")
    version = fields.get("version")
    return Known(
        name=_text(fields, "name"),
        key=_text(fields, "key"),
        version=str(version) if isinstance(version, str | float) and not isinstance(version, bool) else "",
        last_ip=_text(fields, "last_ip") or _text(fields, "ip"),
        product_name=_text(fields, "product_name"),
        mapping=mapping if isinstance(mapping, dict) else {},
        node_id=_text(fields, "node_id"),
        parent=_text(fields, "parent"),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
