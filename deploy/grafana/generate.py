"""Writes the dashboards and the alert rules of Grafana: `make dashboards`.

They are generated so that one household's dashboard asks three stores the same questions, and committed so that nobody
needs this to use them. `--currency EUR` writes the cost in another currency.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Write every file, or say with `--into` where else."""
    parser = argparse.ArgumentParser(description="write Grafana's dashboards and alert rules")
    parser.add_argument("--currency", default="GBP", help="three letters; GBP unless told otherwise")
    parser.add_argument(
        "--into", type=Path, default=HERE, help="the folder to write to; this one unless told otherwise"
    )
    wishes = parser.parse_args()
    with warnings.catch_warnings():
        # The kit prefers a format that Grafana reads since its version 13 only.
        warnings.simplefilter("ignore", DeprecationWarning)
        from deploy.grafana._all import files

    for name, text in files(wishes.currency).items():
        file = wishes.into / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file}")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    main()
