"""Builds a preload shim once for each content of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("shim.c")


def shim_library(source: Path = _SOURCE) -> Path:
    """Return a built shim, by default that for SPI and I2C.

    Without a compiler the test is skipped, or fails where REQUIRE_PEERS=1 says so.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        missing = f"there is no C compiler for {source.name}; try: sudo apt install gcc libc6-dev"
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    directory = Path(tempfile.gettempdir()) / f"wattherd-shim-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        pytest.fail(f"{directory} belongs to somebody else, whose library would be preloaded", pytrace=False)
    library = directory / f"{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        unfinished = library.with_suffix(f".{os.getpid()}")
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        built = subprocess.run(
            [compiler, *flags, "-o", unfinished, source, "-ldl", "-lpthread"], capture_output=True, text=True
        )
        if built.returncode:
            pytest.fail(f"{source.name} does not compile:\n{built.stderr}", pytrace=False)
        unfinished.rename(library)
    return library
