"""InfluxDB 3, which has databases and nothing of ours that sums up, and VictoriaMetrics, which needs nothing at all."""

from __future__ import annotations

import json
from typing import ClassVar, Final
from urllib.parse import quote, urlencode

from commands._influx_place import Place
from commands._influx_stores import DAY_S, Http, NoConnection, Refused, Store
from writer.outputs._http import Answer

_DATABASES: Final = "/api/v3/configure/database"


class InfluxV3(Store):
    """An InfluxDB 3."""

    thing: ClassVar[str] = "database"
    lacks: ClassVar[str] = (
        "InfluxDB 3 runs no Flux, so it has no tasks that would sum up readings: only the raw database is made. For\n"
        "long ranges wattherd's own history has minutes, hours and years: [outputs.history]. Tokens are made with\n"
        "`influxdb3 create token`; in InfluxDB 3 Core every token may do everything."
    )

    def __init__(self, place: Place, version: str) -> None:
        super().__init__(place, version)
        self._http = Http(place)

    @property
    def buckets(self) -> dict[str, int]:
        raw = self.place.options.bucket
        return {raw: self.place.buckets[raw]}

    def connect(self) -> None:
        answer = self._ask("GET", f"{_DATABASES}?format=json")
        if answer.status != 200:
            raise NoConnection(f"it answers {answer.status}: {answer.says}")

    def existing(self) -> dict[str, int]:
        answer = self._good(self._ask("GET", f"{_DATABASES}?format=json"))
        names = {name for row in json.loads(answer.text) for name in row.values()}
        return {name: keeps_s for name, keeps_s in self.buckets.items() if name in names}  # it does not tell how long

    def create(self, bucket: str, keeps_s: int) -> None:
        body = json.dumps({"db": bucket, "retention_period": f"{keeps_s // DAY_S}d"}).encode()
        self._good(self._ask("POST", _DATABASES, body))

    def delete(self, bucket: str) -> None:
        self._good(self._ask("DELETE", f"{_DATABASES}?{urlencode({'db': bucket}, quote_via=quote)}"))

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, target: str, body: bytes = b"") -> Answer:
        headers = {"Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/json"
        if self.place.token:
            headers["Authorization"] = f"Bearer {self.place.token}"
        return self._http.ask(method, target, body, headers)

    def _good(self, answer: Answer) -> Answer:
        if answer.status not in (200, 201, 204):
            raise Refused(f"it answers {answer.status}: {answer.says}")
        return answer


class VictoriaMetrics(Store):
    """A VictoriaMetrics: whatever is written is a series, and it keeps all of them for one and the same time."""

    product: ClassVar[str] = "VictoriaMetrics"
    lacks: ClassVar[str] = (
        "VictoriaMetrics needs no setting up: it has no buckets, no tasks and no tokens of its own. How long it keeps\n"
        "everything is the option that it is started with, a month unless you say otherwise: -retentionPeriod=5y."
    )

    @property
    def buckets(self) -> dict[str, int]:
        return {}

    def connect(self) -> None:
        """It has answered."""

    def close(self) -> None:
        """Nothing is open."""

    def existing(self) -> dict[str, int]:
        return {}

    def create(self, bucket: str, keeps_s: int) -> None:
        raise Refused("VictoriaMetrics has no buckets")

    def delete(self, bucket: str) -> None:
        raise Refused("VictoriaMetrics has no buckets")
