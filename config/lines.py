"""Finds the line on which each key of a TOML file stands; the parser of the standard library does not tell."""

from __future__ import annotations

import tomllib
from typing import Any

Place = tuple[str | int, ...]  # the keys down to a value; a number is the place in a list of tables


def line_numbers(text: str) -> dict[Place, int]:
    """Return the line of every table and key of a valid TOML text.

    >>> line_numbers('[site]\\nname = "home"\\n[[pets]]\\nname = "rex"')
    {('site',): 1, ('site', 'name'): 2, ('pets',): 3, ('pets', 0): 3, ('pets', 0, 'name'): 4}
    """
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    lines = text.replace("\r\n", "\n").split("\n")  # nothing else ends a line in TOML
    number = 0
    while number < len(lines):
        start = number
        statement = lines[number].strip()
        number += 1
        if not statement or statement.startswith("#"):
            continue
        # A value may run over several lines: a statement ends where the parser is content with it.
        while (parsed := _parse(statement)) is None and number < len(lines):
            statement += "\n" + lines[number]
            number += 1
        if parsed is None:
            continue
        keys = _keys(parsed)
        if statement.startswith("["):
            table = _in_lists(keys, counts)
            if statement.startswith("[["):
                counts[table] = counts.get(table, 0) + 1
                found.setdefault(table, start + 1)
                table = (*table, counts[table] - 1)
            place = table
        else:
            place = (*table, *keys)
        for length in range(1, len(place) + 1):
            found.setdefault(place[:length], start + 1)
    return found


def _parse(statement: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(statement)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _keys(parsed: Any) -> tuple[str, ...]:
    """Return the keys of a single statement, from the outermost in."""
    keys: list[str] = []
    while isinstance(parsed, dict) and len(parsed) == 1:
        [(key, parsed)] = parsed.items()
        keys.append(key)
    return tuple(keys)


def _in_lists(keys: tuple[str, ...], counts: dict[Place, int]) -> Place:
    """Put in which item of a list of tables is meant: the last one."""
    place: Place = ()
    for key in keys[:-1]:
        place = (*place, key)
        if place in counts:
            place = (*place, counts[place] - 1)
    return (*place, keys[-1]) if keys else place
