"""Says what is wrong with a value of the configuration, to the person who wrote it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from msgspec.structs import FieldInfo

from config.lines import Place
from config.settings import NAME_PATTERN

MOST_INTEGER: Final = 2**63  # TOML, SQLite and the databases have no larger one
_MOST_CHARS: Final = 60  # of what somebody wrote, in a message
# msgspec speaks of types as a programmer does.
_TABLES_DEEP: Final = {"sources": 2, "outputs": 2, "tariffs": 2, "reconciliations": 2, "channels": 3}
_PLAIN_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "date": "a date",
    "time": "a time",
    "datetime": "a date and time",
}


def in_plain_words(message: str, value: Any, field: FieldInfo) -> str:
    """Say what msgspec says about the value of a field, for a person.

    >>> in_plain_words("Expected `int` <= 65535", 70000, FieldInfo("port", "port", int))
    'expected a whole number <= 65535, got 70000'
    >>> choices = FieldInfo("require_sync", "require_sync", bool | Literal["auto"])
    >>> in_plain_words("Expected `bool | str`, got `int`", 5, choices)
    'expected true or false or "auto", got 5'
    """
    got = "" if field.name.endswith("_env") else f", got {shown(value)}"
    if "matching regex" in message:
        if repr(NAME_PATTERN) in message:
            return bad_name(value)
        example = f"expected something like {json.dumps(field.default)}" if isinstance(field.default, str) else ""
        return f"{example or 'has not the right form'}{got}"
    if "out of range" in message:
        return f"is too large{got}"
    message, inside, _ = message.partition(" - at ")
    message = re.sub("`([^`]*)`", lambda kinds: _listed(kinds[1].split(" | ")), message)
    if inside:
        return f"inside: {message[:1].lower()}{message[1:]}"
    if "enum value" in message or (", got " in message and "Literal" in repr(field.type)):
        return f"expected {_listed(_choices(field.type))}{got}"
    expected = message.removeprefix("Expected ").split(", got ")[0]
    return f"expected {expected[:1].lower()}{expected[1:]}{got}"


def bad_name(name: str) -> str:
    """Say that this is no name, and what would be one.

    >>> bad_name("kitchen.fridge")
    "'kitchen.fridge' is no name: letters, digits, - and _ only, 63 at most; 'kitchen-fridge' would do"
    """
    mended = re.sub("[^A-Za-z0-9_-]+", "-", name).strip("-_")[:63]
    hint = f"; {mended!r} would do" if mended else ""
    return f"{shown(name)} is no name: letters, digits, - and _ only, 63 at most{hint}"


def nearest(word: str, known: Collection[str], *, listed: bool = False) -> str:
    """Name the known word that is most like `word`, or all there are if they are few or to be `listed`."""
    near = difflib.get_close_matches(word[:_MOST_CHARS], known, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; there are: {', '.join(sorted(known))}" if listed or len(known) <= 30 else ""


def shown(value: Any) -> str:
    """Return a value as it can be shown: short, and nothing of the inside of a table, which may hold a secret.

    >>> shown(True), shown("a"), shown({"token": "a"})
    ('true', "'a'", 'a table')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= MOST_INTEGER:
        return "a very large number"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"


def printable(text: str) -> str:
    """Escape what is more than a character of one line.

    >>> print(printable("a\\nb"))
    a\\nb
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def dotted(place: Place) -> str:
    """Name a place as its owner would.

    >>> dotted(("sources", "meter", "devices", 1, "name"))
    '[sources.meter] devices, number 2: name'
    """
    if len(place) == 1:
        return f"[{place[0]}]"
    tables = _TABLES_DEEP.get(str(place[0]), 1)
    text = f"[{'.'.join(str(part) for part in place[:tables])}]"
    for part in place[tables:]:
        text += f", number {part + 1}:" if isinstance(part, int) else f" {part}"
    return text.removesuffix(":")


def _listed(kinds: Sequence[str]) -> str:
    return " or ".join(_PLAIN_WORDS.get(kind, kind) for kind in kinds)


def _choices(kind: Any) -> list[str]:
    """Return what a type lets one choose from, as one writes it: types by name, words in quotes."""
    if get_origin(kind) is Literal:
        return [json.dumps(word, ensure_ascii=False) for word in get_args(kind)]
    if get_origin(kind) is Annotated:
        return _choices(get_args(kind)[0])
    if isinstance(kind, type):
        return [kind.__name__]
    return [choice for part in get_args(kind) for choice in _choices(part)]
