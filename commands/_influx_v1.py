"""InfluxDB 1: one database, a retention policy for each level, and continuous queries that fill them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode

from msgspec import structs

from commands._influx_place import Place
from commands._influx_stores import Http, NoConnection, Refused, Store, login
from writer.outputs._influx_rollups import continuous_queries, influxql_name, rolled_levels
from writer.outputs._influx_sums import duration_s

_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


class InfluxV1(Store):
    """A database of an InfluxDB 1. A bucket is a retention policy of it; the raw one is its default."""

    thing: ClassVar[str] = "retention policy"
    filler: ClassVar[str] = "continuous query"
    remark: ClassVar[str] = (
        "InfluxDB 1 has users instead of tokens. Where it asks for one: CREATE USER … WITH PASSWORD …,\n"
        "GRANT ALL ON …, then username and password_env in the configuration."
    )

    def __init__(self, place: Place, version: str) -> None:
        super().__init__(place, version)
        self._names = structs.replace(place.options, api="v1")
        self._database = influxql_name(place.options.bucket)
        self._http = Http(place)

    def connect(self) -> None:
        try:
            self._query("SHOW DATABASES")
        except Refused as error:
            raise NoConnection(str(error)) from error

    def existing(self) -> dict[str, int]:
        if [self.place.options.bucket] not in _rows(self._query("SHOW DATABASES")):
            return {}
        policies = self._query(f"SHOW RETENTION POLICIES ON {self._database}")
        named = {row[0]: duration_s(row[1]) for row in _rows(policies)}
        return {name: keeps_s for name, keeps_s in named.items() if name in self.buckets}

    def create(self, bucket: str, keeps_s: int) -> None:
        self._query(f"CREATE DATABASE {self._database}")  # one that is there stays as it is
        duration = f"{keeps_s}s" if keeps_s else "INF"
        default = " DEFAULT" if bucket == self.place.options.bucket else ""
        policy = f"{influxql_name(bucket)} ON {self._database} DURATION {duration} REPLICATION 1{default}"
        self._query(f"CREATE RETENTION POLICY {policy}")

    def delete(self, bucket: str) -> None:
        for level, policy in rolled_levels(self._names):
            if policy == bucket:
                for name in continuous_queries(self._names, level, policy).keys() & self._continuous().keys():
                    self._query(f"DROP CONTINUOUS QUERY {influxql_name(name)} ON {self._database}")
        self._query(f"DROP RETENTION POLICY {influxql_name(bucket)} ON {self._database}")

    def make_tasks(self) -> Iterator[tuple[str, str]]:
        there = self._continuous()
        for name, text in self._wanted().items():
            if name not in there:
                self._query(text)
                yield name, "created"
            elif _plain(there[name]) != _plain(text):
                self._query(f"DROP CONTINUOUS QUERY {influxql_name(name)} ON {self._database}")
                self._query(text)
                yield name, "brought up to date"
            else:
                yield name, "is there"

    def tasks(self) -> dict[str, str]:
        there = self._continuous()
        wrong = {}
        for name, text in self._wanted().items():
            if name not in there:
                wrong[name] = "is missing"
            elif _plain(there[name]) != _plain(text):
                wrong[name] = "is not the one of this version"
        return wrong

    def close(self) -> None:
        self._http.close()

    def _wanted(self) -> dict[str, str]:
        levels = rolled_levels(self._names)
        return {
            name: text
            for level, bucket in levels
            for name, text in continuous_queries(self._names, level, bucket).items()
        }

    def _continuous(self) -> dict[str, str]:
        """Return the continuous queries of the database by their names."""
        return {
            row[0]: row[1]
            for series in self._query("SHOW CONTINUOUS QUERIES")
            if series.get("name") == self.place.options.bucket
            for row in series.get("values", [])
        }

    def _query(self, statement: str) -> list[dict[str, Any]]:
        body = urlencode({"q": statement}, quote_via=quote).encode()
        answer = self._http.ask("POST", "/query", body, {**_FORM, **login(self.place)})
        if answer.status in (401, 403):
            raise Refused(f"it answers {answer.status}: {answer.says}")
        try:
            [result] = json.loads(answer.text)["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"it answers {answer.status}: {answer.says}") from error
        if "error" in result:
            raise Refused(result["error"])
        return list(result.get("series", []))


def _rows(series: list[dict[str, Any]]) -> list[list[Any]]:
    return [row for one in series for row in one.get("values", [])]


def _plain(statement: str) -> str:
    """Take away what the server adds or leaves out when it shows a statement: quotation marks, case, blanks."""
    return "".join(statement.replace('"', "").lower().split())
