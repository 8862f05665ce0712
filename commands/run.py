"""`run`: start the house and keep it running until it is told to stop."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import click

import logs
from commands._configuration import EXIT_CONFIGURATION, chosen, config_option, is_demo, read, read_or_exit
from commands._house import house
from config.load import ConfigurationError
from config.settings import Settings
from supervise.house import House
from supervise.instance import AlreadyRunning, NoPlace
from supervise.parent import Parent


@click.command
@config_option
def command(path: Path | None) -> None:
    """Start the house: the demo unless config/site.toml exists. Ctrl-C or SIGTERM stops it, SIGHUP reloads.

    Example: ./orchestrator.py run --config config/site.toml
    """
    file = chosen(path)
    settings = read_or_exit(file)
    if problem := _unusable(settings.data_dir):
        click.echo(problem, err=True)
        sys.exit(EXIT_CONFIGURATION)
    if sys.stdout is not None:  # a daemon may have been given none
        click.echo(_banner(file, settings), nl=False)
        sys.stdout.flush()
    logs.start()

    def reload() -> House:
        again = read(file)
        if problem := _unusable(again.data_dir):
            raise ConfigurationError([problem])
        return house(again)

    try:
        status = Parent(house(settings), reload).run()
    except (AlreadyRunning, NoPlace) as reason:
        click.echo(str(reason), err=True)
        sys.exit(1)
    sys.exit(status)


def _unusable(data_dir: Path) -> str:
    """Say why nothing durable can ever be kept in `data_dir`, or nothing. That it is full may pass."""
    probe = data_dir / f".probe-{os.getpid()}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ""
        return (
            f"[site] data_dir: {data_dir} cannot be written ({error.strerror}); "
            f"give it to this user (sudo chown $USER {data_dir}) or name another place"
        )
    return ""


def _banner(file: Path, settings: Settings) -> str:
    lines = []
    if is_demo(file):
        lines += [
            "DEMO HOUSE: everything below is simulated; no meter is read.",
            "For a house of your own, which it looks for and asks about: ./orchestrator.py init",
            "",
        ]
    lines.append(f"wattherd · site {settings.site.name} · {', '.join(str(one) for one in settings.files)}")
    if settings.api.enabled:
        address = f"http://{_reached(settings.api.host)}:{settings.api.port}"
        lines.append(f"  look   {address}   {address}/metrics   {address}/readyz")
    for name, options in settings.sources.items():
        if options.enabled and options.kind == "esp32_http":
            host, port = options.host, options.port  # type: ignore[attr-defined]
            lines.append(f"  post   http://{_reached(host)}:{port}/   source {name}")
    lines.append(f"  data   {settings.data_dir}   outputs: {', '.join(settings.outputs) or 'none'}")
    lines.append("  stop   Ctrl-C; what was accepted is safe, also from kill -9")
    return "\n".join(lines) + "\n\n"


def _reached(host: str) -> str:
    """Name a host as one types it on another machine."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
