"""What a person does to a PZEM line by hand: find units, give them an address or a shunt, set their energy to zero.

Nothing here asks for confirmation; `commands/pzem.py` does. Every write is read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workers._modbus import Bus, BusFault, Fault
from workers._pzem_registers import (
    ADDRESS,
    ANY_UNIT,
    HOLDINGS,
    INPUTS,
    RESET_ENERGY,
    SHUNT,
    SHUNT_A,
    SHUNT_CODE,
    ModelName,
    Shown,
    decode,
    out_of_range,
)


class ServiceError(Exception):
    """It was not done, or nobody knows: what, and what now."""

    def __init__(self, what: str, what_now: str) -> None:
        super().__init__(f"{what}; {what_now}")


@dataclass(frozen=True, slots=True)
class Found:
    """A unit that answered."""

    unit: int
    models: tuple[ModelName, ...] = ()  # those it can be: the registers of some are alike; none: it is no PZEM
    shown: Shown | None = None
    shunt_code: int | None = None
    problem: str = ""  # why it could not be identified

    @property
    def shunt_a(self) -> int | None:
        return None if self.shunt_code is None else SHUNT_A.get(self.shunt_code)


def scan(bus: Bus, units: Iterable[int]) -> Iterator[Found | None]:
    """Ask every address once, and identify who answers; None for each address where nobody does."""
    for unit in units:
        yield identify(bus, unit)


def identify(bus: Bus, unit: int) -> Found | None:
    """Find out what a unit is, by its registers and by whether its numbers make sense; None if nobody answers."""
    try:
        _once_more(bus, unit, ADDRESS, 1, HOLDINGS)  # the one register that all models have
    except BusFault as fault:
        if fault.fault is Fault.SILENT:
            return None
        if fault.fault is not Fault.REFUSED:
            return Found(unit, problem=str(fault))
    try:
        for count in (10, 8):
            shown = _measure(bus, unit, count)
            if shown is not None and not out_of_range(shown.values, is_dc=count == 8, rated_current_a=300):
                if count == 10:
                    return Found(unit, ("004t", "014", "016"), shown)
                if _setting(bus, unit, 0) is None:
                    break  # every DC model has one there
                code = _setting(bus, unit, SHUNT)
                return Found(unit, ("003",) if code is None else ("017",), shown, code)
    except BusFault as fault:
        return Found(unit, problem=str(fault))
    return Found(unit, problem="it has other registers than a PZEM, or shows what cannot be")


def move(bus: Bus, old: int, new: int) -> None:
    """Give the unit at `old` (or the only one on the line, `ANY_UNIT`) the address `new`, and see it answer there."""
    try:
        bus.write_register(old, ADDRESS, new)
    except BusFault as fault:
        # The general address may be answered by the unit's own; what counts is who answers at the new one.
        if not (old == ANY_UNIT and fault.fault is Fault.WRONG_UNIT):
            raise ServiceError(f"the address was not set: {fault.what}", fault.what_now) from fault
    try:
        shown = _read_back(bus, new, ADDRESS)
    except BusFault as fault:
        raise ServiceError(
            f"nobody answers well at {new} after the write: {fault.what}",
            "if two new units are on the line, take one off; switch the unit off and on, then run ./orchestrator.py"
            " pzem scan",
        ) from fault
    if shown != new:
        raise ServiceError(f"the unit at {new} says that its address is {shown}", "switch it off and on, and scan")
    if old not in (ANY_UNIT, new) and answers(bus, old):
        raise ServiceError(
            f"unit {new} is set, but somebody still answers at {old}",
            "two units had the same address; connect new units one at a time",
        )


def set_shunt(bus: Bus, unit: int, amperes: int) -> None:
    """Tell a 017 which shunt is fitted, and read it back."""
    try:
        bus.write_register(unit, SHUNT, SHUNT_CODE[amperes])
        code = _read_back(bus, unit, SHUNT)
    except BusFault as fault:
        raise ServiceError(f"the shunt was not set: {fault.what}", fault.what_now) from fault
    if code != SHUNT_CODE[amperes]:
        raise ServiceError(
            f"unit {unit} still has shunt code {code} instead of {SHUNT_CODE[amperes]}",
            "switch it off and on, try again",
        )


def reset_energy(bus: Bus, unit: int) -> Shown:
    """Set the unit's own energy counter to zero; return what it shows then."""
    try:
        before = _measure(bus, unit, 10) or _measure(bus, unit, 8)
        bus.command(unit, RESET_ENERGY)
        after = _measure(bus, unit, 10) or _measure(bus, unit, 8)
    except BusFault as fault:
        raise ServiceError(f"the counter was not reset: {fault.what}", fault.what_now) from fault
    if before is None or after is None:
        raise ServiceError(f"unit {unit} has no energy counter to read", "scan the line: ./orchestrator.py pzem scan")
    if after.values["device_energy_wh"] > min(before.values["device_energy_wh"], 1):
        raise ServiceError(
            f"unit {unit} still counts from {after.values['device_energy_wh']:.0f} Wh", "try again; it did not obey"
        )
    return after


def answers(bus: Bus, unit: int) -> bool:
    """Tell whether anybody makes himself heard at an address, well or badly."""
    try:
        bus.read_registers(unit, ADDRESS, 1, HOLDINGS)
    except BusFault as fault:
        return fault.fault is not Fault.SILENT
    return True


def _measure(bus: Bus, unit: int, count: int) -> Shown | None:
    """Return what a unit shows, None if it has not so many registers."""
    try:
        return decode(_once_more(bus, unit, 0, count, INPUTS))
    except BusFault as fault:
        if fault.fault is Fault.REFUSED:
            return None
        if fault.fault is Fault.SILENT and count == 10:
            return None  # some answer with nothing at all where they should refuse
        raise


def _setting(bus: Bus, unit: int, register: int) -> int | None:
    """Return a holding register, None where there is none."""
    try:
        (word,) = _once_more(bus, unit, register, 1, HOLDINGS)
    except BusFault as fault:
        if fault.fault is Fault.REFUSED:
            return None
        raise
    return word


def _read_back(bus: Bus, unit: int, register: int) -> int:
    """Read a setting that was just written; a unit that is still storing it may not answer at once."""
    for _ in range(2):
        try:
            (word,) = _once_more(bus, unit, register, 1, HOLDINGS)
        except BusFault as fault:
            if fault.fault is not Fault.SILENT:
                raise
        else:
            return word
    (word,) = _once_more(bus, unit, register, 1, HOLDINGS)
    return word


def _once_more(bus: Bus, unit: int, first: int, count: int, function: int) -> list[int]:
    """Read registers; an answer that came badly is asked for a second time."""
    try:
        return bus.read_registers(unit, first, count, function)
    except BusFault as fault:
        if fault.fault in (Fault.SILENT, Fault.REFUSED):
            raise
    return bus.read_registers(unit, first, count, function)
