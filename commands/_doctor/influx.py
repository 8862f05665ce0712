"""InfluxDB and VictoriaMetrics: the canary asked for in the server's own language, and what the token may do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from msgspec import structs

from commands._doctor import Finding, Mark
from commands._doctor.canary import METRIC, came_back, canary, sent, unread, until
from commands._influx_peer import Flavour, identify
from commands._peer import Answer, Peer, PeerDown
from config.settings import Site
from reading import Record
from writer import Memo, OutputDown
from writer.outputs._influx_rollups import influxql_name, rolled_levels
from writer.outputs.influx import Influx, Options, login_of

MEASUREMENT: Final = "wattherd_canary"  # its own: no query of a house's measurement ever sees it
_REFUSED: Final = (401, 403, 404)
_NEAR: Final = ("127.0.0.1", "localhost", "::1")


class Server(NamedTuple):
    """Who answers."""

    peer: Peer
    flavour: Flavour
    version: str


def check_influx(part: str, options: Options, site: Site, within_s: float) -> Iterator[Finding]:
    """Send a canary, look for it, take it away again, and see what the token may."""
    record = canary()
    apart = structs.replace(options, measurement=MEASUREMENT)
    if wrong := sent(part, Influx(apart, site, Memo()), record):
        yield from wrong
        return
    try:
        peer = Peer(options.url, login_of(options), options.timeout_s)
        server = Server(peer, *identify(peer))
        yield _read_back(part, server, options, record, within_s)
        yield from _taken_away(part, server, options)
        yield from _scopes(part, server, options)
        if server.flavour is Flavour.INFLUX_2:
            now = "an administrator's token looks at them: ./orchestrator.py influx verify"
            yield Finding(part, "influx.rest", Mark.NOTE, "its buckets, tasks and tokens were not looked at", now)
        yield from _sums(part, server, options)
    except (PeerDown, OutputDown) as down:
        yield unread(part, str(down))
    yield from _in_the_clear(part, options)


def _read_back(part: str, server: Server, options: Options, record: Record, within_s: float) -> Finding:
    """Ask for it as often as it takes: some servers show what they took a moment later."""
    if server.flavour is Flavour.UNKNOWN:
        return unread(part, f"{options.url} does not say which server it is")
    wanted = f"{record.values[METRIC]:.0f}"
    answers: list[Answer] = []

    def look() -> bool | None:
        answers.append(_QUESTIONS[server.flavour](server.peer, options, record))
        return True if answers[-1].good and wanted in answers[-1].text else None

    if until(look, within_s):
        return came_back(part, f"{server.flavour.value} {server.version}".rstrip())
    last = answers[-1]
    if last.status in _REFUSED:
        now = "that is enough for the house; verify and influx backfill need one that may read the bucket too"
        return unread(part, f"this token may not read ({last.status}: {last.says})", now)
    told = f"{server.flavour.value} did not show it within {within_s:g} s" + ("" if last.good else f" ({last.says})")
    return Finding(part, "canary.read", Mark.WRONG, f"a canary was taken, and {told}", "look into the server's log")


def _by_influxql(peer: Peer, options: Options, record: Record) -> Answer:
    query = f'SELECT "{METRIC}" FROM "{MEASUREMENT}" WHERE time = {record.time_ns}'  # noqa: S608 - our own words
    return peer.get("/query", db=options.bucket, q=query)


def _by_flux(peer: Peer, options: Options, record: Record) -> Answer:
    second = record.time_ns // 10**9
    query = (
        f"from(bucket: {json.dumps(options.bucket)}) |> range(start: {second}, stop: {second + 1})"
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "{METRIC}")'
    )
    body = json.dumps({"query": query, "type": "flux"}).encode()
    return peer.post("/api/v2/query", body, "application/json", org=options.org)


def _by_sql(peer: Peer, options: Options, record: Record) -> Answer:
    at = f"to_timestamp_nanos({record.time_ns})"
    query = f'SELECT "{METRIC}" FROM "{MEASUREMENT}" WHERE time = {at}'  # noqa: S608 - our own words
    body = json.dumps({"db": options.bucket, "q": query, "format": "json"}).encode()
    return peer.post("/api/v3/query_sql", body, "application/json")


def _by_export(peer: Peer, options: Options, record: Record) -> Answer:
    second = record.time_ns // 10**9
    selector = f'{{__name__="{MEASUREMENT}_{METRIC}"}}'
    return peer.get("/api/v1/export", **{"match[]": selector, "start": str(second), "end": str(second + 1)})


_QUESTIONS: Final[dict[Flavour, Callable[[Peer, Options, Record], Answer]]] = {
    Flavour.INFLUX_1: _by_influxql,
    Flavour.INFLUX_2: _by_flux,
    Flavour.INFLUX_3: _by_sql,
    Flavour.VICTORIA: _by_export,
}


def _taken_away(part: str, server: Server, options: Options) -> Iterator[Finding]:
    """Delete the canaries. A token that may only write to a bucket may do that in 2.x; elsewhere they may stay."""
    if server.flavour is Flavour.INFLUX_1:
        query = f'DROP MEASUREMENT "{MEASUREMENT}"'
        answer = server.peer.post("/query", b"", "application/x-www-form-urlencoded", db=options.bucket, q=query)
        gone = answer.good and "error" not in answer.text
    elif server.flavour is Flavour.INFLUX_2:
        spans = {"start": "1970-01-01T00:00:00Z", "stop": "2200-01-01T00:00:00Z"}
        body = json.dumps({**spans, "predicate": f'_measurement="{MEASUREMENT}"'}).encode()
        gone = server.peer.post("/api/v2/delete", body, "application/json", org=options.org, bucket=options.bucket).good
    elif server.flavour is Flavour.VICTORIA:
        selector = f'{{__name__="{MEASUREMENT}_{METRIC}"}}'
        gone = server.peer.post("/api/v1/admin/tsdb/delete_series", b"", "text/plain", **{"match[]": selector}).good
    else:
        gone = False
    if not gone:
        yield Finding(part, "canary.gone", Mark.NOTE, f"the canary stays, one point in the measurement {MEASUREMENT}")


def _scopes(part: str, server: Server, options: Options) -> Iterator[Finding]:
    """A writer whose token is lost should lose no more than what it may: see whether this one could do everything."""
    if server.flavour is Flavour.INFLUX_2 and options.token_env:
        answer = server.peer.get("/api/v2/authorizations")
        told = answer.told
        seen = told.get("authorizations") if isinstance(told, dict) else None
        if answer.good and seen:
            what = f"this token may administer: it sees {len(seen)} tokens"
            now = "make one that may write to this bucket and no more: ./orchestrator.py influx setup"
            yield Finding(part, "token.scope", Mark.MIND, what, now)
        else:
            yield Finding(part, "token.scope", Mark.GOOD, "this token may not administer")
    elif server.flavour is Flavour.INFLUX_1:
        answer = server.peer.get("/query", q="SHOW USERS")
        if answer.good and "error" not in answer.text:
            who = f"the user {options.username} may administer" if options.username else "everybody may do everything"
            now = "make a user for this database alone (GRANT WRITE), and switch auth-enabled on"
            mark = Mark.MIND if options.username or urlsplit(options.url).hostname not in _NEAR else Mark.NOTE
            yield Finding(part, "token.scope", mark, who, now)
        else:
            yield Finding(part, "token.scope", Mark.GOOD, f"the user {options.username} may not administer")


def _sums(part: str, server: Server, options: Options) -> Iterator[Finding]:
    """See whether the buckets are there that minutes, five minutes and hours are summed up into."""
    wanted = [bucket for _, bucket in rolled_levels(options)]
    there = _places_of(server, options)
    if not wanted or options.bucket not in there:
        return  # nothing is wished, or this token may not know
    if missing := [bucket for bucket in wanted if bucket not in there]:
        what = f"raw readings are summed up nowhere, there is no {', no '.join(missing)}"
        now = './orchestrator.py influx setup, or bucket_1m = bucket_5m = bucket_1h = ""'
        yield Finding(part, "sums", Mark.NOTE if missing == wanted else Mark.MIND, what, now)
    else:
        yield Finding(part, "sums", Mark.GOOD, f"sums have their place: {', '.join(wanted)}")


def _places_of(server: Server, options: Options) -> set[str]:
    """Name the buckets or retention policies that this token may see."""
    if server.flavour is Flavour.INFLUX_2:
        told = server.peer.get("/api/v2/buckets", org=options.org, limit="100").told
        return {bucket["name"] for bucket in told.get("buckets", ())} if isinstance(told, dict) else set()
    if server.flavour is Flavour.INFLUX_1:
        query = f"SHOW RETENTION POLICIES ON {influxql_name(options.bucket)}"
        told = server.peer.get("/query", q=query).told
        results = told.get("results", ()) if isinstance(told, dict) else ()
        return {row[0] for result in results for one in result.get("series", ()) for row in one.get("values", ())}
    return set()


def _in_the_clear(part: str, options: Options) -> Iterator[Finding]:
    parts = urlsplit(options.url)
    if parts.scheme == "http" and parts.hostname not in _NEAR and (options.token_env or options.password_env):
        what = f"the token goes to {parts.hostname} in the clear"
        now = "give the server a certificate and use https://, or keep to a network that is yours alone"
        yield Finding(part, "token.clear", Mark.MIND, what, now)
