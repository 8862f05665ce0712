"""What this reader counts and where it reports to. Change it, copy it to the board, press the board's reset button.

Passwords do not belong here: they stand in secrets.py.
"""

DEVICE = "esp32-meter"  # the name of the device in the configuration of wattherd
IMP_PER_KWH = 1000  # printed on the meter: imp/kWh
MAX_POWER_W = 25000  # the most that can flow; pulses that come twice as fast are bounces

SENSOR = "led"  # "led": a light sensor with a digital output; "s0": a pulse output; "ldr": a bare LDR, see calibrate()
PIN = 32  # one that can pull up (not 34 to 39) and, for "ldr", measure while Wi-Fi is on (32 to 39 on a plain ESP32)
PULSE_LEVEL = 0  # the level of the pin during a pulse: 0 for an S0 output and most sensors; of no meaning for "ldr"

LED_PIN = 2  # the light on the board; None for none
LED_LIT = 1  # the level at which it is lit

SEND = "http"  # "http" to wattherd itself, or "mqtt" to a broker
SERVER = "192.168.1.10"  # the address in digits: looking up a name would hold up the counting
PORT = 5000  # 1883 is usual for MQTT
REPORT_S = 30  # how often the count is reported, and saved to flash: 30 wears it out in 72 years, 10 in 24

WATCHDOG_S = 60  # the board starts anew when its program hangs for so long; 0: never
