"""Tuya devices on loopback: protocol 3.1, 3.3, 3.4 and 3.5 over TCP, and their broadcasts, as bad as a test wants them.

They are written from the protocol facts with `struct`, `hmac` and `cryptography`, and share no code with the library
that they test. Each has an address of its own in 127.0.0.0/8, because the port is the same for all.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import selectors
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

PORT = 6668
START, RESPONSE, FINISH, STATUS, BEAT, QUERY, CONTROL_NEW, QUERY_NEW, REFRESH = 3, 4, 5, 8, 9, 0x0A, 0x0D, 0x10, 0x12
BROADCAST_KEY = hashlib.md5(b"yGAdlopoPVldABfn").digest()
KEY = "0123456789abcde<"


def a_plug(power_w: float = 86.1) -> dict[str, Any]:
    return {"1": True, "9": 0, "17": 123, "18": 412, "19": round(power_w * 10), "20": 2384, "21": 1, "26": 0}


def an_address() -> str:
    """An address of this machine that nobody else uses, as far as chance goes."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"


def ecb(key: bytes, data: bytes, *, pad: bool = True) -> bytes:
    if pad:
        missing = 16 - len(data) % 16
        data += bytes([missing]) * missing
    encryptor = Cipher(AES(key), ECB()).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def un_ecb(key: bytes, data: bytes) -> bytes:
    decryptor = Cipher(AES(key), ECB()).decryptor()
    plain = decryptor.update(data) + decryptor.finalize()
    if not 1 <= plain[-1] <= 16:
        raise ValueError("another key")
    return plain[: -plain[-1]]


def frame_55aa(command: int, sequence: int, body: bytes, key: bytes | None = None) -> bytes:
    """Frame `body`, which begins with a return code where it comes from a device."""
    trailer = 36 if key else 8
    head = struct.pack(">4I", 0x55AA, sequence, command, len(body) + trailer)
    check = hmac.new(key, head + body, "sha256").digest() if key else struct.pack(">I", zlib.crc32(head + body))
    return head + body + check + struct.pack(">I", 0xAA55)


def frame_6699(command: int, sequence: int, body: bytes, key: bytes) -> bytes:
    nonce = os.urandom(12)
    head = struct.pack(">HIII", 0, sequence, command, len(body) + 28)
    sealed = AESGCM(key).encrypt(nonce, body, head)
    return struct.pack(">I", 0x6699) + head + nonce + sealed + struct.pack(">I", 0x9966)


@dataclass
class Client:
    """One connection to a device, seen from the device."""

    socket: socket.socket
    key: bytes
    buffer: bytes = b""
    nonce: bytes = b""
    their_nonce: bytes = b""
    is_agreed: bool = False


