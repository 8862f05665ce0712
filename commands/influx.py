"""`influx`: sets up an InfluxDB, looks whether it is as it should be, sums up late readings, deletes the buckets."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from commands._configuration import EXIT_CONFIGURATION, config_option, named
from commands._influx_backfill import Backfill
from commands._influx_look import Seen, length, looks
from commands._influx_place import Place, keep_in_env, mask, place_or_exit
from commands._influx_stores import DAY_S, NoConnection, Refused, Store
from commands._influx_which import store_of
from commands._probe import EXIT_FAILED, leave
from commands._screen import json_option, print_json
from writer.outputs._influx_sums import RollupError

_PLEASE_CHECK: Final = """Please check:
  1. InfluxDB server is running and accessible
  2. INFLUX_HOST is correct
  3. INFLUX_ORG matches your organization name
  4. INFLUX_TOKEN is valid and has admin permissions"""
_MARKS: Final = {True: "✓", False: "❌", None: "-"}
_DATE: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?))?Z?")


@click.group(short_help="Set up and look after an InfluxDB.")
def command() -> None:
    """Set up an InfluxDB and look after it: buckets, the tasks that sum up readings, tokens.

    Where to find it stands in [outputs.influx] of the configuration, or in .env (INFLUX_HOST, INFLUX_ORG and so on).
    An administrator's token has to be in the variable INFLUX_TOKEN.

    Example: ./orchestrator.py influx setup
    """


def _which(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which all of these commands find their InfluxDB."""
    token = click.option(
        "--token-env", default="INFLUX_TOKEN", show_default=True, help="The variable with an administrator's token."
    )
    output = click.option("--output", help="The [outputs.NAME] that is meant, where there are several.")
    return config_option(output(token(function)))


@command.command(short_help="Make buckets, tasks and tokens.")
@click.option("--save-tokens", is_flag=True, help="Write the new tokens into .env (mode 600) instead of showing them.")
@_which
def setup(path: Path | None, output: str | None, token_env: str, *, save_tokens: bool) -> None:
    """Make the buckets, what fills them, and a token each for the writer and for Grafana.

    What is there already stays as it is, so this can be run again at any time.

    Example: ./orchestrator.py influx setup --save-tokens
    """
    place = place_or_exit(path, output, token_env)
    with _connected(place) as store:
        for remark in place.differs:
            click.echo(f"Mind: {remark}")
        if store.buckets:
            _make_buckets(store)
            for name, done in store.make_tasks():
                click.echo(f"  • {store.filler} {name}: {done}")
            _tell_tokens(place, list(store.make_tokens()), save=save_tokens)
        for words in filter(None, (store.lacks, store.remark)):
            click.echo(f"\n{words}")
    if store.buckets:
        click.echo(f"\nNext: {_again('verify', path, output)}")


@command.command(short_help="Look whether all of it is there.")
@json_option
@_which
def verify(path: Path | None, output: str | None, token_env: str, *, as_json: bool) -> None:
    """Look whether everything is there that `setup` makes. Status 1 if something is missing.

    Example: ./orchestrator.py influx verify --output influx
    """
    place = place_or_exit(path, output, token_env)
    found: list[Seen] = []
    for seen in looks(place, _again("setup", path, output)):
        found.append(seen)
        if not as_json:
            click.echo(f"{_MARKS[seen.good]} {seen.what}")
    steps = list(dict.fromkeys(seen.next_step for seen in found if seen.good is False))
    if as_json:
        print_json({"good": not steps, "seen": [seen._asdict() for seen in found]})
    elif steps:
        click.echo("\n❌ Something is missing.\n\nNext:")
        for step in steps:
            click.echo(f"  {step}")
    else:
        click.echo("\n✓ Everything is set up.\n\nNext: ./orchestrator.py run")
    sys.exit(EXIT_FAILED if steps else 0)


@command.command(short_help="Sum up old readings anew.")
@click.option("--from", "first", required=True, help="Where to begin, in UTC: 2026-11-03, or 2026-11-03T06:00.")
@click.option("--to", "last", help="Where to end, in UTC, without it. Default: now.")
@_which
def backfill(path: Path | None, output: str | None, token_env: str, first: str, last: str | None) -> None:
    """Sum up the raw readings of a time anew, in every bucket.

    Late readings are summed up by themselves; this is for what was written by others, or before `setup`.

    Example: ./orchestrator.py influx backfill --from 2026-11-03 --to 2026-11-04
    """
    place = place_or_exit(path, output, token_env)
    with _connected(place) as store:
        work = Backfill(place, store)
        end_s = _seconds(last) if last else work.now_s
        try:
            begin_s, end_s = work.limited(_seconds(first), end_s)
            if begin_s >= end_s:
                leave(f"there is nothing to sum up between {first} and {last or 'now'}", EXIT_CONFIGURATION)
            if begin_s > _seconds(first):
                click.echo(
                    f"Raw readings are kept for {work.keeps_s // DAY_S} days, so it begins with {_date(begin_s)}."
                )
            pieces = work.pieces(begin_s, end_s)
            points = 0
            with click.progressbar(pieces, label=f"{_date(begin_s)} to {_date(end_s)}", file=sys.stderr) as shown:
                for piece in shown:
                    points += work.sum_up(piece)
        except RollupError as error:
            hint = f"; run: {_again('setup', path, output)}" if work.is_missing(error) else ""
            leave(f"❌ it was not summed up: {error}{hint}", EXIT_FAILED)
        finally:
            work.close()
    click.echo(f"✓ {points} points written in {len(pieces)} pieces.")
    click.echo(f"Next: {_again('verify', path, output)}")


