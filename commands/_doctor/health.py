"""Whether this machine itself is well: its supply, its heat, its disk and its clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from commands._doctor import Finding, Mark
from commands._doctor.disk_cost import Cost
from commands._doctor.machine import Disk
from config.settings import Settings

# Bits of get_throttled: now, and 16 further up since the machine started (Raspberry Pi documentation, vcgencmd).
_UNDER_VOLTAGE: Final = 1 << 0
_SLOWED: Final = (1 << 1) | (1 << 2) | (1 << 3)
_SINCE_START: Final = 16
_HOT_C: Final = 80.0  # from here on a Pi slows down
_SUPPLY: Final = "use the power supply that is made for this Pi, and a short cable"
_COOLER: Final = "give it a heat sink or air"


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What is known of the time of day."""

    is_set: bool  # the kernel says that it is synchronised
    has_service: bool
    real_time_clock: str  # its name, if it goes on without power
    is_faked: bool  # fake-hwclock sets it to when the machine was last on


def check_pi(model: str, throttled: int | None, alarm: bool | None, temperature_c: float | None) -> Iterator[Finding]:
    if model:
        yield Finding("machine", "machine.model", Mark.NOTE, model)
    if throttled is not None:
        yield from _throttled(throttled)
    elif alarm is not None:
        yield _supply(is_low=alarm, was_low=False)
    if temperature_c is not None:
        if temperature_c >= _HOT_C:
            what = f"the processor has {temperature_c:.0f} °C and slows down"
            yield Finding("machine", "machine.heat", Mark.MIND, what, _COOLER)
        else:
            yield Finding("machine", "machine.heat", Mark.GOOD, f"the processor has {temperature_c:.0f} °C")


def _throttled(bits: int) -> Iterator[Finding]:
    yield _supply(is_low=bool(bits & _UNDER_VOLTAGE), was_low=bool(bits >> _SINCE_START & _UNDER_VOLTAGE))
    if bits & _SLOWED:
        yield Finding("machine", "machine.slowed", Mark.MIND, "it is slowed down just now, by its heat", _COOLER)
    elif bits >> _SINCE_START & _SLOWED:
        yield Finding("machine", "machine.slowed", Mark.MIND, "it was slowed down since it started", _COOLER)


def _supply(*, is_low: bool, was_low: bool) -> Finding:
    if is_low:
        what = "its supply has too little voltage just now: cards and adapters fail first"
        return Finding("machine", "machine.supply", Mark.WRONG, what, _SUPPLY)
    if was_low:
        what = "its supply had too little voltage since it started: cards and adapters fail first"
        return Finding("machine", "machine.supply", Mark.MIND, what, _SUPPLY)
    return Finding("machine", "machine.supply", Mark.GOOD, "its supply is good, and was since it started")


def check_disk(settings: Settings, disk: Disk, cost: Cost) -> Iterator[Finding]:
    where = f"{settings.data_dir}"
    if disk.is_read_only:
        what = f"the file system of {where} can only be read"
        yield Finding(
            "disk", "disk.writable", Mark.WRONG, what, "see why: dmesg | grep -i -e ext4 -e mmc; then remount"
        )
        return
    if disk.is_memory:
        what = f"{where} is in memory ({disk.file_system}): everything is gone with the next start"
        yield Finding("disk", "disk.kind", Mark.WRONG, what, "name a place on a disk: [site] data_dir")
    elif disk.is_network:
        what = f"{where} is on a network file system ({disk.file_system}), which SQLite cannot lock"
        yield Finding("disk", "disk.kind", Mark.WRONG, what, "name a place on a disk of this machine: [site] data_dir")
    else:
        yield Finding("disk", "disk.kind", Mark.GOOD, f"{where} is on {'an SD card' if disk.is_card else 'a disk'}")
    wanted = _wanted_bytes(settings)
    free = f"{megabytes(disk.free_bytes)} free"
    if disk.free_bytes < 100e6 or disk.free_bytes < 0.02 * disk.total_bytes:
        yield Finding("disk", "disk.free", Mark.WRONG, f"only {free}", "free some space, or move [site] data_dir")
    elif disk.free_bytes < wanted:
        what = f"{free}, and outbox and history may need {megabytes(wanted)}"
        now = "free some, or lower [writer] outbox_quota_mb or [outputs.history] most_mb"
        yield Finding("disk", "disk.free", Mark.MIND, what, now)
    else:
        yield Finding("disk", "disk.free", Mark.GOOD, free)
    yield from _wear(disk, cost)


def _wear(disk: Disk, cost: Cost) -> Iterator[Finding]:
    yield Finding("disk", "disk.cost", Mark.NOTE, cost.words)
    if disk.written_bytes is not None and disk.up_s > 3600:
        a_day = disk.written_bytes / disk.up_s * 86_400
        what = f"all programs together write {megabytes(a_day)} a day to this disk (measured since it started)"
        mark, now = Mark.NOTE, ""
        if disk.is_card and a_day > 5e9:
            mark, now = Mark.MIND, "a card lives some thousand times its size: find who writes with sudo iotop -ao"
        yield Finding("disk", "disk.wear", mark, what, now)


def _wanted_bytes(settings: Settings) -> float:
    """Return what outbox and history may still grow to, at most."""
    wanted_mb = settings.writer.outbox_quota_mb
    for options in settings.outputs.values():
        wanted_mb += getattr(options, "most_mb", 0.0) if options.enabled else 0.0
    return wanted_mb * 1e6


def check_clock(settings: Settings, clock: ClockFacts) -> Iterator[Finding]:
    required = settings.clock.require_sync
    if clock.is_set:
        yield Finding("clock", "clock.set", Mark.GOOD, "a time service has set it")
    elif clock.has_service or required is True:
        held = f"readings wait for it, {settings.clock.hold_at_most_s:g} s at most"
        what = f"it is not set: {'they are stamped all the same' if required is False else held}"
        yield Finding("clock", "clock.set", Mark.MIND, what, "is there a network? see: timedatectl")
    else:
        what = "nobody sets it (no time service runs), and its time is believed"
        yield Finding("clock", "clock.set", Mark.MIND, what, "run: sudo apt install systemd-timesyncd")
    if clock.real_time_clock:
        yield Finding("clock", "clock.rtc", Mark.GOOD, f"it goes on without power ({clock.real_time_clock})")
    else:
        faked = " and fake-hwclock guesses" if clock.is_faked else ""
        what = f"it stands still without power{faked}: after a power cut readings are dated once the network is there"
        yield Finding("clock", "clock.rtc", Mark.NOTE, what)


def megabytes(number: float) -> str:
    """Return a size as one says it.

    >>> megabytes(364e6), megabytes(12.4e9), megabytes(4096)
    ('364 MB', '12.4 GB', '0.0 MB')
    """
    if number >= 10e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.0f} MB" if number >= 10e6 else f"{number / 1e6:.1f} MB"
