"""`service`: start the house with the machine, as a systemd service of this place, this user and these sources."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from commands._configuration import EXIT_CONFIGURATION, ROOT, SITE, chosen, config_option, read_or_exit
from commands._probe import leave, running_house
from commands._service import MARK, TIMERS, UNIT, Place, files, ours, writable
from config.settings import Settings
from files import replaced

_FAILED: Final = 1
_HIDDEN: Final = ("/tmp", "/var/tmp")  # noqa: S108 - of which the service has its own
_START_S: Final = 90.0

destdir_option = click.option(
    "--destdir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write below this directory instead of /, and start nothing: for packages and for a look.",
)


@click.group
def command() -> None:
    """Start the house with the machine, by systemd. `make install-service` calls this.

    Without systemd see deploy/README.md: supervisord and cron can start it too.

    Example: ./orchestrator.py service install --user pi
    """


@command.command
@config_option
@click.option("--user", help="Who runs the house; by default the owner of the directory in which wattherd lies.")
@destdir_option
def install(path: Path | None, user: str | None, destdir: Path | None) -> None:
    """Write the units for this house and start it. Asks nothing; a second time it changes only what has changed.

    Example: ./orchestrator.py service install --user pi
    """
    if path is None and not SITE.exists():
        leave("there is no config/site.toml yet: a demo house is no service; write one first", EXIT_CONFIGURATION)
    settings = read_or_exit(chosen(path))
    owner = _user_or_exit(user)
    place = Place(ROOT, owner.pw_name, path.absolute() if path else None)
    _hidden_or_exit(settings)
    if destdir is None:
        _root_and_systemd_or_exit()
        _make_directories(settings, owner)
        if (house := running_house(settings)) is not None and not _is_active():
            leave(f"the house runs already, started by hand (process {house}); stop it first: kill {house}", _FAILED)
    top = destdir or Path("/")
    wanted = {top / name: text for name, text in files(settings, place).items()}
    try:
        changed = _written(wanted) + _removed([file for file in ours(top) if file not in wanted])
    except OSError as error:
        leave(f"{error.filename}: {error.strerror}; mend that and try again", _FAILED)
    click.echo(f"✓ {len(wanted)} files for {owner.pw_name} in {ROOT}; changed: {', '.join(changed) or 'none'}")
    if destdir is None:
        _start(changed=bool(changed))
        click.echo("Next: journalctl -u wattherd -f")
        for timer in TIMERS:
            click.echo(f"      sudo systemctl enable --now {timer}")


@command.command
@destdir_option
def uninstall(destdir: Path | None) -> None:
    """Stop the house and take its units away. Data and configuration stay where they are.

    Example: ./orchestrator.py service uninstall
    """
    if destdir is None:
        _root_and_systemd_or_exit()
    top = destdir or Path("/")
    there = ours(top)
    if destdir is None and there:
        # A unit that is not there is no reason to stop.
        for unit in (UNIT, *TIMERS):
            subprocess.run(["systemctl", "disable", "--now", unit], check=False, capture_output=True, timeout=_START_S)
    _removed(there)
    if destdir is None and there:
        _systemctl("daemon-reload")
    click.echo(f"✓ {len(there) or 'no'} files removed; data and configuration are where they were")


def _user_or_exit(name: str | None) -> pwd.struct_passwd:
    try:
        user = pwd.getpwnam(name) if name else pwd.getpwuid(ROOT.stat().st_uid)
    except KeyError:
        leave(f"there is no user {name or 'who owns ' + str(ROOT)}; name one: --user NAME", EXIT_CONFIGURATION)
    if user.pw_uid == 0 and not name:
        leave(
            f"{ROOT} belongs to root, who has no need to read meters; give it to somebody "
            f"(sudo chown -R NAME {ROOT}), or name who shall run it: --user NAME",
            EXIT_CONFIGURATION,
        )
    return user


def _hidden_or_exit(settings: Settings) -> None:
    for directory in writable(settings):
        if any(directory.is_relative_to(hidden) for hidden in _HIDDEN):
            leave(f"{directory} is no place for data: a service has a /tmp of its own; choose another", 2)


def _root_and_systemd_or_exit() -> None:
    if not shutil.which("systemctl"):
        leave("there is no systemd here; deploy/README.md shows how supervisord or cron start the house", _FAILED)
    if os.geteuid() != 0:
        leave("this writes to /etc, which only root may; run: make install-service, or put sudo in front", _FAILED)


def _make_directories(settings: Settings, owner: pwd.struct_passwd) -> None:
    for directory in writable(settings):
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o750)
            os.chown(each, owner.pw_uid, owner.pw_gid)
        if (uid := directory.stat().st_uid) != owner.pw_uid:
            leave(
                f"{directory} belongs to another user ({uid}) than {owner.pw_name}, who shall write there; "
                f"run: sudo chown -R {owner.pw_name} {directory}",
                _FAILED,
            )


def _written(wanted: dict[Path, str]) -> list[str]:
    """Write what is not there or is another; keep a file of somebody else's beside ours. Return the names."""
    changed = []
    for file, text in wanted.items():
        before = file.read_text(errors="replace") if file.exists() else None
        if before == text:
            continue
        if before is not None and not before.startswith(MARK):
            aside = file.with_name(f"{file.name}.before-wattherd")
            file.rename(aside)
            click.echo(f"! {file} was not written by this command; it is kept as {aside.name}")
        replaced(file, text.encode(), mode=0o644)
        changed.append(file.name)
    return changed


def _removed(those: list[Path]) -> list[str]:
    for file in those:
        file.unlink()
        if file.parent.name == "wattherd.service.d" and not any(file.parent.iterdir()):
            file.parent.rmdir()
    return [file.name for file in those]


def _start(*, changed: bool) -> None:
    """Make groups, rules and units known; start what does not run, and anew what has changed."""
    for line in (
        ["systemd-sysusers", "/etc/sysusers.d/wattherd.conf"],
        ["udevadm", "control", "--reload"],
        ["udevadm", "trigger", "--subsystem-match=gpio", "--subsystem-match=i2c-dev", "--subsystem-match=spidev"],
    ):
        if shutil.which(line[0]):
            done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=_START_S)
            if done.returncode:
                click.echo(f"! {' '.join(line)}: {(done.stderr or done.stdout).strip()}", err=True)
    _systemctl("daemon-reload")
    _systemctl("enable", UNIT)
    if changed or not _is_active():
        _systemctl("restart", UNIT)
        click.echo("✓ the house runs, and starts with the machine")
    else:
        click.echo("✓ the house runs already, and starts with the machine")


def _is_active() -> bool:
    asked = subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False, timeout=_START_S)
    return asked.returncode == 0


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True, timeout=_START_S)
    except subprocess.TimeoutExpired:
        leave(f"systemctl {' '.join(arguments)} did not end within {_START_S:g} s; look: systemctl status {UNIT}", 1)
    if done.returncode:
        click.echo(f"✗ systemctl {' '.join(arguments)}: {done.stderr.strip()}", err=True)
        click.echo("Next: journalctl -u wattherd -n 30", err=True)
        sys.exit(_FAILED)
