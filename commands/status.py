"""`status`: how the house is, once or for as long as one looks."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

import click
from rich.console import Group
from rich.live import Live

from commands._configuration import chosen, config_option, named, read_or_exit
from commands._probe import quietly
from commands._screen import console, json_option, print_json, say_next
from commands._status import status_of_house
from commands._status_screen import next_command, shown, told
from config.env import read_env

_KEY: Final = "WATTHERD_API_KEY"


@click.command
@click.option("--once", is_flag=True, help="Show it once, and leave. So it is without a terminal, too.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="How often to look.",
)
@json_option
@config_option
@quietly
def command(path: Path | None, every_s: float, *, once: bool, as_json: bool) -> None:
    """Show how the house is: sources, outputs, energy today, disk.

    A house that runs is asked itself; of one that rests its files tell how far everything got. Ctrl-C ends it.

    Status 0: it runs and is well; 1: it does not run; 3: it runs, and something is wrong or nobody tells.

    Example: ./orchestrator.py status --once
    """
    file = chosen(path)
    settings = read_or_exit(file)
    key = os.environ.get(_KEY) or read_env(file, []).get(_KEY, "")
    screen = console()
    status = status_of_house(settings, key)
    if as_json:
        print_json(told(status))
    elif once or not screen.is_terminal:
        screen.print(Group(*shown(settings, status)))
        say_next(next_command(status, named(path)))
    else:
        try:
            with Live(Group(*shown(settings, status)), console=screen, auto_refresh=False, screen=True) as live:
                while True:
                    time.sleep(every_s)
                    status = status_of_house(settings, key)
                    live.update(Group(*shown(settings, status)), refresh=True)
        except KeyboardInterrupt:
            screen.print(Group(*shown(settings, status)))  # it stays when the screen of before comes back
            say_next(next_command(status, named(path)))
    sys.exit(status.code)
