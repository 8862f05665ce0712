"""Puts the house together: which process runs what. Only here do the parent and the processes it forks meet."""

from __future__ import annotations

import functools
import socket

from api import serve
from channel import Receiver
from config.settings import Settings, SourceTable
from supervise.house import House, Plan, Role, Start
from workers import _realtime, _runtime
from writer.ingest import Ingest, WriterPlan


def house(settings: Settings) -> House:
    """Plan one process per source, the writer, and the api.

    A core that a source has reserved is left to it: this process, their parent, keeps off it from now on, and so does
    whatever it forks. A reload that reserves another one starts all of them anew.
    """
    sources = {name: options for name, options in settings.sources.items() if options.enabled}
    outputs = {name: options for name, options in settings.outputs.items() if options.enabled}
    writer_plan = WriterPlan(settings.data_dir, settings.site, settings.writer, settings.clock, outputs)
    reserved = frozenset(core for options in sources.values() if (core := getattr(options, "core", -1)) >= 0)
    _realtime.keep_off(reserved)
    plans = [
        Plan(
            "writer",
            Role.WRITER,
            [("writer", "writer"), *(("output", name) for name in outputs)],
            (writer_plan, reserved),
            functools.partial(_be_writer, writer_plan),
        )
    ]
    plans += [
        Plan(
            f"source.{name}",
            Role.WORKER,
            [("worker", name)],
            (options, reserved),
            functools.partial(_be_worker, name, options),
        )
        for name, options in sources.items()
    ]
    if settings.api.enabled:
        plans.append(Plan("api", Role.API, [("api", "api")], settings, functools.partial(_be_api, settings)))
    return House(settings.data_dir, settings.supervise, plans)


def _be_worker(name: str, options: SourceTable, start: Start) -> None:
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
        kept=start.kept,
        deposit=deposit,
    )


def _be_writer(plan: WriterPlan, start: Start) -> None:
    receivers = [Receiver(end, stream) for stream, end in start.receivers.items()]
    outputs = {name: start.board.claim("output", name) for name in plan.outputs}
    Ingest(plan, receivers, start.board.claim("writer", "writer"), outputs).run()


def _be_api(settings: Settings, start: Start) -> None:
    serve.main(settings, start.board)
