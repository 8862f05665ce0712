"""Keeps the Wi-Fi connected without ever waiting for it."""

import network

_FIRST_PAUSE_MS = 10000  # a connection takes a few seconds; begun anew earlier it would never come
_LONGEST_PAUSE_MS = 60000


class Wifi:
    def __init__(self, name, password, hostname):
        network.hostname(hostname[:32])
        self._name = name
        self._password = password
        self._wlan = network.WLAN(network.STA_IF)
        self._wlan.active(True)
        self._due_ms = 0
        self._pause_ms = _FIRST_PAUSE_MS
        self.is_connected = False

    @property
    def trouble(self):
        """What is wrong, in words; empty where it is connected."""
        if self.is_connected:
            return ""
        status = self._wlan.status()
        if status == network.STAT_WRONG_PASSWORD:
            return "Wi-Fi: the password is wrong; correct WIFI_PASSWORD in secrets.py"
        if status == network.STAT_NO_AP_FOUND:
            return f'Wi-Fi: there is no "{self._name}" on 2.4 GHz; correct WIFI_NAME in secrets.py, or go nearer'
        return f'Wi-Fi: not connected to "{self._name}" yet'

    def step(self, now_ms):
        self.is_connected = self._wlan.isconnected()
        if self.is_connected:
            self._pause_ms = _FIRST_PAUSE_MS
            self._due_ms = now_ms + _FIRST_PAUSE_MS  # the chip itself tries first when the connection breaks
        elif now_ms >= self._due_ms:
            self._due_ms = now_ms + self._pause_ms
            self._pause_ms = min(2 * self._pause_ms, _LONGEST_PAUSE_MS)
            self._begin()

    def _begin(self):
        try:
            self._wlan.disconnect()
        except OSError:
            pass  # it was not connected
        try:
            self._wlan.connect(self._name, self._password)
        except OSError:
            pass  # the chip is still busy with the last attempt; the next one comes
