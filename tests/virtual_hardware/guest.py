"""Runs pytest inside the virtual machine and leaves its status where the host finds it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

RESULTS = Path("/run/results")


def main() -> None:
    here = Path(__file__).parent
    chosen = [word for word in (RESULTS / "arguments").read_text().split("\0") if word]
    arguments = ["-p", "no:cacheprovider", "-p", "pytest_timeout", "-v", "--color=no", "--timeout=600", "--durations=5"]
    arguments.append(f"--junit-xml={RESULTS}/junit.xml")
    status = pytest.main([*arguments, *(chosen or [str(here)])])
    sys.stdout.flush()
    (RESULTS / "status").write_text(str(int(status)))


if __name__ == "__main__":
    main()
