"""Tells which server it is that takes line protocol: each is asked in a language of its own."""

from __future__ import annotations

import enum
import http

from commands._peer import Peer


class Flavour(enum.Enum):
    """Which server answers: they take the same lines, and are asked each in a language of its own."""

    INFLUX_1 = "InfluxDB 1"
    INFLUX_2 = "InfluxDB 2"
    INFLUX_3 = "InfluxDB 3"
    VICTORIA = "VictoriaMetrics"
    UNKNOWN = "an unknown server"


def identify(peer: Peer) -> tuple[Flavour, str]:
    """Say which server it is, and its version as far as it tells. Raise `PeerDown`."""
    ping = peer.get("/ping")
    version = ping.headers.get("x-influxdb-version", "").removeprefix("v")
    if not version and isinstance(ping.told, dict):
        version = str(ping.told.get("version", ""))
    major = version.partition(".")[0]
    known = {"1": Flavour.INFLUX_1, "2": Flavour.INFLUX_2, "3": Flavour.INFLUX_3}
    if flavour := known.get(major):
        return flavour, version
    # What Prometheus has too; but no Prometheus answers a ping.
    build = peer.get("/api/v1/status/buildinfo")
    if ping.status == http.HTTPStatus.NO_CONTENT and isinstance(build.told, dict) and "status" in build.told:
        data = build.told.get("data")
        return Flavour.VICTORIA, str(data.get("version", "")) if isinstance(data, dict) else ""
    return Flavour.UNKNOWN, version
