"""From a pin to pulses: which edges, or which changes of brightness, are one.

MicroPython calls back between two lines of the program, not at the very edge, and keeps at most eight calls waiting.
So nothing in this program may wait, and what comes late is judged for what it is worth.
"""

import json
import time

import machine

SAMPLE_MS = 2
_MIN_S0_MS = 10  # EN 62053-31: an S0 output conducts for at least 30 ms
_HELD_UP_MS = 20  # the program comes by every few milliseconds, unless flash is being erased


class Uptime:
    """Milliseconds since the start: ticks_ms() begins anew after 12.4 days."""

    def __init__(self):
        self._mark = (time.ticks_ms(), 0)

    def advance(self):
        """Move the mark. To be called at least once a day, by the main program only."""
        ticks, at_ms = self._mark
        now = time.ticks_ms()
        self._mark = (now, at_ms + time.ticks_diff(now, ticks))

    def now_ms(self):
        ticks, at_ms = self._mark
        return at_ms + time.ticks_diff(time.ticks_ms(), ticks)

    def is_held_up(self):
        """Whether the program has not come by for so long that what is seen now may have been earlier."""
        return time.ticks_diff(time.ticks_ms(), self._mark[0]) > _HELD_UP_MS


class Pulses:
    """Counts pulses, unless they come sooner after the last one than any can."""

    def __init__(self, count, uptime, imp_per_kwh, max_power_w):
        self.count = count
        self.uptime = uptime
        self.bounces = 0
        self._nearest_ms = 3600000000 // int(imp_per_kwh * max_power_w) // 2
        self._last_ms = None

    def take(self, at_ms):
        if self._last_ms is not None and at_ms - self._last_ms < self._nearest_ms:
            self.bounces += 1
            return
        self._last_ms = at_ms
        self.count.pulse(at_ms)


class Led:
    """A sensor that answers each blink with a short pulse: the edge that begins it counts."""

    def __init__(self, pulses, pin, pulse_level):
        self._pulses = pulses
        self._pin = machine.Pin(pin, machine.Pin.IN, machine.Pin.PULL_UP)
        edge = machine.Pin.IRQ_RISING if pulse_level else machine.Pin.IRQ_FALLING
        self._pin.irq(self._edge, edge)

    def _edge(self, _pin):
        self._pulses.take(self._pulses.uptime.now_ms())


class S0:
    """A pulse output: what is too short for one is a spike on the cable. The end of a pulse counts it.

    So a pulse that goes on during a restart counts once, whatever was seen of its beginning.
    """

    def __init__(self, pulses, pin, pulse_level):
        self._pulses = pulses
        self._level = pulse_level
        self._pin = machine.Pin(pin, machine.Pin.IN, machine.Pin.PULL_UP)
        self._began_ms = None
        self._late = False
        self._pin.irq(self._edge, machine.Pin.IRQ_FALLING | machine.Pin.IRQ_RISING)
        if self._pin.value() == pulse_level:
            self._began_ms = pulses.uptime.now_ms()

    def _edge(self, pin):
        uptime = self._pulses.uptime
        now_ms, late = uptime.now_ms(), uptime.is_held_up()
        if pin.value() == self._level:
            if self._began_ms is None:
                self._began_ms, self._late = now_ms, late
            return
        began_ms, self._began_ms = self._began_ms, None
        if late or (began_ms is not None and (self._late or now_ms - began_ms >= _MIN_S0_MS)):
            self._pulses.take(now_ms)
        else:
            self._pulses.bounces += 1
        self._late = False


class Ldr:
    """An LDR whose voltage is measured: a pulse begins above one threshold and ends below another."""

    def __init__(self, pulses, pin, low, high):
        self._pulses = pulses
        self._low = low
        self._high = high
        self._adc = open_adc(pin)
        self._above = self._adc.read_u16() > high
        self._timer = machine.Timer(0)
        self._timer.init(period=SAMPLE_MS, mode=machine.Timer.PERIODIC, callback=self._sample)

    def _sample(self, _timer):
        level = self._adc.read_u16()
        if self._above:
            self._above = level >= self._low
        elif level > self._high:
            self._above = True
            self._pulses.take(self._pulses.uptime.now_ms())


def open_adc(pin):
    return machine.ADC(machine.Pin(pin), atten=machine.ADC.ATTN_11DB)


def load_thresholds():
    """Return the low and the high threshold that calibrate() found, None where it was never done."""
    try:
        with open("calibration.json") as file:
            thresholds = json.load(file)
            return thresholds["low"], thresholds["high"]
    except (OSError, ValueError, KeyError):
        return None
