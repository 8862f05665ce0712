"""What a person asks of the ledger: a command writes it into the outbox, the one writer carries it out and answers.

So there is never a second hand on the registers. Where no house runs, the command takes the house's place for a moment
and carries it out itself, by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from logbook.entries import Entry, Kind
from logbook.moment import Moment
from reading import Quality, Reading, Value
from writer.ledger import REGISTERS, Channel, copy_of, debt_of
from writer.outbox import Intake, Outbox
from writer.register import UWH

_A_MOMENT_NS: Final = 1000


class Repair(Struct, frozen=True, tag="repair"):
    """Book energy that was missed (or take back what was not there, if negative) at the time that it belongs to."""

    channel: str
    metric: str
    uwh: int
    utc_ns: int
    note: str


class Undo(Struct, frozen=True, tag="undo"):
    """Take back what an entry booked."""

    entry: int


class SetReading(Struct, frozen=True, tag="set_reading"):
    """What the face of the meter shows now."""

    channel: str
    uwh: int


class Replace(Struct, frozen=True, tag="replace"):
    """There is another device on this channel: its counter begins anew."""

    channel: str
    note: str


class Rename(Struct, frozen=True, tag="rename"):
    """The channel has another name in the configuration from now on, and goes on there."""

    channel: str
    to: str


class Repurpose(Struct, frozen=True, tag="repurpose"):
    """The device measures something else from now on, under another name: what it measured until now ends here."""

    channel: str
    to: str
    note: str


Errand = Repair | Undo | SetReading | Replace | Rename | Repurpose
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Errand).decode


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An errand cannot be carried out: what, and what now."""


def written(errand: Errand) -> str:
    return _encode(errand).decode()


@dataclass(slots=True)
class Now:
    """The moment at which errands are carried out."""

    boot: str
    at_ns: int
    offset_ns: int
    trusted: bool  # the clock is set

    @property
    def moment(self) -> Moment:
        return Moment(self.boot, self.at_ns, self.at_ns + self.offset_ns if self.trusted else 0)


