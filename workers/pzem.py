"""PZEM meters on an RS-485 line: 017 and 003 for direct current, 004T v3, 014 and 016 for the mains.

    [sources.shunts]
    kind = "pzem"
    enabled = true
    interval_s = 2.0            # ten units take about one second
    port = "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0" # or "usb:VID:PID", "usb:VID:PID:serial"
    ports = []                  # more places where the adapter may be, tried in this order
    baud_rate = 9600
    stop_bits = "auto"          # 1 or 2; auto: 2 if there is a DC unit on the line
    local_echo = false          # true for an adapter that sends back what it is sent
    timeout_s = 0.3             # how long a unit may take to answer
    retries = 1                 # of an answer that is damaged; a silent unit is not asked twice
    pause_ms = 20.0             # between two messages
    round_budget_s = "auto"     # then a round ends, the rest goes first in the next; auto: 9/10 of interval_s
    longest_pause_s = 60.0      # a unit that does not answer is asked after 1, 2, 4 … and at last so many seconds
    reopen_when_silent_s = 0.0  # open the port anew when nobody answered for so long, for adapters that hang; 0: never
    apply_shunt_codes = false   # true writes shunt_a into a 017 that is set to another shunt

    [[sources.shunts.devices]]
    name = "battery"
    unit = 1                    # its address, 1 to 247
    model = "017"               # "017", "003", "004t", "014" or "016"
    shunt_a = 100               # only and always for a 017: the shunt that is fitted, 50, 100, 200 or 300
    rated_current_a = 0.0       # more than 1.2 times that is refused; 0: the shunt, or what the model can measure
    silent_when_dark = false    # true: on a panel, so silence from the start may be the night
    current_gain = 1.0          # the last three are for calibration, see workers/_calibration.py
    current_offset_a = 0.0
    noise_floor_a = 0.0

A unit that does not answer costs one probe, then ever fewer; the others go on. `./orchestrator.py pzem` finds units,
gives them addresses and sets their shunts. `docs/sources/pzem.md` tells about wires, safety and troubles.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from config.settings import PolledTable, Positive
from reading import Reading
from workers import Source, SourceError
from workers._modbus import FLEETING, Bus, BusFault, Fault, Line, PortLost, least_pause_ms
from workers._pzem_port import Unusable, is_candidate
from workers._pzem_registers import ADDRESS, HOLDINGS, INPUTS, MODELS, SHUNT, SHUNT_A, SHUNT_CODE
from workers._pzem_unit import Device, Unit, Wrong

_LONGEST_ROUND_S: Final = 10.0  # the heart does not beat in a round


class Options(PolledTable, frozen=True, kw_only=True):
    """`[sources.<name>]` with `kind = "pzem"`."""

    interval_s: Positive = 2.0
    port: str = ""
    ports: tuple[str, ...] = ()
    baud_rate: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 9600
    stop_bits: Literal["auto", 1, 2] = "auto"
    local_echo: bool = False
    timeout_s: Annotated[float, Meta(ge=0.05, le=2)] = 0.3
    retries: Annotated[int, Meta(ge=0, le=5)] = 1
    pause_ms: Annotated[float, Meta(gt=0, le=500)] = 20.0
    round_budget_s: Annotated[float, Meta(gt=0, le=_LONGEST_ROUND_S)] | Literal["auto"] = "auto"
    longest_pause_s: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    reopen_when_silent_s: Annotated[float, Meta(ge=0)] = 0.0
    apply_shunt_codes: bool = False
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ValueError('no port is configured: port = "/dev/serial/by-id/…" (ls /dev/serial/by-id shows yours)')
        for candidate in self.candidates:
            if not is_candidate(candidate):
                raise ValueError(
                    f'{candidate!r} is no port: a path that starts with a /, or "usb:VID:PID" as lsusb shows them'
                )
        if not self.devices:
            raise ValueError(
                "no device is configured: add a [[sources.<name>.devices]] table with name, unit and model"
            )
        names: set[str] = set()
        units: dict[int, str] = {}
        for device in self.devices:
            if device.name in names:
                raise ValueError(f"the device {device.name} is configured twice: give each device a name of its own")
            if device.unit in units:
                raise ValueError(
                    f"{units[device.unit]} and {device.name} both have unit {device.unit}: two units with one address"
                    " disturb each other; give one of them another (./orchestrator.py pzem set-address)"
                )
            names.add(device.name)
            units[device.unit] = device.name
        if self.pause_ms < (least_ms := least_pause_ms(self.baud_rate)):
            raise ValueError(f"pause_ms = {self.pause_ms:g} is less than 3.5 characters: at least {least_ms:.2f}")
        if self.round_budget_s != "auto" and self.round_budget_s > self.interval_s:
            raise ValueError(
                f"round_budget_s = {self.round_budget_s:g} is longer than interval_s = {self.interval_s:g}"
            )

    @property
    def candidates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.port, *self.ports) if self.port else self.ports))

    @property
    def budget_s(self) -> float:
        if self.round_budget_s == "auto":
            return min(0.9 * self.interval_s, _LONGEST_ROUND_S)
        return self.round_budget_s

    @property
    def line(self) -> Line:
        has_dc = any(MODELS[device.model].is_dc for device in self.devices)
        stop_bits = (2 if has_dc else 1) if self.stop_bits == "auto" else self.stop_bits
        return Line(self.baud_rate, stop_bits, self.timeout_s, self.pause_ms, self.local_echo)


class Pzem(Source):
    """Asks every unit of one line in turn."""

    Options = Options

    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.bus = Bus(options.line)
        self.units = [Unit(device, name, options.longest_pause_s, self.refused) for device in options.devices]
        self.now_s: Callable[[], float] = time.monotonic
        self._log = logging.getLogger(name)
        self._lost: PortLost | None = None
        self._heard_s = 0.0  # when any unit gave any answer

    def open(self) -> None:
        self._lost = None
        self._reach()
        for unit in self.units:
            unit.meet_again()
        self._heard_s = self.now_s()

    def read(self) -> list[Reading]:
        if self._lost:
            raise self._gone(self._lost) from self._lost
        ends_s = self.now_s() + self.options.budget_s
        readings: list[Reading] = []
        for number, unit in enumerate(self._due()):
            if number and self.now_s() >= ends_s:
                unit.note_turn(skipped=True)
                continue
            try:
                reading = self._ask(unit, ends_s)
            except PortLost as lost:
                if not readings:
                    raise self._gone(lost) from lost
                self._lost = lost  # first what was measured already, then the bad news
                break
            unit.note_turn(skipped=False)
            if reading:
                readings.append(reading)
        self.troubles = {unit.device.name: unit.trouble for unit in self.units if unit.trouble}
        self._reopen_if_all_are_silent()
        return readings

    def close(self) -> None:
        self.bus.close()

    def _reach(self) -> None:
        """Open the first of the candidates on which a unit answers, or else the first that opens."""
        candidates = self.options.candidates
        refusals: list[Unusable] = []
        silent: list[str] = []
        for candidate in candidates:
            try:
                self.bus.open(candidate)
                if len(candidates) == 1 or self._somebody_answers():
                    return
            except Unusable as refusal:
                refusals.append(refusal)
                continue
            except PortLost:
                continue
            self.bus.close()
            silent.append(candidate)
        for candidate in silent:
            try:
                self.bus.open(candidate)
            except Unusable as refusal:
                refusals.append(refusal)
            else:
                return
        # A port that is there and refuses us says more than one that is not there.
        worst = min(refusals, key=lambda refusal: refusal.absent, default=None)
        if worst is None:
            raise SourceError("the adapter went away while its units were looked for", "check its plug and its power")
        raise SourceError("; ".join(refusal.what for refusal in refusals), worst.what_now)

    def _somebody_answers(self) -> bool:
        """Look whether this is our line: whatever a unit answers to the question for its address."""
        ends_s = time.monotonic() + self.options.budget_s
        for unit in self.units:
            try:
                self.bus.read_registers(unit.device.unit, ADDRESS, 1, HOLDINGS)
            except BusFault as fault:
                if fault.fault is Fault.REFUSED:
                    return True
            else:
                return True
            if time.monotonic() >= ends_s:
                break
        return False

    def _due(self) -> list[Unit]:
        """Sort who is asked this round: first who was left out, last who is silent, of those the longest waiting."""
        now_s = self.now_s()
        due = [unit for unit in self.units if unit.breaker.is_due(now_s)]
        return sorted(due, key=lambda unit: (not unit.skipped, unit.breaker.is_open, unit.asked_s))

    def _ask(self, unit: Unit, ends_s: float) -> Reading | None:
        unit.asked_s = self.now_s()
        try:
            if not unit.verified:
                self._verify(unit, ends_s)
                if not unit.verified:
                    return None
            registers = self._fetch(unit, INPUTS, unit.model.registers, ends_s)
        except BusFault as fault:
            if fault.fault is not Fault.SILENT:
                self._heard_s = self.now_s()
            unit.fail(fault, self.now_s())
            return None
        self._heard_s = self.now_s()
        return unit.answer(registers, time.monotonic_ns())

    def _fetch(self, unit: Unit, function: int, count: int, ends_s: float) -> list[int]:
        """Read registers from 0 on; an answer that is damaged is asked for again, unless this is only a probe."""
        tries_left = 0 if unit.breaker.is_open else self.options.retries
        while True:
            try:
                return self.bus.read_registers(unit.device.unit, 0, count, function)
            except BusFault as fault:
                unit.note_error(fault.fault)
                if fault.fault not in FLEETING or not tries_left or self.now_s() >= ends_s:
                    raise
                tries_left -= 1

    def _verify(self, unit: Unit, ends_s: float) -> None:
        """See that a unit is what the configuration says, before anything that it shows is believed.

        An AC unit says so by having ten input registers. A DC one has settings from register 0 on, an AC one not.
        """
        if unit.model.holdings:
            try:
                settings = self._fetch(unit, HOLDINGS, unit.model.holdings, ends_s)
            except BusFault as fault:
                if fault.fault is Fault.REFUSED and fault.code in (1, 2):
                    raise BusFault(
                        Fault.REFUSED,
                        f"unit {unit.device.unit} is no {unit.model.name}: it lacks the settings of one",
                        "correct its model (./orchestrator.py pzem scan shows what it is)",
                        code=fault.code,
                    ) from fault
                raise
            if unit.device.shunt_a:
                self._verify_shunt(unit, settings[SHUNT])
        unit.verified = True

    def _verify_shunt(self, unit: Unit, code: int) -> None:
        number, fitted_a = unit.device.unit, unit.device.shunt_a
        wanted = SHUNT_CODE[fitted_a]
        if code != wanted and self.options.apply_shunt_codes:
            before = code
            self.bus.write_register(number, SHUNT, wanted)
            (code,) = self.bus.read_registers(number, SHUNT, 1, HOLDINGS)
            if code == wanted:
                self._log.info(
                    "%s: unit %d is set to its shunt of %d A now; it was set to %s",
                    *(unit.device.name, number, fitted_a, _shunt(before)),
                )
        if code == wanted:
            unit.content(Wrong.SHUNT)
            return
        unit.complain(
            Wrong.SHUNT,
            f"unit {number} is set to a shunt of {_shunt(code)}, the configuration says {fitted_a} A: its current,"
            " power and energy would be wrong and are left out; read what the shunt itself says, then correct shunt_a"
            f" or run ./orchestrator.py pzem set-shunt {number} {fitted_a}",
        )

    def _reopen_if_all_are_silent(self) -> None:
        patience_s = self.options.reopen_when_silent_s
        expected = all(unit.dark for unit in self.units)
        if expected or not patience_s or self.now_s() - self._heard_s < patience_s:
            return
        raise SourceError(
            f"no unit on {self.bus.path} has answered for {patience_s:g} s",
            "the port is opened anew; if that never helps, check the adapter, the A and B wires and the 5 V supply",
        )

    def _gone(self, lost: PortLost) -> SourceError:
        return SourceError(str(lost), "plug the adapter in again; it is looked for until it is back")


def _shunt(code: int) -> str:
    return f"{SHUNT_A[code]} A" if code in SHUNT_A else f"an unknown kind (code {code})"
