"""One conversation with a Tuya device, as bytes in and bytes out: the library's frames and keys, without its sockets.

tinytuya waits for each answer in blocking calls, which would let one dead plug hold up all others. So its framing,
encryption and key negotiation are used as its own scanner uses them, and `workers/_tuya_link.py` owns the sockets.
`Driver.open()` is the only place that imports it.
"""

from __future__ import annotations

import enum
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workers import SourceError
from workers._tuya_points import points_in

VERSIONS: Final = ("3.3", "3.4", "3.5", "3.1")  # in the order in which they are probed; the last proves no key
_MOST_BUFFER: Final = 8192
_PREFIXES: Final = {"3.5": b"\x00\x00\x66\x99"}
_OLDER_PREFIX: Final = b"\x00\x00\x55\xaa"
# What the decoding of bytes from outside may raise inside the library.
UNDECODABLE: Final = (ValueError, TypeError, LookupError, AttributeError, struct.error, RecursionError)


class Fault(enum.Enum):
    """How it goes wrong with a device."""

    ABSENT = "absent"  # nobody is at the address; tinytuya's 905
    REFUSES = "refuses"  # 901
    HANGS_UP = "hangs up"
    SILENT = "silent"  # 902
    KEY = "key"  # 904, 914
    VERSION = "version"  # it speaks another one
    DAMAGED = "damaged"  # 900
    FLOODS = "floods"
    MUTE = "mute"  # it is there, and tells no data points


