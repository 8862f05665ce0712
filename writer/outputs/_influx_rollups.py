"""What is summed up in InfluxDB, and every text that asks it to: Flux for InfluxDB 2, InfluxQL for InfluxDB 1.

The texts lie in `deploy/influx/`; here their `<placeholders>` are filled in, each by something that cannot be more than
one name, one duration or one date. A rolled-up bucket has the fields of the raw one: averages (with `_min` and `_max`
beside them), the last of what counts or lasts, the sum of bookings and pulses. So one query fits all buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from reading import AVERAGED, LASTING, SUMMED

DAY_S: Final = 86_400
RAW_KEEPS_S: Final = 30 * DAY_S
_TEXTS: Final = Path(__file__).parents[2] / "deploy" / "influx"
_PLACEHOLDER: Final = re.compile(r"<([a-z_]+)>")
# `quality` and `clock` are there only where there is something to tell, so the last one tells of the whole window.
_LASTING_FIELDS: Final = (*sorted(LASTING), "state", "quality", "clock")
_IN_FLUX: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_IN_INFLUXQL: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Level(Struct, frozen=True):
    """One width of windows. The look-back is what the database itself computes anew again and again."""

    name: str
    width_s: int
    keeps_s: int  # 0: for ever
    look_back: str
    offset: str  # so that the newest readings have arrived


LEVELS: Final = (
    Level("1m", 60, 90 * DAY_S, "10m", "30s"),
    Level("5m", 300, 365 * DAY_S, "30m", "1m"),
    Level("1h", 3600, 0, "3h", "1m"),
)
# Every look-back covers what is late by less than this, with a window, a run and an offset to spare.
LATE_S: Final = 300


class Names(Protocol):
    """What [outputs.influx] calls things."""

    @property
    def bucket(self) -> str: ...
    @property
    def bucket_1m(self) -> str: ...
    @property
    def bucket_5m(self) -> str: ...
    @property
    def bucket_1h(self) -> str: ...
    @property
    def measurement(self) -> str: ...
    @property
    def pulse_measurement(self) -> str: ...


def rolled_levels(names: Names) -> list[tuple[Level, str]]:
    """Return each level that is kept, and the name of the bucket or the retention policy that keeps it."""
    buckets = (names.bucket_1m, names.bucket_5m, names.bucket_1h)
    return [(level, bucket) for level, bucket in zip(LEVELS, buckets, strict=True) if bucket]


def flux_text(text: str) -> str:
    r"""Make `text` a string of Flux.

    >>> print(flux_text('a "b" ${c}'))
    "a \"b\" \${c}"
    """
    return f'"{text.translate(_IN_FLUX).replace("${", chr(92) + "${")}"'


def influxql_name(text: str) -> str:
    r"""Make `text` a name of InfluxQL.

    >>> print(influxql_name('a "b"'))
    "a \"b\""
    """
    return f'"{text.translate(_IN_INFLUXQL)}"'


def task_script(names: Names, level: Level, bucket: str) -> str:
    """Return the task of InfluxDB 2 that fills the bucket of a level."""
    values = {"task": flux_text(bucket), "every": level.name, "offset": level.offset}
    values["look_back"] = f"-{level.look_back}"
    return _filled("task.flux", values) + _rollup(names, level, bucket)


def backfill_script(names: Names, level: Level, bucket: str, start_s: int, stop_s: int) -> str:
    """Return the query of InfluxDB 2 that sums up the windows from `start_s` to `stop_s`, seconds since 1970."""
    values = {"start": _date(start_s), "stop": _date(stop_s)}
    return _filled("backfill.flux", values) + _rollup(names, level, bucket)


def _rollup(names: Names, level: Level, bucket: str) -> str:
    values = {
        "raw": flux_text(names.bucket),
        "rolled": flux_text(bucket),
        "measurement": flux_text(names.measurement),
        "pulse_measurement": flux_text(names.pulse_measurement),
        "every": level.name,
        "averaged_fields": "|".join(sorted(AVERAGED)),
        "lasting_fields": "|".join(_LASTING_FIELDS),
        "summed_fields": "|".join(sorted(SUMMED)),
    }
    return _filled("rollup.flux", values)


def continuous_queries(names: Names, level: Level, policy: str) -> dict[str, str]:
    """Return what fills the retention policy of a level in InfluxDB 1, by the name of the continuous query."""
    found = {}
    for kind, measurement, fields in _selections(names):
        name = f"{policy}_{kind}" if kind else policy
        values = {"name": influxql_name(name), "database": influxql_name(names.bucket), "look_back": level.look_back}
        values |= _places(names, level, policy, measurement, fields)
        found[name] = _filled("continuous_query.influxql", values).strip()
    return found


def backfill_statements(names: Names, level: Level, policy: str, start_s: int, stop_s: int) -> Iterator[str]:
    """Yield what sums up the windows from `start_s` to `stop_s` in InfluxDB 1."""
    for _, measurement, fields in _selections(names):
        values = _places(names, level, policy, measurement, fields)
        values |= {"start": f"{start_s}s", "stop": f"{stop_s}s"}
        yield _filled("backfill.influxql", values).strip()


def _selections(names: Names) -> list[tuple[str, str, str]]:
    return [
        ("", names.measurement, ", ".join(_measured_fields())),
        ("pulses", names.pulse_measurement, 'sum("Pulse") AS "Pulse"'),
    ]


def _measured_fields() -> Iterable[str]:
    for field in sorted(AVERAGED):
        yield f'mean("{field}") AS "{field}"'
        yield f'min("{field}") AS "{field}_min"'
        yield f'max("{field}") AS "{field}_max"'
    yield from (f'last("{field}") AS "{field}"' for field in _LASTING_FIELDS)
    yield from (f'sum("{field}") AS "{field}"' for field in sorted(SUMMED))


def _places(names: Names, level: Level, policy: str, measurement: str, fields: str) -> dict[str, str]:
    database = influxql_name(names.bucket)
    return {
        "fields": fields,
        "rolled": f"{database}.{influxql_name(policy)}",
        "raw": f"{database}.{influxql_name(names.bucket)}",  # the policy that `influx setup` makes the default one
        "measurement": influxql_name(measurement),
        "every": level.name,
    }


def _filled(file: str, values: Mapping[str, str]) -> str:
    """Fill in all placeholders at once, so that nothing filled in can be one."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], (_TEXTS / file).read_text(encoding="utf-8"))


def _date(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
