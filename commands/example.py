"""`example`: print a configuration with every option and its default, put together from the docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap

import click

import config.settings
import workers
import writer

_HEAD = """\
# Every option that wattherd has, with its default. Written by `make example` from the docstrings: to change it,
# change them. A configuration of your own goes to config/site.toml and needs only what differs.
"""
# What every output has, so that its docstring need not tell.
_EVERY_OUTPUT = """\
kind = "{kind}"
enabled = true
"""


@click.command
@click.argument("kind", required=False)
def command(kind: str | None) -> None:
    """Print every option with its default.

    All of them, as one configuration, or those of one KIND of source or output.

    Example: ./orchestrator.py example pulse
    """
    modules = [f"workers.{kind_}" for kind_ in workers.kinds()]
    modules += [f"writer.outputs.{kind_}" for kind_ in writer.kinds()]
    kinds = [module.rpartition(".")[2] for module in modules]
    if kind is None:
        click.echo(_HEAD)
        click.echo(example_of(inspect.getdoc(config.settings) or ""))
        for module in modules:
            click.echo(f"\n{example_of_module(module)}")
    elif kind in kinds:  # some are a source and an output
        of_kind = [module for module, name in zip(modules, kinds, strict=True) if name == kind]
        click.echo("\n\n".join(example_of_module(module) for module in of_kind))
    else:
        raise click.UsageError(f"there is no kind {kind!r}; there are: {', '.join(sorted({*kinds}))}")


def example_of_module(name: str) -> str:
    """Return the TOML example of a source's or an output's module, under the module's first sentence."""
    documentation = inspect.getdoc(importlib.import_module(name)) or ""
    example = example_of(documentation)
    if name.startswith("writer."):
        header, _, options = example.partition("\n")
        example = header + "\n" + _EVERY_OUTPUT.format(kind=name.rpartition(".")[2]) + options
    return f"# {documentation.splitlines()[0]}\n{example}"


def example_of(documentation: str) -> str:
    """Return the TOML in a docstring: from the first table header to where its indent ends.

    >>> example_of("What it is.\\n\\n    [site]\\n    name = 1\\n\\nMore.")
    '[site]\\nname = 1'
    """
    found = re.search(r"^( *)\[.*\n(?:\1.*\n|\n)*", documentation + "\n", re.MULTILINE)
    return textwrap.dedent(found[0]).strip() if found else ""
