"""The reader itself: counts, makes a message every so often, saves it, and has it delivered. Nothing in it waits."""

import binascii
import gc
import os
import re

import machine

import config
from backlog import Backlog
from count import Count
from delivery import Delivery
from pulses import S0, Ldr, Led, Pulses, Uptime, load_thresholds
from send_http import Http
from send_mqtt import Mqtt
from wifi import Wifi

try:
    import secrets
except ImportError:
    secrets = None

_SILENT_MS = 300000  # without a pulse for so long the power is called zero
_FLASH_MS = 50


class Misconfigured(Exception):  # noqa: N818 - a word to a person, not a fault of ours
    """Something that a person has to mend first: what is wrong, and what to do now."""


class Monitor:
    """To be stepped every few milliseconds."""

    def __init__(self):
        check()
        self._uptime = Uptime()
        self._count = Count()
        self._pulses = Pulses(self._count, self._uptime, config.IMP_PER_KWH, config.MAX_POWER_W)
        self._sensor = _sensor(self._pulses)
        # From here on it counts; whatever takes its time at the start comes after it.
        boot = binascii.hexlify(os.urandom(4)).decode()
        self._backlog = Backlog(config.DEVICE, boot, config.IMP_PER_KWH)
        self._delivery = Delivery(self._backlog, _link(), self._uptime)
        self._wifi = Wifi(secrets.WIFI_NAME, secrets.WIFI_PASSWORD, config.DEVICE)
        self._watchdog = machine.WDT(timeout=config.WATCHDOG_S * 1000) if config.WATCHDOG_S else None
        self._led = machine.Pin(config.LED_PIN, machine.Pin.OUT) if config.LED_PIN is not None else None
        self._due_ms = 0
        self._reported = self._count.last
        self._interval_ms = None  # between two pulses, when there were some last
        self._said = None
        print(f"{config.DEVICE}, boot {boot}: goes on from {self._count.total} pulses")

    def step(self):
        self._uptime.advance()
        now_ms = self._uptime.now_ms()
        if now_ms >= self._due_ms:
            self._due_ms += config.REPORT_S * 1000
            if self._due_ms <= now_ms:
                self._due_ms = now_ms + config.REPORT_S * 1000
            self._report(now_ms)
        was_connected = self._wifi.is_connected
        self._wifi.step(now_ms)
        if self._wifi.is_connected:
            self._delivery.step(now_ms)
        elif was_connected:
            self._delivery.stop()
        self._tell(now_ms)
        if self._watchdog:
            self._watchdog.feed()

    def _report(self, now_ms):
        """Save the total, and only then let it be known: whatever happens, it will never be less than was known."""
        last = self._count.last
        self._count.save(last[0])
        power_w = self._power_w(last, now_ms)
        self._backlog.add(now_ms, last[0], power_w)
        # The first pulse after a silence ends it and tells nothing of the power before it.
        self._reported = (last[0], None) if power_w == 0 else last
        gc.collect()

    def _power_w(self, last, now_ms):
        """Return the mean power of the whole pulses since the last report, None while nobody can know it.

        As long as no further pulse comes, it can only be less than one pulse in the time since.
        """
        pulses, at_ms = last
        pulses_before, before_ms = self._reported
        if at_ms is None:
            return 0 if now_ms > _SILENT_MS else None
        if pulses > pulses_before and before_ms is not None:
            self._interval_ms = (at_ms - before_ms) / (pulses - pulses_before)
        if now_ms - at_ms > _SILENT_MS:
            self._interval_ms = None
            return 0
        if self._interval_ms is None:
            return None
        power_w = 3.6e9 / config.IMP_PER_KWH / max(self._interval_ms, now_ms - at_ms)
        return round(power_w, 1) if power_w <= config.MAX_POWER_W else None

    def _tell(self, now_ms):
        """Tell a person: the light goes on for a moment at each pulse, or off while nothing can be delivered."""
        trouble = self._count.trouble or self._wifi.trouble or self._delivery.trouble
        if trouble != self._said:
            print(trouble or "all is well")
            self._said = trouble
        if self._led:
            at_ms = self._count.last[1]
            is_pulse = at_ms is not None and now_ms - at_ms < _FLASH_MS
            is_stuck = self._backlog.waiting_ms(now_ms) > 3000 * config.REPORT_S
            self._led.value(config.LED_LIT if is_pulse != is_stuck else 1 - config.LED_LIT)


def check():
    """Refuse a configuration that cannot work."""
    if secrets is None:
        raise Misconfigured("there is no secrets.py; fill in secrets.py.example and copy it to the board as secrets.py")
    for is_right, what in (
        (re.match("^[A-Za-z0-9_-]+$", config.DEVICE), "DEVICE needs letters, digits, - and _"),
        (config.IMP_PER_KWH > 0, "IMP_PER_KWH is printed on the meter"),
        (config.MAX_POWER_W > 0, "MAX_POWER_W is the most that can flow"),
        (config.SENSOR in ("led", "s0", "ldr"), 'SENSOR is "led", "s0" or "ldr"'),
        (config.SEND in ("http", "mqtt"), 'SEND is "http" or "mqtt"'),
        (re.match(r"^\d+\.\d+\.\d+\.\d+$", config.SERVER), "SERVER is an address such as 192.168.1.10, no name"),
        (config.REPORT_S >= 5, "REPORT_S is at least 5: the flash wears"),
        (config.WATCHDOG_S == 0 or config.WATCHDOG_S >= 10, "WATCHDOG_S is 0, or at least 10"),
    ):
        if not is_right:
            raise Misconfigured(f"config.py: {what}; correct it and copy it to the board")


def _sensor(pulses):
    if config.SENSOR == "led":
        return Led(pulses, config.PIN, config.PULSE_LEVEL)
    if config.SENSOR == "s0":
        return S0(pulses, config.PIN, config.PULSE_LEVEL)
    thresholds = load_thresholds()
    if thresholds is None:
        raise Misconfigured("the LDR is not calibrated; type calibrate()")
    return Ldr(pulses, config.PIN, thresholds[0], thresholds[1])


def _link():
    if config.SEND == "http":
        return Http(config.SERVER, config.PORT, secrets.TOKEN)
    return Mqtt(config.SERVER, config.PORT, config.DEVICE, secrets.MQTT_USER, secrets.MQTT_PASSWORD)