class Broken(Exception):  # noqa: N818 - what a device does, not a fault of ours
    """The conversation cannot go on."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Heard:
    """One message: the data points in it, the sub-device that they are of, and whether somebody asked for them."""

    dps: dict[str, Any] = field(default_factory=dict)
    cid: str = ""
    is_answer: bool = False
    malformed: bool = False
    is_stranger: bool = False  # it names another device


class Driver:
    """What is used of tinytuya."""

    def __init__(self) -> None:
        self.library: Any = None

    def open(self) -> None:
        try:
            import tinytuya  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise SourceError(
                f"the package {error.name} is not installed",
                "run: .venv/bin/pip install --require-hashes -r requirements/tuya.txt",
            ) from error
        # In debugging it would log keys, and use the same nonce again and again.
        logging.getLogger("tinytuya").setLevel(logging.WARNING)
        self.library = tinytuya


class Session:
    """One connection's worth of talk, from the first byte on."""

    def __init__(self, driver: Driver, device_id: str, key: str, version: str, cids: Sequence[str] = ()) -> None:
        library = driver.library
        self._library = library
        self._id = device_id
        self.version = version
        # Never without an address or a key: the library would look for them on the network and in the current folder.
        # The version is set after the points: for 3.2 it would ask the device for them, with a socket of its own.
        device = library.Device(device_id, address="0", local_key=key, version=3.3, persist=True)
        device.set_dpsUsed({"1": None})
        device.set_version(float(version))
        self._device = device
        self._asked: list[Any] = [
            library.Device(cid, local_key=key, cid=cid, parent=device) if cid else device for cid in cids or ("",)
        ]
        self._buffer = b""
        self.is_ready = version not in ("3.4", "3.5")
        self.is_proven = False  # that both sides have the same key
        self.wants_again = False  # the device has to be asked in another way

    def hello(self) -> bytes:
        """Return what to send first: nothing before 3.4."""
        if self.is_ready:
            return b""
        return self._encode(self._device._negotiate_session_key_generate_step_1())

    def query(self, dps: Sequence[int]) -> bytes:
        """Ask for all data points; those that are named are only for the devices that have to be told."""
        self._device.set_dpsUsed({str(dp): None for dp in dps} or {"1": None})
        self.wants_again = False
        return self._for_each(self._library.DP_QUERY)

    def refresh(self, dps: Sequence[int]) -> bytes:
        """Ask a device to measure anew: many else tell for hours what they measured last."""
        return self._for_each(self._library.UPDATEDPS, [*dps])

    def beat(self) -> bytes:
        return self._encode(self._device.generate_payload(self._library.HEART_BEAT))

    def feed(self, data: bytes) -> tuple[list[Heard], bytes]:
        """Take what arrived; return the messages in it, and what to send now. Raises `Broken`."""
        self._buffer += data
        heard: list[Heard] = []
        answer = b""
        while (frame := self._next_frame()) is not None:
            message = self._unpack(frame)
            if not self.is_ready:
                answer += self._agree(message)
            elif message.payload:
                heard.append(self._read(message))
            else:
                heard.append(Heard())
        return heard, answer

    def _next_frame(self) -> bytes | None:
        """Cut the next whole frame off what arrived."""
        buffer = self._buffer
        prefix = _PREFIXES.get(self.version, _OLDER_PREFIX)
        if not prefix.startswith(buffer[:4]):
            if buffer.startswith((_OLDER_PREFIX, *_PREFIXES.values())):
                raise Broken(Fault.VERSION)
            raise Broken(Fault.DAMAGED)
        if len(buffer) < 18:
            return None
        try:
            length = self._library.parse_header(buffer).total_length
        except self._library.DecodeError as error:
            raise Broken(Fault.DAMAGED) from error
        if length > _MOST_BUFFER:
            raise Broken(Fault.DAMAGED)
        if len(buffer) < length:
            return None
        self._buffer = buffer[length:]
        return buffer[:length]

    def _unpack(self, frame: bytes) -> Any:
        key = self._device.local_key if self.version in ("3.4", "3.5") else None
        try:
            message = self._library.unpack_message(frame, hmac_key=key, no_retcode=False)
        except (self._library.DecodeError, *UNDECODABLE) as error:
            raise Broken(Fault.DAMAGED) from error
        if not message.crc_good:
            # With a key it is a signature: whoever sent this has another key, or no say.
            raise Broken(Fault.KEY if key and not self.is_proven else Fault.DAMAGED)
        return message

    def _agree(self, message: Any) -> bytes:
        """Answer the device's half of the negotiation."""
        try:
            finish = self._device._negotiate_session_key_generate_step_3(message)
        except UNDECODABLE as error:
            raise Broken(Fault.KEY) from error
        if not finish:
            raise Broken(Fault.KEY)
        answer = self._encode(finish)
        self._device._negotiate_session_key_generate_finalize()
        self.is_ready = self.is_proven = True
        return answer

    def _read(self, message: Any) -> Heard:
        kind = self._device.dev_type
        try:
            content = self._device._decode_payload(message.payload)
        except UNDECODABLE:
            return self._unread(None, message.payload)
        if self._device.dev_type != kind:  # it does not take the usual question; the library has noted how to ask
            self.wants_again = self.is_proven = True
            return Heard(is_answer=True)
        if not isinstance(content, dict) or "Err" in content:
            return self._unread(content, message.payload)
        if self.version != "3.1":
            self.is_proven = True
        data = content.get("data")
        cid = content.get("cid") or (data.get("cid") if isinstance(data, dict) else "")
        named = content.get("devId")
        return Heard(
            points_in(content),
            cid if isinstance(cid, str) else "",
            message.cmd in (self._library.DP_QUERY, self._library.DP_QUERY_NEW, self._library.CONTROL_NEW),
            is_stranger=isinstance(named, str) and not cid and named != self._id,
        )

    def _unread(self, content: Any, payload: bytes) -> Heard:
        """Judge what could not be read: words are an error message of the device, anything else is of another key."""
        words: Any = content.get("Payload") if isinstance(content, dict) and content.get("Err") == "900" else ""
        if self.version == "3.1" and not payload.startswith(b"3.1"):
            words = payload.decode("ascii", "replace")
            if not words.isprintable():
                raise Broken(Fault.VERSION)
        if not self.is_proven and not (isinstance(words, str) and words):
            raise Broken(Fault.KEY)
        return Heard(malformed=True)

    def _for_each(self, command: int, data: Any = None) -> bytes:
        return b"".join(self._encode(device.generate_payload(command, data)) for device in self._asked)

    def _encode(self, payload: Any) -> bytes:
        encoded: bytes = self._device._encode_message(payload)
        return encoded
