"""Senders that mean no good: `python -m tests.faults.lab.attackers KIND PORT COUNT SEED`; each prints what it sent."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import sys
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

DEVICE = "esp32-0"  # one that is configured, whose readings somebody might want to spoil
TOPICS = (
    "tele/boiler/SENSOR",
    "tele/boiler/LWT",
    "any/json",
    "esp32/readings/house",
    "shellies/plug/relay/0/power",
    "zigbee2mqtt/lamp",
)
_AT_ONCE = 40
_NUMBERS = (-1, 0, 2**53 + 1, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, True, None, "12", "NaN", [], {}, [[]])
_NAMES = (
    "",
    "../../etc/passwd",
    "esp32-0\n2026-01-01T00:00:00Z ERROR forged",
    "esp32-0\0",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE row; --",
    "x" * 5000,
    "é" * 63,
    "\u202eesp32-0",
    "\ud800",
    "ESP32-0",
    "esp32-0 ",
    "..",
    "con",
    "%s%n{0}",
)
_KEYS = ("pulses_total", "energy_kwh", "power_w", "seq", "boot", "age_ms", "ts", "imp_per_kwh", "device", "__proto__")


def hostile_json(chance: random.Random) -> bytes:
    """Something that is nearly a message, or nothing like it. None is one that may be taken."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return b"[" * chance.randrange(1, 3000)
    if kind == 2:
        return b'{"device":' * chance.randrange(1, 300) + b"1" + b"}" * 3
    fields: dict[str, object] = {chance.choice(_KEYS): chance.choice(_NUMBERS) for _ in range(chance.randrange(6))}
    fields["device"] = chance.choice(_NAMES)
    if kind == 3:
        fields["device"] = DEVICE
        fields["pulses_total"] = chance.choice((-1, "many", [], {}, 2**60, 1.5, True))
    text = json.dumps(fields).encode("utf-8", "replace")
    if kind == 4:
        return text.replace(b":", chance.choice((b"::", b" ", b":NaN,", b"\xff:")))
    if kind == 5:
        return text[: chance.randrange(len(text))]
    if kind == 6:
        return b"[" + b",".join([text] * chance.randrange(2, 300)) + b"]"
    return text


def pipelined(port: int, count: int, chance: random.Random) -> int:
    """Good HTTP with bad bodies, many on one connection; return how many were answered."""
    answered = 0
    while answered < count:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            while answered < count:
                bodies = [hostile_json(chance) for _ in range(_AT_ONCE)]
                heads = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) for body in bodies]
                connection.sendall(b"".join(head + body for head, body in zip(heads, bodies, strict=True)))
                answers = b""
                while answers.count(b"HTTP/1.1 ") < _AT_ONCE:
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    answers += chunk
                answered += answers.count(b"HTTP/1.1 ")
                if b"HTTP/1.1 200" in answers:
                    print("something was taken", answers[:300], file=sys.stderr)
                if not chunk:
                    break
    return answered


def malformed(port: int, count: int, chance: random.Random) -> int:
    """No HTTP at all, one connection each."""
    sent = 0
    while sent < count:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            kind = chance.randrange(6)
            if kind == 0:
                text = chance.randbytes(chance.randrange(1, 500))
            elif kind == 1:
                text = b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n"
            elif kind == 2:
                text = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"
            elif kind == 3:
                text = (
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET"
                )
            elif kind == 4:
                text = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n"
            else:
                text = b"%s /%s HTTP/9.9\r\n\r\n" % (b"M" * chance.randrange(30), b"../" * chance.randrange(100))
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        sent += 1
    return sent


def published(port: int, count: int, chance: random.Random) -> int:
    """To every topic that somebody listens to, what no device would say."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for number in range(count):
        message = client.publish(chance.choice(TOPICS), hostile_json(chance)[:2000], qos=0)
        if number % 500 == 499:
            message.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()
    return count


def slowly(port: int, count: int, _chance: random.Random) -> int:
    """Hold as many connections as there may be, and say a letter now and then, until told to stop."""
    open_: list[socket.socket] = []
    began_s, opened = time.monotonic(), 0
    while time.monotonic() - began_s < count:
        while len(open_) < 400:
            connection = socket.socket()
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect(("127.0.0.1", port))
            open_.append(connection)
            opened += 1
        for connection in list(open_):
            try:
                connection.send(b"P")
            except BlockingIOError:
                pass
            except OSError:
                connection.close()
                open_.remove(connection)
        time.sleep(0.05)
    return opened


def huge(port: int, count: int, _chance: random.Random) -> int:
    """A body of so many megabytes, announced and then in chunks; return how many left here in all."""
    left = 0
    for head in (b"Content-Length: %d" % (count << 20), b"Transfer-Encoding: chunked"):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
            part = b"x" * (1 << 20)
            for _ in range(count):
                connection.sendall(b"100000\r\n" + part + b"\r\n" if b"chunked" in head else part)
                left += 1
    return left


KINDS: dict[str, Callable[[int, int, random.Random], int]] = {
    attack.__name__: attack for attack in (pipelined, malformed, published, slowly, huge)
}

if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    port_, count_, seed_ = map(int, numbers)
    print(KINDS[kind](port_, count_, random.Random(seed_)))
