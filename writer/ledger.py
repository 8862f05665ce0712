"""The energy ledger: one register for each channel and direction, kept apart from whatever the device counts itself.

A channel is a device under the name that its owner gave it. Its counter, where it has one, says how much energy flowed,
otherwise its power does. What is booked stands in the reading as `energy_wh` and `energy_export_wh`, and every step
that was not plainly right is kept as an entry, with what it was taken for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct

from logbook.entries import Entry, Kind
from logbook.moment import Moment
from reading import Quality, Reading, Value
from tariff import Tariff
from writer.cost import Cost, Undated, add
from writer.register import UWH, Counter, Power, Rules, Step, follow, integrate
from writer.states import State, StateRules, look

_SPREAD_STEP_NS: Final = 300 * 10**9  # what was counted while nobody looked is spread in points so far apart
_MOST_SPREAD: Final = 100
_BASIS: Final = {"device_energy_wh": "energy_wh", "device_energy_export_wh": "energy_export_wh"}
REGISTERS: Final = tuple(_BASIS.values())
_OF_ENERGY: Final = frozenset({*_BASIS, "power_w"})


class Register(Struct, array_like=True):
    """What was booked in one direction."""

    total_uwh: int = 0  # what is true by all that is known today; a person may take some of it back
    told_uwh: int = 0  # the most that was ever told: a register never falls
    counter: Counter | None = None
    in_debt: bool = False  # it was told to be more than it is, and the outputs know
    face_uwh: int | None = None  # what the meter's own face shows beyond the register; None: nobody ever read it off

    @property
    def debt_uwh(self) -> int:
        """What was told too much, and is not told again until it is worked off."""
        return self.told_uwh - self.total_uwh

    @property
    def reading_uwh(self) -> int | None:
        """What the meter's face should show now."""
        return None if self.face_uwh is None else self.face_uwh + self.total_uwh

    def book(self, uwh: int) -> None:
        self.total_uwh += uwh
        self.told_uwh = max(self.told_uwh, self.total_uwh)


class Channel(Struct, array_like=True):
    """All that is remembered of one channel. It is committed with the readings that made it."""

    energy_wh: Register
    energy_export_wh: Register
    power: Power | None = None
    seen: Moment = Moment()  # the newest reading
    device_boot: str = ""  # what the device calls its own run
    replaced: bool = False  # the owner says that the next counter is another one
    state: State | None = None
    cost: Cost | None = None

    def register(self, metric: str) -> Register:
        return self.energy_wh if metric == "energy_wh" else self.energy_export_wh

    @property
    def counted(self) -> bool:
        """Whether the device counts by itself, so that its power need not be integrated."""
        return self.energy_wh.counter is not None or self.energy_export_wh.counter is not None


def new_channel() -> Channel:
    return Channel(Register(), Register())


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Channel).decode


def copy_of(channel: Channel) -> Channel:
    """Return a copy that shares nothing that changes."""
    return _decode(_encode(channel))


