"""Tells which server answers, and who knows how to deal with it."""

from __future__ import annotations

from commands._influx_peer import Flavour, identify
from commands._influx_place import Place
from commands._influx_stores import TIMEOUT_S, NoConnection, Store, login
from commands._influx_v1 import InfluxV1
from commands._influx_v2 import InfluxV2
from commands._influx_v3 import InfluxV3, VictoriaMetrics
from commands._peer import Peer, PeerDown


def store_of(place: Place) -> Store:
    """Ask what it is, and return the one that knows how to deal with it. Raises `NoConnection`."""
    try:
        flavour, version = identify(Peer(place.options.url, login(place), TIMEOUT_S))
        if flavour is Flavour.UNKNOWN and place.token:  # InfluxDB 3 wants to know who asks, and in its own way
            bearer = {"Authorization": f"Bearer {place.token}"}
            flavour, version = identify(Peer(place.options.url, bearer, TIMEOUT_S))
    except PeerDown as error:
        raise NoConnection(f"{error}; is it running and in reach?") from error
    if flavour is Flavour.VICTORIA:
        return VictoriaMetrics(place, version)
    if flavour is Flavour.INFLUX_1 and place.options.api == "v2" and place.output:
        raise NoConnection(f'this is an InfluxDB {version}; set api = "v1" in [outputs.{place.output}]')
    kinds: dict[Flavour, type[Store]] = {Flavour.INFLUX_1: InfluxV1, Flavour.INFLUX_3: InfluxV3}
    return kinds.get(flavour, InfluxV2)(place, version)
