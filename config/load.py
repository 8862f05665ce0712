"""Reads the configuration: TOML files in, typed settings out, or every mistake in them at once, each with its line."""

from __future__ import annotations

import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

from config.channels import check_appliances, check_channels, check_views
from config.env import read_env
from config.lines import Place, line_numbers
from config.settings import (
    NAME_PATTERN,
    Api,
    ChannelTable,
    ClockRules,
    OutputTable,
    ReconciliationTable,
    Settings,
    Site,
    SourceTable,
    Supervise,
    Table,
    TariffTable,
    Writer,
)
from config.tariffs import decimal, read_price_files, strict_reader
from config.words import MOST_INTEGER, bad_name, dotted, in_plain_words, nearest, printable, shown

_HOUSE_TABLES: Final[dict[str, type[Table]]] = {
    "site": Site,
    "supervise": Supervise,
    "writer": Writer,
    "clock": ClockRules,
    "api": Api,
}
PIECES: Final = "conf.d"  # what is merged in
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
T = TypeVar("T", bound=Table)


class ConfigurationError(Exception):
    """What is wrong with the configuration, one sentence a mistake: file, line, key, what, what now."""

    def __init__(self, problems: Sequence[str]) -> None:
        # A key may hold anything, also what would start a new line or colour a terminal.
        self.problems = [printable(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Catalog:
    """Which kinds of sources and outputs there are, and the table of options of each."""

    source_kinds: Callable[[], list[str]]
    source_options: Callable[[str], type[SourceTable]]
    output_kinds: Callable[[], list[str]]
    output_options: Callable[[str], type[OutputTable]]


def load(path: Path, catalog: Catalog, *, merge: bool = True, base_directory: Path = Path()) -> Settings:
    """Read `path` and, with `merge`, every `conf.d/*.toml` beside it. Raises `ConfigurationError`.

    The files of prices that tariffs name are read too, from `base_directory` where their names are relative.

    Secrets are named by the options that end in `_env`. Those that the environment does not have are taken from a
    `.env` file of mode 600 beside the configuration or above it; all of them are in `Settings.secrets`.
    """
    reading = _Reading()
    files = [path, *(reading.pieces_of(path) if merge else [])]
    for file in files:
        reading.add(file)
    reading.dotenv = read_env(path, reading.problems)
    if reading.problems:
        raise ConfigurationError(reading.problems)
    settings = _settings(reading, catalog, tuple(files), base_directory)
    if settings is None or reading.problems:
        raise ConfigurationError(reading.problems)
    return settings


def pieces_of(path: Path) -> list[Path]:
    """Return the `*.toml` of the folder beside. Hidden ones are what an editor keeps of a file that is open in it."""
    try:
        found = [*(path.parent / PIECES).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(file for file in found if file.suffix == ".toml" and file.name[0] != ".")


@dataclass(slots=True)
class _Reading:
    """The merged tables, where each key stands, and what was wrong so far."""

    tables: dict[str, Any] = field(default_factory=dict)
    places: dict[Place, tuple[Path, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    mistakes: list[tuple[Place, str]] = field(default_factory=list)  # what tables with the right types say themselves
    dotenv: dict[str, str] = field(default_factory=dict)  # what the .env file has
    secrets: dict[str, str] = field(default_factory=dict)  # what the configuration asks for, by variable

    def pieces_of(self, path: Path) -> list[Path]:
        try:
            return pieces_of(path)
        except OSError as error:
            self.problems.append(f"{path.parent / PIECES}: cannot be read: {error.strerror}")
            return []

    def add(self, file: Path) -> None:
        """Merge one file. A key that two files set is a mistake: which of them counts could only be guessed."""
        try:
            content = file.read_bytes()
        except OSError as error:
            what_now = "; ./orchestrator.py init writes one" if isinstance(error, FileNotFoundError) else ""
            self.problems.append(f"{file}: cannot be read: {error.strerror}{what_now}")
            return
        try:
            text = content.decode("utf-8-sig")  # some editors put a byte order mark in front
            tables = tomllib.loads(text)
            if "tariffs" in tables:  # money is never a binary fraction
                tables["tariffs"] = tomllib.loads(text, parse_float=decimal)["tariffs"]
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self.problems.append(f"{file}:{line}: is not UTF-8 text; save it as UTF-8")
            return
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            last = content.rstrip().count(b"\n") + 1
            self.problems.append(f"{file}:{found[1] if found else last}: is not valid TOML: {error}")
            return
        except (ValueError, RecursionError):  # what the parser lets through: a number of 5,000 digits, 1,000 brackets
            self.problems.append(f"{file}: a number is too long or the brackets are nested too deeply")
            return
        places = {place: (file, line) for place, line in line_numbers(text).items()}
        self._merge(self.tables, tables, places, ())
        self.places = places | self.places

    def _merge(
        self, into: dict[str, Any], new: dict[str, Any], places: Mapping[Place, tuple[Path, int]], here: Place
    ) -> None:
        for key, value in new.items():
            place = (*here, key)
            if key not in into:
                into[key] = value
            elif isinstance(value, dict) and isinstance(into[key], dict):
                self._merge(into[key], value, places, place)
            else:
                first, second = _nearest_place(self.places, place), _nearest_place(places, place)
                self.problems.append(f"{second}: {dotted(place)} is set already in {first}; keep one of the two")

    def complain(self, place: Place, what: str) -> None:
        """Note a mistake at a key, or at the nearest table around it that has a line."""
        where = _nearest_place(self.places, place)
        self.problems.append(f"{where}: {dotted(place)}: {what}" if where else f"{dotted(place)}: {what}")

    def table(self, kind: type[T], content: Mapping[str, Any], here: Place) -> T | None:
        """Turn a table into its type, or note everything that is wrong with it."""
        fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
        before = len(self.problems)
        values = {}
        for key, value in content.items():
            if key not in fields:
                self.complain((*here, key), f"unknown key{nearest(key, fields)}")
            else:
                values[fields[key].name] = self._value(fields[key], value, (*here, key))
        for name, one in fields.items():
            if one.required and name not in content:
                self.complain((*here, name), "this key is missing")
            elif name.endswith("_env"):
                self._check_secret(values.get(name, one.default), (*here, name))
        if len(self.problems) > before:
            return None
        try:
            table = kind(**values)
        except ValueError as error:  # what a table checks of itself, across its keys
            self.complain(here, str(error))
            return None
        self.mistakes += [((*here, *key), what) for key, what in table.mistakes()]
        return table

    def _value(self, one: msgspec.structs.FieldInfo, value: Any, place: Place) -> Any:
        kind = one.type
        inner = get_args(kind)
        if _is_table(kind) and isinstance(value, dict):
            return self.table(kind, value, place)
        if get_origin(kind) in (list, tuple) and _is_table(inner[0]):
            if isinstance(value, list):
                items = [self._item(inner[0], item, (*place, number)) for number, item in enumerate(value)]
                return items if get_origin(kind) is list else tuple(items)
            if isinstance(value, dict):
                header = ".".join(str(part) for part in place)
                self.complain(place, f"there may be several: write [[{header}]] with two brackets")
                return None
        if reader := strict_reader(kind):
            return self._strictly(reader, value, place)
        try:
            if isinstance(value, int) and abs(value) >= MOST_INTEGER:
                raise msgspec.ValidationError("Number out of range")
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            self.complain(place, in_plain_words(str(error), value, one))
            return None

    def _strictly(self, reader: Callable[[Any], Any], value: Any, place: Place) -> Any:
        try:
            return reader(value)
        except ValueError as error:
            self.complain(place, str(error))
            return None

    def _item(self, kind: type[T], item: Any, place: Place) -> T | None:
        if isinstance(item, dict):
            return self.table(kind, item, place)
        self.complain(place, "expected a table")
        return None

    def _check_secret(self, variable: Any, place: Place) -> None:
        """See that the variable exists. What is no usual name of one may be the secret itself, so it is not shown."""
        if not isinstance(variable, str) or not variable:
            return
        if secret := os.environ.get(variable) or self.dotenv.get(variable):
            self.secrets[variable] = secret
            return
        if _VARIABLE.fullmatch(variable):
            what = f"the environment variable {variable} is not set; put {variable}=… into .env (mode 600)"
        else:
            what = "no environment variable has this name; name one here, MY_TOKEN say, and put MY_TOKEN=… into .env"
        self.complain(place, what)


def _settings(reading: _Reading, catalog: Catalog, files: tuple[Path, ...], base_directory: Path) -> Settings | None:
    known = [*_HOUSE_TABLES, "sources", "outputs", "tariffs", "channels", "reconciliations"]
    for key, value in reading.tables.items():
        if key not in known:
            reading.complain((key,), f"unknown table{nearest(key, known)}")
        elif not isinstance(value, dict):
            reading.complain((key,), "expected a table")
    house = {
        key: reading.table(kind, content if isinstance(content := reading.tables.get(key, {}), dict) else {}, (key,))
        for key, kind in _HOUSE_TABLES.items()
    }
    sources = _kinds(reading, "sources", catalog.source_kinds, catalog.source_options)
    outputs = _kinds(reading, "outputs", catalog.output_kinds, catalog.output_options)
    tariffs = _named(reading, "tariffs", TariffTable)
    channels = _channels(reading)
    reconciliations = _named(reading, "reconciliations", ReconciliationTable)
    prices, wrong = read_price_files(tariffs, base_directory)
    _check_timezone(reading)
    _check_files(reading, outputs)
    wrong += [*check_channels(channels, sources, tariffs), *check_views(reconciliations, sources)]
    if isinstance(api := house["api"], Api):
        wrong += check_appliances(api.appliances, sources)
    for place, what in [*reading.mistakes, *wrong]:
        reading.complain(place, what)
    if reading.problems:
        return None
    found = {"sources": sources, "outputs": outputs, "tariffs": tariffs, "prices": prices}
    found |= {"channels": channels, "reconciliations": reconciliations}
    return Settings(**house, **found, files=files, secrets=reading.secrets)  # type: ignore[arg-type]


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
            reading.complain(place, bad_name(name))
            continue
        if twin := next((other for other in tables if other != name and other.lower() == name.lower()), None):
            reading.complain(place, f"differs from {twin} only in upper and lower case, which Graphite does not keep")
        kind = content.get("kind", name if group == "outputs" else None)
        if kind is None:
            reading.complain(place, f'this key is missing: kind = "…", one of {", ".join(kinds())}')
        elif not isinstance(kind, str):
            reading.complain((*place, "kind"), f"expected text in quotes, got {shown(kind)}")
        elif kind not in kinds():
            near = nearest(kind, kinds(), listed=True)
            reading.complain((*place, "kind"), f"there is no kind {shown(kind)}{near}")
        elif table := reading.table(options(kind), content, place):
            found[name] = table
            _check_device_names(reading, table, place)
    return found


def _named(reading: _Reading, group: str, kind: type[T]) -> dict[str, T]:
    """Read `[tariffs.*]` and their like: tables of one type, by names that the owner gives."""
    found = {}
    tables = reading.tables.get(group, {})
    for name, content in tables.items() if isinstance(tables, dict) else ():
        place = (group, name)
        if not isinstance(content, dict):
            reading.complain(place, "expected a table")
        elif not re.fullmatch(NAME_PATTERN, name):
            reading.complain(place, bad_name(name))
        elif table := reading.table(kind, content, place):
            found[name] = table
    return found


def _channels(reading: _Reading) -> dict[str, ChannelTable]:
    """Read `[channels.<source>.<device>]`, by source/device."""
    found = {}
    groups = reading.tables.get("channels", {})
    for source, devices in groups.items() if isinstance(groups, dict) else ():
        if not isinstance(devices, dict) or any(not isinstance(content, dict) for content in devices.values()):
            reading.complain(("channels", source), "expected [channels.<source>.<device>]")
            continue
        for device, content in devices.items():
            if table := reading.table(ChannelTable, content, ("channels", source, device)):
                found[f"{source}/{device}"] = table
    return found


def _check_device_names(reading: _Reading, table: Table, place: Place) -> None:
    """Names that differ only in case would share one series in Graphite, which is written in lower case."""
    seen: set[str] = set()
    for number, device in enumerate(getattr(table, "devices", ())):
        if device.name.lower() in seen:
            reading.complain((*place, "devices", number, "name"), f"{device.name!r} is the name of another device too")
        seen.add(device.name.lower())


def _check_timezone(reading: _Reading) -> None:
    site = reading.tables.get("site")
    zone = site.get("timezone") if isinstance(site, dict) else None
    if not isinstance(zone, str):  # not set, or complained about already
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest(zone, zoneinfo.available_timezones())
        reading.complain(("site", "timezone"), f"there is no time zone {shown(zone)}{near}")


def _check_files(reading: _Reading, outputs: Mapping[str, OutputTable]) -> None:
    """Two outputs that append to the same files would each cut off what the other one wrote."""
    taken: dict[tuple[Path, object], str] = {}
    for name, options in outputs.items():
        if (directory := getattr(options, "directory", None)) is not None:
            files = (Path(os.path.normpath(directory)), getattr(options, "profile", None))
            if files in taken:
                what = f"output {taken[files]} writes the same files; give this one a directory of its own"
                reading.complain(("outputs", name), what)
            taken[files] = name
    histories = [name for name, options in outputs.items() if (options.kind or name) == "history"]
    for name in histories[1:]:
        reading.complain(("outputs", name), f"there is one history.db, and output {histories[0]} writes it")


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def _nearest_place(places: Mapping[Place, tuple[Path, int]], place: Place) -> str:
    """Return file:line of a key, or of the nearest table around it that has one."""
    for length in range(len(place), 0, -1):
        if place[:length] in places:
            file, line = places[place[:length]]
            return f"{file}:{line}"
    return ""