@dataclass(slots=True)
class Clerk:
    """Carries errands out on what the next commit takes in."""

    outbox: Outbox
    intake: Intake
    now: Now

    def settle(self, number: int, text: str) -> None:
        """Carry out one errand; its answer is committed with what it changed."""
        try:
            answer = "✓ " + self._carry_out(_decode(text))
        except Refused as refused:
            answer = f"✗ {refused}"
        except ValueError as error:  # msgspec's own errors
            answer = f"✗ this is no errand: {error}"
        self.intake.answers[number] = answer

    def _carry_out(self, errand: Errand) -> str:
        match errand:
            case Repair():
                return self._repair(errand)
            case Undo():
                return self._undo(errand.entry)
            case SetReading():
                return self._set_reading(errand.channel, errand.uwh)
            case Replace():
                return self._replace(errand.channel, errand.note)
            case Rename():
                return self._rename(errand.channel, errand.to)
            case Repurpose():
                return self._repurpose(errand.channel, errand.to, errand.note)

    def _channel(self, name: str) -> Channel:
        """Return the channel, ready to be changed."""
        if (channel := self.intake.channels.get(name)) is None:
            known = self.outbox.channels.get(name)
            if known is None or name in self.intake.retired:
                raise Refused(f"the ledger has no channel {name}; ./orchestrator.py ledger show names all of them")
            channel = self.intake.channels[name] = copy_of(known)
        return channel

    def _repair(self, wanted: Repair, undoes: int = 0) -> str:
        name, metric, uwh = wanted.channel, wanted.metric, wanted.uwh
        channel = self._channel(name)
        now = self.now.moment
        if not now.utc_ns:
            raise Refused("the clock is not set yet, so nothing can be dated; ask again when it is")
        if wanted.utc_ns > now.utc_ns:
            raise Refused("that time lies in the future; name the time at which the energy flowed")
        register = channel.register(metric)
        if register.total_uwh + uwh < 0:
            raise Refused(
                f"{name} has booked {_kwh(register.total_uwh)} in all, so {_kwh(-uwh)} cannot be taken from it"
            )
        register.book(uwh)
        moment = Moment(self.now.boot, wanted.utc_ns - self.now.offset_ns, wanted.utc_ns)
        entry = Entry(name, metric, Kind.REPAIR, moment, booked_uwh=uwh, note=wanted.note, undoes=undoes)
        self.intake.entries.append(entry)
        self._tell_correction(entry, channel)
        direction = "import" if metric == REGISTERS[0] else "export"
        told = f"{name}, {direction}: {_kwh(uwh)} booked; the register is {_kwh(register.total_uwh)} now."
        if register.debt_uwh > 0:
            told += (
                f" It was told to be {_kwh(register.told_uwh)}, and a register never falls:"
                f" outputs see it stand still for the next {_kwh(register.debt_uwh)}."
            )
        return told

    def _tell_correction(self, entry: Entry, channel: Channel) -> None:
        """Let the history have the energy where it belongs, and not where it was booked."""
        source, device = entry.channel.split("/", 1)
        register, seen = channel.register(entry.metric), channel.seen
        at_ns = seen.at_ns if seen.boot == self.now.boot else seen.utc_ns - self.now.offset_ns
        where = f"{entry.metric.removesuffix('_wh')}_correction_wh"
        values: dict[str, Value] = {entry.metric: register.told_uwh / UWH}
        if register.debt_uwh:
            values[debt_of(entry.metric)] = register.debt_uwh / UWH
            register.in_debt = True
        if entry.booked_uwh > 0:
            values[where] = -(entry.booked_uwh / UWH)  # the step of the register that this very reading shows
        readings = self.intake.readings.setdefault(source, [])
        readings.append(Reading(device, entry.moment.at_ns, {where: entry.booked_uwh / UWH}, Quality.ESTIMATED))
        readings.append(Reading(device, at_ns + _A_MOMENT_NS, values, Quality.ESTIMATED))
        self.intake.count += 2

    def _undo(self, number: int) -> str:
        entry = self.outbox.books.entry(number)
        if entry is None:
            raise Refused(f"the ledger has no entry {number}; ./orchestrator.py ledger entries lists them")
        if not entry.booked_uwh:
            raise Refused(f"entry {number} ({entry.kind}) booked nothing, so there is nothing to take back")
        if by := self.outbox.books.undone_by(number):
            raise Refused(f"entry {number} is taken back already, by entry {by}")
        if any(one.undoes == number for one in self.intake.entries):
            raise Refused(f"entry {number} is being taken back already")
        if not entry.moment.utc_ns:
            raise Refused(f"entry {number} waits for the clock; ask again when it is set")
        note = f"takes back entry {number} ({entry.kind})"
        return self._repair(Repair(entry.channel, entry.metric, -entry.booked_uwh, entry.moment.utc_ns, note), number)

    def _set_reading(self, name: str, uwh: int) -> str:
        channel = self._channel(name)
        register = channel.energy_wh
        expected_uwh = register.reading_uwh
        register.face_uwh = uwh - register.total_uwh
        self.intake.entries.append(
            Entry(
                name, REGISTERS[0], Kind.SET_READING, self.now.moment, expected_uwh or 0, uwh, note="read off the meter"
            )
        )
        if expected_uwh is None:
            return f"{name} shows {_kwh(uwh)} from now on, as `meter_reading_wh`, and counts on from there."
        missed_uwh = uwh - expected_uwh
        if not missed_uwh:
            return f"{name}: by our count the meter should show exactly that."
        what = "missed" if missed_uwh > 0 else "counted too much"
        return (
            f"{name} shows {_kwh(uwh)}; by our count it should show {_kwh(expected_uwh)}: we {what}"
            f" {_kwh(abs(missed_uwh))}. `ledger repair` books that; the face is right from now on."
        )

    def _replace(self, name: str, note: str) -> str:
        channel = self._channel(name)
        if not channel.counted:
            raise Refused(f"{name} has no counter of its own, only power: another device there changes nothing")
        channel.replaced = True
        self.intake.entries.append(
            Entry(name, REGISTERS[0], Kind.REPLACEMENT, self.now.moment, note=note or "announced by its owner")
        )
        return (
            f"{name}: the next reading is that of another device; its counter goes on from"
            f" {_kwh(channel.energy_wh.total_uwh)}, and the difference is not booked."
        )

    def _rename(self, name: str, to: str) -> str:
        channel = self._channel(name)
        if to in self.outbox.channels or to in self.intake.channels:
            raise Refused(f"{to} has a register of its own already; a channel goes on under a name that is new")
        if self.outbox.heirs.get(to, name) != name:
            raise Refused(f"{to} is to go on where {self.outbox.heirs[to]} ends; choose another name")
        self.intake.heirs[to] = name
        return f"{to} goes on at {_kwh(channel.energy_wh.total_uwh)}, where {name} ends, with its first reading."

    def _repurpose(self, name: str, to: str, note: str) -> str:
        channel = self._channel(name)
        if to == name:
            raise Refused("under the same name its register would have to fall; give the new purpose a name of its own")
        if to in self.outbox.channels or to in self.intake.channels:
            raise Refused(f"{to} has a register already; name something that was never measured before")
        self.intake.entries.append(
            Entry(name, REGISTERS[0], Kind.END, self.now.moment, note=f"{to} from now on{note and ': '}{note}")
        )
        return (
            f"{name} ends at {_kwh(channel.energy_wh.total_uwh)}; {to} begins at zero with its first reading."
            " Neither has the other's history."
        )


def _kwh(uwh: int) -> str:
    """Return energy as a person reads it.

    >>> _kwh(12_345_678_900_000), _kwh(-500)
    ('12345.679 kWh', '-0.000 kWh')
    """
    return f"{uwh / UWH / 1000:.3f} kWh"
