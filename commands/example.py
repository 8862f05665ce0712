"""`example`: print a configuration with every option and its default, put together from the docstrings."""

from __future__ import annotations

import importlib
import inspect
import textwrap

import click

import config.settings
import workers
import writer

_HEAD = """\
# Every option that wattherd has, with its default. Written by `make example` from the docstrings: to change it,
# change them. A configuration of your own goes to config/site.toml and needs only what differs.
"""


@click.command
@click.argument("kind", required=False)
def command(kind: str | None) -> None:
    """Print a configuration with every option and its default, or that of one KIND of source or output."""
    modules = {kind_: f"workers.{kind_}" for kind_ in workers.kinds()}
    modules |= {kind_: f"writer.outputs.{kind_}" for kind_ in writer.kinds()}
    if kind is None:
        click.echo(_HEAD)
        click.echo(example_of(config.settings.__doc__ or ""))
        for module in modules.values():
            click.echo(f"\n{example_of_module(module)}")
    elif kind in modules:
        click.echo(example_of_module(modules[kind]))
    else:
        raise click.UsageError(f"there is no kind {kind!r}; there are: {', '.join(sorted(modules))}")


def example_of_module(name: str) -> str:
    """Return the TOML example of a source's or an output's module, under the module's first sentence."""
    documentation = inspect.getdoc(importlib.import_module(name)) or ""
    return f"# {documentation.splitlines()[0]}\n{example_of(documentation)}"


def example_of(documentation: str) -> str:
    """Return the TOML in a docstring: from the first indented table header to where the indent ends.

    >>> example_of("What it is.\\n\\n    [site]\\n    name = 1\\n\\nMore.")
    '[site]\\nname = 1'
    """
    lines: list[str] = []
    for line in documentation.splitlines():
        if lines and line.strip() and not line.startswith("    "):
            break
        if lines or line.startswith("    ["):
            lines.append(line)
    return textwrap.dedent("\n".join(lines)).strip()
