"""Whether the house runs, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator

from commands._doctor import Finding, Mark
from commands._peer import Peer, PeerDown
from config.settings import Settings

_ASK_S = 3.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def api_of(settings: Settings, key: str = "") -> Peer:
    """Return how this machine reaches the api of the house; `key` is for one that asks also here."""
    host = _EVERYWHERE.get(settings.api.host, settings.api.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.api.port}"
    return Peer(url, {"X-API-Key": key} if key else {}, _ASK_S)


def check_house(settings: Settings, pid: int | None, config: str) -> Iterator[Finding]:
    """`pid`: of the house that works in the data directory, None if none does."""
    if pid is None:
        yield Finding("house", "house.runs", Mark.NOTE, "it does not run", f"start it: ./orchestrator.py run{config}")
        return
    process = f" (process {pid})" if pid else ""
    if not settings.api.enabled:
        what = f"it runs{process}, and has no api to ask how it is ([api] enabled)"
        yield Finding("house", "house.runs", Mark.NOTE, what)
        return
    api = api_of(settings)
    try:
        told = api.get("/readyz").told
        reasons = [(str(one["part"]), str(one["what"])) for one in told.get("reasons", ())]
    except (PeerDown, AttributeError, KeyError, TypeError) as error:
        what = f"it runs{process}, and {api.url} does not answer ({error})"
        yield Finding("house", "house.runs", Mark.WRONG, what, "see its log; has [api] changed without a reload?")
        return
    if not reasons:
        yield Finding("house", "house.ready", Mark.GOOD, f"it runs{process}: everything measures and arrives")
    for part, what in reasons:
        yield Finding("house", "house.ready", Mark.WRONG, f"{part}: {what}")