@dataclass
class Device:
    """A device that runs until it is closed. What a test changes on it counts from the next message on."""

    version: str = "3.3"
    dps: dict[str, Any] = field(default_factory=a_plug)
    device_id: str = "bf0123456789abcdefghij"
    key: str = KEY
    host: str = field(default_factory=an_address)
    is_silent: bool = False  # takes every connection and says nothing
    hangs_up: bool = False  # takes every connection and ends it
    hangs_up_at: tuple[int, ...] = ()  # at these commands
    is_mute: bool = False  # answers signs of life only
    only_pushes: bool = False  # never answers a question for data points
    remembers: bool = False  # tells what it measured when it was last told to measure
    wants_list: bool = False  # answers a question that names its data points only, as those with 22 characters do
    ends_strangers: bool = False  # hangs up on who speaks another version or has another key; others are just silent
    most_clients: int = 1  # who comes later is hung up on
    children: dict[str, dict[str, Any]] = field(default_factory=dict)  # data points of sub-devices, by cid
    answers_first: bytes = b""  # what it sends to everybody who comes

    def __post_init__(self) -> None:
        self.heard: list[tuple[int, Any]] = []
        self.connections = 0
        self.refused = 0
        self.bad_keys = 0
        self.measured = dict(self.dps)
        self._sequence = 0
        self._lock = threading.RLock()
        self._clients: list[Client] = []
        self._selector = selectors.DefaultSelector()
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._wakes, selectors.EVENT_READ, None)
        self._listener: socket.socket | None = None
        self._listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.host, PORT))
            except OSError:
                listener.close()
                self.host = an_address()
                continue
            listener.listen()
            listener.setblocking(False)
            self._listener = listener
            self._selector.register(listener, selectors.EVENT_READ, None)
            return

    @property
    def clients(self) -> int:
        return len(self._clients)

    def commands(self, *wanted: int) -> list[int]:
        return [command for command, _ in self.heard if not wanted or command in wanted]

    def push(self, dps: dict[str, Any], **fields: Any) -> None:
        """Tell all who are connected, unasked."""
        with self._lock:
            for client in self._clients:
                if client.is_agreed:
                    self._push(client, {"dps": dps, "t": 1, **fields})

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        with self._lock:
            for client in self._clients:
                self._send(client, data)

    def drop(self) -> None:
        """End all connections."""
        with self._lock:
            for client in [*self._clients]:
                self._forget(client)

    def unplug(self) -> None:
        """Be gone: nobody listens any more."""
        with self._lock:
            if self._listener:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self.drop()

    def plug_in(self) -> None:
        with self._lock:
            self._listen()
            self._waker.send(b"x")

    def close(self) -> None:
        self._waker.close()
        self._thread.join(10)
        self.unplug()
        self._wakes.close()
        self._selector.close()

    def broadcast(self) -> bytes:
        """What it tells everybody every few seconds."""
        fields = {
            "ip": self.host,
            "gwId": self.device_id,
            "active": 2,
            "encrypt": True,
            "productKey": "keyjup78v54myhan",
        }
        return a_broadcast({**fields, "version": self.version})

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                with self._lock:
                    if key.fileobj is self._wakes:
                        if not self._wakes.recv(64):
                            return
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._clients:
                        self._receive(key.data)

    def _accept(self) -> None:
        assert self._listener
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self.connections += 1
        if self.hangs_up or len(self._clients) >= self.most_clients:
            self.refused += 1
            connection.close()
            return
        client = Client(connection, self.key.encode("latin1"))
        client.is_agreed = self.version < "3.4"
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)
        if self.answers_first:
            self._send(client, self.answers_first)

    def _forget(self, client: Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        client.socket.close()

    def _receive(self, client: Client) -> None:
        try:
            data = client.socket.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._forget(client)
            return
        if self.is_silent:
            return
        client.buffer += data
        while client in self._clients and (message := self._next(client)):
            self._answer(client, *message)

    def _next(self, client: Client) -> tuple[int, bytes] | None:
        """Cut off the next message that is meant for this version and signed with this key."""
        buffer = client.buffer
        if self.version == "3.5":
            if buffer[:4] != b"\0\0\x66\x99" or len(buffer) < 18:
                return self._wonder(client, b"\0\0\x66\x99")
            _, _, command, length = struct.unpack(">HIII", buffer[4:18])
            end = 18 + length + 4
            if len(buffer) < end:
                return None
            client.buffer = buffer[end:]
            try:
                plain = AESGCM(client.key).decrypt(buffer[18:30], buffer[30 : end - 4], buffer[4:18])
                return command, plain.removeprefix(b"3.5" + bytes(12))
            except InvalidTag:
                return self._refuse_key(client)
        if buffer[:4] != b"\0\0\x55\xaa" or len(buffer) < 16:
            return self._wonder(client, b"\0\0\x55\xaa")
        _, _, command, length = struct.unpack(">4I", buffer[:16])
        end = 16 + length
        if len(buffer) < end:
            return None
        client.buffer = buffer[end:]
        if self.version == "3.4":
            body, check = buffer[16 : end - 36], buffer[end - 36 : end - 4]
            if check != hmac.new(client.key, buffer[: end - 36], "sha256").digest():
                return self._refuse_key(client)
            return command, un_ecb(client.key, body).removeprefix(b"3.4" + bytes(12)) if body else b""
        body, check = buffer[16 : end - 8], buffer[end - 8 : end - 4]
        if check != struct.pack(">I", zlib.crc32(buffer[: end - 8])):
            return self._wonder(client)  # 3.4 speaks like this
        if self.version == "3.1":
            return command, body
        try:
            return command, un_ecb(client.key, body.removeprefix(b"3.3" + bytes(12)))
        except ValueError:
            self.bad_keys += 1
            return command, b"{}"  # it answers all the same, with its own key

    def _refuse_key(self, client: Client) -> None:
        """Whoever has another key hears nothing."""
        self.bad_keys += 1
        if self.ends_strangers:
            self._forget(client)

    def _wonder(self, client: Client, prefix: bytes = b"") -> None:
        """A message that is not whole yet, or one of another version."""
        if self.ends_strangers and not (prefix and prefix.startswith(client.buffer[:4])):
            self._forget(client)

    def _answer(self, client: Client, command: int, body: bytes) -> None:
        if command == START:
            self._agree(client, body)
            return
        if command == FINISH:
            self._finish(client, body)
            return
        content = json.loads(body) if body[:1] == b"{" else body
        self.heard.append((command, content))
        if command in self.hangs_up_at:
            self._forget(client)
        elif command == BEAT:
            self._reply(client, command, b"")
        elif command == REFRESH:
            self._measure(client, command, content)
        elif command in (QUERY, QUERY_NEW, CONTROL_NEW) and not self.is_mute and not self.only_pushes:
            self._tell(client, command, content)

    def _measure(self, client: Client, command: int, content: Any) -> None:
        changed = {dp: value for dp, value in self.dps.items() if self.measured.get(dp) != value}
        self.measured = dict(self.dps)
        self._reply(client, command, b"")
        if changed and not self.is_mute:
            self._push(client, {"dps": changed, "t": 1})

    def _tell(self, client: Client, command: int, content: Any) -> None:
        if self.wants_list and command != CONTROL_NEW:
            self._reply(client, command, b"json obj data unvalid")
            return
        dps = self.measured if self.remembers else self.dps
        answer: dict[str, Any] = {"devId": self.device_id, "dps": dps}
        if cid := isinstance(content, dict) and content.get("cid"):
            answer = {"cid": cid, "dps": self.children.get(cid, {})}
        elif self.wants_list:
            answer["dps"] = {dp: dps[dp] for dp in content["dps"] if dp in dps}
        self._reply(client, command, json.dumps(answer).encode())

    def _agree(self, client: Client, nonce: bytes) -> None:
        client.their_nonce, client.nonce = nonce, os.urandom(16)
        self._reply(client, RESPONSE, client.nonce + hmac.new(client.key, nonce, "sha256").digest())

    def _finish(self, client: Client, proof: bytes) -> None:
        if proof != hmac.new(client.key, client.nonce, "sha256").digest():
            self.bad_keys += 1
            self._forget(client)
            return
        mixed = bytes(ours ^ theirs for ours, theirs in zip(client.nonce, client.their_nonce, strict=True))
        if self.version == "3.4":
            client.key = ecb(client.key, mixed, pad=False)
        else:
            client.key = AESGCM(client.key).encrypt(client.their_nonce[:12], mixed, None)[:16]
        client.is_agreed = True

    def _reply(self, client: Client, command: int, plain: bytes) -> None:
        self._sequence += 1
        code = struct.pack(">I", 0)
        match self.version:
            case "3.1":
                data = frame_55aa(command, self._sequence, code + plain)
            case "3.3":
                data = frame_55aa(command, self._sequence, code + (ecb(client.key, plain) if plain else b""))
            case "3.4":
                sealed = ecb(client.key, plain) if plain else b""
                data = frame_55aa(command, self._sequence, code + sealed, client.key)
            case _:
                data = frame_6699(command, self._sequence, code + plain, client.key)
        self._send(client, data)

    def _push(self, client: Client, content: dict[str, Any]) -> None:
        self._sequence += 1
        plain = json.dumps(content).encode()
        code = struct.pack(">I", 0)
        match self.version:
            case "3.1":
                sealed = base64.b64encode(ecb(client.key, plain))
                sign = hashlib.md5(b"data=" + sealed + b"||lpv=3.1||" + client.key).hexdigest()[8:24].encode()
                data = frame_55aa(STATUS, self._sequence, code + b"3.1" + sign + sealed)
            case "3.3":
                data = frame_55aa(STATUS, self._sequence, code + b"3.3" + bytes(12) + ecb(client.key, plain))
            case "3.4":
                inner = {"protocol": 4, "t": 1, "data": content}
                sealed = ecb(client.key, b"3.4" + bytes(12) + json.dumps(inner).encode())
                data = frame_55aa(STATUS, self._sequence, code + sealed, client.key)
            case _:
                inner = {"protocol": 4, "t": 1, "data": content}
                body = code + b"3.5" + bytes(12) + json.dumps(inner).encode()
                data = frame_6699(STATUS, self._sequence, body, client.key)
        self._send(client, data)

    def _send(self, client: Client, data: bytes) -> None:
        with contextlib.suppress(OSError):
            client.socket.sendall(data)


def a_broadcast(fields: dict[str, Any]) -> bytes:
    """A broadcast as a device of that version sends it."""
    plain = json.dumps(fields).encode()
    match fields.get("version"):
        case "3.1":
            return frame_55aa(0, 0, bytes(4) + plain)
        case "3.5":
            return frame_6699(0x13, 0, bytes(4) + plain, BROADCAST_KEY)
        case _:
            return frame_55aa(0x13, 0, bytes(4) + ecb(BROADCAST_KEY, plain))


@contextmanager
def plugged_in(*devices: Device) -> Iterator[None]:
    try:
        yield
    finally:
        for device in devices:
            device.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """An address where whoever knocks waits for ever: a queue that is full and that nobody empties."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        while True:
            host = an_address()
            try:
                listener.bind((host, PORT))
                break
            except OSError:
                continue
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, PORT))
        yield host
