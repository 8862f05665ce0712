"""Writes the first configuration of a house: what was found and wished, with a word on each, and nothing else."""

from __future__ import annotations

import json
import re
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from config.load import ConfigurationError
from config.settings import Settings

Reader = Callable[[Path], Settings]  # raises ConfigurationError

_COLUMNS: Final = 117
_HEAD: Final = """\
# The house, as `./orchestrator.py init` found it. Only what differs from the defaults has to be here:
# config/example.toml has every option, ./orchestrator.py example KIND those of one kind.
# After a change: ./orchestrator.py check, then  kill -HUP "$(cat {data_dir}/wattherd.lock)"
"""
_NOTHING: Final = """\
# No meter yet. `./orchestrator.py discover` looks again; docs/sources/ has a page for each kind.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One table of a source or an output."""

    toml: str
    remark: str = ""
    why_out: str = ""  # not empty: it stands there as a comment, for this reason

    @property
    def text(self) -> str:
        """Return it as it stands in the file."""
        if not self.why_out:
            return _comment(self.remark) + self.toml.rstrip("\n") + "\n"
        lines = [f"# {line}".rstrip() for line in self.toml.rstrip("\n").split("\n")]
        return _comment(f"Left out: {self.why_out}. Take the # away then.") + "\n".join(lines) + "\n"


@dataclass(slots=True)
class Draft:
    """What the configuration is going to say."""

    name: str
    timezone: str
    sources: list[Block] = field(default_factory=list)
    outputs: list[Block] = field(default_factory=list)
    data_dir: str = "var"

    @property
    def text(self) -> str:
        """The whole file.

        >>> print(Draft("home", "Europe/London", [], [Block("[outputs.csv]")]).text.split("\\n\\n", 1)[1])
        [site]
        name = "home"
        timezone = "Europe/London"
        <BLANKLINE>
        # No meter yet. `./orchestrator.py discover` looks again; docs/sources/ has a page for each kind.
        <BLANKLINE>
        [outputs.csv]
        <BLANKLINE>
        """
        site = f'[site]\nname = {json.dumps(self.name)}\ntimezone = "{self.timezone}"\n'
        if self.data_dir != "var":
            site += f"data_dir = {json.dumps(self.data_dir)}\n"
        found = [] if any(not block.why_out for block in self.sources) else [_NOTHING]
        found += [block.text for block in self.sources]
        outputs = [block.text for block in self.outputs]
        return "\n".join([_HEAD.format(data_dir=self.data_dir), site, *found, *outputs])


def settled(draft: Draft, read: Reader, beside: Path) -> tuple[str, Settings]:
    """Return a text that can be read, and what it says; a table with a mistake becomes a comment that names it.

    `beside` is the folder of the configuration: its `conf.d` counts too. Raises `ConfigurationError` if that clashes.
    """
    for blocks in (draft.sources, draft.outputs):
        blocks[:] = [_sound(block, read) for block in blocks]
    with tempfile.TemporaryDirectory(prefix="wattherd-init-") as folder:
        file = Path(folder) / "site.toml"
        if (beside / "conf.d").is_dir():
            (file.parent / "conf.d").symlink_to((beside / "conf.d").resolve())
        file.write_text(draft.text, encoding="utf-8")
        return draft.text, read(file)


def mistake_in(toml: str, read: Reader) -> str:
    """Say what is wrong with a table, or nothing."""
    with tempfile.TemporaryDirectory(prefix="wattherd-init-") as folder:
        file = Path(folder) / "site.toml"
        file.write_text(toml, encoding="utf-8")
        try:
            read(file)
        except ConfigurationError as error:
            where = re.compile(rf"^{re.escape(str(file))}(:\d+)?: ")
            return "; ".join(where.sub("", problem) for problem in error.problems)
    return ""


def _sound(block: Block, read: Reader) -> Block:
    return block if block.why_out else replace(block, why_out=mistake_in(block.toml, read))


def listed(names: Sequence[str]) -> str:
    """Name several things.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _comment(words: str) -> str:
    if not words:
        return ""
    lines = textwrap.wrap(words, _COLUMNS, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)
