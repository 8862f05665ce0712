"""Asks the person before the terminal, or takes what would be proposed, where there is none or none wishes to be."""

from __future__ import annotations

import sys

import click

from config.words import printable


class Asking:
    """Questions with a default each. `quiet`: all defaults are taken without a word."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet or not sys.stdin.isatty()

    def yes(self, question: str, *, default: bool) -> bool:
        return default if self.quiet else click.confirm(printable(question), default=default)

    def text(self, question: str, default: str = "") -> str:
        """Return what is answered, without blanks around it."""
        if self.quiet:
            return default
        answer: str = click.prompt(printable(question), default=default, show_default=bool(default))
        return answer.strip()

    def secret(self, question: str) -> str:
        """Return a secret, which is not shown; nothing if nobody can be asked or nothing is answered."""
        if self.quiet:
            return ""
        answer: str = click.prompt(printable(question), default="", show_default=False, hide_input=True)
        return answer.strip()
