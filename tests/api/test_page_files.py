"""The files of the page keep rules that no browser tells: small, self-contained, and safe with foreign text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "api" / "static"
SCRIPTS = sorted(STATIC.glob("*.js"))
FILES = sorted(file for file in STATIC.iterdir() if file.suffix != ".png")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_opens_with_a_sentence_and_is_read_at_a_sitting(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert re.fullmatch(r"// [A-Z].*\.", lines[0])
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_never_reads_text_as_html_or_code(script: Path) -> None:
    """What a device calls itself comes from outside."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|createContextual"
    )
    assert re.findall(forbidden, script.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_file_names_no_other_machine(file: Path) -> None:
    names = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", file.read_text())
    assert [name for name in names if "www.w3.org/2000/svg" not in name] == []


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    """The Content-Security-Policy would refuse them, and the browser would say so only in its console."""
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page) == []
    assert {*re.findall(r"(?:src|href)=\"(/static/[^\"]+)\"", page)} >= {"/static/page.css", "/static/page.js"}


def test_what_scripts_and_styles_name_exists() -> None:
    page = (STATIC / "index.html").read_text()
    ids = {*re.findall(r'\bid="([\w-]+)"', page)}
    asked = {name for script in SCRIPTS for name in re.findall(r'byId\("([\w-]+)"\)', script.read_text())}
    assert asked <= ids
    imported = {name for script in SCRIPTS for name in re.findall(r'from "\./([\w.]+)"', script.read_text())}
    assert imported <= {script.name for script in SCRIPTS}
    # A script that nobody imports is not part of the page.
    assert {script.name for script in SCRIPTS} == imported | {"page.js"}


def test_the_manifest_shows_icons_that_are_there() -> None:
    manifest = json.loads((STATIC / "manifest.webmanifest").read_text())
    assert {icon["src"] for icon in manifest["icons"]} == {f"/static/{file.name}" for file in STATIC.glob("icon.*")}
    assert manifest["start_url"] == "/"
