"""Puts the house together: which process runs what. Only here do the parent and the processes it forks meet."""

from __future__ import annotations

import functools
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from api import serve
from channel import Receiver
from config.settings import Settings, SourceTable, Table
from supervise.house import House, Plan, Role, Start
from tap import Basin, Spout
from workers import _realtime, _runtime
from writer.ingest import Ingest, WriterPlan

log = logging.getLogger("writer")


def house(settings: Settings) -> House:
    """Plan one process per source, the writer, and the api.

    A core that a source has reserved is left to it: this process, their parent, keeps off it from now on, and so does
    whatever it forks. A reload that reserves another one starts all of them anew.
    """
    sources = {name: options for name, options in settings.sources.items() if options.enabled}
    plan = writer_plan(settings)
    outputs = plan.outputs
    reserved = frozenset(core for options in sources.values() if (core := getattr(options, "core", -1)) >= 0)
    _realtime.keep_off(reserved)
    # A secret is a part of the configuration too: whoever uses one starts anew when it changes.
    secrets = _secrets(settings, *outputs.values())
    plans = [
        Plan(
            "writer",
            Role.WRITER,
            [("writer", "writer"), *(("output", name) for name in outputs)],
            (plan, secrets, reserved),
            functools.partial(_be_writer, plan, secrets),
        )
    ]
    for name, options in sources.items():
        secrets = _secrets(settings, options)
        plans.append(
            Plan(
                f"source.{name}",
                Role.WORKER,
                [("worker", name)],
                (options, secrets, reserved),
                functools.partial(_be_worker, name, options, secrets, settings.data_dir / "sources"),
            )
        )
    if settings.api.enabled:
        plans.append(Plan("api", Role.API, [("api", "api")], settings, functools.partial(_be_api, settings)))
    return House(settings.data_dir, settings.supervise, plans)


def writer_plan(settings: Settings) -> WriterPlan:
    """Return what the writer needs to know."""
    outputs = {name: options for name, options in settings.outputs.items() if options.enabled}
    return WriterPlan(
        settings.data_dir,
        settings.site,
        settings.writer,
        settings.clock,
        outputs,
        settings.channels,
        settings.tariffs,
        settings.prices,
    )


def _secrets(settings: Settings, *tables: Table) -> dict[str, str]:
    """Return the secrets that `tables` and the tables in them name, by the name of the environment variable."""
    names = {name for table in tables for name in _secret_names(table)}
    return {name: secret for name, secret in settings.secrets.items() if name in names}


def _secret_names(table: Table) -> Iterator[str]:
    for one in structs.fields(table):
        value = getattr(table, one.name)
        if one.name.endswith("_env"):
            yield value
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Table):
                yield from _secret_names(inner)


def _be_worker(name: str, options: SourceTable, secrets: dict[str, str], directory: Path, start: Start) -> None:
    os.environ.update(secrets)
    channel, deposits = start.channel, start.deposits
    if channel is None or deposits is None:
        raise TypeError("a worker starts with a report channel")

    def deposit(label: str, descriptor: int) -> None:
        socket.send_fds(deposits, [label.encode("ascii")], [descriptor])

    vitals = start.board.claim("worker", name)
    _runtime.main(
        name,
        options,
        end=channel,
        incarnation=start.incarnation,
        vitals=vitals,
        directory=directory,
        kept=start.kept,
        deposit=deposit,
    )


def _be_writer(plan: WriterPlan, secrets: dict[str, str], start: Start) -> None:
    os.environ.update(secrets)
    receivers = [Receiver(end, stream) for stream, end in start.receivers.items()]
    outputs = {name: start.board.claim("output", name) for name in plan.outputs}
    vitals = start.board.claim("writer", "writer")
    try:
        writer = Ingest(plan, receivers, vitals, outputs, start.board, spout=Spout(start.tap))
    except (sqlite3.OperationalError, OSError) as error:
        log.error("the outbox cannot be opened (%s); free some space or mend the disk of %s", error, plan.data_dir)
        raise SystemExit(1) from error
    writer.run()


def _be_api(settings: Settings, start: Start) -> None:
    serve.main(settings, start.board, Basin(start.tap) if start.tap else None, start.house_since_ns)
