"""InfluxData's own engine of Flux, where somebody has built it: it computes, on readings that stand in the script.

It is not among the peers, because building it takes Go, Rust and a quarter of an hour:
tests/peers/flux/engine/build.sh, then name it in FLUX_ENGINE. Without it the tests that need it are skipped.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from writer.outputs._influx_rollups import flux_text

ENGINE: Final = os.environ.get("FLUX_ENGINE", "")
NEEDED: Final = pytest.mark.skipif(not ENGINE, reason="FLUX_ENGINE names no engine; tests/peers/flux/engine/build.sh")
_TYPES: Final = {float: "double", int: "long", str: "string"}

# Of each series, by what its group key is: its points, each a second and a value.
Series = Mapping[tuple[tuple[str, str], ...], Sequence[tuple[float, Any]]]


def stored(series: Series) -> str:
    """Flux that stands in for every bucket: reading gives these series, writing gives back what would be written."""
    return f"from = (bucket) => csv.from(csv: {flux_text(_as_csv(series))})\nto = (tables=<-, bucket) => tables\n"


def run(script: str, now_s: float) -> Iterator[dict[str, str]]:
    """Run a script at a time, and return its rows; `csv` has to be imported where `stored` is in it."""
    return rows(answer(script, now_s))


def answer(script: str, now_s: float) -> str:
    """Run a script at a time, and return all that it says, as a server would."""
    environment = {**os.environ, "FLUX_NOW": _date(now_s, "%Y-%m-%dT%H:%M:%SZ")}
    done = subprocess.run([ENGINE], input=script, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: str) -> Iterator[dict[str, str]]:
    """Read annotated CSV: the row behind annotations names the columns."""
    columns: list[str] = []
    annotated = False
    for row in csv.reader(io.StringIO(table)):
        if row and row[0].startswith("#"):
            annotated = True
        elif annotated:
            columns, annotated = row, False
        elif row:
            yield dict(zip(columns, row, strict=True))


def _as_csv(series: Series) -> str:
    lines = []
    for number, (key, points) in enumerate(series.items()):
        names, values = [name for name, _ in key], ",".join(value for _, value in key)
        lines += [
            f"#datatype,string,long,dateTime:RFC3339,{_TYPES[type(points[0][1])]}{',string' * len(names)}",
            f"#group,false,false,false,false{',true' * len(names)}",
            f"#default,_result,,,{',' * len(names)}",
            f",result,table,_time,_value,{','.join(names)}",
            *(f",,{number},{_date(at_s, '%Y-%m-%dT%H:%M:%S.%fZ')},{value},{values}" for at_s, value in points),
            "",
        ]
    return "\n".join(lines)


def _date(at_s: float, form: str) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime(form)
