"""Asks an InfluxDB to sum up a range of time anew, and how long it keeps what is summed up."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote, urlencode

from writer.outputs._http import Answer
from writer.outputs._influx_rollups import Level, Names, backfill_script, backfill_statements, influxql_name

Ask = Callable[[str, str, bytes, dict[str, str]], Answer]  # method, target, body, headers

_UNITS_S: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
# The last one is VictoriaMetrics, which takes what is written in the ways of InfluxDB and answers no such query.
_NO_SUCH_PLACE: Final = re.compile(
    "could not find bucket|retention policy not found|database not found|unsupported path", re.IGNORECASE
)


class Place(Names, Protocol):
    """[outputs.influx], as far as it says where to ask."""

    @property
    def api(self) -> Literal["v2", "v1"]: ...
    @property
    def org(self) -> str: ...


class RollupError(Exception):
    """It was not summed up; perhaps it will be the next time."""

    def __init__(self, what: str, *, denied: bool = False) -> None:
        super().__init__(what)
        self.denied = denied  # the token or user may not do it


class NoRollupsError(RollupError):
    """There is nothing to sum up into: no such bucket, or a server that cannot do it."""


class Sums:
    """Has ranges summed up by a server of one kind."""

    def __init__(self, place: Place, ask: Ask) -> None:
        self._place = place
        self._ask = ask

    def sum_up(self, level: Level, bucket: str, start_s: int, stop_s: int) -> int:
        """Return how many points were written for the windows from `start_s` to `stop_s`, two edges of windows."""
        if self._place.api == "v1":
            statements = backfill_statements(self._place, level, bucket, start_s, stop_s)
            return sum(_written(self._influxql(statement)) for statement in statements)
        target = f"/api/v2/query?{urlencode({'org': self._place.org}, quote_via=quote)}"
        dialect = {"header": True, "annotations": [], "delimiter": ","}
        script = backfill_script(self._place, level, bucket, start_s, stop_s)
        body = json.dumps({"query": script, "type": "flux", "dialect": dialect}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/csv"}
        answer = self._good(self._ask("POST", target, body, headers))
        return sum(_counts(answer.text))

    def raw_keeps_s(self) -> int | None:
        """Return for how long the server keeps raw readings, 0 for ever; None where it does not say."""
        if self._place.api == "v1":
            name = self._place.bucket
            policies = self._influxql(f"SHOW RETENTION POLICIES ON {influxql_name(name)}")
            rows = [dict(zip(one["columns"], row, strict=True)) for one in policies for row in one.get("values", [])]
            return next((duration_s(row["duration"]) for row in rows if row["name"] == name), None)
        query = urlencode({"org": self._place.org, "name": self._place.bucket}, quote_via=quote)
        answer = self._ask("GET", f"/api/v2/buckets?{query}", b"", {"Accept": "application/json"})
        if answer.status != 200:
            return None
        try:
            [bucket] = json.loads(answer.text)["buckets"]
            return sum(int(rule["everySeconds"]) for rule in bucket["retentionRules"])
        except (ValueError, TypeError, KeyError):
            return None

    def _influxql(self, statement: str) -> list[dict[str, Any]]:
        body = urlencode({"q": statement, "epoch": "s"}, quote_via=quote).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = self._good(self._ask("POST", "/query", body, headers))
        try:
            [result] = json.loads(answer.text)["results"]
        except (ValueError, TypeError, KeyError) as error:
            raise NoRollupsError(f"what answers is no InfluxDB 1: {answer.says}") from error
        if "error" in result:
            kind = NoRollupsError if _NO_SUCH_PLACE.search(result["error"]) else RollupError
            raise kind(result["error"])
        return list(result.get("series", []))

    def _good(self, answer: Answer) -> Answer:
        if answer.status == 200:
            return answer
        what = f"it answers {answer.status}: {answer.says}"
        if answer.status in (401, 403):
            raise RollupError(what, denied=True)
        if answer.status in (404, 405, 501) or (answer.status < 500 and _NO_SUCH_PLACE.search(answer.text)):
            raise NoRollupsError(what)
        raise RollupError(what)


def _written(series: list[dict[str, Any]]) -> int:
    return sum(
        int(row[one["columns"].index("written")])
        for one in series
        if "written" in one.get("columns", [])
        for row in one["values"]
    )


def duration_s(text: str) -> int:
    """Read a duration as InfluxDB 1 writes it.

    >>> duration_s("720h0m0s"), duration_s("0s")
    (2592000, 0)
    """
    return sum(int(count) * _UNITS_S[unit] for count, unit in re.findall(r"(\d+)([wdhms])", text))


def _counts(table: str) -> list[int]:
    """Return what the statements of rollup.flux counted.

    >>> _counts(",result,table,_field\\r\\n,mean,0,12\\r\\n\\r\\n,result,table,_field\\r\\n,sum,0,3\\r\\n\\r\\n")
    [12, 3]
    """
    rows = [row for row in csv.reader(io.StringIO(table)) if row]
    counts, column = [], -1
    for row in rows:
        if "_field" in row:
            column = row.index("_field")
        elif 0 <= column < len(row) and row[column].isdigit():
            counts.append(int(row[column]))
    return counts