_USUAL_RULES: Final = Rules()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner says of a channel: what is plausible, what its states are, what its energy costs."""

    rules: Rules = _USUAL_RULES
    states: StateRules | None = None
    tariff: Tariff | None = None


class Booking:
    """Books readings on channels; what it changes are the copies that it was given."""

    def __init__(self, terms: Mapping[str, Terms]) -> None:
        self._terms = terms
        self._usual = Terms()

    def book(
        self,
        name: str,
        channel: Channel,
        reading: Reading,
        moment: Moment,
        *,
        device_boot: str,
        entries: list[Entry],
    ) -> list[Reading]:
        """Return the reading with what its registers are now, behind points for what was counted while nobody looked.

        `moment` is when it was measured; `device_boot` changes whenever the device began anew, if it tells that at all.
        """
        if channel.seen.boot == moment.boot and moment.at_ns < channel.seen.at_ns:
            return [reading]  # late: what it counted is booked already, and spread over the time that it tells of
        if _OF_ENERGY.isdisjoint(reading.values):
            channel.seen = moment
            return [reading]
        terms = self._terms.get(name, self._usual)
        rules = terms.rules
        values = dict(reading.values)
        steps: dict[str, Step] = {}
        gap_ns = 0  # nobody read a counter for so long; of power nothing is known in a gap
        restarted = bool(device_boot) and _restarted(channel, device_boot)
        for counted, metric in _BASIS.items():
            shown = values.get(counted)
            if shown is None or isinstance(shown, str):
                continue
            register = channel.register(metric)
            step = _count(register, round(shown * UWH), moment, rules, restarted=restarted, replaced=channel.replaced)
            if step.believed:
                steps[metric] = step
                gap_ns = gap_ns or step.gap_ns
                values[metric] = register.told_uwh / UWH
            if step.kind:
                entries.append(Entry(name, metric, step.kind, moment, step.before_uwh, step.after_uwh, step.booked_uwh))
        if channel.replaced and (steps or not channel.counted):
            channel.replaced = False
        power_w = values.get("power_w")
        if power_w is not None and not isinstance(power_w, str):
            if not (steps or channel.counted):
                steps = _flow(channel, round(power_w * 1e6), moment, rules, values)
            if terms.states and "state" not in values:
                channel.state = look(channel.state, power_w, moment, terms.states)
                values["state"] = terms.states.names[channel.state.level]
        if terms.tariff and steps:
            _price(channel, terms.tariff, steps, moment, values)
        estimates = [*_spread(channel, reading, steps)] if gap_ns else []
        _tell_face_and_debts(channel, values)
        channel.seen = moment
        booked = Reading(reading.device, reading.at_ns, values, reading.quality)
        return [*estimates, booked] if estimates else [booked]


def _restarted(channel: Channel, device_boot: str) -> bool:
    if not device_boot or device_boot == channel.device_boot:
        return False
    known, channel.device_boot = channel.device_boot, device_boot
    return bool(known)


def _count(
    register: Register, shown_uwh: int, moment: Moment, rules: Rules, *, restarted: bool, replaced: bool
) -> Step:
    if register.counter is None:
        register.counter = Counter(shown_uwh, moment)
        return Step(kind=Kind.START, after_uwh=shown_uwh)
    step = follow(register.counter, shown_uwh, moment, rules, restarted=restarted, replaced=replaced)
    register.book(step.booked_uwh)
    return step


def _flow(channel: Channel, power_uw: int, moment: Moment, rules: Rules, values: dict[str, Value]) -> dict[str, Step]:
    """Book the area under the power."""
    steps = {}
    if channel.power is None:
        channel.power = Power(power_uw, moment)
    else:
        since = channel.power.seen
        in_uwh, out_uwh = integrate(channel.power, power_uw, moment, rules)
        channel.energy_wh.book(in_uwh)
        channel.energy_export_wh.book(out_uwh)
        steps = {"energy_wh": Step(in_uwh, since=since), "energy_export_wh": Step(out_uwh, since=since)}
    values["energy_wh"] = channel.energy_wh.told_uwh / UWH
    if channel.energy_export_wh.told_uwh:
        values["energy_export_wh"] = channel.energy_export_wh.told_uwh / UWH
    return steps


def _price(
    channel: Channel, tariff: Tariff, steps: Mapping[str, Step], moment: Moment, values: dict[str, Value]
) -> None:
    """Add what the booked energy costs; nothing is said while the price of some of it is not known."""
    if channel.cost is None:
        channel.cost = Cost()
    bought, sold = steps.get("energy_wh"), steps.get("energy_export_wh")
    since = (bought or sold or Step()).since
    in_uwh, out_uwh = (step.booked_uwh if step else 0 for step in (bought, sold))
    add(channel.cost, tariff, Undated(since if since.boot else moment, moment, in_uwh, out_uwh))
    if channel.cost.complete:
        values["cost"] = float(channel.cost.total)


def _spread(channel: Channel, reading: Reading, steps: Mapping[str, Step]) -> Iterator[Reading]:
    """Yield registers that rise evenly through the gap; where it began nobody knows more exactly."""
    risen = {metric: step for metric, step in steps.items() if step.gap_ns and not channel.register(metric).debt_uwh}
    if not risen:
        return
    gap_ns = max(step.gap_ns for step in risen.values())
    points = min(_MOST_SPREAD, gap_ns // _SPREAD_STEP_NS)
    quality = Quality.SIMULATED if reading.quality is Quality.SIMULATED else Quality.ESTIMATED
    for point in range(1, points + 1):
        before_ns = gap_ns * (points + 1 - point) // (points + 1)
        values: dict[str, Value] = {
            metric: (channel.register(metric).told_uwh - step.booked_uwh * before_ns // gap_ns) / UWH
            for metric, step in risen.items()
        }
        yield Reading(reading.device, reading.at_ns - before_ns, values, quality)


def _tell_face_and_debts(channel: Channel, values: dict[str, Value]) -> None:
    """Tell what the meter's face shows, and of a register that was told too high how much, until it no longer is."""
    imported = channel.energy_wh
    if imported.face_uwh is not None and "energy_wh" in values:
        values["meter_reading_wh"] = (imported.face_uwh + imported.told_uwh) / UWH
    for metric, register in zip(REGISTERS, (imported, channel.energy_export_wh), strict=True):
        if register.told_uwh != register.total_uwh or register.in_debt:
            values[debt_of(metric)] = register.debt_uwh / UWH
            register.in_debt = register.debt_uwh > 0


def debt_of(metric: str) -> str:
    """Name what is told of a register's debt.

    >>> [debt_of(metric) for metric in REGISTERS]
    ['energy_debt_wh', 'energy_export_debt_wh']
    """
    return f"{metric.removesuffix('_wh')}_debt_wh"
