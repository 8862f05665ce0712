"""Finds the thresholds of an LDR by watching the meter blink: calibrate() at the serial prompt."""

import array
import json
import os
import time

import config
from pulses import SAMPLE_MS, open_adc

_STEPS = 24  # between the darkest and the brightest that was seen
_LEAST_SWING = 1300  # of 65535: 2 %, below it there is only noise
_LEAST_BLINKS = 3
_LEAST_RUN = 3


def calibrate():
    """Watch, propose thresholds, and save them if they are liked."""
    if config.SENSOR != "ldr":
        print(f'Nothing to calibrate: SENSOR is "{config.SENSOR}". A board with a screw is set by its screw.')
        return
    seconds = _ask_seconds()
    adc = open_adc(config.PIN)
    print(f"Watching how dark and how bright it gets, for {seconds} s ...")
    darkest, brightest = _extremes(adc, seconds)
    print(f"From {darkest} to {brightest} of 65535.")
    if brightest - darkest < _LEAST_SWING:
        print("No blink can be seen. Put the sensor straight onto the light of the meter and switch on a kettle;")
        print("if it stays like this, use a larger resistor (towards 47 kOhm). Nothing was changed.")
        return
    print(f"Counting blinks, for {seconds} s: watch the meter and count, too ...")
    counts = _counts(adc, seconds, darkest, brightest)
    most = int(config.MAX_POWER_W * config.IMP_PER_KWH * seconds // 3600000) + 1
    low, high, blinks = _thresholds(counts, most, darkest, brightest)
    if not blinks:
        print("The blinks cannot be told from other light. Cover the sensor with black tape, switch off lamps,")
        print("and use more power so that it blinks at least every few seconds. Nothing was changed.")
        return
    power_w = blinks * 3600000 // int(config.IMP_PER_KWH) // seconds
    print(f"{blinks} blinks: about {power_w} W. Thresholds: {low} and {high}.")
    if input("Is that what the meter did? Save it? [y/n] ").strip().lower() not in ("y", "yes"):
        print("Nothing was changed.")
        return
    with open("calibration.new", "w") as file:
        json.dump({"low": low, "high": high}, file)
    os.rename("calibration.new", "calibration.json")
    print("Saved. Press Ctrl-D to start with it.")


def _ask_seconds():
    while True:
        answer = input("How many seconds shall I watch? [30] ").strip()
        if not answer:
            return 30
        if answer.isdigit() and 5 <= int(answer) <= 600:
            return int(answer)
        print("A number from 5 to 600, please.")


def _samples(adc, seconds):
    started = time.ticks_ms()
    while time.ticks_diff(time.ticks_ms(), started) < seconds * 1000:
        yield adc.read_u16()
        time.sleep_ms(SAMPLE_MS)


def _extremes(adc, seconds):
    darkest, brightest = 65535, 0
    for level in _samples(adc, seconds):
        darkest, brightest = min(darkest, level), max(brightest, level)
    return darkest, brightest


def _counts(adc, seconds, darkest, brightest):
    """Count with every possible threshold at once: how often the level rose above each step and fell below it again."""
    counts = array.array("I", [0] * _STEPS)
    above = bytearray(_STEPS)
    before = None
    for level in _samples(adc, seconds):
        step = max(0, min(_STEPS - 1, (level - darkest) * _STEPS // (brightest - darkest + 1)))
        if step == before:
            continue
        for each in range(step):
            if not above[each]:
                above[each] = 1
                counts[each] += before is not None
        for each in range(step + 1, _STEPS):
            above[each] = 0
        before = step
    return counts


def _thresholds(counts, most, darkest, brightest):
    """Return the low and the high threshold and the number of blinks; no blinks if no thresholds are good.

    Low steps count flicker too, high ones miss weak blinks. Where many steps in a row agree there is only the blink,
    unless that would be `most` or more: nothing can use so much power, so it is a lamp.
    """
    best, first = (0, 0), 1
    for each in range(2, _STEPS):
        if each == _STEPS - 1 or counts[each] != counts[first]:
            if _LEAST_BLINKS <= counts[first] < most and each - first > best[1]:
                best = (first, each - first)
            first = each
    first, run = best
    if run < _LEAST_RUN:
        return 0, 0, 0
    bottom = darkest + first * (brightest - darkest) // _STEPS
    height = run * (brightest - darkest) // _STEPS
    return bottom + height // 3, bottom + 2 * height // 3, counts[first]
