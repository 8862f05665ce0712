"""The total of all pulses ever: it outlives restarts, and never falls behind what was reported."""

import binascii
import struct

import esp32
import machine

_LOW = 1 << 30  # a number in NVS has 31 bits and a sign
_NOTE = "<2sQ"
_MAGIC = b"wh"


class Count:
    """Counts, notes each pulse in RTC memory at once, and saves the total to flash before it is reported.

    RTC memory outlives every reset but no power cut, and does not wear. Flash outlives both.
    """

    def __init__(self):
        self._nvs = esp32.NVS("wattherd")
        self._rtc = machine.RTC()
        self.saved = self._load()
        # Total and instant of the last pulse are one object: what an interrupt changes at once is never seen half done.
        self.last = (max(self.saved, self._noted()), None)
        self.trouble = ""

    @property
    def total(self):
        return self.last[0]

    def pulse(self, at_ms):
        total = self.last[0] + 1
        self.last = (total, at_ms)
        note = struct.pack(_NOTE, _MAGIC, total)
        self._rtc.memory(note + struct.pack("<I", binascii.crc32(note)))

    def save(self, total):
        """Save what is about to be reported. NVS writes such a number whole or not at all, also at a power cut."""
        if total <= self.saved:
            return
        high, low = divmod(total, _LOW)
        try:
            # A key for each 2^30 pulses: a carry into a second number could be cut in half.
            self._nvs.set_i32(f"pulses{high}", low)
            self._nvs.commit()
            self.saved = total
            self.trouble = ""
        except OSError as error:
            self.trouble = f"the count cannot be saved ({error}); a power cut now would lose it: replace the board"

    def _load(self):
        total = high = 0
        while True:
            try:
                total = high * _LOW + self._nvs.get_i32(f"pulses{high}")
            except OSError:
                return total
            high += 1

    def _noted(self):
        note = self._rtc.memory()
        if len(note) != struct.calcsize(_NOTE) + 4:
            return 0
        magic, total = struct.unpack_from(_NOTE, note)
        if magic != _MAGIC or struct.unpack_from("<I", note, len(note) - 4)[0] != binascii.crc32(note[:-4]):
            return 0  # after a power cut it holds anything
        return total
