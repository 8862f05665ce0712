"""Where each key of a TOML file stands: every line that is named must hold the key, whatever stands around it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.lines import Place, line_numbers


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("\n\n[site]\nname = 'x'", ("site", "name"), 4),
        ("site.name = 'x'", ("site", "name"), 1),
        ("# [site]\n[site] # name = [\nname = 'x'", ("site", "name"), 3),
        ("[a]\nlist = [ # one ]\n  1,\n  2, # ]\n]\nb = 1", ("a", "b"), 6),
        ('[a]\ntext = """\n[b]\nc = 1\n"""\nd = 2', ("a", "d"), 6),
        ("[a]\ntext = '''\n]]\n'''\nd = 2", ("a", "d"), 5),
        ("[a]\r\nlist = [\r\n1,\r\n]\r\nb = 1\r\n", ("a", "b"), 5),
        ("\t[a]\n\t\tb\t=\t1", ("a", "b"), 2),
        ("# a\u2028b\x85c\n[a]\nb = 1", ("a", "b"), 3),
        ('[a]\ntext = "a\u2028b"\nb = 1', ("a", "b"), 3),
        ("[[p]]\nn = 1\n[[p]]\nn = 2", ("p", 1, "n"), 4),
        ("[[p]]\n[p.q]\nn = 1\n[[p]]\n[p.q]\nn = 2", ("p", 1, "q", "n"), 6),
        ("[[p]]\n[[p.q]]\n[[p.q]]\n[[p]]\n[[p.q]]\nn = 2", ("p", 1, "q", 0, "n"), 6),
        ("[a]\nb = { c = 1 }", ("a", "b", "c"), 2),
        ('["a.b"]\n"c d" = 1', ("a.b", "c d"), 2),
        ('[a]\n"#" = 1\n"=" = 2', ("a", "="), 3),
        ("[ a . b ]\nc = 1", ("a", "b", "c"), 2),
        ("a.b.c = 1\na.b.d = 2", ("a", "b", "d"), 2),
        ("[a]\nb = 1 # = [[x]]\n[[x]]\nc = 1", ("x", 0, "c"), 4),
    ],
)
def test_each_key_is_found_where_it_stands(text: str, place: Place, line: int) -> None:
    tomllib.loads(text)
    assert line_numbers(text)[place] == line


KEYS = st.text("abc.=# \"'[]", min_size=1, max_size=4)
WORDS = st.text("ab[]{}#='\"\\\n, ", max_size=8)
SCALARS = st.one_of(st.integers(-9, 9), st.booleans(), WORDS)
TABLES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(KEYS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=4),
    lambda inner: st.dictionaries(
        KEYS, st.one_of(SCALARS, inner, st.lists(inner.filter(bool), min_size=1, max_size=3)), max_size=4
    ),
    max_leaves=12,
)


class _Writer:
    """Writes TOML in many ways, and notes the line of each key itself: an answer that owes nothing to a parser."""

    def __init__(self, draw: st.DataObject) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Place, int] = {}

    def table(self, table: dict[str, Any], header: str, place: Place) -> None:
        for key, value in table.items():
            if not self._has_header(value):
                self._noise()
                self._note((*place, key))
                self.text += f"{self._key(key)} = {self._value(value)}{self._comment()}{self._end()}"
        for key, value in table.items():
            inner = f"{header}.{self._key(key)}".lstrip(".")
            if isinstance(value, dict):
                self._noise()
                self._note((*place, key))
                self.text += f"[{inner}]{self._comment()}{self._end()}"
                self.table(value, inner, (*place, key))
            elif self._has_header(value):
                for number, item in enumerate(value):
                    self._noise()
                    self._note((*place, key))
                    self._note((*place, key, number))
                    self.text += f"[[{inner}]]{self._comment()}{self._end()}"
                    self.table(item, inner, (*place, key, number))

    @staticmethod
    def _has_header(value: Any) -> bool:
        return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))

    def _note(self, place: Place) -> None:
        self.lines.setdefault(place, self.text.count("\n") + 1)

    def _one_of(self, *choices: str) -> str:
        return self.draw.draw(st.sampled_from(choices))

    def _end(self) -> str:
        return self._one_of("\n", "\r\n")

    def _noise(self) -> None:
        self.text += self._one_of("", "\n", "# [x] = \u2028\n", "\t", "  ")

    def _comment(self) -> str:
        return self._one_of("", " # ]]", "\t# = '''")

    def _key(self, key: str) -> str:
        return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _value(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            gap = self._one_of(" ", "\n", " # ]\n\r\n")
            return "[" + gap + "".join(f"{self._value(item)},{gap}" for item in value) + "]"
        if isinstance(value, str):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            if self._one_of("short", "long") == "long":
                return f'"""\n{escaped}"""'
            return '"' + escaped.replace("\n", "\\n") + '"'
        return str(value)


@given(TABLES, st.data())
def test_whatever_the_file_looks_like_every_key_has_its_line(tables: dict[str, Any], data: st.DataObject) -> None:
    writer = _Writer(data)
    writer.table(tables, "", ())
    assert tomllib.loads(writer.text) == tables, "the test wrote another file than it meant to"
    assert line_numbers(writer.text) == writer.lines