@command.command("delete-buckets", short_help="Delete all buckets with all that is in them.")
@_which
def delete_buckets(path: Path | None, output: str | None, token_env: str) -> None:
    """Delete all buckets with all that is in them, and the tasks and tokens that `setup` made for them.

    Example: ./orchestrator.py influx delete-buckets --output influx
    """
    place = place_or_exit(path, output, token_env)
    with _connected(place) as store:
        if not store.buckets:
            leave(store.lacks, EXIT_CONFIGURATION)
        _warn(store)
        typed = click.prompt("Type 'DELETE' to confirm deletion", default="", show_default=False)
        if typed != "DELETE":
            leave("Nothing was deleted.", EXIT_FAILED)
        there = store.existing()
        for bucket in store.buckets:
            if bucket not in there:
                click.echo(f"  - {bucket}: does not exist, skipped")
                continue
            click.echo(f"  • deleting {bucket} …", nl=False)
            store.delete(bucket)
            click.echo(" ✓")
        left = store.existing()
    if left:
        leave(f"❌ still there: {', '.join(left)}", EXIT_FAILED)
    click.echo(f"\n✅ All PowerLogger buckets have been deleted.\n\nNext: {_again('setup', path, output)}")


@contextmanager
def _connected(place: Place) -> Iterator[Store]:
    """A store that answers; leave with the seed's words and status 1 when there is none."""
    try:
        store = store_of(place)
        store.connect()
    except NoConnection as error:
        options = place.options
        click.echo("❌ ERROR: Cannot connect to InfluxDB or credentials are invalid!\n", err=True)
        click.echo(f"Current configuration from {place.told_by}:", err=True)
        click.echo(f"  • Host:   {options.url}\n  • Org:    {options.org}\n  • Token:  {mask(place.token)}\n", err=True)
        click.echo(_PLEASE_CHECK, err=True)
        leave(f"\n({error})", EXIT_FAILED)
    try:
        yield store
    except (Refused, NoConnection) as error:
        leave(f"❌ {place.options.url}: {error}", EXIT_FAILED)
    finally:
        store.close()


def _make_buckets(store: Store) -> None:
    there = store.existing()
    if there.keys() >= store.buckets.keys():
        click.echo("✅ All PowerLogger buckets already exist!")
        for bucket in store.buckets:
            click.echo(f"  • {bucket}")
        click.echo("\nSetup appears to be complete. Skipping bucket creation.")
    for bucket, keeps_s in store.buckets.items():
        if bucket not in there:
            store.create(bucket, keeps_s)
            click.echo(f"  • {bucket}: {store.thing} created, keeps {length(keeps_s)}")
        elif there[bucket] != keeps_s:
            click.echo(f"Mind: {bucket} keeps {length(there[bucket])}, not {length(keeps_s)}; it was left as it is")


def _tell_tokens(place: Place, tokens: list[tuple[str, str, str]], *, save: bool) -> None:
    new = {variable: token for _, variable, token in tokens if token}
    for whose, variable, token in tokens:
        click.echo(f"  • token “{whose}”: {'created' if token else 'is there'} ({variable})")
    if not new:
        return
    if save:
        try:
            keep_in_env(place.env_file, new)
        except OSError as error:
            click.echo(f"❌ {place.env_file} cannot be written: {error.strerror}", err=True)
            save = False
        else:
            click.echo(f"\nWritten into {click.format_filename(place.env_file)}, which only you may read.")
    if not save:
        click.echo("\nThese are shown only now. Put them into .env (mode 600):\n")
        for variable, token in new.items():
            click.echo(f"{variable}={token}")
    if place.writer_variable in new and place.options.token_env != place.writer_variable:
        click.echo(f'\nThen let the writer use its own: token_env = "{place.writer_variable}" in [outputs.influx]')


def _warn(store: Store) -> None:
    click.echo("⚠️  DANGER: This will DELETE all PowerLogger buckets from InfluxDB!\n")
    click.echo("This action is IRREVERSIBLE and will permanently delete:")
    width = max(len(bucket) for bucket in store.buckets)
    for bucket in store.buckets:
        raw = bucket == store.place.options.bucket
        content = "all historical pulse data" if raw else "all downsampled data"
        click.echo(f"  • {bucket:<{width}}  (with {content})")
    click.echo("\nAll data in these buckets will be LOST FOREVER!\n")


def _again(verb: str, path: Path | None, output: str | None) -> str:
    words = f"./orchestrator.py influx {verb}"
    words += named(path)
    return words + (f" --output {output}" if output else "")


def _seconds(text: str) -> int:
    if found := _DATE.fullmatch(text.strip()):
        with contextlib.suppress(ValueError):
            return int(datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}").replace(tzinfo=UTC).timestamp())
    return leave(f"{text!r} is no date; write it like 2026-11-03 or 2026-11-03T06:00", EXIT_CONFIGURATION)


def _date(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")
