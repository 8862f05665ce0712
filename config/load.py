"""Reads the configuration: TOML files in, typed settings out, or every mistake in them at once, each with its line."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec
from dotenv import dotenv_values

from config.lines import Place, line_numbers
from config.settings import (
    NAME_PATTERN,
    Api,
    ClockRules,
    OutputTable,
    Settings,
    Site,
    SourceTable,
    Supervise,
    Table,
    Writer,
)

_HOUSE_TABLES: Final[dict[str, type[Table]]] = {
    "site": Site,
    "supervise": Supervise,
    "writer": Writer,
    "clock": ClockRules,
    "api": Api,
}
# msgspec speaks of types as a programmer does.
_PLAIN_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
T = TypeVar("T", bound=Table)


class ConfigurationError(Exception):
    """What is wrong with the configuration, one sentence a mistake: file, line, key, what, what now."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Which kinds of sources and outputs there are, and the table of options of each."""

    source_kinds: Callable[[], list[str]]
    source_options: Callable[[str], type[SourceTable]]
    output_kinds: Callable[[], list[str]]
    output_options: Callable[[str], type[OutputTable]]


def load(path: Path, catalog: Catalog, *, merge: bool = True) -> Settings:
    """Read `path` and, with `merge`, every `conf.d/*.toml` beside it. Raises `ConfigurationError`.

    Secrets are named by the options that end in `_env`; those that the environment does not have are taken from a
    `.env` file of mode 600 beside the configuration or above it, and put into the environment.
    """
    files = [path, *(sorted((path.parent / "conf.d").glob("*.toml")) if merge else [])]
    reading = _Reading()
    for file in files:
        reading.add(file)
    reading.take_secrets([path.parent / ".env", path.parent.parent / ".env"])
    if reading.problems:
        raise ConfigurationError(reading.problems)
    settings = _settings(reading, catalog, tuple(files))
    if settings is None or reading.problems:
        raise ConfigurationError(reading.problems)
    return settings


