"""What `influx verify` looks at, one thing after the other."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

from commands._influx_place import Place
from commands._influx_stores import DAY_S, NoConnection, Refused, Store
from commands._influx_which import store_of


class Seen(NamedTuple):
    """One thing that was looked at."""

    good: bool | None  # None: worth knowing, neither good nor bad
    what: str
    next_step: str = ""


def looks(place: Place, setup: str) -> Iterator[Seen]:
    """Yield what there is. `setup` is the command that makes what is missing."""
    there = place.env_file.exists()
    yield Seen(
        there or bool(place.token or place.output),
        f".env file: {place.env_file}{'' if there else ', there is none'}",
        f"cp .env.example {place.env_file} && chmod 600 {place.env_file}, then fill it in",
    )
    yield Seen(sys.prefix != sys.base_prefix, f"virtual environment: {sys.prefix}", "make install")
    client = importlib.util.find_spec("influxdb_client") is not None
    yield Seen(client, "package influxdb-client", "make setup-influxdb")
    yield Seen(None, f"influx CLI: {'found, and ' if shutil.which('influx') else ''}not needed")
    try:
        store = store_of(place)
        store.connect()
    except NoConnection as error:
        yield Seen(False, f"connection to {place.options.url}: {error}", setup)
        return
    yield Seen(True, f"connection to {place.options.url}: {store.product} {store.version}".rstrip())
    try:
        yield from _places(store, setup)
        wrong = store.tasks()
        for name, what in wrong.items():
            yield Seen(False, f"{store.filler} {name} {what}", setup)
        if store.buckets and not wrong:
            yield Seen(True, f"the {store.filler} of each")
    except (Refused, NoConnection) as error:
        yield Seen(False, str(error), setup)
    finally:
        store.close()
    if store.lacks:
        yield Seen(None, store.lacks)


def _places(store: Store, setup: str) -> Iterator[Seen]:
    there = store.existing()
    for bucket, keeps_s in store.buckets.items():
        shown = f"{store.thing} {bucket}"
        if bucket not in there:
            yield Seen(False, f"{shown}: is missing", setup)
        elif there[bucket] != keeps_s:
            yield Seen(True, f"{shown}: keeps {length(there[bucket])}, not {length(keeps_s)}")
        else:
            yield Seen(True, f"{shown}: keeps {length(keeps_s)}")


def length(keeps_s: int) -> str:
    """Say for how long something is kept.

    >>> length(2_592_000), length(0)
    ('30 days', 'for ever')
    """
    return f"{keeps_s // DAY_S} days" if keeps_s else "for ever"
