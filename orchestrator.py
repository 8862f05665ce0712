#!/usr/bin/env python3
"""The door: `./orchestrator.py COMMAND`. One file of `commands/` per command, imported only when it is asked for."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV_PYTHON = HERE / ".venv" / "bin" / "python"

# Called by a plain interpreter, as an @reboot line or a newcomer does: go on in our virtual environment.
if sys.prefix == sys.base_prefix and VENV_PYTHON.exists():
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])  # noqa: S606 - our own interpreter, no shell

try:
    import click
except ModuleNotFoundError:
    sys.exit("wattherd is not set up yet; run: make install")


class Commands(click.Group):
    """Finds the commands by their files."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(path.stem for path in (HERE / "commands").glob("[!_]*.py"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"commands.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # click knows only commands that were imported
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what stands in their files: importing them all takes seconds on a small machine."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(HERE / "commands" / f"{name}.py")) for name in self.list_commands(ctx)])


def _summary(file: Path) -> str:
    """Return the `short_help` of the command in a file, or else the first sentence of its docstring."""
    [command] = (
        part
        for part in ast.parse(file.read_bytes()).body
        if isinstance(part, ast.FunctionDef) and part.name == "command"
    )
    for decorator in command.decorator_list:
        for option in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if option.arg == "short_help":
                return str(ast.literal_eval(option.value))
    first, _, _ = (ast.get_docstring(command) or "").partition("\n\n")
    return " ".join(first.split()).partition(". ")[0].removesuffix(".") + "."


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """wattherd herds every electricity meter of a home or a workshop, without losing or inventing a watt-hour."""


if __name__ == "__main__":
    main(prog_name="orchestrator.py")
