"""The api process: an HTTP server that lives and dies alone. It holds no device, and no data that is not elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import uvicorn
from fastapi import FastAPI

from api.access_log import FLUSH_EVERY_S, AccessLog
from api.app import create_app
from api.channels import Channels
from api.connections import PatientProtocol
from api.live import Live
from api.parts import health
from api.snapshot import look
from api.stream import Newsroom
from api.v1 import Sight, keeps_history
from config.settings import Settings
from history.queries import History
from tap import Basin
from vitals import Board, Row

logger = logging.getLogger("api")

# A burst of connections is accepted in one go before the surplus is closed: this many descriptors more, at most.
_BACKLOG = 128
_BEAT_EVERY_S = 1.0
_REMEMBERS_AFTER_S = (2.0, 10.0, 30.0, 90.0)
_MOST_DROPS = 64  # taken from the tap in one go


def main(settings: Settings, board: Board, basin: Basin | None = None, house_since_ns: int = 0) -> None:
    """Answer requests until SIGTERM. Exit with EX_CONFIG if the address cannot be had: only a person can mend that.

    `basin` is where the writer's values arrive; `house_since_ns` (CLOCK_MONOTONIC) is when the house was started.
    """
    row = board.claim("api", "api")
    host, port = settings.api.host, settings.api.port
    try:
        listeners = _listen(host, port)
    except OSError as error:
        trouble = _what_to_do(error, host, port)
        row.note = trouble
        logger.error(trouble)
        sys.exit(os.EX_CONFIG)
    row.note = ""
    sight = sight_of(settings, board, house_since_ns)
    newsroom = Newsroom(sight.live, lambda: health(settings, look(board)))
    accesses = access_log_of(settings)
    server = _Server(_server_config(create_app(sight, newsroom, accesses)))
    # That somebody's open connection is cut when the house stops is no error.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "graceful shutdown" not in str(record.msg))
    signal.signal(signal.SIGTERM, server.handle_exit)  # not SIGINT: what Ctrl-C means is the parent's decision
    logger.info("serving %s", " and ".join(_url(listener) for listener in listeners))
    asyncio.run(_serve(server, listeners, row, sight=sight, newsroom=newsroom, basin=basin, accesses=accesses))


async def _serve(
    server: uvicorn.Server,
    listeners: list[socket.socket],
    row: Row,
    *,
    sight: Sight,
    newsroom: Newsroom,
    basin: Basin | None,
    accesses: AccessLog,
) -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        newsroom.close()
        server.handle_exit(signal.SIGTERM, None)

    def take() -> None:
        for drop in basin.drops(_MOST_DROPS) if basin else ():
            sight.live.take(drop)

    loop.add_signal_handler(signal.SIGTERM, leave)
    if basin:
        loop.add_reader(basin.fileno(), take)
    works = (_beat(row), newsroom.work(), _flush(accesses), _remember(sight))
    tasks = [asyncio.create_task(work) for work in works]
    await server.serve(sockets=listeners)
    for task in tasks:
        task.cancel()
    accesses.flush()


async def _remember(sight: Sight) -> None:
    """Ask the history again for what the process before this one had read from the tap."""
    for pause_s in _REMEMBERS_AFTER_S:
        await asyncio.sleep(pause_s)
        if sight.history:
            sight.live.seed(sight.history)


async def _flush(accesses: AccessLog) -> None:
    while True:
        await asyncio.sleep(FLUSH_EVERY_S)
        accesses.flush()


def access_log_of(settings: Settings) -> AccessLog:
    api = settings.api
    return AccessLog(settings.data_dir / "logs", ZoneInfo(settings.site.timezone), api.access_log_days, api.key_hash)


def sight_of(settings: Settings, board: Board, house_since_ns: int) -> Sight:
    """Open everything that is looked at, and remember what was known before."""
    channels = Channels(settings)
    live = Live(channels)
    history = History(settings.data_dir / "history.db") if keeps_history(settings) else None
    outbox = settings.data_dir / "outbox.db"
    if history:
        live.seed(history)
    elif outbox.exists():
        live.seed_registers(outbox)
    return Sight(settings, board, channels, live, history, house_since_ns)


async def _beat(row: Row) -> None:
    """Beat from the loop that answers the requests: if it hangs, the heartbeat stands still, and the parent sees it."""
    while True:
        row.beat()
        await asyncio.sleep(_BEAT_EVERY_S)


class _Server(uvicorn.Server):
    """A server for which SIGTERM is an order to leave. uvicorn would raise it once more and die of it after all."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server_config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,  # ours: one line a record, to the parent's stderr
        log_level="error",  # its warnings come one a request, and so at the will of whoever sends them
        access_log=False,
        proxy_headers=False,  # nobody's word is taken for who asks
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16 * 1024,
    )


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` stands for. `localhost` is two, of which a Pi may have one switched off."""
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
            # asyncio does it only where the protocol has a number; without it every answer waits for the peer's
            # delayed acknowledgement, 40 ms. Accepted connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listeners.append(listener)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            absent = error
    if absent and not listeners:
        raise absent
    return listeners


def _what_to_do(error: OSError, host: str, port: int) -> str:
    """Say why we cannot listen, and what to do now, for the person standing at the Pi."""
    if isinstance(error, socket.gaierror):
        return f"{host} is no name that this machine knows; set [api] host to an address of it, or to 127.0.0.1"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; set [api] port to a free one"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return f"{host} is no address of this machine; set [api] host to one that it has, or to 127.0.0.1"
        case errno.EACCES | errno.EPERM:
            return f"port {port} is kept for the system; set [api] port to 1024 or above"
        case _:
            return f"cannot listen on port {port} of {host}: {error.strerror}; set [api] host and port to others"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