@dataclass(slots=True)
class _Reading:
    """The merged tables, where each key stands, and what was wrong so far."""

    tables: dict[str, Any] = field(default_factory=dict)
    places: dict[Place, tuple[Path, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """Merge one file. A key that two files set is a mistake: which of them counts could only be guessed."""
        try:
            text = file.read_text(encoding="utf-8")
            tables = tomllib.loads(text)
        except OSError as error:
            self.problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError as error:
            self.problems.append(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8")
            return
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+)", str(error))
            self.problems.append(f"{file}:{line[1] if line else 1}: is not valid TOML: {error}")
            return
        places = {place: (file, line) for place, line in line_numbers(text).items()}
        self._merge(self.tables, tables, places, ())
        self.places = places | self.places

    def _merge(self, into: dict[str, Any], new: dict[str, Any], places: dict[Place, Any], here: Place) -> None:
        for key, value in new.items():
            place = (*here, key)
            if key not in into:
                into[key] = value
            elif isinstance(value, dict) and isinstance(into[key], dict):
                self._merge(into[key], value, places, place)
            else:
                file, line = self.places[place]
                new_file, new_line = places[place]
                self.problems.append(
                    f"{new_file}:{new_line}: {_dotted(place)} is set already in {file}:{line}; keep one of the two"
                )

    def take_secrets(self, files: Sequence[Path]) -> None:
        """Put what the first `.env` file has into the environment, where it is not set already."""
        for file in files:
            try:
                mode = file.stat().st_mode & 0o777
            except OSError:
                continue
            if mode & 0o077:
                self.problems.append(f"{file}: others may read it (mode {mode:o}); run: chmod 600 {file}")
                return
            for name, value in dotenv_values(file, interpolate=False).items():
                os.environ.setdefault(name, value or "")
            return

    def complain(self, place: Place, what: str) -> None:
        """Note a mistake at a key, or at the nearest table around it that has a line."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.places:
                file, line = self.places[place[:length]]
                self.problems.append(f"{file}:{line}: {_dotted(place)}: {what}")
                return
        self.problems.append(f"{_dotted(place)}: {what}")

    def table(self, kind: type[T], content: Mapping[str, Any], here: Place) -> T | None:
        """Turn a table into its type, or note everything that is wrong with it."""
        fields = {one.name: one for one in msgspec.structs.fields(kind)}
        before = len(self.problems)
        values = {}
        for key, value in content.items():
            if key not in fields:
                self.complain((*here, key), f"unknown key{_nearest(key, fields)}")
            else:
                values[key] = self._value(fields[key].type, value, (*here, key))
        for name, one in fields.items():
            if one.required and name not in content:
                self.complain((*here, name), "this key is missing")
        if len(self.problems) > before:
            return None
        try:
            table = kind(**values)
        except ValueError as error:  # what a table checks of itself, across its keys
            self.complain(here, str(error))
            return None
        self._check_secrets(table, here)
        return table

    def _value(self, kind: Any, value: Any, place: Place) -> Any:
        inner = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, Table) and isinstance(value, dict):
            return self.table(kind, value, place)
        if get_origin(kind) in (list, tuple) and isinstance(value, list) and _is_table(inner[0]):
            items = []
            for number, item in enumerate(value):
                if isinstance(item, dict):
                    items.append(self.table(inner[0], item, (*place, number)))
                else:
                    self.complain((*place, number), "expected a table")
            return items if get_origin(kind) is list else tuple(items)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self.complain(place, _in_plain_words(str(error), value))
            return None

    def _check_secrets(self, table: Table, here: Place) -> None:
        for one in msgspec.structs.fields(table):
            if one.name.endswith("_env"):
                variable = getattr(table, one.name)
                if variable and not os.environ.get(variable):
                    self.complain(
                        (*here, one.name),
                        f"the environment variable {variable} is not set; put {variable}=… into .env (mode 600)",
                    )


def _settings(reading: _Reading, catalog: Catalog, files: tuple[Path, ...]) -> Settings | None:
    known = [*_HOUSE_TABLES, "sources", "outputs"]
    for key, value in reading.tables.items():
        if key not in known:
            reading.complain((key,), f"unknown table{_nearest(key, known)}")
        elif not isinstance(value, dict):
            reading.complain((key,), "expected a table")
    house = {
        key: reading.table(kind, content if isinstance(content := reading.tables.get(key, {}), dict) else {}, (key,))
        for key, kind in _HOUSE_TABLES.items()
    }
    sources = _kinds(reading, "sources", catalog.source_kinds, catalog.source_options)
    outputs = _kinds(reading, "outputs", catalog.output_kinds, catalog.output_options)
    if isinstance(site := house["site"], Site):
        _check_timezone(reading, site)
    if reading.problems:
        return None
    return Settings(**house, sources=sources, outputs=outputs, files=files)  # type: ignore[arg-type]


def _kinds(
    reading: _Reading, group: str, kinds: Callable[[], list[str]], options: Callable[[str], type[T]]
) -> dict[str, T]:
    """Read `[sources.*]` or `[outputs.*]`: the kind decides the type of the table."""
    found: dict[str, T] = {}
    tables = reading.tables.get(group, {})
    for name, content in tables.items() if isinstance(tables, dict) else ():
        place = (group, name)
        if not isinstance(content, dict):
            reading.complain(place, "expected a table")
            continue
        if not re.fullmatch(NAME_PATTERN, name):
            reading.complain(place, _bad_name(name))
            continue
        kind = content.get("kind", name if group == "outputs" else None)
        if kind is None:
            reading.complain(place, f'this key is missing: kind = "…", one of {", ".join(kinds())}')
        elif kind not in kinds():
            reading.complain((*place, "kind"), f"there is no kind {kind!r}{_nearest(str(kind), kinds(), listed=True)}")
        elif table := reading.table(options(kind), content, place):
            found[name] = table
            _check_device_names(reading, table, place)
    return found


def _check_device_names(reading: _Reading, table: Table, place: Place) -> None:
    seen: dict[str, int] = {}
    for number, device in enumerate(getattr(table, "devices", ())):
        if device.name in seen:
            reading.complain((*place, "devices", number, "name"), f"{device.name!r} is the name of another device too")
        seen[device.name] = number


def _check_timezone(reading: _Reading, site: Site) -> None:
    try:
        zoneinfo.ZoneInfo(site.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = _nearest(site.timezone, zoneinfo.available_timezones())
        reading.complain(("site", "timezone"), f"there is no time zone {site.timezone!r}{near}")


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def _dotted(place: Place) -> str:
    """Name a place as its owner would.

    >>> _dotted(("sources", "meter", "devices", 1, "name"))
    '[sources.meter] devices, number 2: name'
    """
    if len(place) == 1:
        return f"[{place[0]}]"
    tables = 2 if place[0] in ("sources", "outputs") else 1
    text = f"[{'.'.join(str(part) for part in place[:tables])}]"
    for part in place[tables:]:
        text += f", number {part + 1}:" if isinstance(part, int) else f" {part}"
    return text.removesuffix(":")


def _nearest(word: str, known: Any, *, listed: bool = False) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; there are: {', '.join(sorted(known))}" if listed or len(list(known)) <= 30 else ""


def _in_plain_words(message: str, value: Any) -> str:
    """Say what msgspec says, for a person.

    >>> _in_plain_words("Expected `int` <= 65535", 70000)
    'expected a whole number <= 65535, got 70000'
    >>> _in_plain_words("Expected `float | str`, got `bool`", True)
    'expected a number or text in quotes, got true'
    """
    if "matching regex" in message:
        return _bad_name(value)
    expected = message.removeprefix("Expected ").split(", got ")[0].split(" - at ")[0]
    expected = re.sub(
        "`([^`]*)`", lambda kinds: " or ".join(_PLAIN_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")), expected
    )
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"expected {expected[:1].lower()}{expected[1:]}, got {shown[:60]}"


def _bad_name(name: object) -> str:
    mended = re.sub("[^A-Za-z0-9_-]+", "-", str(name)).strip("-_")[:63]
    hint = f"; {mended!r} would do" if mended else ""
    return f"{str(name)[:60]!r} is no name: letters, digits, - and _ only, 63 at most{hint}"
