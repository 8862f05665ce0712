"""One PZEM on the line: its table, and what is known of it from round to round."""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta

from reading import Reading
from workers._calibration import CalibratedDevice
from workers._modbus import UNREADABLE, Breaker, BusFault, Fault
from workers._pzem_registers import MODELS, ModelName, Shown, corrected, decode, out_of_range

# A DC unit lives from what it measures and needs 7 V. One volt more, because a panel sinks between two rounds.
_DARK_BELOW_V: Final = 8.0
_SKIP_WEIGHT: Final = 10  # rounds in time that make up for one that had no time for the unit
_RATE_SPAN: Final = 50  # exchanges that the rate of bad ones looks back on


class Device(CalibratedDevice, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]` of a PZEM line."""

    unit: Annotated[int, Meta(ge=1, le=247)]
    model: ModelName
    shunt_a: Literal[0, 50, 100, 200, 300] = 0
    rated_current_a: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    silent_when_dark: bool = False

    def __post_init__(self) -> None:
        if self.model == "017" and not self.shunt_a:
            raise ValueError(f"{self.name} is a 017: say which shunt is fitted, shunt_a = 50, 100, 200 or 300")
        if self.model != "017" and self.shunt_a:
            raise ValueError(f"{self.name} is a {self.model}, which has no shunt to choose: leave out shunt_a")
        if self.silent_when_dark and not MODELS[self.model].is_dc:
            raise ValueError(
                f"{self.name} is a {self.model}: only the DC models 017 and 003 live from what they measure;"
                " leave out silent_when_dark"
            )


class Wrong(enum.IntEnum):
    """What can be wrong with a unit; the first that is gets shown."""

    BUS = 1
    MODEL = 2
    SHUNT = 3
    RANGE = 4
    ALARM = 5
    ERRORS = 6
    LATE = 7


class Unit:
    """What is known of one unit. It decides when it is asked, and puts its troubles into words."""

    def __init__(self, device: Device, source: str, longest_pause_s: float, refused: Counter[str]) -> None:
        self.device = device
        self.model = MODELS[device.model]
        self.rated_current_a = device.rated_current_a or device.shunt_a or self.model.rated_current_a
        self.breaker = Breaker(longest_pause_s)
        self.verified = False  # its settings were compared since it was met
        self.dark = False  # silent because there is no voltage, which is no fault
        self.skipped = False  # the last round had no time for it
        self.asked_s = 0.0
        self.answers = 0
        self.faults: Counter[Fault] = Counter()
        self._log = logging.getLogger(source)
        self._refused = refused
        self._wrong: dict[Wrong, str] = {}
        self._bus_fault: Fault | None = None  # the one that the trouble shows
        self._voltage_v: float | None = None  # that it showed last
        self._error_rate = 0.0
        self._lag = 0

    @property
    def trouble(self) -> str:
        return self._wrong[min(self._wrong)] if self._wrong else ""

    def meet_again(self) -> None:
        """The port was opened anew: ask at once, and believe no setting. What it showed last stays known."""
        self.breaker.succeed()
        self.verified = False
        self.skipped = False

    def complain(self, wrong: Wrong, words: str) -> None:
        self._wrong[wrong] = words

    def content(self, wrong: Wrong) -> None:
        self._wrong.pop(wrong, None)

    def note_error(self, fault: Fault) -> None:
        """Count an exchange that failed, also one that another try mended."""
        self.faults[fault] += 1
        if fault not in (Fault.SILENT, Fault.REFUSED):
            self._refused["malformed"] += 1
            self._note_rate(1.0)

    def fail(self, fault: BusFault, now_s: float) -> None:
        """It gave no good answer, for good this round."""
        self.verified = False
        expected = fault.fault is not Fault.REFUSED and self._is_expected_silence()
        self.breaker.fail(now_s, calm=expected)
        if expected:
            if not self.dark:
                seen = "was not seen yet" if self._voltage_v is None else f"showed {self._voltage_v:.2f} V last"
                self._log.info(
                    "%s: unit %d is silent, as expected below 7 V (it %s); it is asked once in %.0f s",
                    *(self.device.name, self.device.unit, seen, self.breaker.longest_s),
                )
            self.dark = True
            self.content(Wrong.BUS)
            self.content(Wrong.LATE)
            return
        if self.breaker.failures == 1 and self.answers and fault.fault is not Fault.REFUSED:
            return  # once is chance: it is counted, and asked again after a second
        if Wrong.BUS in self._wrong and {fault.fault, self._bus_fault} <= UNREADABLE:
            return
        what_now = fault.what_now
        if fault.fault is Fault.SILENT and self.model.is_dc and not self.answers:
            what_now += "; if it is dark and below 7 V now, set silent_when_dark = true"
        self._bus_fault = fault.fault
        self.complain(Wrong.BUS, f"{fault.what}; {what_now}")

    def answer(self, registers: Sequence[int], at_ns: int) -> Reading | None:
        """Take a measurement; return it unless it cannot be."""
        self.answers += 1
        self.breaker.succeed()
        self._note_rate(0.0)
        self.content(Wrong.BUS)
        shown = decode(registers)
        voltage_v = shown.values["voltage_v"]
        self._voltage_v = voltage_v
        if self.dark and voltage_v >= _DARK_BELOW_V:
            self.dark = False
            self._log.info("%s: unit %d answers again, %.2f V", self.device.name, self.device.unit, voltage_v)
        why = out_of_range(shown.values, is_dc=self.model.is_dc, rated_current_a=self.rated_current_a)
        if why:
            self._refused["out_of_range"] += 1
            if Wrong.RANGE not in self._wrong:
                self.complain(
                    Wrong.RANGE,
                    f"unit {self.device.unit} shows what cannot be ({why}); it is refused: check model and "
                    f"rated_current_a ({self.rated_current_a:g} A), or the unit itself",
                )
            return None
        self.content(Wrong.RANGE)
        self._note_alarms(shown)
        values = corrected(shown.values, self.device)
        if Wrong.SHUNT in self._wrong:  # its amperes are those of another shunt
            values = {"voltage_v": voltage_v}
        return Reading(self.device.name, at_ns, values)

    def note_turn(self, *, skipped: bool) -> None:
        """Note whether a round had time for it; one that had none now and then is no trouble."""
        self.skipped = skipped
        self._lag = min(self._lag + _SKIP_WEIGHT, 3 * _SKIP_WEIGHT) if skipped else max(self._lag - 1, 0)
        if self._lag > 2 * _SKIP_WEIGHT:
            self.complain(
                Wrong.LATE,
                "the rounds are too short to ask every unit each time; raise interval_s or round_budget_s",
            )
        elif not self._lag:
            self.content(Wrong.LATE)

    def _is_expected_silence(self) -> bool:
        if not self.model.is_dc:
            return False
        if self._voltage_v is None:
            return self.device.silent_when_dark
        return self._voltage_v < _DARK_BELOW_V

    def _note_alarms(self, shown: Shown) -> None:
        """Its own alarms are troubles, but not the low voltage that announces an expected silence."""
        alarms = [alarm for alarm in shown.alarms if not (self.device.silent_when_dark and "low" in alarm)]
        if alarms:
            words = " and ".join(alarms)
            panel = "; on a panel, set silent_when_dark = true" if "low" in words else ""
            self.complain(
                Wrong.ALARM,
                f"unit {self.device.unit} warns: {words}; look at what it measures, or at the limit set in it{panel}",
            )
        else:
            self.content(Wrong.ALARM)

    def _note_rate(self, bad: float) -> None:
        self._error_rate += (bad - self._error_rate) / _RATE_SPAN
        if self._error_rate > 0.2:
            self.complain(
                Wrong.ERRORS,
                f"one answer of unit {self.device.unit} in five is bad; check the wires, the 120 Ω at both ends of a"
                " long line, and that no two units have one address",
            )
        elif self._error_rate < 0.05:
            self.content(Wrong.ERRORS)
