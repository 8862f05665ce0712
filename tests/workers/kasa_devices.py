"""Plugs and strips of our own, on loopback addresses and the ports of the real ones, written from the protocols' facts.

Each `Home` is a network of its own: 127.x.y.0/24, where 127.x.y.255 stands for its broadcast address. The ciphers are
not those of python-kasa, so that the two sides check each other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from workers.kasa import Kasa, Options

LEGACY_PORT = 9999
CALL_PORT = 20002  # where newer plugs listen for calls over UDP
UNKNOWN_METHOD = -1002


class Device:
    """What all of them have: an address, a mood, and a count of what they were asked."""

    def __init__(self, number: int, *, mac: str = "", alias: str = "Fridge") -> None:
        self.number = number  # the last part of the address
        self.mac = mac or f"50:C7:BF:00:11:{number:02X}"
        self.id = hashlib.sha1(self.mac.encode()).hexdigest().upper()
        self.alias = alias
        self.silent = False  # takes connections and never answers
        self.garbage: bytes | None = None  # what it answers instead
        self.answers_calls = True
        self.questions: list[Any] = []
        self.power_mw: Any = 86123
        self.voltage_mv: Any = 238412
        self.current_ma: Any = 412
        self.total_wh: Any = 12345
        self.connected = 0  # how often somebody did
        self.connections: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self.address = ""
        self.port = LEGACY_PORT

    async def start(self, address: str) -> None:
        self.address = address

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        for writer in [*self.connections]:
            writer.transport.abort()
        self._servers, self._sockets = [], []

    def called(self, port: int, reply: Callable[[bytes], None], data: bytes) -> None:
        """Somebody calls over UDP, to us or to everybody."""

    async def listen(self, port: int, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> int:
        async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connected += 1
            self.connections.add(writer)
            try:
                await serve(reader, writer)
            except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                self.connections.discard(writer)
                writer.transport.abort()

        server = await asyncio.start_server(guarded, self.address, port)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    def listen_for_calls(self, port: int) -> None:
        ours = udp(self.address, port)
        self._sockets.append(ours)

        def ready() -> None:
            with contextlib.suppress(OSError):
                data, sender = ours.recvfrom(65536)
                self.reply_to(sender, port, data)

        asyncio.get_running_loop().add_reader(ours, ready)

    def reply_to(self, sender: Any, port: int, data: bytes) -> None:
        ours = next((one for one in self._sockets if one.getsockname()[1] == port), None)
        if ours and self.answers_calls:
            self.called(port, lambda answer: ours.sendto(answer, sender) and None, data)  # type: ignore[func-returns-value]


class Legacy(Device):
    """XOR on TCP and UDP 9999: an HS110, or with `outlets` an HS300."""

    def __init__(self, number: int, *, outlets: tuple[str, ...] = (), meter: bool = True, **more: Any) -> None:
        super().__init__(number, **more)
        self.outlets = outlets
        self.meter = meter
        self.old_units = False
        self.sysinfo: dict[str, Any] = {}  # what is different
        self.realtime: dict[str, Any] | None = None  # all of it, if it is different

    async def start(self, address: str) -> None:
        await super().start(address)
        await self.listen(LEGACY_PORT, self._serve)
        self.listen_for_calls(LEGACY_PORT)

    def called(self, port: int, reply: Callable[[bytes], None], data: bytes) -> None:
        question = json.loads(unscrambled(data))
        reply(scrambled(json.dumps(self.answer(question)).encode()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            question = json.loads(unscrambled(await reader.readexactly(length)))
            if self.silent:
                continue
            answer = self.garbage
            if answer is None:
                content = scrambled(json.dumps(self.answer(question)).encode())
                answer = struct.pack(">I", len(content)) + content
            writer.write(answer)
            await writer.drain()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        self.questions.append(question)
        context = question.get("context", {})
        outlet = (context.get("child_ids") or [""])[0]
        return {
            module: self._module(module, commands, outlet)
            for module, commands in question.items()
            if module != "context"
        }

    def _module(self, module: str, commands: dict[str, Any], outlet: str) -> dict[str, Any]:
        if module == "system":
            return {command: self._sysinfo() for command in commands}
        if module == "time":
            now = {"year": 2026, "month": 11, "mday": 20, "hour": 13, "min": 0, "sec": 0, "err_code": 0}
            return {command: now if command == "get_time" else {"index": 39, "err_code": 0} for command in commands}
        if module != "emeter" or not self.meter:
            return {"err_code": -1, "err_msg": "module not support"}
        known = {
            "get_realtime": self._realtime(outlet),
            "get_daystat": {"day_list": [], "err_code": 0},
            "get_monthstat": {"month_list": [], "err_code": 0},
        }
        return {command: known.get(command, {"err_code": -2}) for command in commands}

    def _sysinfo(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            "sw_ver": "1.0.4 Build 191111 Rel.143500",
            "hw_ver": "1.0",
            "model": "HS110(UK)",
            "deviceId": self.id,
            "oemId": "0" * 32,
            "hwId": "0" * 32,
            "rssi": -56,
            "alias": self.alias,
            "mac": self.mac,
            "mic_type": "IOT.SMARTPLUGSWITCH",
            "feature": "TIM:ENE" if self.meter else "TIM",
            "updating": 0,
            "led_off": 0,
            "relay_state": 1,
            "on_time": 3600,
            "active_mode": "none",
            "icon_hash": "",
            "dev_name": "Plug",
            "err_code": 0,
            "latitude_i": 0,
            "longitude_i": 0,
        }
        if self.outlets:
            children = [
                {"id": f"{self.id}{at:02d}", "alias": alias, "state": 1, "on_time": 5, "next_action": {"type": -1}}
                for at, alias in enumerate(self.outlets)
            ]
            info |= {"model": "HS300(US)", "children": children, "child_num": len(children)}
        return {**info, **self.sysinfo}

    def _realtime(self, outlet: str) -> dict[str, Any]:
        if self.realtime is not None:
            return self.realtime
        share = int(outlet[-2:]) + 1 if outlet else 1  # the second outlet of a strip takes twice as much as the first
        if self.old_units:
            return {
                "voltage": self.voltage_mv / 1000,
                "current": self.current_ma * share / 1000,
                "power": self.power_mw * share / 1000,
                "total": self.total_wh * share / 1000,
                "err_code": 0,
            }
        by = share if outlet else 1
        times = lambda value: value * by if by != 1 else value  # noqa: E731 - the value may be nonsense
        return {
            "voltage_mv": self.voltage_mv,
            "current_ma": times(self.current_ma),
            "err_code": 0,
            "power_mw": times(self.power_mw),
            "total_wh": times(self.total_wh),
        }


class Klap(Device):
    """KLAP over HTTP, version 1 or 2; what is inside is the legacy dialect or the SMART one."""

    def __init__(
        self,
        number: int,
        *,
        version: int = 2,
        username: str = "user@example.com",
        password: str = "great_password",
        methods: tuple[str, ...] = ("get_energy_usage",),
        component: int = 1,
        outlets: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        super().__init__(number, **more)
        self.version = version
        self.username, self.password = username, password
        self.methods = methods
        self.component = component
        self.outlets = outlets
        self.encrypt_type = "KLAP"
        self.family = "IOT.SMARTPLUGSWITCH" if version == 1 else "SMART.TAPOPLUG"
        self.handshakes = 0
        self.port = 0
        self.raw: dict[str, Any] = {}  # what methods answer, where that is different
        self._inside = Legacy(number, mac=self.mac, alias=self.alias)
        self._sessions: dict[str, tuple[bytes, bytes, bytes]] = {}

    async def start(self, address: str) -> None:
        await super().start(address)
        self.port = await self.listen(self.port, self._serve)
        self.listen_for_calls(CALL_PORT)

    def forget_sessions(self) -> None:
        self._sessions.clear()

    def called(self, port: int, reply: Callable[[bytes], None], data: bytes) -> None:
        scheme = {"is_support_https": False, "encrypt_type": self.encrypt_type, "http_port": self.port, "lv": 2}
        if self.version == 1:
            del scheme["lv"]
        result = {
            "device_type": self.family,
            "device_model": "P110(UK)",
            "device_id": "00" * 16,
            "ip": self.address,
            "mac": self.mac.replace(":", "-"),
            "mgt_encrypt_schm": scheme,
        }
        reply(b"\x02\x00\x00\x01" + bytes(12) + json.dumps({"result": result, "error_code": 0}).encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            target = head.split(" ", 2)[1]
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if self.silent:
                continue
            status, cookie, content = self._respond(target, headers.get("cookie", ""), body)
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
            if cookie:
                lines.append(f"Set-Cookie: {cookie}")
            writer.write("\r\n".join([*lines, "", ""]).encode() + content)
            await writer.drain()

    def _respond(self, target: str, cookie: str, body: bytes) -> tuple[int, str, bytes]:
        path, _, query = target.partition("?")
        session = dict(part.strip().partition("=")[::2] for part in cookie.split(";")).get("TP_SESSIONID", "")
        if path == "/app/handshake1":
            self.handshakes += 1
            remote, session = secrets.token_bytes(16), secrets.token_hex(16)
            auth = self._auth_hash()
            self._sessions[session] = body, remote, auth
            proof = sha256(body + auth) if self.version == 1 else sha256(body + remote + auth)
            return 200, f"TP_SESSIONID={session};TIMEOUT=86400", remote + proof
        if session not in self._sessions:
            return 403, "", b""
        local, remote, auth = self._sessions[session]
        if path == "/app/handshake2":
            proof = sha256(remote + auth) if self.version == 1 else sha256(remote + local + auth)
            return (200 if body == proof else 403), "", b""
        sequence = struct.pack(">i", int(query.removeprefix("seq=")))
        seeds = local + remote + auth
        signature = sha256(b"ldk" + seeds)[:28]
        if body[:32] != sha256(signature + sequence + body[32:]):
            return 400, "", b""
        cipher = Cipher(algorithms.AES(sha256(b"lsk" + seeds)[:16]), modes.CBC(sha256(b"iv" + seeds)[:12] + sequence))
        decryptor = cipher.decryptor()
        plain = decryptor.update(body[32:]) + decryptor.finalize()
        answer = self.garbage if self.garbage is not None else self._answer(json.loads(plain[: -plain[-1]]))
        padding = 16 - len(answer) % 16
        encryptor = cipher.encryptor()
        content = encryptor.update(answer + bytes([padding]) * padding) + encryptor.finalize()
        return 200, "", sha256(signature + sequence + content) + content

    def _auth_hash(self) -> bytes:
        name, word = self.username.encode(), self.password.encode()
        if self.version == 1:
            return hashlib.md5(hashlib.md5(name).digest() + hashlib.md5(word).digest()).digest()
        return sha256(hashlib.sha1(name).digest() + hashlib.sha1(word).digest())

    def _answer(self, question: dict[str, Any]) -> bytes:
        self.questions.append(question)
        if self.version == 1:
            inside = self._inside
            inside.power_mw, inside.voltage_mv = self.power_mw, self.voltage_mv
            inside.current_ma, inside.total_wh = self.current_ma, self.total_wh
            return json.dumps(inside.answer(question)).encode()
        return json.dumps(self._method(question["method"], question.get("params"))).encode()

    def _method(self, method: str, params: Any, outlet: int | None = None) -> dict[str, Any]:
        if method == "multipleRequest":
            responses = []
            for one in params["requests"]:
                responses.append({"method": one["method"], **self._method(one["method"], one.get("params"), outlet)})
                if responses[-1]["error_code"]:
                    break  # as real ones do: what comes after an error is not answered
            return {"result": {"responses": responses}, "error_code": 0}
        if method == "control_child":
            number = [f"{self.id}{at:02d}" for at in range(len(self.outlets))].index(params["device_id"])
            request = params["requestData"]
            return {
                "result": {"responseData": self._method(request["method"], request.get("params"), number)},
                "error_code": 0,
            }
        result = self.raw.get(method, self._result(method, outlet))
        return {"error_code": UNKNOWN_METHOD} if result is None else {"result": result, "error_code": 0}

    def _result(self, method: str, outlet: int | None) -> Any:
        share = 1 if outlet is None else outlet + 1
        children = [
            {
                "device_id": f"{self.id}{at:02d}",
                "nickname": base64.b64encode(alias.encode()).decode(),
                "position": at + 1,
                "category": "plug.powerstrip.sub-plug",
                "device_on": True,
                "model": "P304M",
            }
            for at, alias in reversed([*enumerate(self.outlets)])
        ]
        meter = {"id": "energy_monitoring", "ver_code": self.component}
        device = {"id": "device", "ver_code": 2}
        if method == "component_nego":
            more = {"id": "child_device", "ver_code": 2} if self.outlets else meter
            return {"component_list": [device, more] if self.component else [device]}
        if method == "get_device_info":
            return {
                "device_id": self.id,
                "mac": self.mac.replace(":", "-"),
                "model": "P110",
                "type": self.family,
                "nickname": base64.b64encode(self.alias.encode()).decode(),
                "fw_ver": "1.3.1 Build 240621",
                "hw_ver": "1.0",
                "device_on": True,
                "on_time": 5,
                "specs": "UK",
                "rssi": -50,
                "region": "UTC",
            }
        if method == "get_child_device_component_list" and self.outlets:
            listed = [{"device_id": child["device_id"], "component_list": [device, meter]} for child in children]
            return {"child_component_list": listed, "start_index": 0, "sum": len(listed)}
        if method == "get_child_device_list" and self.outlets:
            return {"child_device_list": children, "start_index": 0, "sum": len(children)}
        if method not in self.methods or (self.outlets and outlet is None):
            return None
        return {
            "get_energy_usage": {
                "today_runtime": 5,
                "month_runtime": 50,
                "today_energy": 120,
                "month_energy": 3120,
                "local_time": "2026-11-20 13:00:00",
                "current_power": self.power_mw * share,
            },
            "get_emeter_vgain_igain": {"igain": 10861, "vgain": 118657},
            "get_current_power": {"current_power": self.power_mw * share // 1000},
            "get_emeter_data": {
                "power_mw": self.power_mw * share,
                "voltage_mv": self.voltage_mv,
                "energy_wh": 971,
                "current_ma": self.current_ma * share,
            },
        }.get(method)


class BlackHole(Device):
    """Takes connections on 9999 and never says a word."""

    async def start(self, address: str) -> None:
        await super().start(address)
        await self.listen(LEGACY_PORT, self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            self.questions.append("something")


class Home:
    """A network of plugs in a thread of its own. Everything that touches it from outside goes through `run`."""

    def __init__(self, *devices: Device) -> None:
        self.devices = [*devices]
        self.calls = 0  # to everybody
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ears: list[socket.socket] = []
        self.network = ""

    @property
    def broadcast(self) -> str:
        return f"{self.network}.255"

    def at(self, number: int) -> str:
        return f"{self.network}.{number}"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.run(self._start())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def plug_in(self, device: Device, number: int | None = None) -> None:
        """Start a device, perhaps at another address than before."""
        device.number = device.number if number is None else number
        if device not in self.devices:
            self.devices.append(device)
        self.run(device.start(self.at(device.number)))

    def pull_out(self, device: Device) -> None:
        self.run(device.stop())

    def hang_up(self, device: Device) -> None:
        """Close the connections of a device, as an idle one does."""

        async def abort() -> None:
            for writer in [*device.connections]:
                writer.transport.abort()

        self.run(abort())

    async def _start(self) -> None:
        while not self._ears:
            self.network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
            with contextlib.suppress(OSError):  # another test has this one
                self._ears = [udp(self.broadcast, port) for port in (LEGACY_PORT, CALL_PORT)]
        for ear, port in zip(self._ears, (LEGACY_PORT, CALL_PORT), strict=True):
            self._loop.add_reader(ear, self._hear, ear, port)
        for device in self.devices:
            await device.start(self.at(device.number))

    async def _stop(self) -> None:
        for ear in self._ears:
            self._loop.remove_reader(ear)
            ear.close()
        for device in self.devices:
            await device.stop()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hear(self, ear: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            data, sender = ear.recvfrom(65536)
            self.calls += 1
            for device in self.devices:
                device.reply_to(sender, port, data)


ACCOUNT = {"KASA_USERNAME": "user@example.com", "KASA_PASSWORD": "great_password"}


class Bench:
    """A source, and a clock that stands still between rounds until a test moves it."""

    def __init__(self, source: Kasa) -> None:
        self.source, self.clock_s = source, 1000.0
        source.now_s = lambda: self.clock_s

    def round(self, after_s: float = 10.0) -> dict[str, dict[str, Any]]:
        self.clock_s += after_s
        return {reading.device: dict(reading.values) for reading in self.source.read()}

    def until(self, device: str, rounds: int = 12, after_s: float = 70.0) -> list[dict[str, dict[str, Any]]]:
        """Do rounds until a device shows something; return all of them."""
        seen = []
        for _ in range(rounds):
            seen.append(self.round(after_s))
            if device in seen[-1]:
                return seen
        raise AssertionError(f"{device} showed nothing in {rounds} rounds: {self.troubles}")

    @property
    def troubles(self) -> dict[str, str]:
        return self.source.troubles

    @property
    def refused(self) -> dict[str, int]:
        return {reason: count for reason, count in self.source.refused.items() if count}


def at(host: str, name: str = "fridge", **more: Any) -> dict[str, Any]:
    return {"name": name, "host": host, **more}


def options(*devices: dict[str, Any], **changes: Any) -> Options:
    return msgspec.convert({"kind": "kasa", "timeout_s": 2.0, "devices": devices, **changes}, Options)


@contextlib.contextmanager
def reading_from(
    home: Home,
    folder: Path,
    *devices: dict[str, Any],
    with_account: bool = False,
    remembers: bool = True,
    **changes: Any,
) -> Iterator[Bench]:
    """Open a source that reads plugs of a home, and keeps what it knows of them in `folder`."""
    given = {"discovery_target": home.broadcast}
    if with_account:
        given |= {"username_env": "KASA_USERNAME", "password_env": "KASA_PASSWORD"}
    source = Kasa("plugs", options(*devices, **{**given, **changes}))
    source.directory = memory_in(folder).parent if remembers else None
    bench = Bench(source)
    quicker = {"workers.kasa._CALL_S": 0.6, "workers._kasa_plug._CALL_S": 1.0}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, ACCOUNT if with_account else {}))
        for constant, value in quicker.items():  # nobody in these homes needs longer to answer a call
            stack.enter_context(mock.patch(constant, value))
        stack.callback(source.close)
        source.open()
        yield bench


def memory_in(folder: Path) -> Path:
    return folder / "var" / "kasa-plugs.json"


def udp(address: str, port: int) -> socket.socket:
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        ours.bind((address, port))
    except OSError:
        ours.close()
        raise
    return ours


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def scrambled(plain: bytes) -> bytes:
    """XOR each byte with the one before it, in the scrambled text; 171 before the first."""
    key, out = 171, bytearray()
    for byte in plain:
        key ^= byte
        out.append(key)
    return bytes(out)


def unscrambled(data: bytes) -> bytes:
    key, out = 171, bytearray()
    for byte in data:
        out.append(key ^ byte)
        key = byte
    return bytes(out)
