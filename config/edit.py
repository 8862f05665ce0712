"""Writes values of one device or channel into a configuration that its owner wrote, and leaves every other byte."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit import TOMLDocument
from tomlkit.container import Container
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from config.lines import line_numbers

_BYTE_ORDER_MARK: Final = "\ufeff"
_MOST_BACKUPS: Final = 10_000

Setting = float | str | list[float] | list[str]


class EditError(Exception):
    """Nothing was changed: what, and what now."""

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")


def holder(files: Sequence[Path], source: str, device: str) -> Path:
    """Return the file that has the table of a device; the first one if none of them has it."""
    for file in files:
        with suppress(OSError, ValueError):
            if _place(tomllib.loads(_text(file)), source, device) is not None:
                return file
    return files[0]


def set_device_values(file: Path, source: str, device: str, values: Mapping[str, float]) -> Path:
    """Write `values` into the table of a device, and return the backup that lies beside the file now.

    The file is replaced in one step and keeps its mode; where it is a link, what it points to is. Raise `EditError`.
    """
    return _rewritten(file, values, "before-calibration", lambda text: edited(text, source, device, values))


def table_holder(files: Sequence[Path], table: str) -> Path:
    """Return the file that has a table of the house; the first one if none of them has it."""
    for file in files:
        with suppress(OSError, ValueError):
            if table in tomllib.loads(_text(file)):
                return file
    return files[0]


def channel_holder(files: Sequence[Path], source: str, device: str) -> Path:
    """Return the file that has the table of a channel; where there is none yet, the one that has its device."""
    for file in files:
        with suppress(OSError, ValueError, KeyError, TypeError):
            tomllib.loads(_text(file))["channels"][source][device]
            return file
    return holder(files, source, device)


def set_channel_values(file: Path, source: str, device: str, values: Mapping[str, Setting]) -> Path:
    """Do the same in `[channels.<source>.<device>]`, which is added at the end if it is not there yet."""
    return _rewritten(file, values, "before-states", lambda text: edited_channel(text, source, device, values))


def set_table_values(file: Path, table: str, values: Mapping[str, Setting]) -> Path:
    """Do the same in a table of the house, `[api]` say."""
    return _rewritten(file, values, f"before-{table}", lambda text: edited_table(text, (table,), values))


def _rewritten(file: Path, values: Mapping[str, Setting], suffix: str, change: Callable[[str], str]) -> Path:
    real = file.resolve()
    try:
        text = _text(real)
        new = change(text)
        backup = backed_up(real, suffix)
        try:
            _replace(real, new.encode())
        except OSError:
            backup.unlink()
            raise
    except UnicodeDecodeError as error:
        raise EditError(f"{file} is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise EditError(
            f"{file} cannot be written ({error.strerror or error})",
            f"let this user write {file.parent}, or enter by hand: {_listed(values)}",
        ) from error
    return backup


def restore(file: Path, backup: Path) -> None:
    """Put a backup back in the place of the file."""
    backup.replace(file.resolve())


def edited(text: str, source: str, device: str, values: Mapping[str, float]) -> str:
    """Return a TOML text with `values` in the table of a device. Raise `EditError` where that cannot be done surely.

    >>> print(edited('[[sources.a.devices]]\\nname = "x"  # mine\\n\\n# The end', "a", "x", {"current_gain": 1.5}))
    [[sources.a.devices]]
    name = "x"  # mine
    current_gain = 1.5
    <BLANKLINE>
    # The end
    """
    by_hand = f"enter by hand: {_listed(values)}"
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    bare = text.removeprefix(mark)
    try:
        wanted = tomllib.loads(bare)
        place = _place(wanted, source, device)
        if place is None:
            raise EditError(f"there is no device {device} of [sources.{source}] in it", by_hand)
        wanted["sources"][source]["devices"][place].update(values)
        header = line_numbers(bare).get(("sources", source, "devices", place))
        new = _with_lines(bare, header, values) if header else _with_inline(bare, source, place, values)
        if tomllib.loads(new) != wanted or _rest(new, values) != _rest(bare, values):
            raise ValueError("it would not be as it is meant")
    except (ValueError, TOMLKitError, TypeError, KeyError) as error:
        raise EditError(f"the table of {device} cannot be changed surely ({error})", by_hand) from error
    return mark + new


def edited_channel(text: str, source: str, device: str, values: Mapping[str, Setting]) -> str:
    """Return a TOML text with `values` in the table of a channel. Raise `EditError` where that cannot be done surely.

    >>> print(edited_channel("[site]  # mine", "a", "x", {"states": ["idle", "running"], "thresholds_w": [50.0]}))
    [site]  # mine
    <BLANKLINE>
    [channels.a.x]
    states = ["idle", "running"]
    thresholds_w = [50.0]
    <BLANKLINE>
    """
    return edited_table(text, ("channels", source, device), values)


def edited_table(text: str, place: Sequence[str], values: Mapping[str, Setting]) -> str:
    """Return a TOML text with `values` in a table, which is added at the end if it is not there yet.

    >>> print(edited_table('[api] # mine\\nkey_hash = "old"', ("api",), {"key_hash": "new"}))
    [api] # mine
    key_hash = "new"
    """
    title = f"[{'.'.join(place)}]"
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else ""
    bare = text.removeprefix(mark)
    try:
        wanted = tomllib.loads(bare)
        tables = wanted
        for name in place[:-1]:
            tables = tables.setdefault(name, {})
        is_there = place[-1] in tables
        tables.setdefault(place[-1], {}).update(values)
        rest = _rest(bare, values)
        if is_there:
            header = line_numbers(bare).get((*place,), 0)
            if not bare.split("\n")[header - 1].lstrip(" \t").startswith("["):
                raise ValueError("it is written between braces or with dots")
            new = _with_lines(bare, header, values)
        else:
            newline = "\r\n" if "\r\n" in bare else "\n"
            lines = ["", title, *(f"{key} = {tomlkit.item(value).as_string()}" for key, value in values.items()), ""]
            new = bare + ("" if bare.endswith("\n") or not bare else newline) + newline.join(lines)
            rest += title
        if tomllib.loads(new) != wanted or _rest(new, values) != rest:
            raise ValueError("it would not be as it is meant")
    except (ValueError, TOMLKitError, TypeError, KeyError, AttributeError) as error:
        raise EditError(f"{title} cannot be written surely ({error})", f"enter by hand: {_listed(values)}") from error
    return mark + new


def _with_lines(text: str, header: int, values: Mapping[str, Setting]) -> str:
    """Set values in the table below the line `header`. Nothing else of the text goes through the library."""
    lines = text.split("\n")
    statements = sorted({*line_numbers(text).values()})
    ends = (line - 1 for line in statements if line > header and lines[line - 1].lstrip(" \t").startswith("["))
    end = next(ends, len(lines))
    table = "\n".join(lines[header:end]) + ("" if end in (header, len(lines)) else "\n")
    document = tomlkit.parse(table)
    _check(document, table)
    document.update({key: value for key, value in values.items() if key in document})
    missing = {key: value for key, value in values.items() if key not in document}
    _append(document, missing, "\r\n" if "\r\n" in text else "\n")
    return "\n".join(lines[:header]) + "\n" + tomlkit.dumps(document) + "\n".join(lines[end:])


def _append(table: Container, values: Mapping[str, Setting], newline: str) -> None:
    """Put keys behind the last one of a table; the library would put them behind the comments of the table after it."""
    body = table.body
    last = max((number for number, (key, _) in enumerate(body) if key is not None), default=-1)
    behind = body[last + 1 :]
    del body[last + 1 :]
    indent = ""
    if last >= 0:
        before = body[last][1].trivia
        indent = before.indent
        if values:
            before.trail = before.trail or newline  # it may have ended the file
    for key, value in values.items():
        item = tomlkit.item(value)
        item.trivia.indent, item.trivia.trail = indent, newline
        table.append(key, item)
    body.extend(behind)


def _with_inline(text: str, source: str, place: int, values: Mapping[str, float]) -> str:
    """Set values in a table between braces."""
    document: Any = tomlkit.parse(text)
    _check(document, text)
    devices = document["sources"][source]["devices"]
    table = devices[place]
    if not isinstance(table, InlineTable):
        raise TypeError(f"it is a {type(table).__name__}")
    table.update({key: value for key, value in values.items() if key in table})
    braced = table.as_string()
    inside = braced[:-1].rstrip()
    missing = "".join(f", {key} = {value!r}" for key, value in values.items() if key not in table)
    devices[place] = tomlkit.value(inside + missing + braced[len(inside) :])
    return tomlkit.dumps(document)


def _check(document: TOMLDocument, text: str) -> None:
    if tomlkit.dumps(document) != text:
        raise ValueError("something else in it would change too")


def _rest(text: str, values: Mapping[str, Setting]) -> str:
    """Return what a text has besides these values, without the blanks and commas between.

    >>> _rest('name = "x", gain = 1.5  # mine', {"gain": 2})
    'name="x"#mine'
    """
    for key in values:
        text = re.sub(rf"""["']?\b{key}["']?\s*=\s*(\[[^]#]*\]|"[^"\\\n]*"|'[^'\n]*'|[-+\w.]+)""", "", text)
    return re.sub(r"[\s,]+", "", text)


def _place(tables: Mapping[str, Any], source: str, device: str) -> int | None:
    """Return which one of the devices of a source has this name."""
    try:
        devices = tables["sources"][source]["devices"]
        return next((number for number, one in enumerate(devices) if one["name"] == device), None)
    except (KeyError, TypeError):
        return None


def _text(file: Path) -> str:
    return file.read_bytes().decode()  # as it is: reading text would turn CRLF into LF


def _listed(values: Mapping[str, Setting]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())


def backed_up(file: Path, suffix: str) -> Path:
    """Make a copy beside a file that replaces no earlier one. Raise `OSError`."""
    content, mode = file.read_bytes(), stat.S_IMODE(file.stat().st_mode)
    for number in range(1, _MOST_BACKUPS):
        backup = file.with_name(f"{file.name}.{suffix}-{number}")
        try:
            descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            continue
        _fill(descriptor, content, file.stat())
        return backup
    raise EditError(f"there are {_MOST_BACKUPS - 1} backups beside {file}", "remove the oldest of them")


def _replace(file: Path, content: bytes) -> None:
    new = file.with_name(f".{file.name}.new-{os.getpid()}")  # hidden, and no *.toml: nobody reads it as one
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _fill(descriptor, content, file.stat())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _fill(descriptor: int, content: bytes, like: os.stat_result) -> None:
    """Write a file that belongs to the same people as another one, down to the disk, and close it."""
    with open(descriptor, "wb") as file:
        with suppress(PermissionError):  # only root gives files away, and root must not take them
            os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        file.write(content)
        file.flush()
        os.fsync(descriptor)
