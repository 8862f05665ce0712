"""How commands speak: 80 columns everywhere, colours on a terminal alone, and one JSON document for programs."""

from __future__ import annotations

import json
import textwrap
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 80
_COLOURS: Final = {"✓": "green", "!": "yellow", "✗": "red"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def console() -> Console:
    return Console(width=WIDTH, highlight=False, soft_wrap=False)


def table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """Make a table; nothing in it is ever cut off. `right`: the columns of numbers."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        made.add_column(title, overflow="fold", justify="right" if title in right else "left")
    return made


def marked(words: str) -> Text:
    """Colour the mark that a line begins with.

    >>> marked("✗ gone").markup
    '[red]✗[/red] gone'
    """
    text = Text(words)
    if colour := _COLOURS.get(words.lstrip()[:1]):
        start = len(words) - len(words.lstrip())
        text.stylize(colour, start, start + 1)
    return text


def say(words: str, *, indent: int = 2) -> None:
    """Print a sentence in as many lines as it needs; those after the first are indented."""
    for line in wrapped(words, indent=indent):
        console().print(marked(line), soft_wrap=True)


def say_next(command: str) -> None:
    """Print the next command, in one line however long: it is there to be pasted."""
    click.echo(f"Next: {command}")


def wrapped(words: str, *, indent: int = 2) -> list[str]:
    """Break a sentence into lines of at most 80 characters, but no path and no option.

    >>> wrapped("! " + "word " * 17)
    ['! word word word word word word word word word word word word word word word', '  word word']
    """
    before = len(words) - len(words.lstrip())
    lines = textwrap.wrap(
        words, WIDTH, subsequent_indent=" " * (before + indent), break_on_hyphens=False, break_long_words=False
    )
    return lines or [""]


def print_json(told: Any) -> None:
    click.echo(json.dumps(told, ensure_ascii=False, indent=2))
