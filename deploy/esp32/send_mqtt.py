"""Publishes messages to an MQTT broker: version 3.1.1, QoS 1, one message at a time, with a last will.

`wattherd/pulse/<device>/state` has the messages, `wattherd/pulse/<device>/status` says "online" or "offline", retained.
"""

import struct

from connection import Connection
from delivery import FAILED, TAKEN

_KEEP_ALIVE_S = 60
_LONGEST_MS = 20000
_MOST_UNREAD = 256
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not like the client id",
    3: "it is not available",
    4: "the user or the password is wrong; correct MQTT_USER and MQTT_PASSWORD in secrets.py",
    5: "this user may not connect; allow it in the configuration of the broker",
}


class Mqtt:
    def __init__(self, server, port, device, user, password):
        self._address = (server, port)
        self._where = f"mqtt://{server}:{port}"
        self._state = f"wattherd/pulse/{device}/state"
        self._status = f"wattherd/pulse/{device}/status"
        self._hello = _connect(f"wattherd-{device}", self._status, user, password)
        self._connection = None
        self._compose = None
        self._packet_id = 0
        self._awaited = None  # the number of the packet whose acknowledgement ends a sending
        self._close()

    def begin(self, compose):
        self._compose = compose
        self._until_ms = None

    def step(self, now_ms):
        """Go on; return what became of the message and why, None while that is open."""
        is_sending = self._compose is not None or self._awaited is not None
        if is_sending and self._until_ms is None:
            self._until_ms = now_ms + _LONGEST_MS
        try:
            if self._go_on(now_ms, is_sending):
                return TAKEN, ""
        except OSError as error:
            self.close()
            return FAILED, f"{self._where}: {error}"
        if is_sending and now_ms >= self._until_ms:
            self.close()
            return FAILED, f"{self._where}: no answer in {_LONGEST_MS // 1000} s; see that a broker runs there"
        return None

    def close(self):
        """Break the connection: the broker then publishes the last will."""
        self._compose = self._awaited = None
        self._close()

    def _close(self):
        if self._connection:
            self._connection.close()
        self._connection = None
        self._has_said_hello = self._is_accepted = False
        self._unread = b""
        self._quiet_since_ms = 0  # nothing was sent since; the broker wants to hear something
        self._pinged_ms = None
        self._until_ms = None

    def _go_on(self, now_ms, is_sending):
        """Return whether the message was acknowledged."""
        if self._connection is None:
            if not is_sending:
                return False
            self._connection = Connection(self._address)
        if not self._connection.is_open():
            return False
        if not self._has_said_hello:
            self._has_said_hello = True
            self._send(self._hello, now_ms)
        self._connection.flush()
        acknowledged = self._receive(now_ms)
        if self._is_accepted and self._compose:
            compose, self._compose = self._compose, None
            self._awaited = self._publish(self._state, compose(), False, now_ms)
        self._keep_alive(now_ms)
        return acknowledged

    def _receive(self, now_ms):
        came = self._connection.receive()
        if came == b"":
            raise OSError("the broker has closed the connection")
        self._unread += came or b""
        acknowledged = False
        while len(self._unread) >= 2:
            # All that a broker has to say to one who subscribes to nothing is shorter than 128 bytes.
            length = self._unread[1]
            is_mqtt = self._is_accepted or self._unread[0] == 0x20
            if not is_mqtt or length > 127 or len(self._unread) > _MOST_UNREAD:
                raise OSError("what answers there is no MQTT broker; correct SERVER and PORT in config.py")
            if len(self._unread) < 2 + length:
                break
            packet, self._unread = self._unread[: 2 + length], self._unread[2 + length :]
            acknowledged |= self._hear(packet, now_ms)
        return acknowledged

    def _hear(self, packet, now_ms):
        kind = packet[0] >> 4
        if kind == 2 and len(packet) == 4:  # CONNACK
            if packet[3]:
                raise OSError(_REFUSALS.get(packet[3], f"it refuses the connection ({packet[3]})"))
            self._is_accepted = True
            self._publish(self._status, b"online", True, now_ms)
        elif kind == 13:  # PINGRESP
            self._pinged_ms = None
        elif kind == 4 and len(packet) == 4 and struct.unpack(">H", packet[2:])[0] == self._awaited:  # PUBACK
            self._awaited = None
            return True
        return False

    def _keep_alive(self, now_ms):
        if self._pinged_ms is not None and now_ms - self._pinged_ms > _LONGEST_MS:
            raise OSError("the broker has fallen silent")
        if self._is_accepted and self._pinged_ms is None and now_ms - self._quiet_since_ms > _KEEP_ALIVE_S * 500:
            self._send(b"\xc0\x00", now_ms)
            self._pinged_ms = now_ms

    def _publish(self, topic, payload, retain, now_ms):
        """Publish with QoS 1 and return the number of the packet."""
        self._packet_id = self._packet_id % 65535 + 1
        body = _text(topic) + struct.pack(">H", self._packet_id) + payload
        self._send(bytes([0x33 if retain else 0x32]) + _length(len(body)) + body, now_ms)
        return self._packet_id

    def _send(self, packet, now_ms):
        self._quiet_since_ms = now_ms
        self._connection.send(packet)


def _connect(client_id, status, user, password):
    flags = 0x02 | 0x04 | 0x08 | 0x20  # a clean session; a will, of QoS 1, retained
    fields = _text(client_id) + _text(status) + _text("offline")
    if user:
        flags |= 0xC0
        fields += _text(user) + _text(password)
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", _KEEP_ALIVE_S) + fields
    return b"\x10" + _length(len(body)) + body


def _text(text):
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(number):
    """Write a length as MQTT does: seven bits a byte, the low ones first."""
    said = b""
    while True:
        number, low = divmod(number, 128)
        if not number:
            return said + bytes([low])
        said += bytes([low | 128])
