"""Runs the reader. Ctrl-C leads to the prompt, and there it goes on counting: try calibrate()."""

import sys
import time

import machine

from calibration import calibrate  # noqa: F401 - for the prompt
from monitor import Misconfigured, Monitor

_PAUSE_MS = 5


def attend(monitor):
    """Step the monitor, and feed its watchdog, while a person is at the prompt."""
    timer = machine.Timer(1)
    timer.init(period=4 * _PAUSE_MS, mode=machine.Timer.PERIODIC, callback=lambda _: monitor.step())
    print("It goes on counting. Ctrl-D starts it anew.")


def run():
    try:
        monitor = Monitor()
    except Misconfigured as what:
        print(what)
        return
    try:
        while True:
            monitor.step()
            time.sleep_ms(_PAUSE_MS)
    except KeyboardInterrupt:
        attend(monitor)
    except Exception as error:  # noqa: BLE001
        # Nothing here is foreseen. A restart mends most, and the count is safe in RTC memory.
        sys.print_exception(error)
        time.sleep_ms(10000)
        machine.reset()


run()
