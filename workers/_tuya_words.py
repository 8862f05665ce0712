"""Puts into words what is wrong with a Tuya device, for the person who stands before it: what; what now."""

from __future__ import annotations

from collections.abc import Sequence

from workers._tuya_keys import WIZARD
from workers._tuya_session import Fault

_ALONE = (
    "most let only one speak to them: close the phone app, Home Assistant, or whatever else uses it in the home network"
    " (its Local Tuya integration, say), or take its power away for ten seconds"
)
_WIZARD = f"run the wizard again: {WIZARD}"


def trouble_of(fault: Fault | None, host: str, versions: Sequence[str], *, was_well: bool) -> str:
    """Say what is wrong and what now; `versions` are those that were tried, `was_well` says that one worked before.

    >>> print(trouble_of(Fault.ABSENT, "192.0.2.7", ["3.3"], was_well=True))
    nobody answers at 192.0.2.7; see that it has power and Wi-Fi, and that this is its address now; with host = "" ...
    >>> print(trouble_of(Fault.KEY, "192.0.2.7", ["3.3"], was_well=True))
    its key does not fit; it has another one since it was paired again: run the wizard again: .venv/bin/python -m ...
    """
    what, what_now = _words(fault, host, versions, was_well=was_well)
    return f"{what}; {what_now}"


def _words(fault: Fault | None, host: str, versions: Sequence[str], *, was_well: bool) -> tuple[str, str]:
    if fault in (Fault.HANGS_UP, Fault.SILENT):
        does = "hangs up" if fault is Fault.HANGS_UP else "says nothing"
        what = f"{host} takes the connection and {does}"
        what_now = f"{_ALONE}; if that is not it, its key is another one: {_WIZARD}"
        if was_well:
            return what, f"another app holds it, perhaps: {what_now}"
        only = len(versions) == 1
        tried = f"version {versions[0]}" if only else "every version"
        return f"{what} ({tried} was tried)", what_now + (', and set version = "auto"' if only else "")
    return {
        None: (
            "it has not said where it is",
            "see that it has power and is in this network, give its address as host, or let UDP 6666, 6667 and 7000 in"
            " (./orchestrator.py discover tuya listens there)",
        ),
        Fault.ABSENT: (
            f"nobody answers at {host}",
            'see that it has power and Wi-Fi, and that this is its address now; with host = "" it is found by itself',
        ),
        Fault.REFUSES: (
            f"{host} refuses the connection",
            f"{_ALONE}; or there is no Tuya device at this address",
        ),
        Fault.KEY: (
            "its key does not fit",
            f"it has another one since it was paired again: {_WIZARD}",
        ),
        Fault.VERSION: (
            f"it does not speak version {versions[0]}",
            'set version = "auto"',
        ),
        Fault.FLOODS: (
            "it sends without end and is left alone for a while",
            "restart it, and see that it is what it should be",
        ),
        Fault.MUTE: (
            "it is there and tells no numbers",
            "look whether its app shows any, restart it, or take it out of the configuration",
        ),
    }.get(
        fault,
        (f"what {host} says cannot be read", "see that this is the address of a Tuya device"),
    )
